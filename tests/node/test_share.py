"""SPEC 6.6: what one peer may cost the others. The clock of the work is the test's own."""

import gc
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.share import MEMORY_SECONDS, Shares

PIECE = 0.03125


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Fails(Exception):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock) -> Shares:
    return Shares(clock)


async def work(shares: Shares, clock: Clock, peer: bytes, pieces: int = 1) -> float:
    """Do pieces of work for a peer; return how long they had to wait in all."""

    def piece() -> None:
        clock.now += PIECE

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
    clock.now += 2 * PIECE
    assert await work(shares, clock, b"greedy") == 0, "it has waited in the meantime"
    assert share is shares.of(b"greedy")


async def test_others_are_soon_forgotten(
    shares: Shares,
    clock: Clock,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    share = shares.of(b"greedy")
    await work(shares, clock, b"other")
    pieces = int(MEMORY_SECONDS / PIECE)
    assert await work(shares, clock, b"greedy", pieces) == (pieces - 1) * PIECE
    assert await work(shares, clock, b"greedy", 5) == 0
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
        clock.now += PIECE
        raise Fails

    share = shares.of(b"greedy")
    await work(shares, clock, b"other")
    with pytest.raises(Fails):
        async with share.turn():
            share.charged(fail)()
    assert await work(shares, clock, b"greedy") == PIECE


def test_nothing_is_kept_of_who_has_gone(shares: Shares, clock: Clock) -> None:
    trio.run(work, shares, clock, b"one")
    trio.run(work, shares, clock, b"two")
    gc.collect()
    assert list(shares._shares) == [b"two"]
