"""Vectors of directories: heads, listings, and proofs that two were shown (SPEC 7.5)."""

from crypto import merkle
from protocol import codec
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic, Untrusted
from protocol.identity import VerifiedUser, verify_charter
from protocol.listing import HEAD_BYTES_MAX, Head, contradiction, leaf_of, sign_head
from protocol.testing.cast import ISSUED_MS, agency, credential, person
from tests.vectors import Case, Value, invalid, valid

HOME = agency("mz")
CHARTER = verify_charter(HOME.charter)
USERS = [credential(person(f"{name}@mz")).user for name in ("anna", "boris", "olga")]
LEAVES = sorted(leaf_of(user) for user in USERS)


def directories() -> list[Case]:
    """What a reader of `what` makes of `raw`."""
    first = _head(None, LEAVES[:2])
    second = _head(first, LEAVES)
    other = _head(None, LEAVES[:1])
    strange = _head(other, LEAVES)
    heads = [
        valid("the first head", {"number": 1, "count": 2}, what="head", raw=first.raw),
        valid("the next one", {"number": 2, "count": 3}, what="head", raw=second.raw),
        *(invalid(name, error, what="head", raw=raw) for name, error, raw in _bad_heads(first)),
    ]
    return [*heads, *_listings(first, second), *_proofs(first, second, other, strange)]


def _head(before: Head | None, leaves: list[bytes]) -> Head:
    return sign_head(HOME.registrar, CHARTER, before, leaves, ISSUED_MS)


def _signed(*fields: codec.Value) -> bytes:
    body = codec.encode(fields)
    return codec.encode((body, HOME.registrar.sign("directory", body)))


def _bad_heads(head: Head) -> list[tuple[str, type[PeerError], bytes]]:
    fields: tuple[codec.Value, ...] = (1, HOME.charter, 1, None, head.root, 2, ISSUED_MS)
    body = codec.encode(fields)
    stranger = agency("mvd").registrar.sign("directory", body)
    return [
        ("an altered signature", Unauthentic, head.raw[:-1] + bytes([head.raw[-1] ^ 1])),
        ("signed by another registrar", Unauthentic, codec.encode((body, stranger))),
        ("the label of a user certificate", Unauthentic,
         codec.encode((body, HOME.registrar.sign("user", body)))),
        ("version 2", NotCanonical, _signed(2, *fields[1:])),
        ("number 0", NotCanonical, _signed(*fields[:2], 0, *fields[3:])),
        ("number 1 after another", NotCanonical, _signed(*fields[:3], head.id, *fields[4:])),
        ("number 2 after none", NotCanonical, _signed(*fields[:2], 2, *fields[3:])),
        ("a root of 31 bytes", NotCanonical, _signed(*fields[:4], head.root[1:], *fields[5:])),
        ("an altered charter", Untrusted,
         _signed(1, HOME.charter[:-1] + bytes([HOME.charter[-1] ^ 1]), *fields[2:])),
        ("too long", LimitExceeded, bytes(HEAD_BYTES_MAX + 1)),
    ]  # fmt: skip


def _listings(first: Head, second: Head) -> list[Case]:
    def inputs(user: VerifiedUser, head: Head, place: int, path: list[bytes]) -> dict[str, Value]:
        return {
            "what": "listing",
            "charter": HOME.charter,
            "user": user.user,
            "address": user.name,
            "devices": list(user.devices),
            "raw": head.raw,
            "index": place,
            "path": list(path),
        }

    made = []
    for user in USERS:
        place = LEAVES.index(leaf_of(user))
        path = merkle.paths(LEAVES)[place]
        made.append(valid(f"{user.name} is listed", None, **inputs(user, second, place, path)))
        wrong = (place + 1) % len(LEAVES)
        made += [
            invalid(
                f"{user.name} in another place", Untrusted, **inputs(user, second, wrong, path)
            ),
            invalid(
                f"{user.name} under another head", Untrusted, **inputs(user, first, place, path)
            ),
        ]
    return made


def _proofs(first: Head, second: Head, other: Head, strange: Head) -> list[Case]:
    same = contradiction(first, other)
    unlinked = contradiction(first, strange)
    assert same is not None
    assert unlinked is not None
    agency_id = {"agency": CHARTER.agency}
    pairs = [
        ("a head twice", first.raw, first.raw),
        ("one follows from the other", first.raw, second.raw),
        ("two heads far apart", first.raw, _head(second, LEAVES).raw),
        ("in the wrong order", strange.raw, first.raw),
    ]
    return [
        valid("two of one number", {**agency_id, "number": 1}, what="proof", raw=same.raw),
        valid("no link to the one before", {**agency_id, "number": 2}, what="proof",
              raw=unlinked.raw),
        *(
            invalid(name, Unauthentic, what="proof", raw=codec.encode(pair))
            for name, *pair in pairs
        ),
    ]  # fmt: skip
