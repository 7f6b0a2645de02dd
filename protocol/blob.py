"""Fetching a blob: which chunks are asked for, of whom, and what is done about liars (SPEC 6.7).

    fetch = Fetch(announced.chunks, held)
    fetch.joined(source); fetch.left(source)
    asks = fetch.ask(now)                        # whenever something changed: send them
    if fetch.arrived(source, index, now): …      # it was asked for: check it, make it durable, then
    fetch.kept(index)                            # or, if `check_chunk` refuses it:
    fetch.refused(index)                         # whoever sent it is never asked again
    fetch.lacking(source, start, stop, now)
    fetch.expired(now)                           # at `deadline()`

Several sources are asked at once, each for other chunks. A chunk that does not come is asked for
again, of whoever has room. Does no I/O; what it remembers is bounded by the size of the blob.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from crypto import merkle
from crypto.blob import chunk_length
from protocol.attachment import Announcement
from protocol.errors import Unauthentic
from protocol.frame import Blob
from protocol.limits import (
    BLOB_RANGE_CHUNKS_MAX,
    BLOB_REST_SECONDS,
    BLOB_REST_SECONDS_MAX,
    BLOB_WINDOW_CHUNKS_MAX,
    WANT_TIMEOUT_SECONDS,
)

Source = TypeVar("Source", bound=Hashable)
NEVER = float("inf")


class Ask(NamedTuple, Generic[Source]):
    """Ask this source for the chunks start to stop (exclusive)."""

    source: Source
    start: int
    stop: int


@dataclass(slots=True)
class _State:
    """What is known of one source. asked: chunks not yet arrived. rests_until: it lacked some.

    from_end: whether it is asked for the last of what is missing, because it lacked the first.
    """

    asked: set[int] = field(default_factory=set)
    deadline: float = NEVER
    rests_until: float = 0.0
    rest: float = BLOB_REST_SECONDS
    from_end: bool = False


def check_chunk(announced: Announcement, chunk: Blob) -> None:
    """Raise Unauthentic unless this is the chunk at its place of the blob that was announced."""
    count = announced.chunks
    if chunk.index >= count or len(chunk.chunk) != chunk_length(announced.size, chunk.index):
        raise Unauthentic(f"chunk {chunk.index} is none of this blob's {count} (SPEC 6.7)")
    if not merkle.check(announced.root, chunk.chunk, chunk.index, count, chunk.path):
        raise Unauthentic(f"chunk {chunk.index} is not under the root of its blob (SPEC 6.7)")


class Fetch(Generic[Source]):
    """One blob on its way. See the module's docstring for the calls."""

    def __init__(self, count: int, held: Iterable[int]) -> None:
        """count: chunks of the blob. held: those that are stored already."""
        missing = sorted(set(range(count)).difference(held))
        self._todo: deque[tuple[int, int]] = deque(_ranges(missing))
        self._left = len(missing)
        self._storing: dict[int, Source] = {}
        self._sources: dict[Source, _State] = {}
        self._liars: set[Source] = set()

    @property
    def complete(self) -> bool:
        """Whether every chunk is kept."""
        return self._left == 0

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for and nothing is being stored."""
        return not self._storing and not any(one.asked for one in self._sources.values())

    def joined(self, source: Source) -> None:
        """Note that a source can be asked."""
        if source not in self._liars:
            self._sources.setdefault(source, _State())

    def left(self, source: Source) -> None:
        """Note that a source is gone; others are asked for what it has not brought."""
        state = self._sources.pop(source, None)
        if state is not None:
            self._give_back(sorted(state.asked))

    def ask(self, now: float) -> list[Ask[Source]]:
        """Return what to ask for now: of whoever is likely to bring it, and not too much of one."""
        asks: list[Ask[Source]] = []
        room = BLOB_WINDOW_CHUNKS_MAX - self._under_way()
        ready = deque(one for one, state in self._sources.items() if state.rests_until <= now)
        while room > 0 and self._todo and ready:
            source = min(ready, key=self._preference)
            state = self._sources[source]
            take = self._take_last if state.from_end else self._take_first
            start, stop = take(min(room, BLOB_RANGE_CHUNKS_MAX))
            state.asked.update(range(start, stop))
            state.deadline = now + WANT_TIMEOUT_SECONDS
            room -= stop - start
            asks.append(Ask(source, start, stop))
        return asks

    def _preference(self, source: Source) -> tuple[float, int]:
        """Who has disappointed less comes first; of equals who has less to bring."""
        state = self._sources[source]
        return state.rest, len(state.asked)

    def _under_way(self) -> int:
        return len(self._storing) + sum(len(one.asked) for one in self._sources.values())

    def _take_last(self, most: int) -> tuple[int, int]:
        start, stop = self._todo.pop()
        if stop - start > most:
            self._todo.append((start, stop - most))
        return max(start, stop - most), stop

    def _take_first(self, most: int) -> tuple[int, int]:
        start, stop = self._todo.popleft()
        if stop - start > most:
            self._todo.appendleft((start + most, stop))
        return start, min(stop, start + most)

    def _give_back(self, positions: list[int]) -> None:
        self._todo = deque(sorted([*self._todo, *_ranges(positions)]))

    def arrived(self, source: Source, index: int, now: float) -> bool:
        """Note that a chunk came; return whether it was asked for, else it is not looked at."""
        state = self._sources.get(source)
        if state is None or index not in state.asked:
            return False
        state.asked.discard(index)
        state.deadline = now + WANT_TIMEOUT_SECONDS if state.asked else NEVER
        self._storing[index] = source
        return True

    def kept(self, index: int) -> None:
        """Note that a chunk was found right and is durable."""
        state = self._sources.get(self._storing.pop(index))
        self._left -= 1
        if state is not None:
            state.rest = BLOB_REST_SECONDS

    def refused(self, index: int) -> Source:
        """Note that a chunk was wrong; return who sent it, who is not asked again."""
        source = self._storing.pop(index)
        self._give_back([index])
        self._liars.add(source)
        self.left(source)
        return source

    def lacking(self, source: Source, start: int, stop: int, now: float) -> None:
        """Note that a source has not these chunks; it rests, and others are asked first."""
        state = self._sources.get(source)
        if state is None:
            return
        lacked = sorted(one for one in state.asked if start <= one < stop)
        if lacked:
            self._rest(state, lacked, now)

    def _rest(self, state: _State, lacked: list[int], now: float) -> None:
        state.asked.difference_update(lacked)
        state.deadline = state.deadline if state.asked else NEVER
        self._give_back(lacked)
        state.from_end = not state.from_end
        state.rests_until = now + state.rest
        state.rest = min(2 * state.rest, BLOB_REST_SECONDS_MAX)

    def expired(self, now: float) -> None:
        """Take back what sources were asked for and have not brought in time."""
        for state in self._sources.values():
            if state.deadline <= now:
                self._rest(state, sorted(state.asked), now)

    def deadline(self, now: float) -> float:
        """Return when `expired` or `ask` has something to do next, NEVER for nothing."""
        resting = [one.rests_until for one in self._sources.values() if one.rests_until > now]
        waiting = [one.deadline for one in self._sources.values()]
        return min([*waiting, *(resting if self._todo else [])], default=NEVER)


def _ranges(positions: list[int]) -> list[tuple[int, int]]:
    """Return ascending positions as ranges (start, stop)."""
    found: list[tuple[int, int]] = []
    for one in positions:
        if found and found[-1][1] == one:
            found[-1] = (found[-1][0], one + 1)
        else:
            found.append((one, one + 1))
    return found
