"""What a disk's failure is said to be: by its code, whatever its words (SPEC 10)."""

import errno
from unittest.mock import create_autospec

import apsw
import pytest

from node.disk import failed
from node.errors import DamagedError


@pytest.mark.parametrize(
    ("error", "system", "said"),
    [
        (apsw.FullError("database or disk is full"), 0, "the disk with node.db is full; make room"),
        (apsw.IOError("disk I/O error"), errno.ENOSPC, "the disk with node.db is full"),
        (apsw.CantOpenError("unable to open"), errno.EDQUOT, "the disk with node.db is full"),
        (apsw.IOError("disk I/O error"), errno.EIO, "not stored, the disk says: disk I/O error"),
        (apsw.BusyError("database is locked"), errno.ENOSPC, "keeps node.db busy"),
        (apsw.CorruptError("malformed"), errno.ENOSPC, "not stored, the disk says: malformed"),
    ],
)
def test_what_is_said(error: apsw.Error, system: int, said: str) -> None:
    """The system's code is of the last failure that had one: others do not go by it."""
    connection = create_autospec(apsw.Connection, instance=True)
    connection.filename, connection.system_errno = "/a/folder/node.db", system
    found = failed(error, connection, "not stored")
    assert said in str(found)
    assert "folder" not in str(found)
    assert isinstance(found, DamagedError) == isinstance(error, apsw.CorruptError)


def test_a_database_that_was_closed_meanwhile() -> None:
    """A session may still be reading when its node stops."""
    connection = apsw.Connection(":memory:")
    connection.close()
    with pytest.raises(apsw.ConnectionClosedError) as met:
        connection.execute("SELECT 1")
    assert "is closed" in str(failed(met.value, connection, "nothing was read"))
