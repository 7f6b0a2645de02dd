"""Plant each bug of the list in a copy of the tree and see a test fail: `python -m tests.mutants`.

python -m tests.mutants [WORDS…]      only the mutants whose name or property has one of the words

Ends with 1 if a mutant survives, cannot be planted or tested, or if a named test fails without one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.mutants.planting import ROOT, Mutant, chosen, mutants, plant

AT_ONCE = 2
SECONDS_MAX = 300
ALL_SECONDS_MAX = 1800  # for the tests of all of them together, on a busy machine
TREE = ("cli", "client", "node", "protocol", "crypto", "tests", "vectors", "bench")
FILES = ("pyproject.toml", "SPEC.md", "README.md", "Makefile")
FAILED = 1  # pytest: tests ran, and some failed


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the tree, without what was built."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in TREE:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, tree)
        yield tree


def run(tree: Path, tests: Sequence[str], seconds: int) -> int | None:
    """Run tests in a tree; return pytest's exit code, None if they take too long."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(
            command,
            cwd=tree,
            env={**os.environ, "IVOR_HYPOTHESIS": "mutants", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def verdict(mutant: Mutant) -> tuple[str, float]:
    """Return what became of a mutant, and the seconds that it took."""
    start = time.monotonic()
    with copy() as tree:
        plant(tree, mutant)
        code = run(tree, mutant.tests, SECONDS_MAX)
    words = {FAILED: "caught", 0: "SURVIVED", None: "TOO SLOW"}
    return words.get(code, f"BROKEN ({code})"), time.monotonic() - start


def main(words: Sequence[str]) -> int:
    """Run all, or those that the words choose; return the exit code."""
    listed = chosen(mutants(), words)
    with copy() as tree:
        named = sorted({test for one in listed for test in one.tests})
        sound = run(tree, named, ALL_SECONDS_MAX) == 0
    print(f"the named tests {'pass' if sound else 'FAIL'} without a planted bug", flush=True)
    caught = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one, (word, seconds) in zip(listed, pool.map(verdict, listed), strict=True):
            print(f"{word:9} {seconds:5.1f} s  {one.breaks}: {one.name}", flush=True)
            caught += word == "caught"
    print(f"{caught} of {len(listed)} planted bugs were caught")
    return 0 if sound and caught == len(listed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
