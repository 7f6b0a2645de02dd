"""Earlier messages for members who joined later: given and taken, never without a trace (SPEC 5.6).

A share is a message of the chat like any other, so everyone sees who has shared what. It holds
plaintexts with what proves them, never a key. What was written under an epoch that is not shareable
is neither given nor taken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import convert

from client import compose
from client.device import Device
from client.entries import read_entry
from client.mailbox import (
    WAITING,
    Letter,
    State,
    accept_disclosed,
    forget,
    select,
    speaks_of_dropped,
)
from node.errors import RefusedError, UserError
from protocol.chat import Chat
from protocol.disclosure import (
    LETTER_OVERHEAD_BYTES,
    SHARE_BYTES_MAX,
    Disclosed,
    Share,
    size_of,
)
from protocol.entry import ChatId, ContentHeader, DeviceKey, EntryId, Reference
from protocol.policy import HistoryRule

SHARE_BEGINS: Final = b"\x92\x0a"


@dataclass(frozen=True, slots=True)
class Shared:
    """What a member has shared: how many messages, and how many were not to be shared."""

    messages: int
    left_out: int


def share(device: Device, chat: ChatId, last: int, now: int) -> Shared:
    """Give the last messages of a chat that we can read to all its present members.

    Raises RefusedError if the chat's policy does not allow it, UserError if there is nothing.
    Call inside a transaction. now: milliseconds.
    """
    judge = compose.require(device, chat)
    if judge.membership().policy.history is not HistoryRule.SHARED:
        raise RefusedError(
            "what was said before somebody joined stays closed to them here; an admin may change "
            "that for what is said from then on: 'ivor chat policy CHAT --history shared'"
        )
    read = list(_readable(device, chat, last))
    given = [one for one in read if _is_shareable(device, judge, one)]
    if not given:
        raise UserError("there is no earlier message here that may be shared")
    for part in _parts([one for _, one in given]):
        compose.send(device, chat, Share(part), now, None)
    return Shared(len(given), len(read) - len(given))


def _readable(device: Device, chat: ChatId, last: int) -> Iterator[tuple[Reference, Disclosed]]:
    rows = device.connection.execute(
        "SELECT device, seq, id, plaintext, frank FROM mailbox WHERE chat = ? AND state = ?"
        " AND substr(plaintext, 1, 2) != ? ORDER BY depth DESC, time DESC, id DESC LIMIT ?",
        (chat, State.OPEN, SHARE_BEGINS, last),
    ).fetchall()
    for place, plaintext, frank in convert(
        [(row[:3], *row[3:]) for row in rows], list[tuple[Reference, bytes, bytes]]
    ):
        yield place, Disclosed(place.id, plaintext, frank)


def _is_shareable(device: Device, judge: Chat, read: tuple[Reference, Disclosed]) -> bool:
    place, disclosed = read
    if len(disclosed.plaintext) + LETTER_OVERHEAD_BYTES > SHARE_BYTES_MAX:
        return False
    header = read_entry(device, judge.id, place).header
    epoch = judge.history.epoch(header.epoch) if isinstance(header, ContentHeader) else None
    return epoch is not None and epoch.operation.shareable


def _parts(letters: Sequence[Disclosed]) -> Iterator[tuple[Disclosed, ...]]:
    part: tuple[Disclosed, ...] = ()
    for one in letters:
        if size_of((*part, one)) > SHARE_BYTES_MAX:
            yield part
            part = ()
        part = (*part, one)
    yield part


def accept(device: Device, opened: Sequence[Letter]) -> int:
    """Take what others have shared and we cannot read ourselves; return how many that is.

    opened: letters that have become readable just now, or never will. What a share speaks of stands
    before it, so its entries are here, but for those of more authors than an entry links to: these
    are taken when they come. Call inside a transaction.
    """
    taken = 0
    for letter in opened:
        if isinstance(letter.message, Share):
            _note_late(device, letter, letter.message)
            taken += sum(_accept(device, letter, one) for one in letter.message.letters)
            if speaks_of_dropped(device, letter.chat, letter.message):
                forget(device, letter.reference.id)
        elif letter.state is State.UNREADABLE:
            taken += _take_late(device, letter.reference.id)
    return taken


def _note_late(device: Device, letter: Letter, share: Share) -> None:
    """Note what a share has of entries that are not here yet."""
    device.connection.executemany(
        "INSERT INTO late_shares SELECT ?1, ?2 WHERE NOT EXISTS"
        " (SELECT 1 FROM mailbox WHERE id = ?1) ON CONFLICT DO NOTHING",
        [(one.entry, letter.reference.id) for one in share.letters],
    )


def _take_late(device: Device, entry: EntryId) -> bool:
    """Take a message that came after its share."""
    rows = device.connection.execute("SELECT share FROM late_shares WHERE id = ?", (entry,))
    shares = [share for (share,) in convert(rows.fetchall(), list[tuple[EntryId]])]
    found = [letter for share in shares for letter in select(device, "id = ?", (share,))]
    device.connection.execute("DELETE FROM late_shares WHERE id = ?", (entry,))
    return any(
        _accept(device, letter, one)
        for letter in found
        if isinstance(letter.message, Share)
        for one in letter.message.letters
        if one.entry == entry
    )


def _accept(device: Device, letter: Letter, shared: Disclosed) -> bool:
    row = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE id = ? AND chat = ? AND state IN (?, ?, ?)",
        (shared.entry, letter.chat, State.UNREADABLE, *WAITING),
    ).fetchone()
    judge = device.replica.chat(letter.chat)
    if row is None or judge is None or shared.plaintext.startswith(SHARE_BEGINS):
        return False
    if not _is_shareable(device, judge, (convert(row, Reference), shared)):
        return False
    if not accept_disclosed(device, shared.entry, shared.plaintext, shared.frank):
        return False
    device.connection.execute(
        "UPDATE mailbox SET shared = ? WHERE id = ?", (letter.reference.device, shared.entry)
    )
    return True


def sharer(device: Device, entry: EntryId) -> DeviceKey | None:
    """Return the device that has shared a message with us, None if we read it ourselves."""
    found = device.connection.execute("SELECT shared FROM mailbox WHERE id = ?", (entry,)).get
    return None if found is None else DeviceKey(bytes(found))
