"""`ivor send --file` and `ivor get`, without a network."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from client import files
from client.device import Device
from client.files import write_new
from client.mailbox import read_letter
from node.blobs import StoredBlob, folder_of, new_name, read_blob_chunk, write_chunks
from node.errors import UserError
from protocol.attachment import Attachment
from protocol.entry import EntryId
from protocol.file import FILE_TEXT_BYTES_MAX
from protocol.limits import BLOB_BYTES_MAX
from tests.cli.conftest import Official
from tests.federation import Federation

DATA = bytes(range(256)) * 16
LARGE = bytes(range(256)) * 1500


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    return federation.chat(anna.device, "Бюджет", boris.device).hex()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of who gets files."""
    made = tmp_path / "downloads"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    made = tmp_path / "Таблица 17.csv"
    made.write_bytes(DATA)
    return made


def bring(source: Device, target: Device, blob: StoredBlob) -> StoredBlob:
    """Bring all of a blob from device to device, as nodes would between them."""
    there, index = source.replica.blobs.find(blob.chat, blob.entry), target.replica.blobs
    begun = index.begin(blob, new_name())
    assert there is not None
    assert begun is not None
    for at in range(blob.announced.chunks):
        path = source.replica.blobs.path(there, at)
        assert path is not None
        chunk = read_blob_chunk(source.folder, there, at, path)
        write_chunks(folder_of(target.folder) / str(begun.file), [(at, chunk.chunk)])
        index.keep(begun, [(at, path)])
    index.complete(begun)
    whole = index.find(blob.chat, blob.entry)
    assert whole is not None
    return whole


