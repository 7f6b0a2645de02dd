"""Whoever is in a chat reads whoever writes there, though neither has ever named the other."""

from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial

import pytest

from client import compose, epochs, grants, mailbox, people
from client.device import Device
from client.epochs import closed_to, fitting, let_all_read, own_prekey, start_epoch
from client.exchange import reach_more, visit
from client.federated import trusted
from client.linking import bring_in
from crypto.sealing import PREKEY_BYTES
from crypto.signing import Signer
from node.agency import DATABASE_FILE
from node.database import connect
from node.errors import NetworkError, RefusedError
from protocol import keygrant
from protocol.armour import armour
from protocol.identity import UserId, sign_prekey
from protocol.limits import PREKEY_ERASE_SECONDS
from protocol.message import Text
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.question import Question
from protocol.reply import Reply
from tests.client.channels import ask, pay
from tests.federation import Federation, now
from tests.hostile.federation import eventually
from tests.realm import AGENCIES, USERS, Realm


async def test_who_has_not_brought_them_in_reaches_all(realm: Realm) -> None:
    """Regression: boris's node knew nobody by clara's id, so boris sealed to anna alone."""
    async with realm.running(), realm.online("boris") as (boris, link):
        await visit(boris, link, 5)
        await link.write(partial(begin_and_write, boris, realm))
        await clara_reads(realm)


async def test_of_many_each_gets_their_seal(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: of many the author's node kept its own devices' seals, so no others ever came."""
    monkeypatch.setattr("node.seals.SEALS_SPREAD_MAX", 1)
    async with realm.running(), realm.online("anna") as (anna, link):
        await visit(anna, link, 5)
        await link.write(partial(begin_and_write, anna, realm))
        await clara_reads(realm)


async def test_seals_come_through_whoever_is_reached(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: of many only the author's node has them, and clara's does not reach that."""
    monkeypatch.setattr("node.seals.SEALS_SPREAD_MAX", 2)
    part(realm, "north", "east")
    async with realm.running(*AGENCIES), realm.online("anna") as (anna, link):
        await visit(anna, link, 5)
        await link.write(partial(begin_and_write, anna, realm))
        await clara_reads(realm)


def begin_and_write(device: Device, realm: Realm) -> None:
    start_epoch(device, compose.require(device, realm.chat), now())
    compose.send(device, realm.chat, Text("to all", None), now(), None)


async def clara_reads(realm: Realm) -> None:
    async with realm.online("clara") as (clara, link):

        async def reads() -> bool:
            await visit(clara, link, 5)
            return await link.journal.read(partial(has_read, clara, realm))

        await eventually(reads, "clara reads what was written")


@pytest.mark.parametrize("earlier", [False, True])
async def test_whom_only_a_third_knows_is_let_in_by_that_one(
    realm: Realm, *, earlier: bool
) -> None:
    """Regression: what anna wrote was closed to clara until boris himself wrote something.

    earlier: it came to boris with a command that only writes, or that was interrupted.
    """
    part(realm, "north", "east")
    async with realm.running(*AGENCIES), realm.online("anna") as (anna, link):

        def skip_clara() -> None:
            anna.connection.execute("UPDATE devices SET prekey = NULL WHERE id != ?", (anna.key,))
            start_epoch(anna, compose.require(anna, realm.chat), now())
            compose.send(anna, realm.chat, Text("not to clara", None), now(), None)

        def write() -> None:
            compose.send(anna, realm.chat, Text("to all", None), now(), None)

        await visit(anna, link, 5)
        await link.write(skip_clara)
        if earlier:
            await it_comes(realm, "boris", mailbox.latest(anna))
        async with realm.online("boris") as (boris, other):

            async def has_let_all_read() -> bool:
                await visit(boris, other, 5)
                await visit(anna, link, 5)
                judge = compose.require(anna, realm.chat)
                best = judge.history.epoch(next(fitting(anna, judge)))
                return best is not None and not best.operation.skipped

            await eventually(has_let_all_read, "boris starts an epoch")
        await link.write(write)
        await clara_reads(realm)


async def it_comes(realm: Realm, user: str, messages: int) -> None:
    async with realm.online(user) as (device, link):

        async def has_come() -> bool:
            return await link.journal.read(partial(mailbox.latest, device)) == messages

        await eventually(has_come, "what was written is here")


def part(realm: Realm, one: str, other: str) -> None:
    """Have two agencies not trust each other."""
    for name, stranger in ((one, other), (other, one)):
        with closing(connect(realm.base / name / DATABASE_FILE, None)) as connection:
            key = (realm.founded.agencies[stranger].id,)
            connection.execute("DELETE FROM cards WHERE id = ?", key)


def has_read(clara: Device, realm: Realm) -> bool:
    letters = mailbox.letters(clara, realm.chat, 9)
    return any(letter.message == Text("to all", None) for letter in letters)


def test_they_are_asked_about_once_in_a_while(
    federation: Federation, anna: Device, boris: Device
) -> None:
    chat = compose.require(anna, federation.chat(anna, "", boris))
    assert not people.strangers(anna, [chat], now())
    anna.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (boris.key,))
    assert people.strangers(anna, [chat], now()) == [boris.profile.user.user]
    people.note_sought(anna, [boris.profile.user.user], now())
    assert not people.strangers(anna, [chat], now())
    assert people.strangers(anna, [chat], now() + people.SEEK_AGAIN_MS)


