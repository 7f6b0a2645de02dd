"""SPEC 5.6: who joins later reads what a member shares, if the chat's policy allowed it then."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from msgspec import convert

from client import compose, epochs, keeping, mailbox, sharing
from client.device import Device
from client.entries import read_entry
from client.mailbox import State
from client.reading import Reader, letters
from node.errors import RefusedError, UserError
from protocol.disclosure import Disclosed, Share
from protocol.entry import CONTENT, CONTROL, ChatId, EntryId
from protocol.message import Text, decode_message, encode_message
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.federation import Federation, now, runs


def set_history(owner: Device, chat: ChatId, rule: HistoryRule) -> None:
    with owner.transaction():
        policy = compose.require(owner, chat).membership().policy
        keeping.set_policy(owner, chat, replace(policy, history=rule), now())


def add(owner: Device, chat: ChatId, *others: Device) -> None:
    with owner.transaction():
        users = [(other.profile.user.user, Role.MEMBER) for other in others]
        compose.add_members(owner, chat, users, now())


def share(owner: Device, chat: ChatId, last: int = 100) -> sharing.Shared:
    with owner.transaction():
        return sharing.share(owner, chat, last, now())


def opened_by(owner: Device) -> tuple[Disclosed, ...]:
    """All that a device can read, with what proves it."""
    rows = owner.connection.execute(
        "SELECT id, plaintext, frank FROM mailbox WHERE state = ?", (State.OPEN,)
    ).fetchall()
    found = convert(rows, list[tuple[EntryId, bytes, bytes]])
    return tuple(Disclosed(*row) for row in found)


def shares(owner: Device) -> int:
    """How many shares a device has opened: what they hold is another matter."""
    rows = owner.connection.execute("SELECT plaintext FROM mailbox WHERE state = ?", (State.OPEN,))
    return sum(isinstance(decode_message(row[0]), Share) for row in rows)


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    """Two texts from before history was shared, two from after."""
    made = federation.chat(anna, "", boris)
    federation.say(anna, made, "closed 1")
    federation.say(anna, made, "closed 2")
    set_history(anna, made, HistoryRule.SHARED)
    federation.say(anna, made, "open 1")
    federation.say(anna, made, "open 2")
    federation.carry(anna, boris)
    return made


class TestSharing:
    def test_a_joiner_reads_what_was_shareable_and_sees_who_gave_it(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        add(anna, chat, vera)
        federation.carry(anna, vera)
        assert federation.texts(vera, chat) == []
        federation.carry(anna, boris)
        assert share(boris, chat) == sharing.Shared(2, 2)
        federation.carry(boris, vera)
        assert federation.texts(vera, chat) == ["open 1", "open 2"]
        judge = vera.replica.chat(chat)
        assert judge is not None
        reader = Reader(vera, judge, now())
        lines = [reader.line(one) for one in letters(vera, judge, 0, 100)]
        given = [line for line in lines if isinstance(line.letter.message, Text)]
        assert [line.shared and line.shared.name for line in given] == ["boris@mincifry"] * 2
        assert [line.author and line.author.name for line in given] == ["anna@minzdrav"] * 2
        assert isinstance(lines[-1].letter.message, Share)

    def test_what_waits_for_a_seal_that_may_never_come_is_read(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        """The seal is lost with whoever had it; should it come after all, it changes nothing."""
        add(anna, chat, vera)
        federation.say(anna, chat, "its seal is on the way")
        federation.carry(anna, boris)
        with boris.transaction():
            epochs.start_epoch(boris, compose.require(boris, chat), now())
        share(boris, chat, 1)
        for lane in (CONTROL, CONTENT):
            federation.carry_lane(anna, vera, lane)
        assert [one.state for one in mailbox.letters(vera, chat, 1)] == [State.SEALED]
        for source in (boris, anna):
            federation.carry(source, vera)
            assert federation.texts(vera, chat) == ["its seal is on the way"]

    def test_what_is_redacted_while_it_waits_for_its_seal_is_not_taken(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        """Boris has not heard of it, and shares what it said."""
        add(anna, chat, vera)
        place = federation.say(anna, chat, "redacted")
        federation.carry(anna, boris)
        with boris.transaction():
            epochs.start_epoch(boris, compose.require(boris, chat), now())
        share(boris, chat, 1)
        with anna.transaction():
            keeping.redact(anna, chat, place, "wrong", now())
        for lane in (CONTROL, CONTENT):
            federation.carry_lane(anna, vera, lane)
        assert mailbox.letters(vera, chat, 1)[0].state is State.SEALED
        for source in (boris, anna):
            federation.carry(source, vera)
            assert federation.texts(vera, chat) == []
            assert shares(vera) == 0

    def test_not_where_the_policy_says_from_join(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        federation.say(anna, chat, "closed")
        with pytest.raises(RefusedError, match="policy"):
            share(anna, chat)
        set_history(anna, chat, HistoryRule.SHARED)
        with pytest.raises(UserError, match="no earlier message"):
            share(anna, chat)

    def test_nothing_is_shared_twice_and_much_goes_in_parts(
        self, federation: Federation, anna: Device, vera: Device, chat: ChatId
    ) -> None:
        for number in range(12):
            federation.say(anna, chat, f"{number} " + "щ" * 5000)
        add(anna, chat, vera)
        assert share(anna, chat).messages == 14
        assert share(anna, chat).messages == 14
        federation.carry(anna, vera)
        assert len(federation.texts(vera, chat)) == 14


class TestAttacks:
    def test_a_text_that_was_not_signed_is_not_taken(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        add(anna, chat, vera)
        federation.carry(anna, boris)
        federation.carry(anna, vera)
        rows = boris.connection.execute("SELECT id, frank FROM mailbox WHERE frank NOT NULL")
        false = encode_message(Text("never said", None))
        lies = tuple(Disclosed(entry, false, frank) for entry, frank in rows)
        with boris.transaction():
            compose.send(boris, chat, Share(lies), now(), None)
        federation.carry(boris, vera)
        assert federation.texts(vera, chat) == []
        assert shares(vera) == 1

    def test_what_was_closed_stays_so_even_if_a_member_gives_it(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        add(anna, chat, vera)
        federation.carry(anna, boris)
        federation.carry(anna, vera)
        everything = opened_by(boris)
        assert len(everything) == 4
        with boris.transaction():
            compose.send(boris, chat, Share(everything), now(), None)
        federation.carry(boris, vera)
        assert federation.texts(vera, chat) == ["open 1", "open 2"]

    def test_not_into_another_chat(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        add(anna, chat, vera)
        federation.carry(anna, boris)
        federation.carry(anna, vera)
        other = federation.chat(boris, "other", vera)
        with boris.transaction():
            compose.send(boris, other, Share(opened_by(boris)), now(), None)
        federation.carry(boris, vera)
        assert federation.texts(vera, chat) == []
        assert shares(vera) == 1

    def test_an_epoch_must_say_what_the_policy_says(
        self,
        federation: Federation,
        anna: Device,
        boris: Device,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No downgrade: neither closed history made shareable, nor the other way round."""
        chat = federation.chat(anna, "", boris)
        judge = anna.replica.chat(chat)
        assert judge is not None
        turned = SimpleNamespace(SHARED=HistoryRule.FROM_JOIN)
        monkeypatch.setattr(epochs, "HistoryRule", turned)
        with pytest.raises(RefusedError, match="what is shared"), anna.transaction():
            epochs.start_epoch(anna, judge, now())

    def test_a_flip_starts_an_epoch_for_everyone(
        self, federation: Federation, anna: Device, boris: Device, chat: ChatId
    ) -> None:
        before = boris.replica.last_epoch(chat, boris.key)
        federation.say(boris, chat, "under the shared one")
        shared = boris.replica.last_epoch(chat, boris.key)
        federation.carry(boris, anna)
        set_history(anna, chat, HistoryRule.FROM_JOIN)
        federation.carry(anna, boris)
        federation.say(boris, chat, "closed again")
        closed = boris.replica.last_epoch(chat, boris.key)
        assert len({before, shared, closed}) == 3
        judge = boris.replica.chat(chat)
        assert judge is not None
        flags = []
        for one in (shared, closed):
            assert one is not None
            found = judge.history.epoch(one)
            assert found is not None
            flags.append(found.operation.shareable)
        assert flags == [True, False]
        assert mailbox.readable(boris) == 6


