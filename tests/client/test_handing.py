"""A history that is larger than the node's room for it: it goes on as room appears (SPEC 5.6)."""

import pytest
import trio
from trio.testing import MockClock

from client import handing, linking
from client.device import Device, open_device
from client.exchange import tend
from client.linking import History, bring_in, take_history, take_parcels
from client.mailbox import State
from client.revoking import revoke_own
from node.errors import LimitReached, NetworkError, RefusedError
from protocol import reply
from protocol.entry import ChatId
from protocol.identity import request_link
from protocol.invitation import TICKET_BYTES, Invitation, Purpose
from protocol.question import PutParcel, Question
from tests.client.post import Post
from tests.federation import PASSPHRASE, Federation, now

TEXTS = [str(number) for number in range(9)]  # and a title: five parts of two
PARTS = 5


@pytest.fixture
def chat(federation: Federation, anna: Device) -> ChatId:
    made = federation.chat(anna, "Budget")
    for text in TEXTS:
        federation.say(anna, made, text)
    return made


@pytest.fixture
def phone(federation: Federation, anna: Device, chat: ChatId) -> Device:
    del chat
    made = federation.further(anna)
    with anna.transaction():
        bring_in(anna, now())
        handing.begin(anna, made.key)
    federation.carry(anna, made)
    return made


async def test_it_goes_on_where_it_was_the_newest_first(
    federation: Federation, post: Post, anna: Device, phone: Device, chat: ChatId
) -> None:
    """No visit fails for it, and neither device keeps count in memory alone."""
    first, history = anna, History()
    for brought, left, read in ((2, 3, TEXTS[5:]), (2, 1, TEXTS[1:]), (1, 0, TEXTS)):
        async with post.link(first) as link, post.link(phone) as other:
            assert await handing.hand_on(first, link) == brought
            assert await handing.hand_on(first, link) == 0
            assert handing.waiting(first) == left
            await take_parcels(phone, other, history)
        assert (history.parts, history.left, history.complete) == (5, left, left == 0)
        assert federation.texts(phone, chat) == read
        first.close()
        first = open_device(anna.folder, PASSPHRASE, anna.random)
    assert not handing.unfinished(first)
    first.close()


async def test_while_both_are_there_it_comes_whole(
    federation: Federation, post: Post, anna: Device, phone: Device, chat: ChatId
) -> None:
    """Then neither waits any longer, however patient they are."""
    came: list[int] = []
    async with post.link(anna) as link, post.link(phone) as other:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handing.hand_over, anna, link, 3600)
                history = await take_history(phone, other, 3600, lambda one: came.append(one.came))
    assert history.complete
    assert came[-1] == history.came == 5
    assert federation.texts(phone, chat) == TEXTS


async def test_each_part_that_comes_gives_time_for_the_next(
    post: Post,
    anna: Device,
    phone: Device,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a history that comes without a pause, too; the clock moves with its parts alone."""
    came = [0]

    def advance(history: History) -> None:
        if history.came > came[-1]:
            mock_clock.jump(3)
            came.append(history.came)

    async with post.link(anna) as link, post.link(phone) as other:
        ask = other.ask

        async def ask_when_there_is_more(question: Question) -> reply.Reply:
            await handing.hand_on(anna, link)
            return await ask(question)

        monkeypatch.setattr(other, "ask", ask_when_there_is_more)
        history = await take_history(phone, other, 4, advance)
    assert (came, history.complete) == ([0, 2, 4, 5], True)


async def test_each_part_that_is_taken_gives_time_for_the_next(
    post: Post,
    anna: Device,
    phone: Device,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handing, "LOOK_SECONDS", 0)
    async with post.link(anna) as link, post.link(phone) as other:
        ask, history = link.ask, History()

        async def ask_and_make_room(question: Question) -> reply.Reply:
            try:
                return await ask(question)
            except LimitReached:
                mock_clock.jump(3)
                await take_parcels(phone, other, history)
                raise

        monkeypatch.setattr(link, "ask", ask_and_make_room)
        assert await handing.hand_over(anna, link, 4) == 5


async def test_a_history_that_does_not_come_is_not_waited_for(
    post: Post, phone: Device, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "POLL_SECONDS", 0)
    looked: list[int] = []

    def advance(history: History) -> None:
        mock_clock.jump(3)
        looked.append(history.came)

    async with post.link(phone) as other:
        with trio.fail_after(60):
            history = await take_history(phone, other, 7, advance)
    assert (looked, history.complete) == ([0, 0, 0], False)


async def test_what_is_not_believed_is_thrown_away(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    """What else has come is read, and the node is told to forget it all."""
    (strange,) = federation.parcels(boris, phone)
    async with post.link(anna) as link, post.link(phone) as other:
        for parcel in (b"no parcel", strange):
            await other.ask(PutParcel(phone.key, parcel))
        history = History()
        await take_parcels(phone, other, history)
        assert len(history.refused) == 2
        assert await handing.hand_on(anna, link) == 2
        await take_parcels(phone, other, history)
    assert federation.texts(phone, chat) == TEXTS[5:]


async def test_what_the_node_refuses_waits(
    post: Post, anna: Device, phone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been told before us that the new device is revoked."""

    async def refuse(question: Question) -> reply.Reply:
        raise RefusedError(str(question))

    async with post.link(anna) as link:
        monkeypatch.setattr(link, "ask", refuse)
        assert await handing.hand_on(anna, link) == 0
    assert list(handing.owed(anna)) == [phone.key]


async def test_a_device_of_which_no_prekey_is_known_is_owed_all(
    federation: Federation, post: Post, anna: Device, phone: Device
) -> None:
    """It was certified, and has not been there since."""
    anna.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (phone.key,))
    async with post.link(anna) as link:
        assert await handing.hand_on(anna, link) == 0
        federation.introduce()
        assert await handing.hand_on(anna, link) == 2


