"""A round of everything: what is made of what the parts report, and the page that it writes."""

import json
import sys
from collections.abc import Mapping

import pytest

from tests.reliability import __main__ as reliability
from tests.reliability.__main__ import PAGE, Done, line, run, written
from tests.reliability.parts import NOTHING, PARTS, Part, Told, present

REPORTS: Mapping[str, dict[str, object]] = {
    "simulator": {
        "first": 4,
        "seeds": 2000,
        "events": 10**6,
        "simulated_s": 7200.0,
        "violations": [],
    },
    "crash": {"points": 10, "images": 20, "kills": 5, "lost": 0},
    "fuzz": {"targets": {"frames": {"runs": 1000, "per_s": 10, "crashes": 0}}},
    "soak": {
        "hours": 0.05,
        "seed": 4,
        "converged": True,
        "entries": [9.0, 9.0],
        "slopes_an_hour": {"rss_mib": 0.5},
        "faults": {"cut": 2},
    },
    "network": {"rounds": [{"frames": 9, "healed_rounds": 2, "leaks": [], "outside": []}]},
}
FAILURES: Mapping[str, dict[str, object]] = {
    "simulator": {"violations": [{"what": "I1", "replay": "python -m tests.simulator --seed 4"}]},
    "crash": {"lost": 1},
    "fuzz": {"targets": {"frames": {"runs": 1000, "per_s": 10, "crashes": 1}}},
    "soak": {"converged": False},
    "network": {"rounds": [{"frames": 9, "healed_rounds": 2, "leaks": ["x"], "outside": []}]},
}


def part(name: str) -> Part:
    return next(one for one in PARTS if one.name == name)


def speaking(code: str) -> Part:
    """A part that is this Python, and always content."""
    command = [sys.executable, "-c", code]
    content = Told("much", NOTHING)
    return Part(
        "speaking", "says", "Makefile", 1, 1, lambda _minutes, _seed: command, lambda _: content
    )


class TestParts:
    def test_all_are_here_but_what_is_not_built_yet(self) -> None:
        names = {one.name for one in present(PARTS)}
        assert names >= {"crash", "hostile", "fuzz", "soak", "mutants"}
        assert len({one.name for one in PARTS}) == len(PARTS)

    def test_a_round_is_bounded(self) -> None:
        assert 2 <= sum(one.quick for one in PARTS) <= 3
        assert 15 <= sum(one.full for one in PARTS) <= 25

    @pytest.mark.parametrize("name", [one.name for one in present(PARTS)])
    def test_each_can_be_run(self, name: str) -> None:
        for minutes in (part(name).quick, part(name).full):
            assert all(isinstance(word, str) for word in part(name).command(minutes, 4711))

    @pytest.mark.parametrize("name", REPORTS)
    def test_nothing_found(self, name: str) -> None:
        said = "progress\n" + json.dumps(REPORTS[name]) + "\n"
        assert part(name).told(said).found == NOTHING

    @pytest.mark.parametrize("name", FAILURES)
    def test_something_found(self, name: str) -> None:
        said = json.dumps(REPORTS[name] | FAILURES[name])
        assert part(name).told(said).found != NOTHING

    def test_how_much(self) -> None:
        simulated = part("simulator").told(json.dumps(REPORTS["simulator"]))
        assert simulated.amount == "2,000 seeds, 1,000,000 events, 2.0 simulated hours"
        soaked = part("soak").told(json.dumps(REPORTS["soak"] | {"hours": 0.5}))
        assert soaked.amount == "30.0 minutes, 9 entries, 2 faults, memory +0.5 MiB/h"

    @pytest.mark.parametrize("name", ["simulator", "network", "hostile", "fuzz", "soak", "mutants"])
    def test_a_seed_decides(self, name: str) -> None:
        """What a round printed can be run again."""
        command = part(name).command
        assert command(2, 4711) == command(2, 4711) != command(2, 4712)

    def test_a_machine_without_namespaces(self) -> None:
        told = part("network").told(json.dumps({"skipped": "no namespaces"}))
        assert told == Told("skipped: no namespaces", NOTHING)

    def test_what_a_crash_needs_to_be_repeated(self) -> None:
        lines = [{"trial": "node/cut/7"}, REPORTS["crash"] | FAILURES["crash"]]
        told = part("crash").told("\n".join(map(json.dumps, lines)))
        assert told.found == "`python -m tests.crash --again node/cut/7`"

    def test_pytest(self) -> None:
        told = part("hostile").told(
            "FAILED tests/a.py::test_b - X\n=== 1 failed, 2 passed in 3s ===\n"
        )
        assert told == Told("1 failed, 2 passed in 3s", "tests/a.py::test_b")

    def test_planted_bugs(self) -> None:
        caught = "the named tests pass without a planted bug\ncaught  9 s  a: b\n1 of 1 were caught"
        assert part("mutants").told(caught) == Told("1 of 1 were caught", NOTHING)
        assert "SURVIVED" in part("mutants").told(caught.replace("caught ", "SURVIVED")).found


class TestRun:
    def test_a_part_that_ends_well(self) -> None:
        assert run(speaking("print('done')"), 1, 0).told == Told("much", NOTHING)

    def test_one_that_fails_without_a_word(self) -> None:
        done = run(speaking("import sys; sys.exit(3)"), 1, 0)
        assert done.told.found.startswith("it ended with 3: see build/reliability/speaking.log")

    def test_one_that_says_what_nobody_reads(self) -> None:
        broken = speaking("print('{')")._replace(told=part("fuzz").told)
        assert run(broken, 1, 0).told.amount == "not known"

    def test_one_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reliability, "MINUTES_MORE", 0)
        done = run(speaking("import time; time.sleep(60)"), 0.005, 0)
        assert done.told.found.startswith("it did not end in time")


class TestPage:
    def done(self, name: str, amount: str) -> Done:
        return Done(part(name), 4711, Told(amount, NOTHING), 60)

    def test_a_part_replaces_what_was_said_of_it(self) -> None:
        page = PAGE.read_text()
        both = [self.done("fuzz", "one"), self.done("crash", "two")]
        once = written(page, both, "today")
        again = written(once, [self.done("fuzz", "three")], "tomorrow")
        assert "| two | - | 4711 | 60 | today |" in again
        assert "| three | - | 4711 | 60 | tomorrow |" in again
        assert "| one |" not in again
        assert again.startswith(page[:100])
        assert written(again, both, "today") == once

    def test_a_page_without_marks(self) -> None:
        with pytest.raises(ValueError, match="marks"):
            written("nothing", [], "today")

    def test_a_cell_stays_one(self) -> None:
        assert line(("a|b", "c\nd", "", NOTHING, 1)) == "| a/b | c d |  | - | 1 |"
