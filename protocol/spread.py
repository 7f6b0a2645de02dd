"""Live spread in chats of many agencies: Plumtree over the known list of members (SPEC 6.5).

A node pushes what is new to its eager neighbours and announces it to the lazy ones. Who gets
something a second time prunes the branch that brought it; who hears of something that does not
come grafts the one who told. What is left of the first flood is a tree, which mends itself.

    spread = Spread(own)
    spread.up(peer); spread.down(peer)
    told = spread.stored(chat, agencies, head, source, now)     # a run that is new here
    told = spread.repeated(chat, source)                        # one that is not
    spread.announced(chat, heads, peer, now)                    # IHAVE, of what is lacking
    spread.grafted(chat, agencies, peer); spread.pruned(chat, peer)
    told = spread.expired(now)                                  # when `spread.due` has come

Does no I/O. All of it only lowers latency: heads guarantee delivery. So whatever there is no room
for is dropped, and nobody can do more by a lie than make it late.

Source: J. Leitao, J. Pereira, L. Rodrigues, Epidemic Broadcast Trees, SRDS 2007.
"""

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.entry import ChatId
from protocol.frame import Graft, Head, IHave, Prune
from protocol.limits import (
    ANNOUNCERS_MAX,
    DUPLICATES_MAX,
    GRAFT_AGAIN_SECONDS,
    GRAFT_FIRST_SECONDS,
    GRAFTS_MAX,
    IHAVE_DELAY_SECONDS,
    IHAVE_HEADS_MAX,
    LAZY_QUEUE_MAX,
    MISSING_MAX,
    MISSING_PEER_MAX,
    SPREAD_ALL_MAX,
    TREES_MAX,
)
from protocol.rings import eager_count, lazy_count, neighbours

NEVER = float("inf")

Chain = tuple[ChatId, bytes, int]


class Told(NamedTuple):
    """What is to be said to a peer. frame: None to push the run itself."""

    peer: bytes
    frame: IHave | Graft | Prune | None


@dataclass(slots=True)
class _Tree:
    """Our part of the tree of one chat. duplicates: of each peer, one after the other."""

    eager: set[bytes]
    lazy: set[bytes]
    agencies: AbstractSet[bytes]
    generation: int
    duplicates: Counter[bytes] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class _Missing:
    """An entry that was announced and did not come. first: who was the first to tell."""

    head: Head
    first: bytes
    announcers: deque[bytes]


def is_large(agencies: int) -> bool:
    """Whether a chat of so many agencies is spread by a tree."""
    return agencies > SPREAD_ALL_MAX


