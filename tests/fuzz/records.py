"""Signed records that people and nodes hand to each other, and invitations.

A record that was changed is refused for its signature before much else is looked at. So it is
signed anew, by the keys that it should have, and read again.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from crypto.labels import digest
from crypto.signing import Signer
from protocol import codec, keygrant
from protocol.armour import armour, dearmour
from protocol.errors import LimitExceeded, NotCanonical, Unauthentic, Untrusted
from protocol.fork import verify_fork
from protocol.identity import (
    certify_device,
    certify_user,
    read_link,
    request_device,
    request_link,
    request_user,
    sign_card,
    sign_charter,
    sign_prekey,
    verify_card,
    verify_charter,
    verify_device,
    verify_prekey,
    verify_user,
)
from protocol.invitation import PREFIX, Invitation, decode_invitation, encode_invitation
from protocol.limits import CARD_BYTES_MAX
from protocol.listing import verify_head, verify_split
from protocol.receipt import sign_receipt, verify_receipt
from protocol.testing.cast import agency, person, seed
from tests.fuzz.mutation import after, tree
from tests.fuzz.seeds import cases, raw
from tests.fuzz.target import target

_MZ, _ANNA = agency("mz"), person("anna@mz")
_CHARTER = verify_charter(_MZ.charter)
_NODE = Signer(seed("mz", "node"))
_DEVICE = _ANNA.signers[0]
_SIGNERS = {one.public: one for who in (_ANNA, person("clara@mvd")) for one in who.signers}
_SUM_BYTES = 4

Again = Callable[[], bytes]  # signs what was read, from its fields


class _Kind(NamedTuple):
    """How one kind of record is signed, and read."""

    label: str
    keys: Sequence[Signer]
    read: Callable[[bytes], Again]


def _charter(record: bytes) -> Again:
    one = verify_charter(record)
    fields = one.serial, one.name, one.zone, one.registrar, one.archive
    return lambda: sign_charter(_MZ.root, *fields)


def _card(record: bytes) -> Again:
    one = verify_card(dearmour("CARD", armour("CARD", record), CARD_BYTES_MAX))
    return lambda: sign_card(_MZ.root, one.charter.raw, one.ca, one.nodes, one.issued)


def _user(record: bytes) -> Again:
    one = verify_user(record, _CHARTER)
    asked = request_user(_ANNA.identity, one.agency, one.name, one.issued)
    return lambda: certify_user(_MZ.registrar, asked)


def _device(record: bytes) -> Again:
    one = verify_device(record, _CHARTER)
    asked = request_device(_ANNA.identity, _SIGNERS[one.device], one.agency, one.label, one.issued)
    return lambda: certify_device(_MZ.registrar, asked)


def _link(record: bytes) -> Again:
    one = read_link(record)
    signer = _SIGNERS[one.device]
    return lambda: request_link(signer, one.user, one.agency, one.label, one.issued)


def _prekey(record: bytes) -> Again:
    one = verify_prekey(record)
    signer = _SIGNERS[one.device]
    return lambda: sign_prekey(signer, one.public, one.issued)


def _receipt(record: bytes) -> Again:
    one = verify_receipt(record)
    return lambda: sign_receipt(_NODE, one)


def _grant(record: bytes) -> Again:
    found = keygrant.read(record)
    if isinstance(found, keygrant.Granted):
        return lambda: record
    signer, fields = _SIGNERS[found.sender], (found.chat, found.epochs, found.receiver)
    return lambda: keygrant.sign_ask(signer, *fields, found.record)


def _as_it_is(read: Callable[[bytes], object]) -> Callable[[bytes], Again]:
    """Of what only several keys can make."""

    def taken(record: bytes) -> Again:
        read(record)
        return lambda: record

    return taken


KINDS: Final[Mapping[str, _Kind]] = {
    "charter": _Kind("charter", [_MZ.root], _charter),
    "card": _Kind("card", [_MZ.root], _card),
    "user": _Kind("user", [_MZ.registrar, _ANNA.identity], _user),
    "device": _Kind("device", [_MZ.registrar, _ANNA.identity, _DEVICE], _device),
    "link": _Kind("device", [_DEVICE], _link),
    "prekey": _Kind("prekey", [_DEVICE], _prekey),
    "receipt": _Kind("receipt", [_NODE], _receipt),
    "grant": _Kind(keygrant.LABEL, [_DEVICE], _grant),
    "head": _Kind("directory", [_MZ.registrar], _as_it_is(verify_head)),
    "proof": _Kind("", [], _as_it_is(verify_split)),
    "fork": _Kind("", [], _as_it_is(verify_fork)),
}
_ORDER: Final = list(KINDS)


def _read(data: bytes) -> tuple[bytes, Again]:
    kind = KINDS[_ORDER[(data[0] if data else 0) % len(_ORDER)]]
    record = data[1:]
    try:
        return record, kind.read(record)
    except (Untrusted, Unauthentic):
        signed = _signed(record, kind)
        return signed, kind.read(signed)


def _signed(record: bytes, kind: _Kind) -> bytes:
    body = codec.binary(codec.decode(record, len(record))[0], len(record), "body")
    return codec.encode((body, *(key.sign(kind.label, body) for key in kind.keys)))


def _law(_: bytes, found: tuple[bytes, Again]) -> None:
    """A record is what its owners sign of the fields that were read."""
    record, again = found
    assert record == again()


def _seeds() -> Iterator[bytes]:
    fields = [(file, "raw", None) for file in ("identity", "directories")]
    for file, field, known in (*fields, ("grants", "parcel", "grant"), ("forks", "proof", "fork")):
        for case in cases(file):
            kind = known or str(case["what"]).replace("listing", "head")
            if kind in KINDS:
                yield bytes([_ORDER.index(kind)]) + raw(case[field])


# Invitations


def _read_invitation(data: bytes) -> Invitation:
    """Read a text. Other bytes are what one is made of, so that its sum is right."""
    if data.startswith(PREFIX.encode()):
        return decode_invitation(data.decode(errors="replace"))
    body = data + digest("invitation", data)[:_SUM_BYTES]
    return decode_invitation(PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("="))


def _invitation_law(_: bytes, invitation: Invitation) -> None:
    assert decode_invitation(encode_invitation(invitation)) == invitation


def _invitations() -> Iterator[bytes]:
    for case in cases("invitations"):
        text = str(case["text"])
        yield text.encode()
        if "result" in case:
            encoded = "".join(text.split()).removeprefix(PREFIX)
            yield base64.urlsafe_b64decode(encoded + "==")[:-_SUM_BYTES]


TARGETS: Final = {
    "records": target(
        _read, _law, (NotCanonical, LimitExceeded, Untrusted, Unauthentic), _seeds, after(1, tree)
    ),
    "invitations": target(
        _read_invitation,
        _invitation_law,
        (NotCanonical, LimitExceeded, Untrusted),
        _invitations,
        tree,
    ),
}
