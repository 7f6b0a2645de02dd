"""Live delivery: device → node → node → device, four processes, each durable at every step.

The clock runs from the call of `send` until the other device has the text, opened and stored.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import slow_disk
from bench.federation import Site, founded, node_of, opened, user_of
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import new_chat
from bench.processes import Child, started
from protocol.entry import ChatId

Four = tuple[Child, Child, Child, Child]  # both nodes, then writer and reader

NAME = "live"
RATE = 200
AT_ONCE = 256
WARM_UP = 50
MESSAGES_MIN = 40  # at a low rate
RATE_SECONDS = 5
SLOWER_MS = (1, 3)  # what others' work did to our disk on bad days
PACED_UNITS = {
    "p50": "ms",
    "p99": "ms",
    "most": "ms",
    "cpu_writer": "µs/message",
    "cpu_reader": "µs/message",
    "cpu_nodes": "µs/message",
}
FLOOD_UNITS = {
    "rate": "messages/s",
    "cpu_writer": "µs/message",
    "cpu_reader": "µs/message",
    "cpu_nodes": "µs/message",
}


def measure(count: int, runs: int) -> list[Line]:
    """Measure both cases with this many messages a run."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        sites, chat = _prepared(Path(folder))
        calib_s = calibrate()
        with _four(sites, chat) as four:
            paced = [_paced(four, count) for _ in range(runs)]
            flood = [_run(four, f"flood {count} {AT_ONCE}", count) for _ in range(runs)]
        found = [
            *lines_of(NAME, f"{RATE} messages/s", PACED_UNITS, paced, calib_s),
            *lines_of(NAME, "flat out", FLOOD_UNITS, flood, calib_s),
        ]
        for longer_ms in SLOWER_MS:
            calib_s = calibrate()
            with slow_disk.syncs(longer_ms), _four(sites, chat) as four:
                paced = [_paced(four, count) for _ in range(runs)]
            case = f"{RATE} messages/s, syncs {longer_ms} ms longer"
            found += lines_of(NAME, case, PACED_UNITS, paced, calib_s)
    return found


def measure_rates(rates: Sequence[int]) -> list[Line]:
    """Measure once at each of these numbers of messages a second."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        sites, chat = _prepared(Path(folder))
        calib_s = calibrate()
        found: list[Line] = []
        with _four(sites, chat) as four:
            for rate in rates:
                paced = _paced(four, max(MESSAGES_MIN, rate * RATE_SECONDS), rate)
                found += lines_of(NAME, f"{rate:,} messages/s", PACED_UNITS, [paced], calib_s)
        return found


def measure_flood(count: int) -> list[Line]:
    """Measure once how many messages a second go through when so many are written at once."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        sites, chat = _prepared(Path(folder))
        calib_s = calibrate()
        with _four(sites, chat) as four:
            flood = _run(four, f"flood {count} {AT_ONCE}", count)
        return lines_of(NAME, "flat out", FLOOD_UNITS, [flood], calib_s)


def _prepared(folder: Path) -> tuple[Sequence[Site], ChatId]:
    progress(f"{NAME}: two agencies, and a chat")
    sites = founded(folder)
    device = opened(sites[0])
    chat = new_chat(device, [user_of(device, sites[1])])
    device.close()
    return sites, chat


@contextmanager
def _four(sites: Sequence[Site], chat: bytes) -> Iterator[Four]:
    """Run both nodes and both devices, and let them warm up."""
    with (
        node_of(sites[0]) as first,
        node_of(sites[1]) as second,
        _devices(sites[0], sites[1], chat.hex()) as (writer, reader),
    ):
        four = first, second, writer, reader
        _run(four, f"paced {WARM_UP} {RATE}", WARM_UP)
        yield four


def _paced(four: Four, count: int, rate: int = RATE) -> dict[str, float]:
    found = _run(four, f"paced {count} {rate}", count)
    progress(f"{NAME}: p50 {found['p50']:.1f}, p99 {found['p99']:.1f} ms")
    return found


@contextmanager
def _devices(first: Site, second: Site, chat: str) -> Iterator[tuple[Child, Child]]:
    with (
        started("bench.device_worker", "write", first.home, chat) as writer,
        started("bench.device_worker", "read", second.home) as reader,
    ):
        writer.event("ready")
        reader.event("ready")
        yield writer, reader


def _run(four: Four, command: str, count: int) -> dict[str, float]:
    first, second, writer, reader = four
    before = first.cpu_seconds() + second.cpu_seconds()
    reader.say(f"await {count}")
    writer.say(command)
    sent = writer.event("sent")
    received = reader.event("received")
    nodes = first.cpu_seconds() + second.cpu_seconds() - before
    return {
        "p50": float(received["p50"]),
        "p99": float(received["p99"]),
        "most": float(received["most"]),
        "rate": count / (float(received["ended"]) - float(sent["begun"])),
        "cpu_writer": float(sent["cpu"]),
        "cpu_reader": float(received["cpu"]),
        "cpu_nodes": nodes / count * 1e6,
    }
