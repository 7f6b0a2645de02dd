"""Crash points, power cuts and kills, for as long as you like: `python -m tests.crash`.

python -m tests.crash [--rounds N] [--minutes M] [--json]
python -m tests.crash --again node/cut/4711

A round is a tenth of all crash points, other ones in each of ten rounds, 1,000 new power-cut images
and 50 kill cycles, in any order. Nothing new is begun after M minutes. The last line is one JSON
object; `lost` counts what failed, and the exit code is 1 if anything did. Each failure names what
gives the same again.
"""

import argparse
import json
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from random import SystemRandom
from typing import Literal

import structlog

from bench.processes import leave_on_sigterm
from tests.crash.disk import Fault
from tests.crash.forks import Action, Commands, compiled, fast_keys
from tests.crash.joins import Joins
from tests.crash.kills import Siege
from tests.crash.points import Film, cut, failing, killed, record, restarted, scratch
from tests.crash.scenes import Scene, World
from tests.crash.work import DeviceWork, NodeWork, Work
from tests.hostile.federation import found

Kind = Literal["points", "images", "kills"]

STRIPES = 10
CUTS = {"node": 720, "device": 100}  # of a round; in all, with those of commands, 1,000
RESTARTS = {"node": 100, "device": 40}
CUTS_SCENE = 5
KILLS = 50


@dataclass(frozen=True, slots=True)
class Trial:
    """One point, image or kill. name: for --again."""

    name: str
    kind: Kind
    run: Callable[[], object]


class Stage:
    """What trials need and is dear to make: films of the works and of commands, and a siege.

    commands, joins: None where there is no C compiler; then there are no trials of commands.
    """

    def __init__(
        self, base: Path, commands: Commands | None, joins: Joins | None, siege: Siege
    ) -> None:
        self.base = base
        self.siege = siege
        scenes: list[Scene | Joins] = []
        if commands is not None and joins is not None:
            scenes = [*World(base / "world", commands).scenes(), joins]
        self.scenes = [(scene, scene.film()) for scene in scenes]
        works: dict[str, Work] = {"node": NodeWork(), "device": DeviceWork(base / "federation")}
        self.films: dict[str, Film] = {name: record(work, base) for name, work in works.items()}

    def points(self) -> Iterator[Trial]:
        """Yield every crash point."""
        for name, film in self.films.items():
            for at in range(len(film.log) + 1):
                yield Trial(f"{name}/kill/{at}", "points", partial(killed, film, self.base, at))
            for fault in Fault:
                for at in range(film.chances[fault]):
                    run = partial(failing, film.work, self.base, fault, at)
                    yield Trial(f"{name}/{fault.value}/{at}", "points", run)

        for scene, done in self.scenes:
            for action in Action:
                for at in range(done.operations):
                    run = partial(scene.play, action, at)
                    yield Trial(f"{scene.name}/{action.name}/{at}", "points", run)

    def images(self, seeds: Iterator[int]) -> Iterator[Trial]:
        """Yield the images of one round."""
        for name, film in self.films.items():
            for what, draw, count in (
                ("cut", cut, CUTS[name]),
                ("restart", restarted, RESTARTS[name]),
            ):
                for _ in range(count):
                    seed = next(seeds)
                    run = partial(draw, film, self.base, seed)
                    yield Trial(f"{name}/{what}/{seed}", "images", run)
        for scene, done in self.scenes:
            for _ in range(CUTS_SCENE):
                seed = next(seeds)
                yield Trial(f"{scene.name}/cut/{seed}", "images", partial(scene.cut, done, seed))

    def kills(self, seeds: Iterator[int]) -> Iterator[Trial]:
        """Yield the kill cycles of one round."""
        for _ in range(KILLS):
            seed = next(seeds)
            yield Trial(f"siege/kill/{seed}", "kills", partial(self.siege.cycle, seed))

    def again(self, name: str) -> Trial:
        """Return the trial of this name."""
        what, _, number = name.rpartition("/")
        if not number.isdecimal():
            raise SystemExit(f"{name} does not stand alone: it looks at what all kills have left")
        drawn = self.images(repeat(int(number)))
        for trial in (*self.points(), *drawn, *self.kills(repeat(int(number)))):
            if trial.name in {name, f"{what}/{number}"}:
                return trial
        raise SystemExit(f"no trial is called {name}")


def round_of(stage: Stage, number: int) -> Iterator[Trial]:
    """Yield the trials of one round, in any order: a round that is cut short has some of each."""
    random = SystemRandom()
    seeds = iter(partial(random.randrange, 2**32), None)
    chosen = [one for at, one in enumerate(stage.points()) if at % STRIPES == number % STRIPES]
    chosen += [*stage.images(seeds), *stage.kills(seeds)]
    random.shuffle(chosen)
    yield from chosen


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--rounds", type=int, default=1, help="ten go through all crash points")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after")
    parser.add_argument("--json", action="store_true", help="failures as JSON lines, too")
    parser.add_argument("--again", metavar="NAME", help="run this one again, and show its trace")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; return the exit code."""
    options = _parse(arguments)
    leave_on_sigterm()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    start = time.monotonic()
    counts: Counter[str] = Counter()
    with scratch() as base, fast_keys(), ExitStack() as stack:
        commands = joins = None
        if shutil.which("cc"):
            commands = stack.enter_context(Commands(compiled(base)))
            joins = stack.enter_context(closing(Joins(base / "joins", commands)))
        folder = base / "siege"
        folder.mkdir()
        siege = stack.enter_context(Siege(folder, found(folder).quiet))
        stage = Stage(base, commands, joins, siege)
        if options.again:
            stage.again(options.again).run()
            print(f"{options.again}: nothing lost")
            return 0
        rounds = (round_of(stage, number) for number in range(options.rounds))
        for trial in chain.from_iterable(rounds):
            if time.monotonic() > start + options.minutes * 60:
                break
            counts[trial.kind] += 1
            counts["lost"] += not _holds(trial, as_json=options.json)
        last = Trial("siege/end", "kills", siege.end)
        counts["lost"] += not _holds(last, as_json=options.json)
    seconds = round(time.monotonic() - start)
    done = {kind: counts[kind] for kind in ("points", "images", "kills", "lost")}
    print(json.dumps({"v": 1, "what": "crash", **done, "seconds": seconds}))
    return 1 if counts["lost"] else 0


def _holds(trial: Trial, *, as_json: bool) -> bool:
    try:
        trial.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are still to be run
        said = traceback.format_exception_only(error)[-1].strip()
        line = json.dumps({"v": 1, "what": "crash failure", "trial": trial.name, "error": said})
        print(line if as_json else f"{trial.name}: {said}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
