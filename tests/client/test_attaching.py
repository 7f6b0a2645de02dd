"""Large files on one device: sealed, opened, and refused if they are not what was promised."""

import errno
import fcntl
import os
import tracemalloc
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from client import compose
from client.attaching import SealedFile, open_blob, sealed_copy, sealed_file, sweep
from client.device import Device
from client.files import readable
from client.mailbox import read_letter
from crypto.blob import CHUNK_BYTES, CHUNK_PLAIN_BYTES
from node.blobs import StoredBlob, folder_of, new_name
from node.errors import EvidenceError, StorageError, UserError
from protocol.attachment import Attachment
from protocol.entry import ChatId
from tests.federation import Federation, now

MIB = 1024 * 1024


@pytest.fixture
def anna(federation: Federation) -> Device:
    return federation.official("anna@minzdrav")


@pytest.fixture
def chat(federation: Federation, anna: Device) -> ChatId:
    return federation.chat(anna, "chat", federation.official("boris@minzdrav"))


def attach(device: Device, chat: ChatId, path: Path) -> tuple[StoredBlob, Attachment]:
    """Send a file; return its blob as it is here, and what the message says."""
    with (
        readable(path, "") as stream,
        sealed_file(device, path, stream, "", bool) as sealed,
        device.transaction(),
    ):
        place = compose.send_attached(device, chat, sealed, now(), None)
    blob = device.replica.blobs.find(chat, place.id)
    message = read_letter(device, place.id)
    assert blob is not None
    assert isinstance(message, Attachment)
    return blob, message


def written(device: Device, blob: StoredBlob, message: Attachment) -> bytes:
    target = BytesIO()
    with sealed_copy(device, blob) as copy:
        open_blob(copy, blob, message, target, bool)
    return target.getvalue()


@pytest.mark.parametrize(
    "size",
    [0, 1, CHUNK_PLAIN_BYTES - 1, CHUNK_PLAIN_BYTES, CHUNK_PLAIN_BYTES + 1, 40 * CHUNK_BYTES],
)
def test_what_is_sealed_opens(tmp_path: Path, anna: Device, chat: ChatId, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    blob, message = attach(anna, chat, file)
    assert (message.size, message.digest) == (size, sha256(file.read_bytes()).digest())
    assert anna.replica.blobs.count_held(blob) == blob.announced.chunks
    assert written(anna, blob, message) == file.read_bytes()


def test_what_the_author_did_not_promise_is_refused(
    tmp_path: Path, anna: Device, chat: ChatId
) -> None:
    """Case 50: another file, another length, what is behind the padding, another key."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    blob, message = attach(anna, chat, file)
    for changed in (
        Attachment(message.name, message.media_type, 300_000, bytes(32), message.key, ""),
        Attachment(message.name, message.media_type, 299_999, message.digest, message.key, ""),
        Attachment(message.name, message.media_type, 200_000, message.digest, message.key, ""),
        Attachment(message.name, message.media_type, 300_000, message.digest, bytes(32), ""),
    ):
        with pytest.raises(EvidenceError):
            written(anna, blob, changed)


def test_a_file_that_changes_meanwhile_is_not_sent(tmp_path: Path, anna: Device) -> None:
    file = tmp_path / "file"
    for size in (100, 50 * CHUNK_BYTES):
        file.write_bytes(os.urandom(40 * CHUNK_BYTES))

        def meddle(_: int, size: int = size) -> None:
            os.truncate(file, size)

        with readable(file, "") as stream, pytest.raises(UserError, match="has changed"):
            sealed_file(anna, file, stream, "", meddle).__enter__()
    assert not list(folder_of(anna.folder).iterdir())


def test_what_is_left_over_is_swept_and_what_is_being_sealed_is_not(
    tmp_path: Path, anna: Device, chat: ChatId
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    left_over = folder_of(anna.folder) / new_name()
    left_over.write_bytes(b"a crash left this")
    with readable(file, "") as stream, sealed_file(anna, file, stream, "", bool) as sealed:
        sweep(anna)
        assert [one.name for one in folder_of(anna.folder).iterdir()] == [sealed.file]
        with anna.transaction():
            compose.send_attached(anna, chat, sealed, now(), None)
    sweep(anna)
    assert [one.name for one in folder_of(anna.folder).iterdir()] == [sealed.file]


def test_what_is_swept_before_it_is_locked_is_begun_anew(
    tmp_path: Path, anna: Device, chat: ChatId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the message would go out, and its file be nowhere."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))

    def late(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        sweep(anna)  # of another process
        fcntl.flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    blob, message = attach(anna, chat, file)
    assert written(anna, blob, message) == file.read_bytes()


def test_two_processes_sweep_at_once(anna: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def late_open(path: Path, flags: int) -> int:
        monkeypatch.undo()
        sweep(anna)
        return os.open(path, flags)

    def late_lock(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        sweep(anna)
        fcntl.flock(descriptor, how)

    left_over = folder_of(anna.folder) / new_name()
    for module, name, late in ((os, "open", late_open), (fcntl, "flock", late_lock)):
        left_over.write_bytes(b"a crash left this")
        monkeypatch.setattr(module, name, late)
        sweep(anna)
        assert not left_over.exists()


def test_a_disk_that_takes_no_file_is_told(
    tmp_path: Path, anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with readable(file, "") as stream:
        monkeypatch.setattr(os, "open", full)
        with pytest.raises(StorageError, match="No space"):
            sealed_file(anna, file, stream, "", bool).__enter__()


def test_what_a_full_disk_takes_in_part_is_not_sent(
    tmp_path: Path, anna: Device, chat: ChatId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so by writing less, and as an error only at the next chunk: the last has none."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda to, data, at: pwrite(to, data[:4096], at))
    with pytest.raises(StorageError, match="not written whole"):
        attach(anna, chat, file)
    assert not list(folder_of(anna.folder).iterdir())


def test_memory_does_not_grow_with_the_file(tmp_path: Path, anna: Device, chat: ChatId) -> None:
    """The bench does the same with 2 GiB through two nodes; here it is 96 MiB, sparse."""
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 96 * MIB)
    target = tmp_path / "target"
    tracemalloc.start()
    try:
        blob, message = attach(anna, chat, file)
        with target.open("wb") as stream, sealed_copy(anna, blob) as copy:
            open_blob(copy, blob, message, stream, bool)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * MIB
    assert target.stat().st_size == 96 * MIB


def test_what_is_not_kept_goes(tmp_path: Path, anna: Device) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    with readable(file, "") as stream, sealed_file(anna, file, stream, "", bool) as sealed:
        assert isinstance(sealed, SealedFile)
    assert not list(folder_of(anna.folder).iterdir())
