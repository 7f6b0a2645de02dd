"""SPEC 5.5: files in messages, and what a file may be called."""

import signal
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import files
from client.files import received
from crypto.content import pad
from node.errors import EvidenceError, UserError
from protocol.errors import LimitExceeded, NotCanonical, PeerError
from protocol.file import (
    FILE_BYTES_MAX,
    FILE_NAME_BYTES_MAX,
    FILE_TEXT_BYTES_MAX,
    MEDIA_TYPE_BYTES_MAX,
    File,
    check_file_name,
)
from protocol.limits import PAYLOAD_BYTES_MAX
from protocol.message import decode_message, encode_message
from tests.vectors_files import ACCEPTED, REFUSED

ROOT = Path(__file__).parent.parent.parent
SEAL_BYTES = 48
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}
AWKWARD = st.text(
    st.sampled_from("./\\: ~-aCONUX1л\0\x1b\x9b\u202e\u2066\u200b\xa0\ufeff") | st.characters(),
    max_size=140,
)


@given(AWKWARD)
def test_a_name_is_bare_or_refused(name: str) -> None:
    """What is accepted names a file in whatever folder it is put, there and on Windows."""
    with suppress(PeerError):
        check_file_name(name)
        assert len(name.encode()) <= FILE_NAME_BYTES_MAX
        assert Path("/in", name).parts == ("/", "in", name)
        assert PureWindowsPath("c:/in", name).parts == ("c:\\", "in", name)
        assert name.split(".", maxsplit=1)[0].rstrip(" ").upper() not in DEVICES
        assert {unicodedata.bidirectional(one) for one in name}.isdisjoint(
            {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        )
        assert "Cc" not in {unicodedata.category(one) for one in name}
        assert name.strip() == name.rstrip(".") == name


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_name_that_is_none_is_neither_sent_nor_taken(name: str) -> None:
    with pytest.raises(NotCanonical):
        encode_message(File(name, "text/plain", b"", ""))


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_name_is_taken(name: str) -> None:
    check_file_name(name)


def test_the_largest_file_fits_a_payload() -> None:
    kind = "a/" + "b" * (MEDIA_TYPE_BYTES_MAX - 2)
    name, text = "a" * FILE_NAME_BYTES_MAX, "b" * FILE_TEXT_BYTES_MAX
    largest = File(name, kind, bytes(FILE_BYTES_MAX), text)
    raw = encode_message(largest)
    assert decode_message(raw) == largest
    assert len(pad(raw)) + SEAL_BYTES <= PAYLOAD_BYTES_MAX
    with pytest.raises(LimitExceeded):
        encode_message(File(name, kind, bytes(FILE_BYTES_MAX + 1), text))


def test_nothing_is_overwritten_and_no_link_is_followed(tmp_path: Path) -> None:
    """Case 52: a file, a link to one, and a link to nowhere stay what they are."""
    outside = tmp_path / "outside"
    for name in ("file", "link", "dangling"):
        (tmp_path / name).symlink_to(outside if name == "dangling" else tmp_path / "kept")
    (tmp_path / "file").unlink()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "kept").write_bytes(b"old")
    for name in ("file", "link", "dangling"):
        with pytest.raises(UserError, match="exists already"):
            _write(tmp_path / name)
    assert not outside.exists()
    assert {(tmp_path / name).read_bytes() for name in ("file", "kept")} == {b"old"}
    _write(outside)
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (b"new", 0o600)
    assert not list(tmp_path.glob(".ivor-*"))


def test_what_ends_badly_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with received(tmp_path / "file") as target:
            target.write(b"half")
            raise EvidenceError("the rest is another file")

    with pytest.raises(EvidenceError):
        fail()
    assert not list(tmp_path.iterdir())


def test_who_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """What is half written has no name yet, so it goes with the process."""
    writing = (
        "import os, signal, sys; from pathlib import Path; from client.files import received\n"
        "with received(Path(sys.argv[1])) as target:\n"
        "    target.write(b'half'); target.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", writing, str(tmp_path / "file")], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("open_files", [files._OPEN_FILES, "/nowhere"])
def test_where_no_file_is_without_a_name_a_draft_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_files: str
) -> None:
    monkeypatch.setattr(files, "_OPEN_FILES", open_files)
    with received(tmp_path / "file") as target:
        target.write(b"new")
        named = [one.name for one in tmp_path.iterdir()]
        assert bool(named) == (open_files == "/nowhere")
    (written,) = tmp_path.iterdir()
    assert (written.name, written.read_bytes()) == ("file", b"new")
    assert written.stat().st_mode & 0o777 == 0o600


def test_what_appears_meanwhile_stays(tmp_path: Path) -> None:
    def race() -> None:
        with received(tmp_path / "file") as target:
            target.write(b"new")
            (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(UserError, match="exists already"):
        race()
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]


def _write(path: Path) -> None:
    with received(path) as target:
        target.write(b"new")
