"""`python -m bench.peers [--rounds N] [--quick] [--json]`: the same work on other systems, in turn.

Each round measures every system once, one after another, so that a slow spell of the machine
meets all of them; ratios are of one round. What a system needs is installed into a folder that is
kept in IVOR_BENCH_CACHE, or thrown away; one that cannot be installed here is left out, and why.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.figures import Line, calibrate, encoded, lines_of, progress, table
from bench.peers import ejabberd, hypercore, ivor, synapse
from bench.peers.installing import NotHere

NAME = "peers"
UNITS = {
    "catch_up": "entries/s",
    "p50": "ms",
    "p99": "ms",
    "flat_out": "messages/s",
    "p50_slow": "ms",
    "p99_slow": "ms",
}
FASTER_IS_MORE = ("catch_up", "flat_out")


class Scale(NamedTuple):
    """How much of the same work."""

    entries: int
    messages: int
    rate: int
    slow_messages: int
    slow_rate: int


NORMAL = Scale(100_000, 2_000, 200, 100, 5)
QUICK = Scale(5_000, 200, 50, 20, 5)

Measure = Callable[[], Mapping[str, float]]


class System(NamedTuple):
    """One case. about: what it gives up, or gains."""

    name: str
    about: str
    measure: Measure


def systems(kept: Path, scale: Scale) -> list[System]:
    """Install what can be installed; Ivor comes first."""
    found = [
        System(ivor.NAME, ivor.ABOUT, partial(ivor.measure, *scale[:3], scale.slow_rate)),
    ]
    for peer in (hypercore, ejabberd, synapse):
        folder = kept / peer.NAME
        folder.mkdir(parents=True, exist_ok=True)
        try:
            peer.install(folder)
        except NotHere as error:
            progress(f"{NAME}: without {peer.NAME}: {error}")
            continue
        found += _cases(peer.NAME, folder, scale)
    return found


def _cases(name: str, folder: Path, scale: Scale) -> list[System]:
    entries, messages, rate, slow_messages, slow_rate = scale
    if name == hypercore.NAME:
        measure = partial(hypercore.measure, folder, entries, messages, rate)
        return [System(name, hypercore.ABOUT, measure)]
    if name == synapse.NAME:
        measure = partial(synapse.measure, folder, slow_messages, slow_rate)
        return [System(name, synapse.ABOUT, measure)]
    return [
        System(
            f"{name}, {archive}", about, partial(ejabberd.measure, folder, messages, rate, archive)
        )
        for archive, about in ejabberd.CASES.items()
    ]


def measure(chosen: Sequence[System], rounds: int) -> list[Line]:
    """Measure all in turn, so often; return their figures, and how many times better Ivor is."""
    found: dict[str, list[Mapping[str, float]]] = {one.name: [] for one in chosen}
    ratios: dict[str, list[Mapping[str, float]]] = {one.name: [] for one in chosen}
    calib = []
    for number in range(rounds):
        calib.append(calibrate())
        for one in chosen:
            progress(f"{NAME}: round {number + 1}, {one.name}")
            try:
                figures = one.measure()
            except NotHere as error:
                progress(f"{NAME}: {one.name} could not be measured: {error}")
                continue
            found[one.name].append(figures)
            ratios[one.name].append(_ratios(found[ivor.NAME][-1], figures))
    calib_s = statistics.median(calib)
    lines: list[Line] = []
    for one in chosen:
        case = f"{one.name}: {one.about}"
        lines += lines_of(NAME, case, UNITS, found[one.name], calib_s)
        if one.name != ivor.NAME:
            times = {f"ivor is better at {figure}": "times" for figure in UNITS}
            lines += lines_of(NAME, case, times, ratios[one.name], calib_s)
    return lines


def _ratios(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """Return how many times better ours are; below 1 theirs are."""
    return {
        f"ivor is better at {figure}": (
            ours[figure] / theirs[figure]
            if figure in FASTER_IS_MORE
            else theirs[figure] / ours[figure]
        )
        for figure in UNITS
        if figure in theirs
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.set_defaults(scale=NORMAL)
    parser.add_argument("--quick", dest="scale", action="store_const", const=QUICK)
    chosen = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="ivor-bench-") as temporary:
        kept = Path(os.environ.get("IVOR_BENCH_CACHE") or temporary).absolute() / NAME
        lines = measure(systems(kept, chosen.scale), chosen.rounds)
    print("\n".join(map(encoded, lines)) if chosen.json else table(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
