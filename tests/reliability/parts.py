"""The parts of a round, as data: what each runs for so many minutes, and what its report says.

Every part is a program that takes a seed, or draws its own, and whose last line is one JSON object,
or pytest's closing line. `told` says how much was run, and what was found with what repeats it;
nothing is "-".
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

import msgspec

from tests.fuzz.targets import TARGETS
from tests.mutants.planting import ROOT, mutants

NOTHING: Final = "-"
FUZZED_AT_ONCE: Final = 2
FUZZ_START_SECONDS: Final = 4  # of each target, before its first input
GROWTH_MINUTES_MIN: Final = 10  # less says nothing
ATTACKS: Final = ("mutants", "wire", "lies", "bounds")
NETWORK_MINUTES: Final = 2.0  # of a round
MUTANT_MINUTES: Final = 0.7
MUTANTS_A_MINUTE: Final = 60  # frames with something changed, at a node that serves others

Report = Mapping[str, object]


class Told(NamedTuple):
    """What became of a part."""

    amount: str
    found: str


class Part(NamedTuple):
    """One part. file: without it the part is not in this tree. quick, full: minutes of a round."""

    name: str
    what: str
    file: str
    quick: float
    full: float
    command: Callable[[float, int], Sequence[str]]
    told: Callable[[str], Told]


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def report(output: str) -> Report:
    """Return the JSON object of the last line; msgspec.MsgspecError if there is none."""
    return msgspec.json.decode(output.strip().rpartition("\n")[2], type=dict[str, object])


def _simulate(minutes: float, seed: int) -> list[str]:
    seeds = ["--first", seed, "--seeds", 10**6, "--seconds", minutes * 60]
    return _module("tests.simulator", *seeds, "--json")


def _simulated(output: str) -> Told:
    found = report(output)
    hours = float(str(found["simulated_s"])) / 3600
    amount = f"{found['seeds']:,} seeds, {found['events']:,} events, "
    violations = found["violations"]
    assert isinstance(violations, list)
    replays = "; ".join(f"{one['what']}: `{one['replay']}`" for one in violations)
    return Told(f"{amount}{hours:.1f} simulated hours", replays or NOTHING)


def _crash(minutes: float, _: int) -> list[str]:
    return _module("tests.crash", "--rounds", 1000, "--minutes", minutes, "--json")


def _crashed(output: str) -> Told:
    found = report(output)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    failed = [f"`python -m tests.crash --again {one['trial']}`" for one in lines if "trial" in one]
    amount = f"{found['points']} crash points, {found['images']} power cuts, {found['kills']} kills"
    return Told(amount, "; ".join(failed) or (NOTHING if not found["lost"] else "lost"))


def _hostile(minutes: float, seed: int) -> list[str]:
    count = max(20, int(MUTANTS_A_MINUTE * minutes))
    names = ATTACKS if minutes > 1 else ATTACKS[:1]
    tests = [f"tests/hostile/test_{name}.py" for name in names]
    setting = [f"IVOR_MUTANTS={count}", f"IVOR_MUTANTS_SEED={seed}"]
    return ["env", *setting, *_module("pytest", "-q", "-p", "no:cacheprovider", *tests)]


def _attacked(output: str) -> Told:
    closing = output.strip().rpartition("\n")[2].strip("= ")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return Told(closing, "; ".join(failed) or NOTHING)


def _fuzz(minutes: float, seed: int) -> list[str]:
    names = Random(seed).sample(sorted(TARGETS), len(TARGETS) if minutes > 1 else 6)
    seconds = minutes * 60 * FUZZED_AT_ONCE / len(names) - FUZZ_START_SECONDS
    limits = ["--seconds", max(1, int(seconds)), "--jobs", FUZZED_AT_ONCE, "--json"]
    return _module("tests.fuzz", *names, *limits)


def _fuzzed(output: str) -> Told:
    targets = report(output)["targets"]
    assert isinstance(targets, dict)
    runs = sum(one["runs"] for one in targets.values())
    broken = [f"{name}: see build/fuzz/{name}" for name, one in targets.items() if one["crashes"]]
    return Told(f"{runs:,} inputs for {len(targets)} targets", "; ".join(broken) or NOTHING)


def _soak(minutes: float, seed: int) -> list[str]:
    out = ["--out", ROOT / "build" / "soak-of-a-round.jsonl"]
    return _module("tests.soak", "--hours", minutes / 60, "--seed", seed, *out, "--json")


def _soaked(output: str) -> Told:
    found = report(output)
    entries, slopes, faults = found["entries"], found["slopes_an_hour"], found["faults"]
    assert isinstance(entries, list)
    assert isinstance(slopes, dict)
    assert isinstance(faults, dict)
    minutes = float(str(found["hours"])) * 60
    amount = f"{minutes:.1f} minutes, {max(entries):,.0f} entries, {sum(faults.values())} faults"
    if minutes >= GROWTH_MINUTES_MIN:
        amount += f", memory {slopes['rss_mib']:+.1f} MiB/h"
    return Told(amount, NOTHING if found["converged"] else f"replicas differ: {entries}")


def _mutants(minutes: float, seed: int) -> list[str]:
    some = Random(seed).sample(mutants(), max(1, int(minutes / MUTANT_MINUTES)))
    return _module("tests.mutants", *(one.name for one in some))


def _planted(output: str) -> Told:
    lines = output.strip().splitlines()
    missed = [
        line for line in lines[:-1] if not line.startswith(("caught", "the named tests pass"))
    ]
    return Told(lines[-1], "; ".join(missed) or NOTHING)


def _network(minutes: float, seed: int) -> list[str]:
    rounds = max(1, int(minutes / NETWORK_MINUTES))
    return _module("tests.network", "--rounds", rounds, "--seed", seed, "--json")


def _networked(output: str) -> Told:
    found = report(output)
    if "skipped" in found:
        return Told(f"skipped: {found['skipped']}", NOTHING)
    rounds = found["rounds"]
    assert isinstance(rounds, list)
    frames = sum(one["frames"] for one in rounds)
    wrong = [place for one in rounds for place in (*one["leaks"], *one["outside"])]
    amount = f"{len(rounds)} rounds, {frames:,} captured frames read, "
    healed = f"equal after {max(one['healed_rounds'] for one in rounds)} sessions at most"
    return Told(amount + healed, "; ".join(wrong) or NOTHING)


PARTS: Final = (
    Part(
        name="simulator",
        what="a federation in one process, from a seed, each seed twice",
        file="tests/simulator/__main__.py",
        quick=0.5,
        full=4.0,
        command=_simulate,
        told=_simulated,
    ),
    Part(
        name="crash",
        what="crash points, synthesised power cuts, killed processes",
        file="tests/crash/__main__.py",
        quick=0.7,
        full=3.0,
        command=_crash,
        told=_crashed,
    ),
    Part(
        name="network",
        what="network namespaces with loss, delay and one-way cuts",
        file="tests/network/__main__.py",
        quick=0.0,
        full=2.0,
        command=_network,
        told=_networked,
    ),
    Part(
        name="hostile",
        what="peers that break every rule, over TLS, beside honest load",
        file="tests/hostile/test_mutants.py",
        quick=0.4,
        full=4.0,
        command=_hostile,
        told=_attacked,
    ),
    Part(
        name="fuzz",
        what="inputs that coverage chooses, with a law for each target",
        file="tests/fuzz/__main__.py",
        quick=0.4,
        full=4.0,
        command=_fuzz,
        told=_fuzzed,
    ),
    Part(
        name="soak",
        what="nodes and officials in processes, killed, cut off, visited",
        file="tests/soak/__main__.py",
        quick=0.3,
        full=3.0,
        command=_soak,
        told=_soaked,
    ),
    Part(
        name="mutants",
        what="bugs planted one at a time: a test must fail for each",
        file="tests/mutants/__main__.py",
        quick=0.0,
        full=2.0,
        command=_mutants,
        told=_planted,
    ),
)


def present(parts: Sequence[Part]) -> list[Part]:
    """Return those that are in this tree."""
    return [part for part in parts if (ROOT / part.file).exists()]
