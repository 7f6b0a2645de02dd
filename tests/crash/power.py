"""What a disk may hold once the power has gone: images, made from a log of what was done to it.

    log = [Made("a"), Write("a", 0, b"..."), Sync("a"), SyncFolder(), Write("a", 4096, b"...")]
    image(log, Dice(7))         # some of what was not synced is there, some is not, some is torn
    written(log)                # what another process sees: all of it; also what a SIGKILL leaves

The rules are POSIX's, and no kinder. Of a file's writes and cuts since its last sync any subset has
reached the disk, in any order, sector by sector, and a sector may be torn. Of a folder's entries
that were made, renamed or removed since its last sync any subset has. A sync that failed promises
nothing, also not to the next one: whether what it should have kept is there is drawn when it fails.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Made:
    """A file was created, empty."""

    file: str


@dataclass(frozen=True, slots=True)
class Nameless:
    """A file without a name was created, empty. file: how the system calls it until it has one."""

    file: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written."""

    file: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file was given this length."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file's content was synced."""

    file: str


@dataclass(frozen=True, slots=True)
class FailedSync:
    """A sync reported an error."""

    file: str


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """The entries of a folder were synced. Names are paths; "" is the folder of bare names."""

    folder: str = ""


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file or a folder has another name; what had that name is gone."""

    file: str
    to: str


@dataclass(frozen=True, slots=True)
class Linked:
    """A file has a further name."""

    file: str
    to: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A file was removed."""

    file: str


Entry = Made | Renamed | Linked | Gone  # of a folder
Op = Nameless | Write | Cut | Sync | FailedSync | SyncFolder | Entry
Image = dict[str, bytes]


@dataclass(slots=True)
class _Content:
    """What is on the disk of one file, and what has been done to it since it was synced."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Cut] = field(default_factory=list)


def _apply(content: bytearray, op: Write | Cut) -> None:
    end = op.size if isinstance(op, Cut) else op.offset + len(op.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if isinstance(op, Cut):
        del content[end:]
    else:
        content[op.offset : end] = op.data


def _draw(content: _Content, random: Random) -> bytearray:
    """Return what the disk has if what is pending is kept by chance."""
    kept: list[Write | Cut] = []
    share = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    for op in content.pending:
        if isinstance(op, Cut):
            kept += [op] if random.random() < share else []
            continue
        for at in range(0, len(op.data), SECTOR_BYTES):
            if random.random() < share:
                sector = op.data[at : at + SECTOR_BYTES]
                torn = random.randrange(len(sector)) if random.random() < share / 16 else None
                kept.append(Write(op.file, op.offset + at, sector[:torn]))
    if random.random() < 0.5:
        random.shuffle(kept)
    found = bytearray(content.durable)
    for op in kept:
        _apply(found, op)
    return found


class _Disk:
    """Files by number, and two views of their names: the durable one and the present one."""

    def __init__(self, before: Mapping[str, bytes]) -> None:
        self.files = [_Content(bytearray(data)) for data in before.values()]
        self.names = {name: number for number, name in enumerate(before)}
        self.durable = dict(self.names)
        self.nameless: dict[str, int] = {}
        self.pending: list[tuple[str, Entry, int]] = []

    def do(self, op: Op, random: Random) -> None:
        match op:
            case Nameless(file):
                self.nameless[file] = len(self.files)
                self.files.append(_Content())
            case Write() | Cut():
                self._content(op.file).pending.append(op)
            case Sync(file):
                content = self._content(file)
                for one in content.pending:
                    _apply(content.durable, one)
                content.pending.clear()
            case FailedSync(file):
                content = self._content(file)
                content.durable = _draw(content, random)
                content.pending.clear()
            case SyncFolder(folder):
                for where, change, number in self.pending:
                    if where == folder:
                        _rename(self.durable, change, number)
                self.pending = [one for one in self.pending if one[0] != folder]
            case Made() | Renamed() | Linked() | Gone():
                self._change(op)

    def _content(self, file: str) -> _Content:
        return self.files[self.nameless[file] if file in self.nameless else self.names[file]]

    def _change(self, op: Entry) -> None:
        number = len(self.files)
        if isinstance(op, Linked) and op.file in self.nameless:  # its first name
            op, number = Made(op.to), self.nameless[op.file]
        elif isinstance(op, Made):
            self.files.append(_Content())
        _rename(self.names, op, number)
        name = op.to if isinstance(op, Renamed | Linked) else op.file
        self.pending.append((name.rpartition("/")[0], op, number))


def _rename(names: dict[str, int], op: Entry, number: int) -> None:
    match op:
        case Made(file):
            names[file] = number
        case Linked(file, to) if file in names:
            names[to] = names[file]
        case Linked():
            pass  # what it links to has not reached the disk
        case Gone(file):
            names.pop(file, None)
        case Renamed(file, to):
            moved = {name for name in names if name == file or name.startswith(f"{file}/")}
            for name in moved:
                names[to + name.removeprefix(file)] = names.pop(name)


def _replayed(log: Iterable[Op], before: Mapping[str, bytes], random: Random) -> _Disk:
    disk = _Disk(before)
    for op in log:
        disk.do(op, random)
    return disk


def image(log: Sequence[Op], random: Random, before: Mapping[str, bytes] | None = None) -> Image:
    """Return what may be on the disk if the power goes after `log`. before: durable when it began.

    One drawing of `random` gives one image: the same seed gives the same.
    """
    disk = _replayed(log, before or {}, random)
    share = random.choice((0.0, 0.5, 1.0))
    for _, change, number in disk.pending:
        if random.random() < share:
            _rename(disk.durable, change, number)
    return {name: bytes(_draw(disk.files[number], random)) for name, number in disk.durable.items()}


def written(log: Sequence[Op], before: Mapping[str, bytes] | None = None) -> Image:
    """Return the files as every process sees them after `log`, and as a killed one leaves them."""
    disk = _replayed([op for op in log if not isinstance(op, FailedSync)], before or {}, Random(0))
    for content in disk.files:
        for op in content.pending:
            _apply(content.durable, op)
    return {name: bytes(disk.files[number].durable) for name, number in disk.names.items()}
