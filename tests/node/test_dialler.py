"""What a node does with somebody whom it has dialled, before they have shaken hands (SPEC 6.1)."""

import socket
import struct
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from node import dialler
from node.config import Settings
from node.dialler import Caller
from node.errors import NetworkError

AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: the connection is reset


async def connected() -> tuple[trio.SocketStream, socket.socket]:
    """A stream to somebody on this machine, and their end of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await trio.open_tcp_stream(*server.getsockname())
        return stream, server.accept()[0]


async def reset(stream: trio.SocketStream, theirs: socket.socket) -> None:
    """Have the other end hang up at once, and wait until that has come."""
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    theirs.close()
    for _ in range(10_000):
        try:
            stream.socket.getpeername()
        except OSError:
            return
        await trio.sleep(0.001)


def dialled(monkeypatch: pytest.MonkeyPatch, stream: trio.SocketStream) -> Caller:
    """Who dials, and always gets this stream."""

    async def connect(*_: object) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        return stream

    monkeypatch.setattr(dialler, "connect", connect)
    return cast("Caller", SimpleNamespace(settings=Settings()))


async def test_whoever_hangs_up_at_once_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, theirs = await connected()
    caller = dialled(monkeypatch, stream)
    await reset(stream, theirs)
    with pytest.raises(OSError, match="not connected"):
        await dialler._connect(caller, "peer.example:1")
    assert stream.socket.fileno() == -1


async def test_nor_does_an_address_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, theirs = await connected()
    with pytest.raises(NetworkError, match="allow_local"):
        await dialler._connect(dialled(monkeypatch, stream), "peer.example:1")
    assert stream.socket.fileno() == -1
    theirs.close()
