"""Which readers' devices of our channels still lack keys of an epoch from us (SPEC 4.6).

A chain moves on with each message, and a grant is made later than its reader came in. So the chains
are kept as they stood then, for as long as a reader's prekey can open a grant.
"""

from collections.abc import Iterable

from client.device import Device
from protocol.chat import Chat
from protocol.entry import DeviceKey, EntryId
from protocol.limits import PREKEY_ERASE_SECONDS

SECOND_MS = 1000


def owe_all(device: Device, chat: Chat, epoch: EntryId, now: int) -> None:
    """Note a new epoch of ours: each reader is to get it from its beginning."""
    membership = chat.membership()
    owe_from_here(device, chat, epoch, membership.devices.keys() - membership.sealed, now)


def owe_from_here(
    device: Device, chat: Chat, epoch: EntryId, readers: Iterable[DeviceKey], now: int
) -> None:
    """Note that these devices are to get an epoch's keys as they stand now."""
    listed = list(readers)
    if listed:
        keep_opening(device, chat, epoch, now)
        owe(device, chat, epoch, listed, None)


def keep_opening(device: Device, chat: Chat, epoch: EntryId, now: int) -> None:
    """Keep an epoch's chains as they stand now, and none for longer than prekeys live.

    Where none has moved since they were kept last, those are what they are now, too.
    """
    execute = device.connection.execute
    execute("DELETE FROM openings WHERE began <= ?", (now - PREKEY_ERASE_SECONDS * SECOND_MS,))
    last = execute("SELECT max(mark) FROM openings WHERE epoch = ?", (epoch,)).get
    kept = execute(
        "SELECT device, chain FROM openings WHERE epoch = ? AND mark = ? ORDER BY 1", (epoch, last)
    ).fetchall()
    chains = execute(
        "SELECT device, chain FROM senders WHERE epoch = ? ORDER BY 1", (epoch,)
    ).fetchall()
    mark = len(chat.history) - 1
    if kept == chains:
        execute(
            "UPDATE openings SET mark = ?, began = ? WHERE epoch = ? AND mark = ?",
            (mark, now, epoch, last),
        )
    else:
        execute(
            "INSERT INTO openings SELECT epoch, ?, device, generation, chain, ? FROM senders"
            " WHERE epoch = ? ON CONFLICT DO NOTHING",
            (mark, now, epoch),
        )


def owe(
    device: Device, chat: Chat, epoch: EntryId, readers: Iterable[DeviceKey], prekey: bytes | None
) -> None:
    """Note that these devices lack an epoch's keys. prekey: the record that one of them sent."""
    device.connection.executemany(
        "INSERT INTO owed (chat, epoch, device, prekey) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (epoch, device) DO UPDATE SET prekey = ifnull(excluded.prekey, prekey)",
        [(chat.id, epoch, reader, prekey) for reader in readers],
    )
