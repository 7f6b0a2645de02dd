"""The database file of a replica: opened or made, begun anew, its log emptied (SPEC 10)."""

import os
from collections.abc import Callable
from pathlib import Path

import apsw
from msgspec import convert

from node.disk import failed
from node.errors import StorageError
from node.files import sync_file
from node.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from protocol.limits import INCARNATION_BYTES

STATEMENTS_CACHED_MAX = 512  # all that there are: one of ten had to be parsed anew with 100
BUSY_TIMEOUT_MS = 10_000
BEGUN_ANEW = "begun anew"  # in `meta`, of a database that has lost something


def open_connection(database: str, vfs: str | None = None) -> apsw.Connection:
    """Open a database of SQLite: a path, or ":memory:". Raises apsw.Error.

    vfs: where the path leads, if not to a file.

    Plans do not look at the values that are bound (SQLITE_DBCONFIG_ENABLE_QPSG): SQLite, built with
    STAT4 as it is here, would otherwise parse a join anew each time it is run.
    """
    connection = apsw.Connection(database, vfs=vfs, statementcachesize=STATEMENTS_CACHED_MAX)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


def connect(path: Path, key: bytes | None) -> apsw.Connection:
    """Open or create a database file, mode 0600. key: 32 bytes encrypt it at rest, None does not.

    Raises StorageError, which says what to do, for a file that is not ours or not to be read.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = open_connection(str(path))
    except (OSError, apsw.Error) as error:
        raise StorageError(f"{path} does not open: {error}") from None
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if key is not None:
            connection.pragma("cipher", "chacha20")
            connection.pragma("key", f"raw:{key.hex()}")
        _set_up(connection, path)
    except apsw.NotADBError:
        connection.close()
        raise StorageError(f"{path} does not open: not an Ivor database, or a wrong key") from None
    except apsw.Error as error:
        why = failed(error, connection, f"{path} does not open")
        connection.close()
        raise why from None
    return connection


def _set_up(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    if version not in (0, SCHEMA_VERSION):
        raise StorageError(
            f"{path} has data of version {version}, this Ivor reads version {SCHEMA_VERSION}: "
            "use the Ivor that wrote it"
        )
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("secure_delete", "ON")
    connection.pragma("wal_autocheckpoint", 1000)
    if version == 0:
        with connection:
            connection.execute(SCHEMA)
            fresh = os.urandom(INCARNATION_BYTES)
            connection.execute("INSERT INTO meta VALUES ('incarnation', ?)", (fresh,))
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", SCHEMA_VERSION)
    # What a killed process wrote and had not synced yet is read like all else. It must be durable
    # before anybody is told of it. If others have the file open, they have seen to that.
    empty_log(connection)


def incarnation_of(connection: apsw.Connection) -> bytes:
    """Return the 16 random bytes that a restored or new database has of its own."""
    return bytes(connection.execute("SELECT value FROM meta WHERE key = 'incarnation'").get)


def noted(connection: apsw.Connection, what: str) -> int | bytes | None:
    """Return what was noted last by this name, None for nothing."""
    value = connection.execute("SELECT value FROM meta WHERE key = ?", (what,)).get
    return convert(value, int | bytes | None)


def note(connection: apsw.Connection, what: str, value: int | bytes) -> None:
    """Remember a value by a name, instead of an earlier one."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (what, value),
    )


def begin_anew(connection: apsw.Connection, random: Callable[[int], bytes]) -> None:
    """Have peers and devices tell everything anew: a new incarnation, and no cursors.

    For a database that has lost something: others may know a later directory of ours (SPEC 7.5),
    and people may have been enrolled of whom nothing is here.
    Call inside a transaction.
    """
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'incarnation'", (random(INCARNATION_BYTES),)
    )
    connection.execute("DELETE FROM cursors")
    connection.execute("INSERT OR IGNORE INTO unmet SELECT id FROM agencies")
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, 1)", (BEGUN_ANEW,))


def empty_log(connection: apsw.Connection) -> bool:
    """Bring the write-ahead log into the database and cut it to nothing, durably.

    Until then it has the pages as they were before something was overwritten. Returns False if
    another process is reading just now: the next time does it. Call outside a transaction.
    Raises StorageError and apsw.Error.
    """
    connection.set_busy_timeout(0)
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        return False
    finally:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    try:
        sync_file(Path(connection.filename_wal))  # SQLite does not, and the cut could be undone
    except OSError as error:
        raise StorageError(f"the database's log is not emptied: {error}") from error
    return True
