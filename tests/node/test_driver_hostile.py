"""SPEC 6.2, 6.6: who may connect, bytes that no peer should send, peers that are slow or silent."""

from functools import partial
from math import ceil

import pytest
import trio
import trio.lowlevel
from trio.testing import MemoryReceiveStream, MockClock

from node.dealing import SEALS_AWAITED_MAX
from node.errors import NetworkError
from node.step import Keep, Kept, Steps, Store
from protocol.effect import Effect
from protocol.entry import CONTENT, ChatId, DeviceKey, EntryId
from protocol.errors import LimitExceeded, NotCanonical, OutOfTurn, PeerError, Unauthentic
from protocol.frame import (
    LENGTH_BYTES,
    Absent,
    Answer,
    Ask,
    Bye,
    Have,
    Heads,
    Hello,
    Ping,
    Pong,
    Run,
    Seen,
    Want,
    WantSeals,
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
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.homes import HELLO, LATE, MVD, Home, Peer, until

PIECE = 0.0625


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
        with trio.fail_after(60):
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
        with trio.fail_after(60):
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
        with trio.fail_after(60):
            await peer.ended.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert len(nursery.child_tasks) == before


class TestShared:
    """What the sessions of one peer share (SPEC 6.6)."""

    async def test_a_session_that_ends_gives_its_slots_back(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Whatever it was about: else another session of the peer waits for them for ever."""
        home = homes[0]
        share = home.share(MVD)
        for _ in range(9):
            peer = Peer(home, nursery)
            await peer.greet()
            one = peer.connection
            one._start(partial(one._store, Kept))
            await trio.lowlevel.checkpoint()
            one.close()
            await peer.ended.wait()
            assert share.runs.borrowed_tokens == 0

    @pytest.mark.parametrize("step", [Keep, Store])
    async def test_what_follows_a_write_is_at_its_expense(
        self, homes: tuple[Home, Home], nursery: trio.Nursery, step: type[Keep | Store]
    ) -> None:
        """Runs that are held are tried again by what a run leaves for its session."""
        home = homes[0]
        peer = Peer(home, nursery)
        await peer.greet()
        share = home.share(MVD)
        now = [ceil(share._next) + 1.0]
        home.shares.clock = lambda: now[0]
        followed = trio.Event()

        def then() -> Steps:
            now[0] += PIECE
            followed.set()
            return ()

        one = peer.connection
        one._start(partial(one._take, step(lambda: Kept(then=then))))
        with trio.fail_after(60):
            await followed.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert share._next == now[0] + PIECE

    async def test_more_seals_than_a_peer_remembers(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
        autojump_clock: MockClock,  # noqa: ARG002 - jumps over what is waited
    ) -> None:
        """Of what is asked for beyond that nothing is served: so it is given the time to serve."""
        monkeypatch.setattr("node.seals.SEALS_ASKED_MAX", 7)
        monkeypatch.setattr("node.dealing.SEALS_ASKED_SECOND", 1)
        talk = conversation(Dice(5), 0)
        for _ in range(4):
            talk.start_epoch(talk.people[0])
        homes[0].take(talk)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        begun = trio.current_time()
        asked: list[EntryId] = []
        pages: set[float] = set()
        while len(asked) < 5:
            frame = await peer.hear()
            if isinstance(frame, WantSeals):
                assert len(frame.devices) == 3
                asked.append(frame.epoch)
                pages.add(trio.current_time() - begun)
        assert asked == talk.epochs[::-1]
        assert pages == {0, 6, 12}
        peer.connection.ask_for_seals()
        frame = await peer.until(WantSeals)
        assert isinstance(frame, WantSeals)
        assert frame.epoch == talk.epochs[-1]

    async def test_seals_that_never_come(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """They take no place from those that were asked for later; nor do those that were sent."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        devices = tuple(DeviceKey(bytes([number]) * 32) for number in range(64))
        epochs = [EntryId(number.to_bytes(32, "big")) for number in range(70)]
        for epoch in epochs:
            await peer.say(WantSeals(talk.chat, epoch, devices), Ping())
            while not isinstance(await peer.hear(), Pong):
                pass
        awaited = peer.connection._seals_awaited
        await until(lambda: epochs[-1] in awaited)
        assert list(awaited) == epochs[-SEALS_AWAITED_MAX // 64 :]
