"""The honest pair as a process of its own: BASE CHAT, both devices and their links.

It reports `ready`, then obeys its stdin: `measure SECONDS RATE` has anna and boris write to each
other in turn at a steady rate, and reports how long a text took from its writer's `write` until it
was opened and stored at its reader's.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
import trio

from bench.figures import percentile
from bench.processes import tell
from client.device import Device
from client.link import Link, linked
from client.mailbox import Letter
from node.logs import open_log
from protocol.entry import ChatId
from protocol.message import Text
from tests.hostile.federation import PATIENCE_SECONDS, open_device, say

Party = tuple[Device, Link]


@dataclass(slots=True)
class Talk:
    """When each text was written, and how long it took; both in seconds."""

    begun: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    def hear(self, letters: Sequence[Letter]) -> None:
        """Take what came to either device."""
        for letter in letters:
            if isinstance(letter.message, Text) and letter.message.text in self.begun:
                took = trio.current_time() - self.begun[letter.message.text]
                self.took.setdefault(letter.message.text, took)


async def measure(
    chat: ChatId, parties: tuple[Party, Party], talk: Talk, seconds: float, rate: float
) -> None:
    """Write in turn, whether or not the last text has arrived."""
    talk.begun.clear()
    talk.took.clear()
    count = int(seconds * rate)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            await trio.sleep_until(start + number / rate)
            device, link = parties[number % 2]
            text = f"{start} {number}"
            talk.begun[text] = trio.current_time()
            nursery.start_soon(link.write, partial(say, device, chat, text))
        with trio.move_on_after(PATIENCE_SECONDS):
            while len(talk.took) < count:  # noqa: ASYNC110 - either reader may be the last
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    late = [PATIENCE_SECONDS] * (count - len(talk.took))
    values = [*talk.took.values(), *late]
    tell(
        "measured",
        p50=percentile(values, 0.5) * 1000,
        p99=percentile(values, 0.99) * 1000,
        lost=len(late),
    )


async def main(base: Path, chat: ChatId) -> None:
    """Obey stdin until it ends."""
    open_log(sys.stderr, "text", "warning")
    anna, boris = open_device(base, "anna"), open_device(base, "boris")
    talk = Talk()
    async with linked(anna, talk.hear) as first, linked(boris, talk.hear) as second:
        for link in (first, second):
            await link.greeted.wait()
            await link.settle(PATIENCE_SECONDS)
        tell("ready")
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for line in raw.decode().splitlines():
                _, seconds, rate = line.split()
                parties = (anna, first), (boris, second)
                await measure(chat, parties, talk, float(seconds), float(rate))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, Path(sys.argv[1]), ChatId(bytes.fromhex(sys.argv[2])))
