"""`python -m tests.fuzz [TARGET…] [--runs N] [--seconds S] [--jobs J] [--json]`: search for bugs.

Each target runs in a process of its own (`worker.py`); what it finds is in build/fuzz/TARGET. With
--input FILE one input is given to one target, to see how it breaks. Ends with 1 if anything broke.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.corpora import FOUND, ROOT
from tests.fuzz.targets import TARGETS

BROKE = ("crash-*", "timeout-*", "oom-*", "leak-*")


class Figures(NamedTuple):
    """What came of one target."""

    runs: int
    per_s: int
    crashes: int


def fuzz(name: str, runs: int, seconds: int) -> tuple[Figures, list[Path]]:
    """Run a worker to its end; return its figures, and the inputs that broke something."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in _broken(folder):
        old.unlink()
    log = folder / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tests.fuzz.worker"]
        command += [name, str(folder), str(runs), str(seconds)]
        subprocess.run(command, cwd=ROOT, stdout=out, stderr=out, check=False)
    stats = dict(re.findall(r"stat::(\w+): +(\d+)", log.read_text(errors="replace")))
    found = _broken(folder)
    done = int(stats.get("number_of_executed_units", 0))
    ended_early = not done and not found
    figures = Figures(done, int(stats.get("average_exec_per_sec", 0)), len(found) + ended_early)
    return figures, [log] if ended_early else found


def _broken(folder: Path) -> list[Path]:
    return sorted(file for pattern in BROKE for file in folder.glob(pattern))


def main(arguments: Sequence[str]) -> int:
    """Fuzz what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=-1, help="of each target; default: no limit")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at once")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--input", type=Path, metavar="FILE", help="give this to the target")
    chosen = parser.parse_args(arguments)
    names = chosen.names or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if chosen.input is not None:
        for name in names:
            with TARGETS[name].setting():
                TARGETS[name].examine(chosen.input.read_bytes())
        return 0
    if find_spec("atheris") is None:
        parser.error("atheris is not installed; there may be no wheel of it for this machine")
    with ThreadPoolExecutor(chosen.jobs) as pool:
        done = pool.map(lambda name: fuzz(name, chosen.runs, chosen.seconds), names)
        figures = {name: _told(name, *one) for name, one in zip(names, done, strict=True)}
    if chosen.json:
        targets = {name: one._asdict() for name, one in figures.items()}
        print(json.dumps({"v": 1, "what": "fuzz", "targets": targets}))
    return int(any(one.crashes for one in figures.values()))


def _told(name: str, figures: Figures, broken: Sequence[Path]) -> Figures:
    """Say on stderr what came of a target, and how to see it break."""
    runs, per_s, crashes = figures
    print(f"{name:12}{runs:>12,} runs{per_s:>8,}/s {crashes} crashes", file=sys.stderr, flush=True)
    for file in broken:
        shown = shlex.quote(str(file))
        how = (
            f"see {shown}" if file.name == "log" else f"python -m tests.fuzz {name} --input {shown}"
        )
        print(f"    {how}", file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
