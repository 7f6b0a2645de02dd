"""What a device does with what has come: open it, take history up, tell of wrong seals.

What is opened is opened once, so what follows from it is done in the same transaction.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import convert

from client import archive, debts, grants, mailbox, nacks, sharing
from client.device import Device
from client.entries import read_entry
from node.stored import Stored
from protocol.entry import CONTROL, ChatId, ContentHeader, Reference
from protocol.nack import nacked_by
from protocol.operation import Kind

NACKED_LOOK_MAX: Final = 1024  # messages; guess


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
    _owe_nacked(device, parts)
    sharing.accept(device, opened)
    archive.forget_redacted(device, {one.run.chat for one in parts if one.run.lane == CONTROL})
    return opened


def open_waiting_in(device: Device, chat: ChatId) -> list[mailbox.Letter]:
    """Open what waited for a seal of this chat. Call inside the transaction that keeps it."""
    opened = mailbox.open_waiting_in(device, chat)
    sharing.accept(device, opened)
    return opened


def _owe_nacked(device: Device, parts: Sequence[Stored]) -> None:
    """Owe what was read already of epochs of which a device of ours says that its seal is wrong.

    Of a long chat only what came last is looked at.
    """
    nacked = {
        (part.run.chat, part.run.device)
        for part in parts
        if part.run.device in device.others
        and any(one.header.kind == Kind.NACK for one in part.entries)
    }
    for chat, other in sorted(nacked):
        judge = device.replica.chat(chat)
        epochs = frozenset() if judge is None else nacked_by(judge.history, other)
        for place in _newest_open(device, chat):
            header = read_entry(device, chat, place).header
            if isinstance(header, ContentHeader) and header.epoch in epochs:
                debts.owe(device, chat, header, place.id)


def _newest_open(device: Device, chat: ChatId) -> list[Reference]:
    rows = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE chat = ? AND state = ? ORDER BY no DESC LIMIT ?",
        (chat, mailbox.State.OPEN, NACKED_LOOK_MAX),
    ).fetchall()
    return convert(rows, list[Reference])