def link_code(device: Device, expires: int) -> Invitation:
    name, card = device.profile.user.name, device.profile.card
    return Invitation(card, bytes(TICKET_BYTES), Purpose.LINK, name, expires, b"", b"")


async def test_a_code_that_no_device_uses_in_time_is_over(post: Post, anna: Device) -> None:
    async with post.link(anna) as link:
        with trio.fail_after(60), pytest.raises(RefusedError, match="in time"):
            await linking.wait(link, link_code(anna, now() - 1))


async def test_whoever_used_another_code_is_not_it(
    post: Post, anna: Device, phone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    agency, user = anna.profile.charter.agency, anna.profile.user.user
    asked = request_link(phone.secrets.device, user, agency, "phone", now())
    code = link_code(anna, now() + 3_600_000)
    used = [reply.Pending(ticket, asked) for ticket in (bytes([1]) * TICKET_BYTES, code.ticket)]

    async def ask(_: Question) -> reply.Reply:
        return reply.PendingLinks(tuple(used))

    async with post.link(anna) as link:
        monkeypatch.setattr(link, "ask", ask)
        pending, request = await linking.wait(link, code)
    assert pending.ticket == code.ticket
    assert request.device == phone.key


async def test_a_new_device_that_takes_nothing_is_not_waited_for(
    post: Post, anna: Device, phone: Device
) -> None:
    anna.note("refreshed", now())
    async with post.link(anna) as link:
        await tend(anna, link)
        assert handing.waiting(anna) == 3
        with trio.fail_after(60):
            assert await handing.hand_over(anna, link, 0.1) == 0
    (said,) = handing.unfinished(anna)
    assert "3 parts" in said
    assert phone.key in handing.owed(anna)


async def test_what_is_written_meanwhile_moves_no_end(
    federation: Federation, post: Post, anna: Device, phone: Device, chat: ChatId
) -> None:
    """What the device in between can read anew, or no more, is there or is not; the end is seen."""
    history = History()
    async with post.link(anna) as link, post.link(phone) as other:
        await handing.hand_on(anna, link)
        federation.say(anna, chat, "later")
        anna.connection.execute("UPDATE mailbox SET state = ? WHERE no < 6", (State.GONE,))
        await take_parcels(phone, other, history)
        assert await handing.hand_on(anna, link) == 1
        await take_parcels(phone, other, history)
    assert history.complete
    assert not handing.owed(anna)


async def test_what_is_begun_anew_while_the_last_part_goes_is_not_done(
    post: Post, anna: Device, phone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another command, as 'ivor device hand-over' beside 'ivor read --follow'."""
    beside, put = open_device(anna.folder, PASSPHRASE, anna.random), 0
    async with post.link(anna) as link, post.link(phone) as other:
        answered = link.ask

        async def ask(question: Question) -> reply.Reply:
            nonlocal put
            given = await answered(question)
            put += 1
            if put == PARTS:
                with beside.transaction():
                    handing.begin(beside, phone.key)
            await take_parcels(phone, other, History())
            return given

        monkeypatch.setattr(link, "ask", ask)
        assert await handing.hand_on(anna, link) == 2 * PARTS
    beside.close()
    assert not handing.owed(anna)


async def test_a_device_that_was_given_up_gets_nothing_more(
    post: Post, anna: Device, phone: Device
) -> None:
    with anna.transaction():
        revoke_own(anna, phone.key, now())
    async with post.link(anna) as link:
        assert await handing.hand_on(anna, link) == 0
    assert not handing.owed(anna)


async def test_an_answer_that_is_lost_loses_no_history(
    federation: Federation, post: Post, anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that the node has certified is owed it, though whoever asked was killed."""
    phone = federation.further(anna)
    agency, user = anna.profile.charter.agency, anna.profile.user.user
    asked = request_link(phone.secrets.device, user, agency, "phone", now())
    anna.connection.execute("DELETE FROM devices WHERE id = ?", (phone.key,))
    async with post.link(anna) as link:

        async def cut_off(question: Question) -> reply.Reply:
            raise NetworkError(str(question))

        monkeypatch.setattr(link, "ask", cut_off)
        with pytest.raises(NetworkError):
            await linking.approve(anna, link, reply.Pending(bytes(16), asked))
    assert not handing.unfinished(anna)
    federation.introduce()
    assert list(handing.owed(anna)) == [phone.key]
    assert handing.unfinished(anna)
