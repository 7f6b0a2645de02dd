"""Reading the fields that many operations share (SPEC 3.2); `codec` reads what they are made of."""

from collections.abc import Sequence
from itertools import pairwise

from protocol import codec
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.errors import NotCanonical
from protocol.identity import DEVICES_USER_MAX, UserId
from protocol.limits import HASH_BYTES, KEY_BYTES, SEQ_MAX, SIGNATURE_BYTES
from protocol.policy import Role


def read_role(value: object) -> Role:
    """Read a role, 0 to 3."""
    return Role(codec.uint(value, max(Role), "role"))


def read_user(value: object) -> UserId:
    """Read a user's identity key."""
    return UserId(codec.fixed(value, KEY_BYTES, "user"))


def read_device(value: object) -> DeviceKey:
    """Read a device's key."""
    return DeviceKey(codec.fixed(value, KEY_BYTES, "device"))


def read_entry(value: object) -> EntryId:
    """Read an entry's id."""
    return EntryId(codec.fixed(value, HASH_BYTES, "id"))


def read_signature(value: object) -> bytes:
    """Read an Ed25519 signature; it is not checked here."""
    return codec.fixed(value, SIGNATURE_BYTES, "signature")


def read_seen(value: object) -> tuple[Reference, ...]:
    """Read content heads of one user: at most 32, one for each device, ascending."""
    seen = tuple(
        read_reference(item) for item in codec.array(value, DEVICES_USER_MAX, "seen heads")
    )
    check_ascending([one.device for one in seen], "seen heads")
    return seen


def read_heads(value: object, most: int) -> tuple[Reference, ...]:
    """Read heads to vouch for: at most so many, ascending."""
    heads = tuple(read_reference(item) for item in codec.array(value, most, "heads"))
    if any(a >= b for a, b in pairwise(heads)):
        raise NotCanonical("heads are not in ascending order (SPEC 3.2)")
    return heads


def read_reference(item: object) -> Reference:
    """Read a reference to an entry."""
    device, seq, entry = codec.record(item, len(Reference._fields), "reference")
    return Reference(read_device(device), codec.uint(seq, SEQ_MAX, "seq"), read_entry(entry))


def check_ascending(keys: Sequence[bytes], name: str) -> None:
    """Raise NotCanonical unless the keys ascend, none twice."""
    if any(a >= b for a, b in pairwise(keys)):
        raise NotCanonical(f"{name} are not in ascending order (SPEC 3.2)")
