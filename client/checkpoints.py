"""Checkpoints that a device makes of a chat, so that it can be proved after Ed25519 (SPEC 2.7).

One is due when enough was written that no checkpoint by a device of our agency covers, or when a
day is over. Checkpoints by others count only as far as their heads are what this device holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from client.device import Device
from client.writing import append_control, control_heads, next_place
from node.errors import RefusedError
from node.store import StoredChat
from protocol.chat import Chat
from protocol.checkpoint import make_anchor, read_archive, vouched
from protocol.entry import CONTENT, DeviceKey, EntryId, Reference
from protocol.operation import CHECKPOINT_HEADS_MAX, Checkpoint

ENTRIES_DUE: Final = 1_000
INTERVAL_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Uncovered:
    """What no checkpoint of our agency covers. heads: newest entries. since: milliseconds."""

    heads: tuple[Reference, ...]
    entries: int
    since: int

    def due(self, now: int) -> bool:
        """Whether it is time for a checkpoint."""
        late = self.entries > 0 and now - self.since >= INTERVAL_MS
        return late or self.entries >= ENTRIES_DUE


def uncovered(device: Device, chat: Chat, now: int) -> Uncovered:
    """Return what is new since our agency's last checkpoints. now: later times are not believed."""
    stored = device.replica.store.create_chat(chat.id)
    covered, since = _covered(device, chat, stored, now)
    heads, entries = [], 0
    for (author, lane), chain in sorted(stored.chains.items()):
        newest = max(chain, key=lambda branch: branch.length)
        done = covered.get(DeviceKey(author), 0)
        if lane == CONTENT and newest.length > done:
            heads.append(Reference(DeviceKey(author), newest.length - 1, newest.head))
            entries += newest.length - done
    return Uncovered(tuple(heads), entries, since)


def _covered(
    device: Device, chat: Chat, stored: StoredChat, now: int
) -> tuple[Mapping[DeviceKey, int], int]:
    """Return how much of each chain is covered, and when the last checkpoint was made."""
    ours = device.profile.charter.agency
    lengths: dict[DeviceKey, int] = {}
    since = _time(device, chat, chat.history.entries[0].id)
    for entry in chat.history.entries:
        found = entry.operation
        if not isinstance(found, Checkpoint) or chat.anchored.get(entry.id) != ours:
            continue
        for head in found.heads:
            branch = device.replica.store.branch_of(stored, head.device, CONTENT, head.seq, head.id)
            if branch is not None:
                lengths[head.device] = max(lengths.get(head.device, 0), head.seq + 1)
        time = _time(device, chat, entry.id)
        since = max(since, time) if time <= now else since
    return lengths, since


def _time(device: Device, chat: Chat, entry: EntryId) -> int:
    header = device.replica.control_header(chat.id, entry)
    return 0 if header is None else header.time


def add_due(device: Device, chat: Chat, now: int) -> bool:
    """Add a checkpoint if one is due; return whether it was. Call inside a transaction."""
    new = uncovered(device, chat, now)
    if not new.due(now) or not _certified(device, chat):
        return False
    _add(device, chat, new, now)
    return True


def add(device: Device, chat: Chat, now: int) -> bool:
    """Add a checkpoint if anything is new, however little; return whether it was.

    Call inside a transaction. Raises RefusedError if ours would not count.
    """
    new = uncovered(device, chat, now)
    if not new.entries:
        return False
    if not chat.membership().may_write(device.key):
        raise RefusedError("you may not write in this chat, so no checkpoint can be added")
    if not _certified(device, chat):
        raise RefusedError("the chat knows our agency by another archive key than this device's")
    _add(device, chat, new, now)
    return True


def _certified(device: Device, chat: Chat) -> bool:
    """Whether others take our certificate: by the charter with which we are in the chat."""
    member = chat.membership().member_of(device.key)
    certificate = read_archive(device.profile.archive)
    return member is not None and vouched(certificate, member.agency, member.identity.archive)


def _add(device: Device, chat: Chat, new: Uncovered, now: int) -> None:
    control_heads(device, chat, now)
    heads = new.heads[:CHECKPOINT_HEADS_MAX]
    place = next_place(device, chat)
    anchor = make_anchor(device.secrets.archive, device.profile.archive, place, heads)
    append_control(device, chat, Checkpoint(heads, anchor), now)


def disputed(device: Device, chat: Chat) -> list[str]:
    """Say which anchored checkpoints name content that is not what this device holds there."""
    stored = device.replica.store.create_chat(chat.id)
    found = []
    for entry in chat.history.entries:
        operation = entry.operation
        if not isinstance(operation, Checkpoint) or entry.id not in chat.anchored:
            continue
        for head in operation.heads:
            chain = stored.chains.get((head.device, CONTENT), [])
            held = any(branch.length > head.seq for branch in chain)
            known = device.replica.store.branch_of(stored, head.device, CONTENT, head.seq, head.id)
            if held and known is None:
                found.append(
                    f"checkpoint {entry.id.hex()[:16]} by device {entry.device.hex()[:16]} names "
                    f"another entry at seq {head.seq} of device {head.device.hex()[:16]}"
                )
    return found
