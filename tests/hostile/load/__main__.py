"""Measure what honest people notice of a hostile peer: p99 beside each attack, against none.

    python -m tests.hostile.load                     all attacks, a table
    python -m tests.hostile.load history --seconds 20
    python -m tests.hostile.load --json              and a last line of JSON

Two nodes, an honest pair and the attacker are processes of their own, over TLS. The windows with
and without the attack alternate, so that what else the machine does falls on both.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.figures import calibrate, progress
from bench.processes import Child, leave_on_sigterm, started
from tests.hostile.federation import NODES, found
from tests.hostile.load.attacks import ATTACKS

REST_SECONDS = 1.0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One attack: medians over its rounds, in milliseconds. ratio: of the p99, with and without."""

    case: str
    p50: float
    p99: float
    p50_attacked: float
    p99_attacked: float
    ratio: float
    lost: int


def window(pair: Child, seconds: float, rate: float) -> tuple[float, float, int]:
    """Have the pair talk for a while; return p50, p99, and how many texts did not arrive."""
    pair.say(f"measure {seconds} {rate}")
    found = pair.event("measured")
    return float(found["p50"]), float(found["p99"]), int(found["lost"])


def measured(case: str, pair: Child, attacker: Child, arguments: argparse.Namespace) -> Figure:
    """Alternate between peace and the attack."""
    calm, attacked = [], []
    for _ in range(arguments.rounds):
        calm.append(window(pair, arguments.seconds, arguments.rate))
        attacker.say(case)
        window(pair, REST_SECONDS, arguments.rate)
        attacked.append(window(pair, arguments.seconds, arguments.rate))
        attacker.say("stop")
        window(pair, REST_SECONDS, arguments.rate)

    def middle(windows: Sequence[tuple[float, float, int]], which: int) -> float:
        return round(statistics.median(one[which] for one in windows), 2)

    before, beside = middle(calm, 1), middle(attacked, 1)
    return Figure(
        case=case,
        p50=middle(calm, 0),
        p99=before,
        p50_attacked=middle(attacked, 0),
        p99_attacked=beside,
        ratio=round(beside / before, 2),
        lost=sum(one[2] for one in (*calm, *attacked)),
    )


def main() -> None:
    """Measure the attacks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.load")
    parser.add_argument("attacks", nargs="*", help="part of a name; none for all")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    leave_on_sigterm()
    chosen = [
        name
        for name in ATTACKS
        if not arguments.attacks or any(part in name for part in arguments.attacks)
    ]
    calib_s = calibrate()
    with TemporaryDirectory(prefix="ivor-load-") as folder:
        figures = list(played(Path(folder), chosen, arguments))
    for one in figures:
        print(
            f"{one.case:34} p50 {one.p50:6.1f} -> {one.p50_attacked:6.1f} ms   p99 {one.p99:6.1f}"
            f" -> {one.p99_attacked:6.1f} ms   x {one.ratio:.2f}   lost {one.lost}"
        )
    if arguments.json:
        line = {"v": 1, "what": "load", "calib_s": calib_s, "figures": figures}
        print(msgspec.json.encode(line).decode())


def played(base: Path, chosen: Sequence[str], arguments: argparse.Namespace) -> Iterator[Figure]:
    """Run the federation, and each attack in turn."""
    founded = found(base)
    with ExitStack() as running:
        for name in NODES:
            node = running.enter_context(started("tests.hostile.node_process", base / name))
            node.line()  # it listens
        pair = running.enter_context(started("tests.hostile.load.pair", base, founded.quiet.hex()))
        attacker = running.enter_context(
            started("tests.hostile.load.attacker", base, founded.open.hex())
        )
        for child in (pair, attacker):
            child.event("ready")
        window(pair, REST_SECONDS, arguments.rate)
        for case in chosen:
            figure = measured(case, pair, attacker, arguments)
            progress(f"{figure}")
            yield figure


if __name__ == "__main__":
    main()
