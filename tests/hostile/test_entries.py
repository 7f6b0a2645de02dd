"""Hostile cases 14 to 29: entries of a member whose device does what it likes."""

import random
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import apsw
import pytest
from msgspec import structs
from msgspec.msgpack import encode

from client import mailbox
from node.agency import DATABASE_FILE
from protocol import held, intake, limits
from protocol.entry import CONTENT, ChatId, ContentHeader, DeviceKey, EntryId, Reference
from protocol.fork import verify_fork
from protocol.frame import (
    LENGTH_BYTES,
    ChatHeads,
    Forked,
    Head,
    Heads,
    Ping,
    Pong,
    Run,
    Seen,
    Want,
    encode_frame,
)
from protocol.testing.chains import Step
from tests.hostile.federation import Federation, Gone, eventually, now
from tests.hostile.forger import Forger, head, newest, nonsense

ORDER = 2**252 + 27742317777372353535851937790883648493
TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000
FLIPS = 12
LONG = 10_000


def changed(header: ContentHeader, fields: Mapping[str, object]) -> ContentHeader:
    return structs.replace(header, **fields)


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
        small = structs.replace(good, device=DeviceKey(point), signatures=((0, point + bytes(32)),))
        await dismissed(federation, small, "no signature covers")
    assert await length(federation, forger) == 1
    await admitted(federation, forger, good)


