"""SPEC.md, README.md, the hostile cases: printed parts are up to date, what is cited is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.session import ALLOWED, PeerKind, State
from tests.make_diagrams import PARTS, SAMPLES, SPEC, frames, generated, step
from tests.make_vectors import FILES

ROOT = SPEC.parent
PACKAGES = ("crypto", "protocol", "node", "client", "cli", "tests")
CITED = re.compile(r"\bSPEC ([\w.\"]+(?:, [\d.]+)*(?: and [\d.]+)?)")
HEADING = re.compile(r"^#{2,3} (\d+(?:\.\d+)?) ", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
PATH = re.compile(r"`((?:tests|node|protocol|client|crypto)/[\w/]+\.py)")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
README = ROOT / "README.md"
HOSTILE = ROOT / "tests" / "hostile" / "README.md"
CASES = range(1, 80)
CASES_NAMED = re.compile(r"(\d+)(?: to (\d+))?")
TEST_FILE = re.compile(r"`([\w/]+\.py)(?:::(\w+)(?=`))?")
TEST = re.compile(r"`(test_\w+)`")
UNSHOWN_MAX = 3
SHOWN_MIN = 35
CLAIMS_MIN = 9
LINES_MAX = 1850


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


@pytest.mark.parametrize("path", sorted(set(PATH.findall(SPEC.read_text() + README.read_text()))))
def test_files_named_in_it_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_vectors_is_named_in_it(name: str) -> None:
    """Where its rules are."""
    assert f"`{name}.json`" in SPEC.read_text()


@pytest.mark.parametrize("named", sorted(set(NAMED.findall(SPEC.read_text() + README.read_text()))))
def test_tests_named_in_it_exist(named: tuple[str, str]) -> None:
    """A class, a test, or a rule or an invariant of a state machine."""
    path, name = named
    assert defines(ROOT / path, name)


def defines(path: Path, name: str) -> bool:
    """Whether a file has a function or a class of this name."""
    pattern = rf"^ *(?:async )?(?:def|class) {name}\b"
    return re.search(pattern, path.read_text(), re.MULTILINE) is not None


def rows_of(text: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in a chapter."""
    _, _, chapter = text.partition(f"\n## {heading}\n")
    for line in chapter.partition("\n## ")[0].splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


class TestReadme:
    @pytest.mark.parametrize(
        ("heading", "sections", "tests"),
        [("What it promises", 2, 3), ("How it is secured", 1, 2)],
    )
    def test_each_claim_names_a_section_and_a_test(
        self, heading: str, sections: int, tests: int
    ) -> None:
        headings = set(HEADING.findall(SPEC.read_text()))
        _, *rows = rows_of(README.read_text(), heading)
        assert len(rows) >= CLAIMS_MIN
        for row in rows:
            named = NUMBER.findall(row[sections].partition("]")[0])
            assert named, row
            assert set(named) <= headings, row
            assert "tests/" in row[tests], row


class TestHostileCases:
    """`tests/hostile/README.md`: each case has its line, and each line its tests."""

    def test_each_case_is_in_it(self) -> None:
        firsts = [
            line.strip("| ").partition(" | ")[0]
            for line in HOSTILE.read_text().splitlines()
            if line.startswith("| ")
        ]
        found = {
            case
            for first in firsts
            for low, high in CASES_NAMED.findall(first)
            for case in range(int(low), int(high or low) + 1)
        }
        assert found == set(CASES)

    @pytest.mark.parametrize("named", sorted(set(TEST_FILE.findall(HOSTILE.read_text()))))
    def test_files_named_in_it_exist(self, named: tuple[str, str]) -> None:
        path, name = named
        places = (HOSTILE.parent / path, ROOT / "tests" / path)
        found = [place for place in places if place.is_file()]
        assert found
        assert not name or defines(found[0], name)

    @pytest.mark.parametrize("name", sorted(set(TEST.findall(HOSTILE.read_text()))))
    def test_tests_named_in_it_exist(self, name: str) -> None:
        assert any(defines(path, name) for path in (ROOT / "tests").rglob("*.py"))


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
