"""SPEC 6.2, 6.3: how a node learns what another agency stores of what its devices wrote."""

from pathlib import Path

import trio

from protocol.entry import CONTENT, CONTROL, DeviceKey
from protocol.frame import ChatHeads, Head, Heads, Holding, Ping, Pong
from protocol.operation import Leave
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.homes import MVD, Home, Peer, join, until


async def test_what_a_peer_lists_of_our_devices_it_stores(
    homes: tuple[Home, Home], nursery: trio.Nursery
) -> None:
    """Regression: of what a third agency had brought it nobody heard that it was there."""
    talk = conversation(Dice(5), 20)
    homes[0].take(talk)
    anna, boris = (one.devices[0] for one in talk.people[:2])
    stored = homes[0].replica.store.chat(talk.chat)
    assert stored is not None
    heads = [
        Head(device, CONTENT, branch.length - 1, branch.head[:8])
        for device in sorted((anna, boris))
        for branch in stored.chains[device, CONTENT]
    ]
    lie = Head(anna, CONTROL, 0, bytes(8))
    peer = Peer(homes[0], nursery)
    await peer.greet()
    await peer.say(Heads(1, 1, (ChatHeads(talk.chat, (lie, *heads)),)))
    await until(lambda: bool(homes[0].noted))
    assert homes[0].noted == [
        Holding(DeviceKey(MVD), talk.chat, head.device, head.lane, head.seq)
        for head in heads
        if head.device == anna
    ]
    await peer.say(Heads(2, 1, (ChatHeads(talk.chat, tuple(heads)),)), Ping())
    assert isinstance(await peer.until(Pong), Pong)
    assert len(homes[0].noted) == 1


async def test_what_is_found_with_both_is_stored_by_both(
    homes: tuple[Home, Home], nursery: trio.Nursery
) -> None:
    """Regression: nodes that met for the first time, with all of it, listed each other nothing.

    So what a third agency had brought both before they were federated, or a device and a peer
    a node that was restored, was not stored there until its author wrote on.
    """
    talk = conversation(Dice(5), 20)
    stored = set()
    for home in homes:
        home.take(talk)
    anna = talk.people[0].devices[0]
    for lane in (CONTROL, CONTENT):
        chains = homes[0].replica.store.chat(talk.chat)
        assert chains is not None
        (branch,) = chains.chains[anna, lane]
        stored.add(Holding(DeviceKey(MVD), talk.chat, anna, lane, branch.length - 1))
    pair = await join(nursery, *homes)
    await until(lambda: bool(homes[0].noted))
    assert {one for one in homes[0].noted if one.device == anna} == stored
    assert {one.agency for one in homes[0].noted} == {MVD}
    assert not any(connection.failure for connection in pair)


def test_who_has_left_is_told_that_this_is_stored(tmp_path: Path) -> None:
    """Regression: if the session ended before that was told, it was queued for ever (9910907)."""
    talk = conversation(Dice(5), 0)
    boris = talk.people[1]
    device = boris.devices[0]
    talk.tell(boris, talk.story.tell(boris, Leave()))
    home = Home(tmp_path / "node.db", boris.agency.root.public)
    home.take(talk)
    assert device not in home.replica.readers_of(talk.chat)
    (left,) = (one for one in talk.runs if one.device == device)
    holding = Holding(DeviceKey(home.key), talk.chat, device, CONTROL, left.start)
    assert home.replica.sharing.stored_of(device, home.key) == [holding]
