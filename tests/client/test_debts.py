"""What opens on one device of a user and not on another, handed over later (SPEC 5.6)."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from cli.letters import record
from client import compose, grants, handing, people
from client.arrivals import take_in
from client.device import Device, open_device
from client.epochs import make_prekey, start_epoch
from client.linking import History, bring_in, take_parcels
from client.mailbox import State, letters
from client.reading import Reader
from client.revoking import revoke_own
from client.sharing import share
from node.errors import NetworkError
from protocol.entry import ChatId
from protocol.limits import PREKEY_ERASE_SECONDS, PREKEY_RENEW_SECONDS
from protocol.person import Person, PersonDevice
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.question import Question
from protocol.reply import Reply
from tests.cheating import seal_wrongly
from tests.client.channels import LATER, ask, deliver, pay
from tests.client.post import Post
from tests.federation import PASSPHRASE, Federation, now

WEEK_MS = PREKEY_RENEW_SECONDS * 1000
ERASED_MS = PREKEY_ERASE_SECONDS * 1000


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    made = federation.chat(anna, "Budget", boris)
    federation.carry(anna, boris)
    return made


@pytest.fixture
def phone(federation: Federation, anna: Device, chat: ChatId) -> Device:
    """Anna's, in the chat, with her history; boris has not heard of it."""
    del chat
    made = federation.further(anna)
    with anna.transaction():
        bring_in(anna, now())
    federation.carry(anna, made)
    return made


def with_phone(federation: Federation, anna: Device, boris: Device) -> tuple[ChatId, Device]:
    """A chat of the two, and a phone of anna's in it of which boris has heard."""
    chat = federation.chat(anna, "", boris)
    phone = federation.further(anna)
    with anna.transaction():
        bring_in(anna, now())
    federation.carry(anna, phone)
    federation.carry(anna, boris)
    return chat, phone


def channel_of(
    federation: Federation, boris: Device, anna: Device, role: Role
) -> tuple[ChatId, Device]:
    """A channel of boris in which anna has this role, and a phone of hers that is new in it."""
    policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
    members = [(anna.profile.user.user, role)]
    with boris.transaction():
        channel = compose.new_chat(boris, ChatKind.CHANNEL, "", policy, members, now())
    federation.carry(boris, anna)
    phone = federation.further(anna)
    with anna.transaction():
        bring_in(anna, now())
    return channel, phone


def carry_to_both(federation: Federation, boris: Device, anna: Device, phone: Device) -> None:
    for device in (anna, phone):
        federation.carry(boris, device)
        federation.carry(anna, device)


def say_unaware(federation: Federation, boris: Device, chat: ChatId, *others: Device) -> None:
    """Boris writes without having heard of the phone."""
    federation.say(boris, chat, "for whom I know")
    for other in others:
        federation.carry(boris, other)


async def hand_on(post: Post, source: Device, target: Device) -> History:
    """All that the one owes the other, by way of their node, however little room it has."""
    history = History()
    async with post.link(source) as link, post.link(target) as other:
        await take_parcels(target, other, history)
        while await handing.hand_on(source, link):
            await take_parcels(target, other, history)
    return history


def owed(device: Device) -> int:
    return int(device.connection.execute("SELECT count(*) FROM debts").get)


def elsewhere(device: Device, chat: ChatId) -> list[bool]:
    """Of each message, whether it is said to open on another device."""
    reader = Reader(device, compose.require(device, chat), now())
    lines = [reader.line(one) for one in letters(device, chat, 99)]
    return [bool(record(line)["elsewhere"]) for line in lines]


