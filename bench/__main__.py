"""`python -m bench [NAME…] [--quick | --long] [--runs N] [--json]`: measure, then print.

A table, or with --json one JSON object a figure. Progress goes to stderr. See bench/README.md.
"""

import argparse
import sys
from collections.abc import Callable, Mapping

from bench import (
    blob,
    catch_up,
    commands,
    epochs,
    evidence,
    growth,
    join,
    live,
    load,
    membership,
    reconnect,
    spread,
    verify,
)
from bench.figures import Line, encoded, table
from bench.ministry import Size
from bench.processes import leave_on_sigterm

Measure = Callable[[str, int], list[Line]]


def _catch_up(scale: str, runs: int) -> list[Line]:
    sizes = {
        "tiny": [200],
        "quick": [1_000, 10_000],
        "normal": [1_000, 10_000, 100_000],
        "long": [1_000, 10_000, 100_000, 1_000_000],
    }
    return catch_up.measure(sizes[scale], runs)


def _join(scale: str, runs: int) -> list[Line]:
    sizes = {
        "tiny": [1_200],
        "quick": [10_000],
        "normal": [10_000, 100_000],
        "long": [10_000, 100_000, 1_000_000],
    }
    return join.measure(sizes[scale], runs)


def _live(scale: str, runs: int) -> list[Line]:
    counts = {"tiny": 20, "quick": 400, "normal": 2_000, "long": 10_000}
    return live.measure(counts[scale], runs)


def _epochs(scale: str, runs: int) -> list[Line]:
    sizes = {"tiny": [8], "quick": [8, 128]}
    return epochs.measure(sizes.get(scale, [8, 128, 1_000]), runs)


def _reconnect(scale: str, runs: int) -> list[Line]:
    chats = {"tiny": 20, "quick": 1_000, "normal": 100_000, "long": 100_000}
    return reconnect.measure(chats[scale], runs)


def _spread(scale: str, runs: int) -> list[Line]:
    sizes = {"tiny": [20], "quick": [20, 100]}
    return spread.measure(sizes.get(scale, [20, 100, 1_000, 3_000]), runs)


def _membership(scale: str, runs: int) -> list[Line]:
    sizes = {"tiny": [100], "quick": [1_000]}
    readers = {"tiny": 200}.get(scale, 10_000)
    return membership.measure(sizes.get(scale, [1_000, 10_000]), readers, runs)


def _verify(scale: str, runs: int) -> list[Line]:
    sizes = {"tiny": [100], "quick": [10_000]}
    return verify.measure(sizes.get(scale, [10_000, 100_000]), runs)


def _evidence(scale: str, runs: int) -> list[Line]:
    sizes = {"tiny": [20], "quick": [1_000]}
    return evidence.measure(sizes.get(scale, [10_000]), runs)


def _blob(scale: str, runs: int) -> list[Line]:
    sizes = {"tiny": [2 << 20], "quick": [64 << 20], "long": [512 << 20, 2048 << 20]}
    return blob.measure(sizes.get(scale, [512 << 20]), runs)


def _commands(scale: str, runs: int) -> list[Line]:
    return commands.measure(1 if scale == "tiny" else 2 * runs)


def _load(scale: str, _: int) -> list[Line]:
    if scale == "tiny":
        return load.measure(Size(8, 16), load.Plan(20, 0.5, 0.2, 0.5))
    if scale == "quick":
        return load.measure(Size(50, 500), load.Plan(50, 10, 15, 10))
    return load.measure(Size(2_000, 20_000), load.Plan(100, 30, 60, 30))


def _growth(scale: str, runs: int) -> list[Line]:
    return growth.measure({"tiny": 1, "quick": 2}.get(scale, 3), runs)


BENCHMARKS: Mapping[str, Measure] = {
    catch_up.NAME: _catch_up,
    join.NAME: _join,
    live.NAME: _live,
    blob.NAME: _blob,
    epochs.NAME: _epochs,
    reconnect.NAME: _reconnect,
    spread.NAME: _spread,
    commands.NAME: _commands,
    membership.NAME: _membership,
    verify.NAME: _verify,
    evidence.NAME: _evidence,
}
# These take minutes of their own, and run only by name.
BY_NAME: Mapping[str, Measure] = {load.NAME: _load, growth.NAME: _growth}
ALL = {**BENCHMARKS, **BY_NAME}


def main(arguments: list[str]) -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.set_defaults(scale="normal")
    for scale, text in (
        ("tiny", "smallest sizes: shows that it runs, measures nothing"),
        ("quick", "small sizes"),
        ("long", "also a million entries"),
    ):
        parser.add_argument(
            f"--{scale}", dest="scale", action="store_const", const=scale, help=text
        )
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - ALL.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    leave_on_sigterm()
    lines: list[Line] = []
    for name in chosen.names or BENCHMARKS:
        found = ALL[name](chosen.scale, chosen.runs)
        lines += found
        if chosen.json:
            print("\n".join(map(encoded, found)), flush=True)
    if not chosen.json:
        print(table(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
