"""Messages as somebody who has read them hands them on, each with what proves it (SPEC 4.4, 5.6).

    letters = [[entry id, m, kf]…]
    share   = [10, letters]            a message: a member gives earlier ones to who joined later

Whoever gets one believes nobody: `frank` and `plaintext` must fit the commitment in a signed
header.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol import codec
from protocol.entry import EntryId
from protocol.errors import LimitExceeded, NotCanonical
from protocol.limits import HASH_BYTES, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX

SHARE_KIND: Final = 10
SHARE_BYTES_MAX: Final = TEXT_BYTES_MAX
LETTER_OVERHEAD_BYTES: Final = 2 * HASH_BYTES + 16


@dataclass(frozen=True, slots=True)
class Disclosed:
    """One message as somebody has read it. frank: opens its commitment."""

    entry: EntryId
    plaintext: bytes = field(repr=False)
    frank: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Share:
    """Earlier messages of this chat, at least one, for all who can read this one."""

    letters: tuple[Disclosed, ...]


def letter_fields(letters: Sequence[Disclosed]) -> Sequence[codec.Value]:
    """Return [[entry id, plaintext, frank]…] for `codec.encode`."""
    return [(one.entry, one.plaintext, one.frank) for one in letters]


def read_letters(items: Sequence[object]) -> tuple[Disclosed, ...]:
    """Read such a list. Raises PeerError."""
    return tuple(_letter(item) for item in items)


def _letter(item: object) -> Disclosed:
    entry, plaintext, frank = codec.record(item, 3, "disclosed message")
    return Disclosed(
        EntryId(codec.fixed(entry, HASH_BYTES, "entry")),
        codec.binary(plaintext, PAYLOAD_BYTES_MAX, "message"),
        codec.fixed(frank, HASH_BYTES, "frank"),
    )


def share_fields(share: Share) -> codec.Value:
    """Return the array of a share. Raises LimitExceeded or NotCanonical as reading it would."""
    _check_size(share.letters)
    return (SHARE_KIND, letter_fields(share.letters))


def read_share(letters: object) -> Share:
    """Read what `share_fields` made. Raises PeerError."""
    found = read_letters(codec.array(letters, SHARE_BYTES_MAX, "shared messages"))
    _check_size(found)
    return Share(found)


def _check_size(letters: Sequence[Disclosed]) -> None:
    if not letters:
        raise NotCanonical("nothing is shared (SPEC 5.6)")
    size = size_of(letters)
    if size > SHARE_BYTES_MAX:
        raise LimitExceeded(f"{size} bytes shared at once, at most {SHARE_BYTES_MAX} (SPEC 5.6)")


def size_of(letters: Sequence[Disclosed]) -> int:
    """Return what shared messages count against `SHARE_BYTES_MAX`, in bytes."""
    return sum(len(one.plaintext) + LETTER_OVERHEAD_BYTES for one in letters)
