"""Blobs of members who lie about them, while honest people talk (cases 48, 50, 51)."""

import os
from collections.abc import Callable
from functools import partial

import pytest
from msgspec import structs

from crypto import merkle
from crypto.blob import CHUNK_BYTES
from node.blobs import FOLDER
from protocol.attachment import Announcement
from protocol.entry import EntryId
from protocol.frame import Blob, Heads, Lacking, Ping, Pong, WantBlob
from protocol.limits import BLOB_BYTES_MAX, BLOB_CHUNKS_SERVED_MAX, BLOBS_FETCHED_MAX
from tests.hostile.federation import Federation, Wire, eventually
from tests.hostile.forger import Forger

TAIL = 1000
QUIET_SECONDS = 0.5


class Sealed:
    """A blob of two chunks, which its author can serve."""

    def __init__(self) -> None:
        self.chunks = [os.urandom(CHUNK_BYTES), os.urandom(TAIL)]
        self.tree = merkle.Tree([merkle.leaf_hash(chunk) for chunk in self.chunks])
        self.announced = Announcement(self.tree.root, CHUNK_BYTES + TAIL)

    def chunk(self, want: WantBlob) -> Blob:
        path = tuple(self.tree.path(want.start))
        return Blob(want.chat, want.entry, want.start, self.chunks[want.start], path)


def held(federation: Federation, forger: Forger, entry: EntryId) -> int:
    """How many chunks north has of a blob."""
    index = federation.node().replica.blobs
    blob = index.find(forger.chat, entry)
    return 0 if blob is None else index.count_held(blob)


def on_disk(federation: Federation) -> int:
    """How many bytes of blobs north has on its disk."""
    folder = federation.base / "north" / FOLDER
    return sum(one.stat().st_size for one in folder.iterdir())


LIES: dict[str, Callable[[Blob], Blob]] = {
    "altered": lambda one: structs.replace(one, chunk=b"\x00" + one.chunk[1:]),
    "too short": lambda one: structs.replace(one, chunk=one.chunk[:-1]),
    "empty": lambda one: structs.replace(one, chunk=b""),
    "another path": lambda one: structs.replace(one, path=(bytes(32),)),
    "no path": lambda one: structs.replace(one, path=()),
    "a step too many": lambda one: structs.replace(one, path=(*one.path, bytes(32))),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_wrong_chunks(
    federation: Federation, forger: Forger, lie: Callable[[Blob], Blob]
) -> None:
    """Case 50: nothing of it is kept, the session ends, and its sender is asked no more."""
    sealed = Sealed()
    run, (entry,) = forger.attached(sealed.announced)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        want = await asked(wire)
        await wire.send(lie(sealed.chunk(want)))
        await federation.refused(wire, "(SPEC 6.7)")
    assert held(federation, forger, entry) == 0
    async with federation.as_device() as wire:
        await wire.greet()
        assert not any(isinstance(one, WantBlob) for one in await wire.quiet(QUIET_SECONDS))


async def asked(wire: Wire) -> WantBlob:
    want = await wire.hear(WantBlob)
    assert isinstance(want, WantBlob)
    return want


async def test_chunks_that_nobody_asked_for(federation: Federation, forger: Forger) -> None:
    """Case 50: they are not looked at; those that were asked for are taken all the same."""
    sealed = Sealed()
    run, (entry,) = forger.attached(sealed.announced)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        want = await asked(wire)
        for index in (0, 1, 1, 0):
            one = sealed.chunk(structs.replace(want, start=index))
            await wire.send(structs.replace(one, entry=EntryId(bytes(32))))
            await wire.send(structs.replace(one, index=index + 2), one, one)

        async def whole() -> bool:
            return held(federation, forger, entry) == 2

        await eventually(whole, "north has taken the right ones")
        await wire.send(Ping())
        await wire.hear(Pong)
    assert on_disk(federation) == sealed.announced.size


async def test_blobs_without_end(federation: Federation, forger: Forger) -> None:
    """Case 51: 32 of the largest are announced and never come: few are asked for, none is kept."""
    run, entries = forger.attached(*[Announcement(os.urandom(32), BLOB_BYTES_MAX)] * 32)
    seen: set[EntryId] = set()
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        for _ in range(BLOBS_FETCHED_MAX):
            seen.add((await asked(wire)).entry)
        for frame in await wire.quiet(QUIET_SECONDS):
            if isinstance(frame, WantBlob):
                seen.add(frame.entry)
        assert len(seen) <= BLOBS_FETCHED_MAX
        await federation.more_messages()
    assert not sum(held(federation, forger, entry) for entry in entries)
    assert on_disk(federation) == 0
    sealed = Sealed()
    honest, (entry,) = forger.attached(sealed.announced)
    async with federation.as_device() as wire:  # what never came has taken nobody's room
        await wire.greet()
        await wire.send(honest)
        while (want := await asked(wire)).entry != entry:
            await wire.send(Lacking(want.chat, want.entry, want.start, want.stop))
        await wire.send(sealed.chunk(want), sealed.chunk(structs.replace(want, start=1)))
        await eventually(partial(_has_both, federation, forger, entry), "north has it")


async def test_a_half_that_is_never_finished(federation: Federation, forger: Forger) -> None:
    """Case 51: what has come stays for the next time, and goes when the message is redacted."""
    sealed = Sealed()
    run, (entry,) = forger.attached(sealed.announced)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        want = await asked(wire)
        await wire.send(sealed.chunk(want), Lacking(want.chat, want.entry, 1, 2))

        async def half() -> bool:
            return held(federation, forger, entry) == 1

        await eventually(half, "north has the first chunk")
    async with federation.as_device() as wire:
        await wire.greet()
        again = await asked(wire)
        assert (again.entry, again.start, again.stop) == (entry, 1, 2)


async def test_chunks_asked_for_without_end(federation: Federation, forger: Forger) -> None:
    """Case 32: more than a peer may ask for at once ends its session."""
    async with federation.as_device() as wire:
        await wire.greet()
        want = WantBlob(forger.chat, EntryId(bytes(32)), 0, BLOB_CHUNKS_SERVED_MAX + 1)
        await wire.send(want)
        await federation.refused(wire, "chunks at once (SPEC 8)")


async def test_who_is_no_reader_gets_no_chunk(federation: Federation, forger: Forger) -> None:
    """Case 48: the same answer for a blob that is here and for one that is nowhere."""
    sealed = Sealed()
    run, (entry,) = forger.attached(sealed.announced)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        want = await asked(wire)
        both = (sealed.chunk(want), sealed.chunk(structs.replace(want, start=1)))
        await wire.send(*both)
        await eventually(partial(_has_both, federation, forger, entry), "north has it")
    async with federation.as_node() as wire:
        await wire.greet()
        await wire.hear(Heads)
        for asked_for in (entry, EntryId(bytes(32))):
            await wire.send(WantBlob(forger.chat, asked_for, 0, 2))
            assert await wire.hear(Lacking) == Lacking(forger.chat, asked_for, 0, 2)


async def _has_both(federation: Federation, forger: Forger, entry: EntryId) -> bool:
    return held(federation, forger, entry) == 2
