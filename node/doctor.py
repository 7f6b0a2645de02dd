"""What is wrong with a node's folder, or will be soon, and what to do (SPEC 10).

Looks without changing anything, whether the node runs or not. Reads the whole database, and
verifies every entry in it.
"""

import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import apsw

from node.agency import CARD_FILE, DATABASE_FILE, ROOT_FILE, SERVICE_FILE, card_in
from node.aging import waits_until
from node.capacity import files_wanted
from node.config import SETTINGS_FILE, load_settings, refuse_local
from node.control import FolderLock, ask_node
from node.damage import damaged, structure
from node.errors import IvorError
from node.people import People
from node.tls import authority_of
from node.witness import REKEY, Witness, replaced
from node.words import counted
from protocol.errors import PeerError

State = Literal["ok", "warn", "fail"]

FREE_BYTES_LOW: Final = 1024**3
FREE_BYTES_NONE: Final = 16 * 1024**2  # guess: what SQLite's log takes
CA_DAYS_LOW: Final = 90
FIRST_YEAR: Final = 2026  # no honest clock is before this program
_OTHERS: Final = 0o077
_DAY_SECONDS: Final = 24 * 3600
_MOMENT: Final = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: State
    text: str


def examine(folder: Path, now: float) -> Iterator[Finding]:
    """Look at everything. now: seconds UTC. A check that cannot be made is a finding too."""
    for name, look in (
        ("folder", _folder),
        ("settings", _settings),
        ("card", _card),
        ("root key", _root_key),
        ("database", _database),
        ("users", _users),
        ("disk", _disk),
        ("open files", _files),
        ("clock", _clock),
    ):
        yield _look(name, look, folder, now)


Look = Callable[[Path, float], tuple[State, str]]


def _look(name: str, look: Look, folder: Path, now: float) -> Finding:
    try:
        state, text = look(folder, now)
    except OSError as error:
        state, text = "fail", f"{error.filename or folder}: {error.strerror}"
    except (IvorError, PeerError, apsw.Error) as error:
        state, text = "fail", str(error)
    return Finding(name, state, text)


def _folder(folder: Path, _now: float) -> tuple[State, str]:
    missing = [
        name for name in (SETTINGS_FILE, SERVICE_FILE, CARD_FILE) if not (folder / name).is_file()
    ]
    if missing:
        return "fail", f"missing: {', '.join(missing)}; restore from a backup"
    wide = [
        path.name
        for path in (folder, *sorted(folder.iterdir()))
        if stat.S_IMODE(path.lstat().st_mode) & _OTHERS and not path.is_symlink()
    ]
    if wide:
        return "fail", f"open to other users: {', '.join(wide)}; run 'chmod -R go= {folder}'"
    user = folder.stat().st_uid
    foreign = [
        path.name
        for path in sorted(folder.iterdir())
        if path.lstat().st_uid != user and path.name != ROOT_FILE
    ]
    if foreign:
        return "fail", (
            f"not of the folder's user: {', '.join(foreign)}; "
            f"run 'chown -R --reference={folder} {folder}' as root"
        )
    return "ok", "complete, and closed to other users"


def _settings(folder: Path, _now: float) -> tuple[State, str]:
    settings = load_settings(folder / SETTINGS_FILE, {}, {}).settings
    if settings.allow_local:
        return "warn", "allow_local is on: right for tests only"
    return "ok", f"listens on {settings.listen}"


def _files(folder: Path, _now: float) -> tuple[State, str]:
    settings = load_settings(folder / SETTINGS_FILE, {}, {}).settings
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_wanted(settings)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return "warn", (
            f"the system allows {hard}, {settings.connections_max} connections may need {wanted}: "
            "raise LimitNOFILE of the service, or lower connections_max"
        )
    return "ok", f"enough for {settings.connections_max} connections"


