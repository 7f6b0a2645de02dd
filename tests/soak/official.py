"""A device that writes and reads as its official would, node or no node: HOME CHAT RATE.

Tells `ready`. RATE: messages a second. `look` on stdin is answered by `looked`: how many were
written and read, how long those read since the last look took, entries stored. After `hush` it
only reads. When stdin ends, so does it. CLOCK_MONOTONIC, which the texts carry, is one for all
processes of a machine.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from bench.device_worker import STAMP_DIGITS, stamped
from bench.federation import PASSPHRASE, milliseconds
from bench.figures import percentile
from bench.processes import tell
from client import compose, exchange
from client.device import Device, open_device
from client.folder import DATABASE_FILE
from client.following import TEND_SECONDS, VISIT_SECONDS
from client.link import Link, linked
from client.mailbox import Letter
from node.database import connect
from node.errors import NetworkError
from node.logs import open_log
from protocol.entry import ChatId
from protocol.message import Text
from tests.soak.node import ENTRIES

LOOK_SECONDS = 0.5
AWAY_SECONDS = 1.0


@dataclass(slots=True)
class Tally:
    """What was written and read so far; took: milliseconds, since the last look."""

    rate: float
    due: float = field(default_factory=trio.current_time)
    written: int = 0
    read: int = 0
    took: list[float] = field(default_factory=list)
    dice: Random = field(default_factory=Random)

    def is_due(self) -> bool:
        """Whether to write now. What was not written in time is not made up for."""
        now = trio.current_time()
        if now < self.due:
            return False
        self.due = now + self.dice.expovariate(self.rate)
        return True

    def take(self, letters: Sequence[Letter], own: bytes) -> None:
        """Count what others wrote."""
        now = time.monotonic_ns()
        for letter in letters:
            if isinstance(letter.message, Text) and letter.reference.device != own:
                self.read += 1
                self.took.append((now - int(letter.message.text[:STAMP_DIGITS])) / 1e6)

    def look(self, entries: int) -> None:
        """Tell the parent."""
        took, self.took = self.took, []
        delivery = {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99)} if took else {}
        tell("looked", written=self.written, read=self.read, entries=entries, **delivery)


async def converse(device: Device, chat: ChatId, tally: Tally) -> None:
    """Stay connected, and write; what is written while no node is there waits in the device."""
    while True:
        try:
            async with linked(device, partial(tally.take, own=device.key)) as link:
                await exchange.visit(device, link, VISIT_SECONDS)
                await _talk(device, link, chat, tally)
        except NetworkError:
            await trio.sleep(AWAY_SECONDS * tally.dice.uniform(0.5, 1.5))
        if tally.is_due():
            with device.transaction():
                _write(device, chat, tally)


async def _talk(device: Device, link: Link, chat: ChatId, tally: Tally) -> None:
    tended = trio.current_time()
    while True:
        link.check()
        if trio.current_time() - tended > TEND_SECONDS:
            await exchange.tend(device, link)
            tended = trio.current_time()
        if tally.is_due():
            await link.write(partial(_write, device, chat, tally))
        news = link.news
        with trio.move_on_after(min(LOOK_SECONDS, max(0.0, tally.due - trio.current_time()))):
            await news.wait()


def _write(device: Device, chat: ChatId, tally: Tally) -> None:
    compose.send(device, chat, stamped(tally.written), milliseconds(), None)
    tally.written += 1


async def main(home: Path, chat: ChatId, rate: float) -> None:
    """Converse until stdin ends."""
    open_log(sys.stderr, "text", "error")
    device = open_device(home, PASSPHRASE, os.urandom)
    reading = connect(home / DATABASE_FILE, device.secrets.database_key)  # a thread may commit
    tally = Tally(rate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, device, chat, tally)
        tell("ready")
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for command in raw.decode().split():
                if command == "hush":
                    tally.due = float("inf")
                else:
                    tally.look(int(reading.execute(ENTRIES).get))
        nursery.cancel_scope.cancel()
    reading.close()
    device.close()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), ChatId(bytes.fromhex(sys.argv[2])), float(sys.argv[3]))
