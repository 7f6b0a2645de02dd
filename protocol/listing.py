"""An agency's directory as it signs it: whom it lists, it lists before everyone (SPEC 7.5).

Every state of a directory has a signed head with the Merkle root over all its users. A user is
shown with the head and a path. Whoever compares heads with others finds out that two of them were
shown different directories, and then holds a proof.

    head = verify_head(raw)
    check_listed(listing, user)                       # the user is in the directory of that head
    split = contradiction(head, other)                # None, or a proof to keep and hand on
    verify_split(split.raw)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from crypto import merkle
from crypto.errors import BadSignature
from crypto.labels import digest
from crypto.signing import Signer, verify
from protocol import codec
from protocol.errors import NotCanonical, Unauthentic, Untrusted
from protocol.identity import (
    CHARTER_BYTES_MAX,
    AgencyId,
    Charter,
    VerifiedUser,
    verify_charter,
)
from protocol.limits import HASH_BYTES, SEQ_MAX, SIGNATURE_BYTES, TIME_MS_MAX

HEAD_BYTES_MAX: Final = CHARTER_BYTES_MAX + 256
SPLIT_BYTES_MAX: Final = 2 * HEAD_BYTES_MAX + 16
LISTING_PATH_MAX: Final = 32
LISTING_BYTES_MAX: Final = HEAD_BYTES_MAX + LISTING_PATH_MAX * (HASH_BYTES + 2) + 32

_VERSION: Final = 1
_LABEL: Final = "directory"


@dataclass(frozen=True, slots=True)
class Head:
    """One state of a directory. prev: the id of the head before, None for the first.

    count: users in it; issued: milliseconds, for people.
    """

    charter: Charter
    serial: int
    prev: bytes | None
    root: bytes
    count: int
    issued: int
    id: bytes
    raw: bytes = field(repr=False)

    @property
    def agency(self) -> AgencyId:
        """Whose directory it is."""
        return self.charter.agency


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a user stands in a directory: the head, the place in it, and the path to its root."""

    head: bytes = field(repr=False)
    index: int
    path: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Split:
    """Proof that an agency signed two directories of which at most one can be true.

    serial: of the later head. registrar: the key that signed it.
    """

    agency: AgencyId
    registrar: bytes
    serial: int
    raw: bytes = field(repr=False)


def sign_head(
    registrar: Signer,
    charter: Charter,
    before: Head | None,
    leaves: Sequence[bytes],
    issued: int,
) -> Head:
    """Make the head that follows `before` over leaves in ascending order, and return it."""
    serial = 1 if before is None else before.serial + 1
    body = codec.encode(
        (
            _VERSION,
            charter.raw,
            serial,
            None if before is None else before.id,
            merkle.root(leaves),
            len(leaves),
            issued,
        )
    )
    return verify_head(codec.encode((body, registrar.sign(_LABEL, body))))


def verify_head(raw: bytes) -> Head:
    """Check a head against the registrar of the charter that it holds.

    Whether the agency is trusted is not asked here.
    Raises NotCanonical, LimitExceeded, Untrusted (the charter) or Unauthentic.
    """
    fields = codec.record(codec.decode(raw, HEAD_BYTES_MAX), 2, "directory head")
    body = codec.binary(fields[0], HEAD_BYTES_MAX, "directory head body")
    signature = codec.fixed(fields[1], SIGNATURE_BYTES, "signature")
    found = codec.record(codec.decode(body, HEAD_BYTES_MAX), 7, "directory head")
    if found[0] != _VERSION:
        raise NotCanonical(f"directory head of version {found[0]!r}, this is {_VERSION} (SPEC 7.5)")
    charter = verify_charter(codec.binary(found[1], CHARTER_BYTES_MAX, "charter"))
    try:
        verify(charter.registrar, _LABEL, body, signature)
    except BadSignature:
        raise Unauthentic("a directory head that its registrar has not signed (7.5)") from None
    head = Head(
        charter=charter,
        serial=codec.uint(found[2], SEQ_MAX, "serial"),
        prev=None if found[3] is None else codec.fixed(found[3], HASH_BYTES, "head before"),
        root=codec.fixed(found[4], HASH_BYTES, "root"),
        count=codec.uint(found[5], SEQ_MAX, "users"),
        issued=codec.uint(found[6], TIME_MS_MAX, "issued"),
        id=digest("directory head", body),
        raw=raw,
    )
    if not head.serial or (head.serial == 1) != (head.prev is None):
        raise NotCanonical("the first directory head has number 1 and none before it (SPEC 7.5)")
    return head


def leaf_of(user: VerifiedUser) -> bytes:
    """Return what stands for a user in the tree: id, name and devices in use, ascending."""
    return leaf(user.user, user.name, user.devices)


def leaf(user: bytes, address: str, devices: Iterable[bytes]) -> bytes:
    """Return the same of a user whose certificates were checked before."""
    return codec.encode((user, address.encode(), sorted(devices)))


def check_listed(listing: Listing, user: VerifiedUser) -> Head:
    """Check that a user, with exactly these devices, is in the directory of the listing's head.

    Raises Untrusted, and what `verify_head` raises.
    """
    head = verify_head(listing.head)
    if head.agency != user.agency:
        raise Untrusted(f"{user.name} is shown in the directory of another agency (SPEC 7.5)")
    if not merkle.check(head.root, leaf_of(user), listing.index, head.count, listing.path):
        raise Untrusted(f"{user.name} is not in the directory that was shown (SPEC 7.5)")
    return head


def listing_fields(listing: Listing) -> codec.Value:
    """Return the array [head, index, path] for `codec.encode`."""
    return (listing.head, listing.index, listing.path)


def read_listing(value: object) -> Listing:
    """Read what `listing_fields` made; nothing is verified."""
    head, index, path = codec.record(value, 3, "listing")
    return Listing(
        codec.binary(head, HEAD_BYTES_MAX, "directory head"),
        codec.uint(index, SEQ_MAX, "index"),
        tuple(
            codec.fixed(item, HASH_BYTES, "path")
            for item in codec.array(path, LISTING_PATH_MAX, "path")
        ),
    )


def contradiction(one: Head, other: Head) -> Split | None:
    """Return the proof if two heads cannot both be of one directory.

    That is: two of one agency and number with different bodies, or one whose `prev` is not the
    head that has the number before. It is against the registrar of the older charter: who has
    stolen a key that was replaced since cannot have the present one blamed.
    """
    earlier, later = sorted((one, other), key=lambda head: (head.serial, head.id))
    if one.agency != other.agency or earlier.id == later.id:
        return None
    follows = later.serial == earlier.serial + 1 and later.prev == earlier.id
    if later.serial > earlier.serial + 1 or follows:
        return None
    raw = codec.encode((earlier.raw, later.raw))
    blamed = min((later, earlier), key=lambda head: head.charter.serial)
    return Split(later.agency, blamed.charter.registrar, later.serial, raw)


def verify_split(raw: bytes) -> Split:
    """Check a proof that somebody hands on.

    Raises what `verify_head` raises, and Unauthentic if the two do not contradict each other.
    """
    first, second = codec.record(codec.decode(raw, SPLIT_BYTES_MAX), 2, "directory proof")
    heads = [
        verify_head(codec.binary(item, HEAD_BYTES_MAX, "directory head"))
        for item in (first, second)
    ]
    split = contradiction(*heads)
    if split is None or split.raw != raw:
        raise Unauthentic("two directory heads that do not contradict each other (SPEC 7.5)")
    return split
