r"""The form of an evidence file (SPEC 5.10): elements, newest first, and how to write them.

    file    = "ivor evidence 1\n" ‖ element…
    element = tag (1) ‖ length of the body (4) ‖ body

`evidence` checks such a file. Newest first, because then each header is proved by a signature or
by the hash in one that was proved before it: a byte that is wrong shows where it stands.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from protocol import codec
from protocol.limits import HEADER_BYTES_MAX, OPERATION_BYTES_MAX
from protocol.operation import Kind

MAGIC: Final = b"ivor evidence 1\n"
ELEMENT_BYTES_MAX: Final = 196 * 1024
assert HEADER_BYTES_MAX + OPERATION_BYTES_MAX <= ELEMENT_BYTES_MAX
FRAME: Final = Struct(">BI")
# An operation of these kinds tells nobody's identity: its payload may be left out.
OMITTABLE: Final = frozenset({Kind.EPOCH, Kind.REDACT, Kind.CHECKPOINT, Kind.NACK, Kind.HOLD})


class Tag(IntEnum):
    """What an element is."""

    END = 0
    CONTROL = 1
    CONTENT = 2
    MESSAGE = 3


class Disclosed(NamedTuple):
    """What opens the commitment of a header, and the plaintext that it then proves."""

    frank: bytes
    plaintext: bytes


class ControlPart(NamedTuple):
    """A control entry. signature: None if its successor covers it. payload: None if left out."""

    header: bytes
    signature: bytes | None
    payload: bytes | None


class ContentPart(NamedTuple):
    """A content entry. disclosed: None for one that is there to prove others."""

    header: bytes
    signature: bytes | None
    disclosed: Disclosed | None


def element(tag: Tag, body: bytes) -> bytes:
    """Return one element."""
    return FRAME.pack(tag, len(body)) + body


def write_evidence(
    control: Sequence[ControlPart], runs: Iterable[Sequence[ContentPart]]
) -> Iterator[bytes]:
    """Yield a whole file, piece by piece; nothing is checked.

    control: the chat's lane in a causal order. runs: consecutive entries of one chain each, oldest
    first, the newest signed; no two of one chain touch.
    """
    yield MAGIC
    for entry in reversed(control):
        yield element(Tag.CONTROL, codec.encode(entry))
    for run in runs:
        for part in reversed(run):
            yield element(Tag.CONTENT, codec.encode((part.header, part.signature)))
            if part.disclosed is not None:
                yield element(Tag.MESSAGE, codec.encode(part.disclosed))
    yield element(Tag.END, b"")


def plan(
    wanted: Iterable[int], signed: Sequence[int], heads: Iterable[Sequence[int]]
) -> list[tuple[int, int]]:
    """Return which seqs of a chain to put in, as ranges (first, last), ascending and apart.

    wanted: seqs to disclose. signed: those whose signature is known, ascending, one at or after
    each wanted one. heads: for each agency those that its checkpoints name, ascending. Each wanted
    one is followed up to the next head of every agency that has one, so that any of them may be
    trusted, and on to a signature.
    """
    named = list(heads)
    found: list[tuple[int, int]] = []
    for seq in sorted(set(wanted)):
        nexts = [one[at] for one in named if (at := bisect_left(one, seq)) < len(one)]
        end = max(nexts, default=seq)
        last = signed[bisect_left(signed, end)]
        if found and seq <= found[-1][1] + 1:
            first, before = found.pop()
            found.append((first, max(before, last)))
        else:
            found.append((seq, last))
    return found
