"""The control socket and the folder's lock: one owner, and only its own user is answered."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node import control
from node.control import (
    LINE_SECONDS_MAX,
    LOCK_FILE,
    REQUEST_BYTES_MAX,
    SOCKET_FILE,
    FolderLock,
    ask_node,
    serve_control,
)
from node.errors import IdentityError, NetworkError, RefusedError, StorageError, UserError
from protocol.errors import Untrusted

# Longer than the 107 characters that the path of a socket may have.
DEEP = "a-folder-with-a-name-of-some-length/" * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / DEEP
    made.mkdir(parents=True, mode=0o700)
    return made


async def echo(command: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
    match command:
        case "refuse":
            raise RefusedError("not today")
        case "doubt":
            raise Untrusted("an altered card")
        case "stumble":
            raise ValueError("a bug")
        case _:
            return {"v": 1, "command": command} | dict(arguments)


async def asked(
    folder: Path, command: str, arguments: Mapping[str, object]
) -> Mapping[str, object] | None:
    return await trio.to_thread.run_sync(partial(ask_node, folder, command, arguments))


async def told(folder: Path, raw: bytes) -> bytes:
    """Write raw bytes to the socket and return all that comes back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        here = os.open(folder, os.O_RDONLY)
        plain.connect(f"/proc/self/fd/{here}/{SOCKET_FILE}")
        os.close(here)
        plain.settimeout(0)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(plain.dup()))
    async with stream:
        await stream.send_all(raw)
        answer = b""
        while chunk := await stream.receive_some():
            answer += chunk
    return answer


class TestConversation:
    async def test_a_command_is_answered(self, folder: Path, nursery: trio.Nursery) -> None:
        await nursery.start(serve_control, folder, echo)
        answer = await asked(folder, "status", {"name": "анна"})
        assert answer == {"v": 1, "command": "status", "name": "анна"}
        nursery.cancel_scope.cancel()

    async def test_the_socket_is_private(self, folder: Path, nursery: trio.Nursery) -> None:
        """Hostile case 72."""
        await nursery.start(serve_control, folder, echo)
        assert stat.S_IMODE((folder / SOCKET_FILE).stat().st_mode) == 0o600
        nursery.cancel_scope.cancel()

    async def test_another_user_gets_nothing(
        self, folder: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Hostile case 72; this test may run as root, so who it is is pretended."""
        monkeypatch.setattr(control, "_is_owner", lambda _: False)
        await nursery.start(serve_control, folder, echo)
        with pytest.raises(NetworkError, match="refused this user"):
            await asked(folder, "status", {})
        nursery.cancel_scope.cancel()

    async def test_the_kernel_says_who_asks(self) -> None:
        ours, theirs = trio.socket.socketpair()
        assert control._is_owner(ours)
        ours.close()
        theirs.close()

    @pytest.mark.parametrize(
        ("command", "error", "text"),
        [
            ("refuse", RefusedError, "not today"),
            ("doubt", IdentityError, "an altered card"),
            ("stumble", StorageError, "a bug"),
        ],
    )
    async def test_errors_keep_their_kind(
        self,
        folder: Path,
        nursery: trio.Nursery,
        command: str,
        error: type[Exception],
        text: str,
    ) -> None:
        await nursery.start(serve_control, folder, echo)
        with pytest.raises(error, match=text):
            await asked(folder, command, {})
        assert await asked(folder, "status", {})
        nursery.cancel_scope.cancel()

    @pytest.mark.parametrize(
        "raw",
        [
            b"not json\n",
            b"[" * 5000 + b"\n",
            b'{"v":1}\n',
            b'{"v":2,"command":"status","arguments":{}}\n',
            b'{"v":1,"command":"status","arguments":{},"more":1}\n',
            b'{"v":1,"command":"\xff","arguments":{}}\n',
            b"x" * (REQUEST_BYTES_MAX + 1),
        ],
    )
    async def test_nonsense_is_refused_and_the_next_answered(
        self, folder: Path, nursery: trio.Nursery, raw: bytes
    ) -> None:
        await nursery.start(serve_control, folder, echo)
        answer = json.loads(await told(folder, raw))
        assert answer["v"] == 1
        assert answer["error"]["code"] == 1
        assert await asked(folder, "status", {})
        nursery.cancel_scope.cancel()

    async def test_who_goes_away_harms_nobody(self, folder: Path, nursery: trio.Nursery) -> None:
        await nursery.start(serve_control, folder, echo)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
            here = os.open(folder, os.O_RDONLY)
            plain.connect(f"/proc/self/fd/{here}/{SOCKET_FILE}")
            os.close(here)
        assert await asked(folder, "status", {})
        nursery.cancel_scope.cancel()

    async def test_half_a_line_has_a_deadline(
        self, folder: Path, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        await nursery.start(serve_control, folder, echo)
        begun = trio.current_time()
        answer = json.loads(await told(folder, b'{"v":1,'))
        assert "no whole request" in answer["error"]["text"]
        assert trio.current_time() - begun >= LINE_SECONDS_MAX
        assert autojump_clock.autojump_threshold == 0
        nursery.cancel_scope.cancel()


class TestSocketFile:
    def test_no_node(self, folder: Path) -> None:
        assert ask_node(folder, "status", {}) is None

    async def test_one_that_a_crash_left_is_replaced(
        self, folder: Path, nursery: trio.Nursery
    ) -> None:
        for name in (SOCKET_FILE, f"{SOCKET_FILE}.new"):
            here = os.open(folder, os.O_RDONLY)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
                plain.bind(f"/proc/self/fd/{here}/{name}")
            os.close(here)
        assert await asked(folder, "status", {}) is None
        await nursery.start(serve_control, folder, echo)
        assert await asked(folder, "status", {})
        nursery.cancel_scope.cancel()

    async def test_it_goes_with_the_node(self, folder: Path) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, folder, echo)
            nursery.cancel_scope.cancel()
        assert not [name for name in os.listdir(folder) if name.startswith(SOCKET_FILE)]  # noqa: PTH208 - async


class TestLock:
    def test_one_owner(self, folder: Path) -> None:
        with FolderLock(folder), pytest.raises(StorageError, match=f"process {os.getpid()}"):
            FolderLock(folder, seconds=0).__enter__()
        with FolderLock(folder, seconds=0):
            assert (folder / LOCK_FILE).read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE((folder / LOCK_FILE).stat().st_mode) == 0o600

    def test_it_goes_with_the_process(self, folder: Path) -> None:
        code = (
            "import sys, os; from pathlib import Path; from node.control import FolderLock;"
            "FolderLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
        assert done.returncode == -9
        with FolderLock(folder, seconds=0):
            pass

    def test_a_symlink_is_not_followed(self, folder: Path, tmp_path: Path) -> None:
        target = tmp_path / "precious"
        target.write_text("keep")
        (folder / LOCK_FILE).symlink_to(target)
        with pytest.raises(StorageError, match="cannot be opened"):
            FolderLock(folder).acquire()
        assert target.read_text() == "keep"

    def test_a_folder_that_is_absent(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot be opened"):
            FolderLock(tmp_path / "none").acquire()

    def test_an_unknown_owner_is_said(self, folder: Path) -> None:
        with FolderLock(folder):
            (folder / LOCK_FILE).write_bytes(b"\xff")
            assert "process ?" in str(FolderLock(folder).refusal())


def test_a_users_mistake_is_one() -> None:
    assert UserError("x").exit_code == 1
