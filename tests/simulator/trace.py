"""What happened, as lines for people and as one hash for machines.

The hash covers time, place and bytes of all that happened, so two runs with one hash were one run.
The lines are kept only when somebody wants to read them.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

HASH_BYTES = 16


class Line(NamedTuple):
    """One thing that happened. where: the lane; to: the lane that it ended in, if another."""

    time: float
    where: str
    what: str
    about: str
    to: str = ""
    began: float = 0.0


@dataclass(slots=True)
class Trace:
    """The trace of one simulation. kept: None keeps no lines."""

    kept: list[Line] | None = None
    _hash: "blake2b" = field(default_factory=lambda: blake2b(digest_size=HASH_BYTES))

    def note(self, time: float, where: str, what: str, about: str = "") -> None:
        """Note an event at one place."""
        self._hash.update(f"{time:.6f}|{where}|{what}|{about};".encode())
        if self.kept is not None:
            self.kept.append(Line(time, where, what, about))

    def arrived(self, began: float, time: float, ends: tuple[str, str], raw: bytes) -> None:
        """Note a frame that went from one place to another."""
        self._hash.update(f"{time:.6f}|{ends[0]}>{ends[1]}|".encode())
        self._hash.update(raw)
        if self.kept is not None:
            name = frame_name(raw)
            self.kept.append(Line(time, ends[0], name, f"{len(raw)} bytes", ends[1], began))

    def digest(self) -> str:
        """Return the hash of all so far, in hex."""
        return self._hash.hexdigest()

    def story(self) -> str:
        """Return the lines for people."""
        return "\n".join(told(line) for line in self.kept or ())


def told(line: Line) -> str:
    """Return one line for people."""
    to = f" → {line.to}" if line.to else ""
    return f"{line.time:11.4f} s  {line.where + to:28} {line.what:9} {line.about}".rstrip()


def frame_name(raw: bytes) -> str:
    """Return the name of an encoded frame's type, for people."""
    tag = raw[5] if len(raw) > 5 else -1
    return NAMES.get(tag, "?")


NAMES = dict(enumerate((
    "HELLO", "HEADS", "WANT", "RUN", "ABSENT", "HAVE", "FORKED", "WANTSEALS",
    "SEALS", "ASK", "ANSWER", "ERROR", "BYE", "PING", "PONG", "SEEN",
))) | dict(enumerate(("RECON", "IHAVE", "GRAFT", "PRUNE"), 24))  # fmt: skip
