"""Chats that are not known to be ours: in memory, until their control lane says so (SPEC 10, I8).

Each peer has its own of each, so none can push out, or add to, what another has brought.
"""

from collections import Counter, OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from node.ledger import CandidateLedger
from protocol.chat import Admission, Chat
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.run import Entry

CANDIDATES_BYTES_MAX = 64 * 1024 * 1024
CANDIDATE_BYTES = 4096  # in memory, of a chat without entries; guess
ENTRY_BYTES = 1024  # in memory, of an entry, apart from its record; guess


@dataclass(slots=True)
class Candidate:
    """A chat as one peer has brought it. accepted: parts of chains, and what covers their ends.

    heads: of each device, the last entry of each branch. awaited: ids that others wait for.
    """

    chat: Chat
    awaited: Container[EntryId]
    heads: dict[DeviceKey, set[EntryId]] = field(default_factory=dict)
    accepted: list[tuple[Sequence[Entry], Sequence[Entry]]] = field(default_factory=list)
    size: int = CANDIDATE_BYTES

    def judge(self, entries: Sequence[Entry]) -> Admission:
        """Admit control entries to the judge of this chat."""
        return self.chat.admit(
            entries, CandidateLedger(self.chat.history, self.heads, self.awaited)
        )

    def accept(self, entries: Sequence[Entry], cover: Sequence[Entry]) -> None:
        """Keep entries that were admitted."""
        first = entries[0].header
        heads = self.heads.setdefault(first.device, set())
        if first.prev is not None:
            heads.discard(first.prev)
        heads.add(entries[-1].id)
        self.accepted.append((entries, cover))

    def join(self, other: "Candidate") -> None:
        """Add what another peer has brought of the same chat."""
        for entries, cover in other.accepted:
            admission = self.judge(entries)
            if admission.entries:
                count = admission.known + len(admission.entries)
                rest = cover_after([*entries, *cover], count)
                self.accept(admission.entries, rest)


class Candidates:
    """The candidates of all peers. awaited: ids of entries that others wait for."""

    def __init__(self, awaited: Container[EntryId] = ()) -> None:
        self._awaited = awaited
        self._brought: dict[bytes, OrderedDict[ChatId, Candidate]] = {}
        self._sizes: Counter[bytes] = Counter()
        self._lost: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._brought.values()))

    def lost(self, peer: bytes) -> int:
        """Return how many chats that this peer had begun to tell us of were forgotten.

        Whoever counts on them asks anew, from the cursor that is saved.
        """
        return self._lost[peer]

    def of(self, peer: bytes, chat: ChatId) -> Candidate:
        """Return what a peer has brought of a chat."""
        brought = self._brought.setdefault(peer, OrderedDict())
        if chat not in brought:
            brought[chat] = Candidate(Chat(chat), self._awaited)
            self._sizes[peer] += CANDIDATE_BYTES
        return brought[chat]

    def accept(
        self, peer: bytes, chat: ChatId, entries: Sequence[Entry], cover: Sequence[Entry]
    ) -> None:
        """Keep entries that were admitted to a candidate."""
        candidate = self.of(peer, chat)
        candidate.accept(entries, cover)
        past = len(candidate.chat.history) // 8  # a bit for each before it
        size = sum(len(entry.record) + ENTRY_BYTES + past for entry in entries)
        candidate.size += size
        self._sizes[peer] += size

    def take(self, chat: ChatId) -> list[Candidate]:
        """Return what all peers have brought of a chat, and keep it no longer."""
        found = []
        for peer, brought in self._brought.items():
            if chat in brought:
                found.append(brought.pop(chat))
                self._sizes[peer] -= found[-1].size
        return found

    def make_room(self) -> None:
        """Forget the oldest of whoever holds most, until the rest has room."""
        while self._sizes.total() > CANDIDATES_BYTES_MAX:
            ((peer, _),) = self._sizes.most_common(1)
            _, gone = self._brought[peer].popitem(last=False)
            self._sizes[peer] -= gone.size
            self._lost[peer] += 1

    def forget(self) -> None:
        """Forget all of them: after a rollback, or when another process wrote."""
        for peer, brought in self._brought.items():
            self._lost[peer] += len(brought)
        self._brought.clear()
        self._sizes.clear()


def cover_after(entries: Sequence[Entry], count: int) -> Sequence[Entry]:
    """Return what follows the first `count` entries up to a signed one, if their last is not."""
    if count == 0 or entries[count - 1].signature is not None:
        return ()
    signed = next(at for at in range(count, len(entries)) if entries[at].signature is not None)
    return entries[count : signed + 1]
