"""SPEC 6.6: what one peer may cost the others. Work takes the time that the test says."""

import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node import abroad, service
from node.driver import Connection
from node.share import BURST_SECONDS, MEMORY_SECONDS, PIECE_SECONDS_MAX, Shares
from protocol.frame import Answer, Holding
from protocol.topic import Topic

PIECE = 0.03125
SMALL = 0.0009765625


@dataclass
class Clock:
    worked: float = 1000.0

    def __call__(self) -> float:
        return self.worked + trio.current_time()


class Fails(Exception):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock) -> Shares:
    return Shares(clock)


async def work(
    shares: Shares, clock: Clock, peer: bytes, pieces: int = 1, seconds: float = PIECE
) -> float:
    """Do pieces of work for a peer, of so many seconds; return how long they had to wait in all."""

    def piece() -> None:
        clock.worked += seconds

    share = shares.of(peer)
    waited = 0.0
    for _ in range(pieces):
        begun = trio.current_time()
        async with share.turn():
            share.charged(piece)()
        waited += trio.current_time() - begun
    return waited


async def test_alone_nobody_waits(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    assert await work(shares, clock, b"one", 9) == 0


async def test_beside_others_as_long_as_it_took(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    share = shares.of(b"greedy")
    await work(shares, clock, b"other")
    assert await work(shares, clock, b"greedy") == 0
    assert await work(shares, clock, b"greedy") == PIECE
    assert await work(shares, clock, b"other") == 0, "who asked for little does not wait"
    clock.worked += 2 * PIECE
    assert await work(shares, clock, b"greedy") == 0, "it has waited in the meantime"
    assert share is shares.of(b"greedy")


async def test_small_pieces_get_half_too(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    """However finely work is cut, what is beyond a burst is waited for."""
    held = shares.of(b"greedy"), shares.of(b"other")
    waited = 0.0
    for _ in range(64):
        await work(shares, clock, b"other", 1, SMALL)
        waited += await work(shares, clock, b"greedy", 8, SMALL)
    beside_others = 64 * SMALL
    assert 64 * 8 * SMALL - BURST_SECONDS - beside_others - 8 * SMALL <= waited
    assert waited <= 64 * 8 * SMALL
    del held


async def test_a_little_at_a_time_never_waits(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    """Live messages of two peers: nobody is near half, so nobody waits."""
    held = shares.of(b"one"), shares.of(b"other")
    for _ in range(64):
        assert await work(shares, clock, b"one", 4, SMALL) == 0
        assert await work(shares, clock, b"other", 4, SMALL) == 0
        await trio.sleep(8 * SMALL)
    del held


async def test_others_are_soon_forgotten(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    share = shares.of(b"greedy")
    await work(shares, clock, b"other")
    waits = int(MEMORY_SECONDS / (2 * PIECE))
    assert await work(shares, clock, b"greedy", waits + 1) == waits * PIECE
    assert await work(shares, clock, b"greedy", 5) == 0
    del share


async def test_nobody_pays_for_a_machine_that_stalls(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    """A disk that hangs in the middle of a piece is not the peer's work."""
    share = shares.of(b"greedy")
    await work(shares, clock, b"greedy", 1, 64 * PIECE_SECONDS_MAX)
    await work(shares, clock, b"other")
    assert await work(shares, clock, b"greedy") == 0
    del share


async def test_one_turn_for_all_sessions(shares: Shares) -> None:
    """However many sessions ask, one piece is done at a time, and others are not held up."""
    order = []

    async def session(number: int) -> None:
        async with shares.of(b"greedy").turn():
            order.append(number)
            await wait_all_tasks_blocked()
            order.append(number)

    async with trio.open_nursery() as nursery:
        share = shares.of(b"greedy")
        for number in range(16):
            nursery.start_soon(session, number)
        async with shares.of(b"other").turn():
            pass
    assert [order[at] == order[at + 1] for at in range(0, 32, 2)] == [True] * 16
    del share


async def test_work_that_fails_is_paid_too(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    def fail() -> None:
        clock.worked += PIECE
        raise Fails

    share = shares.of(b"greedy")
    await work(shares, clock, b"other")
    with pytest.raises(Fails):
        async with share.turn():
            share.charged(fail)()
    assert await work(shares, clock, b"greedy") == PIECE


async def test_what_a_peer_answers_is_at_its_expense(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001
) -> None:
    """An agency may show heads of directories without end, each with signatures to verify."""

    async def begin(work: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
        await trio.lowlevel.checkpoint()
        done = work()

        async def pending() -> bool:
            await trio.lowlevel.checkpoint()
            return done

        return pending

    def witnessed() -> bool:
        clock.worked += PIECE
        return True

    node = cast(
        "abroad.Asker", SimpleNamespace(share=shares.of, journal=SimpleNamespace(begin=begin))
    )
    await work(shares, clock, b"other")
    begun = trio.current_time()
    for _ in range(2):
        assert await abroad._keep(node, b"peer", witnessed)
    assert trio.current_time() - begun >= PIECE


async def test_a_new_card_is_taken_up_at_its_expense(
    shares: Shares,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,  # noqa: ARG001
) -> None:
    """An agency may sign one for each session; the contexts of TLS are made anew, for all."""

    async def renewed(*_: object) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def read(work: Callable[[], object]) -> object:
        await trio.lowlevel.checkpoint()
        return work()

    def take_up(_: object) -> None:
        clock.worked += PIECE

    monkeypatch.setattr(abroad, "renew_card", renewed)
    node = cast(
        "service.Node",
        SimpleNamespace(
            share=shares.of,
            journal=SimpleNamespace(read=read),
            directory=SimpleNamespace(cards=dict),
            _trust=take_up,
            _compare=renewed,
        ),
    )
    await work(shares, clock, b"other")
    begun = trio.current_time()
    for _ in range(2):
        await service.Node._meet(node, cast("Connection", SimpleNamespace(key=b"peer")))
    assert trio.current_time() - begun >= PIECE


async def test_what_a_session_begins_with_is_at_its_expense(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001
) -> None:
    """Who connects again and again is told of all its entries, and compared with, each time."""

    async def read(work: Callable[[], object]) -> object:
        await trio.lowlevel.checkpoint()
        return work()

    def listed(*_: object) -> list[Holding]:
        clock.worked += PIECE
        return []

    sharing = SimpleNamespace(holdings=listed, stored_of=lambda *_: [])
    node = SimpleNamespace(
        id=b"own",
        share=shares.of,
        journal=SimpleNamespace(read=read),
        replica=SimpleNamespace(sharing=sharing),
    )
    peer = cast("Connection", SimpleNamespace(key=b"peer"))
    await work(shares, clock, b"other")
    begun = trio.current_time()
    await service.Node._tell_holdings(cast("service.Node", node), peer)
    await abroad._look(cast("abroad.Asker", node), b"peer", listed)
    assert trio.current_time() - begun >= PIECE


async def test_questions_to_others_are_at_the_askers_expense(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001
) -> None:
    """A device's one question about a blob is put to each agency of a chat."""

    class Answering:
        async def ask(self, topic: int, body: bytes) -> Answer:
            await trio.lowlevel.checkpoint()
            return Answer(topic, 0, body)

    async def newest(_: bytes) -> Answering:
        await trio.lowlevel.checkpoint()
        return Answering()

    hub = SimpleNamespace(of=lambda _: [1], newest=newest)
    node = cast("abroad.Asker", SimpleNamespace(share=shares.of, hub=hub))
    share = shares.of(b"device")
    await work(shares, clock, b"other")
    begun = trio.current_time()
    for _ in range(1000):
        assert await abroad._ask(node, b"device", b"agency", Topic.BLOBS, b"") is not None
    async with share.turn():
        assert trio.current_time() - begun == pytest.approx(2000 * abroad.ASK_SECONDS)


async def test_what_a_peer_answers_is_let_go_if_its_turn_does_not_come(
    shares: Shares,
    autojump_clock: MockClock,  # noqa: ARG001
) -> None:
    """Whoever asked waits no longer for it than for the answer."""

    async def begin(work: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
        raise AssertionError(work)

    node = cast(
        "abroad.Asker", SimpleNamespace(share=shares.of, journal=SimpleNamespace(begin=begin))
    )

    async def hold() -> None:
        async with shares.of(b"peer").turn():
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        assert await abroad._keep(node, b"peer", bool) is None
        assert trio.current_time() - begun == abroad.ANSWER_SECONDS_MAX
        nursery.cancel_scope.cancel()


def test_nothing_is_kept_of_who_has_gone(shares: Shares, clock: Clock) -> None:
    trio.run(work, shares, clock, b"one")
    trio.run(work, shares, clock, b"two")
    gc.collect()
    assert list(shares._shares) == [b"two"]
