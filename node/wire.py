"""Frames over a byte stream: read one whole and bounded, or not at all (SPEC 6.1)."""

import socket
from collections.abc import Callable

import trio

from protocol.errors import OutOfTurn
from protocol.frame import LENGTH_BYTES, Frame, decode_frame, frame_length
from protocol.limits import FRAME_SECONDS_MAX
from protocol.name import split_endpoint

CHUNK_BYTES = 256 * 1024
CONNECT_SECONDS_MAX = 5.0  # for TCP alone: then the next address is tried
TLS_SECONDS_MAX = 15.0  # for TLS: a node that has just started answers one after the other
KEEP_ALIVE = (  # a dead line is noticed after 90 s of silence, without waking us (SPEC 6.1)
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


async def connect(endpoint: str, source: str | None = None) -> trio.SocketStream:
    """Connect to host:port, from an address of this machine or any.

    Raises OSError, or TooSlowError for an address where nobody answers.
    """
    host, port = split_endpoint(endpoint)
    with trio.fail_after(CONNECT_SECONDS_MAX):
        try:
            transport = await trio.open_tcp_stream(host, port, local_address=source)
        except UnicodeError as error:  # a part of the name is empty, or over 63 characters
            raise OSError(f"{host} is no host name: {error}") from None
    keep_alive(transport)
    return transport


def keep_alive(transport: trio.SocketStream) -> None:
    """Have the system look whether the other side is still there."""
    for level, option, value in KEEP_ALIVE:
        transport.socket.setsockopt(level, option, value)


class FrameReader:
    """Reads frames from a stream.

    bytes_max: asked before each frame, because the limit is lower before HELLO.
    """

    def __init__(self, stream: trio.abc.ReceiveStream, bytes_max: Callable[[], int]) -> None:
        self._stream = stream
        self._bytes_max = bytes_max
        self._buffer = bytearray()

    async def next(self) -> Frame | None:
        """Return the next frame, None at the end of the stream. Raises as `body`, NotCanonical."""
        body = await self.body()
        return None if body is None else decode_frame(body)

    async def body(self) -> bytes | None:
        """Return the next frame's body, which `decode_frame` takes; None at the end of the stream.

        Raises LimitExceeded, or OutOfTurn for a frame that takes too long to come once it has
        begun.
        """
        if not self._buffer and not await self._more():
            return None
        with trio.move_on_after(FRAME_SECONDS_MAX):
            while len(self._buffer) < LENGTH_BYTES:
                if not await self._more():
                    return None
            length = frame_length(bytes(self._buffer[:LENGTH_BYTES]), self._bytes_max())
            while len(self._buffer) < LENGTH_BYTES + length:
                if not await self._more():
                    return None
            body = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + length])
            del self._buffer[: LENGTH_BYTES + length]
            return body
        raise OutOfTurn(f"a frame took over {FRAME_SECONDS_MAX:.0f} s (SPEC 6.1)")

    async def _more(self) -> bool:
        chunk = await self._stream.receive_some(CHUNK_BYTES)
        self._buffer += chunk
        return bool(chunk)
