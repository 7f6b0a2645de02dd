"""Runs that came too early: each is kept until the entries that it refers to are stored (SPEC 6.3).

    held = Held()
    held.add(work)                       # work.missing says what it waits for
    for one in held.ready(place, reached): …      # taken out: they may go on now
    while (work := held.too_much()): …   # the oldest, taken out, while there is no room

All that is kept here came from one peer, and is bounded (SPEC 6.6).
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from msgspec import structs

from protocol.chat import Missing
from protocol.entry import ChatId, DeviceKey
from protocol.frame import Run, Want
from protocol.limits import HELD_BYTES_MAX, HELD_ENTRIES_MAX, HELD_RUNS_MAX, PREFIX_BYTES

Place = tuple[ChatId, DeviceKey, int]
Branch = tuple[Place, bytes]
Spot = tuple[Place, int, bytes]  # of an entry: its chain, its seq, and how its id begins
Key = TypeVar("Key", Place, Spot)


def _spot(chat: ChatId, item: Missing) -> Spot:
    return (chat, item.device, item.lane), item.seq, item.id[:PREFIX_BYTES]


def branch_of(want: Want) -> Branch:
    """Return the chain that a want is of, and how the id of its last entry begins."""
    return (want.chat, want.device, want.lane), want.prefix


@dataclass(eq=False)
class Work:
    """A run that came, until it is stored or refused. want: what it answers, None for a push.

    reached: it is stored up to this seq, exclusive. missing: what the rest waits for. waiting: how
    the id of each entry of the rest begins. tries: how often it was judged.
    """

    run: Run
    place: Place
    want: Want | None
    reached: int
    missing: tuple[Missing, ...] = ()
    waiting: bytes = b""
    tries: int = 0

    @property
    def stop(self) -> int:
        """The seq after its last entry."""
        return self.run.start + len(self.run.records)

    @property
    def stored(self) -> int:
        """How far its chain is stored because of it, 0 if nothing of it is."""
        return self.reached if self.reached > self.run.start else 0

    @cached_property
    def size(self) -> int:
        """Bytes of its records."""
        return sum(len(memoryview(record)) for record in self.run.records)

    def answers(self, branch: Branch) -> bool:
        """Whether what the want of this branch asked for is here, and not all of it stored.

        What stands behind that may wait for an ancestor for ever: the peer has it as a cover only.
        """
        want = self.want
        return want is not None and branch_of(want) == branch and self.reached < want.stop

    @property
    def has_answered(self) -> bool:
        """Whether all that was asked for is stored: what is behind may be there as a cover only."""
        return self.want is not None and self.reached >= self.want.stop

    def lacks(self, branch: Branch) -> bool:
        """Whether it waits for an entry of this chain whose id begins so."""
        (_, device, lane), prefix = branch
        place = device, lane
        return any((i.device, i.lane) == place and i.id.startswith(prefix) for i in self.missing)

    def lacking(self) -> Iterable[Spot]:
        """Return where the entries stand that it waits for."""
        return dict.fromkeys(_spot(self.run.chat, item) for item in self.missing)

    def giving(self) -> Iterable[Spot]:
        """Return where those of the rest of it stand."""
        for number, at in enumerate(range(0, len(self.waiting), PREFIX_BYTES)):
            yield self.place, self.reached + number, self.waiting[at : at + PREFIX_BYTES]

    def waits_on(self) -> set[Place]:
        """Return the chains of which it waits for an entry."""
        return {(self.run.chat, item.device, item.lane) for item in self.missing}


class Held:
    """The runs that wait, the oldest first.

    They are found by their chain, by those that they wait for, by entry, and by their own entries.
    """

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0
        self._works: OrderedDict[int, Work] = OrderedDict()
        self._at: dict[Place, dict[int, Work]] = {}
        self._waiters: dict[Place, dict[int, Work]] = {}
        self._lacking: dict[Spot, dict[int, Work]] = {}
        self._giving: dict[Spot, dict[int, Work]] = {}

    def __len__(self) -> int:
        return len(self._works)

    def __contains__(self, work: Work) -> bool:
        return id(work) in self._works

    def add(self, work: Work) -> None:
        """Keep a run, without what it came in, which may be far bigger than its records."""
        records = tuple(record.copy() for record in work.run.records)
        work.run = structs.replace(work.run, records=records)
        self._works[id(work)] = work
        self._at.setdefault(work.place, {})[id(work)] = work
        for place in work.waits_on():
            self._waiters.setdefault(place, {})[id(work)] = work
        for entry in work.lacking():
            self._lacking.setdefault(entry, {})[id(work)] = work
        for entry in work.giving():
            self._giving.setdefault(entry, {})[id(work)] = work
        self.entries += len(records)
        self.bytes += work.size

    def remove(self, work: Work) -> None:
        """Keep it no longer."""
        del self._works[id(work)]
        _forget(self._at, work.place, work)
        for place in work.waits_on():
            _forget(self._waiters, place, work)
        for entry in work.lacking():
            _forget(self._lacking, entry, work)
        for entry in work.giving():
            _forget(self._giving, entry, work)
        self.entries -= len(work.run.records)
        self.bytes -= work.size

    def too_much(self) -> Work | None:
        """Take out the oldest run if more is held than there is room for."""
        if (
            self.bytes <= HELD_BYTES_MAX
            and self.entries <= HELD_ENTRIES_MAX
            and len(self._works) <= HELD_RUNS_MAX
        ):
            return None
        work = next(iter(self._works.values()))
        self.remove(work)
        return work

    def of(self, place: Place) -> Sequence[Work]:
        """Return the held runs of a chain."""
        return [*self._at.get(place, {}).values()]

    def waiting_on(self, place: Place) -> Sequence[Work]:
        """Return those that wait for an entry of this chain."""
        return [*self._waiters.get(place, {}).values()]

    def waiting_for(self, work: Work) -> Sequence[Work]:
        """Return those that wait for what is not stored of this run."""
        waiters: dict[int, Work] = {}
        for entry in work.giving():
            waiters |= self._lacking.get(entry, {})
        return [*waiters.values()]

    def lacks(self, chat: ChatId, item: Missing) -> bool:
        """Whether a held run waits for this entry."""
        return _spot(chat, item) in self._lacking

    def gives(self, chat: ChatId, item: Missing) -> bool:
        """Whether a missing entry is in the rest of a run that is held."""
        return _spot(chat, item) in self._giving

    def ready(self, place: Place, reached: int) -> Sequence[Work]:
        """Take out the runs that may go on now, and those that may go on with them.

        reached: how far their ancestors' chain is stored now, exclusive.
        """
        found: Sequence[Work] = [
            work
            for work in self.waiting_on(place)
            if any((i.device, i.lane) == place[1:] and i.seq < reached for i in work.missing)
        ]
        taken: dict[int, Work] = {}
        while found:
            taken.update((id(work), work) for work in found)
            waiters = {id(one): one for work in found for one in self.waiting_for(work)}
            found = [waiter for waiter in waiters.values() if id(waiter) not in taken]
        for work in taken.values():
            self.remove(work)
        return [*taken.values()]


def _forget(index: dict[Key, dict[int, Work]], key: Key, work: Work) -> None:
    del index[key][id(work)]
    if not index[key]:
        del index[key]
