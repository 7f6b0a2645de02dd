"""Files of evidence that hold, and how to take one apart: for the vectors of those that do not."""

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from crypto.archival import ArchivalSigner
from protocol import codec
from protocol.attachment import Attachment
from protocol.checkpoint import Anchor, certify_archive, make_anchor
from protocol.entry import ControlHeader, Place, Reference, encode_header
from protocol.exhibit import FRAME, MAGIC
from protocol.identity import AgencyId, verify_charter
from protocol.lane import Rule
from protocol.policy import Role
from protocol.testing.cast import Agency, Person, person, seed
from protocol.testing.exhibits import Anchored, Record
from tests.vectors import Recorded, recorded_anchor

ANNA: Final = person("anna@mz")
BORIS: Final = person("boris@mvd")
EGOR: Final = person("egor@mvd")
CAST: Final = ((ANNA, Role.OWNER), (BORIS, Role.MEMBER))
THIEF: Final = ArchivalSigner(seed("thief", "archive"))
Element = tuple[int, bytes]
Anchors = Mapping[str, str]


class Exhibit(NamedTuple):
    """One file. offset and rule: None if it is right."""

    name: str
    raw: bytes
    anchors: Anchors
    offset: int | None
    rule: Rule | None


def fingerprints(*agencies: Agency) -> dict[str, str]:
    """Return what somebody compared with these agencies."""
    return {one.name: verify_charter(one.charter).fingerprint for one in agencies}


def forged_anchor(who: Person, place: Place, heads: Sequence[Reference]) -> Anchor:
    """Return the anchor of whoever has every Ed25519 key, and archive keys of their own."""
    at, signer = who.agency, Recorded(THIEF.seed)
    root = AgencyId(at.root.public)
    certificate = certify_archive(signer, root, who.user, who.devices[0], signer.public)
    return make_anchor(signer, certificate, place, heads)


def borrowed_anchor(who: Person, place: Place, heads: Sequence[Reference]) -> Anchor:
    """Return the anchor of the other one's device."""
    other = BORIS if who is ANNA else ANNA
    return recorded_anchor(other, place._replace(device=other.devices[0]), heads)


def replayed_anchor(who: Person, place: Place, heads: Sequence[Reference]) -> Anchor:
    """Return an anchor that was made in another chat."""
    return recorded_anchor(who, place._replace(chat=other_exhibit().chat), heads)


@cache
def plain_exhibit() -> Record:
    """Two texts by anna and one by boris, no checkpoint."""
    talk = Record.of(CAST, recorded_anchor)
    talk.write(ANNA, "Коллеги, начинаем.")
    talk.write(BORIS, "The figures are ready.")
    talk.write(ANNA, "До пятницы.")
    return talk


@cache
def attached_exhibit() -> Record:
    """A text, and a message with a large file."""
    talk = Record.of(CAST, recorded_anchor)
    talk.write(ANNA, "here it is")
    digest, key = seed("file", "digest"), seed("blob", "key")
    talk.write(ANNA, Attachment("план.iso", "application/octet-stream", 2**31, digest, key, "look"))
    return talk


@cache
def other_exhibit() -> Record:
    """Another chat of the same people."""
    talk = Record.of(((BORIS, Role.OWNER), (ANNA, Role.MEMBER)), recorded_anchor)
    talk.write(ANNA, "elsewhere")
    return talk


def anchored_exhibit(sign: Anchored = recorded_anchor, text: str = "paid in full") -> Record:
    """Three texts by anna, then boris's checkpoint, then one more."""
    talk = Record.of(CAST, sign)
    for written in ("one", text, "three"):
        talk.write(ANNA, written)
    talk.checkpoint(BORIS)
    talk.write(ANNA, "after the checkpoint")
    return talk


@cache
def long_exhibit() -> Record:
    """Sixty-six texts by anna, and a checkpoint."""
    talk = Record.of(CAST, recorded_anchor)
    for number in range(66):
        talk.write(ANNA, str(number))
    talk.checkpoint(ANNA)
    return talk


def elements(raw: bytes) -> list[Element]:
    """Take a file apart."""
    found = []
    at = len(MAGIC)
    while at < len(raw):
        tag, size = FRAME.unpack_from(raw, at)
        at += FRAME.size
        found.append((tag, raw[at : at + size]))
        at += size
    return found


def joined(parts: Sequence[Element]) -> bytes:
    """Put a file together."""
    return MAGIC + b"".join(FRAME.pack(tag, len(body)) + body for tag, body in parts)


def offset_of(parts: Sequence[Element], number: int) -> int:
    """Return where an element begins."""
    return len(joined(parts[:number]))


def flipped(raw: bytes, at: int, bit: int = 0) -> bytes:
    """Return the bytes with one bit turned round."""
    return raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]


def replace_payload(header: ControlHeader, payload: bytes) -> bytes:
    """Return a header that names another payload."""
    named = {"payload_hash": sha256(payload).digest(), "payload_size": len(payload)}
    return encode_header(msgspec.structs.replace(header, **named))


def bodies(parts: Sequence[Element], number: int) -> list[bytes | None]:
    """Return the fields of an element."""
    found = codec.decode(parts[number][1], 2**20)
    return [one if isinstance(one, bytes) else None for one in found]


def changed(parts: Sequence[Element], number: int, place: int, field: codec.Value) -> bytes:
    """Return a file in which one field of one element is another."""
    fields: list[codec.Value] = [*bodies(parts, number)]
    fields[place] = field
    body = codec.encode(fields)
    return joined([*parts[:number], (parts[number][0], body), *parts[number + 1 :]])
