"""One target in a process of its own: `python -m tests.fuzz.worker TARGET FOLDER RUNS SECONDS`.

libFuzzer, through atheris, chooses inputs by what they reach. An input that breaks a law is written
to FOLDER as crash-…, one for each place at which it broke, and the search goes on; one that takes
too much time or memory ends the process and is written as timeout-… or oom-…. What reached
something new is kept in FOLDER/corpus. libFuzzer's own report goes to stderr.
"""

import resource
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from random import Random

import atheris

MEMORY_MIB_MAX = 1024
INPUT_SECONDS_MAX = 10
PACKAGES = ["crypto", "protocol", "node", "client", "cli"]

with atheris.instrument_imports(include=PACKAGES):
    from tests.fuzz.corpora import inputs, keep
    from tests.fuzz.target import Broken, Target
    from tests.fuzz.targets import TARGETS


def fuzz(target: Target, folder: Path, runs: int, seconds: int) -> None:
    """Go on until so many runs or seconds are over; this ends the process."""

    def one(data: bytes) -> None:
        try:
            target.examine(data)
        except Broken as broken:
            if keep(folder, data, broken):
                traceback.print_exception(broken)

    def mutated(data: bytes, most: int, start: int) -> bytes:
        dice = Random(start)
        if dice.randrange(2):
            changed: bytes = atheris.Mutate(data, most)
            return changed
        return target.mutate(data, dice)[:most]

    options = {
        "artifact_prefix": f"{folder}/",
        "max_len": target.bytes_max,
        "max_total_time": seconds,
        "print_final_stats": 1,
        "rss_limit_mb": MEMORY_MIB_MAX,
        "runs": runs,
        "timeout": INPUT_SECONDS_MAX,
        "verbosity": 0,
    }
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items())]
    atheris.Setup([*arguments, str(folder / "corpus")], one, custom_mutator=mutated)
    atheris.Fuzz()


def main(name: str, folder: Path, runs: int, seconds: int) -> None:
    """Put what is known into the corpus, and begin."""
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for known in inputs(name):
        (folder / "corpus" / sha256(known).hexdigest()[:16]).write_bytes(known)
    room = 4 * MEMORY_MIB_MAX * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    with TARGETS[name].setting():
        fuzz(TARGETS[name], folder, runs, seconds)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
