"""The control entries of one chat as a graph: who had seen what (SPEC 3.1).

Entries are numbered in the order of arrival, which is topological, and a set of entries is an int
with one bit for each. So "the causal past of e" and "what both have seen" are single operations,
and nothing here depends on which of two unrelated entries came first but the numbers themselves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from protocol.entry import DeviceKey, EntryId, Reference
from protocol.errors import Inadmissible, UsageError
from protocol.operation import EpochOperation, Hold, Nack, Operation, Redact
from protocol.pasts import Pasts


@dataclass(frozen=True, slots=True)
class ControlEntry:
    """An authentic control entry, its operation decoded and checked."""

    id: EntryId
    device: DeviceKey
    seq: int
    prev: EntryId | None
    links: tuple[Reference, ...]
    operation: Operation


@dataclass(frozen=True, slots=True)
class EpochEntry:
    """An epoch in the history. depth: epochs on the longest path to it, itself included."""

    index: int
    operation: EpochOperation
    depth: int


class Dag:
    """An append-only graph of control entries. It knows nothing of what they mean.

    entries: by number. pasts: for each its past, itself included. epochs, nacks, redactions,
    custody: the sets of all entries that start an epoch, refuse a seal, redact, name a custodian.
    """

    def __init__(self) -> None:
        self.entries: list[ControlEntry] = []
        self.pasts = Pasts()
        self._indices: dict[EntryId, int] = {}
        self._lengths: dict[DeviceKey, int] = {}
        self._chains: dict[DeviceKey, int] = {}
        self._depths: list[int] = []
        self.epochs = 0
        self.nacks = 0
        self.redactions = 0
        self.custody = 0
        self._heads = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.entries)

    def __contains__(self, entry: object) -> bool:
        """Whether an entry of this id is held."""
        return entry in self._indices

    @property
    def everything(self) -> int:
        """The set of all entries held."""
        return (1 << len(self.entries)) - 1

    def index(self, entry: EntryId) -> int:
        """Return the number of an entry. Raises UsageError if it is not held."""
        index = self._indices.get(entry)
        if index is None:
            raise UsageError(f"control entry {entry.hex()[:16]} is not in this history")
        return index

    def holds(self, reference: Reference) -> bool:
        """Whether an entry is held at this place and under this id.

        Raises Inadmissible if the id is held but stands at another place.
        """
        index = self._indices.get(reference.id)
        if index is None:
            return False
        entry = self.entries[index]
        if (entry.device, entry.seq) != (reference.device, reference.seq):
            raise Inadmissible("a reference gives the wrong place of an entry (SPEC 2.2)")
        return True

    def length(self, device: DeviceKey) -> int:
        """Return the length of a device's longest branch."""
        return self._lengths.get(device, 0)

    def chain(self, device: DeviceKey) -> int:
        """Return the set of entries of one device, all branches."""
        return self._chains.get(device, 0)

    def past(self, ids: Iterable[EntryId]) -> int:
        """Return the set of these entries and all their ancestors; 0 for none."""
        past = 0
        for entry in ids:
            past |= self.pasts[self.index(entry)]
        return past

    def past_of(self, entry: EntryId) -> int:
        """Return the causal past of an entry, without the entry: what its author had seen."""
        index = self.index(entry)
        return self.pasts[index] & ~(1 << index)

    def heads(self) -> tuple[Reference, ...]:
        """Return the entries that no other has seen, ascending; what a new entry has to link."""
        held = (self.entries[index] for index in bits(self._heads))
        return tuple(sorted(Reference(one.device, one.seq, one.id) for one in held))

    def epoch(self, entry: EntryId) -> EpochEntry | None:
        """Return the epoch that this id names, None if it is not held or no epoch."""
        index = self._indices.get(entry)
        if index is None:
            return None
        operation = self.entries[index].operation
        if not isinstance(operation, EpochOperation):
            return None
        return EpochEntry(index, operation, self._depths[index])

    def append(self, entry: ControlEntry) -> int:
        """Hold a further entry and return its number. Its prev and links must be held.

        Raises Inadmissible if prev is not the entry before in the same chain, or a link is wrong.
        """
        parents = self.parents(entry)
        index = len(self.entries)
        depth = 0
        for parent in parents:
            self._heads &= ~(1 << parent)
            depth = max(depth, self._depths[parent])
        self._heads |= 1 << index
        self.entries.append(entry)
        self.pasts.append(parents)
        starts = isinstance(entry.operation, EpochOperation)
        self._depths.append(depth + starts)
        self.epochs |= starts << index
        self.nacks |= isinstance(entry.operation, Nack) << index
        self.redactions |= isinstance(entry.operation, Redact) << index
        self.custody |= isinstance(entry.operation, Hold) << index
        self._indices[entry.id] = index
        self._lengths[entry.device] = max(self.length(entry.device), entry.seq + 1)
        self._chains[entry.device] = self.chain(entry.device) | 1 << index
        return index

    def parents(self, entry: ControlEntry) -> list[int]:
        """Return the numbers of an entry's prev and links. Raises as `append`."""
        parents = []
        if entry.prev is not None:
            before = self.entries[self.index(entry.prev)]
            if (before.device, before.seq + 1) != (entry.device, entry.seq):
                raise Inadmissible("prev is not the entry before in the same chain (SPEC 2.2)")
            parents.append(self._indices[entry.prev])
        for link in entry.links:
            if not self.holds(link):
                raise UsageError(f"link {link.id.hex()[:16]} is not in this history")
            parents.append(self._indices[link.id])
        return parents


def bits(members: int) -> Iterator[int]:
    """Yield the numbers in a set, ascending."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low
