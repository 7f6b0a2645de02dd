"""Hostile cases 40, 42 and 47: who is out of a chat, or given up, and writes or listens on."""

from contextlib import suppress
from functools import partial

import pytest

from client import compose
from client.device import Device
from client.link import linked
from client.revoking import revoke_own, tell_node
from protocol import identity
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey
from protocol.frame import (
    Absent,
    Heads,
    Ping,
    Run,
    Seals,
    Want,
)
from protocol.message import Text
from protocol.operation import Admit
from protocol.question import Revoke as GiveUp
from protocol.question import encode_question
from tests.hostile.federation import Federation, Gone, eventually, now, one_settled, say
from tests.hostile.forger import Forger, newest


async def test_after_a_removal(federation: Federation, forger: Forger) -> None:
    """Cases 40 and 42: what the removed one backdates goes nowhere, and nothing new is told."""
    anna, chat = federation.honest["anna"], forger.chat
    backdated, control = forger.content(), forger.control(Admit(()))
    user = federation.founded.users["mallory"]
    link = federation.links["anna"]
    await link.write(lambda: compose.remove_member(anna, chat, user, now()))
    await link.write(lambda: compose.send(anna, chat, Text("without her", None), now(), None))
    await eventually(one_settled(link), "the removal and what follows are stored")
    assert await _is_out(federation, forger)
    before = federation.entries("north", chat)
    stored = federation.node().replica.store.chat(chat)
    assert stored is not None
    last = stored.chains[anna.key, CONTENT][0]
    want = Want(chat, anna.key, CONTENT, last.head[:8], last.length - 1, last.length)
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(newest(backdated), newest(control), want, Ping())
        absent = await wire.hear(Absent)
        await wire.quiet(0.2)
        listed = [one for frame in wire.heard if isinstance(frame, Heads) for one in frame.chats]
        assert absent == Absent(chat, anna.key, CONTENT, want.start)
        assert not any(isinstance(frame, Run | Seals) for frame in wire.heard)
        heads = [head for one in listed if one.chat == chat for head in one.heads]
        assert all(head.lane == CONTROL for head in heads)
    assert federation.entries("north", chat) == before


async def test_the_removed_are_told(federation: Federation) -> None:
    """SPEC 6.3: also where an agency has no member left, the removal is shown; and no more."""
    anna, boris = federation.honest["anna"], federation.honest["boris"]
    chat, link = federation.founded.open, federation.links["anna"]
    for user in ("mallory", "boris"):
        who = federation.founded.users[user]
        await link.write(partial(compose.remove_member, anna, chat, who, now()))
        await link.write(partial(say, anna, chat, f"without {user}"))
    await eventually(one_settled(link), "the removals and what follows are stored")
    mallory = federation.device("mallory")
    async with linked(mallory):
        for device in (mallory, boris):
            await eventually(partial(_knows_itself_out, device, chat), "the removed knows")
        await federation.more_messages(2)
    lengths = [_control_length(device, chat, anna.key) for device in (mallory, boris, anna)]
    mallory.close()
    assert lengths == sorted({*lengths})


async def test_the_removed_are_told_over_a_standing_session(federation: Federation) -> None:
    """SPEC 6.3: nobody has to connect anew, or to hear of another chat, to learn of it."""
    await federation.finish()
    anna, boris = federation.device("anna"), federation.device("boris")
    chat, who = federation.founded.open, federation.founded.users["boris"]
    async with linked(anna) as link, linked(boris) as standing:
        for one in (link, standing):
            await one.greeted.wait()
            await eventually(one_settled(one), "all is stored")
        await link.write(partial(compose.remove_member, anna, chat, who, now()))
        await eventually(partial(_knows_itself_out, boris, chat), "the removed knows")
    for device in (anna, boris):
        device.close()


async def _knows_itself_out(device: Device, chat: ChatId) -> bool:
    judge = device.replica.chat(chat)
    return judge is not None and device.key not in judge.membership().devices


def _control_length(device: Device, chat: ChatId, author: DeviceKey) -> int:
    judge = device.replica.chat(chat)
    assert judge is not None
    return judge.history.length(author)


async def _is_out(federation: Federation, forger: Forger) -> bool:
    return forger.device.key not in await federation.devices_in(forger.chat)


async def test_a_revoked_device(federation: Federation) -> None:
    """Case 47: its session ends at once, it is refused, and so it is after a restart."""
    async with federation.as_device() as wire:
        await wire.greet()
        await federation.node()._operate("revoke", {"user": "mallory@north"})
        await wire.end()
    await _is_refused(federation)
    await federation.finish()
    await federation.restart("north")
    await _is_refused(federation)


@pytest.mark.parametrize("by", ["operator", "user"])
async def test_a_revoked_device_with_a_session_in_reserve(
    federation: Federation, forger: Forger, by: str
) -> None:
    """Case 47: one that is accepted, and has not greeted, is no way around."""
    node, secrets, key = federation.node(), forger.device.secrets, forger.device.key
    async with federation.as_device() as wire, federation.as_device() as reserve:
        await wire.greet()

        async def accepted() -> bool:
            return node._held[key] == 2

        await eventually(accepted, "both are accepted")
        if by == "user":
            assert secrets.user is not None
            signature = identity.sign_revocation(secrets.user, federation.agency("north").id, key)
            await wire.ask(*encode_question(GiveUp(key, signature)))
        else:
            await node._operate("revoke", {"user": "mallory@north"})
        await wire.end()
        with suppress(Gone):
            await reserve.greet()
        await reserve.end()


async def test_a_device_given_up_by_its_user(federation: Federation, forger: Forger) -> None:
    """Case 47: the user's own word ends the session of the device, too."""
    secrets = forger.device.secrets
    assert secrets.user is not None
    key = forger.device.key
    signature = identity.sign_revocation(secrets.user, federation.agency("north").id, key)
    topic, body = encode_question(GiveUp(key, signature))
    async with federation.as_device() as idle, federation.as_device() as wire:
        await idle.greet()
        await wire.greet()
        assert (await wire.ask(topic, body)).code == 0
        await idle.end()
    await _is_refused(federation)


async def test_a_device_gives_itself_up(federation: Federation) -> None:
    """Case 47: it leaves its chats, everyone sees that, and then its node refuses it."""
    mallory, chat = federation.device("mallory"), federation.founded.open
    async with linked(mallory) as link:
        await link.write(partial(revoke_own, mallory, mallory.key, now()))
        await tell_node(mallory, link, mallory.key, 10)
    key = mallory.key
    mallory.close()
    for device in federation.honest.values():

        async def gone(device: Device = device) -> bool:
            judge = device.replica.chat(chat)
            return judge is not None and key not in judge.membership().devices

        await eventually(gone, "the others know")
    await _is_refused(federation)


async def _is_refused(federation: Federation) -> None:
    """The handshake may seem to succeed at the client's end; nothing comes after it."""
    async with federation.as_device() as wire:
        with pytest.raises(Gone):
            await wire.next()
