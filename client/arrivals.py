"""What a device does with what has come: open it, take history up, tell of wrong seals."""

from client import archive, mailbox, nacks, sharing
from client.device import Device


def take_in(device: Device, now: int) -> list[mailbox.Letter]:
    """Open what can be opened; return what is newly readable, or never will be.

    Call inside a transaction. now: milliseconds.
    """
    opened = mailbox.receive(device)
    archive.take_up(device)
    sharing.accept(device, opened)
    nacks.publish(device, now)
    return opened
