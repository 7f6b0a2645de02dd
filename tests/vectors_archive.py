"""Vectors of what a device hands to a further one of its user: history, in parcels (SPEC 5.6)."""

from collections.abc import Sequence
from typing import Final

from client.archive import LABEL
from crypto.sealing import prekey_id
from protocol import codec, identity
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Untrusted
from protocol.testing.cast import ISSUED_MS, Person, agency, person, prekey
from tests.vectors import ARCHIVE_LETTERS, Case, Value, drawn, invalid, valid

ANNA: Final = person("anna@mz")
BORIS: Final = person("boris@mz")
HOME: Final = agency("mz")
OLD, NEW = ANNA.devices[:2]


def archives() -> list[Case]:
    """The only parcel of a history, and parcels that a device must not believe."""
    good = parcel(fields())
    letters: Value = [list(one) for one in ARCHIVE_LETTERS]
    result: dict[str, Value] = {"part": 0, "parts": 1, "letters": letters}
    flipped = drawn("archive")[:-1] + bytes([drawn("archive")[-1] ^ 1])
    borrowed = changed(1, BORIS.devices[0])
    foreign = [1, BORIS.devices[0], BORIS.certificates[0], *fields()[3:]]
    made: list[tuple[str, type[PeerError], bytes]] = [
        ("a byte of the bundle", Untrusted, parcel(changed(7, flipped))),
        ("to another device", Untrusted, parcel(changed(3, BORIS.devices[0]))),
        ("for another prekey", Untrusted, parcel(changed(4, bytes(16)))),
        ("a part moved", NotCanonical, parcel(changed(5, b"0"))),
        ("part 65,536", LimitExceeded, parcel(changed(5, 65_536))),
        ("65,537 parts", LimitExceeded, parcel(changed(6, 65_537))),
        ("part 1 of 1", Untrusted, parcel(changed(5, 1))),
        ("part 1 beside a history", Untrusted, parcel([*fields()[:5], 1, 0, fields()[7]])),
        ("a field too few", NotCanonical, parcel(fields()[:-1])),
        ("by a device of another user", Untrusted, parcel(foreign, BORIS)),
        ("with the certificate of another device", Untrusted, parcel(borrowed)),
        ("signed by another device", Untrusted, parcel(fields(), BORIS)),
        ("signed under another label", Untrusted, parcel(fields(), label="grant")),
    ]
    return [
        valid("a history in one parcel", result, **_inputs(good)),
        valid("what is owed beside it", result | {"parts": 0}, **_inputs(parcel(changed(6, 0)))),
        *(invalid(name, error, **_inputs(raw)) for name, error, raw in made),
        invalid("by a device that was given up", Untrusted, **_inputs(good) | {"revoked": [OLD]}),
    ]


def fields() -> list[codec.Value]:
    """Return the fields of the body."""
    named = prekey_id(prekey(NEW).public)
    return [1, OLD, ANNA.certificates[0], NEW, named, 0, 1, drawn("archive")]


def changed(place: int, value: codec.Value) -> list[codec.Value]:
    """Return them with another value at a place."""
    return [*fields()[:place], value, *fields()[place + 1 :]]


def parcel(body: Sequence[codec.Value], who: Person = ANNA, label: str = LABEL) -> bytes:
    """Sign a body with somebody's first device."""
    raw = codec.encode(body)
    return codec.encode((raw, who.signers[0].sign(label, raw)))


def _inputs(raw: bytes) -> dict[str, Value]:
    return {
        "parcel": raw,
        "to": NEW,
        "private": prekey(NEW).private,
        "user": ANNA.certificate,
        "card": identity.sign_card(HOME.root, HOME.charter, drawn("ca"), (), ISSUED_MS),
        "revoked": [],
    }
