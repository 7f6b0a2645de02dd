"""Nacks: a recipient says that its seal is wrong, and what a sender does then (SPEC 4.2).

    complaints(history, past)              # what to show
    shunned(history, past, device)         # epochs not to write in; give them to `epoch.eligible`
    nacked_by(history, device)             # what a device cannot read by its own word

A nack is a claim that nobody else can check: the seal opens with the nacking device's key alone. So
it costs a sender at most one epoch, whoever makes how many of them, and never its own word.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from typing import NamedTuple

from protocol.dag import bits
from protocol.entry import DeviceKey, EntryId
from protocol.epoch import position
from protocol.history import History
from protocol.membership import void_reason
from protocol.operation import Nack


class Complaint(NamedTuple):
    """A nack that counts. at: its number in the history. by, against: devices."""

    at: int
    by: DeviceKey
    against: DeviceKey
    epoch: EntryId
    reason: int


def complaints(history: History, past: int) -> list[Complaint]:
    """Return the nacks of a set that count, each device's in the order of its chain.

    One counts if its device is a recipient of the epoch, which it has seen, and has not nacked that
    epoch before, and if it is not void in the set.
    """
    return list(_counting(history, past))


def _counting(history: History, past: int) -> Iterator[Complaint]:
    counted: set[tuple[DeviceKey, EntryId]] = set()
    for index in sorted(bits(history.nacks & past), key=partial(_turn, history)):
        entry = history.entries[index]
        operation = entry.operation
        if not isinstance(operation, Nack) or (entry.device, operation.epoch) in counted:
            continue
        epoch = history.epoch(operation.epoch)
        if epoch is None or not history.pasts[index] >> epoch.index & 1:
            continue
        if position(history.recipients(epoch), entry.device) is None:
            continue
        if void_reason(history, entry.id, past) is None:
            counted.add((entry.device, operation.epoch))
            against = history.entries[epoch.index].device
            yield Complaint(index, entry.device, against, operation.epoch, operation.reason)


def _turn(history: History, index: int) -> tuple[int, EntryId]:
    """Return when a nack is looked at: in its chain by seq, of branches by id, not by arrival."""
    entry = history.entries[index]
    return entry.seq, entry.id


def shunned(history: History, past: int, device: DeviceKey) -> AbstractSet[EntryId]:
    """Return the epochs in which a device does not write, for what others say of their seals.

    Of another device: all that are sealed to one which has nacked an epoch of that device. Of its
    own: for each device that nacks, the first that it nacks; the author knows what it has sealed.
    """
    doubted: dict[DeviceKey, set[DeviceKey]] = {}
    heeded: set[DeviceKey] = set()
    found: set[EntryId] = set()
    for one in _counting(history, past):
        if one.against != device:
            doubted.setdefault(one.against, set()).add(one.by)
        elif one.by not in heeded:
            heeded.add(one.by)
            found.add(one.epoch)
    for index in bits(history.epochs & past) if doubted else ():
        entry = history.entries[index]
        epoch = history.epoch(entry.id)
        by = doubted.get(entry.device)
        if epoch is not None and by and not by.isdisjoint(history.recipients(epoch)):
            found.add(entry.id)
    return found


def nacked_by(history: History, device: DeviceKey) -> AbstractSet[EntryId]:
    """Return the epochs of which a device says that its seal is wrong, in whatever view."""
    operations = (
        history.entries[at].operation for at in bits(history.nacks & history.chain(device))
    )
    return {one.epoch for one in operations if isinstance(one, Nack)}
