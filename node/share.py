"""What one peer may cost the others (SPEC 6.6).

    async with share.turn():                 # one piece of work at a time, in all its sessions
        await journal.read(share.charged(work))

While others have work too, a peer's work beyond a few milliseconds is followed by a wait as long as
all of it took. So no peer takes more than half of a node's time, in however many sessions; who asks
for little never waits, and who is alone has all of it.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

Result = TypeVar("Result")

RUNS_IN_FLIGHT_MAX = 8
CONSULTATIONS_MAX = 8
MEMORY_SECONDS = 0.25  # how long others count as there after work for them; guess
BURST_SECONDS = 0.005  # of work that a peer has before it waits; guess
PIECE_SECONDS_MAX = 0.5  # put down for one piece: what is longer a stalled machine took; guess


class Shares:
    """The peers of one node, and for whom it has worked last. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._shares: WeakValueDictionary[bytes, Share] = WeakValueDictionary()
        self._latest: Share | None = None
        self._before = -MEMORY_SECONDS  # when there was last work for another than the latest
        self._last = -MEMORY_SECONDS

    def of(self, key: bytes) -> "Share":
        """Return the share of a peer, the same for all its sessions."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(self)
        return share

    def worked(self, share: "Share", now: float) -> None:
        """Note that there was work for a peer."""
        if share is not self._latest:
            self._latest, self._before = share, self._last
        self._last = now

    def others(self, share: "Share") -> float:
        """Return when there was last work for another peer."""
        return self._before if share is self._latest else self._last


class Share:
    """What all sessions of one peer have together."""

    def __init__(self, shares: Shares) -> None:
        self.runs = trio.CapacityLimiter(RUNS_IN_FLIGHT_MAX)
        self.questions = trio.CapacityLimiter(CONSULTATIONS_MAX)
        self._shares = shares
        self._turn = trio.Lock()
        self._next = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the peer's next piece of work may be done; no other is meanwhile."""
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            now = self._shares.clock()
            owed = self._next - now
            if owed > BURST_SECONDS and now - self._shares.others(self) < MEMORY_SECONDS:
                await trio.sleep(owed)
            yield
        finally:
            self._turn.release()

    def charged(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Return the work, so that what it takes is put down to the peer."""

        def measured() -> Result:
            begun = self._shares.clock()
            try:
                return work()
            finally:
                ended = self._shares.clock()
                took = min(ended - begun, PIECE_SECONDS_MAX)
                self._next = max(self._next, begun) + 2 * took
                self._shares.worked(self, ended)

        return measured

    def owes(self, seconds: float) -> None:
        """Put down work for the peer that nobody can measure as it is done."""
        now = self._shares.clock()
        self._next = max(self._next, now) + 2 * seconds
        self._shares.worked(self, now)
