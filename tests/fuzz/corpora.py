"""Inputs that are kept: corpus/TARGET reaches what is known, crashes/TARGET once broke something.

    python -m tests.fuzz.corpora [TARGET…]      choose the corpus anew

The seeds of a target come from the vectors. What `python -m tests.fuzz` finds besides (build/fuzz)
goes into the corpus, shortest first, if it reaches a line that nothing before it reached.
"""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Protocol

from tests.fuzz.target import Broken, Target
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
CORPUS, CRASHES = (Path(__file__).parent / name for name in ("corpus", "crashes"))
FOUND = Path(os.environ.get("IVOR_FUZZ_FOLDER", ROOT / "build" / "fuzz"))
PACKAGES = tuple(str(ROOT / name) for name in ("crypto", "protocol", "node", "client", "cli"))
KEPT_BYTES_MAX = 2048


class Tracer(Protocol):
    """What `sys.settrace` calls for each line."""

    def __call__(self, frame: FrameType, event: str, arg: object, /) -> "Tracer | None":
        """Note a line."""


def inputs(name: str) -> Iterator[bytes]:
    """Yield the corpus of a target, its crashes, and its seeds."""
    for folder in (CORPUS / name, CRASHES / name):
        yield from _files(folder)
    for seed in TARGETS[name].seeds():
        if len(seed) <= TARGETS[name].bytes_max:
            yield seed


def _files(folder: Path) -> Iterator[bytes]:
    for file in sorted(folder.glob("*")):
        yield file.read_bytes()


def keep(folder: Path, data: bytes, broken: Broken) -> bool:
    """Write an input down as a crash, unless one that broke at the same place is there."""
    cause = broken.__cause__
    frames = traceback.extract_tb(None if cause is None else cause.__traceback__)
    place = "\n".join(f"{type(cause)} {frame.filename} {frame.lineno}" for frame in frames[-3:])
    file = folder / f"crash-{sha256(place.encode()).hexdigest()[:16]}"
    if file.exists():
        return False
    file.write_bytes(data)
    return True


def chosen(target: Target, candidates: Iterable[bytes]) -> Iterator[bytes]:
    """Yield those that reach what the seeds do not, the shortest first."""
    known: set[tuple[str, int]] = set()
    for seed in target.seeds():
        known |= _reached(target, seed)
    for data in sorted(set(candidates), key=lambda one: (len(one), one)):
        if len(data) <= KEPT_BYTES_MAX and (new := _reached(target, data) - known):
            known |= new
            yield data


def _reached(target: Target, data: bytes) -> set[tuple[str, int]]:
    lines: set[tuple[str, int]] = set()

    def line(frame: FrameType, event: str, _: object) -> Tracer | None:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def call(frame: FrameType, _event: str, _: object) -> Tracer | None:
        return line if frame.f_code.co_filename.startswith(PACKAGES) else None

    before = sys.gettrace()  # of whoever measures the coverage of the tests
    sys.settrace(call)
    try:
        target.examine(data)
    except Broken:
        return set()  # a crash is no corpus
    finally:
        sys.settrace(before)
    return lines


def main(names: Sequence[str]) -> None:
    """Write the corpora of these targets."""
    for name in names or TARGETS:
        target = TARGETS[name]
        candidates = [*_files(CORPUS / name), *_files(FOUND / name / "corpus")]
        with target.setting():
            kept = list(chosen(target, candidates))
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*"):
            file.unlink()
        for data in kept:
            (folder / sha256(data).hexdigest()[:16]).write_bytes(data)
        print(f"{name}: {len(kept)} of {len(candidates)}, {sum(map(len, kept))} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
