"""A backup file: parts in a row, sealed to the user's recovery words, signed at the end (SPEC 5.6).

    part   = u32 length of a ‖ a ‖ first 8 bytes of digest("backup sum", a)
    a      = enc[1, backup id 16, key id 16, no, last, bundle]
    bundle = to the backup key, info = enc[backup id, key id, no, last, before]
    before = 32 zeros for the first part, else digest("backup", before of the one before, its a)

Each part is bound to all before it, so none can be left out, exchanged or taken from another file.
The sum is no protection: it tells damage from another key.
"""

from dataclasses import dataclass, field
from typing import Final

from crypto.archive import open_bundle, seal_bundle
from crypto.errors import SealRefused
from crypto.labels import DIGEST_BYTES, digest
from crypto.sealing import Prekey, prekey_id
from protocol import codec
from protocol.errors import LimitExceeded, NotCanonical, Unauthentic, Untrusted
from protocol.limits import SEQ_MAX

VERSION: Final = 1
BACKUP_ID_BYTES: Final = 16
PART_BYTES_MAX: Final = 960 * 1024
LENGTH_BYTES: Final = 4
SUM_BYTES: Final = 8
START: Final = bytes(DIGEST_BYTES)
LABEL: Final = "backup"

_KEY_ID_BYTES: Final = 16
_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part stands. before: 32 bytes that all earlier parts amount to. last: 0 or 1."""

    backup: bytes
    key: bytes
    no: int
    before: bytes
    last: int = 0

    def after(self, part: bytes) -> "Place":
        """Return the place after this one; part: as `seal_part` returned it."""
        a = part[LENGTH_BYTES:-SUM_BYTES]
        return Place(self.backup, self.key, self.no + 1, digest(LABEL, self.before, a))

    @property
    def info(self) -> bytes:
        """What a part's bundle is bound to."""
        return codec.encode((self.backup, self.key, self.no, self.last, self.before))

    @property
    def signed(self) -> bytes:
        """What the device signs in the last part."""
        return codec.encode((self.backup, self.key, self.before))


@dataclass(frozen=True, slots=True)
class Part:
    """One part that was read and opened. body: what `seal_part` got."""

    place: Place
    body: bytes = field(repr=False)


def begin(backup: bytes, public: bytes) -> Place:
    """Return the place of a backup's first part. backup: 16 random bytes."""
    return Place(backup, prekey_id(public), 0, START)


def seal_part(public: bytes, place: Place, key: bytes, body: bytes) -> bytes:
    """Make a part. key: 32 random bytes, for this part alone. Raises LimitExceeded."""
    bundle = seal_bundle(public, place.info, key, body)
    a = codec.encode((VERSION, place.backup, place.key, place.no, place.last, bundle))
    if len(a) > PART_BYTES_MAX:
        raise LimitExceeded(f"a part of {len(a)} bytes, at most {PART_BYTES_MAX} (SPEC 5.6)")
    return len(a).to_bytes(LENGTH_BYTES) + a + digest("backup sum", a)[:SUM_BYTES]


def length_of(head: bytes) -> int:
    """Return how many bytes follow the first 4 of a part. Raises LimitExceeded."""
    length = int.from_bytes(head)
    if not 0 < length <= PART_BYTES_MAX:
        raise LimitExceeded(f"it says {length} bytes, at most {PART_BYTES_MAX} (SPEC 5.6)")
    return length + SUM_BYTES


def open_part(own: Prekey, expected: Place | None, part: bytes) -> Part:
    """Open the part that stands at a place; None for the first of a file.

    Raises NotCanonical (damaged, of another version), Unauthentic (out of its place, of another
    backup, altered), Untrusted (sealed to other words).
    """
    a, found = part[LENGTH_BYTES:-SUM_BYTES], part[-SUM_BYTES:]
    if digest("backup sum", a)[:SUM_BYTES] != found:
        raise NotCanonical("it is damaged: its sum is wrong (SPEC 5.6)")
    version, backup, key, no, last, bundle = codec.record(
        codec.decode(a, PART_BYTES_MAX), _FIELDS, "backup part"
    )
    if version != VERSION:
        raise NotCanonical(f"it is of version {version!r}, this is {VERSION} (SPEC 5.6)")
    place = Place(
        codec.fixed(backup, BACKUP_ID_BYTES, "backup id"),
        codec.fixed(key, _KEY_ID_BYTES, "key id"),
        codec.uint(no, SEQ_MAX, "part"),
        START if expected is None else expected.before,
        codec.uint(last, 1, "last"),
    )
    if place.key != prekey_id(own.public):
        raise Untrusted("it is sealed to other recovery words than these (SPEC 5.6)")
    if expected is not None and place.backup != expected.backup:
        raise Unauthentic("it belongs to another backup (SPEC 5.6)")
    wanted = 0 if expected is None else expected.no
    if place.no != wanted:
        raise Unauthentic(f"it is part {place.no}, here must stand part {wanted} (SPEC 5.6)")
    try:
        body = open_bundle(own.private, place.info, codec.binary(bundle, PART_BYTES_MAX, "bundle"))
    except SealRefused:
        raise Unauthentic("it was altered, or one before it was left out (SPEC 5.6)") from None
    return Part(place, body)
