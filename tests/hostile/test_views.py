"""Hostile cases 33 and 35: a member agency's node that withholds, or shows each a view of its own.

Rogue is a member here: its official eve is in a chat with anna and boris. Its node has run as it
should, and then an attacker speaks for it, with all that it has stored.
"""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio

from client import compose
from client.device import Device
from client.link import linked
from node.agency import DATABASE_FILE
from node.database import connect
from node.replica import Replica
from node.store import StoredChat
from protocol.entry import CONTENT, ChatId, DeviceKey
from protocol.frame import Absent, Want
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.hostile import federation as made
from tests.hostile.federation import (
    ZONE,
    Federation,
    Gone,
    Wire,
    eventually,
    now,
    one_settled,
    say,
)
from tests.hostile.forger import Forger, newest


@pytest.fixture
async def eve(federation: Federation) -> AsyncIterator[Device]:
    made.trust_all(federation.base, federation.founded.agencies, ("rogue",))
    await federation.start_node("rogue")
    await made._join(federation.node("rogue"), federation.base / "eve")
    device = federation.device("eve")
    yield device
    device.close()


@pytest.fixture
async def wide(federation: Federation, eve: Device) -> ChatId:
    """A chat of anna, boris and eve, in which eve has written."""
    link, anna = federation.links["anna"], federation.honest["anna"]

    async def met() -> bool:
        north, south = federation.node("north").hub, federation.node("south").hub
        rogue = federation.agency("rogue").id
        return bool(north.of(rogue)) and bool(south.of(rogue))

    async with linked(eve) as evil:
        await evil.greeted.wait()
        await evil.refresh()
        await eventually(met, "rogue meets the others")
        users = await link.look_up(["boris@south", "eve@rogue"])
        members = [(user, Role.MEMBER) for user in users]
        policy = Policy((ZONE,), 0, HistoryRule.FROM_JOIN)
        chat = await link.write(
            lambda: compose.new_chat(anna, ChatKind.GROUP, "wide", policy, members, now())
        )
        await made._write(evil, eve, chat)
        await eventually(one_settled(evil), "rogue has all")
    return chat


async def has(
    federation: Federation, name: str, chat: ChatId, author: DeviceKey, goal: int
) -> bool:
    """Tell whether a node has so much of an author's content."""

    def read() -> bool:
        stored = federation.node(name).replica.store.chat(chat)
        return stored is not None and length(stored, author) >= goal

    return await federation.node(name).journal.read(read)


def length(stored: StoredChat, author: DeviceKey) -> int:
    """How much is stored of an author's content."""
    return max((one.length for one in stored.chains.get((author, CONTENT), [])), default=0)


async def test_two_views(federation: Federation, eve: Device, wide: ChatId) -> None:
    """Case 35: each node is shown another branch; both, and all devices, get the proof."""
    await eventually(partial(has, federation, "south", wide, eve.key, 1), "south has eve's")
    await federation.stop_node("rogue")
    views = Forger(eve, wide)
    one, other = views.content(b"for north"), views.content(b"for south")
    async with federation.as_node("north") as north, federation.as_node("south") as south:
        await north.greet()
        await south.greet()
        await north.send(newest(one))
        await south.send(newest(other))
        for name in made.NODES:
            await eventually(partial(proved, federation, name, wide), f"{name} has the proof")
    for device in federation.honest.values():

        async def told(device: Device = device) -> bool:
            stored = device.replica.store.chat(wide)
            return stored is not None and bool(device.replica.sharing.forks(stored))

        await eventually(told, "an honest device has the proof")


async def proved(federation: Federation, name: str, chat: ChatId) -> bool:
    """Tell whether a node holds a proof of a fork in a chat."""
    replica = federation.node(name).replica

    def read() -> bool:
        stored = replica.store.chat(chat)
        return stored is not None and len(replica.sharing.forks(stored)) == 1

    return await federation.node(name).journal.read(read)


async def test_one_entry_is_withheld(federation: Federation, eve: Device, wide: ChatId) -> None:
    """Case 33: south is shown all but one entry by rogue, and has it from north when they meet."""
    await eventually(partial(has, federation, "south", wide, eve.key, 1), "south has eve's")
    await federation.finish()
    await federation.stop_node("south")
    anna = federation.device("anna")
    async with linked(anna) as link:
        await link.greeted.wait()
        await link.write(lambda: say(anna, wide, "withheld"))
        await eventually(one_settled(link), "north has it")
    stored = anna.replica.store.chat(wide)
    assert stored is not None
    all_of_it = partial(has, chat=wide, author=anna.key, goal=length(stored, anna.key))
    await eventually(partial(all_of_it, federation, "rogue"), "rogue has it")
    anna.close()
    await federation.stop_node("rogue")
    await federation.stop_node("north")
    await federation.start_node("south")
    async with trio.open_nursery() as nursery, federation.as_node("south") as wire:
        await wire.greet()
        withheld: list[Want] = []
        nursery.start_soon(serve_all_but, federation, wire, anna.key, withheld)
        await eventually(partial(asked, withheld), "south asks for what it was told of")
        assert not await all_of_it(federation, "south")
        await federation.start_node("north")
        await eventually(partial(all_of_it, federation, "south"), "south has it")
        nursery.cancel_scope.cancel()


async def asked(wants: list[Want]) -> bool:
    return bool(wants)


async def serve_all_but(
    federation: Federation, wire: Wire, author: DeviceKey, withheld: list[Want]
) -> None:
    """Speak for rogue's node: list all, serve all, but of one author's content nothing."""
    agency, south = federation.agency("rogue"), federation.agency("south").id
    connection = connect(federation.base / "rogue" / DATABASE_FILE, None)
    replica = Replica(connection, agency.id, agency.id)
    try:
        await wire.send(replica.sharing.heads_since(south, 0))
        while True:
            frame = await wire.next()
            if isinstance(frame, Want):
                hidden = frame.device == author and frame.lane == CONTENT
                run = None if hidden else replica.serve(frame, south)
                absent = Absent(frame.chat, frame.device, frame.lane, frame.start)
                await wire.send(absent if run is None else run)
                if hidden:
                    withheld.append(frame)
    except Gone:
        pass
    finally:
        connection.close()
