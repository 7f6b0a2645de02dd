"""Keys that are handed out and asked for at a visit (SPEC 4.6).

What another agency's node answers, ours passes on as it is (SPEC 7.4).
"""

from collections.abc import Awaitable, Callable
from itertools import cycle

import pytest
from trio.testing import memory_stream_pair

from client import compose, grants
from client.device import Device
from client.exchange import hand_out, receive
from client.link import Link, over
from client.linking import History, take_parcels
from protocol.entry import ChatId
from protocol.frame import Answer
from protocol.policy import Role
from protocol.question import Forward, GetParcels, PutParcel, Question, Taken
from protocol.reply import Done, Parcel, Parcels, Reply
from tests.client.channels import follow
from tests.client.post import Post
from tests.federation import Federation, now

Node = Callable[[int, bytes], Awaitable[Answer]]


async def visit(device: Device, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand out over a session with a node that answers so."""
    ours, theirs = memory_stream_pair()
    async with over(device, ours) as link:
        monkeypatch.setattr(link.connection, "ask", node)
        link.greeted.set()
        await hand_out(device, link)
    await theirs.aclose()


@pytest.mark.parametrize(
    ("code", "refused"), [(0, 1), (1, 1), (3, 0), (4, 1), (5, 1), (7, 1), (8, 1)]
)
async def test_no_answer_ends_a_visit(
    anna: Device,
    channel: ChatId,
    code: int,
    refused: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(_topic: int, _body: bytes) -> Answer:
        return Answer(0, code, b"no array")

    await visit(anna, answer, monkeypatch)
    assert anna.connection.execute("SELECT chat, refused FROM owed").get == (channel, refused)


async def test_a_node_that_does_not_answer_is_asked_once(
    anna: Device,
    dina: Device,
    channel: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one visit; what is for others there stays owed."""
    with anna.transaction():
        compose.add_members(anna, channel, [(dina.profile.user.user, Role.READER)], now())
    asked: list[bytes] = []

    async def away(_topic: int, body: bytes) -> Answer:
        asked.append(body)
        return Answer(0, 3, b"away")

    await visit(anna, away, monkeypatch)
    assert len(asked) == 1
    owed = anna.connection.execute("SELECT device FROM owed").fetchall()
    assert len(owed) == 2


async def test_what_others_wait_for_goes_before_what_is_asked(
    anna: Device, vera: Device, channel: ChatId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: with room for one parcel two asked each other for ever (9800526)."""
    question = Forward(channel, vera.profile.charter.agency, vera.key, b"asked")
    monkeypatch.setattr("client.grants.asks", lambda *_: [question])
    sent: list[bytes] = []

    async def answer(_topic: int, body: bytes) -> Answer:
        sent.append(body)
        return Answer(0, 0, b"\x90")

    await visit(anna, answer, monkeypatch)
    assert [b"asked" in body for body in sent] == [False, True]


async def test_keys_that_come_before_their_channel_wait_for_it(
    federation: Federation,
    post: Post,
    anna: Device,
    vera: Device,
    channel: ChatId,
) -> None:
    """The log is longer than what a visit brings over a thin line, and the grant is short."""
    federation.say(anna, channel, "one")
    with anna.transaction():
        (errand,) = grants.due(anna, now())
    history, post.caught_up = History(), False
    async with post.link(vera) as link:
        await link.ask(PutParcel(vera.key, errand.question.body))
        await take_parcels(vera, link, history)
        follow(federation, anna, vera)
        post.caught_up = True
        await take_parcels(vera, link, history)
        await receive(vera, link)
    assert (federation.texts(vera, channel), history.refused) == (["one"], [])


async def test_keys_come_beside_what_is_not_believed(
    federation: Federation,
    anna: Device,
    vera: Device,
    channel: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation.say(anna, channel, "one")
    follow(federation, anna, vera)
    with anna.transaction():
        (errand,) = grants.due(anna, now())
    waiting = [Parcel(1, b"no parcel"), Parcel(2, errand.question.body)]

    async def answer(question: Question) -> Reply:
        match question:
            case GetParcels():
                return Parcels(tuple(waiting))
            case Taken(numbers):
                waiting[:] = [one for one in waiting if one.number not in numbers]
            case _:
                pass
        return Done()

    ours, theirs = memory_stream_pair()
    history = History()
    async with over(vera, ours) as link:
        monkeypatch.setattr(link, "ask", answer)
        monkeypatch.setattr(Link, "caught_up", True)
        await take_parcels(vera, link, history)
        await receive(vera, link)
    assert (federation.texts(vera, channel), len(history.refused)) == (["one"], 1)
    await theirs.aclose()


async def test_who_is_away_is_in_nobodys_way(
    federation: Federation,
    anna: Device,
    vera: Device,
    channel: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: beside many keys for who is away, others got none if refused once (9911065)."""
    egor = federation.official("egor@minzdrav")
    with anna.transaction():
        compose.add_members(anna, channel, [(egor.profile.user.user, Role.READER)], now())
        (errand,) = (one for one in grants.due(anna, now()) if one.question.device == egor.key)
        grants.refused(anna, errand)
    due, firsts = grants.due, cycle((vera.key, egor.key))

    def due_in_turn(device: Device, at: int) -> list[grants.Errand]:
        first = next(firsts)
        monkeypatch.setattr(device, "random", lambda _: first)
        return due(device, at)

    async def answer(_topic: int, body: bytes) -> Answer:
        return Answer(0, 3, b"away") if bytes(vera.key) in body else Answer(0, 0, b"\x90")

    monkeypatch.setattr(grants, "GRANTS_AT_ONCE", 1)
    monkeypatch.setattr(grants, "due", due_in_turn)
    await visit(anna, answer, monkeypatch)
    assert anna.connection.execute("SELECT device FROM owed").fetchall() == [(vera.key,)]