class Spread:
    """The trees of one node, and what it has to announce and to ask for."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self._up: set[bytes] = set()
        self._generation = 0
        self._trees: OrderedDict[ChatId, _Tree] = OrderedDict()
        self._queues: dict[bytes, OrderedDict[Chain, Head]] = {}
        self._flush_at = NEVER
        self._missing: dict[Chain, dict[Head, _Missing]] = {}
        self._missing_of: Counter[bytes] = Counter()
        self._count = 0
        self._timers: list[tuple[float, int, Chain, _Missing]] = []
        self._numbers = itertools.count()

    # Peers

    def up(self, peer: bytes) -> None:
        """An agency's node can be reached."""
        self._up.add(peer)
        self._generation += 1

    def up_all(self, peers: AbstractSet[bytes]) -> None:
        """All these can."""
        self._up |= peers
        self._generation += 1

    def down(self, peer: bytes) -> None:
        """It can no longer."""
        self._up.discard(peer)
        self._queues.pop(peer, None)
        self._generation += 1

    def near(self, chat: ChatId, agencies: AbstractSet[bytes]) -> AbstractSet[bytes]:
        """Return our neighbours in a chat: all whom we push or announce to."""
        tree = self._tree(chat, agencies)
        return tree.eager | tree.lazy

    def _tree(self, chat: ChatId, agencies: AbstractSet[bytes]) -> _Tree:
        """Return our part of a chat's tree, with what was learnt of those who still are near."""
        tree = self._trees.get(chat)
        if tree is None or tree.generation != self._generation or tree.agencies != agencies:
            found = neighbours(chat, self._own, (agencies & self._up) - {self._own}, len(agencies))
            near = found.eager | found.lazy
            eager = set(found.eager)
            duplicates: Counter[bytes] = Counter()
            if tree is not None:
                eager = (eager - tree.lazy) | (tree.eager & near)
                duplicates = tree.duplicates
            tree = _Tree(eager, set(near - eager), agencies, self._generation, duplicates)
            self._trees[chat] = tree
            if len(self._trees) > TREES_MAX:
                self._trees.popitem(last=False)
        self._trees.move_to_end(chat)
        return tree

    # What comes

    def stored(
        self, chat: ChatId, agencies: AbstractSet[bytes], head: Head, source: bytes, now: float
    ) -> list[Told]:
        """Spread a run that is new here, and verified.

        head: its last entry. source: who brought it; what our own devices wrote, we ourselves.
        """
        tree = self._tree(chat, agencies)
        tree.duplicates.pop(source, None)
        chain = (chat, head.device, head.lane)
        having = {source} | self._came(chain, head.seq)
        for peer in sorted(tree.lazy - having):
            self._queue(peer, chain, head, now)
        return [Told(peer, None) for peer in sorted(tree.eager - having)]

    def _came(self, chain: Chain, seq: int) -> set[bytes]:
        """Forget what is no longer missing; return who has announced it."""
        missing = self._missing.get(chain, {})
        came = [one for head, one in missing.items() if head.seq <= seq]
        for one in came:
            self._forget(chain, one)
        return {peer for one in came for peer in one.announcers if one.head.seq == seq}

    def repeated(self, chat: ChatId, source: bytes) -> list[Told]:
        """Note a run that brought nothing new; prune who does that again and again."""
        tree = self._trees.get(chat)
        if tree is None or source not in self._up:
            return []
        tree.duplicates[source] += 1
        if tree.duplicates[source] < DUPLICATES_MAX:
            return []
        del tree.duplicates[source]
        tree.eager.discard(source)
        tree.lazy.add(source)
        return [Told(source, Prune(chat))]

    def pruned(self, chat: ChatId, peer: bytes) -> None:
        """The peer has it from others: only announce to it."""
        tree = self._trees.get(chat)
        if tree is not None and peer in tree.eager:
            tree.eager.discard(peer)
            tree.lazy.add(peer)

    def grafted(self, chat: ChatId, agencies: AbstractSet[bytes], peer: bytes) -> None:
        """The peer wants to be pushed to. There is an end to how many are."""
        tree = self._tree(chat, agencies)
        most = 2 * (eager_count(len(agencies)) + lazy_count(len(agencies)))
        if peer in self._up and peer in agencies and len(tree.eager) < most:
            tree.eager.add(peer)
            tree.lazy.discard(peer)

    def announced(self, chat: ChatId, heads: Sequence[Head], peer: bytes, now: float) -> None:
        """Wait for what a peer has announced and we lack; ask for it if it does not come."""
        for head in heads:
            chain = (chat, head.device, head.lane)
            known = self._missing.get(chain, {}).get(head)
            if known is not None:
                if peer not in known.announcers and len(known.announcers) < ANNOUNCERS_MAX:
                    known.announcers.append(peer)
            elif self._count < MISSING_MAX and self._missing_of[peer] < MISSING_PEER_MAX:
                self._await(chain, _Missing(head, peer, deque([peer])), now)

    def _await(self, chain: Chain, one: _Missing, now: float) -> None:
        self._missing.setdefault(chain, {})[one.head] = one
        self._missing_of[one.first] += 1
        self._count += 1
        self._wake(now + GRAFT_FIRST_SECONDS, chain, one)

    def _wake(self, at: float, chain: Chain, one: _Missing) -> None:
        heapq.heappush(self._timers, (at, next(self._numbers), chain, one))

    def _forget(self, chain: Chain, one: _Missing) -> None:
        del self._missing[chain][one.head]
        if not self._missing[chain]:
            del self._missing[chain]
        self._count -= 1
        self._missing_of[one.first] -= 1
        if not self._missing_of[one.first]:
            del self._missing_of[one.first]

    # Time

    @property
    def due(self) -> float:
        """When `expired` has something to do next, NEVER for nothing."""
        return min(self._flush_at, self._timers[0][0] if self._timers else NEVER)

    def expired(self, now: float) -> list[Told]:
        """Announce what was gathered, and ask for what was announced and did not come."""
        told = self._grafts(now)
        if self._flush_at <= now:
            self._flush_at = NEVER
            told += self._announcements()
        return told

    def _queue(self, peer: bytes, chain: Chain, head: Head, now: float) -> None:
        """Gather an announcement; of one chain the newest says it all."""
        queue = self._queues.setdefault(peer, OrderedDict())
        if chain in queue or len(queue) < LAZY_QUEUE_MAX:
            queue[chain] = head
        self._flush_at = min(self._flush_at, now + IHAVE_DELAY_SECONDS)

    def _announcements(self) -> list[Told]:
        told = []
        for peer, queue in self._queues.items():
            by_chat: dict[ChatId, list[Head]] = {}
            for (chat, _, _), head in queue.items():
                by_chat.setdefault(chat, []).append(head)
            told += [
                Told(peer, IHave(chat, tuple(heads[at : at + IHAVE_HEADS_MAX])))
                for chat, heads in by_chat.items()
                for at in range(0, len(heads), IHAVE_HEADS_MAX)
            ]
        self._queues.clear()
        return told

    def _grafts(self, now: float) -> list[Told]:
        asked: Counter[bytes] = Counter()
        told = []
        while self._timers and self._timers[0][0] <= now:
            _, _, chain, one = heapq.heappop(self._timers)
            if self._missing.get(chain, {}).get(one.head) is not one:
                continue
            while one.announcers and one.announcers[0] not in self._up:
                one.announcers.popleft()
            if not one.announcers:
                self._forget(chain, one)
                continue
            peer = one.announcers[0]
            asked[peer] += 1
            if asked[peer] <= GRAFTS_MAX:
                one.announcers.popleft()
                told.append(Told(peer, Graft(chain[0], one.head)))
                self._favour(chain[0], peer)
            self._wake(now + GRAFT_AGAIN_SECONDS, chain, one)
        return told

    def _favour(self, chat: ChatId, peer: bytes) -> None:
        tree = self._trees.get(chat)
        if tree is not None and peer in tree.lazy:
            tree.lazy.discard(peer)
            tree.eager.add(peer)