def _card(folder: Path, now: float) -> tuple[State, str]:
    card = card_in(folder)
    days = int((authority_of(card).not_valid_after_utc.timestamp() - now) // _DAY_SECONDS)
    if days < CA_DAYS_LOW:
        if days < 0:
            return "fail", f"the CA's certificate ended {counted(-days, 'day')} ago"
        return "warn", f"the CA's certificate ends in {counted(days, 'day')}"
    endpoints = card.endpoints
    if not endpoints:
        return "warn", "names no address: others cannot dial this node"
    if not load_settings(folder / SETTINGS_FILE, {}, {}).settings.allow_local:
        refuse_local(endpoints)
    return "ok", f"number {card.charter.serial}, {', '.join(endpoints)}"


def _root_key(folder: Path, _now: float) -> tuple[State, str]:
    if (folder / ROOT_FILE).exists():
        return "warn", f"{ROOT_FILE} is still here: move it to a medium that you lock away"
    return "ok", "not here, as it should be"


def _database(folder: Path, _now: float) -> tuple[State, str]:
    if not (folder / DATABASE_FILE).exists():
        return "ok", "none yet: the node has not run"
    with _opened(folder) as connection:
        return _contents(folder, connection)


@contextmanager
def _opened(folder: Path) -> Iterator[apsw.Connection]:
    """Open a node's database, which it owns if it runs. Raises StorageError."""
    lock = FolderLock(folder)
    flags = apsw.SQLITE_OPEN_READWRITE
    if not lock.acquire():
        if ask_node(folder, "status", {}) is None:
            raise lock.refusal()
        flags = apsw.SQLITE_OPEN_READONLY
    try:
        with closing(apsw.Connection(str(folder / DATABASE_FILE), flags=flags)) as connection:
            yield connection
    finally:
        lock.release()


def _contents(folder: Path, connection: apsw.Connection) -> tuple[State, str]:
    wrong = structure(connection)
    if wrong is not None:
        return "fail", f"{wrong}; restore from a backup"
    chats = sum(1 for _ in damaged(connection))
    if chats:
        return "fail", (
            f"{counted(chats, 'chat')} with entries that are not as they were signed: stop the "
            f"node, and run 'ivor node mend --dir {folder}'"
        )
    return "ok", "sound, and every entry as it was signed"


def _users(folder: Path, _now: float) -> tuple[State, str]:
    if not (folder / DATABASE_FILE).exists():
        return "ok", "none yet"
    charter = card_in(folder).charter
    with _opened(folder) as connection:
        unmet = People(connection, charter.agency).unmet()
        newest = Witness(connection).latest(charter.agency)
    if newest is not None and replaced(charter, newest.charter):
        return "fail", f"certified with a registrar key that was replaced: {REKEY}"
    if unmet:
        return "warn", (
            f"cannot be changed before the node, which was brought back, has met {', '.join(unmet)}"
        )
    return "ok", "can be enrolled and revoked"


def _disk(folder: Path, _now: float) -> tuple[State, str]:
    free = shutil.disk_usage(folder).free
    said = f"{free // 1024**2} MiB free"
    if free < FREE_BYTES_NONE:
        return "fail", f"{said}: nothing is taken or sent on any more; make room"
    return "ok" if free >= FREE_BYTES_LOW else "warn", said


def _clock(folder: Path, now: float) -> tuple[State, str]:
    moment = datetime.fromtimestamp(now, UTC)
    believed = _believed(folder)
    if moment.year >= FIRST_YEAR and believed is not None:
        return "warn", (
            f"{moment:{_MOMENT}} UTC is far past when the node last looked: nothing is dropped by "
            f"age before {believed:{_MOMENT}}; set the clock right if it is wrong"
        )
    state: State = "ok" if moment.year >= FIRST_YEAR else "fail"
    return state, f"{moment:{_MOMENT}} UTC; certificates are judged by it"


def _believed(folder: Path) -> datetime | None:
    """Return when a clock that has leapt ahead will be believed, None if it has not."""
    if not (folder / DATABASE_FILE).exists():
        return None
    try:
        with _opened(folder) as connection:
            until = waits_until(connection)
    except (IvorError, apsw.Error):  # that is the database's finding
        return None
    return None if until is None else datetime.fromtimestamp(until / 1000, UTC)
