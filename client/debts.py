"""Messages that this device owes to others of its user: they do not open there (SPEC 5.6).

    owe(device, chat, header, entry)       # as it opens
    owe_rivals(device, chat, place)        # of two with one key it has read the other
    owe_epoch(device, chat, epoch, other)  # that one asks for its keys
    owe_absent(device, other, last, now)   # that one was away, and has erased what opens the rest
    letters = due(device, other)           # `handing` brings them, then
    settle(device, other, letters)

All inside the caller's transaction.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from msgspec import convert

from client.device import Device
from client.entries import header_at
from protocol.chat import Chat
from protocol.disclosure import Disclosed
from protocol.entry import CONTENT, ChatId, ContentHeader, DeviceKey, EntryId, Header, Reference
from protocol.epoch import rank
from protocol.history import History
from protocol.identity import Prekey
from protocol.limits import PREKEY_ERASE_SECONDS
from protocol.membership import is_lost
from protocol.nack import nacked_by

SECOND_MS = 1000


def owe(device: Device, chat: ChatId, header: ContentHeader, entry: EntryId) -> None:
    """Owe a message that opens here to those of our devices that it is not for."""
    judge = device.replica.chat(chat) if device.others else None
    if judge is None:
        return
    device.connection.executemany(
        "INSERT INTO debts VALUES (?, ?) ON CONFLICT DO NOTHING",
        [
            (other, entry)
            for other in device.others
            if not is_for(judge, header, other) and not is_lost(judge.history, other)
        ],
    )


def owe_rivals(device: Device, chat: ChatId, place: Reference) -> None:
    """Owe what was read in the place of a message whose key that has used up.

    A device that was copied writes two messages with one key. Our others may have had the other one
    first, so each of us owes the one that it has read.
    """
    device.connection.executemany(
        "INSERT INTO debts SELECT ?, mailbox.id FROM chats JOIN chains ON chains.chat = chats.no"
        " JOIN entries ON place = (chains.no << 32 | ?) JOIN mailbox ON mailbox.id = entries.id"
        " WHERE chats.id = ? AND chains.device = ? AND lane = ? AND state = 1"
        " ON CONFLICT DO NOTHING",
        [(other, place.seq, chat, place.device, CONTENT) for other in device.others],
    )


def is_for(judge: Chat, header: ContentHeader, device: DeviceKey) -> bool:
    """Whether a message's key was sealed to a device, or is one that it is granted with its epoch.

    Not if the device says that its seal is wrong. One that comes into a channel in the midst of an
    epoch is granted keys of then, or later ones, and so is a publisher's that the epoch skips.
    """
    history = judge.history
    epoch = history.epoch(header.epoch)
    if epoch is None:
        return True
    if device in history.recipients(epoch):
        return header.epoch not in nacked_by(history, device)
    if not history.is_channel or device in epoch.operation.skipped:
        return False
    return device in history.members(epoch)


def owe_epoch(device: Device, chat: Chat, epoch: EntryId, other: DeviceKey) -> None:
    """Owe what was said in an epoch, as far as it opens here.

    Who started it, and all whom it is sealed to, may be gone before that one was granted its keys.
    """
    history, stored = chat.history, device.replica.store.create_chat(chat.id)
    started = history.epoch(epoch)
    for author in history.named(started) if started is not None else ():
        for branch in stored.chains.get((author, CONTENT), ()):
            header = partial(header_at, device, stored, author, branch)
            first, stop = _said_in(history, epoch, header, range(branch.base, branch.length))
            device.connection.execute(
                "INSERT INTO debts SELECT ?, mailbox.id FROM entries JOIN mailbox USING (id)"
                " WHERE place >= (? << 32 | ?) AND place < (? << 32 | ?) AND state = 1"
                " ON CONFLICT DO NOTHING",
                (other, branch.no, first, branch.no, stop),
            )


def _said_in(
    history: History, epoch: EntryId, header: Callable[[int], Header], places: range
) -> tuple[int, int]:
    """Return where an epoch begins and ends along a chain: its epochs only ever get better."""
    at = rank(history, epoch)

    def ranked(place: int) -> tuple[int, int]:
        found = header(place)
        return rank(history, found.epoch) if isinstance(found, ContentHeader) else at

    first = bisect_left(places, at, key=ranked)
    return places.start + first, places.start + bisect_right(places, at, first, key=ranked)


def owe_absent(device: Device, other: DeviceKey, last: Prekey, now: Prekey) -> None:
    """Owe all that was written, or came, since its last prekey to one that has erased that."""
    if now.issued - last.issued >= PREKEY_ERASE_SECONDS * SECOND_MS:
        device.connection.execute(
            "INSERT INTO debts SELECT ?1, id FROM mailbox WHERE plaintext IS NOT NULL"
            " AND (time >= ?2 OR id IN (SELECT id FROM entries WHERE since >= ?2))"
            " ON CONFLICT DO NOTHING",
            (other, last.issued),
        )


def creditors(device: Device) -> list[DeviceKey]:
    """Return which of our devices in use are owed messages."""
    rows = device.connection.execute("SELECT DISTINCT device FROM debts")
    owed = {row[0] for row in rows}
    return [other for other in device.others if other in owed]


def due(device: Device, other: DeviceKey) -> Iterator[Disclosed]:
    """Yield what a device of ours is owed, of the chats that it is in; forget what it is not."""
    device.connection.execute(
        "DELETE FROM debts WHERE device = ? AND NOT EXISTS"
        " (SELECT 1 FROM mailbox WHERE mailbox.id = debts.id AND plaintext IS NOT NULL)",
        (other,),
    )
    rows = device.connection.execute(
        "SELECT DISTINCT chat FROM debts JOIN mailbox USING (id) WHERE debts.device = ? ORDER BY 1",
        (other,),
    ).fetchall()
    for (chat,) in convert(rows, list[tuple[ChatId]]):
        judge = device.chat(chat)
        if judge is not None and other in judge.membership().devices:
            yield from _of_chat(device, other, chat)


def _of_chat(device: Device, other: DeviceKey, chat: ChatId) -> Iterator[Disclosed]:
    rows = device.connection.execute(
        "SELECT id, plaintext, frank FROM debts JOIN mailbox USING (id)"
        " WHERE debts.device = ? AND chat = ? ORDER BY no",
        (other, chat),
    )
    for entry, plaintext, frank in rows:
        yield Disclosed(EntryId(entry), plaintext, frank)


def settle(device: Device, other: DeviceKey, letters: Sequence[Disclosed]) -> None:
    """Owe these no longer: they are at the node."""
    device.connection.executemany(
        "DELETE FROM debts WHERE device = ? AND id = ?",
        [(other, one.entry) for one in letters],
    )


def settle_all(device: Device, other: DeviceKey) -> None:
    """Owe a device no message beside its history: that is to come whole, or it is given up."""
    device.connection.execute("DELETE FROM debts WHERE device = ?", (other,))
