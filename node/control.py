"""How an operator's command reaches a running node: a Unix socket in its folder (SPEC 10).

DIR/lock           held by whoever owns the folder: a running node, or one command at a time
DIR/control.sock   mode 0600; JSON lines: {"v": 1, "command": …, "arguments": {…}} and one answer

with FolderLock(folder): …                       # never two owners of one database
await serve_control(folder, handler)             # in the node
answer = ask_node(folder, "status", {})          # in the command; None if no node listens
"""

import fcntl
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog
import trio
from msgspec import Struct

from node.errors import (
    IvorError,
    NetworkError,
    StorageError,
    UserError,
    exit_code,
    reported,
)
from protocol.errors import PeerError

log = structlog.get_logger()

SOCKET_FILE: Final = "control.sock"
LOCK_FILE: Final = "lock"
REQUEST_BYTES_MAX: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
LINE_SECONDS_MAX: Final = 10.0  # from the connection to the end of its request
ANSWER_SECONDS_MAX: Final = 60.0
CONNECTIONS_MAX: Final = 16
LOCK_SECONDS: Final = 5.0  # how long one command waits for another to end

_PEER_CREDENTIALS: Final = struct.Struct("3i")
_POLL_SECONDS: Final = 0.05

Handler = Callable[[str, Mapping[str, object]], Awaitable[Mapping[str, object]]]


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """One line from the operator."""

    v: int
    command: str
    arguments: dict[str, object]


class Failure(Struct, frozen=True):
    """What went wrong: an exit code, and a text for people."""

    code: int
    text: str


class Response(Struct, frozen=True, omit_defaults=True):
    """One line back: a result, or an error."""

    v: int
    result: dict[str, object] | None = None
    error: Failure | None = None


class FolderLock:
    """Makes this process the one owner of a folder, until the `with` block ends.

    seconds: how long to wait for another owner. Raises StorageError, which names that owner.
    """

    def __init__(self, folder: Path, seconds: float = LOCK_SECONDS) -> None:
        self._folder = folder
        self._seconds = seconds
        self._descriptor = -1

    def __enter__(self) -> Self:
        until = time.monotonic() + self._seconds
        while not self.acquire():
            if time.monotonic() >= until:
                raise self.refusal()
            time.sleep(_POLL_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> bool:
        """Try once, without waiting; return whether the folder is ours now."""
        file = self._folder / LOCK_FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(
                f"{file} cannot be opened: {error.strerror}; is {self._folder} a folder of yours?"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        # The file stays when the lock goes: deleting it would let two processes lock two files.
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def refusal(self) -> StorageError:
        """Say who owns the folder, after `acquire` has failed."""
        return StorageError(
            f"{self._folder} is in use by process {_owner(self._folder)}; "
            "stop it first: two owners of one database would damage it"
        )

    def release(self) -> None:
        """Give the folder up; the system does it too when a process dies."""
        if self._descriptor >= 0:
            os.truncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _owner(folder: Path) -> str:
    try:
        return (folder / LOCK_FILE).read_text(encoding="ascii").strip() or "?"
    except (OSError, UnicodeDecodeError):
        return "?"


# The node's side


async def serve_control(
    folder: Path,
    handler: Handler,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer operators until cancelled. The caller holds the folder's lock.

    handler: gets command and arguments; what it raises of IvorError and PeerError is told to the
    operator. Only processes of our own user, or root, are answered.
    """
    slots = trio.CapacityLimiter(CONNECTIONS_MAX)
    with _listen(folder) as listener:
        await trio.serve_listeners(
            partial(_converse, handler, slots),
            [trio.SocketListener(listener)],
            task_status=task_status,
        )


@contextmanager
def _listen(folder: Path) -> Iterator[trio.socket.SocketType]:
    """Make the socket beside its place and rename it there, over one that a crash left."""
    file, draft = folder / SOCKET_FILE, folder / f"{SOCKET_FILE}.new"
    draft.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _short(folder) as short:
            listener.bind(f"{short}/{draft.name}")
        draft.chmod(0o600)
        listener.listen(CONNECTIONS_MAX)
        draft.rename(file)
        try:
            yield trio.socket.from_stdlib_socket(listener)
        finally:
            file.unlink(missing_ok=True)


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Name a folder in few characters: a socket's path may have 107, however deep the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


async def _converse(
    handler: Handler, slots: trio.CapacityLimiter, stream: trio.SocketStream
) -> None:
    """Answer one request of one process."""
    try:
        async with stream, slots:
            if not _is_owner(stream.socket):
                log.warning("another user's process was refused at the control socket")
                return
            response = await _respond(stream, handler)
            with trio.move_on_after(ANSWER_SECONDS_MAX):
                await stream.send_all(msgspec.json.encode(response) + b"\n")
    except (OSError, trio.BrokenResourceError):
        log.info("an operator's command went away before its answer")


async def _respond(stream: trio.SocketStream, handler: Handler) -> Response:
    try:
        request = await _read_request(stream)
        return Response(1, result=dict(await handler(request.command, request.arguments)))
    except (IvorError, PeerError) as error:
        return Response(1, error=Failure(exit_code(error), str(error)))
    except Exception as error:  # our bug, met by one command: the node goes on
        log.exception("a bug ended a command")
        text = f"the node met a bug, which its log describes: {error!r}"
        return Response(1, error=Failure(StorageError.exit_code, text))


async def _read_request(stream: trio.SocketStream) -> Request:
    line = bytearray()
    with trio.move_on_after(LINE_SECONDS_MAX) as scope:
        while not line.endswith(b"\n"):
            chunk = await stream.receive_some(REQUEST_BYTES_MAX)
            line += chunk
            if not chunk or len(line) > REQUEST_BYTES_MAX:
                raise UserError(f"not one line of at most {REQUEST_BYTES_MAX} bytes")
    if scope.cancelled_caught:
        raise UserError(f"no whole request within {LINE_SECONDS_MAX:.0f} s")
    return decode_request(bytes(line))


def decode_request(line: bytes) -> Request:
    """Read one line from an operator. Raises UserError for anything that is no request."""
    try:
        request = msgspec.json.decode(line, type=Request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"not a request: {error}") from None
    if request.v != 1:
        raise UserError(f"a request of version {request.v}, this node speaks 1")
    return request


def _is_owner(connection: trio.socket.SocketType) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, user, _ = _PEER_CREDENTIALS.unpack(raw)
    return user in {os.geteuid(), 0}


# The command's side


def ask_node(
    folder: Path, command: str, arguments: Mapping[str, object]
) -> Mapping[str, object] | None:
    """Have the node that owns the folder carry out a command; None if no node listens there.

    Raises the IvorError that the node reports, NetworkError if it does not answer in time.
    """
    request = msgspec.json.encode(Request(1, command, dict(arguments))) + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS_MAX)
        try:
            with _short(folder) as short:
                connection.connect(f"{short}/{SOCKET_FILE}")
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        try:
            connection.sendall(request)
            line = _read_line(connection)
        except ConnectionError:
            line = b""
        except OSError as error:
            raise NetworkError(f"the node of {folder} does not answer: {error}") from error
    return _result(line, folder)


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = connection.recv(REQUEST_BYTES_MAX)
        line += chunk
        if not chunk or len(line) > ANSWER_BYTES_MAX:
            break
    return bytes(line)


def _result(line: bytes, folder: Path) -> Mapping[str, object]:
    try:
        response = msgspec.json.decode(line, type=Response)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise NetworkError(
            f"the node of {folder} ended, or refused this user, before it answered"
        ) from None
    if response.error is not None:
        raise reported(response.error.code, response.error.text)
    return response.result or {}
