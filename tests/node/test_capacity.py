"""What a node needs of its process: open files, no long pauses, no memory that is not used."""

import gc
import resource
import ssl
import weakref
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.capacity import (
    COLLECTIONS,
    FILES_BESIDE,
    TIDY_SECONDS,
    TIDY_SHARE,
    allow_files,
    collect_rarely,
    files_wanted,
    keep_small,
)
from node.config import Settings

INFINITE = resource.RLIM_INFINITY
FRAME_BYTES = 4096
FRAMES = 16_384
ROUNDS_MAX = 100


def test_everything_is_looked_through_rarely() -> None:
    """A hundred million new objects, less those that went by themselves; never not at all."""
    before = gc.get_threshold()
    try:
        collect_rarely()
        assert gc.isenabled()
        assert gc.get_threshold() == COLLECTIONS
        assert 10**7 < COLLECTIONS[0] * COLLECTIONS[1] * COLLECTIONS[2] <= 10**8
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("soft", "hard", "after", "lacking"),
    [
        (1024, 524288, 4096 + FILES_BESIDE, 0),
        (1024, INFINITE, 4096 + FILES_BESIDE, 0),
        (1024, 2048, 2048, 4096 + FILES_BESIDE - 2048),
        (1024, 1024, 1024, 4096 + FILES_BESIDE - 1024),
        (65536, 65536, 65536, 0),
        (INFINITE, INFINITE, INFINITE, 0),
    ],
)
def test_open_files(
    soft: int, hard: int, after: int, lacking: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 75: raised as far as it goes, never lowered; what is lacking is told."""
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    settings = Settings(connections_max=4096)
    assert files_wanted(settings) == 4096 + FILES_BESIDE
    assert allow_files(settings) == lacking
    assert limits[-1] == (after, hard)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_memory_between_what_is_in_use_is_given_back(
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    """One frame of sixteen stays; of the holes between them, most leave memory within a round."""
    frames = [bytes(FRAME_BYTES) for _ in range(FRAMES)]
    kept = frames[::16]
    del frames
    wanted = resident() - FRAME_BYTES * FRAMES // 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_small)
        for _ in range(ROUNDS_MAX):
            await trio.sleep(TIDY_SECONDS)
            if resident() <= wanted:
                break
        nursery.cancel_scope.cancel()
    assert resident() <= wanted
    assert kept


async def test_an_ended_session_is_given_back(
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
) -> None:
    """A TLS stream of trio refers to itself, so it does not go when nobody needs it any more."""
    ours, _ = trio.testing.memory_stream_pair()
    ended = weakref.ref(trio.SSLStream(ours, ssl.create_default_context()))
    gc.disable()
    try:
        assert ended() is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_small)
            await trio.sleep(TIDY_SECONDS + 1)
            nursery.cancel_scope.cancel()
        assert ended() is None
    finally:
        gc.enable()


async def test_what_takes_long_is_done_seldom(
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over what is waited
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node with many sessions stands still for a small part of the time only."""
    seconds, looks = 0.3, []
    monkeypatch.setattr("node.capacity.ctypes.CDLL", lambda _: None)  # no thread: time would jump
    monkeypatch.setattr("node.capacity.gc.collect", lambda: looks.append(trio.current_time()))
    monkeypatch.setattr("node.capacity.time.thread_time", lambda: seconds * len(looks))
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_small)
        await trio.sleep(2 * seconds / TIDY_SHARE)
        nursery.cancel_scope.cancel()
    first, second = (at - begun for at in looks)
    assert first == pytest.approx(TIDY_SECONDS)
    assert second - first >= seconds / TIDY_SHARE
