"""A node's folder, as the operator's commands use it: through its node if one runs, else directly.

Never two owners of one database: the folder's lock decides, not a look at the socket.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

from node import operations
from node.agency import (
    CARD_FILE,
    CREATE,
    DATABASE_FILE,
    SERVICE_FILE,
    Agency,
    open_agency,
    read_card,
)
from node.config import SETTINGS_FILE, Loaded, Value, load_settings
from node.control import LOCK_SECONDS, FolderLock, ask_node
from node.database import connect
from node.desk import Desk
from node.directory import Directory
from node.disk import failed
from node.errors import StorageError, UserError
from node.logs import log_form, open_log
from node.trust import Trust
from node.words import reason
from protocol.identity import Card

FOLDER_FILES: Final = (SETTINGS_FILE, CARD_FILE, SERVICE_FILE, DATABASE_FILE)
_POLL_SECONDS: Final = 0.05


def settings_of(folder: Path, flags: Mapping[str, Value | None]) -> Loaded:
    """Load the settings of an agency's folder. Raises UserError if it is none."""
    check_agency(folder, [SETTINGS_FILE])
    return load_settings(folder / SETTINGS_FILE, os.environ, flags)


def check_agency(folder: Path, files: Sequence[str] = FOLDER_FILES) -> None:
    """Raise UserError if none of these files of an agency is in a folder."""
    if not any((folder / name).exists() for name in files):
        lacks = f"{files[0]} is missing" if folder.is_dir() else "there is no such folder"
        raise UserError(f"{folder} is no agency's folder: {lacks}; {CREATE} makes one")


def card_of(folder: Path) -> Card:
    """Read the agency's own card. Raises UserError for a folder of none, or StorageError."""
    check_agency(folder)
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{folder / CARD_FILE} cannot be read: {reason(error)}") from None
    return read_card(text)


def carry_out(
    folder: Path,
    command: str,
    arguments: Mapping[str, object],
    passphrase: Callable[[], bytes],
) -> Mapping[str, object]:
    """Have a command carried out, by the running node or on the stopped one's database.

    passphrase: asked only if the node is stopped and the command needs its keys.
    """
    loaded = settings_of(folder, {})
    answer = ask_node(folder, command, arguments)
    if answer is not None:
        return answer
    agency = None
    if command in operations.NEEDS_KEYS:
        agency = open_agency(folder, passphrase())
    lock = FolderLock(folder)
    until = time.monotonic() + LOCK_SECONDS
    while not lock.acquire():
        # A node that has just started, or another command that will soon be done.
        answer = ask_node(folder, command, arguments)
        if answer is not None:
            return answer
        if time.monotonic() > until:
            raise lock.refusal()
        time.sleep(_POLL_SECONDS)
    try:
        return _directly(folder, loaded, agency, command, arguments)
    finally:
        lock.release()


def backup(folder: Path, file: Path) -> Mapping[str, object]:
    """Copy the node of a folder into a file, by the running node or by ourselves."""
    settings_of(folder, {})
    answer = ask_node(folder, "backup", {"file": str(file)})
    if answer is not None:
        return answer
    with FolderLock(folder):
        return operations.backed_up(folder, file)


def _directly(
    folder: Path,
    loaded: Loaded,
    agency: Agency | None,
    command: str,
    arguments: Mapping[str, object],
) -> Mapping[str, object]:
    open_log(sys.stderr, log_form(sys.stderr), "warning")
    with closing(connect(folder / DATABASE_FILE, None)) as connection:
        directory = None if agency is None else Directory(connection, agency, os.urandom)
        trust = Trust(connection, card_of(folder))
        desk = Desk(connection, trust, loaded.settings, directory, connected=None, now=time.time())
        try:
            connection.execute("BEGIN IMMEDIATE")
            if directory is not None:
                directory.registrar.take_over()
            answer = operations.carry_out(desk, command, arguments)
            connection.execute("COMMIT")  # else closing rolls back
        except apsw.Error as error:
            raise failed(error, connection, "nothing was stored") from error
        return answer
