"""The planted bugs can still be planted; that they are caught is for `make mutants` to show."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.planting import ROOT, Mutant, chosen, mutants, plant

COUNT_MIN = 25
EACH_MIN = 2
PROPERTIES = {
    "authenticity",
    "delivery to all",
    "durability",
    "exclusion of removed and added members",
    "fork exposure",
    "forward secrecy per epoch",
    "forward secrecy per message",
    "healing after compromise",
    "no downgrade of the shareable flag",
    "no ghost device",
    "no seal replay",
    "no split plaintext",
    "secrecy from nodes",
}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda one: one.name)
def test_can_be_planted(mutant: Mutant, tmp_path: Path) -> None:
    for change in mutant.changes:
        target = tmp_path / change.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / change.file, target)
    plant(tmp_path, mutant)
    for change in mutant.changes:
        assert (tmp_path / change.file).read_text() != (ROOT / change.file).read_text()
        if change.file.endswith(".py"):
            compile((tmp_path / change.file).read_text(), change.file, "exec")


@pytest.mark.parametrize("text", ["", "here and here"])
def test_a_text_must_be_there_once(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(ValueError, match="not once"):
        plant(tmp_path, Mutant("a bug", "authenticity", "a.py", "here", "there", ("tests",)))


@pytest.mark.parametrize("mutant", mutants(), ids=lambda one: one.name)
def test_its_tests_exist(mutant: Mutant) -> None:
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text()
        assert not name or f"def {name}(" in text or f"class {name}" in text


def test_every_property_has_two() -> None:
    count = Counter(one.breaks for one in mutants())
    assert count.keys() == PROPERTIES
    assert min(count.values()) >= EACH_MIN
    assert count.total() >= COUNT_MIN
    assert len({one.name for one in mutants()}) == count.total()


def test_words_choose_and_a_word_that_fits_none_is_told() -> None:
    listed = mutants()
    assert chosen(listed, []) == list(listed)
    assert chosen(listed, [listed[3].name]) == [listed[3]]
    with pytest.raises(SystemExit, match="no planted bug has '--help'"):
        chosen(listed, [listed[3].name, "--help"])
