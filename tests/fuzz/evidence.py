"""Evidence files, element by element."""

from collections.abc import Iterator
from hashlib import sha256
from random import Random
from typing import Final

from protocol.evidence import EvidenceRefused, Findings, check
from protocol.exhibit import FRAME, MAGIC
from tests.fuzz.mutation import bytewise, tree
from tests.fuzz.seeds import SEED_BYTES_MAX
from tests.fuzz.target import target
from tests.vectors import FOLDER


def _read(data: bytes) -> Findings:
    try:
        return check(data)
    except EvidenceRefused as refused:
        if not 0 <= refused.offset <= len(data):
            raise AssertionError(f"byte {refused.offset} of {len(data)}") from None
        raise


def _law(data: bytes, _: Findings) -> None:
    """Whatever bit of a good file is changed, the file is refused (SPEC 5.10)."""
    altered = bytearray(data)
    altered[int.from_bytes(sha256(data).digest()) % len(data)] ^= 1
    try:
        check(bytes(altered))
    except EvidenceRefused:
        return
    raise AssertionError("a bit of a good file may change")


def _elements(data: bytes, dice: Random) -> bytes:
    """Change one element, or the order of them, with lengths that fit."""
    parts = list(_split(data))
    if not parts or dice.randrange(4) == 0:
        return bytewise(data, dice)
    at = dice.randrange(len(parts))
    tag, body = parts[at]
    match dice.randrange(5):
        case 0:
            del parts[at]
        case 1:
            parts.insert(dice.randrange(len(parts) + 1), parts[at])
        case 2:
            parts[at] = (dice.randrange(5), body)
        case _:
            parts[at] = (tag, tree(body, dice))
    return MAGIC + b"".join(FRAME.pack(tag, len(body)) + body for tag, body in parts)


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = len(MAGIC)
    while at + FRAME.size <= len(data):
        tag, size = FRAME.unpack_from(data, at)
        yield tag, data[at + FRAME.size : at + FRAME.size + size]
        at += FRAME.size + size


def _seeds() -> Iterator[bytes]:
    for file in sorted((FOLDER / "evidence").glob("*.evidence")):
        if file.stat().st_size <= SEED_BYTES_MAX:
            yield file.read_bytes()


TARGETS: Final = {"evidence": target(_read, _law, (EvidenceRefused,), _seeds, _elements)}
