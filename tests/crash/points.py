"""Every point at which a work can be stopped, or its disk fail, and what must hold after each.

    film = record(NodeWork(), folder)
    killed(film, folder, at=17)             # SIGKILL before an operation, and inside a long write
    cut(film, folder, seed=4711)            # the power goes at some moment
    restarted(film, folder, seed=4711)      # SIGKILL, a new start, and then the power goes
    failing(NodeWork(), folder, Fault.EIO, at=17)   # an operation fails, and work goes on

Each fails with what is wrong; seed or number give the same again.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.crash.disk import Disk, Fault
from tests.crash.power import (
    SECTOR_BYTES,
    FailedSync,
    Image,
    Op,
    Sync,
    Write,
    image,
    written,
)
from tests.crash.work import Told, Witness, Work, known

MEMORY = Path("/dev/shm")  # noqa: S108 - where a sync costs nothing, if the system has it


@dataclass(frozen=True, slots=True)
class Film:
    """A work, operation by operation.

    before: what was durable at its beginning. chances: how often each fault could have happened.
    """

    work: Work
    before: Image
    log: Sequence[Op]
    told: list[Told]
    chances: Mapping[Fault, int]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for many small databases, in memory if possible."""
    home = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="ivor-crash-", dir=home) as folder:
        yield Path(folder)


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def record(work: Work, base: Path) -> Film:
    """Let a work go on undisturbed, and keep all that it did to the disk."""
    folder = base / "film"
    _fill(folder, {})
    work.prepare(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Disk(folder) as disk:
        witness = Witness(disk)
        work.run(folder, witness)
    shutil.rmtree(folder)
    return Film(work, before, disk.log, witness.told, disk.chances)


def _check(film: Film, base: Path, files: Image, at: int) -> None:
    folder = base / "check"
    _fill(folder, files)
    film.work.check(folder, known(film.told, at))


def killed(film: Film, base: Path, at: int) -> None:
    """Kill the process before this operation, and within it if it is a long write."""
    _check(film, base, written(film.log[:at], film.before), at)
    op = film.log[at] if at < len(film.log) else None
    if isinstance(op, Write) and len(op.data) > SECTOR_BYTES:
        half = Write(op.file, op.offset, op.data[: len(op.data) // 2])
        _check(film, base, written([*film.log[:at], half], film.before), at)


def cut(film: Film, base: Path, seed: int) -> None:
    """Let the power go at some moment; whatever was not synced is on the disk or not."""
    random = Random(seed)
    at = random.randrange(len(film.log) + 1)
    _check(film, base, image(film.log[:at], random, film.before), at)


def restarted(film: Film, base: Path, seed: int) -> None:
    """Kill the process before a sync, start it again, and then let the power go.

    What the killed one had written and not synced the next one reads, and tells of.
    """
    random = Random(seed)
    syncs = [at for at, op in enumerate(film.log) if isinstance(op, Sync)]
    _restarted(film, base, random.choice(syncs), random)


def _restarted(film: Film, base: Path, at: int, random: Random) -> None:
    folder = base / "again"
    _fill(folder, written(film.log[:at], film.before))
    with Disk(folder) as disk:
        witness = Witness(disk)
        film.work.run(folder, witness)
    whole = [*film.log[:at], *disk.log]
    told = [one for one in film.told if one.at <= at]
    told += [Told(at + one.at, one.entries) for one in witness.told]
    shown = witness.told[0].at  # soon after that is where it matters
    till = at + min(shown + int(random.expovariate(0.2)), len(disk.log))
    second = Film(film.work, film.before, whole, told, {})
    _check(second, base, image(whole[:till], random, film.before), till)


def failing(work: Work, base: Path, fault: Fault, at: int) -> None:
    """Let one operation fail and the work go on to its end.

    Then, and if the process was killed or the power went anywhere on the way, everything
    acknowledged is there: what a failed sync should have kept counts as lost, also after a restart.
    """
    folder = base / "fault"
    _fill(folder, {})
    work.prepare(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Disk(folder, fault, at) as disk:
        witness = Witness(disk)
        work.run(folder, witness)
    if not disk.failed:
        return
    film = Film(work, before, disk.log, witness.told, {})
    work.check(folder, witness.all())
    random = Random(at)
    for end in (len(disk.log), random.randrange(len(disk.log) + 1)):
        _check(film, base, image(disk.log[:end], random, before), end)
        _check(film, base, written(disk.log[:end], before), end)
    for number, op in enumerate(disk.log):
        if isinstance(op, FailedSync):
            _restarted(film, base, number + 1 + random.randrange(3), random)
