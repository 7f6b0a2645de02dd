"""What the makers of the vectors share: cases, their JSON form, and the committed inputs."""

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from crypto.archival import ArchivalSigner
from protocol.checkpoint import Anchor, certify_archive, make_anchor
from protocol.entry import ChatId, DeviceKey, Place, Reference
from protocol.identity import AgencyId
from protocol.policy import Role
from protocol.testing.cast import Person, archive_signer, person, seed
from protocol.testing.story import Story

FOLDER: Final = Path(__file__).parent.parent / "vectors"
INPUTS: Final = FOLDER / "inputs.json"
SIGNATURES: Final = FOLDER / "mldsa.json"
TICKET: Final = seed("ticket")[:16]

Value = int | bytes | str | None | Sequence["Value"] | Mapping[str, "Value"]
Json = int | str | None | list["Json"] | dict[str, "Json"]
Case = dict[str, Json]

_SIGNATURES: Final[dict[str, str]] = json.loads(SIGNATURES.read_text())
_USED: Final[set[str]] = set()

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


BACKUP_SEED: Final = seed("backup", "words")
ARCHIVE_LETTERS: Final = (
    (seed("letter", "newer"), b"\x93\x00\xc4\x01b\xc0", seed("kf", "newer")),
    (seed("letter", "older"), b"\x93\x00\xc4\x01a\xc0", seed("kf", "older")),
)  # [entry id, m, kf]


def drawn(name: str) -> bytes:
    """Return one of the committed inputs."""
    found = json.loads(INPUTS.read_text())[name]
    assert isinstance(found, str)
    return bytes.fromhex(found)


def drawn_seals() -> list[bytes]:
    """Return the committed seals of the epoch at `epoch_place`."""
    return [bytes.fromhex(one) for one in json.loads(INPUTS.read_text())["epoch"]]


class Recorded(ArchivalSigner):
    """Signs each message once and for all: ML-DSA here draws randomness, so signatures are kept."""

    def sign(self, label: str, message: bytes) -> bytes:
        """Return the kept signature, or make one that `keep_signatures` will keep."""
        name = sha256(b"".join((self.public, label.encode(), message))).hexdigest()
        if name not in _SIGNATURES:
            _SIGNATURES[name] = super().sign(label, message).hex()
        _USED.add(name)
        return bytes.fromhex(_SIGNATURES[name])


def keep_signatures() -> None:
    """Write the signatures that the vectors made so far hold, and no others."""
    used = {name: _SIGNATURES[name] for name in sorted(_USED)}
    SIGNATURES.write_text(json.dumps(used, indent=1) + "\n")


def recorded_certificate(who: Person, number: int = 0) -> bytes:
    """Return the archive certificate of a person's device: the same bytes each time."""
    at = who.agency
    key = archive_signer(who, number).public
    authority, home = Recorded(at.archive.seed), AgencyId(at.root.public)
    return certify_archive(authority, home, who.user, who.devices[number], key)


def recorded_anchor(
    who: Person, place: Place, heads: Sequence[Reference], number: int = 0
) -> Anchor:
    """Return the anchor of a checkpoint: the same bytes each time."""
    signer = Recorded(archive_signer(who, number).seed)
    return make_anchor(signer, recorded_certificate(who, number), place, heads)


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
