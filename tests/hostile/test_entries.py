"""Hostile cases 14 to 29: entries of a member whose device does what it likes."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress

import apsw
import pytest
from msgspec import structs

from client import mailbox
from client.link import linked
from node.service import DATABASE_FILE
from protocol import intake, limits
from protocol.entry import CONTENT, ContentHeader, DeviceKey, EntryId, Reference
from protocol.fork import verify_fork
from protocol.frame import (
    LENGTH_BYTES,
    ChatHeads,
    Forked,
    Have,
    Head,
    Heads,
    Ping,
    Pong,
    Run,
    Want,
    encode_frame,
)
from protocol.testing.chains import Step
from tests.hostile.federation import Federation, Gone, eventually, now
from tests.hostile.forger import Forger, head, newest, nonsense

ORDER = 2**252 + 27742317777372353535851937790883648493
TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000
FLIPS = 24
LONG = 20_000


@pytest.fixture
async def forger(federation: Federation) -> AsyncIterator[Forger]:
    device = federation.device("mallory")
    yield Forger(device, federation.founded.open)
    device.close()


async def length(federation: Federation, forger: Forger, name: str = "north") -> int:
    """How much of mallory's content a node has."""

    def read() -> int:
        stored = federation.node(name).replica.store.chat(forger.chat)
        chain = [] if stored is None else stored.chains.get((forger.device.key, CONTENT), [])
        return max((branch.length for branch in chain), default=0)

    return await federation.node(name).journal.read(read)


async def arrives(federation: Federation, forger: Forger, goal: int) -> None:
    """Wait until both nodes have so much of mallory's content."""
    for name in ("north", "south"):

        async def there(name: str = name) -> bool:
            return await length(federation, forger, name) >= goal

        await eventually(there, f"{goal} entries at {name}")


async def dismissed(federation: Federation, run: Run, reason: str) -> None:
    """Send a run for which a node shows the door."""
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        await federation.refused(wire, reason)


async def without_effect(federation: Federation, forger: Forger, *runs: Run) -> None:
    """Send runs of which nothing may be stored, to a session that goes on."""
    before = await length(federation, forger)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(*runs, Ping())
        await wire.hear(Pong)
        await federation.node().journal.write(lambda: None)
        assert await length(federation, forger) == before


async def admitted(federation: Federation, forger: Forger, run: Run) -> None:
    """Send a run that must reach both nodes."""
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(run)
        await arrives(federation, forger, run.start + len(run.records))


async def test_no_bit_may_change(federation: Federation, forger: Forger) -> None:
    """Case 14: the record, its signature and all that the frame says of its place."""
    dice = random.Random(14)
    good = forger.honest()
    raw = encode_frame(good)
    for at in dice.sample(range(LENGTH_BYTES, len(raw)), FLIPS):
        changed = bytearray(raw)
        changed[at] ^= 1 << dice.randrange(8)
        async with federation.as_device() as wire:
            await wire.greet()
            await wire.send_raw(bytes(changed) + encode_frame(Ping()))
            with suppress(Gone):
                await wire.hear(Pong)
        await federation.node().journal.write(lambda: None)
        assert await length(federation, forger) == 1, at
    await admitted(federation, forger, good)


async def test_signatures(federation: Federation, forger: Forger) -> None:
    """Cases 15 and 16: none, empty, short, zero, S + L, a small-order key."""
    good = forger.honest()
    ((_, signature),) = good.signatures
    await dismissed(federation, structs.replace(good, signatures=()), "no signature covers")
    for bad in (b"", signature[:63], signature + b"\0"):
        await dismissed(federation, structs.replace(good, signatures=((0, bad),)), "not a frame")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    for bad in (bytes(64), malleable, signature[:32] + bytes(32), nonsense(64)):
        changed = structs.replace(good, signatures=((0, bad),))
        await dismissed(federation, changed, "no signature covers")
    # Under these keys OpenSSL takes the signature (key, 0) of nearly anything.
    for point in (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
        small = structs.replace(
            good, device=DeviceKey(point), signatures=((0, point + bytes(32)),)
        )
        await dismissed(federation, small, "no signature covers")
    assert await length(federation, forger) == 1
    await admitted(federation, forger, good)


async def test_two_entries_of_one_seq(federation: Federation, forger: Forger) -> None:
    """Case 17: both nodes keep a proof and tell every device in the chat; both branches stay."""
    one, other = forger.content(b"one"), forger.content(b"other")
    anna = federation.device("anna")
    async with federation.as_device() as wire, linked(anna) as link:
        await link.greeted.wait()
        await wire.greet()
        await wire.send(newest(one), newest(other))
        forked = await wire.hear(Forked)
        assert isinstance(forked, Forked)
        proof = verify_fork(forked.proof)
        assert (proof.device, proof.lane, proof.seq) == (forger.device.key, CONTENT, 1)
        for name in ("north", "south"):
            await eventually(lambda name=name: _knows(federation, forger, name), "the proof")

        async def told() -> bool:
            stored = anna.replica.store.chat(forger.chat)
            return stored is not None and bool(anna.replica.sharing.forks(stored))

        await eventually(told, "a device is told of the fork")
    anna.close()


async def _knows(federation: Federation, forger: Forger, name: str) -> bool:
    replica = federation.node(name).replica

    def read() -> bool:
        stored = replica.store.chat(forger.chat)
        return stored is not None and len(replica.sharing.forks(stored)) == 1

    return await federation.node(name).journal.read(read)


async def test_out_of_place(federation: Federation, forger: Forger) -> None:
    """Cases 18, 19, 20, 23, 24, 26, 28: gaps, foreign predecessors, links, another chat."""
    chain = forger.content()
    last = chain.entries[-1].header
    assert isinstance(last, ContentHeader)
    stray = EntryId(nonsense())
    link = Reference(DeviceKey(nonsense()), 1, stray)
    own = Reference(forger.device.key, 0, chain.entries[0].id)
    control = last.control[0]
    changes = {
        "18 a gap": {"seq": last.seq + 5, "prev": stray},
        "19 prev is a control entry": {"prev": control.id},
        "19 prev is of another device": {"prev": await _message(federation, forger)},
        "19 prev is nowhere": {"prev": stray},
        "21 a link that never comes": {"links": (link,)},
        "24 the control heads of another chat": {
            "control": (Reference(control.device, control.seq, EntryId(federation.founded.quiet)),)
        },
        "26 an epoch of another chat": {"epoch": stray, "generation": 0},
        "26 a generation left out": {"generation": last.generation + 1},
        "44 a generation used before": {"generation": last.generation - 1},
    }
    for change in changes.values():
        bad = forger.next_content(lambda header, change=change: structs.replace(header, **change))
        await without_effect(federation, forger, bad)
    for links in ((own,), (link, link), tuple(_many(9))):
        bad = forger.next_content(lambda header, links=links: structs.replace(header, links=links))
        reason = "not a frame" if False else "a"
        await dismissed(federation, bad, reason)


def _many(count: int) -> list[Reference]:
    return sorted(Reference(DeviceKey(nonsense()), 0, EntryId(nonsense())) for _ in range(count))


async def _message(federation: Federation, forger: Forger) -> EntryId:
    """Return the id of a message of anna's in the same chat."""
    replica = federation.node().replica

    def read() -> EntryId:
        stored = replica.store.chat(forger.chat)
        assert stored is not None
        return next(
            chain[0].head
            for (device, lane), chain in stored.chains.items()
            if lane == CONTENT and device != forger.device.key
        )

    return await federation.node().journal.read(read)
