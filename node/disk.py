"""What a disk's failure means, and what to do: by the error's code, never by its words (SPEC 10).

A full disk comes as SQLITE_FULL, or as an I/O error with the system's own code beside it: where
a file is made, or the memory that processes share for a database.
"""

import errno
from pathlib import Path
from typing import Final

import apsw

from node.errors import DamagedError, StorageError
from node.words import reason

MAKE_ROOM: Final = "make room on it, and do it again"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def failed(error: apsw.Error, connection: apsw.Connection, what: str) -> StorageError:
    """Return what to raise for a database that failed. what: "not stored", such as that.

    The file is named without its folder: peers are told, too.
    """
    if isinstance(error, apsw.CorruptError):
        return DamagedError(f"{what}, the disk says: {error}")
    if isinstance(error, apsw.ConnectionClosedError):  # it has stopped meanwhile
        return StorageError(f"{what}: the database is closed")
    file = Path(connection.filename).name
    stopped = isinstance(error, apsw.IOError | apsw.CantOpenError)
    if isinstance(error, apsw.FullError) or (stopped and connection.system_errno in _FULL):
        return StorageError(f"{what}: the disk with {file} is full; {MAKE_ROOM}")
    if isinstance(error, apsw.BusyError):
        return StorageError(f"{what}: another command keeps {file} busy; try again when it is done")
    return StorageError(f"{what}, the disk says: {error}")


def why_unwritten(error: OSError | apsw.Error) -> str:
    """Return why a file was not written. Of a copy to a full disk SQLite says "not an error"."""
    full = isinstance(error, apsw.FullError) or is_full(error)
    return f"its disk is full; {MAKE_ROOM}" if full else reason(error)


def is_full(error: BaseException | None) -> bool:
    """Whether this is the system's word that there is no room."""
    return isinstance(error, OSError) and error.errno in _FULL
