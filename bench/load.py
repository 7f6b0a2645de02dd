"""Many devices on one node: connecting, resting, writing, and coming back after a restart.

The node is one process, the devices are many sessions in two others, over TLS. A ministry of the
right size is made once, in the folder that IVOR_BENCH_CACHE names, and copied for each go.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.federation import Site, node_of
from bench.figures import Line, calibrate, lines_of, progress
from bench.ministry import AGENCY, MEMBERS, Size, prepared
from bench.ministry import NAME as MINISTRY
from bench.processes import Child, Event, started

NAME = "load"
CACHE = "IVOR_BENCH_CACHE"
WORKERS = 2
RESTART_RATE_SHARE = 4  # of the rate while devices come back: not all can write yet
UNITS = {
    "connected": "s",
    "turned_away": "",
    "memory": "KiB/connection",
    "files": "/connection",
    "swept": "s",
    "idle": "% of a core",
    "p50": "ms",
    "p99": "ms",
    "stored_p99": "ms",
    "undelivered": "",
    "unstored": "",
    "cpu": "% of a core",
    "back": "s",
    "back_turned_away": "",
    "back_p99": "ms",
}


class Plan(NamedTuple):
    """How many messages a second are written, and for how long each part goes on, in seconds."""

    rate: float
    writing: float
    resting: float
    returning: float


def measure(size: Size, plan: Plan) -> list[Line]:
    """Measure a node of this size once."""
    with TemporaryDirectory(prefix="ivor-bench-") as temporary:
        folder = Path(temporary) / MINISTRY
        kept = Path(os.environ.get(CACHE) or temporary)
        made = prepared(kept, folder, size)
        site = Site(MINISTRY, folder / AGENCY, made.port)
        calib_s = calibrate()
        with ExitStack() as running:
            node = running.enter_context(node_of(site))
            before = _Held.by(node)
            workers = _started(running, folder, size)
            found = _connected(node, workers, size, before)
            found |= _writing(node, workers, plan)
            found |= _resting(node, plan.resting)
            node.stop()
            found |= _restarted(site, workers, size, plan)
    case = f"{size.devices:,} devices, {size.chats:,} chats, {plan.rate:g} messages/s"
    return lines_of(NAME, case, UNITS, [found], calib_s)


class _Held(NamedTuple):
    """What a process holds."""

    kib: float
    files: int

    @classmethod
    def by(cls, child: Child) -> "_Held":
        files = sum(1 for _ in Path(f"/proc/{child.process.pid}/fd").iterdir())
        return cls(child.memory_mib("VmRSS") * 1024, files)


def _started(running: ExitStack, folder: Path, size: Size) -> list[Child]:
    """Start the processes with the devices, which stay connected from then on."""
    bounds = [size.devices * at // WORKERS for at in range(WORKERS + 1)]
    workers = [
        running.enter_context(started("bench.load_worker", folder, first, stop))
        for first, stop in pairwise(bounds)
    ]
    for worker in workers:
        worker.event("ready")
    return workers


def _reach(workers: Sequence[Child], count: int) -> tuple[float, float]:
    """Wait until so many are connected in all; return when that was, and who was turned away."""
    for worker in workers:
        worker.say(f"reach {count // WORKERS}")
    found = [worker.event("reached") for worker in workers]
    return max(float(one["at"]) for one in found), sum(float(one["failures"]) for one in found)


def _connected(
    node: Child, workers: Sequence[Child], size: Size, before: _Held
) -> dict[str, float]:
    begun = time.monotonic()
    reached, failures = _reach(workers, size.devices)
    held = _Held.by(node)
    progress(f"{NAME}: all connected after {reached - begun:.1f} s")
    return {
        "connected": reached - begun,
        "turned_away": failures,
        "memory": (held.kib - before.kib) / size.devices,
        "files": (held.files - before.files) / size.devices,
    }


def _resting(node: Child, seconds: float) -> dict[str, float]:
    """Measure a node that nobody writes to, after the sweep of all chats that its start began."""
    swept = node.event("swept")
    cpu = node.cpu_seconds()
    time.sleep(seconds)
    share = (node.cpu_seconds() - cpu) / seconds * 100
    progress(f"{NAME}: {share:.2f} % of a core at rest")
    return {"swept": float(swept["seconds"]), "idle": share}


def _writing(node: Child, workers: Sequence[Child], plan: Plan) -> dict[str, float]:
    """Have messages written; of the processes' percentiles the worse ones are reported."""
    cpu = node.cpu_seconds()
    _begin_writing(workers, plan.rate, plan.writing)
    told = _written(workers)
    share = (node.cpu_seconds() - cpu) / plan.writing * 100
    sums = {
        name: sum(float(one[name]) for one in told) for name in ("written", "stored", "delivered")
    }
    worst = _worst(told, "p50", "p99", "stored_p99")
    progress(f"{NAME}: {', '.join(f'{name} {value:.1f} ms' for name, value in worst.items())}")
    return worst | {
        "undelivered": sums["written"] * (MEMBERS - 1) - sums["delivered"],
        "unstored": sums["written"] - sums["stored"],
        "cpu": share,
    }


def _worst(told: Sequence[Event], *names: str) -> dict[str, float]:
    """Return the greatest of each; nothing where no process has any."""
    return {
        name: max(values)
        for name in names
        if (values := [float(one[name]) for one in told if name in one])
    }


def _begin_writing(workers: Sequence[Child], rate: float, seconds: float) -> None:
    for worker in workers:
        worker.say(f"write {rate / WORKERS} {seconds}")


def _written(workers: Sequence[Child]) -> list[Event]:
    for worker in workers:
        worker.say("written")
    return [worker.event("written") for worker in workers]


def _restarted(site: Site, workers: Sequence[Child], size: Size, plan: Plan) -> dict[str, float]:
    """Start the node anew: all come back, and whoever is there writes meanwhile."""
    _reach(workers, 0)
    with node_of(site):
        begun = time.monotonic()
        _begin_writing(workers, plan.rate / RESTART_RATE_SHARE, plan.returning)
        reached, failures = _reach(workers, size.devices)
        told = _written(workers)
    progress(f"{NAME}: all back after {reached - begun:.1f} s")
    found = {"back": reached - begun, "back_turned_away": failures}
    late = _worst(told, "stored_p99")
    return found | ({"back_p99": late["stored_p99"]} if late else {})
