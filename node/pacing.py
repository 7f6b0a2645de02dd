"""What is stored, told in batches: at once when it was quiet, together under load (SPEC 6.5)."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from protocol.entry import ChatId, DeviceKey
from protocol.frame import Holding

PAUSE_SECONDS = 0.02  # between batches under load; with less, each costs a transaction
WAITING_MAX = 8192


class Batch:
    """Who stores how much: of each chain the farthest, as what comes again is told again."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[DeviceKey, ChatId, DeviceKey, int], Holding] = {}

    def __len__(self) -> int:
        """Return of how many chains."""
        return len(self._waiting)

    def add(self, holdings: Sequence[Holding]) -> None:
        """Put these to the rest."""
        for one in holdings:
            chain = one.agency, one.chat, one.device, one.lane
            known = self._waiting.get(chain, one)
            self._waiting[chain] = max(known, one, key=lambda holding: holding.seq)

    def take(self) -> list[Holding]:
        """Return all, and begin anew."""
        taken, self._waiting = list(self._waiting.values()), {}
        return taken


class Pacer:
    """Hands on holdings in batches.

    start: how to run a task. work: takes one batch; no second begins before it is done.
    """

    def __init__(
        self,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        work: Callable[[list[Holding]], Awaitable[None]],
    ) -> None:
        self._start = start
        self._work = work
        self._batch = Batch()
        self._taken = trio.Event()
        self._running = False

    async def add(self, holdings: Sequence[Holding]) -> None:
        """Hand on holdings now, or with the next batch; wait while too many wait already."""
        while len(self._batch) >= WAITING_MAX:
            await self._taken.wait()
        self._batch.add(holdings)
        if self._batch and not self._running:
            self._running = True
            self._start(self._run)

    async def _run(self) -> None:
        while self._batch:
            batch = self._batch.take()
            self._taken.set()
            self._taken = trio.Event()
            await self._work(batch)
            await trio.sleep(PAUSE_SECONDS)
        self._running = False
