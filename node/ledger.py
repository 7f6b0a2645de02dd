"""What the judge of a chat asks of what is stored: `protocol.chat.Ledger`, twice (SPEC 2.4)."""

from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from node.store import Store, StoredChat
from protocol.chat import Missing
from protocol.entry import CONTROL, DeviceKey, EntryId
from protocol.history import History
from protocol.limits import BRANCHES_MAX
from protocol.run import START, Context, Entry

AWAITED_MAX = 4096  # of one peer


class ChatLedger:
    """What a stored chat answers to `protocol.chat.Ledger`. awaited: ids that others wait for."""

    def __init__(self, store: Store, chat: StoredChat, awaited: Container[EntryId] = ()) -> None:
        self._store = store
        self._chat = chat
        self._awaited = awaited

    def takes_branch(self, entries: Sequence[Entry]) -> bool:
        """Tell whether there is room, or an entry that others refer to.

        Were it not for those, whoever forks five ways could split a chat: entries of honest
        devices that saw the fifth branch would be inadmissible where it has no room.
        """
        first = entries[0].header
        chain = self._chat.chains.get((first.device, first.lane), ())
        return len(chain) < BRANCHES_MAX or any(entry.id in self._awaited for entry in entries)

    def branch_of(self, device: DeviceKey, lane: int, seq: int, entry: EntryId) -> int | None:
        """Return the branch that holds this entry."""
        return self._store.branch_of(self._chat, device, lane, seq, entry)

    def branches_at(self, device: DeviceKey, lane: int, seq: int) -> Sequence[int]:
        """Return the branches that have an entry of their own at this place."""
        chain = self._chat.chains.get((device, lane), ())
        return [branch.branch for branch in chain if branch.base <= seq < branch.length]

    def goes_on(self, branch: int, entries: Sequence[Entry]) -> bool:
        """Tell whether these are what covers the head of a branch, if anything does.

        What is covered by another branch alone could not be shown to anybody without that.
        """
        first = entries[0].header
        target = self._chat.chains[first.device, first.lane][branch]
        return target.length != first.seq or self._store.parting(target, entries) is None

    def length(self, device: DeviceKey, lane: int) -> int:
        """Return the length of the longest branch."""
        chain = self._chat.chains.get((device, lane), ())
        return max((branch.length for branch in chain), default=0)

    def context_after(self, device: DeviceKey, lane: int, seq: int, branch: int) -> Context:
        """Return the context that an entry leaves to its successor."""
        chain = self._chat.chains[device, lane]
        return self._store.context_after(chain, chain[branch], lane, seq)


class CandidateLedger:
    """What a chat that is not ours (yet) answers: only its control lane, from memory."""

    def __init__(
        self,
        history: History,
        heads: Mapping[DeviceKey, AbstractSet[EntryId]],
        awaited: Container[EntryId],
    ) -> None:
        self._history = history
        self._heads = heads
        self._awaited = awaited

    def takes_branch(self, entries: Sequence[Entry]) -> bool:
        """Tell whether they go on with a branch, or there is room, as where a chat is stored."""
        first = entries[0].header
        heads = self._heads.get(first.device, frozenset())
        known = first.prev in heads or len(heads) < BRANCHES_MAX
        return known or any(entry.id in self._awaited for entry in entries)

    def goes_on(self, branch: int, entries: Sequence[Entry]) -> bool:
        """Tell that they do: what covers the parts of a candidate is kept with each."""
        del branch, entries
        return True

    def branch_of(self, device: DeviceKey, lane: int, seq: int, entry: EntryId) -> int | None:
        """Return 0 for a control entry that was judged before."""
        del device, seq
        return 0 if lane == CONTROL and entry in self._history else None

    def branches_at(self, device: DeviceKey, lane: int, seq: int) -> Sequence[int]:
        """Return the branch that has an entry at this place."""
        return [0] if seq < self.length(device, lane) else []

    def length(self, device: DeviceKey, lane: int) -> int:
        """Return how much of a control chain was judged."""
        return self._history.length(device) if lane == CONTROL else 0

    def context_after(self, device: DeviceKey, lane: int, seq: int, branch: int) -> Context:
        """Control entries leave nothing that their successors are judged by."""
        del device, lane, seq, branch
        return START


class Awaited:
    """The ids that entries wait for, by the peer that brought those: the newest of each."""

    def __init__(self) -> None:
        self._of: dict[bytes, OrderedDict[EntryId, None]] = {}

    def note(self, peer: bytes, missing: Iterable[Missing]) -> None:
        """Something that this peer has brought waits for these."""
        for item in missing:
            awaited = self._of.setdefault(peer, OrderedDict())
            awaited[item.id] = None
            if len(awaited) > AWAITED_MAX:
                awaited.popitem(last=False)

    def __contains__(self, entry: object) -> bool:
        return any(entry in awaited for awaited in self._of.values())
