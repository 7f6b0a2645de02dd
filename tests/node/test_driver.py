"""SPEC 6.1, 6.5: a connection, from bytes to a database and back; and what hostile peers can do."""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock

from node.dealing import Dealing, greeting_for
from node.driver import Connection
from node.errors import NetworkError
from node.journal import Journal
from node.replica import Replica, Stored
from node.share import Share, Shares
from node.store import connect
from node.wire import FrameReader
from protocol.effect import Effect
from protocol.entry import CONTENT, ChatId, DeviceKey, EntryId
from protocol.errors import LimitExceeded, NotCanonical, OutOfTurn, PeerError, Unauthentic
from protocol.fork import encode_proof
from protocol.frame import (
    LENGTH_BYTES,
    Absent,
    Answer,
    Ask,
    Blob,
    Bye,
    Error,
    Forked,
    Frame,
    Graft,
    Have,
    Head,
    Heads,
    Hello,
    Holding,
    IHave,
    Lacking,
    Ping,
    Pong,
    Prune,
    Recon,
    Rumour,
    Run,
    Seal,
    Seen,
    Want,
    WantBlob,
    encode_frame,
)
from protocol.limits import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    FRAME_SECONDS_MAX,
    HELLO_TIMEOUT_SECONDS,
    IDLE_CLOSE_SECONDS,
    QUEUE_FRAMES_MAX,
)
from protocol.session import PeerKind
from protocol.testing.cast import agency
from protocol.testing.chains import opened
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice

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
        self.repeats: list[ChatId] = []
        self.gossip: list[Rumour] = []
        self.answer: Callable[[Ask], Awaitable[Answer]] = self.echo

    def opened(self, connection: Connection) -> None:
        self.connections.append(connection)

    def storing(self, parts: Sequence[Stored], source: Dealing) -> Callable[[], None]:
        assert source in self.connections
        self.pushed += parts
        return lambda: self.runs.extend(parts)

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        raise AssertionError((chat, epoch, owners))

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        assert readers
        self.forks.append(forked)

    def share(self, key: bytes) -> Share:
        return self.shares.of(key)

    def repeated(self, chat: ChatId, source: Dealing) -> None:
        assert source in self.connections
        self.repeats.append(chat)

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Dealing) -> None:
        assert source.key in readers
        self.gossip.append(rumour)

    def holdings_noted(self, holdings: Sequence[Holding], source: Dealing) -> None:
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
                self.replica.append(run, opened(run))

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


@pytest.fixture
async def homes(tmp_path: Path, nursery: trio.Nursery) -> tuple[Home, Home]:
    made = Home(tmp_path / "mz.db", MZ), Home(tmp_path / "mvd.db", MVD)
    for home in made:
        nursery.start_soon(home.journal.run)
    return made


