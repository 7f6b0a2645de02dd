"""Work that may be put together: at once when it was quiet, in batches under load (SPEC 6.5)."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

import trio

Item = TypeVar("Item")

PAUSE_SECONDS = 0.02  # between batches under load; with less, each item costs a transaction
WAITING_MAX = 8192


class Pacer(Generic[Item]):
    """Hands on items in batches; of items with one key only the newest.

    start: how to run a task. work: takes one batch; no second begins before it is done.
    """

    def __init__(
        self,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        work: Callable[[list[Item]], Awaitable[None]],
    ) -> None:
        self._start = start
        self._work = work
        self._waiting: dict[Hashable, Item] = {}
        self._taken = trio.Event()
        self._running = False

    async def add(self, items: Mapping[Hashable, Item]) -> None:
        """Hand on items now, or with the next batch; wait while too many wait already."""
        while len(self._waiting) >= WAITING_MAX:
            await self._taken.wait()
        self._waiting |= items
        if self._waiting and not self._running:
            self._running = True
            self._start(self._run)

    async def _run(self) -> None:
        while self._waiting:
            batch = list(self._waiting.values())
            self._waiting.clear()
            self._taken.set()
            self._taken = trio.Event()
            await self._work(batch)
            await trio.sleep(PAUSE_SECONDS)
        self._running = False
