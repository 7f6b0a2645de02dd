"""What is stored against what was signed: bits that a disk has turned, and the way back (SPEC 10).

    wrong = structure(connection)          # what SQLite sees: only a backup helps
    chats = list(damaged(connection))      # what only the signatures show
    mended = mend(folder)                  # forgets those chats; peers and devices bring them back

SQLite sees a broken page, not a wrong byte in a row. But every byte of an entry is under its
author's signature. A chat with one that is not is forgotten whole: a replica that has none of it
asks for all of it, and verifies what comes. The damaged file is kept beside the mended one.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from node.agency import DATABASE_FILE
from node.chats import Chats
from node.database import begin_anew, connect, empty_log
from node.errors import StorageError
from node.files import private_draft
from node.runs import read_run
from node.store import Branch, StoredChat
from protocol.entry import CONTROL, ChatId, DeviceKey
from protocol.frame import Want, authentic

DAMAGED_FILE: Final = f"{DATABASE_FILE}.damaged"

_ENTRIES: Final = "DELETE FROM entries WHERE place >> 32 IN (SELECT no FROM chains WHERE chat = ?)"
_OF_A_CHAT: Final = (
    "DELETE FROM chunks WHERE blob IN (SELECT place FROM blobs WHERE chat = ?)",
    "DELETE FROM departures WHERE chain IN (SELECT no FROM chains WHERE chat = ?)",
    *(
        f"DELETE FROM {table} WHERE chat = ?"  # noqa: S608 - our own names
        for table in (
            "controls",
            "dropped",
            "readers",
            "former",
            "forks",
            "sealless",
            "holdings",
            "unheard",
            "blobs",
            "chains",
        )
    ),
    "DELETE FROM chats WHERE no = ?",
)


@dataclass(frozen=True, slots=True)
class Mended:
    """What was forgotten. kept: the file as it was, None if nothing was wrong."""

    chats: Sequence[ChatId]
    entries: int
    kept: Path | None


def structure(connection: apsw.Connection) -> str | None:
    """Return what SQLite finds wrong with the file, None if nothing. Reads all of it."""
    found = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
    return None if found == ["ok"] else str(found[0])


def damaged(connection: apsw.Connection) -> Iterator[ChatId]:
    """Yield the chats with an entry that is not as it was signed, or a head that is not there."""
    chats = Chats(connection, b"", b"")
    for chat in chats.store.chats():
        try:
            whole = _is_whole(chats, chat)
        except Exception:  # noqa: BLE001 - a wrong byte may lead to anything
            whole = False
        if not whole:
            yield chat


def _is_whole(chats: Chats, chat: ChatId) -> bool:
    stored = chats.store.chat(chat)
    if stored is None or chats.chat(chat) is None:
        return False
    controls = sum(
        branch.length - branch.base
        for (_, lane), chain in stored.chains.items()
        for branch in chain
        if lane == CONTROL
    )
    return len(chats.store.control_order(stored)) == controls and all(
        _is_signed(chats, stored, DeviceKey(device), lane, branch)
        for (device, lane), chain in stored.chains.items()
        for branch in chain
    )


def _is_signed(
    chats: Chats, stored: StoredChat, device: DeviceKey, lane: int, branch: Branch
) -> bool:
    """Whether a branch is what a peer would take: read as it is served, and verified."""
    at = branch.base
    chain = stored.chains[device, lane]
    while at < branch.length:
        want = Want(stored.id, device, lane, branch.head, at, branch.length)
        run = read_run(chats.store, want)
        if run is None:
            return False
        entries = authentic(run)
        rows = chats.store.rows(chain, branch, at, at + len(run.records))
        if [entry.id for entry in entries] != [row[1] for row in rows]:
            return False
        if at + len(entries) >= branch.length and entries[branch.length - 1 - at].id != branch.head:
            return False
        at += len(run.records)
    return True


def mend(folder: Path) -> Mended:
    """Forget what is damaged, so that it is told anew. The caller holds the folder's lock.

    Raises StorageError if the file is damaged in a way that only a backup helps.
    """
    file = folder / DATABASE_FILE
    with closing(connect(file, None)) as connection:
        wrong = structure(connection)
        if wrong is not None:
            raise StorageError(
                f"{file} is damaged: {wrong}; only a backup helps: 'ivor node restore FILE' into a "
                "new folder, and what was written since comes back from peers and devices"
            )
        chats = list(damaged(connection))
        if not chats:
            return Mended((), 0, None)
        kept = folder / DAMAGED_FILE
        try:
            with private_draft(kept) as draft, file.open("rb") as whole:
                shutil.copyfileobj(whole, draft)
        except OSError as error:
            raise StorageError(f"{kept} cannot be written: {error.strerror}") from error
        with connection:
            entries = sum(_forget(connection, chat) for chat in chats)
            begin_anew(connection, os.urandom)
        empty_log(connection)
    return Mended(chats, entries, kept)


def _forget(connection: apsw.Connection, chat: ChatId) -> int:
    """Delete a chat; return how many entries that were."""
    no = connection.execute("SELECT no FROM chats WHERE id = ?", (chat,)).get
    connection.execute(_ENTRIES, (no,))
    entries = connection.changes()
    for statement in _OF_A_CHAT:
        connection.execute(statement, (no,))
    return entries
