"""What a device does with what has come: open it, take history up, tell of wrong seals."""

from client import archive, mailbox, nacks
from client.device import Device


def take_in(device: Device, now: int) -> list[mailbox.Letter]:
    """Open what can be opened; return what is newly readable, or never will be.

    Call inside a transaction. now: milliseconds.
    """
    opened = mailbox.receive(device)
    archive.take_up(device)
    nacks.publish(device, now)
    return opened
