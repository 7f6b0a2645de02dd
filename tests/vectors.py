"""What the makers of the vectors share: cases, their JSON form, and the committed inputs."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from protocol.entry import ChatId, DeviceKey
from protocol.epoch import Place
from protocol.policy import Role
from protocol.testing.cast import person, seed
from protocol.testing.story import Story

FOLDER: Final = Path(__file__).parent.parent / "vectors"
INPUTS: Final = FOLDER / "inputs.json"
TICKET: Final = seed("ticket")[:16]

Value = int | bytes | str | None | Sequence["Value"] | Mapping[str, "Value"]
Json = int | str | None | list["Json"] | dict[str, "Json"]
Case = dict[str, Json]

REPEATED: Final = re.compile(rb"(.)\1{255,}", re.DOTALL)


def as_json(value: Value) -> Json:
    """Write bytes as hex, and arrays and maps in turn."""
    match value:
        case bytes():
            return as_hex(value)
        case Mapping():
            return {name: as_json(one) for name, one in value.items()}
        case str() | int() | None:
            return int(value) if isinstance(value, int) else value
        case _:
            return [as_json(one) for one in value]


def as_hex(value: bytes) -> str:
    """Write bytes as hex; 256 or more equal ones as `xx*COUNT`, between spaces."""
    parts: list[str] = []
    done = 0
    for found in REPEATED.finditer(value):
        parts += [value[done : found.start()].hex(), f"{found[1].hex()}*{len(found[0])}"]
        done = found.end()
    return " ".join(part for part in (*parts, value[done:].hex()) if part)


def from_hex(text: str) -> bytes:
    """Read what `as_hex` wrote."""
    whole = b""
    for part in text.split(" "):
        digits, _, count = part.partition("*")
        whole += bytes.fromhex(digits) * int(count or 1)
    return whole


def valid(name: str, result: Value, **inputs: Value) -> Case:
    """Return a case that is accepted, with what must come out."""
    return {
        "name": name,
        **{key: as_json(one) for key, one in inputs.items()},
        "result": as_json(result),
    }


def invalid(name: str, error: type[Exception], **inputs: Value) -> Case:
    """Return a case that is refused, with the class of the error."""
    return {
        "name": name,
        **{key: as_json(one) for key, one in inputs.items()},
        "error": error.__name__,
    }


def drawn(name: str) -> bytes:
    """Return one of the committed inputs."""
    found = json.loads(INPUTS.read_text())[name]
    assert isinstance(found, str)
    return bytes.fromhex(found)


def drawn_seals() -> list[bytes]:
    """Return the committed seals of the epoch at `epoch_place`."""
    return [bytes.fromhex(one) for one in json.loads(INPUTS.read_text())["epoch"]]


def three() -> Story:
    """Return a chat of three people, anna the owner."""
    cast = [
        (person("anna@mz"), Role.OWNER),
        (person("boris@mz"), Role.MEMBER),
        (person("clara@mvd"), Role.MEMBER),
    ]
    return Story(cast)


def epoch_place() -> Place:
    """Return where anna starts the epoch of the vectors: right after the genesis of `three`."""
    story = three()
    header = story.genesis.header
    return Place(ChatId(story.chat), DeviceKey(header.device), 1, story.genesis.id, ())
