"""Every input that is kept, and some fresh ones, for each target; and that the search finds bugs.

IVOR_FUZZ=100000 tries more fresh ones; IVOR_FUZZ_SEED repeats a round, which a failure names.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.fuzz.corpora import CORPUS, CRASHES, ROOT, chosen, inputs, keep
from tests.fuzz.mutation import bytewise, tree
from tests.fuzz.target import Broken, Target, target
from tests.fuzz.targets import TARGETS

FRESH = int(os.environ.get("IVOR_FUZZ", "60"))
SEED = int(os.environ.get("IVOR_FUZZ_SEED") or SystemRandom().randrange(2**32))


@pytest.mark.parametrize("name", TARGETS)
def test_known_inputs(name: str) -> None:
    with TARGETS[name].setting():
        for data in inputs(name):
            TARGETS[name].examine(data)


@pytest.mark.parametrize("name", TARGETS)
def test_fresh_inputs(name: str) -> None:
    dice = Random(f"{SEED} {name}")
    known = list(inputs(name))
    with TARGETS[name].setting():
        for number in range(FRESH):
            data = TARGETS[name].mutate(dice.choice(known), dice)[: TARGETS[name].bytes_max]
            try:
                TARGETS[name].examine(data)
            except Broken as broken:
                broken.add_note(f"IVOR_FUZZ_SEED={SEED}, input {number}: {data.hex()}")
                raise


def test_only_targets_have_corpora() -> None:
    kept = {folder.name for where in (CORPUS, CRASHES) for folder in where.glob("*")}
    assert kept <= TARGETS.keys()


def test_guided_by_coverage(tmp_path: Path) -> None:
    """The real search, for a moment."""
    pytest.importorskip("atheris", reason="there is no wheel of atheris for this machine")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "names", "--runs", "500", "--json"],
        cwd=ROOT,
        env=os.environ | {"IVOR_FUZZ_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["v"], report["what"]) == (1, "fuzz")
    assert report["targets"]["names"]["runs"] >= 500
    assert report["targets"]["names"]["crashes"] == 0


class TestSearch:
    """A search that finds nothing is worth as much as what it would find."""

    def planted(self, data: bytes) -> Sequence[int]:
        """Refuse what is short; break on one byte, and on another lie."""
        if len(data) < 4:
            raise ValueError
        if data[3] == 0xC1:
            raise KeyError(data[3])
        return data

    def broken(self, _: bytes, found: Sequence[int]) -> None:
        assert found[2] != 0xDD, "a law"

    def examined(self, data: bytes) -> None:
        target(self.planted, self.broken, (ValueError,), list, bytewise).examine(data)

    def test_a_refusal_is_none(self) -> None:
        self.examined(b"abc")

    def test_another_error(self) -> None:
        with pytest.raises(Broken, match="KeyError is no error that SPEC names"):
            self.examined(b"abc\xc1")

    def test_a_law(self) -> None:
        with pytest.raises(Broken, match="a law"):
            self.examined(b"ab\xddd")

    def test_mutation_finds_them(self) -> None:
        dice = Random(4711)
        found = set()
        for _ in range(10_000):
            try:
                self.examined(bytewise(b"abcdefgh", dice))
            except Broken as broken:
                found.add(type(broken.__cause__))
        assert found == {KeyError, AssertionError}

    def test_a_tree_is_changed_inside(self) -> None:
        """What is in binary within an array is changed, and the whole stays msgpack."""
        dice = Random(4711)
        inner = b"\x92\x01\xc4\x01x"
        outer = b"\x92\xc4\x05" + inner + b"\xc0"
        made = {tree(outer, dice) for _ in range(3000)}
        assert b"\x92\xc4\x05\x92\x02\xc4\x01x\xc0" in made

    def test_one_of_each_place(self, tmp_path: Path) -> None:
        """The same bug found again is not another crash."""
        kept = []
        for data in (b"abc\xc1", b"xyz\xc1", b"ab\xddd"):
            with pytest.raises(Broken) as raised:
                self.examined(data)
            kept.append(keep(tmp_path, data, raised.value))
        assert kept == [True, False, True]
        assert len(list(tmp_path.glob("crash-*"))) == 2

    def test_a_corpus_is_what_reaches_more(self) -> None:
        headers = TARGETS["headers"]
        seeds = sorted(headers.seeds(), key=len)
        few = Target(headers.examine, lambda: seeds[:1], headers.mutate, headers.bytes_max)
        kept = list(chosen(few, seeds + seeds))
        assert 1 < len(kept) < len(set(seeds))
        assert list(chosen(few, kept)) == kept
        assert not list(chosen(headers, seeds))
