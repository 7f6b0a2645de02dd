"""What a device does when keys or history have come: open, take up, tell of wrong seals."""

from client import archive, mailbox, nacks, sharing
from client.device import Device


def take_in(device: Device, now: int) -> list[mailbox.Letter]:
    """Open what waited for a key; return what is newly readable, or never will be.

    Call inside a transaction. now: milliseconds.
    """
    opened = mailbox.open_waiting(device)
    archive.take_up(device)
    sharing.accept(device, opened)
    nacks.publish(device, now)
    return opened