async def test_what_an_author_wrote_who_had_not_heard_of_a_device_is_handed_over(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    say_unaware(federation, boris, chat, anna, phone)
    assert (federation.texts(anna, chat), federation.texts(phone, chat)) == (
        ["for whom I know"],
        [],
    )
    assert elsewhere(phone, chat)[-1]
    history = await hand_on(post, anna, phone)
    assert (history.beside, history.readable, history.complete) == (1, 1, False)
    assert federation.texts(phone, chat) == ["for whom I know"]
    assert not elsewhere(phone, chat)[-1]
    assert not owed(anna)


async def test_once_the_author_has_heard_of_it_nothing_is_owed(
    federation: Federation, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    federation.carry(anna, boris)
    say_unaware(federation, boris, chat, anna, phone)
    assert federation.texts(phone, chat) == ["for whom I know"]
    assert not owed(anna)
    assert not owed(phone)


async def test_what_comes_before_its_entry_waits_for_it(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    say_unaware(federation, boris, chat, anna)
    assert (await hand_on(post, anna, phone)).readable == 0
    federation.carry(boris, phone)
    assert federation.texts(phone, chat) == ["for whom I know"]


async def test_own_messages_too_while_no_prekey_of_the_other_is_known(
    federation: Federation, post: Post, anna: Device, phone: Device, chat: ChatId
) -> None:
    """It is skipped, and reads from the next epoch on; of this one it gets what was said."""
    anna.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (phone.key,))
    with anna.transaction():
        start_epoch(anna, compose.require(anna, chat), now())
    federation.say(anna, chat, "skipped")
    federation.carry(anna, phone)
    assert federation.texts(phone, chat) == []
    assert (await hand_on(post, anna, phone)).beside == 0
    federation.introduce()
    await hand_on(post, anna, phone)
    assert federation.texts(phone, chat) == ["skipped"]


@pytest.mark.parametrize("hidden", [True, False])
async def test_what_was_sealed_wrongly_for_one_another_hands_over(
    federation: Federation,
    post: Post,
    anna: Device,
    boris: Device,
    phone: Device,
    chat: ChatId,
    *,
    hidden: bool,
) -> None:
    """A member cannot keep from one device what another one of its user reads."""
    federation.carry(anna, boris)
    seal_wrongly(federation, boris, chat, phone, hidden=hidden)
    carry_to_both(federation, boris, anna, phone)
    assert federation.texts(anna, chat)[-1] == "secret"
    assert "secret" not in federation.texts(phone, chat)
    assert owed(anna) == 0
    federation.carry(phone, anna)
    assert (owed(anna), elsewhere(phone, chat)[-1]) == (1, True)
    federation.say(boris, chat, "and more")
    carry_to_both(federation, boris, anna, phone)
    await hand_on(post, anna, phone)
    assert federation.texts(phone, chat)[-2:] == ["secret", "and more"]
    assert owed(anna) == 0


async def test_a_reader_of_a_channel_hands_over_what_is_of_an_epoch_before_it_came_in(
    federation: Federation, post: Post, anna: Device, boris: Device
) -> None:
    channel, phone = channel_of(federation, boris, anna, Role.READER)
    federation.say(boris, channel, "unaware")
    with boris.transaction(), anna.transaction():
        for errand in grants.due(boris, now()):
            grants.take(anna, errand.question.body)
    carry_to_both(federation, boris, anna, phone)
    assert (federation.texts(anna, channel), federation.texts(phone, channel)) == (["unaware"], [])
    await hand_on(post, anna, phone)
    assert federation.texts(phone, channel) == ["unaware"]
    federation.carry(anna, boris)
    federation.say(boris, channel, "aware, in that epoch")
    federation.carry(boris, anna)
    assert owed(anna) == 1
    with boris.transaction():
        start_epoch(boris, compose.require(boris, channel), now())
    federation.say(boris, channel, "in one of whose keys it is granted all")
    federation.carry(boris, anna)
    with boris.transaction(), anna.transaction():
        for errand in grants.due(boris, now()):
            if errand.question.device == anna.key:
                grants.take(anna, errand.question.body)
    federation.carry(boris, anna)
    assert len(federation.texts(anna, channel)) == 3
    assert owed(anna) == 1


async def test_a_publisher_hands_over_what_its_other_device_was_skipped_for(
    federation: Federation, post: Post, anna: Device, boris: Device
) -> None:
    """It is granted keys as they stand when it asks, not those of what was said before."""
    channel, phone = channel_of(federation, boris, anna, Role.MEMBER)
    federation.carry(anna, boris)
    boris.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (phone.key,))
    federation.say(boris, channel, "skipped")
    carry_to_both(federation, boris, anna, phone)
    assert federation.texts(anna, channel) == ["skipped"]
    await hand_on(post, anna, phone)
    assert federation.texts(phone, channel) == ["skipped"]


@pytest.mark.parametrize("heir", ["anna", "vera"])
async def test_a_reader_asks_its_owners_other_device_where_no_publisher_is_left(
    federation: Federation, post: Post, anna: Device, boris: Device, vera: Device, heir: str
) -> None:
    """Regression: boris granted anna's first device his keys, and was gone before the second."""
    channel, phone = channel_of(federation, boris, anna, Role.READER)
    federation.carry(anna, boris)
    for at, epoch in enumerate(("before", "lacking", "after")):
        with boris.transaction():
            start_epoch(boris, compose.require(boris, channel), now())
            errands = grants.due(boris, now())
        for word in ("one", "two"):
            federation.say(boris, channel, f"{epoch} {word}")
        carry_to_both(federation, boris, anna, phone)
        granted = (anna, phone) if at != 1 else (anna,)
        deliver([errand.question for errand in errands], *granted)
        with boris.transaction():
            for errand in errands:
                grants.done(boris, errand)
        for device in (anna, phone):
            with device.transaction():
                take_in(device, now())
    assert ask(phone, anna) == 0  # but boris, as long as he is in
    owner = {"anna": anna, "vera": vera}[heir].profile.user.user
    with boris.transaction():
        if heir == "vera":
            compose.add_members(boris, channel, [(owner, Role.READER)], now())
        compose.set_role(boris, channel, owner, Role.OWNER, now())
        compose.leave(boris, channel, now())
    carry_to_both(federation, boris, anna, phone)
    assert (len(federation.texts(anna, channel)), owed(anna)) == (6, 0)
    assert ask(phone, anna, at=now() + LATER) == 1
    assert owed(anna) == 2
    await hand_on(post, anna, phone)
    assert sorted(federation.texts(phone, channel)) == sorted(federation.texts(anna, channel))
    assert ask(phone, anna, at=now() + 9 * LATER) == 0


async def test_it_asks_there_too_for_what_all_publishers_keys_begin_behind(
    federation: Federation, post: Post, anna: Device, boris: Device
) -> None:
    channel, phone = channel_of(federation, boris, anna, Role.READER)
    federation.carry(anna, boris)
    with boris.transaction():
        start_epoch(boris, compose.require(boris, channel), now())
        errands = [one for one in grants.due(boris, now()) if one.question.device == anna.key]
    federation.say(boris, channel, "long ago")
    boris.connection.execute("DELETE FROM openings")
    boris.connection.execute("DELETE FROM prekeys")
    carry_to_both(federation, boris, anna, phone)
    deliver([one.question for one in errands], anna)
    assert ask(phone, boris) == 1
    assert pay(boris, phone) == 1
    for device in (anna, phone):
        with device.transaction():
            take_in(device, now())
    assert [one.state for one in letters(phone, channel, 9)] == [State.UNREADABLE]
    assert federation.texts(anna, channel) == ["long ago"]
    assert ask(phone, anna, at=now() + LATER) == 1
    assert owed(anna) == 1
    await hand_on(post, anna, phone)
    assert federation.texts(phone, channel) == ["long ago"]
    assert ask(phone, boris, anna, at=now() + 9 * LATER) == 0


def shared_by_vera(
    federation: Federation, anna: Device, boris: Device, vera: Device, *texts: str
) -> tuple[ChatId, Device]:
    """A chat in which boris said this before anna was in it, and a phone of hers."""
    policy = Policy((federation.zone,), 0, HistoryRule.SHARED)
    members = [(vera.profile.user.user, Role.MEMBER)]
    with boris.transaction():
        chat = compose.new_chat(boris, ChatKind.GROUP, "", policy, members, now())
    for text in texts:
        federation.say(boris, chat, text)
    with boris.transaction():
        compose.add_members(boris, chat, [(anna.profile.user.user, Role.MEMBER)], now())
    for device in (anna, vera):
        federation.carry(boris, device)
    phone = federation.further(anna)
    with anna.transaction():
        bring_in(anna, now())
    with vera.transaction():
        share(vera, chat, 9, now())
    for source in (anna, vera):
        federation.carry(source, phone)
    federation.carry(vera, anna)
    return chat, phone


async def test_a_share_is_taken_apart_there_too(
    federation: Federation, post: Post, anna: Device, boris: Device, vera: Device
) -> None:
    """What vera shares with who joined later, and anna's phone cannot open."""
    chat, phone = shared_by_vera(federation, anna, boris, vera, "before anna")
    assert federation.texts(anna, chat) == ["before anna"]
    assert federation.texts(phone, chat) == []
    assert (await hand_on(post, anna, phone)).readable == 2
    assert federation.texts(phone, chat) == ["before anna"]


async def test_what_has_no_room_goes_on_later(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    for _ in range(9):
        say_unaware(federation, boris, chat, anna, phone)
    async with post.link(anna) as link:
        assert (await handing.hand_on(anna, link), owed(anna)) == (2, 5)
    assert (await hand_on(post, anna, phone)).beside == 5
    assert len(federation.texts(phone, chat)) == 9


async def test_an_answer_that_is_lost_loses_nothing(
    federation: Federation,
    post: Post,
    anna: Device,
    boris: Device,
    phone: Device,
    chat: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say_unaware(federation, boris, chat, anna, phone)

    async def cut_off(question: Question) -> Reply:
        raise NetworkError(str(question))

    async with post.link(anna) as link:
        monkeypatch.setattr(link, "ask", cut_off)
        with pytest.raises(NetworkError):
            await handing.hand_on(anna, link)
    await hand_on(post, anna, phone)
    assert federation.texts(phone, chat) == ["for whom I know"]


async def test_the_whole_history_includes_it(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    with anna.transaction():
        handing.begin(anna, phone.key)
    say_unaware(federation, boris, chat, anna, phone)
    history = await hand_on(post, anna, phone)
    assert (history.complete, history.beside) == (True, 0)
    assert federation.texts(phone, chat) == ["for whom I know"]


async def test_beside_a_history_it_is_no_part_of_it(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    """Another device hands it over while the history is on its way: that is not over then."""
    for number in range(4):
        federation.say(anna, chat, str(number))
    with anna.transaction():
        handing.begin(anna, phone.key)
    tablet = federation.further(anna)
    with anna.transaction():
        bring_in(anna, now())
    federation.carry(anna, tablet)
    federation.carry(anna, boris)
    tablet.connection.execute("INSERT INTO debts SELECT ?, id FROM mailbox", (phone.key,))
    tablet.connection.execute("UPDATE mailbox SET plaintext = x'93', frank = zeroblob(32)")
    history = History()
    async with post.link(anna) as link, post.link(phone) as other, post.link(tablet) as third:
        assert await handing.hand_on(anna, link) == 2
        await take_parcels(phone, other, history)
        assert await handing.hand_on(tablet, third)
        await take_parcels(phone, other, history)
    assert history.beside
    assert not history.complete
    assert (history.left, history.lost) == (1, 0)


async def test_a_device_that_was_put_out_of_a_chat_is_owed_nothing_of_it(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    """It was caught there; its agency lists it yet."""
    with anna.transaction():
        revoke_own(anna, phone.key, now())
    anna.connection.execute("UPDATE devices SET revoked = 0")
    say_unaware(federation, boris, chat, anna, phone)
    assert not owed(anna)
    anna.connection.execute("INSERT INTO debts SELECT ?, id FROM mailbox", (phone.key,))
    assert (await hand_on(post, anna, phone)).beside == 0
    assert federation.texts(phone, chat) == []


async def test_a_device_that_was_given_up_is_owed_nothing(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    say_unaware(federation, boris, chat, anna)
    assert owed(anna) == 1
    with anna.transaction():
        revoke_own(anna, phone.key, now())
    assert not owed(anna)
    say_unaware(federation, boris, chat, anna)
    assert not owed(anna)
    assert (await hand_on(post, anna, phone)).beside == 0


async def test_a_device_that_is_not_in_the_chat_yet_gets_it_when_it_is(
    federation: Federation, post: Post, anna: Device, boris: Device, chat: ChatId
) -> None:
    phone = federation.further(anna)
    say_unaware(federation, boris, chat, anna)
    assert (await hand_on(post, anna, phone)).beside == 0
    with anna.transaction():
        bring_in(anna, now())
    federation.carry(anna, phone)
    await hand_on(post, anna, phone)
    assert federation.texts(phone, chat) == ["for whom I know"]


async def test_what_is_redacted_or_aged_meanwhile_is_not_handed_over(
    federation: Federation, post: Post, anna: Device, boris: Device, phone: Device, chat: ChatId
) -> None:
    say_unaware(federation, boris, chat, anna, phone)
    anna.connection.execute(
        "UPDATE mailbox SET state = ?, plaintext = NULL, frank = NULL", (State.GONE,)
    )
    assert (await hand_on(post, anna, phone)).beside == 0
    assert not owed(anna)


class TestAway:
    """A device that was off for so long that it has erased what opens what came."""

    def renew(self, federation: Federation, anna: Device, phone: Device, later: int) -> int:
        """The phone is back, and its directory tells anna's laptop of another prekey."""
        at = federation.prekey(phone).issued + later
        with phone.transaction():
            record = make_prekey(phone, at)
        profile = phone.profile
        told = (
            PersonDevice(anna.profile.device_certificate, None),
            PersonDevice(profile.device_certificate, record),
        )
        with anna.transaction():
            people.keep_person(anna, Person(profile.charter.raw, profile.user.raw, told))
        for device in (anna, phone):
            device.replica.payloads.clock = lambda: at
        return at

    async def test_it_gets_what_came_meanwhile(
        self,
        federation: Federation,
        post: Post,
        anna: Device,
        boris: Device,
        phone: Device,
        chat: ChatId,
    ) -> None:
        federation.carry(anna, boris)
        federation.say(boris, chat, "sealed to it")
        federation.carry(boris, anna)
        self.renew(federation, anna, phone, ERASED_MS)
        federation.carry(boris, phone)
        assert federation.texts(phone, chat) == []
        await hand_on(post, anna, phone)
        assert federation.texts(phone, chat) == ["sealed to it"]

    async def test_one_that_came_in_time_is_owed_nothing(
        self, federation: Federation, anna: Device, boris: Device, phone: Device, chat: ChatId
    ) -> None:
        federation.carry(anna, boris)
        federation.say(boris, chat, "sealed to it")
        federation.carry(boris, anna)
        self.renew(federation, anna, phone, ERASED_MS - 1)
        assert not owed(anna)

    async def test_nothing_is_sealed_to_a_prekey_that_may_be_erased_before_it_is_fetched(
        self,
        federation: Federation,
        post: Post,
        anna: Device,
        boris: Device,
        phone: Device,
        chat: ChatId,
    ) -> None:
        say_unaware(federation, boris, chat, anna, phone)
        at = now() + WEEK_MS
        anna.replica.payloads.clock = lambda: at
        assert (await hand_on(post, anna, phone)).beside == 0
        self.renew(federation, anna, phone, WEEK_MS)
        assert (await hand_on(post, anna, phone)).beside == 1
        assert federation.texts(phone, chat) == ["for whom I know"]


async def test_of_two_messages_with_one_key_every_device_reads_both(
    federation: Federation, post: Post, anna: Device, boris: Device, tmp_path: Path
) -> None:
    """A device that was copied: which of its words comes first is chance, for each device anew."""
    chat, phone = with_phone(federation, anna, boris)
    copy = shutil.copytree(boris.folder, tmp_path / "copy")
    with closing(open_device(copy, PASSPHRASE, os.urandom)) as thief:
        with thief.transaction():
            thief.settle_here()  # a thief asks nobody whether it is an old copy
        for one, text in ((boris, "by boris"), (thief, "by a thief")):
            federation.say(one, chat, text)
        for source, target in ((boris, anna), (thief, anna), (thief, phone), (boris, phone)):
            federation.carry(source, target)
    assert federation.texts(anna, chat) == ["by boris"]
    assert federation.texts(phone, chat) == ["by a thief"]
    await hand_on(post, anna, phone)
    await hand_on(post, phone, anna)
    for one in (anna, phone):
        assert sorted(federation.texts(one, chat)) == ["by a thief", "by boris"]
