"""One file that holds a node, made while it runs, and a node out of such a file (SPEC 10).

The file is a copy of the database, with the folder's settings, card and service key, as encrypted
as they are there, in a table of its own. The root key is not in it: that lies in a safe. A restored
node has a new incarnation and no cursors, so it is told everything anew. Blobs are not in it: a
restored node fetches them again from whoever has them.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw
from msgspec import convert

from node.agency import CARD_FILE, DATABASE_FILE, SERVICE_FILE, FolderRefused, read_card
from node.blobs import State
from node.config import SETTINGS_FILE
from node.database import begin_anew
from node.disk import why_unwritten
from node.errors import EvidenceError, StorageError, UserError
from node.files import private_draft, sync_folder, write_private
from node.schema import APPLICATION_ID, SCHEMA_VERSION

FILES: Final = (SETTINGS_FILE, CARD_FILE, SERVICE_FILE)
_TABLE: Final = "CREATE TABLE folder (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a backup holds. made: milliseconds. withdrawn: invitations that a restore ended."""

    agency: str
    fingerprint: str
    made: int
    chats: int
    entries: int
    size: int
    withdrawn: int = 0


def save(folder: Path, file: Path) -> Kept:
    """Copy a node into a file, whole or not at all, while it runs or not.

    Reads one state of the database, as of now, through a connection of its own. Blocks: call it in
    a thread. Raises StorageError, and then leaves an earlier file as it was; UserError for a place
    in the node's own folder, where it would take that of a key or of the database.
    """
    if not file.name or file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file} is no place for a backup: name a file outside of {folder}")
    _check_older(file)
    try:
        with private_draft(file) as draft:
            _copy(folder, Path(draft.name))
            kept = _described(Path(draft.name))
    except (OSError, apsw.Error) as error:
        raise StorageError(f"the backup {file} was not written: {why_unwritten(error)}") from error
    return kept


def _copy(folder: Path, draft: Path) -> None:
    flags = apsw.SQLITE_OPEN_READWRITE
    source = apsw.Connection(str(folder / DATABASE_FILE), flags=apsw.SQLITE_OPEN_READONLY)
    with closing(source), closing(apsw.Connection(str(draft), flags=flags)) as target:
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(-1)
        target.pragma("journal_mode", "delete")  # one file, without a log beside it
        with target:
            target.execute(_TABLE)
            target.executemany(
                "INSERT INTO folder VALUES (?, ?)",
                [(name, (folder / name).read_bytes()) for name in FILES],
            )
            target.execute("INSERT INTO meta VALUES ('backup', ?)", (int(time.time() * 1000),))


def restore(file: Path, folder: Path) -> Kept:
    """Make a node's folder, absent or empty before, from a backup; all of it, or nothing.

    Invitations that were open are withdrawn: one may have been used since.
    Raises FolderRefused, UserError (no such file), EvidenceError (no whole backup), StorageError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderRefused(f"{folder} exists and is not empty; restore into a new folder")
    if not file.is_file():
        raise UserError(f"{file} is not there, or no file")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _draft_folder(folder) as draft:
            _extract(file, draft / DATABASE_FILE)
            kept = _described(draft / DATABASE_FILE)
            return _renew(draft, kept)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise EvidenceError(f"{file} is no backup of a node, or damaged") from error
    except (OSError, apsw.Error) as error:
        raise StorageError(f"{folder} was not restored: {why_unwritten(error)}") from error


@contextmanager
def _draft_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one that takes its place if the block ends well."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # 0700
    try:
        yield draft
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def _extract(file: Path, database: Path) -> None:
    write_private(database, b"")
    source = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    with closing(source), closing(apsw.Connection(str(database))) as target:
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(-1)
        found = [row[0] for row in target.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise EvidenceError(f"{file} is damaged: {found[0]}")
        if (target.pragma("application_id"), _is_backup(target)) != (APPLICATION_ID, True):
            raise EvidenceError(f"{file} is no backup of a node: 'ivor node backup' makes them")
        version = target.pragma("user_version")
        if version != SCHEMA_VERSION:
            raise StorageError(
                f"{file} has data of version {version}, this Ivor reads version {SCHEMA_VERSION}: "
                "restore with the Ivor that wrote it"
            )


def _is_backup(connection: apsw.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'folder'").get
    return found is not None


def _check_older(file: Path) -> None:
    """Raise UserError if anything but a node's backup, or an empty file, would be replaced."""
    if not file.exists() or (file.is_file() and not file.stat().st_size):
        return
    is_one = False
    with suppress(apsw.Error):
        if file.is_file():
            with closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as older:
                is_one = _is_backup(older)
    if not is_one:
        raise UserError(f"{file} is no node's backup, and is not overwritten: name another file")


def _described(database: Path) -> Kept:
    with closing(apsw.Connection(str(database))) as connection:
        text = connection.execute("SELECT body FROM folder WHERE name = ?", (CARD_FILE,)).get
        charter = read_card(bytes(text).decode(errors="replace")).charter
        return Kept(
            charter.name,
            charter.fingerprint,
            int(connection.execute("SELECT value FROM meta WHERE key = 'backup'").get),
            int(connection.execute("SELECT count(*) FROM chats").get),
            int(connection.execute("SELECT ifnull(sum(length - base), 0) FROM chains").get),
            database.stat().st_size,
        )


def _renew(draft: Path, kept: Kept) -> Kept:
    """Make a copy a node of its own: its files, a new incarnation, nothing seen of anyone yet."""
    with closing(apsw.Connection(str(draft / DATABASE_FILE))) as connection:
        connection.pragma("synchronous", "FULL")
        connection.pragma("secure_delete", "ON")
        rows = connection.execute("SELECT name, body FROM folder").fetchall()
        files = convert(rows, list[tuple[str, bytes]])
        for name, body in files:
            if name in FILES:
                write_private(draft / name, body)
        with connection:
            begin_anew(connection, os.urandom)
            connection.execute("DELETE FROM chunks")
            connection.execute(
                "UPDATE blobs SET state = ?, file = NULL WHERE state IN (?, ?)",
                (State.WANTED, State.FETCHING, State.WHOLE),
            )
            connection.execute("DELETE FROM tickets WHERE used = 0")
            withdrawn = connection.changes()
            connection.execute("DELETE FROM meta WHERE key = 'backup'")
            connection.execute("DROP TABLE folder")
    return Kept(
        kept.agency,
        kept.fingerprint,
        kept.made,
        kept.chats,
        kept.entries,
        (draft / DATABASE_FILE).stat().st_size,
        withdrawn,
    )
