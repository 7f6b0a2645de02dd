"""SPEC.md: what is printed from the code is up to date, and what is cited is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.session import ALLOWED, PeerKind, State
from tests.make_diagrams import PARTS, SAMPLES, SPEC, frames, generated, step

ROOT = SPEC.parent
PACKAGES = ("crypto", "protocol", "node", "client", "cli", "tests")
CITED = re.compile(r"\bSPEC ([\w.\"]+(?:, [\d.]+)*(?: and [\d.]+)?)")
HEADING = re.compile(r"^#{2,3} (\d+(?:\.\d+)?) ", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
PATH = re.compile(r"`((?:tests|node|protocol|client|crypto)/[\w/]+\.py)`")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
README = ROOT / "README.md"
UNSHOWN_MAX = 3
SHOWN_MIN = 35
LINES_MAX = 1650


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_generated_parts() -> None:
    text = SPEC.read_text()
    assert generated(text) == text, "run: python -m tests.make_diagrams"


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_in_it_once(name: str) -> None:
    assert SPEC.read_text().count(f"<!-- generated: {name} -->") == 1


def test_length() -> None:
    assert len(SPEC.read_text().splitlines()) <= LINES_MAX


def test_citations_in_code_resolve() -> None:
    headings = set(HEADING.findall(SPEC.read_text()))
    lost = [
        f"{path.relative_to(ROOT)}: SPEC {cited}"
        for path in sources()
        if path != Path(__file__)
        for cited in CITED.findall(path.read_text())
        if cited[0].isdigit() and not set(NUMBER.findall(cited)) <= headings
    ]
    assert not lost


def test_citations_are_numbers() -> None:
    named = [
        f"{path.relative_to(ROOT)}: SPEC {cited}"
        for path in sources()
        if path != Path(__file__)
        for cited in CITED.findall(path.read_text())
        if cited.strip('"') in {"Keys", "Devices", "Transport", "Epochs"}
    ]
    assert not named


@pytest.mark.parametrize("path", sorted(set(PATH.findall(SPEC.read_text()))))
def test_files_named_in_it_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("named", sorted(set(NAMED.findall(SPEC.read_text() + README.read_text()))))
def test_tests_named_in_it_exist(named: tuple[str, str]) -> None:
    """A class, a test, or a rule or an invariant of a state machine."""
    path, name = named
    assert re.search(
        rf"^ *(?:async )?(?:def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE
    )


def test_every_line_of_the_threat_model_names_a_test() -> None:
    """Or `-`, where nothing can be shown: what is only granted, or out of reach."""
    _, _, section = SPEC.read_text().partition("## 13 ")
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    shown = [row.strip("| ").rpartition(" | ")[2] for row in rows]
    bare = [row for row, by in zip(rows, shown, strict=True) if "`tests/" not in by]
    assert all(row.endswith(("| – |", "| shown by |")) for row in bare)
    assert sum(row.endswith("| – |") for row in bare) <= UNSHOWN_MAX
    assert len(rows) - len(bare) >= SHOWN_MIN


def test_sections_are_in_order() -> None:
    found = [tuple(map(int, one.split("."))) for one in HEADING.findall(SPEC.read_text())]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


class TestDrawnSession:
    """The diagrams come from what a session does; here is that it does what its table says."""

    def test_a_sample_of_each_frame(self) -> None:
        assert set(frames()) == SAMPLES.keys()

    @pytest.mark.parametrize("peer", PeerKind)
    @pytest.mark.parametrize("state", State)
    def test_what_is_not_allowed_ends_the_session(self, state: State, peer: PeerKind) -> None:
        allowed = ALLOWED.get((state, peer), frozenset())
        for cls in frames():
            after, effects = step(state, peer, cls)
            if cls not in allowed:
                assert after is State.CLOSED
                assert effects.startswith("OutOfTurn")
