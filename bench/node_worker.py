"""A node in a process of its own, which reports to its parent: FOLDER PORT [ENTRIES].

Events: `ready`; `held` when a peer's connection begins; `done` when ENTRIES were stored by that
connection, durably; `settled` when all that the peer listed is stored; `swept` when it was looked
through what has aged.
"""

import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import trio

from bench import slow_disk
from bench.federation import NODE_FILE, PASSPHRASE
from bench.processes import memory_mib, tell
from node.agency import Agency, open_agency
from node.capacity import collect_rarely
from node.config import Settings
from node.control import FolderLock
from node.database import connect
from node.driver import Connection
from node.logs import open_log
from node.outgoing import Outgoing
from node.service import Node
from node.stored import Stored
from node.sweep import Sweep
from protocol.session import PeerKind

TCP_INFO_BYTES = 256
TCP_INFO_RECEIVED_AT = 128  # tcpi_bytes_received, u64: linux/tcp.h
TCP_INFO_SENT_AT = 200  # tcpi_bytes_sent, u64
SETTLE_POLL_SECONDS = 0.0005


def wire_bytes(stream: trio.SSLStream[trio.SocketStream]) -> tuple[int, int]:
    """Return what a connection's socket has sent and received, TLS included."""
    found = stream.transport_stream.socket.getsockopt(
        socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES
    )
    (received,) = struct.unpack_from("<Q", found, TCP_INFO_RECEIVED_AT)
    (sent,) = struct.unpack_from("<Q", found, TCP_INFO_SENT_AT)
    return int(sent), int(received)


class Timed(Sweep):
    """A sweep that says how long it took."""

    async def drop_aged(self) -> None:
        """Say when the sweep is over which every start begins."""
        begun = time.monotonic()
        await super().drop_aged()
        tell("swept", seconds=time.monotonic() - begun)


class MeasuredNode(Node):
    """A node that tells its parent how a connection goes."""

    def __init__(
        self, agency: Agency, settings: Settings, connection: apsw.Connection, expected: int
    ) -> None:
        super().__init__(agency, settings, connection)
        self._expected = expected
        self._appended = 0
        self._transactions = 0
        self._begun = 0.0
        self._before = (0, 0)
        self._stream: trio.SSLStream[trio.SocketStream] | None = None
        self.sweep = Timed(self.replica, self.journal, self.larder, self.hub)
        connection.set_commit_hook(self._committed)
        slow_disk.delay(connection)

    def _committed(self) -> bool:
        self._transactions += 1
        return False

    async def hold(self, stream: trio.abc.Stream, kind: PeerKind, key: bytes) -> Exception | None:
        """Run a session, and note its socket if it is another node's."""
        if kind is PeerKind.NODE and isinstance(stream, trio.SSLStream):
            self._stream = stream
            self._begun = time.monotonic()
            self._before = wire_bytes(stream)
            self._transactions = 0
            tell("held", cpu=time.process_time())
        return await super().hold(stream, kind, key)

    def opened(self, connection: Connection) -> None:
        """Watch for the moment at which nothing is left to be had."""
        super().opened(connection)
        if connection.peer is PeerKind.NODE:
            self._nursery.start_soon(self._watch, connection)

    async def _watch(self, connection: Connection) -> None:
        while not connection.caught_up and connection.failure is None:  # noqa: ASYNC110 - no event says it
            await trio.sleep(SETTLE_POLL_SECONDS)
        self._report("settled")

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Count what becomes durable."""
        durable = super().storing(parts, source)
        appended = sum(stored.appended for stored in parts)

        def count() -> None:
            durable()
            before = self._appended
            self._appended += appended
            if before < self._expected <= self._appended:
                self._report("done")

        return count

    def _report(self, event: str) -> None:
        if self._stream is None:
            return
        sent, received = wire_bytes(self._stream)
        tell(
            event,
            seconds=time.monotonic() - self._begun,
            cpu=time.process_time(),
            sent=sent - self._before[0],
            received=received - self._before[1],
            transactions=self._transactions,
            appended=self._appended,
            peak_mib=memory_mib("VmHWM"),
        )


async def main(folder: Path, port: int, expected: int) -> None:
    """Run the node until SIGTERM."""
    collect_rarely()
    open_log(sys.stderr, "text", "warning")
    agency = open_agency(folder, PASSPHRASE)
    settings = Settings(listen=f"127.0.0.1:{port}", allow_local=True)
    with FolderLock(folder):
        connection = connect(folder / NODE_FILE, None)
        try:
            node = MeasuredNode(agency, settings, connection, expected)
            await node.run(lambda host, bound: tell("ready", host=host, port=bound))
        finally:
            connection.close()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int((*sys.argv, "0")[3]))