async def until(done: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds; a test that waits for as long as `seconds` has failed."""
    with trio.fail_after(seconds):
        while not done():  # noqa: ASYNC110 - databases raise no event when they are right
            await trio.sleep(seconds / 2000)


def all_of(talk: Conversation) -> set[EntryId]:
    return {opened(run)[0].id for run in talk.runs}


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


class TestTwoNodes:
    async def test_they_end_equal(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        talk = conversation(Dice(5), 60)
        one, other = homes
        one.take(talk)
        other.take(talk, 20)
        pair = await join(nursery, one, other)
        await until(lambda: all(connection.caught_up for connection in pair))
        await until(lambda: other.entries(talk.chat) == all_of(talk))
        assert all(connection.failure is None for connection in pair)
        await until(lambda: len(one.noted) > 0)
        assert all(holding.agency == MVD for holding in one.noted)
        pair[0].close()
        await until(lambda: not any(connection.open for connection in pair))
        assert pair[1].failure is None

    async def test_from_nothing(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """A chat that is new to a node, whole conversations that answer each other."""
        talk = conversation(Dice(1), 0)
        for number in range(200):
            talk.say(talk.people[number % 2], b"%d" % number)
        homes[0].take(talk)
        pair = await join(nursery, *homes)
        await until(lambda: homes[1].entries(talk.chat) == all_of(talk))
        assert not any(connection.failure for connection in pair)

    async def test_restored(
        self, homes: tuple[Home, Home], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One has lost its cursors: they reconcile, a few heads are listed, cursors are kept."""
        talk = conversation(Dice(5), 60)
        homes[0].take(talk)
        homes[1].take(talk, len(talk.runs) - 3)
        sent: list[Frame] = []
        send = Connection.send

        def sending(connection: Connection, frame: Frame) -> None:
            sent.append(frame)
            send(connection, frame)

        monkeypatch.setattr(Connection, "send", sending)
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        assert homes[1].entries(talk.chat) == all_of(talk)
        assert any(isinstance(frame, Recon) for frame in sent)
        pages = [frame for frame in sent if isinstance(frame, Heads)]
        assert 1 <= sum(len(item.heads) for page in pages for item in page.chats) <= 6
        pair[0].close()
        await until(lambda: not any(connection.open for connection in pair))
        sent.clear()
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        assert not any(isinstance(frame, Recon) for frame in sent)
        assert {
            homes[0].replica.sharing.cursor(MVD)[0],
            homes[1].replica.sharing.cursor(MZ)[0],
        } == {home.replica.store.incarnation for home in homes}

    async def test_push(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """What is pushed is stored, handed on and acknowledged, in the order of pushing."""
        talk = conversation(Dice(5), 30)
        for home in homes:
            home.take(talk, 10)
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        homes[0].take(talk)
        for run in talk.runs[10:]:
            pair[0].push(encode_frame(run))
        await until(lambda: len(homes[1].runs) == len(talk.runs) - 10)
        assert homes[1].entries(talk.chat) == all_of(talk)
        assert [one.run.start for one in homes[1].runs] == [run.start for run in talk.runs[10:]]
        newest = {(run.device, run.lane): run.start for run in talk.runs[10:]}
        await until(
            lambda: {(h.device, h.lane): h.seq for h in homes[0].noted}.items() >= newest.items()
        )

    async def test_one_commit_for_many(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Runs that become durable at once are handed on in the order in which they came."""
        talk = conversation(Dice(5), 30, epochs=10**9)
        homes[1].take(talk, 10)
        peer = Peer(homes[1], nursery, key=MZ)
        await peer.greet()
        await peer.say(talk.runs[10])
        await until(lambda: len(homes[1].runs) == 1)
        async with homes[1].journal._lock:
            await peer.say(*talk.runs[11:])
            await trio.testing.wait_all_tasks_blocked(0.01)
        await until(lambda: len(homes[1].runs) == len(talk.runs) - 10)
        assert homes[1].entries(talk.chat) == all_of(talk)
        starts = [(one.run.device, one.run.start) for one in homes[1].runs]
        assert starts == [(run.device, run.start) for run in talk.runs[10:]]

    async def test_pushed_on_before_it_is_durable_but_acknowledged_after(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """SPEC 6.5: what the disk still works on is handed on; what it refuses is never told of."""
        talk = conversation(Dice(5), 12, epochs=10**9)
        home = homes[1]
        home.take(talk, 10)
        peer = Peer(home, nursery, key=MZ)
        await peer.greet()
        seen: list[tuple[int, int]] = []

        def commit() -> bool:
            seen.append((len(home.pushed), len(home.runs)))
            return len(seen) == 1  # the disk refuses the first

        home.replica.store.connection.set_commit_hook(commit)
        await peer.say(talk.runs[10])
        while (frame := await peer.hear()) is not None:
            assert not isinstance(frame, Have)
        await peer.ended.wait()
        assert (seen, home.runs) == ([(1, 0)], [])
        assert len(home.entries(talk.chat)) == 10
        again = Peer(home, nursery, key=MZ)
        await again.greet()
        await again.say(*talk.runs[10:])
        while not isinstance(frame, Have):
            frame = await again.hear()
        assert seen[1][1] == 0 < len(home.runs)
        assert frame.holdings[0].seq == talk.runs[10].start

    async def test_forks(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """I5: the proof reaches whoever hands it on, at both ends."""
        talk = conversation(Dice(3), 30, epochs=10**9)
        who = talk.people[0]
        branch = talk.fork(who, 1, 2)
        for home in homes:
            home.take(talk)
        with homes[1].replica.store.connection:
            homes[1].replica.append(branch.run(), opened(branch.run()))
        pair = await join(nursery, *homes)
        await until(lambda: len(homes[0].entries(talk.chat)) == len(talk.runs) + 2)
        await until(lambda: len(homes[0].forks) == 1)
        chain = talk.chain(who, CONTENT)
        proof = encode_proof(chain.cover(1), branch.cover(1))
        pair[0].send(Forked(talk.chat, proof))
        pair[0].send(Ping())
        await until(lambda: homes[1].entries(talk.chat) == homes[0].entries(talk.chat))
        assert not any(connection.failure for connection in pair)

    async def test_questions(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """Many at once, answered in any order, each to whom it belongs."""

        async def slowly(ask: Ask) -> Answer:
            await trio.sleep(0.001 * (ask.body[0] % 3))
            return Answer(ask.number, 0, ask.body)

        homes[1].answer = slowly
        pair = await join(nursery, *homes)
        answers: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answers[number] = (await pair[0].ask(1, bytes([number]))).body

        async with trio.open_nursery() as askers:
            for number in range(40):
                askers.start_soon(ask, number)
        assert answers == {number: bytes([number]) for number in range(40)}

    async def test_no_answer(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """I20: whoever asked is told when the connection ends."""

        async def never(_ask: Ask) -> Answer:
            return await trio.sleep_forever()

        homes[1].answer = never
        pair = await join(nursery, *homes)
        ended = trio.Event()

        async def ask() -> None:
            with pytest.raises(NetworkError):
                await pair[0].ask(1, b"")
            ended.set()

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.01)
        pair[1].close()
        with trio.fail_after(10):
            await ended.wait()


class TestGossip:
    """SPEC 6.5: what a node says about the spread of a chat."""

    async def test_announcements(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """Only what is lacking is news."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk, len(talk.runs) - 1)
        heads = tuple(head_of(run) for run in talk.runs[-3:])
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(IHave(talk.chat, heads), Prune(talk.chat))
        await until(lambda: len(homes[0].gossip) == 2)
        assert homes[0].gossip == [IHave(talk.chat, heads[-1:]), Prune(talk.chat)]
        await peer.say(IHave(talk.chat, heads[:2]), Ping())
        assert isinstance(await peer.until(Pong), Pong)
        assert len(homes[0].gossip) == 2

    async def test_a_graft_is_served(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        graft = Graft(talk.chat, head_of(talk.runs[-1]))
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(graft)
        run = await peer.until(Run)
        assert isinstance(run, Run)
        assert (run.device, run.start) == (graft.head.device, graft.head.seq)
        assert homes[0].gossip == [graft]

    async def test_strangers(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """Case 48: they hear nothing, and what they say is nothing."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        head = head_of(talk.runs[-1])
        peer = Peer(homes[0], nursery, key=LATE)
        await peer.greet()
        await peer.say(Graft(talk.chat, head), IHave(talk.chat, (head,)), Prune(talk.chat))
        await peer.until(Absent)
        await peer.say(Ping())
        await peer.until(Pong)
        assert not homes[0].gossip

    async def test_not_of_devices(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        peer = Peer(homes[0], nursery, PeerKind.DEVICE, b"d" * 32)
        await peer.greet()
        await peer.say(Prune(ChatId(bytes(32))))
        assert isinstance(await peer.end(), OutOfTurn)

    async def test_what_was_here(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """A push that brings nothing new is told of, what was asked for is not."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(talk.runs[-1])
        await until(lambda: homes[0].repeats == [talk.chat])
        assert not homes[0].runs


def head_of(run: Run) -> Head:
    return Head(run.device, run.lane, run.start, opened(run)[0].id[:8])


class TestForgotten:
    @pytest.mark.parametrize("forgotten", [False, True])
    async def test_no_cursor_passes_what_was_forgotten(
        self,
        tmp_path: Path,
        nursery: trio.Nursery,
        forgotten: bool,  # noqa: FBT001 - the case
    ) -> None:
        """A failed transaction drops chats not stored yet: their heads must be told again."""
        talk = conversation(Dice(5), 5)
        home = Home(tmp_path / "late.db", LATE)
        nursery.start_soon(home.journal.run)
        peer = Peer(home, nursery)
        await peer.greet()
        await peer.say(talk.runs[0], Ping())
        while not isinstance(await peer.hear(), Pong):
            pass
        await until(lambda: bool(home.replica._candidates))
        if forgotten:
            home.replica.forget()
        await peer.say(Heads(7, 1, ()))
        while not isinstance(await peer.hear(), Seen):
            pass
        _, cursor = home.replica.sharing.cursor(MVD)
        assert cursor == (0 if forgotten else 7)


class TestAccess:
    async def test_one_answer_for_both(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Cases 42 and 48: what a stranger may not see is answered as what does not exist."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        chain = talk.chain(talk.people[0], CONTENT)
        prefix = chain.entries[0].id[:8]
        for key, kind in ((LATE, PeerKind.NODE), (b"d" * 32, PeerKind.DEVICE)):
            peer = Peer(homes[0], nursery, kind, key)
            await peer.say(peer.hello())
            await peer.hear()
            heads = await peer.hear()
            assert isinstance(heads, Heads)
            assert not heads.chats
            await peer.say(Want(talk.chat, chain.device, CONTENT, prefix, 0, 1))
            assert await peer.hear() == Absent(talk.chat, chain.device, CONTENT, 0)
            unknown = ChatId(bytes(32))
            await peer.say(Want(unknown, chain.device, CONTENT, prefix, 0, 1))
            assert await peer.hear() == Absent(unknown, chain.device, CONTENT, 0)
            await peer.say(Bye())
            await peer.ended.wait()
            assert peer.connection.failure is None

    async def test_a_stranger_brings_nothing(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """I11: a chat takes entries from its members' agencies only."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk, 10)
        peer = Peer(homes[0], nursery, key=LATE)
        await peer.say(Hello((1,), bytes(16), None, 0, bytes(16)), *talk.runs, Ping())
        while not isinstance(await peer.hear(), Pong):
            pass
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(homes[0].entries(talk.chat)) == 10
        assert not homes[0].runs
        assert peer.connection.open


HELLO = encode_frame(Hello((1,), bytes(16), None, 0, bytes(16)))


class TestHostileBytes:
    @pytest.mark.parametrize(
        ("raw", "error"),
        [
            (b"\xff\xff\xff\xff", LimitExceeded),
            (b"\x00\x00\x00\x00", LimitExceeded),
            ((FRAME_BYTES_MAX_BEFORE_HELLO + 1).to_bytes(4), LimitExceeded),
            (HELLO + (FRAME_BYTES_MAX + 1).to_bytes(4), LimitExceeded),
            (b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff", NotCanonical),
            (HELLO + b"\x00\x00\x00\x01\xc0", NotCanonical),
            (HELLO + b"\x00\x00\x00\x02\x91\x63", NotCanonical),
            (encode_frame(Ping()), OutOfTurn),
            (HELLO + HELLO, OutOfTurn),
            (encode_frame(Hello((9,), bytes(16), None, 0, bytes(16))), OutOfTurn),
        ],
    )  # fmt: skip
    async def test_refused(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        raw: bytes,
        error: type[PeerError],
    ) -> None:
        """Cases 1, 2, 4, 7, 11: ERR with a code, then the end; nothing more is read (case 12)."""
        peer = Peer(homes[0], nursery)
        await peer.stream.send_all(raw + encode_frame(Ping()))
        assert isinstance(await peer.end(), error)

    @pytest.mark.parametrize("cut", [0, 2, LENGTH_BYTES, LENGTH_BYTES + 3])
    async def test_cut_off(self, homes: tuple[Home, Home], nursery: trio.Nursery, cut: int) -> None:
        """Case 37: a connection may end anywhere; it is no failure of ours."""
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.stream.send_all(encode_frame(Seen(5))[:cut])
        await peer.stream.send_stream.aclose()
        with trio.fail_after(10):
            await peer.ended.wait()
        assert not isinstance(peer.connection.failure, PeerError)

    async def test_in_pieces(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        peer = Peer(homes[0], nursery)
        for byte in HELLO + encode_frame(Ping()):
            await peer.stream.send_all(bytes([byte]))
        while not isinstance(await peer.hear(), Pong):
            pass

    async def test_a_forged_run(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """The whole session ends, and what came before is kept."""
        talk = conversation(Dice(5), 5)
        peer = Peer(homes[0], nursery)
        forged = talk.runs[-1]
        bad = Run(
            forged.chat, forged.device, forged.lane, forged.start, forged.prev, forged.context,
            forged.records, ((0, bytes(64)),),
        )  # fmt: skip
        await peer.say(Hello((1,), bytes(16), None, 0, bytes(16)), *talk.runs[:-1], bad)
        assert isinstance(await peer.end(), Unauthentic)

    async def test_a_bug_of_ours(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It ends that session and no other."""

        def buggy(*_: object) -> list[Effect]:
            raise RuntimeError("bug")

        other = Peer(homes[0], nursery)
        await other.greet()
        peer = Peer(homes[0], nursery)
        await peer.greet()
        monkeypatch.setattr(peer.connection._session, "receive", buggy)
        await peer.say(Ping())
        with trio.fail_after(10):
            await peer.ended.wait()
        assert isinstance(peer.connection.failure, RuntimeError)
        await other.say(Ping())
        assert isinstance(await other.hear(), Pong)


class Clogged(trio.abc.Stream):
    """A stream that brings what is sent, and takes nothing."""

    def __init__(self, receive: MemoryReceiveStream) -> None:
        self._receive = receive

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._receive.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        del data
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await self._receive.aclose()


class TestTime:
    """On a clock that jumps."""

    async def test_silence(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        autojump_clock: MockClock,  # noqa: ARG002 - jumps over the deadline
    ) -> None:
        """Case 3: nobody is waited for without end."""
        began = trio.current_time()
        peer = Peer(homes[0], nursery)
        assert isinstance(await peer.end(), OutOfTurn)
        assert trio.current_time() - began == pytest.approx(HELLO_TIMEOUT_SECONDS, abs=1)

    async def test_a_byte_every_ten_seconds(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        autojump_clock: MockClock,  # noqa: ARG002 - jumps over the deadline
    ) -> None:
        """Case 3: a frame that has begun must end."""
        peer = Peer(homes[0], nursery)
        await peer.greet()
        began = trio.current_time()

        async def drip() -> None:
            for byte in encode_frame(Seen(5)):
                await peer.stream.send_all(bytes([byte]))
                await trio.sleep(10)

        with trio.CancelScope() as dripping:
            async with trio.open_nursery() as inner:
                inner.start_soon(drip)
                assert isinstance(await peer.end(), OutOfTurn)
                dripping.cancel()
        assert trio.current_time() - began == pytest.approx(FRAME_SECONDS_MAX, abs=1)

    async def test_pings(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        autojump_clock: MockClock,  # noqa: ARG002 - jumps over the deadline
    ) -> None:
        """A silent peer is asked, then left; one that answers stays."""
        peer, quiet = Peer(homes[0], nursery), Peer(homes[0], nursery, key=LATE)
        for one in (peer, quiet):
            await one.greet()
        began = trio.current_time()
        while trio.current_time() - began < 2 * IDLE_CLOSE_SECONDS:
            assert isinstance(await peer.hear(), Ping)
            await peer.say(Pong())
        assert isinstance(await quiet.end(), OutOfTurn)
        assert peer.connection.open

    @pytest.mark.parametrize("pings", [1, 0])
    async def test_a_peer_that_never_reads(
        self,
        pings: int,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        autojump_clock: MockClock,  # noqa: ARG002 - jumps over the deadline
    ) -> None:
        """Case 13: what waits for it is bounded, then it is left."""
        send, receive = trio.testing.memory_stream_one_way_pair()
        connection = homes[0].connection(Clogged(receive), MVD, PeerKind.NODE)
        nursery.start_soon(connection.run)
        count = pings or 10 * QUEUE_FRAMES_MAX
        await send.send_all(HELLO + encode_frame(Ping()) * count)
        await until(lambda: connection.failure is not None, 1000)
        assert isinstance(connection.failure, NetworkError)
        assert len(connection._queue) <= 4 * QUEUE_FRAMES_MAX


class TestInvitation:
    async def test_only_questions(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        peer = Peer(homes[0], nursery, PeerKind.INVITATION, b"t" * 16)
        await peer.say(Ask(7, 1, b"body"))
        assert await peer.hear() == Answer(7, 0, b"body")
        await peer.say(Have(()))
        assert isinstance(await peer.end(), OutOfTurn)


async def test_many_connections(homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
    """Case 37: connecting and disconnecting leaves nothing behind."""
    before = len(nursery.child_tasks)
    for number in range(50):
        peer = Peer(homes[0], nursery)
        if number % 2:
            await peer.greet()
        await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(10):
            await peer.ended.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert len(nursery.child_tasks) == before
