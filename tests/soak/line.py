"""The line to a node, which can be cut: OUTER INNER, two ports of the loopback interface.

Tells `ready`. After `cut` on stdin nothing passes, either way, and nobody is told so; new
connections are taken and hear nothing. After `drop` all connections end besides. `heal` lets what
waits through.
"""

import os
import sys
from dataclasses import dataclass, field

import trio

from bench.processes import tell

CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class Line:
    """Whether bytes pass, and what ends the connections over it."""

    whole: trio.Event = field(default_factory=trio.Event)
    connections: set[trio.CancelScope] = field(default_factory=set)

    def obey(self, command: str) -> None:
        """Cut, drop or heal."""
        if command == "heal":
            self.whole.set()
        elif self.whole.is_set():
            self.whole = trio.Event()
        if command == "drop":
            for connection in self.connections:
                connection.cancel()


async def carry(line: Line, inner: int, near: trio.SocketStream) -> None:
    """Pass one connection on, until either end closes it."""
    try:
        async with near, await trio.open_tcp_stream("127.0.0.1", inner) as far:
            async with trio.open_nursery() as nursery:
                line.connections.add(nursery.cancel_scope)
                nursery.start_soon(one_way, line, near, far, nursery.cancel_scope)
                nursery.start_soon(one_way, line, far, near, nursery.cancel_scope)
            line.connections.discard(nursery.cancel_scope)
    except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # one side went away: so does the other


async def one_way(
    line: Line, take: trio.SocketStream, give: trio.SocketStream, both: trio.CancelScope
) -> None:
    """Pass bytes on while the line is whole; the end of them is the end of both ways."""
    while chunk := await take.receive_some(CHUNK_BYTES):
        await line.whole.wait()
        await give.send_all(chunk)
    both.cancel()


async def main(outer: int, inner: int) -> None:
    """Serve until stdin ends."""
    line = Line()
    line.whole.set()
    async with trio.open_nursery() as nursery:

        async def one(stream: trio.SocketStream) -> None:
            await carry(line, inner, stream)

        async def serve() -> None:
            await trio.serve_tcp(one, outer, host="127.0.0.1")

        nursery.start_soon(serve)
        tell("ready")
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for command in raw.decode().split():
                line.obey(command)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