async def test_two_entries_of_one_seq(federation: Federation, forger: Forger) -> None:
    """Case 17: both nodes keep a proof and tell every device in the chat; both branches stay."""
    one, other = forger.content(b"one"), forger.content(b"other")
    anna = federation.honest["anna"]
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(newest(one), newest(other))
        forked = await wire.hear(Forked)
        assert isinstance(forked, Forked)
        proof = verify_fork(forked.proof)
        assert (proof.device, proof.lane, proof.seq) == (forger.device.key, CONTENT, 1)
        for name in ("north", "south"):
            await eventually(partial(_knows, federation, forger, name), "the proof")

        async def told() -> bool:
            stored = anna.replica.store.chat(forger.chat)
            return stored is not None and bool(anna.replica.sharing.forks(stored))

        await eventually(told, "a device is told of the fork")


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
    changes: dict[str, Mapping[str, object]] = {
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
        bad = forger.next_content(partial(changed, fields=change))
        await without_effect(federation, forger, bad)
    for links in ((own,), (link, link), tuple(_many(9))):
        bad = forger.next_content(partial(changed, fields={"links": links}))
        await dismissed(federation, bad, "SPEC 2.2" if len(links) < 9 else "does not fit")


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


async def test_links_without_end(federation: Federation, forger: Forger) -> None:
    """Case 20: a record with 100,000 links is over the frame's limit, 3,000 over the field's."""
    header = forger.content().entries[-1].header
    for count, reason in ((100_000, "frame of"), (3_000, "does not fit")):
        flood = _many(count)
        bad = forger.next_content(partial(changed, fields={"links": flood}))
        body = encode(bad)
        async with federation.as_device() as wire:
            await wire.greet()
            await wire.send_raw(len(body).to_bytes(4, "big") + body)
            await federation.refused(wire, reason)
    assert await length(federation, forger) == header.seq


async def test_ancestors_that_never_come(
    federation: Federation, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases 21 and 30: what waits is bounded, and so is our patience with who never answers."""
    monkeypatch.setattr(intake, "ANSWER_SECONDS_MAX", 2.0)
    monkeypatch.setattr(held, "HELD_RUNS_MAX", 100)
    payload = bytes(2_000)
    chain = forger.content(payload)
    header = chain.entries.pop().header
    async with federation.as_device() as wire:
        await wire.greet()
        connection = await federation.session_of(forger.device.key)
        for _ in range(300):
            link = Reference(DeviceKey(nonsense()), 1, EntryId(nonsense()))
            await wire.send(forger.signed(chain, structs.replace(header, links=(link,)), payload))
        waiting = connection._session._intake._held

        async def full() -> bool:
            return len(waiting) == 100

        await eventually(full, "the buffer is full, and no fuller")
        unknown = tuple(
            ChatHeads(ChatId(nonsense()), (Head(forger.device.key, 0, 5, nonsense(8)),))
            for _ in range(500)
        )
        await wire.send(Heads(1, 1, unknown))
        await federation.refused(wire, "wants without an answer")
    assert await length(federation, forger) == 1


async def test_a_page_too_long(federation: Federation) -> None:
    """Case 31: as many heads as fit into a frame are refused before anything is asked for."""
    heads = tuple(
        Head(DeviceKey(nonsense()), 0, 1, nonsense(8)) for _ in range(limits.HEADS_CHAINS_MAX)
    )
    chats = tuple(ChatHeads(ChatId(nonsense()), heads) for _ in range(2))
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(Heads(1, 1, chats))
        await federation.refused(wire, "heads in a page")
    async with federation.as_node() as wire:
        await wire.greet()
        for cursor in range(1, 5):
            await wire.send(Heads(cursor, 0, (ChatHeads(ChatId(nonsense()), heads),)))
        await federation.refused(wire, "pages of heads before SEEN")


async def test_a_long_chain(federation: Federation, forger: Forger) -> None:
    """Case 22: the nodes take it in slices, and the honest pair goes on meanwhile."""
    chain = forger.content(b"", LONG)
    runs = [
        chain.run(at, min(at + 2_000, LONG + 1), [*range(at + 63, at + 2_000, 64), at + 1_999])
        for at in range(1, LONG, 2_000)
    ]
    async with federation.as_device() as wire:
        await wire.greet()
        for run in runs:
            last = len(run.records) - 1
            fitting = tuple((at, one) for at, one in run.signatures if at <= last)
            await wire.send(structs.replace(run, signatures=fitting))
        await arrives(federation, forger, LONG)
        await federation.more_messages()


async def test_clocks_decide_nothing(federation: Federation, forger: Forger) -> None:
    """Case 25: ten years from now, or the beginning of time; both are taken, in their place."""
    chain = forger.content()
    for time in (now() + TEN_YEARS_MS, 0, limits.TIME_MS_MAX):
        header = chain.entries.pop().header
        chain.append(structs.replace(header, time=time), b"no ciphertext")
        run = newest(chain)
        await admitted(federation, forger, run)
        chain.add(Step(b"no ciphertext"))
    anna = federation.honest["anna"]

    async def arrived() -> bool:
        letters = mailbox.letters(anna, forger.chat, 3)
        return [letter.reference.seq for letter in letters] == [1, 2, 3]

    await eventually(arrived, "the order is that of the chain")


async def test_nothing_follows_what_is_inadmissible(federation: Federation, forger: Forger) -> None:
    """Case 26: neither cited as a predecessor nor as a link, in one run or in two."""
    chain = forger.content()
    header = chain.entries.pop().header
    assert isinstance(header, ContentHeader)
    chain.append(structs.replace(header, generation=header.generation + 7), b"no ciphertext")
    chain.extend([Step(b"after"), Step(b"and after")])
    await without_effect(federation, forger, chain.run(1))
    await without_effect(federation, forger, chain.run(2), chain.run(3), chain.run(1, 2))


async def test_a_page_of_inadmissible_entries(federation: Federation, forger: Forger) -> None:
    """Case 27: the page goes on behind them, and is seen as a whole."""
    bad = forger.content()
    header = bad.entries.pop().header
    assert isinstance(header, ContentHeader)
    bad.append(structs.replace(header, epoch=EntryId(nonsense()), generation=0), b"no ciphertext")
    good = forger.content()
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(Heads(7, 1, (ChatHeads(forger.chat, (head(bad), head(good))),)))
        while len([one for one in wire.heard if isinstance(one, Seen)]) < 1:
            frame = await wire.next()
            if isinstance(frame, Want):
                source = bad if frame.prefix == head(bad).prefix else good
                await wire.send(source.run(frame.start))
        await arrives(federation, forger, 2)


async def test_a_run_with_bad_signatures_in_it(federation: Federation, forger: Forger) -> None:
    """Case 29: admitted by cover; the bad ones are neither stored nor handed on."""
    chain = forger.content(count=6)
    run = chain.run(1)
    spoilt = tuple((at, nonsense(64) if 0 < at < 5 else one) for at, one in run.signatures)
    boris = federation.honest["boris"]
    async with federation.as_device() as witness:
        await witness.greet()
        await federation.session_of(forger.device.key)
        await admitted(federation, forger, structs.replace(run, signatures=spoilt))
        pushed = await witness.hear(Run)
    assert isinstance(pushed, Run)
    assert set(pushed.signatures) <= set(run.signatures)

    async def arrived() -> bool:
        stored = boris.replica.store.chat(forger.chat)
        chains = {} if stored is None else stored.chains
        return any(branch.length == 7 for branch in chains.get((forger.device.key, CONTENT), []))

    await eventually(arrived, "boris has all of it")
    valid = {one for _, one in run.signatures}
    for name in ("north", "south"):
        connection = apsw.Connection(
            str(federation.base / name / DATABASE_FILE), flags=apsw.SQLITE_OPEN_READONLY
        )
        kept = connection.execute(
            "SELECT signature FROM entries JOIN chains ON chains.no = place >> 32"
            " WHERE device = ? AND lane = 1 AND place & 4294967295 > 0",
            (forger.device.key,),
        ).fetchall()
        connection.close()
        assert {one for (one,) in kept} - {None} <= valid
        assert len([one for (one,) in kept if one is not None]) < 6


async def test_a_run_covered_in_part(federation: Federation, forger: Forger) -> None:
    """Case 29: behind the last valid signature nothing is taken."""
    chain = forger.content(count=6)
    run = chain.run(1)
    part = tuple((at, one if at < 3 else nonsense(64)) for at, one in run.signatures)
    await admitted(
        federation, forger, structs.replace(chain.run(1, 4), signatures=run.signatures[:3])
    )
    await without_effect(federation, forger, structs.replace(run, signatures=part))


async def test_duplicates(federation: Federation, forger: Forger) -> None:
    """Case 36: the same run a thousand times is written once."""
    run = forger.honest()
    await admitted(federation, forger, run)
    connection = federation.node().replica.store.connection
    async with federation.as_device() as wire:
        await wire.greet()
        before = len(federation.said)
        changes = connection.total_changes()
        for _ in range(1_000):
            await wire.send(run)
        await wire.send(Ping())
        await wire.hear(Pong)
        await federation.node().journal.write(lambda: None)
        written = connection.total_changes() - changes
        said = len(federation.said) - before
    assert written < 60 * (said + 2)
