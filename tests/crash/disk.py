"""A disk under SQLite, as an apsw VFS: it writes down what is done to it, and fails where told.

    with Disk(folder) as disk:
        connection = connect(folder / "node.db", None)    # the product's own, encrypted or not
        ...
    disk.log                                              # for tests.crash.power
    with Disk(folder, Fault.EIO, at=17) as disk: ...      # its 18th write or removal fails

Below it is SQLite's own VFS for Unix with real files, above it the one that encrypts. The folder
is in the log only by the names of its files.
"""

import errno
import os
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

import apsw
from typing_extensions import override

from tests.crash.power import (
    SECTOR_BYTES,
    Cut,
    FailedSync,
    Gone,
    Made,
    Op,
    Sync,
    SyncFolder,
    Write,
)

NAME = "crash"
ENCRYPTING = f"multipleciphers-{NAME}"  # made by SQLite when it is first asked for
SYSTEM = "multipleciphers-unix"
JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
FULL_OPERATIONS = 12  # for so many the disk stays full


class Fault(Enum):
    """What happens at one operation."""

    EIO = "EIO"  # a write, cut or removal fails once, and has done nothing
    TORN = "torn"  # a write fails once, and has left its first sectors
    FULL = "ENOSPC"  # from here on a while, whatever makes a file longer fails
    SYNC = "fsync"  # a sync fails once: what it should have kept may be lost for good
    READ = "read"  # a read fails once


class Disk(apsw.VFS):
    """The disk of one folder for the length of a block, in which it is everybody's default.

    at: the fault happens at its chance of this number. chances: how many each fault had so far.
    failed: whether the fault has happened.
    """

    def __init__(self, folder: Path, fault: Fault | None = None, at: int = 0) -> None:
        super().__init__(NAME, "unix")
        self.folder = folder
        self.log: list[Op] = []
        self.chances = Counter[Fault]()
        self.failed = False
        self._fault = fault
        self._at = at
        self._known = {path.name for path in folder.iterdir()}
        self._outside = mock.patch("node.files.os.fsync", self._fsync)

    def __enter__(self) -> Self:
        apsw.Connection(":memory:", vfs=ENCRYPTING).close()
        apsw.set_default_vfs(ENCRYPTING)
        self._outside.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._outside.stop()
        apsw.set_default_vfs(SYSTEM)
        apsw.unregister_vfs(ENCRYPTING)
        apsw.unregister_vfs(NAME)

    @override
    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("unix", name, flags)
        file = Path(name if isinstance(name, str) else name.filename()).name
        opened = _File(self, file, name, flags)
        if file not in self._known:
            self._known.add(file)
            self.log.append(Made(file))
        return opened

    @override
    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.meet(Fault.EIO)
        super().xDelete(filename, syncdir)
        file = Path(filename).name
        self._known.discard(file)
        self.log.append(Gone(file))
        if syncdir:
            self.log.append(SyncFolder())

    def _fsync(self, descriptor: int) -> None:
        """A sync of a database's log by its owner, not by SQLite."""
        file = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if file not in self._known:
            return
        try:
            self.sync(file)
        except apsw.IOError:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None

    def sync(self, file: str) -> None:
        """Sync a file, unless that is what fails."""
        try:
            self.meet(Fault.SYNC)
        except apsw.IOError:
            self.log.append(FailedSync(file))
            raise
        self.log.append(Sync(file))

    def meet(self, *possible: Fault) -> Fault | None:
        """Raise the fault that happens at this operation, if one does. A torn write is returned."""
        fault = None
        for one in possible:
            number = self.chances[one]
            self.chances[one] += 1
            lasts = FULL_OPERATIONS if one is Fault.FULL else 1
            if one is self._fault and self._at <= number < self._at + lasts:
                fault = one
        if fault is None:
            return None
        self.failed = True
        if fault is Fault.FULL:
            raise apsw.FullError("no space left")
        if fault is not Fault.TORN:
            raise apsw.IOError(f"the disk fails: {fault.value}")
        return fault


class _File(apsw.VFSFile):
    def __init__(
        self, disk: Disk, file: str, name: str | apsw.URIFilename, flags: Sequence[int]
    ) -> None:
        super().__init__("unix", name, list(flags))
        self._disk = disk
        self._file = file
        # SQLite's VFS syncs the folder with the first sync of a journal that may be new.
        self._syncs_folder = bool(flags[0] & JOURNALS and flags[0] & apsw.SQLITE_OPEN_CREATE)

    @override
    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet(Fault.READ)
        return super().xRead(amount, offset)

    @override
    def xWrite(self, data: bytes, offset: int) -> None:
        grows = offset + len(data) > super().xFileSize()
        fault = self._disk.meet(Fault.EIO, Fault.TORN, *([Fault.FULL] if grows else []))
        if fault is Fault.TORN:
            data = data[: len(data) // 2 // SECTOR_BYTES * SECTOR_BYTES]
        super().xWrite(data, offset)
        self._disk.log.append(Write(self._file, offset, bytes(data)))
        if fault is Fault.TORN:
            raise apsw.IOError("the disk has written a part")

    @override
    def xTruncate(self, newsize: int) -> None:
        self._disk.meet(Fault.EIO)
        super().xTruncate(newsize)
        self._disk.log.append(Cut(self._file, newsize))

    @override
    def xSync(self, flags: int) -> None:
        self._disk.sync(self._file)
        super().xSync(flags)
        if self._syncs_folder:
            self._syncs_folder = False
            self._disk.log.append(SyncFolder())
