"""What a device does with what has come: open it, take history up, tell of wrong seals.

What is opened is opened once, so what follows from it is done in the same transaction.
"""

from collections.abc import Sequence

from client import archive, grants, mailbox, nacks, sharing
from client.device import Device
from node.stored import Stored
from protocol.entry import CONTROL, ChatId


def take_in(device: Device, now: int) -> list[mailbox.Letter]:
    """Open what waited for a key; return what is newly readable, or never will be.

    Call inside a transaction. now: milliseconds.
    """
    opened = open_waiting(device)
    archive.take_up(device)
    nacks.publish(device, now)
    return opened


def open_waiting(device: Device) -> list[mailbox.Letter]:
    """Open what waited for a key; return as `take_in`. Call inside a transaction."""
    opened = mailbox.open_waiting(device)
    sharing.accept(device, opened)
    return opened


def deliver(device: Device, parts: Sequence[Stored]) -> list[mailbox.Letter]:
    """Place and open what is being stored; return as `take_in`. Call inside that transaction."""
    grants.note_entered(device, parts, device.replica.payloads.clock())
    opened = mailbox.deliver(device, parts)
    sharing.accept(device, opened)
    archive.forget_redacted(device, {one.run.chat for one in parts if one.run.lane == CONTROL})
    return opened


def open_waiting_in(device: Device, chat: ChatId) -> list[mailbox.Letter]:
    """Open what waited for a seal of this chat. Call inside the transaction that keeps it."""
    opened = mailbox.open_waiting_in(device, chat)
    sharing.accept(device, opened)
    return opened
