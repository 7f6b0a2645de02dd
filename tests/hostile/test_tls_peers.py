"""Hostile cases 37, 38, 56, 57 and 61: who may connect, how often, and what strangers learn."""

import os
import ssl
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from node import service
from node.errors import NetworkError, UserError
from node.service import PEER_CONNECTIONS_MAX
from node.tls import client_context
from protocol.entry import DeviceKey
from protocol.frame import Answer, Ask, Hello, Ping, encode_frame
from protocol.invitation import Purpose
from protocol.name import split_endpoint
from protocol.question import Lookup, encode_question
from protocol.reply import People, decode_answer, encode_answer
from protocol.session import PeerKind
from protocol.topic import Topic
from tests.hostile.federation import (
    INCARNATION,
    PATIENCE_SECONDS,
    Federation,
    Gone,
    Wire,
    dial,
    eventually,
    wire,
)

DESCRIPTORS = Path("/proc/self/fd")
DAY_SECONDS = 24 * 3600


async def test_no_certificate(federation: Federation) -> None:
    """Case 56: a client without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=federation.agency("north").card.ca)
    stream = await dial(federation.agency("north"), context)
    with pytest.raises(Gone):
        await Wire(stream).next()
    await trio.aclose_forcefully(stream)


async def test_other_protocols(federation: Federation) -> None:
    """Case 57: TLS 1.2, frames without TLS, HTTP, nonsense."""
    context = client_context(
        federation.node_credential("rogue"), [federation.agency("north").card.ca]
    )
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(trio.BrokenResourceError):
        await dial(federation.agency("north"), context)
    plain = (
        encode_frame(Hello((1,), INCARNATION, None, 0, bytes(16))),
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
    )
    host, port = split_endpoint(federation.agency("north").card.nodes[0].endpoints[0])
    for raw in plain:
        transport = await trio.open_tcp_stream(host, port)
        async with transport:
            with trio.fail_after(PATIENCE_SECONDS):
                try:
                    await transport.send_all(raw)
                    while await transport.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass


async def test_handshakes_that_never_end(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 38: slots are capped and come free; the sessions that there are go on."""
    monkeypatch.setattr(service, "HANDSHAKE_SECONDS_MAX", 1.0)
    host, port = split_endpoint(federation.agency("north").card.nodes[0].endpoints[0])
    streams = [await trio.open_tcp_stream(host, port) for _ in range(300)]
    await federation.more_messages()
    slots = federation.node()._handshakes
    assert slots.borrowed_tokens <= slots.total_tokens

    async def free() -> bool:
        return not slots.borrowed_tokens

    await eventually(free, "the slots come free")
    for stream in streams:
        await trio.aclose_forcefully(stream)
    async with federation.as_device() as opened:
        await opened.greet()


