"""A node's backup and what is restored from it: SPEC 10."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from crypto import keyfile
from node import agency as agencies
from node import backup
from node.agency import (
    CARD_FILE,
    DATABASE_FILE,
    ROOT_FILE,
    SERVICE_FILE,
    FolderRefused,
    Founding,
    open_agency,
    read_card,
)
from node.database import connect
from node.directory import Directory
from node.errors import EvidenceError, IvorError, StorageError, UserError
from node.store import Store
from protocol.invitation import Purpose

NOW = 1_800_000_000.0
PASSPHRASE = b"service"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node that has given out two invitations, of which one is used."""
    monkeypatch.setattr(keyfile, "MEMORY_KIB", keyfile.MEMORY_KIB_MIN)
    monkeypatch.setattr(keyfile, "PASSES", 1)
    made = tmp_path / "minzdrav"
    founding = Founding("minzdrav", "RU-UDM", ("localhost:7341",), {})
    agency = agencies.create(made, founding, PASSPHRASE, b"root", NOW, os.urandom)
    connection = connect(made / DATABASE_FILE, None)
    directory = Directory(connection, agency, os.urandom)
    with connection:
        for name in ("anna", "boris"):
            directory.registrar.invite(name, Purpose.FIRST_DEVICE, NOW, 3600)
        connection.execute("UPDATE tickets SET used = 1 WHERE name = 'anna'")
        connection.execute("INSERT INTO cursors VALUES (zeroblob(32), zeroblob(16), 7)")
    connection.close()
    return made


class TestRestore:
    def test_it_is_the_same_node_and_not_the_same_replica(
        self, folder: Path, tmp_path: Path
    ) -> None:
        file, again = tmp_path / "kept", tmp_path / "again"
        kept = backup.save(folder, file)
        assert (kept.agency, kept.size) == ("minzdrav", file.stat().st_size)
        card = read_card((folder / CARD_FILE).read_text())
        assert kept.fingerprint == card.charter.fingerprint
        assert file.stat().st_mode & 0o777 == 0o600
        assert backup.restore(file, again).withdrawn == 1
        assert open_agency(again, PASSPHRASE).card == open_agency(folder, PASSPHRASE).card
        assert not (again / ROOT_FILE).exists()
        modes = {one.stat().st_mode & 0o777 for one in again.iterdir()}
        assert (modes, again.stat().st_mode & 0o777) == ({0o600}, 0o700)
        old, new = (connect(one / DATABASE_FILE, None) for one in (folder, again))
        assert Store(old).incarnation != Store(new).incarnation
        assert new.execute("SELECT count(*) FROM cursors").get == 0
        assert new.execute("SELECT name, used FROM tickets").fetchall() == [("anna", 1)]
        tables = "SELECT name FROM sqlite_schema ORDER BY name"
        assert old.execute(tables).fetchall() == new.execute(tables).fetchall()
        for one in (old, new):
            one.close()

    def test_it_is_one_state_while_another_writes(self, folder: Path, tmp_path: Path) -> None:
        writer = connect(folder / DATABASE_FILE, None)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO meta VALUES ('half', 1)")
        backup.save(folder, tmp_path / "kept")
        writer.execute("COMMIT")
        writer.close()
        copy = apsw.Connection(str(tmp_path / "kept"))
        assert copy.execute("SELECT value FROM meta WHERE key = 'half'").get is None
        copy.close()

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), apsw.FullError("not an error")]
    )
    def test_a_disk_that_is_full_leaves_the_earlier_one(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        """Regression: SQLite copies to a full disk, and says "not an error"."""
        file = tmp_path / "kept"
        backup.save(folder, file)
        before = file.read_bytes()

        def fail(_: Path) -> backup.Kept:
            raise error

        monkeypatch.setattr(backup, "_described", fail)
        with pytest.raises(StorageError, match="its disk is full"):
            backup.save(folder, file)
        assert file.read_bytes() == before
        assert not file.with_name(".kept.ivor").exists()
        with pytest.raises(StorageError, match="its disk is full"):
            backup.restore(file, tmp_path / "again")
        assert {one.name for one in tmp_path.iterdir()} == {"minzdrav", "kept"}

    def test_what_is_no_backup_is_not_overwritten(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "letter").write_bytes(b"the only copy")
        connect(tmp_path / "node.db", None).close()
        for name in ("letter", "node.db", "."):
            with pytest.raises(UserError, match="is not overwritten"):
                backup.save(folder, tmp_path / name)
        assert (tmp_path / "letter").read_bytes() == b"the only copy"
        (tmp_path / "empty").touch()
        for _ in range(2):
            backup.save(folder, tmp_path / "empty")

    @pytest.mark.parametrize("name", [DATABASE_FILE, SERVICE_FILE, "below/kept", "../minzdrav"])
    def test_not_into_the_nodes_folder(self, folder: Path, name: str) -> None:
        """A name typed in haste would take the place of what it was to save."""
        before = {one: one.read_bytes() for one in folder.iterdir()}
        with pytest.raises(UserError, match="no place for a backup"):
            backup.save(folder, folder / name)
        assert {one: one.read_bytes() for one in folder.iterdir()} == before

    def test_not_over_everything(self, folder: Path) -> None:
        with pytest.raises(UserError, match="no place for a backup"):
            backup.save(folder, Path("/"))

    def test_not_over_a_node(self, folder: Path, tmp_path: Path) -> None:
        backup.save(folder, tmp_path / "kept")
        before = (folder / CARD_FILE).read_bytes()
        with pytest.raises(FolderRefused, match="not empty"):
            backup.restore(tmp_path / "kept", folder)
        assert (folder / CARD_FILE).read_bytes() == before


def other_database(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE folder (name)")
    connection.close()


def a_node_itself(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.execute("DROP TABLE folder")
    connection.close()


def flipped(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 16] = bytes(16)
    file.write_bytes(bytes(raw))


def text(file: Path) -> None:
    file.write_text("dear diary\n" * 1000)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8192])


def newer(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.pragma("user_version", 99)
    connection.close()


class TestWrong:
    @pytest.mark.parametrize(
        ("change", "error", "why"),
        [
            (other_database, EvidenceError, "no backup of a node"),
            (a_node_itself, EvidenceError, "no backup of a node"),
            (flipped, EvidenceError, "damaged"),
            (text, EvidenceError, "damaged"),
            (cut, EvidenceError, "damaged"),
            (newer, StorageError, "data of version 99"),
            (Path.unlink, UserError, "not there"),
        ],
    )
    def test_nothing_is_made(
        self,
        folder: Path,
        tmp_path: Path,
        change: Callable[[Path], None],
        error: type[IvorError],
        why: str,
    ) -> None:
        file = tmp_path / "kept"
        backup.save(folder, file)
        change(file)
        left = {one.name for one in tmp_path.iterdir()}
        with pytest.raises(error, match=why):
            backup.restore(file, tmp_path / "again")
        assert {one.name for one in tmp_path.iterdir()} == left
