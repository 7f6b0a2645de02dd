"""`python -m tests.network [--rounds N] [--seed S] [--json]`: the network for real, in rounds.

Each round makes four hosts with nodes and three with devices, and goes through `scenario.trouble`
with 20 % of the frames between nodes lost, 300 ms there and back, and reordering. The last line is
JSON. Ends with 1 if a word leaked, or anything of a chat left its zone.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.processes import leave_on_sigterm
from tests.network import capture, hosts
from tests.network.scenario import DELAY, JITTER, LOSS, Outcome, canary, leaks, outside, trouble
from tests.network.world import LONG, world

ROUNDS_MAX = 3  # of reconnecting until all is equal; the aim, which is printed and decides nothing


def round_of(seed: int) -> Outcome:
    """Play one round in a folder of its own."""
    with TemporaryDirectory(prefix="ivor-network-") as folder:
        word = canary()
        begun = time.monotonic()

        def say(text: str) -> None:
            print(f"  [{time.monotonic() - begun:6.1f} s] {text}", file=sys.stderr, flush=True)

        with world(LONG, seed, Path(folder)) as here:
            say("four agencies, three officials")
            found = trouble(here, word, say)
        found.seed = seed
        found.leaks = leaks(here, word)
        if capture.lacking() is None:
            found.outside, found.frames, found.frames_outside = outside(here)
        say(f"{found.frames} frames read, {found.frames_outside} with the agency outside")
        return found


def main() -> int:
    """Play the rounds; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="no table, only the last line")
    arguments = parser.parse_args()
    leave_on_sigterm()
    missing = hosts.lacking()
    if missing is not None:
        print(msgspec.json.encode({"v": 1, "what": "network", "skipped": missing}).decode())
        return 0
    outcomes = []
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        outcomes.append(round_of(seed))
        if not arguments.json:
            print(outcomes[-1])
    wrong = [place for one in outcomes for place in (*one.leaks, *one.outside)]
    line = {
        "v": 1,
        "what": "network",
        "loss": LOSS,
        "round_trip_ms": round(2000 * DELAY),
        "jitter_ms": round(1000 * JITTER),
        "captures": capture.lacking() or "read",
        "within_rounds": sum(one.healed_rounds <= ROUNDS_MAX for one in outcomes),
        "rounds": outcomes,
        "violations": len(wrong),
    }
    print(msgspec.json.encode(line).decode())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