async def test_all_come_back_at_once(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart whoever finds the slots taken waits for one, and is not turned away.

    The time that it may take to shake hands begins when there is a slot.
    """
    monkeypatch.setattr(service, "SLOT_SECONDS_MAX", 1000.0)
    monkeypatch.setattr(service, "HANDSHAKE_SECONDS_MAX", 1000.0)
    federation.node()._handshakes.total_tokens = 1

    async def come() -> None:
        async with federation.as_device() as opened:
            await opened.greet()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(come)
    assert not any(one["event"] == "connection refused" for one in federation.events)


async def test_a_slot_that_a_stranger_holds(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a slot longer than a handshake may take still has all that time for it."""
    monkeypatch.setattr(service, "HANDSHAKE_SECONDS_MAX", 1.0)
    slots = federation.node()._handshakes
    slots.total_tokens = 1
    host, port = split_endpoint(federation.agency("north").card.nodes[0].endpoints[0])
    strangers = [await trio.open_tcp_stream(host, port) for _ in range(3)]

    async def all_there() -> bool:
        return slots.statistics().tasks_waiting == len(strangers) - 1

    await eventually(all_there, "the strangers wait")
    async with federation.as_device() as opened:
        await opened.greet()
    for stream in strangers:
        await trio.aclose_forcefully(stream)


async def test_nobody_waits_for_a_slot_for_ever(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 38: whoever finds the slots taken for too long is refused."""
    monkeypatch.setattr(service, "SLOT_SECONDS_MAX", 0.1)
    host, port = split_endpoint(federation.agency("north").card.nodes[0].endpoints[0])
    slots = federation.node()._handshakes
    slots.total_tokens = 1
    holder = await trio.open_tcp_stream(host, port)

    async def taken() -> bool:
        return not slots.available_tokens

    await eventually(taken, "the slot is taken")
    async with await trio.open_tcp_stream(host, port) as waiting:
        with trio.fail_after(PATIENCE_SECONDS):
            with suppress(trio.BrokenResourceError):
                assert await waiting.receive_some() == b""
    await trio.aclose_forcefully(holder)


def _descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


async def test_connections_come_and_go(federation: Federation) -> None:
    """Case 37: nothing is left of them."""
    before = _descriptors()
    for _ in range(10):
        async with federation.as_device() as one, federation.as_node() as other:
            await one.send(Hello((1,), INCARNATION, None, 0, bytes(16)))
            await other.send_raw(b"\x00")

    async def gone() -> bool:
        ours = (federation.agency("rogue").id, _mallory(federation))
        held = federation.node()._held
        return not any(held[key] or federation.node().hub.of(key) for key in ours)

    await eventually(gone, "no session is left")
    await trio.sleep(0.1)
    assert _descriptors() <= before + 4


def _mallory(federation: Federation) -> DeviceKey:
    device = federation.device("mallory")
    device.close()
    return device.key


async def test_one_peer_does_not_take_all_slots(federation: Federation) -> None:
    """Case 37: so many sessions a peer, and no more."""
    credential = federation.device("mallory")
    try:
        async with trio.open_nursery() as nursery:
            greeted = []

            async def occupy() -> None:
                async with wire(federation.agency("north"), credential.credential) as opened:
                    try:
                        await opened.greet()
                        greeted.append(opened)
                        await trio.sleep_forever()
                    except Gone:
                        return

            for _ in range(PEER_CONNECTIONS_MAX + 6):
                nursery.start_soon(occupy)

            async def settled() -> bool:
                return len(greeted) == PEER_CONNECTIONS_MAX

            await eventually(settled, "as many sessions as are allowed")
            await trio.sleep(0.2)
            assert len(greeted) == PEER_CONNECTIONS_MAX
            await greeted[0].send(Ping())
            nursery.cancel_scope.cancel()
    finally:
        credential.close()


async def _asked_of(wire: Wire) -> Ask:
    """Return the next question for a user."""
    while True:
        ask = await wire.hear(Ask)
        assert isinstance(ask, Ask)
        if ask.topic == Topic.LOOKUP:
            return ask


async def test_a_question_outlives_its_session(federation: Federation) -> None:
    """An agency dials anew before it has answered: the question goes to the session that stays."""

    async def look_up() -> None:
        with pytest.raises(UserError, match="rogue has enrolled nobody of that name"):
            await federation.links["anna"].look_up(["eve@rogue"])
        answered.set()

    answered = trio.Event()
    async with (
        federation.as_node() as first,
        federation.as_node() as second,
        trio.open_nursery() as nursery,
    ):
        await first.greet()
        await federation.session_of(federation.agency("rogue").id)
        nursery.start_soon(look_up)
        asked = await _asked_of(first)
        await second.greet()
        await trio.aclose_forcefully(first.stream)
        again = await _asked_of(second)
        assert again.body == asked.body
        assert not answered.is_set()
        nobody = encode_answer(People((None,)))
        await second.send(Answer(again.number, 0, nobody))


async def test_who_could_not_be_asked(federation: Federation) -> None:
    """It is told apart from a name that nobody has; who is known from before is known still."""
    anna = federation.links["anna"]
    with pytest.raises(NetworkError, match="the node of rogue cannot be reached"):
        await anna.look_up(["zoya@rogue"])
    with pytest.raises(UserError, match="your agency has enrolled nobody"):
        await anna.look_up(["zoya@north"])
    assert await anna.look_up(["boris@south"]) == [federation.founded.users["boris"]]


async def test_does_a_user_exist(federation: Federation) -> None:
    """Case 61: who was invited gets one answer about everybody, here or elsewhere or nowhere."""
    users = (federation.founded.users["anna"], federation.founded.users["boris"])
    asked = (
        Lookup(names=("anna@north",)),
        Lookup(names=("nobody@north",)),
        Lookup(names=("boris@south",)),
        Lookup(names=("nobody@nowhere",)),
        Lookup(users=users[:1]),
        Lookup(users=users[1:]),
    )
    answers = set()
    for question in asked:
        async with federation.as_invited() as opened:
            answer = await opened.ask(*encode_question(question))
            answers.add((answer.code, answer.body))
    assert len(answers) == 1
    worked = [
        await federation.node().journal.write(partial(work, federation, question))
        for question in asked
    ]
    assert worked[0]
    assert worked.count(worked[0]) == len(asked), "it takes one time"
    nodes = set()
    for name in ("nobody@north", "boris@south", "nobody@nowhere"):
        async with federation.as_node() as opened:
            await opened.greet()
            answer = await opened.ask(*encode_question(Lookup(names=(name,))))
            nodes.add((answer.code, answer.body))
            assert decode_answer(Topic.LOOKUP, answer.code, answer.body) == People((None,))
    assert len(nodes) == 1


def work(federation: Federation, question: Lookup) -> list[str]:
    """Answer one who was invited; return what the database was asked for it."""
    directory, connection = federation.node().directory, federation.node().replica.store.connection
    statements: list[str] = []

    def note(_cursor: object, statement: str, _values: object) -> bool:
        statements.append(statement)
        return True

    invitation = directory.registrar.invite("eve", Purpose.FIRST_DEVICE, time.time(), DAY_SECONDS)
    connection.exec_trace = note
    try:
        ask = Ask(1, *encode_question(question))
        answer = directory.answer(PeerKind.INVITATION, invitation.ticket, ask, time.time())
    finally:
        connection.exec_trace = None
    assert answer.code != 0
    return statements
