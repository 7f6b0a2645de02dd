"""`python -m tests.reliability [PART…] [--quick] [--json]`: a bounded round of everything.

About 20 minutes, or 3 with --quick, with fresh seeds, which it prints; on a slow machine the last
parts are left out. What was run goes into the table of docs/reliability.md, unless it was quick.
Ends with 1 if anything was found, or a part did not end as it should.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom
from typing import Final, NamedTuple

import msgspec

from tests.mutants.planting import ROOT
from tests.reliability.parts import NOTHING, PARTS, Part, Told, present

PAGE: Final = ROOT / "docs" / "reliability.md"
LOGS: Final = ROOT / "build" / "reliability"
BEGIN, END = "<!-- round: begin -->", "<!-- end -->"
BEGUN_MINUTES_MAX: Final = {True: 4, False: 30}  # of a quick round, and a whole one
PATIENCE: Final = 3  # times the minutes of a part, and
MINUTES_MORE: Final = 5  # for what it prepares, on a machine that others use
COLUMNS: Final = ("part", "what it does", "how much", "found", "seed", "seconds", "on")


class Done(NamedTuple):
    """A part that was run."""

    part: Part
    seed: int
    told: Told
    seconds: int


def run(part: Part, minutes: float, seed: int) -> Done:
    """Run a part to its end, or until patience ends. What it says besides goes to build/."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{part.name}.log"
    begun = time.monotonic()
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                part.command(minutes, seed),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                timeout=(PATIENCE * minutes + MINUTES_MORE) * 60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            told = Told("not all", f"it did not end in time: see {log.relative_to(ROOT)}")
            return Done(part, seed, told, round(time.monotonic() - begun))
        out.write(done.stdout)
    told = _told(part, done.returncode, done.stdout.decode(errors="replace"), log)
    return Done(part, seed, told, round(time.monotonic() - begun))


def _told(part: Part, code: int, output: str, log: Path) -> Told:
    """Read what a part said. One that fails without saying why has found something."""
    see = f"it ended with {code}: see {log.relative_to(ROOT)}"
    try:
        told = part.told(output)
    except (msgspec.MsgspecError, ValueError, KeyError, IndexError, AssertionError):
        return Told("not known", see)
    return Told(told.amount, see) if code and told.found == NOTHING else told


def line(cells: Sequence[object]) -> str:
    """Return a line of a table in Markdown."""
    shown = (str(one).replace("|", "/").replace("\n", " ") for one in cells)
    return "| " + " | ".join(shown) + " |"


def written(page: str, done: Sequence[Done], on: str) -> str:
    """Return the page with these parts in its table, and what it says of the others.

    on: commit and date.
    """
    before, begin, rest = page.partition(BEGIN)
    known, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks its marks")
    lines = {one.split(" | ")[0].strip("| "): one for one in known.strip().splitlines()}
    for part, seed, told, seconds in done:
        lines[part.name] = line((part.name, part.what, *told, seed, seconds, on))
    rows = [lines[part.name] for part in PARTS if part.name in lines]
    table = "\n".join((line(COLUMNS), line(["---"] * len(COLUMNS)), *rows))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def commit() -> str:
    """Return what was run: the commit, and whether files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "not known"
    describe = [git, "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "not known"


def main(arguments: Sequence[str]) -> int:
    """Run a round; return the exit code."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PART", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="about 3 minutes; writes no page")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    today, of = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), commit()
    print(f"a round on {of}, {today}", file=sys.stderr, flush=True)
    until = time.monotonic() + 60 * BEGUN_MINUTES_MAX[chosen.quick]
    done = []
    for part in present(PARTS):
        minutes = part.quick if chosen.quick else part.full
        if minutes and (not chosen.names or part.name in chosen.names):
            if time.monotonic() > until:
                print(f"{part.name:10}no time left", file=sys.stderr, flush=True)
                continue
            done.append(run(part, minutes, SystemRandom().randrange(2**32)))
            _show(done[-1])
    if not chosen.quick:
        PAGE.write_text(written(PAGE.read_text(), done, f"`{of}`, {today}"))
    if chosen.json:
        print(json.dumps(_report(done, of, today)))
    return int(any(one.told.found != NOTHING for one in done))


def _show(done: Done) -> None:
    amount, found = done.told
    told = f"{done.part.name:10}{done.seconds:>5} s  seed {done.seed:>10}  {amount}"
    print(told, file=sys.stderr, flush=True)
    if found != NOTHING:
        print(f"{'':18}FOUND {found}", file=sys.stderr, flush=True)


def _report(done: Sequence[Done], of: str, today: str) -> Mapping[str, object]:
    parts = {
        one.part.name: one.told._asdict() | {"seed": one.seed, "seconds": one.seconds}
        for one in done
    }
    return {"v": 1, "what": "reliability", "commit": of, "date": today, "parts": parts}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
