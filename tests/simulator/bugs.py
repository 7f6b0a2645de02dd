"""Plant each bug of bugs.toml in a copy of the tree, and hunt it: `python -m tests.simulator.bugs`.

python -m tests.simulator.bugs [WORDS…]      only those whose name or invariant has one of the words

Says in how many events each is found. Ends with 1 if one is not, within a million.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.mutants.__main__ import AT_ONCE, copy
from tests.mutants.planting import Change, chosen, plant
from tests.simulator.play import Hunted

LIST = Path(__file__).with_name("bugs.toml")
EVENTS_MAX = 1_000_000
SECONDS_MAX = 1800


class Bug(Struct, frozen=True, forbid_unknown_fields=True):
    """A bug, and the invariant that it breaks. also: as for `tests.mutants.planting.Mutant`."""

    name: str
    breaks: str
    file: str
    find: str
    put: str
    also: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """All that is changed."""
        return (Change(self.file, self.find, self.put), *self.also)


class Listed(Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    bug: tuple[Bug, ...]


def bugs() -> tuple[Bug, ...]:
    """Read the list."""
    return msgspec.toml.decode(LIST.read_bytes(), type=Listed).bug


def hunt(bug: Bug) -> tuple[Hunted | None, float]:
    """Return what was found of a bug, None if the hunt broke, and the seconds that it took."""
    begun = time.monotonic()
    with copy() as tree:
        plant(tree, bug)
        command = [sys.executable, "-m", "tests.simulator", "--hunt", str(EVENTS_MAX)]
        try:
            ran = subprocess.run(
                command,
                cwd=tree,
                env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS_MAX,
                check=False,
            )
            found = msgspec.json.decode(ran.stdout, type=Hunted)
        except (subprocess.TimeoutExpired, msgspec.MsgspecError):
            found = None
    return found, time.monotonic() - begun


def main(words: Sequence[str]) -> int:
    """Hunt all, or those that the words choose; return the exit code."""
    listed = chosen(bugs(), words)
    caught = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one, (found, seconds) in zip(listed, pool.map(hunt, listed), strict=True):
            print(f"{_verdict(found):42} {seconds:5.1f} s  {one.breaks}: {one.name}", flush=True)
            caught += found is not None and found.violation is not None
    print(f"{caught} of {len(listed)} planted bugs were found by the simulator")
    return 0 if caught == len(listed) else 1


def _verdict(found: Hunted | None) -> str:
    if found is None:
        return "BROKEN"
    if found.violation is None:
        return f"SURVIVED {found.events:,} events"
    return f"{found.violation.invariant} after {found.events:,} events, seed {found.seed}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
