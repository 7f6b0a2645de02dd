"""Erasing what a device must not keep: keys over 14 days old, and what erased keys left behind.

A key chain is overwritten by its next key, and a database page that is freed is zeroed
(`secure_delete`, SPEC 10). But SQLite's write-ahead log still has the pages as they were, until it
is emptied. Closing the database empties it, and what stays open does so once a minute.
"""

from client.delivery import unstored
from client.device import Device
from client.epochs import SECOND_MS, erase_old_prekeys
from node import database
from node.errors import DamagedError
from protocol.limits import PREKEY_ERASE_SECONDS


def erase_prekeys(device: Device, now: int) -> int:
    """Erase private prekeys of 14 days and more; return how many. now: milliseconds.

    What was sealed to them and has not come by then can never be read (SPEC 4.5). And what was kept
    for readers whose prekeys are as old (4.6). Takes the write lock only if there is something.
    """
    last = now - PREKEY_ERASE_SECONDS * SECOND_MS
    expired = (
        "SELECT EXISTS (SELECT 1 FROM prekeys WHERE issued <= ?1)"
        " OR EXISTS (SELECT 1 FROM openings WHERE began <= ?1)"
    )
    if not device.connection.execute(expired, (last,)).get:
        return 0
    with device.transaction():
        device.connection.execute("DELETE FROM openings WHERE began <= ?", (last,))
        return erase_old_prekeys(device, now)


def drop_aged(device: Device) -> None:
    """Drop what has aged, by the retention of its chat, in small transactions (SPEC 2.6).

    Nothing before our node has stored all that we wrote: a message that waited for long would reach
    nobody.
    """
    aging = [judge.id for judge in device.chats() if judge.membership().policy.retention]
    if not aging or unstored(device):
        return
    with device.transaction():
        if not device.replica.may_age():
            return
    for chat in aging:
        at: int | None = 0
        while at is not None:
            try:
                with device.transaction():
                    at = device.replica.age(chat, at)
            except DamagedError:  # it holds up no other; whoever reads it is told
                break


def empty_log(device: Device) -> bool:
    """Bring the write-ahead log into the database and cut it to nothing, durably.

    Returns False if another process is reading just now: the next time does it. Call outside a
    transaction.
    """
    return database.empty_log(device.connection)