def test_a_share_of_more_authors_than_an_entry_links(
    federation: Federation, anna: Device, boris: Device
) -> None:
    authors = [federation.official(f"m{'abcdefghijkl'[n]}@minzdrav") for n in range(9)]
    policy = Policy((federation.zone,), 0, HistoryRule.SHARED)
    users = [(one.profile.user.user, Role.MEMBER) for one in (boris, *authors)]
    with anna.transaction():
        chat = compose.new_chat(anna, ChatKind.GROUP, "", policy, users, now())
    for one in authors:
        federation.carry(anna, one)
        federation.say(one, chat, f"by {one.profile.name}")
        federation.carry(one, boris)
    federation.carry(anna, boris)
    dina = federation.official("dina@mincifry")
    with anna.transaction():
        compose.add_members(anna, chat, [(dina.profile.user.user, Role.MEMBER)], now())
    federation.carry(anna, boris)
    with boris.transaction():
        assert sharing.share(boris, chat, 100, now()).messages == 9
    federation.carry_lane(boris, dina, 0)
    federation._carry_seals(anna, dina)
    (place,) = mailbox.letters(boris, chat, 1)
    linked = {one.device for one in read_entry(boris, chat, place.reference).header.links}
    content = [run for run in runs(boris, chat) if run.lane == 1]
    for run in content:
        if run.device in linked:
            assert federation._bring(dina, run)
    for run in content:
        if run.device == boris.key:
            assert federation._bring(dina, run)
    federation.carry(boris, dina)
    assert len(federation.texts(boris, chat)) == 9
    assert len(federation.texts(dina, chat)) == 9
