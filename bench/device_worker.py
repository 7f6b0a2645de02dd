"""A device in a process of its own: write HOME CHAT, or read HOME.

It reports `ready`, then obeys its stdin. A writer: `paced COUNT RATE`, or `flood COUNT AT_ONCE`;
every text carries the moment at which it was given to `send`. A reader: `await COUNT`, and reports
how long each took until it was opened, in the mailbox, durably. CLOCK_MONOTONIC is one for all
processes of a machine.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import trio

from bench import slow_disk
from bench.federation import PASSPHRASE, milliseconds
from bench.figures import percentile
from bench.history import text_of
from bench.processes import tell
from client import compose
from client.device import Device, open_device
from client.link import Link, linked
from client.mailbox import Letter
from node.logs import open_log
from protocol.entry import ChatId
from protocol.message import Text

STAMP_DIGITS = 20
LINE_BYTES = 4096


def stamped(number: int) -> Text:
    """Return a text of 240 bytes that begins with the time in nanoseconds."""
    return Text(f"{time.monotonic_ns():0{STAMP_DIGITS}d}{text_of(number)[STAMP_DIGITS:]}", None)


async def send(link: Link, device: Device, chat: ChatId, number: int) -> None:
    """Write one message as `ivor send` does, while connected."""
    message = stamped(number)
    await link.write(partial(compose.send, device, chat, message, milliseconds(), None))


async def paced(link: Link, device: Device, chat: ChatId, count: int, rate: float) -> None:
    """Write messages at a steady rate, whether or not the last is done."""
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            await trio.sleep_until(begun + number / rate)
            nursery.start_soon(send, link, device, chat, number)


async def flood(link: Link, device: Device, chat: ChatId, count: int, at_once: int) -> None:
    """Write messages as fast as they are taken, so many of them at once."""
    numbers = iter(range(count))

    async def one_after_another() -> None:
        for number in numbers:
            await send(link, device, chat, number)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(one_after_another)


async def write(link: Link, device: Device, chat: ChatId, line: str) -> None:
    """Carry out a writer's command."""
    command, count, more = line.split()
    begun, cpu = time.monotonic(), time.process_time()
    if command == "paced":
        await paced(link, device, chat, int(count), float(more))
    else:
        await flood(link, device, chat, int(count), int(more))
    tell("sent", begun=begun, cpu=(time.process_time() - cpu) / int(count) * 1e6)


async def read(link: Link, letters: list[Letter], line: str) -> None:
    """Wait for this many messages and report how long they took."""
    count = int(line.split()[1])
    took: list[float] = []
    cpu = time.process_time()
    while len(took) < count:
        news = link.news
        came = letters.copy()
        letters.clear()
        now = time.monotonic_ns()
        took += [
            (now - int(letter.message.text[:STAMP_DIGITS])) / 1e6
            for letter in came
            if isinstance(letter.message, Text)
        ]
        if not came:
            await news.wait()
    tell(
        "received",
        ended=time.monotonic(),
        p50=percentile(took, 0.5),
        p99=percentile(took, 0.99),
        most=max(took),
        cpu=(time.process_time() - cpu) / count * 1e6,
    )


async def main(role: str, home: Path, chat: ChatId) -> None:
    """Obey stdin until it ends."""
    open_log(sys.stderr, "text", "warning")
    device = open_device(home, PASSPHRASE, os.urandom)
    slow_disk.delay(device.connection)
    letters: list[Letter] = []
    async with linked(device, letters.extend) as link:
        await link.greeted.wait()
        await link.settle(10.0)
        letters.clear()
        tell("ready")
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for line in raw.decode().splitlines():
                if role == "write":
                    await write(link, device, chat, line)
                else:
                    await read(link, letters, line)
    device.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), ChatId(bytes.fromhex((*sys.argv, "")[3])))
