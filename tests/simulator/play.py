"""Run one script, and say what came of it; make a script that fails as short as it can be."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct, structs

from tests.simulator.checks import Violation
from tests.simulator.clockwork import TimeStandsStill
from tests.simulator.script import Act, Script, draw
from tests.simulator.trace import Trace
from tests.simulator.world import world

ROOT = Path(__file__).parents[2]
TRIALS_MAX = 400


class Broken(Struct, frozen=True):
    """Which invariant does not hold, and how that was seen."""

    invariant: str
    what: str


class Outcome(Struct, frozen=True):
    """What came of one script. digest: of the trace. converged_s: None if it never did."""

    seed: int
    events: int
    simulated_s: float
    digest: str
    converged_s: float | None = None
    violation: Broken | None = None


class Hunted(Struct, frozen=True):
    """What a hunt came to: in which seed, after how many events of all, an invariant was broken."""

    events: int
    seed: int
    violation: Broken | None = None


class Regression(Struct, frozen=True, forbid_unknown_fields=True):
    """A script that failed once. found: on which commit, and what was wrong then."""

    found: str
    script: Script


def play(script: Script, trace: Trace) -> Outcome:
    """Run a script to its end, or to the first violation."""
    broken = None
    with world(script, trace) as there:
        try:
            there.run()
        except (Violation, TimeStandsStill) as wrong:
            broken = Broken(wrong.invariant if isinstance(wrong, Violation) else "time", str(wrong))
            trace.note(there.clock.now, "invariant", str(wrong))
        return Outcome(
            script.seed,
            there.clock.events,
            round(there.clock.now, 3),
            trace.digest(),
            there.converged,
            broken,
        )


def hunt(events_max: int, minutes: Sequence[float]) -> Hunted:
    """Play one seed after the other, of so many minutes in turn, until an invariant is broken."""
    events = seed = 0
    while events < events_max:
        seed += 1
        outcome = play(draw(seed, minutes[seed % len(minutes)]), Trace())
        events += outcome.events
        if outcome.violation is not None:
            return Hunted(events, seed, outcome.violation)
    return Hunted(events, seed)


def commit() -> str:
    """Return the commit of this tree, with a + if it was changed since."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],  # noqa: S607 - git
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def shrink(script: Script, tell: Callable[[str], None]) -> Script:
    """Return a script that breaks the same invariant with as few acts as can be found.

    Delta debugging: leave out ever smaller pieces, as long as it still fails alike.
    """
    wrong = play(script, Trace()).violation
    if wrong is None:
        return script
    trials = 0

    def fails(other: Script) -> bool:
        nonlocal trials
        trials += 1
        found = play(other, Trace()).violation
        return found is not None and found.invariant == wrong.invariant

    script = _calmer(script, fails)
    acts = script.acts
    pieces = 2
    while len(acts) > 1 and trials < TRIALS_MAX:
        size = -(-len(acts) // pieces)
        for at in range(0, len(acts), size):
            fewer = (*acts[:at], *acts[at + size :])
            if fewer and fails(_with(script, fewer)):
                acts, pieces = fewer, max(pieces - 1, 2)
                tell(f"{len(acts)} acts still fail ({trials} runs)")
                break
        else:
            if size == 1:
                break
            pieces = min(pieces * 2, len(acts))
    return _with(script, acts)


def _with(script: Script, acts: Sequence[Act]) -> Script:
    return structs.replace(script, acts=tuple(acts))


def _calmer(script: Script, fails: Callable[[Script], bool]) -> Script:
    """Take away what the world does wrong by itself, as far as it fails without."""
    for calm in (
        {"loss": 0.0},
        {"jitter": 0.0},
        {"liars": ()},
        {"cheats": ()},
        {"delay": 0.001},
        {"strangers": False},
        {"meets": 0.0},
        {"crossing": 0.0},
    ):
        other = structs.replace(script, **calm)
        if other != script and fails(other):
            script = other
    for name in script.limits:
        limits = {other: value for other, value in script.limits.items() if other != name}
        other = structs.replace(script, limits=limits)
        if fails(other):
            script = other
    return script
