"""Nodes without their listening sockets, joined by streams in memory: for tests of the driver."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

import trio
import trio.lowlevel
from trio.testing import MemoryReceiveStream, MemorySendStream

from node.database import connect
from node.dealing import greeting_for
from node.driver import Connection
from node.errors import NetworkError
from node.journal import Journal
from node.outgoing import Outgoing
from node.replica import Replica
from node.seals import Sealless
from node.share import Share, Shares
from node.stored import Stored
from node.wire import FrameReader
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import (
    Answer,
    Ask,
    Blob,
    Error,
    Forked,
    Frame,
    Heads,
    Hello,
    Holding,
    Lacking,
    Rumour,
    Seal,
    WantBlob,
    authentic,
    encode_frame,
)
from protocol.limits import (
    FRAME_BYTES_MAX,
)
from protocol.session import PeerKind
from protocol.testing.cast import agency
from protocol.testing.conversations import Conversation

MZ, MVD, LATE = (agency(name).root.public for name in ("mz", "mvd", "late"))
Stream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class Home:
    """A replica with its journal, and what a connection tells it."""

    def __init__(self, path: Path, key: bytes, owner: bytes | None = None) -> None:
        connection = connect(path, None)
        connection.pragma("synchronous", "OFF")
        self.key = key
        self.replica = Replica(connection, key, owner or key)
        self.journal = Journal(connection, self.replica.forget)
        self.shares = Shares()
        self.connections: list[Connection] = []
        self.runs: list[Stored] = []
        self.pushed: list[Stored] = []
        self.forks: list[Forked] = []
        self.noted: list[Holding] = []
        self.lacked: list[tuple[Sealless, bytes]] = []
        self.repeats: list[ChatId] = []
        self.gossip: list[Rumour] = []
        self.answer: Callable[[Ask], Awaitable[Answer]] = self.echo

    def opened(self, connection: Connection) -> None:
        self.connections.append(connection)

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        assert source in self.connections
        self.pushed += parts
        return lambda: self.runs.extend(parts)

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        raise AssertionError((chat, epoch, owners))

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        self.lacked.append((lacked, home))

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        assert readers
        self.forks.append(forked)

    def share(self, key: bytes) -> Share:
        return self.shares.of(key)

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        assert source in self.connections
        self.repeats.append(chat)

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        assert source.key in readers
        self.gossip.append(rumour)

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        assert source in self.connections
        self.noted += holdings

    async def load_chunk(self, want: WantBlob, source: Connection) -> Blob | None:
        raise AssertionError((want, source))

    def took_chunk(self, frame: Blob | Lacking, source: Connection) -> None:
        raise AssertionError((frame, source))

    async def consult(self, connection: Connection, ask: Ask) -> Answer:
        assert connection in self.connections or connection.peer is PeerKind.INVITATION
        return await self.answer(ask)

    async def echo(self, ask: Ask) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(ask.number, 0, ask.body)

    def take(self, talk: Conversation, count: int | None = None) -> None:
        with self.replica.store.connection:
            for run in talk.runs[:count]:
                self.replica.append(run, authentic(run))

    def entries(self, chat: ChatId) -> set[EntryId]:
        stored = self.replica.store.chat(chat)
        return {
            EntryId(row[1])
            for chain in (stored.chains.values() if stored else ())
            for branch in chain
            for row in self.replica.store.rows(chain, branch, 0, branch.length)
        }

    def connection(self, stream: trio.abc.Stream, peer: bytes, kind: PeerKind) -> Connection:
        greeting = greeting_for(self.replica, peer)
        return Connection(stream, kind, peer, greeting, self.replica, self.journal, self)


async def until(done: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds; a test that waits for as long as `seconds` has failed."""
    with trio.fail_after(seconds):
        while not done():  # noqa: ASYNC110 - databases raise no event when they are right
            await trio.sleep(seconds / 2000)


@contextmanager
def names_that_nobody_resolves() -> Iterator[None]:
    """Have every thread that Trio gives wait, as where a line is cut many names do."""
    threads = trio.to_thread.current_default_thread_limiter()
    names = [object() for _ in range(int(threads.available_tokens))]
    for name in names:
        threads.acquire_on_behalf_of_nowait(name)
    yield
    for name in names:
        threads.release_on_behalf_of(name)


def all_of(talk: Conversation) -> set[EntryId]:
    return {authentic(run)[0].id for run in talk.runs}


async def join(nursery: trio.Nursery, one: Home, other: Home) -> tuple[Connection, Connection]:
    """Connect two nodes and return both connections, open."""
    ours, theirs = trio.testing.memory_stream_pair()
    pair = (
        one.connection(ours, other.key, PeerKind.NODE),
        other.connection(theirs, one.key, PeerKind.NODE),
    )
    for connection in pair:
        nursery.start_soon(connection.run)
    await until(lambda: all(connection.open for connection in pair))
    return pair


class Peer:
    """A peer that says whatever a test lets it say, byte by byte."""

    def __init__(
        self, home: Home, nursery: trio.Nursery, kind: PeerKind = PeerKind.NODE, key: bytes = MVD
    ) -> None:
        ours, self.stream = trio.testing.memory_stream_pair()
        self.home = home
        self.connection = home.connection(ours, key, kind)
        self.reader = FrameReader(self.stream, lambda: FRAME_BYTES_MAX)
        self.ended = trio.Event()
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        await self.connection.run()
        self.ended.set()

    async def say(self, *frames: Frame) -> None:
        await self.stream.send_all(b"".join(map(encode_frame, frames)))

    def hello(self) -> Hello:
        """Say that we know whom we speak to: then heads are listed at once."""
        return Hello((1,), bytes(16), self.home.replica.store.incarnation, 0, bytes(16))

    async def greet(self) -> None:
        await self.say(self.hello())
        assert isinstance(await self.hear(), Hello)
        assert isinstance(await self.hear(), Heads)

    async def hear(self) -> Frame | None:
        with trio.fail_after(1000):
            return await self.reader.next()

    async def until(self, kind: type[Frame]) -> Frame | None:
        """Hear everything until a frame of this type."""
        while (frame := await self.hear()) is not None and not isinstance(frame, kind):
            pass
        return frame

    async def end(self) -> PeerError | NetworkError:
        """Hear everything until the end, which is ERR with the failure's code, then nothing."""
        last: Frame | None = None
        while (frame := await self.hear()) is not None:
            last = frame
        await self.ended.wait()
        failure = self.connection.failure
        assert isinstance(failure, PeerError)
        assert last == Error(failure.code, str(failure).encode()[:512])
        assert isinstance(failure, PeerError | NetworkError)
        return failure


HELLO = encode_frame(Hello((1,), bytes(16), None, 0, bytes(16)))
