"""Every stored entry of a chat, for `ivor log show`: where it stands, and what is left of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from client.device import Device
from node.store import Branch, StoredChat
from protocol.entry import CONTENT, CONTROL, ControlHeader, DeviceKey, EntryId, Reference
from protocol.operation import Kind
from protocol.run import Entry, rebuild

PAGE_ENTRIES = 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry.

    kind: of its operation, "content" in lane 1. time: milliseconds, as its author says. ground:
    what its payload was dropped by, None while that is here.
    """

    place: Reference
    lane: int
    kind: str
    time: int
    size: int
    ground: Reference | None


def entries(device: Device, stored: StoredChat) -> Iterator[Listed]:
    """Yield the entries of a chat, chain by chain, control first."""
    for lane in (CONTROL, CONTENT):
        for (author, at), chain in sorted(stored.chains.items()):
            if at == lane:
                for branch in chain:
                    yield from _branch(device, stored, DeviceKey(author), lane, chain, branch)


def _branch(
    device: Device,
    stored: StoredChat,
    author: DeviceKey,
    lane: int,
    chain: Sequence[Branch],
    branch: Branch,
) -> Iterator[Listed]:
    store = device.replica.store
    for start in range(branch.base, branch.length, PAGE_ENTRIES):
        stop = min(start + PAGE_ENTRIES, branch.length)
        prev, context = store.context_before(chain, branch, lane, start)
        records = [row[2] for row in store.rows(chain, branch, start, stop)]
        for entry in rebuild(stored.id, author, lane, start, prev, context, records):
            yield _listed(entry)


def _listed(entry: Entry) -> Listed:
    header = entry.header
    control = isinstance(header, ControlHeader)
    return Listed(
        Reference(header.device, header.seq, EntryId(entry.id)),
        header.lane,
        Kind(header.kind).name.lower() if control else "content",
        header.time,
        header.payload_size,
        entry.ground,
    )