@pytest.mark.usefixtures("chat")
class TestFiles:
    @pytest.mark.parametrize(
        ("listed", "told"),
        [
            ("application/excel.macroEnabled.12", "application/excel.macroenabled.12"),
            ("no media type", "application/octet-stream"),
        ],
    )
    def test_a_media_type_that_the_system_writes_in_another_way(
        self, anna: Official, table: Path, monkeypatch: pytest.MonkeyPatch, listed: str, told: str
    ) -> None:
        """Debian lists those of Office files with macros in capitals."""
        monkeypatch.setattr("mimetypes.guess_type", lambda _: (listed, None))
        for data in (DATA, LARGE):
            table.write_bytes(data)
            anna("send", "Бюджет", "--file", str(table))
            assert anna.json("read", "Бюджет")[-1]["media_type"] == told

    def test_a_file_arrives_as_it_was_and_is_written_once(
        self, federation: Federation, anna: Official, boris: Official, folder: Path, table: Path
    ) -> None:
        (sent,) = anna.json("send", "Бюджет", "смотрите", "--file", str(table))
        federation.carry(anna.device, boris.device)
        shown = boris.json("read", "Бюджет")[-1]
        assert (shown["kind"], shown["text"], shown["id"]) == ("file", "смотрите", sent["id"])
        assert (shown["name"], shown["media_type"], shown["size"]) == (table.name, "text/csv", 4096)
        assert f"(file {table.name}, 4,096 bytes; 'ivor get' writes it" in boris("read", "Бюджет")
        table.write_bytes(b"1")
        anna("send", "Бюджет", "--file", str(table))
        assert f"(file {table.name}, 1 byte;" in anna("read", "Бюджет")
        short = str(sent["id"])[:8]
        (got,) = boris.json("get", "Бюджет", short)
        written = folder / table.name
        assert (got["written"], got["digest"]) == (str(written), shown["digest"])
        assert (written.read_bytes(), written.stat().st_mode & 0o777) == (DATA, 0o600)
        written.write_bytes(b"changed since")
        boris("get", "Бюджет", short, code=1)
        assert "give another name with --output" in boris.said
        assert written.read_bytes() == b"changed since"
        boris("get", "Бюджет", short, "-o", str(folder / "other"))
        assert (folder / "other").read_bytes() == DATA

    @pytest.mark.parametrize("taken", [False, True], ids=["free", "taken meanwhile"])
    def test_onto_a_stick_without_links(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
    ) -> None:
        target = folder / "report"

        def link(*_: object, **__: object) -> None:
            if taken:
                target.write_bytes(b"another's")
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", link)
        monkeypatch.setattr(files, "_OPEN_FILES", "/nowhere")
        if taken:
            with pytest.raises(UserError, match="exists already"):
                write_new(target, DATA)
        else:
            write_new(target, DATA)
        assert target.read_bytes() == (b"another's" if taken else DATA)
        assert [one.name for one in folder.iterdir()] == ["report"]

    def test_what_can_not_be_sent_is_told(self, anna: Official, table: Path) -> None:
        before = anna("read", "Бюджет")
        with table.open("r+b") as sparse:
            sparse.truncate(BLOB_BYTES_MAX)
        anna("send", "Бюджет", "--file", str(table), code=5)
        assert "16 GiB" in anna.said
        table.write_bytes(DATA)
        long = "a" * (FILE_TEXT_BYTES_MAX + 1)
        anna("send", "Бюджет", long, "--file", str(table), code=5)
        anna("send", "Бюджет", "--file", str(table.parent), code=1)
        anna("send", "Бюджет", "--file", str(table.parent / "none"), code=1)
        anna("send", "Бюджет", "--file", str(table), "--reply-to", "abcd", code=1)
        hidden = table.with_name(".profile")
        hidden.write_bytes(DATA)
        anna("send", "Бюджет", "--file", str(hidden), code=1)
        assert "rename it" in anna.said
        assert anna("read", "Бюджет") == before

    def test_a_large_one_is_queued_and_shown(
        self, federation: Federation, anna: Official, boris: Official, folder: Path, table: Path
    ) -> None:
        table.write_bytes(LARGE)
        once = ("--file", str(table), "--idempotency-key", "k")
        (sent,) = anna.json("send", "Бюджет", "смотрите", *once)
        assert (sent["state"], sent["file_agencies"]) == ("queued", None)
        assert anna.json("send", "Бюджет", "смотрите", *once)[0]["id"] == sent["id"]
        anna("send", "Бюджет", "и это", *once, code=1)
        assert len(list((anna.device.folder / "blobs").iterdir())) == 1
        assert "it waits for our node" in anna("read", "Бюджет")
        federation.carry(anna.device, boris.device)
        shown = boris.json("read", "Бюджет")[-1]
        assert (shown["kind"], shown["text"], shown["fetched"]) == ("file", "смотрите", False)
        assert (shown["size"], shown["digest"]) == (len(LARGE), sha256(LARGE).hexdigest())
        assert "not here, 'ivor get' fetches it" in boris("read", "Бюджет")
        short = str(sent["id"])[:8]
        boris("get", "Бюджет", short, code=3)
        assert not list(folder.iterdir())
        (got,) = anna.json("get", "Бюджет", short)
        assert Path(str(got["written"])).read_bytes() == LARGE
        anna("get", "Бюджет", short, code=1)
        assert "give another name with --output" in anna.said

    def test_who_is_brought_in_while_a_large_one_is_sealed_reads_it(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        chat: str,
        table: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """That can take minutes."""
        vera = federation.official("vera@mincifry")
        anna("chat", "role", chat[:8], "boris@mincifry", "admin")
        federation.carry(anna.device, boris.device)
        news = [lambda: None, lambda: federation.carry(boris.device, anna.device)]
        monkeypatch.setattr("cli.writing.fetch", lambda _: news.pop(0)())
        boris("chat", "add", chat[:8], "vera@mincifry")
        table.write_bytes(LARGE)
        (sent,) = anna.json("send", chat[:8], "смотрите", "--file", str(table))
        for source in (boris, anna):
            federation.carry(source.device, vera)
        message = read_letter(vera, EntryId(bytes.fromhex(str(sent["id"]))))
        assert isinstance(message, Attachment)

    def test_a_name_that_the_system_cannot_write(
        self, anna: Official, folder: Path, table: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a locale of Latin letters."""
        (sent,) = anna.json("send", "Бюджет", "--file", str(table))

        def encoded(name: str) -> bytes:
            return name.encode("latin-1")

        monkeypatch.setattr("os.fsencode", encoded)
        anna("get", "Бюджет", str(sent["id"])[:8], code=1)
        assert "give another name with --output" in anna.said
        anna("get", "Бюджет", str(sent["id"])[:8], "-o", str(folder / "table.csv"))

    def test_one_that_was_redacted_is_not_to_be_had(
        self, anna: Official, folder: Path, table: Path
    ) -> None:
        table.write_bytes(LARGE)
        (sent,) = anna.json("send", "Бюджет", "--file", str(table))
        short = str(sent["id"])[:8]
        anna("redact", "Бюджет", short)
        anna("get", "Бюджет", short, code=1)
        assert not list((anna.device.folder / "blobs").iterdir())
        assert not list(folder.iterdir())

    def test_two_commands_fetch_one_at_once(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        folder: Path,
        table: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Regression: the first to end removed what the other was about to read."""
        table.write_bytes(LARGE)
        (sent,) = anna.json("send", "Бюджет", "--file", str(table))
        federation.carry(anna.device, boris.device)
        short = str(sent["id"])[:8]
        came: list[StoredBlob] = []

        def fetch_after_another(_: Device, __: StoredBlob) -> StoredBlob:
            monkeypatch.setattr("cli.attaching.fetch_file", fetch)
            boris("get", "Бюджет", short, "-o", "first")
            return came[-1]

        def fetch(device: Device, blob: StoredBlob) -> StoredBlob:
            came.append(bring(anna.device, device, blob))
            return came[-1]

        monkeypatch.setattr("cli.attaching.fetch_file", fetch_after_another)
        boris("get", "Бюджет", short, "-o", "second")
        assert len(came) == 2
        assert [(folder / one).read_bytes() for one in ("first", "second")] == [LARGE, LARGE]
        assert not list((boris.device.folder / "blobs").iterdir())

    @pytest.mark.parametrize("redacted", [False, True])
    def test_one_that_goes_while_it_is_written(
        self,
        anna: Official,
        folder: Path,
        table: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        redacted: bool,
    ) -> None:
        """As our node has all of it by now, or as it was redacted."""
        table.write_bytes(LARGE)
        (sent,) = anna.json("send", "Бюджет", "--file", str(table))
        short = str(sent["id"])[:8]

        @contextmanager
        def meanwhile(_: str, __: int) -> Iterator[Callable[[int], object]]:
            if redacted:
                anna("redact", "Бюджет", short)
            for one in (anna.device.folder / "blobs").iterdir():
                one.unlink()
            yield bool

        monkeypatch.setattr("cli.attaching.transfer", meanwhile)
        anna("get", "Бюджет", short, "-o", "copy", code=1 if redacted else 0)
        written = [one.read_bytes() for one in folder.iterdir()]
        assert written == ([] if redacted else [LARGE])

    def test_a_text_is_no_file(self, anna: Official, folder: Path) -> None:
        (sent,) = anna.json("send", "Бюджет", "текст")
        anna("get", "Бюджет", str(sent["id"])[:8], code=1)
        assert "holds no file" in anna.said
        anna("get", "Бюджет", "ffffffff", code=1)
        assert not list(folder.iterdir())
