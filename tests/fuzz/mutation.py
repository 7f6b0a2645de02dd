"""Other inputs out of one: by bytes, by the values that msgpack holds, by words of a text.

Bytes that were changed at random are seldom msgpack, and hardly ever canonical; so `tree` changes
what they say, and writes that down anew, also inside binary that is msgpack itself.
"""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from tests.fuzz.target import Mutate

ODD_BYTES = (0x00, 0x80, 0x90, 0x9F, 0xC0, 0xC1, 0xC4, 0xC7, 0xCB, 0xCD, 0xCF, 0xDD, 0xDF, 0xFF)
ODD_NUMBERS = (0, 1, 2, 15, 63, 64, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**53, 2**63, 2**64 - 1)
LENGTHS = (0, 1, 16, 31, 32, 33, 64, 255, 256)
INNER_BYTES_MAX = 100_000

Value = bytes | int | list["Value"] | object


def bytewise(data: bytes, dice: Random) -> bytes:
    """Change a few bytes; cut, repeat or exchange a piece."""
    body = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(body) + 1)
        match dice.randrange(6):
            case 0 if at < len(body):
                body[at] ^= 1 << dice.randrange(8)
            case 1:
                body[at : at + 1] = bytes([dice.choice(ODD_BYTES)])
            case 2:
                del body[at : at + dice.randint(1, 8)]
            case 3:
                body[at:at] = body[at : at + dice.randint(1, 40)]
            case 4:
                body[at:at] = dice.randbytes(dice.randint(1, 4))
            case _:
                body[at : at + 9] = b"\xcf" + dice.randbytes(8)
    return bytes(body)


def tree(data: bytes, dice: Random) -> bytes:
    """Change what msgpack says; bytes that are none are changed as bytes."""
    try:
        value: Value = msgspec.msgpack.decode(data)
        for _ in range(dice.randint(1, 3)):
            value = _changed(value, dice)
        return msgspec.msgpack.encode(value)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
        return bytewise(data, dice)


def after(count: int, mutate: Mutate) -> Mutate:
    """Return what mutates all but the first bytes, and these seldom."""

    def headed(data: bytes, dice: Random) -> bytes:
        if dice.randrange(8) == 0:
            return bytewise(data[:count], dice)[:count] + data[count:]
        return data[:count] + mutate(data[count:], dice)

    return headed


def words(*vocabulary: str) -> Mutate:
    """Return what puts words of this vocabulary into a text."""

    def mutate(data: bytes, dice: Random) -> bytes:
        if dice.randrange(3) == 0:
            return bytewise(data, dice)
        text = data.decode(errors="replace")
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(text) + 1)
            gone = dice.choice((0, 0, 1, 8))
            text = text[:at] + dice.choice(vocabulary) + text[at + gone :]
        return text.encode(errors="surrogatepass")

    return mutate


def _changed(value: Value, dice: Random) -> Value:
    if isinstance(value, list) and value and dice.randrange(5):
        at = dice.randrange(len(value))
        return [*value[:at], _changed(value[at], dice), *value[at + 1 :]]
    match value:
        case list():
            return _other_list(value, dice)
        case bytes():
            return _other_binary(value, dice)
        case int() if dice.randrange(3):
            return abs(value + dice.choice((-1, 1, dice.choice(ODD_NUMBERS)))) % 2**64
        case _:
            return _odd(dice)


def _other_list(value: list[Value], dice: Random) -> Value:
    if not value:
        return [_odd(dice)] * dice.choice((1, 1, 2, 9))
    at, other = dice.randrange(len(value)), dice.randrange(len(value))
    changes: Sequence[Callable[[], list[Value]]] = (
        lambda: [*value[:at], *value[at + 1 :]],
        lambda: [*value[:at], _odd(dice), *value[at:]],
        lambda: [*value, value[at]],
        lambda: value[: at + 1] * dice.choice((2, 2, 2, 70)),
        lambda: [*value[:at], value[other], *value[at + 1 :]],
        lambda: sorted(value, key=repr, reverse=dice.randrange(2) == 1),
        lambda: [value],
    )
    return dice.choice(changes)()


def _other_binary(value: bytes, dice: Random) -> Value:
    if value and dice.randrange(4) and len(value) < INNER_BYTES_MAX:
        inner = tree(value, dice)
        if inner[:1] == value[:1] or dice.randrange(2):
            return inner
    match dice.randrange(3):
        case 0:
            return value[: dice.choice(LENGTHS)].ljust(dice.choice(LENGTHS), b"\x00")
        case 1:
            return dice.randbytes(dice.choice(LENGTHS))
        case _:
            return bytewise(value, dice)


def _odd(dice: Random) -> Value:
    """Return a value that may stand nowhere, or anywhere."""
    return dice.choice(
        (None, dice.choice(ODD_NUMBERS), b"", dice.randbytes(32), [], [[]], -1, "text", 1.5, True)
    )
