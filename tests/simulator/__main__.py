"""Simulate: `python -m tests.simulator --seeds 100`, or one seed again with `--seed 4711 --trace`.

Each seed runs twice, in processes with another hash seed: the traces must be equal. A violation is
printed with seed, commit and the one command that repeats it. Ends with 7 if there was any.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom

import msgspec

from tests.simulator.drawing import draw as picture
from tests.simulator.play import ROOT, Broken, Outcome, Regression, commit, hunt, play, shrink
from tests.simulator.script import Script, draw
from tests.simulator.trace import Trace

BATCH_SEEDS = 20  # of one process: making the agencies takes as long as two seeds
COLLECTIONS = 50_000, 20, 100  # a simulation makes much and keeps little
FRESH = 1 << 32
HUNT_MINUTES = 0.2, 0.4, 1.5  # in turn: what is rare has more seeds, what takes time has time
VIOLATED = 7  # the exit code for equivocation seen, as of the command line


def options(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many, one after the other")
    parser.add_argument("--first", type=int, help="the first of them; fresh ones if not given")
    parser.add_argument("--minutes", type=float, default=3.0, help="simulated, before healing")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--seconds", type=float, help="of real time: begin no batch after that")
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    parser.add_argument("--seed", type=int, help="simulate this one seed, here")
    parser.add_argument("--script", type=Path, help="simulate the script of a regression, here")
    parser.add_argument("--trace", action="store_true", help="tell what happens")
    parser.add_argument("--html", type=Path, help="draw what happens into this file")
    parser.add_argument("--shrink", type=Path, help="leave out what is not needed to fail; keep it")
    parser.add_argument("--hunt", type=int, help="seeds from 1 on, until one fails; events at most")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Do what the command line says; return the exit code."""
    asked = options(words)
    if asked.work:
        return _work(asked)
    if asked.hunt is not None:
        print(msgspec.json.encode(hunt(asked.hunt, HUNT_MINUTES)).decode())
        return 0
    if asked.seed is not None or asked.script is not None:
        return _one(asked)
    return _many(asked)


def _work(asked: argparse.Namespace) -> int:
    """Play the seeds of a batch, a line of JSON each."""
    gc.set_threshold(*COLLECTIONS)
    gc.freeze()  # what was imported stays
    for seed in range(asked.first, asked.first + asked.seeds):
        print(msgspec.json.encode(play(draw(seed, asked.minutes), Trace())).decode(), flush=True)
    return 0


# One


def _one(asked: argparse.Namespace) -> int:
    if asked.script is not None:
        raw = asked.script.read_bytes()
        script = msgspec.json.decode(raw, type=Regression).script
    else:
        script = draw(asked.seed, asked.minutes)
    trace = Trace([] if asked.trace or asked.html else None)
    begun = time.monotonic()
    outcome = play(script, trace)
    seconds = time.monotonic() - begun
    if asked.trace:
        print(trace.story())
    if asked.html:
        asked.html.write_text(picture(trace.kept or (), f"seed {script.seed}"))
    if asked.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        _tell_one(outcome, seconds)
    if asked.shrink and outcome.violation:
        _shrink(script, outcome.violation, asked.shrink)
    return VIOLATED if outcome.violation else 0


def _tell_one(outcome: Outcome, seconds: float) -> None:
    rate = outcome.events / seconds
    print(
        f"seed {outcome.seed}: {outcome.events} events in {outcome.simulated_s:.1f} simulated"
        f" seconds, {rate:,.0f} events/s, trace {outcome.digest}",
        file=sys.stderr,
    )
    if outcome.violation:
        print(f"VIOLATION {outcome.violation.what}", file=sys.stderr)
    else:
        print(f"converged {outcome.converged_s:.0f} s after healing", file=sys.stderr)


def _shrink(script: Script, broken: Broken, file: Path) -> None:
    small = shrink(script, lambda text: print(text, file=sys.stderr))
    kept = Regression(f"{broken.what}, on {commit()}", small)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
    print(f"{len(small.acts)} acts are left, in {file}", file=sys.stderr)


# Many


def _many(asked: argparse.Namespace) -> int:
    first = SystemRandom().randrange(FRESH) if asked.first is None else asked.first
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    violations: list[dict[str, object]] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for once, again in pool.map(
            lambda batch: _batch(batch, asked, begun), _batches(first, asked)
        ):
            for one, other in zip(once, again, strict=True):
                outcomes.append(one)
                wrong = _wrong(one, other)
                if wrong is not None:
                    violations.append(_report(one.seed, wrong, asked))
            if once and not asked.json:
                _tell_so_far(outcomes, violations, begun)
    last = {
        "v": 1,
        "what": "simulator",
        "commit": commit(),
        "first": first,
        "seeds": len(outcomes),
        "events": sum(one.events for one in outcomes),
        "simulated_s": round(sum(one.simulated_s for one in outcomes), 1),
        "seconds": round(time.monotonic() - begun, 1),
        "violations": violations,
    }
    print(json.dumps(last))
    return VIOLATED if violations else 0


def _batches(first: int, asked: argparse.Namespace) -> Iterator[tuple[int, int]]:
    size = max(1, min(BATCH_SEEDS, -(-asked.seeds // asked.jobs)))
    for at in range(first, first + asked.seeds, size):
        yield at, min(size, first + asked.seeds - at)


def _batch(
    batch: tuple[int, int], asked: argparse.Namespace, begun: float
) -> tuple[list[Outcome], list[Outcome]]:
    """Play a batch twice, each time with another order of hashes."""
    if asked.seconds is not None and time.monotonic() - begun > asked.seconds:
        return [], []
    once, again = (_worker(batch, asked.minutes, hashes) for hashes in ("1", "2"))
    return once, again


def _worker(batch: tuple[int, int], minutes: float, hashes: str) -> list[Outcome]:
    first, count = batch
    command = [sys.executable, "-m", "tests.simulator", "--work"]
    command += ["--first", str(first), "--seeds", str(count), "--minutes", str(minutes)]
    found = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hashes},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [msgspec.json.decode(line, type=Outcome) for line in found.stdout.splitlines()]


def _wrong(one: Outcome, other: Outcome) -> Broken | None:
    if one.violation is None and one.digest != other.digest:
        return Broken("replay", "replay: the same seed gave another trace")
    return one.violation


def _report(seed: int, wrong: Broken, asked: argparse.Namespace) -> dict[str, object]:
    command = f"python -m tests.simulator --seed {seed} --minutes {asked.minutes:g} --trace"
    if not asked.json:
        print(f"VIOLATION seed {seed}, commit {commit()}: {wrong.what}", flush=True)
        print(f"  {command}", flush=True)
    return {"seed": seed, "invariant": wrong.invariant, "what": wrong.what, "replay": command}


def _tell_so_far(outcomes: Sequence[Outcome], violations: Sequence[object], begun: float) -> None:
    events = sum(one.events for one in outcomes)
    simulated = sum(one.simulated_s for one in outcomes)
    seconds = time.monotonic() - begun
    print(
        f"{len(outcomes)} seeds, each twice: {events:,} events, {simulated / 3600:.1f} simulated"
        f" hours, {seconds:.0f} s, {len(violations)} violations",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