def test_a_device_of_which_no_key_is_known_is_a_stranger(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Regression: what was said to who had lost a device was closed to the new one for a day."""
    chat = federation.chat(anna, "", boris)
    fresh = federation.recovered(boris)
    federation.carry(anna, fresh)
    with fresh.transaction():
        assert bring_in(fresh, now()) == 1
    anna.connection.execute("DELETE FROM devices WHERE id = ?", (fresh.key,))
    federation.carry(fresh, anna)
    judge = compose.require(anna, chat)
    assert people.strangers(anna, [judge], now()) == [fresh.profile.user.user]
    federation.introduce()
    assert not people.strangers(anna, [judge], now())


@pytest.mark.parametrize(
    "problem", [NetworkError("the connection ended"), RefusedError("this node was brought back")]
)
async def test_they_are_asked_about_again_where_nobody_answered(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """Regression: for ten minutes they were skipped, as if the node had known nobody."""

    async def fail(question: Question) -> Reply:
        del question
        raise problem

    def strangers() -> Sequence[UserId]:
        return people.strangers(boris, boris.chats(), now())

    async with realm.running(), realm.online("boris") as (boris, link):
        await link.settle(5)
        forget = "UPDATE devices SET prekey = NULL WHERE id != ?"
        await link.write(lambda: boris.connection.execute(forget, (boris.key,)))
        with monkeypatch.context() as patch:
            patch.setattr(link, "ask", fail)
            with suppress(NetworkError):
                await link.seek()
        assert len(await link.journal.read(strangers)) == len(USERS) - 1
        await link.seek()
        assert not await link.journal.read(strangers)


async def test_an_agency_that_our_node_trusts_now_is_known_with_the_next_visit(
    realm: Realm,
) -> None:
    """Regression: for a day its members were of an untrusted agency, and were sealed nothing."""
    part(realm, "south", "north")
    north = realm.founded.agencies["north"]
    async with realm.running(*AGENCIES), realm.online("boris") as (boris, link):

        def forget_north() -> None:
            boris.connection.execute("DELETE FROM cards WHERE id = ?", (north.id,))
            boris.connection.execute("UPDATE devices SET prekey = NULL WHERE id != ?", (boris.key,))

        def strangers() -> Sequence[UserId]:
            return people.strangers(boris, boris.chats(), now())

        await visit(boris, link, 5)
        await link.write(forget_north)
        await visit(boris, link, 5)
        assert not trusted(boris, north.id)
        for name, other in (("south", "north"), ("north", "south")):
            card = realm.founded.agencies[other].card
            given = {"card": armour("CARD", card.raw), "fingerprint": card.charter.fingerprint}
            await realm.nodes[name]._operate("trust", given)
        await visit(boris, link, 5)
        assert trusted(boris, north.id)

        async def knows_all() -> bool:
            await visit(boris, link, 5)
            return not await link.journal.read(strangers)

        await eventually(knows_all, "anna's key is known")


def test_why_they_cannot_read_is_said(anna: Device, boris: Device) -> None:
    assert "once it is online" in people.why_closed(anna, boris.profile.name)
    anna.connection.execute("DELETE FROM cards WHERE id = ?", (boris.profile.charter.agency,))
    assert "not federated with mincifry" in people.why_closed(anna, boris.profile.name)


def test_who_has_only_a_key_that_is_too_old_is_asked_about(
    federation: Federation, anna: Device, boris: Device
) -> None:
    chat = compose.require(anna, federation.chat(anna, "", boris))
    lasts = PREKEY_ERASE_SECONDS * 1000
    assert not people.strangers(anna, [chat], now())
    know_old_key(anna, boris, now() - lasts + 60_000)
    assert not people.strangers(anna, [chat], now())
    know_old_key(anna, boris, now() - lasts)
    assert people.strangers(anna, [chat], now()) == [boris.profile.user.user]


def test_readers_of_a_channel_may_have_a_key_that_is_too_old(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Nothing is sealed to them."""
    policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
    readers = [(boris.profile.user.user, Role.READER)]
    with anna.transaction():
        chat = compose.new_chat(anna, ChatKind.CHANNEL, "", policy, readers, now())
    know_old_key(anna, boris, 0)
    assert not people.strangers(anna, [compose.require(anna, chat)], now())


def test_a_key_of_a_device_that_is_not_in_the_chat_reaches_nobody(
    federation: Federation, anna: Device, boris: Device
) -> None:
    chat = compose.require(anna, federation.chat(anna, "", boris))
    know_old_key(anna, boris, 0)
    other = Signer(bytes(32))
    anna.connection.execute(
        "INSERT INTO devices (id, user, certificate, prekey)"
        " SELECT ?, user, certificate, ? FROM devices WHERE id = ?",
        (other.public, sign_prekey(other, bytes(PREKEY_BYTES), now()), boris.key),
    )
    assert people.strangers(anna, [chat], now()) == [boris.profile.user.user]


def know_old_key(device: Device, other: Device, issued: int) -> None:
    """Let a device know of another one only a key of that time."""
    key = sign_prekey(other.secrets.device, bytes(PREKEY_BYTES), issued)
    device.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (key, other.key))


