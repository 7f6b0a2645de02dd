"""`python -m tests.reliability [PART…] [--quick] [--json]`: a bounded round of everything.

About 20 minutes, or 3 with --quick, with fresh seeds, which it prints; on a slow machine the last
parts are left out. A whole round writes the table in docs/reliability.md. Ends with 1 if anything
was found, or a part did not end as it should.
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
COLUMNS: Final = ("part", "what it does", "how much", "found", "seed", "seconds")


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


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "/").replace("\n", " ")


def written(page: str, what: str) -> str:
    """Return the page with `what` between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks its marks")
    return f"{before}{BEGIN}\n{what}\n{END}{after}"


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
    parser.add_argument("--quick", action="store_true", help="about 3 minutes; writes no table")
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
            late = time.monotonic() > until
            seed = SystemRandom().randrange(2**32)
            left_out = Done(part, seed, Told("no time left", NOTHING), 0)
            done.append(left_out if late else run(part, minutes, seed))
            _show(done[-1])
    if not chosen.quick and not chosen.names:
        rows = [(one.part.name, one.part.what, *one.told, one.seed, one.seconds) for one in done]
        text = f"On {today}, commit `{of}`:\n\n{table(rows)}"
        PAGE.write_text(written(PAGE.read_text(), text))
    if chosen.json:
        print(json.dumps(_report(done, of, today)))
    return int(any(one.told.found != NOTHING for one in done))


def _show(done: Done) -> None:
    amount, found = done.told
    line = f"{done.part.name:10}{done.seconds:>5} s  seed {done.seed:>10}  {amount}"
    print(line, file=sys.stderr, flush=True)
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
