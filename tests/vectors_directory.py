"""Vectors of directories: heads, listings, and proofs that two were shown (SPEC 7.5)."""

from collections.abc import Sequence
from dataclasses import replace

from crypto import merkle
from crypto.signing import Signer
from protocol import codec
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic, Untrusted
from protocol.identity import Charter, VerifiedUser, sign_charter, verify_charter
from protocol.limits import SEQ_MAX
from protocol.listing import HEAD_BYTES_MAX, Head, contradiction, leaf_of, sign_head
from protocol.testing.cast import ISSUED_MS, agency, credential, person, seed
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
    proofs = _proofs(first, second, other, strange)
    return [*heads, *_listings(first, second), *proofs, *_replaced(first, second)]


def _head(before: Head | None, leaves: list[bytes]) -> Head:
    return sign_head(HOME.registrar, CHARTER, before, leaves, ISSUED_MS)


def _later(serial: int, *names: str) -> tuple[Signer, Charter]:
    """A registrar key of the agency, the first one without names, and a newer charter with it."""
    registrar = Signer(seed(HOME.name, "registrar", *names))
    return registrar, verify_charter(
        sign_charter(HOME.root, serial, HOME.name, HOME.zone, registrar.public, CHARTER.archive)
    )


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


def _replaced(first: Head, second: Head) -> list[Case]:
    """Heads of a registrar key that was replaced, beside those of the keys after it."""
    key, charter = _later(2, "2")
    third_key, third_charter = _later(3, "3")
    same_key, same_charter = _later(2)
    fresh = sign_head(key, charter, second, LEAVES, ISSUED_MS)
    after = sign_head(key, charter, fresh, LEAVES, ISSUED_MS)
    fifth = sign_head(key, charter, after, LEAVES, ISSUED_MS)
    third = sign_head(third_key, third_charter, fresh, LEAVES, ISSUED_MS)
    moved = sign_head(same_key, same_charter, second, LEAVES, ISSUED_MS)
    old, older = _head(second, LEAVES[:1]), _head(first, LEAVES[:1])
    far = _head(replace(second, serial=SEQ_MAX - 1), LEAVES)
    beyond = _head(replace(second, serial=fresh.serial), LEAVES)
    twin = sign_head(key, charter, second, LEAVES[:1], ISSUED_MS)
    row, blamed = [first, second, fresh], [CHARTER.registrar]
    counted = [
        _counted("the first head of another key follows the last", row, row, []),
        _counted("the last of the old key comes late", [first, fresh, second], row, []),
        _counted("the old key's has the number of the new key's first", [*row, old], row, blamed),
        _counted("that came before it", [first, second, old, fresh], row, blamed),
        _counted("the old key's has the next number", [*row[:2], beyond, fresh], row, blamed),
        _counted("the old key's has the highest number", [*row[:2], far, fresh], row, []),
        _counted("a third key in the place of the second one's next", [*row, after, third],
                 [*row, third], [charter.registrar]),
        _counted("a newer charter with the same key goes on", [first, second, moved],
                 [first, second, moved], []),
        _counted("two of one number by the new key", [*row, twin], row, [charter.registrar]),
    ]  # fmt: skip
    following = [
        _next("the first of another key", [first, second], fresh),
        _next("the next of another key", row, after),
        _next("one of the old key before it", [first, fresh], second),
        _next("the old key goes on, with the new key's first number", row, old, Untrusted),
        _next("the old key goes on, with the next number", row, beyond, Untrusted),
        _next("the old key goes on, with the highest number", row, far, Untrusted),
        _next("the old key goes on between two of the new one", [*row, fifth], beyond, Untrusted),
        _next("the second key goes on beside the third", [*row, third], after, Untrusted),
        _next("another one before the new key's first", [first, fresh], older, Untrusted),
        _next("one of that number, under a newer charter with the same key", [*row[:2], old],
              moved, Untrusted),
    ]  # fmt: skip
    signing = [
        _before("nothing was signed", [], charter, None),
        _before("the same key", [first, second], CHARTER, second),
        _before("the same key, with a hole", [first, second, far], CHARTER, far),
        _before("the same key, under a newer charter", [first, second, far], same_charter, far),
        _before("another key", [first, second], charter, second),
        _before("another key, with a hole", [first, second, far], charter, second),
    ]
    return [*counted, *following, *signing]


def _raws(heads: Sequence[Head]) -> list[bytes]:
    return [head.raw for head in heads]


def _counted(
    name: str, known: Sequence[Head], counted: Sequence[Head], against: Sequence[bytes]
) -> Case:
    result: Value = {"counted": [head.id for head in counted], "against": list(against)}
    return valid(name, result, what="counted", known=_raws(known), agency=CHARTER.agency)


def _next(
    name: str, known: Sequence[Head], head: Head, error: type[PeerError] | None = None
) -> Case:
    if error is None:
        return valid(f"next: {name}", None, what="next", known=_raws(known), raw=head.raw)
    return invalid(f"next: {name}", error, what="next", known=_raws(known), raw=head.raw)


def _before(name: str, known: Sequence[Head], charter: Charter, before: Head | None) -> Case:
    found: Value = None if before is None else {"number": before.serial, "id": before.id}
    return valid(f"signing: {name}", found, what="before", known=_raws(known), charter=charter.raw)