def test_their_names_are_those_in_the_chat(
    federation: Federation, anna: Device, boris: Device
) -> None:
    federation.chat(anna, "", boris)
    user = boris.profile.user.user
    anna.connection.execute("DELETE FROM users WHERE id = ?", (user,))
    assert people.names_of(anna, [user, UserId(bytes(32))]) == (boris.profile.name,)


def test_an_epoch_that_skips_who_is_known_by_now_is_left(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Once: who knows no more than its author goes on in it."""
    clara = federation.official("clara@minzdrav")
    chat = federation.chat(anna, "", boris, clara)
    federation.carry(anna, boris)
    federation.carry(anna, clara)
    key = (clara.key,)
    (kept,) = boris.connection.execute("SELECT prekey FROM devices WHERE id = ?", key)
    boris.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", key)
    with boris.transaction():
        skips = start_epoch(boris, compose.require(boris, chat), now())
    federation.say(boris, chat, "not to clara")
    assert closed_to(boris, compose.require(boris, chat)) == [clara.profile.name]
    assert boris.replica.last_epoch(chat, boris.key) == skips
    boris.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (*kept, *key))
    federation.say(boris, chat, "to clara")
    assert not closed_to(boris, compose.require(boris, chat))
    reaches = boris.replica.last_epoch(chat, boris.key)
    assert reaches != skips
    federation.say(boris, chat, "and again")
    assert boris.replica.last_epoch(chat, boris.key) == reaches
    federation.carry(boris, clara)
    assert federation.texts(clara, chat) == ["to clara", "and again"]


@pytest.mark.parametrize("federated", [True, False])
def test_who_was_skipped_is_granted_the_keys(
    federation: Federation, anna: Device, boris: Device, *, federated: bool
) -> None:
    """Regression: what an epoch skipped stayed closed for good, as for who was away for long.

    By its author, or by another whose agency is federated with theirs.
    """
    clara = federation.official("clara@mvd")
    chat = federation.chat(boris, "", anna, clara)
    for member in (anna, clara):
        federation.carry(boris, member)
    boris.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (clara.key,))
    with boris.transaction():
        start_epoch(boris, compose.require(boris, chat), now())
    for text in ("one", "two"):
        federation.say(boris, chat, text)
    federation.carry(boris, anna)
    federation.carry(boris, clara)
    assert {one.state for one in mailbox.letters(clara, chat, 9)} == {mailbox.State.SEALED}
    granter = boris if federated else anna
    if not federated:
        agency = boris.profile.charter.agency
        clara.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
    assert ask(clara, granter) == 1
    assert pay(granter, clara) == 1
    with clara.transaction():
        mailbox.open_waiting(clara)
    assert federation.texts(clara, chat) == ["one", "two"]
    federation.say(clara, chat, "heard")
    federation.carry(clara, boris)
    assert federation.texts(boris, chat)[-1] == "heard"


def test_who_came_in_later_is_granted_nothing(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Nor who was never skipped: only whom the epoch names as skipped."""
    clara = federation.official("clara@mvd")
    dora = federation.official("dora@minzdrav")
    chat = federation.chat(boris, "", anna, clara)
    federation.carry(boris, anna)
    boris.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (clara.key,))
    with boris.transaction():
        epoch = start_epoch(boris, compose.require(boris, chat), now())
    federation.say(boris, chat, "before")
    with boris.transaction():
        compose.add_members(boris, chat, [(dora.profile.user.user, Role.MEMBER)], now())
    for reader in (anna, dora):
        federation.carry(boris, reader)
        question = keygrant.sign_ask(
            reader.secrets.device, chat, [epoch], boris.key, own_prekey(reader, now())
        )
        with boris.transaction():
            grants.take(boris, question)
        assert pay(boris, reader) == 0
    assert "before" not in federation.texts(dora, chat)


