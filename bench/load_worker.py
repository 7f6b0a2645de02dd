"""Many devices of one node in one process: FOLDER FIRST STOP.

Obeys stdin: `reach COUNT` reports when so many are connected, `write RATE SECONDS` begins to write,
and `written` reports, when that is over, what became of it and of what came to these devices.
"""

import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from bench.figures import percentile
from bench.leaf import Leaf
from bench.ministry import AGENCY, HeldChat, read_made
from bench.processes import tell
from node.agency import CARD_FILE, read_card
from node.logs import open_log

DRAIN_SECONDS = 5.0  # until what was written last is stored
POLL_SECONDS = 0.05
SILENT_SECONDS = 0.5
TICK_SECONDS = 1.0


class Fleet:
    """The devices of this process."""

    def __init__(self, folder: Path, first: int, stop: int) -> None:
        made = read_made(folder)
        card = read_card((folder / AGENCY / CARD_FILE).read_text())
        chats: dict[int, list[HeldChat]] = {number: [] for number in range(first, stop)}
        for chat in made.chats:
            for member in chats.keys() & set(chat.members):
                chats[member].append(chat)
        self._report = trio.Event()
        self.leaves = [Leaf(made.devices[at], card, chats[at]) for at in range(first, stop)]

    def report(self) -> None:
        """Have `write` report, as soon as it is done."""
        self._report.set()

    async def keep_time(self) -> None:
        """Look at the deadlines of all sessions, for ever."""
        while True:
            await trio.sleep(TICK_SECONDS)
            for leaf in self.leaves:
                await leaf.keep_time()

    async def reach(self, count: int) -> None:
        """Report when so many are connected, and how often one was turned away until then."""
        before = sum(leaf.failures for leaf in self.leaves)
        while sum(leaf.greeted for leaf in self.leaves) != count:  # noqa: ASYNC110 - no event says it
            await trio.sleep(POLL_SECONDS)
        failures = sum(leaf.failures for leaf in self.leaves) - before
        tell("reached", at=time.monotonic(), failures=failures)

    async def write(self, rate: float, seconds: float) -> None:
        """Write at a steady rate, whether or not the last is done; then report, when asked."""
        for leaf in self.leaves:
            leaf.delivered.clear()
            leaf.stored.clear()
        while not any(leaf.writes for leaf in self.leaves):  # noqa: ASYNC110 - no event says it
            await trio.sleep(POLL_SECONDS)
        begun, written = trio.current_time(), 0
        async with trio.open_nursery() as nursery:
            while (at := begun + written / rate) < begun + seconds:
                await trio.sleep_until(at)
                ready = [leaf for leaf in self.leaves if leaf.writes]
                if ready:
                    nursery.start_soon(random.choice(ready).write)
                written += 1
        with trio.move_on_after(DRAIN_SECONDS):
            while any(leaf.waits for leaf in self.leaves):  # noqa: ASYNC110 - no event says it
                await trio.sleep(POLL_SECONDS)
        await self._fall_silent()
        delivered = [took for leaf in self.leaves for took in leaf.delivered]
        stored = [took for leaf in self.leaves for took in leaf.stored]
        await self._report.wait()
        self._report = trio.Event()
        tell(
            "written",
            written=written,
            stored=len(stored),
            delivered=len(delivered),
            **_percentiles("", delivered),
            **_percentiles("stored_", stored),
        )

    async def _fall_silent(self) -> None:
        """Wait until nothing comes any more: what another process wrote last may be on its way."""
        before = -1
        with trio.move_on_after(DRAIN_SECONDS):
            while (now := sum(len(leaf.delivered) for leaf in self.leaves)) != before:
                before = now
                await trio.sleep(SILENT_SECONDS)


def _percentiles(prefix: str, took: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds; nothing of nothing."""
    if not took:
        return {}
    return {f"{prefix}p50": percentile(took, 0.5), f"{prefix}p99": percentile(took, 0.99)}


async def main(folder: Path, first: int, stop: int) -> None:
    """Obey stdin until it ends."""
    open_log(sys.stderr, "text", "error")
    fleet = Fleet(folder, first, stop)
    async with trio.open_nursery() as nursery:
        for leaf in fleet.leaves:
            nursery.start_soon(leaf.stay)
        nursery.start_soon(fleet.keep_time)
        tell("ready")
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for line in raw.decode().splitlines():
                command, *numbers = line.split()
                if command == "reach":
                    await fleet.reach(int(numbers[0]))
                elif command == "written":
                    fleet.report()
                else:
                    nursery.start_soon(fleet.write, float(numbers[0]), float(numbers[1]))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
