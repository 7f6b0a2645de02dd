"""Canonical msgpack: one value, one byte string (SPEC 1).

A signed structure is made of nil, unsigned integers, binary and arrays, each in its shortest form.
What is hashed and signed is the bytes as received, so a decoder that took two spellings of one
value would let two nodes disagree about an id. `decode` therefore re-encodes and compares.
"""

from collections.abc import Sequence

import msgspec

from protocol.errors import LimitExceeded, NotCanonical
from protocol.limits import DEPTH_MAX, ELEMENTS_MAX

Value = int | bytes | None | Sequence["Value"]

_encoder = msgspec.msgpack.Encoder()


def encode(value: Value) -> bytes:
    """Encode nil, unsigned integers, bytes, and tuples or lists of them."""
    return _encoder.encode(value)


def decode(raw: bytes, bytes_max: int) -> tuple[object, ...]:
    """Decode one canonical array; every array inside it comes as a tuple.

    raw: as received. bytes_max: the limit of this structure, checked first.
    Raises LimitExceeded (size, depth, elements) or NotCanonical (everything else).
    """
    if len(raw) > bytes_max:
        raise LimitExceeded(f"{len(raw)} bytes, at most {bytes_max} allowed (SPEC 1)")
    try:
        value = msgspec.msgpack.decode(raw, type=tuple[object, ...])
    except RecursionError:
        raise LimitExceeded(f"nested deeper than {DEPTH_MAX} (SPEC 1)") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise NotCanonical(f"not one msgpack array: {error} (SPEC 1)") from None
    frozen = _freeze(value)
    if _encoder.encode(frozen) != raw:
        raise NotCanonical("not the shortest encoding of its value (SPEC 1)")
    return frozen


def _freeze(value: tuple[object, ...]) -> tuple[object, ...]:
    """Check types, depth and element count; turn nested lists into tuples."""
    budget = ELEMENTS_MAX

    def walk(item: object, depth: int) -> object:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise LimitExceeded(f"more than {ELEMENTS_MAX} elements (SPEC 1)")
        if isinstance(item, (list, tuple)):
            if depth > DEPTH_MAX:
                raise LimitExceeded(f"nested deeper than {DEPTH_MAX} (SPEC 1)")
            return tuple([walk(inner, depth + 1) for inner in item])
        if item is None or isinstance(item, bytes):
            return item
        if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
            return item
        raise NotCanonical(f"a {type(item).__name__} is not allowed here (SPEC 1)")

    return tuple([walk(item, 1) for item in value])


def fixed(value: object, size: int, name: str) -> bytes:
    """Return `value` if it is exactly `size` bytes, else raise NotCanonical."""
    if not isinstance(value, bytes) or len(value) != size:
        raise NotCanonical(f"{name} is not {size} bytes (SPEC 1)")
    return value


def binary(value: object, most: int, name: str) -> bytes:
    """Return `value` if it is at most `most` bytes."""
    if not isinstance(value, bytes):
        raise NotCanonical(f"{name} is not binary (SPEC 1)")
    if len(value) > most:
        raise LimitExceeded(f"{name} has {len(value)} bytes, at most {most} allowed (SPEC 8)")
    return value


def uint(value: object, most: int, name: str) -> int:
    """Return `value` if it is an unsigned integer of at most `most`."""
    if not isinstance(value, int):
        raise NotCanonical(f"{name} is not an unsigned integer (SPEC 1)")
    if value > most:
        raise LimitExceeded(f"{name} is {value}, at most {most} allowed (SPEC 8)")
    return value


def array(value: object, most: int, name: str) -> tuple[object, ...]:
    """Return `value` if it is an array of at most `most` elements, as `decode` made it."""
    if not isinstance(value, tuple):
        raise NotCanonical(f"{name} is not an array (SPEC 1)")
    if len(value) > most:
        raise LimitExceeded(f"{name} has {len(value)} elements, at most {most} allowed (SPEC 8)")
    return value


def record(value: object, size: int, name: str) -> tuple[object, ...]:
    """Return `value` if it is an array of exactly `size` elements."""
    if not isinstance(value, tuple) or len(value) != size:
        raise NotCanonical(f"{name} is not an array of {size} (SPEC 1)")
    return value


def text(value: object, most: int, name: str) -> str:
    """Return binary of at most `most` bytes as the UTF-8 text that it must be."""
    try:
        return binary(value, most, name).decode()
    except UnicodeDecodeError:
        raise NotCanonical(f"{name} is not UTF-8 (SPEC 1)") from None