def test_who_was_skipped_is_reached_once_their_key_is_known(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Regression: only once somebody wrote; and who knew the one did not know the other."""
    clara = federation.official("clara@mvd")
    dora = federation.official("dora@minzdrav")
    chat = federation.chat(boris, "", anna, clara, dora)
    for member in (anna, clara, dora):
        federation.carry(boris, member)
    hidden = "UPDATE devices SET prekey = ? WHERE id = ?"
    anna.connection.execute(hidden, (None, dora.key))
    row = boris.connection.execute("SELECT prekey FROM devices WHERE id = ?", (clara.key,)).get
    boris.connection.execute(hidden, (None, clara.key))
    with boris.transaction():
        start_epoch(boris, compose.require(boris, chat), now())
        assert reach_more(boris, now()) == 0
    boris.connection.execute(hidden, (row, clara.key))
    with boris.transaction():
        assert reach_more(boris, now()) == 1
        assert reach_more(boris, now()) == 0
    federation.carry(boris, anna)
    federation.say(anna, chat, "to clara and dora")
    for reader in (clara, dora):
        federation.carry(boris, reader)
        federation.carry(anna, reader)
        assert federation.texts(reader, chat) == ["to clara and dora"]


@pytest.mark.parametrize("few", [9, 2])
def test_who_is_skipped_by_others_is_reached_by_who_knows_them(
    federation: Federation, anna: Device, boris: Device, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Once; among many by who let them in; never by one who would leave out somebody else."""
    monkeypatch.setattr(epochs, "SEALS_SPREAD_MAX", few)
    clara = federation.official("clara@mvd")
    dora = federation.official("dora@minzdrav")
    chat = federation.chat(boris, "", anna, clara, dora)
    federation.carry(boris, anna)
    federation.carry(boris, clara)
    for ignorant, unknown in ((anna, clara), (clara, dora)):
        key = (unknown.key,)
        ignorant.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", key)
    with anna.transaction():
        start_epoch(anna, compose.require(anna, chat), now())
    federation.say(anna, chat, "not to clara")
    federation.carry(anna, clara)
    federation.carry(anna, boris)
    with clara.transaction():
        assert let_all_read(clara, [chat], now()) == 0
    if few == 2:
        federation.carry(anna, dora)
        with dora.transaction():
            assert let_all_read(dora, [chat], now()) == 0
    with boris.transaction():
        assert let_all_read(boris, [chat], now()) == 1
        assert let_all_read(boris, [chat], now()) == 0
    federation.carry(boris, anna)
    federation.say(anna, chat, "to clara")
    federation.carry(boris, clara)
    federation.carry(anna, clara)
    assert federation.texts(clara, chat) == ["to clara"]
