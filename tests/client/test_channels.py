"""Channels (SPEC 4.6): readers get keys by grants, and only what they may read."""

from dataclasses import replace

import pytest

from client import compose, grants, mailbox, people
from client.device import Device
from client.epochs import start_epoch
from client.linking import bring_in
from client.mailbox import State
from node.errors import IdentityError, RefusedError
from protocol import keygrant
from protocol.entry import CONTROL, ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.identity import sign_prekey, verify_prekey
from protocol.keygrant import ChainKey
from protocol.policy import Role
from tests.client.channels import LATER, ask, deliver, follow, pay
from tests.federation import Federation, now


def epochs(device: Device, chat: ChatId) -> int:
    return compose.require(device, chat).history.epochs.bit_count()


def say_in_epochs(federation: Federation, publisher: Device, chat: ChatId, texts: str) -> None:
    """Say each text in an epoch of its own, and owe nobody the keys."""
    for text in texts:
        federation.say(publisher, chat, text)
        with publisher.transaction():
            start_epoch(publisher, compose.require(publisher, chat), now())
            publisher.connection.execute("DELETE FROM owed")


class TestReading:
    def test_a_reader_reads_by_grants(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, boris, vera)
        assert federation.texts(boris, channel) == ["one"]
        assert federation.texts(vera, channel) == []
        assert pay(anna, vera) == 1
        federation.say(boris, channel, "two")
        follow(federation, boris, vera)
        assert federation.texts(vera, channel) == ["one", "two"]
        assert pay(anna, vera) == 0

    def test_the_epoch_is_sealed_for_publishers_alone(
        self, anna: Device, boris: Device, channel: ChatId
    ) -> None:
        judge = compose.require(anna, channel)
        assert judge.membership().sealed == {anna.key, boris.key}
        assert len(judge.membership().devices) == 3

    def test_who_joins_starts_no_epoch_and_reads_on_from_there(
        self, federation: Federation, anna: Device, boris: Device, dina: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "before")
        started = epochs(anna, channel)
        with anna.transaction():
            compose.add_members(anna, channel, [(dina.profile.user.user, Role.READER)], now())
        federation.say(anna, channel, "after")
        follow(federation, anna, boris, dina)
        assert pay(anna, dina) == 1
        federation.say(boris, channel, "from boris")
        follow(federation, boris, dina)
        assert federation.texts(dina, channel) == ["after", "from boris"]
        assert epochs(anna, channel) == started

    def test_who_join_one_after_the_other_are_kept_one_set_of_keys(
        self, federation: Federation, anna: Device, dina: Device, channel: ChatId
    ) -> None:
        """A thousand readers who come in while nobody writes cost no more than one."""
        egor = federation.official("egor@mincifry")
        federation.say(anna, channel, "before")
        for reader in (dina, egor):
            with anna.transaction():
                joining = [(reader.profile.user.user, Role.READER)]
                compose.add_members(anna, channel, joining, now())
        marks = anna.connection.execute("SELECT count(DISTINCT mark) FROM openings").get
        assert marks == 2, "as the epoch began, and after the message"
        federation.say(anna, channel, "after")
        follow(federation, anna, dina, egor)
        assert pay(anna, dina, egor) == 2
        for reader in (dina, egor):
            follow(federation, anna, reader)
            assert federation.texts(reader, channel) == ["after"]

    def test_who_joins_gets_no_key_of_what_was_before(
        self, federation: Federation, anna: Device, dina: Device, channel: ChatId
    ) -> None:
        with anna.transaction():
            grants.due(anna, now())
            anna.connection.execute("DELETE FROM owed")
        federation.say(anna, channel, "before")
        with anna.transaction():
            compose.add_members(anna, channel, [(dina.profile.user.user, Role.READER)], now())
        federation.say(anna, channel, "after")
        with anna.transaction():
            (errand,) = grants.due(anna, now())
        found = keygrant.read(errand.question.body)
        assert isinstance(found, keygrant.Granted)
        private = dina.connection.execute("SELECT private FROM prekeys").get
        assert keygrant.open_grant(found, private)[anna.key].generation == 1

    def test_a_reader_that_was_away_reads_a_later_epoch_from_its_beginning(
        self, federation: Federation, anna: Device, vera: Device, dina: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, vera)
        pay(anna, vera)
        with anna.transaction():
            compose.add_members(anna, channel, [(dina.profile.user.user, Role.MEMBER)], now())
        federation.say(anna, channel, "two")
        federation.say(anna, channel, "three")
        follow(federation, anna, vera)
        assert federation.texts(vera, channel) == ["one"]
        assert pay(anna, vera) == 1
        follow(federation, anna, vera)
        assert federation.texts(vera, channel) == ["one", "two", "three"]

    def test_any_publisher_answers_who_asks(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        follow(federation, anna, boris)
        federation.say(anna, channel, "lost with the device that started the epoch")
        federation.say(boris, channel, "kept")
        follow(federation, anna, vera)
        follow(federation, boris, vera)
        assert ask(vera, boris) == 0  # the epoch's author is asked first
        assert ask(vera, boris) == 0  # and not again at once
        assert ask(vera, boris, at=now() + LATER) == 1
        assert pay(boris, vera) == 1
        federation.say(boris, channel, "more")
        follow(federation, boris, vera)
        texts = federation.texts(vera, channel)
        assert texts[-1] == "more"

    def test_what_one_publisher_is_asked_for_goes_in_one_question(
        self,
        federation: Federation,
        anna: Device,
        vera: Device,
        channel: ChatId,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        say_in_epochs(federation, anna, channel, "012")
        follow(federation, anna, vera)
        monkeypatch.setattr(grants, "EPOCHS_ASKED_MAX", 2)
        assert [ask(vera, anna), ask(vera, anna)] == [1, 1]
        assert pay(anna, vera) == 3
        follow(federation, anna, vera)
        assert federation.texts(vera, channel) == ["0", "1", "2"]

    def test_what_nobody_answers_does_not_keep_the_rest_from_being_asked(
        self,
        federation: Federation,
        anna: Device,
        vera: Device,
        channel: ChatId,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        say_in_epochs(federation, anna, channel, "012")
        follow(federation, anna, vera)
        monkeypatch.setattr(grants, "EPOCHS_ASKED_MAX", 1)
        monkeypatch.setattr(grants, "ASKS_AT_ONCE", 1)
        asked: set[EntryId] = set()
        for visit in range(3):
            with vera.transaction():
                (question,) = grants.asks(vera, now() + visit * LATER)
            found = keygrant.read(question.body)
            assert isinstance(found, keygrant.Asked)
            asked |= {*found.epochs}
        assert len(asked) == 3

    def test_a_reader_whose_clock_was_years_ahead_asks_again(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, boris, vera)
        assert ask(vera, boris, at=now() + 3650 * 24 * LATER) == 0  # anna was asked, who is away
        assert ask(vera, boris) == 1
        assert pay(boris, vera) == 1

    def test_who_is_federated_with_another_agency_asks_again_at_once(
        self, federation: Federation, anna: Device, vera: Device, channel: ChatId
    ) -> None:
        """Until then it was asked in vain, and so ever more rarely."""
        federation.say(anna, channel, "one")
        follow(federation, anna, vera)
        publishers = federation.agencies["minzdrav"]
        assert ask(vera) == 0
        with vera.transaction():
            people.keep_card(vera, publishers.card.raw)  # it was known, so nothing has changed
        assert ask(vera, anna) == 0
        vera.connection.execute("DELETE FROM cards WHERE id = ?", (publishers.id,))
        with vera.transaction():
            people.keep_card(vera, publishers.card.raw)
        assert ask(vera, anna) == 1

    def test_of_whose_node_is_away_it_is_asked_as_often_as_before(
        self, federation: Federation, anna: Device, vera: Device, channel: ChatId
    ) -> None:
        """Regression: a node that was away for days was asked up to 17 hours after it was back."""
        federation.say(anna, channel, "one")
        follow(federation, anna, vera)
        for day in range(12):
            with vera.transaction():
                asked = grants.asks(vera, now() + day * 24 * LATER)
                for one in asked:
                    grants.unheard(vera, one)
            assert asked
        assert ask(vera, anna, at=now() + 11 * 24 * LATER + LATER // 10) == 1
        assert ask(vera, anna, at=now() + 11 * 24 * LATER + LATER // 9) == 0

    def test_a_readers_further_device_reads_on_from_when_it_came_in(
        self, federation: Federation, anna: Device, vera: Device, channel: ChatId
    ) -> None:
        """Vera has brought it in, not anna, who learns of it and is asked only later."""
        federation.say(anna, channel, "before")
        follow(federation, anna, vera)
        phone = federation.further(vera)
        with vera.transaction():
            assert bring_in(vera, now()) == 1
        federation.carry_lane(vera, anna, CONTROL)
        federation.say(anna, channel, "one")
        federation.say(anna, channel, "two")
        follow(federation, anna, phone)
        assert ask(phone, anna) == 1
        assert pay(anna, phone) == 1
        follow(federation, anna, phone)
        assert federation.texts(phone, channel) == ["one", "two"]

    def test_a_reader_does_not_write(
        self, federation: Federation, anna: Device, vera: Device, channel: ChatId
    ) -> None:
        follow(federation, anna, vera)
        pay(anna, vera)
        with pytest.raises(RefusedError, match="may not write"):
            federation.say(vera, channel, "me too")


class TestPuttingOut:
    def test_who_is_out_cannot_read_what_follows(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, boris, vera)
        pay(anna, vera)
        follow(federation, anna, vera)
        started = epochs(anna, channel)
        with anna.transaction():
            compose.remove_member(anna, channel, vera.profile.user.user, now())
        federation.say(anna, channel, "two")
        follow(federation, anna, boris, vera)
        federation.say(boris, channel, "three")
        follow(federation, boris, vera, anna)
        assert epochs(anna, channel) == started + 1
        assert pay(anna, vera) == 0
        assert federation.texts(vera, channel) == ["one"]
        assert federation.texts(boris, channel) == ["one", "two", "three"]

    def test_an_epoch_that_a_removal_ended_is_not_written_in(
        self,
        federation: Federation,
        anna: Device,
        channel: ChatId,
        vera: Device,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A sender that goes on with the old epoch is refused by every judge."""
        federation.say(anna, channel, "one")
        old = anna.replica.last_epoch(channel, anna.key)
        with anna.transaction():
            compose.remove_member(anna, channel, vera.profile.user.user, now())
        monkeypatch.setattr(compose, "epoch_for", lambda *_: old)
        with pytest.raises(RefusedError, match="put out"):
            federation.say(anna, channel, "two")

    def test_who_is_out_is_granted_nothing_and_asks_in_vain(
        self, federation: Federation, anna: Device, vera: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, vera)
        with vera.transaction():
            asked = grants.asks(vera, now())
        assert asked
        with anna.transaction():
            compose.remove_member(anna, channel, vera.profile.user.user, now())
        with pytest.raises(IdentityError, match="outside"):
            deliver(asked, anna)
        assert pay(anna, vera) == 0


def forged(
    granter: Device, reader: Device, chat: ChatId, federation: Federation, epoch: EntryId
) -> bytes:
    """Return a grant of keys that the granter has made up."""
    rows = granter.connection.execute("SELECT device FROM senders WHERE epoch = ?", (epoch,))
    chains = {DeviceKey(row[0]): ChainKey(0, b"x" * 32) for row in rows}
    signer = granter.secrets.device
    return keygrant.seal_grant(signer, chat, epoch, federation.prekey(reader), chains, b"k" * 32)


class TestAttacks:
    def grant(self, anna: Device) -> bytes:
        with anna.transaction():
            (errand,) = grants.due(anna, now())
        return errand.question.body

    def test_a_grant_is_for_one_device(
        self, federation: Federation, anna: Device, vera: Device, dina: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        stolen = self.grant(anna)
        with anna.transaction():
            compose.add_members(anna, channel, [(dina.profile.user.user, Role.READER)], now())
        follow(federation, anna, dina, vera)
        with pytest.raises(IdentityError, match="another device"), dina.transaction():
            grants.take(dina, stolen)
        found = keygrant.read(stolen)
        assert isinstance(found, keygrant.Granted)
        private = dina.connection.execute("SELECT private FROM prekeys").get
        for receiver in (dina.key, vera.key):
            with pytest.raises(PeerError, match="does not open"):
                keygrant.open_grant(replace(found, receiver=receiver), private)

    def test_who_asks_with_no_key_holds_nobody_up(
        self, anna: Device, vera: Device, channel: ChatId
    ) -> None:
        started = compose.require(anna, channel).history.entries[1].id
        no_key = sign_prekey(vera.secrets.device, bytes(1216), now())
        asked = keygrant.sign_ask(vera.secrets.device, channel, [started], anna.key, no_key)
        with anna.transaction():
            grants.take(anna, asked)
            assert grants.due(anna, now()) == []
        assert anna.connection.execute("SELECT count(*) FROM owed").get == 0

    @pytest.mark.usefixtures("channel")
    def test_a_grant_is_for_one_epoch_of_one_chat(self, anna: Device, vera: Device) -> None:
        found = keygrant.read(self.grant(anna))
        assert isinstance(found, keygrant.Granted)
        private = vera.connection.execute("SELECT private FROM prekeys").get
        assert keygrant.open_grant(found, private)
        for other in (
            replace(found, epoch=EntryId(bytes(32))),
            replace(found, chat=ChatId(bytes(32))),
        ):
            with pytest.raises(PeerError, match="does not open"):
                keygrant.open_grant(other, private)

    @pytest.mark.usefixtures("channel")
    @pytest.mark.parametrize("at", [30, 200, 1400, -1])
    def test_any_altered_byte_is_refused(
        self, federation: Federation, anna: Device, vera: Device, at: int
    ) -> None:
        parcel = bytearray(self.grant(anna))
        parcel[at] ^= 1
        follow(federation, anna, vera)
        with pytest.raises((PeerError, IdentityError)), vera.transaction():
            grants.take(vera, bytes(parcel))
        assert vera.connection.execute("SELECT count(*) FROM senders").get == 0

    def test_a_reader_grants_nothing(
        self, federation: Federation, anna: Device, vera: Device, dina: Device, channel: ChatId
    ) -> None:
        with anna.transaction():
            compose.add_members(anna, channel, [(dina.profile.user.user, Role.READER)], now())
        federation.say(anna, channel, "one")
        follow(federation, anna, vera, dina)
        pay(anna, vera)
        epoch = anna.replica.last_epoch(channel, anna.key)
        assert epoch is not None
        parcel = forged(vera, dina, channel, federation, epoch)
        with pytest.raises(IdentityError, match="nobody who may"), dina.transaction():
            grants.take(dina, parcel)

    def test_wrong_keys_are_noticed_named_and_replaced(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        """A publisher who grants wrong keys hides nothing: another's grant opens the message."""
        federation.say(anna, channel, "one")
        follow(federation, anna, boris, vera)
        epoch = anna.replica.last_epoch(channel, anna.key)
        assert epoch is not None
        with vera.transaction():
            grants.take(vera, forged(boris, vera, channel, federation, epoch))
            mailbox.open_waiting(vera)
        assert federation.texts(vera, channel) == []
        assert grants.distrusted(vera, channel) == [(boris.key, epoch)]
        assert ask(vera, anna) == 1
        assert pay(anna, vera) == 1
        with vera.transaction():
            mailbox.open_waiting(vera)
        assert federation.texts(vera, channel) == ["one"]

    def test_the_same_wrong_keys_again_change_nothing(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, boris, vera)
        epoch = anna.replica.last_epoch(channel, anna.key)
        assert epoch is not None
        for _ in range(2):
            with vera.transaction():
                grants.take(vera, forged(boris, vera, channel, federation, epoch))
                mailbox.open_waiting(vera)
        assert [one.state for one in mailbox.letters(vera, channel, 9)] == [State.SEALED]

    def test_an_author_whose_own_grant_fails_is_refused(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
    ) -> None:
        federation.say(anna, channel, "one")
        follow(federation, anna, boris, vera)
        epoch = anna.replica.last_epoch(channel, anna.key)
        assert epoch is not None
        with vera.transaction():
            grants.take(vera, forged(anna, vera, channel, federation, epoch))
            mailbox.open_waiting(vera)
        assert [one.state for one in mailbox.letters(vera, channel, 9)] == [State.REFUSED]
        assert grants.distrusted(vera, channel) == []


def test_a_grant_that_is_refused_is_tried_again_but_not_for_ever(
    anna: Device, channel: ChatId
) -> None:
    """The reader's node may not know the channel yet; a reader that is gone stays refused."""
    del channel
    for _ in range(grants.REFUSALS_MAX):
        with anna.transaction():
            (errand,) = grants.due(anna, now())
            grants.refused(anna, errand)
    with anna.transaction():
        assert grants.due(anna, now()) == []


def test_a_question_carries_the_askers_own_prekey(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    record = verify_prekey(federation.prekey(boris).raw).raw
    asked = keygrant.sign_ask(vera.secrets.device, channel, [EntryId(bytes(32))], anna.key, record)
    with pytest.raises(PeerError, match="another's prekey"):
        keygrant.read(asked)


def test_a_recipient_takes_no_granted_key(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    """SPEC 4.6: it has the epoch's own seal, and a grant could only replace what that gives."""
    with anna.transaction():
        epoch = start_epoch(anna, compose.require(anna, channel), now())
    follow(federation, anna, boris, vera)
    with boris.transaction():
        grants.take(boris, forged(anna, boris, channel, federation, epoch))
    granted = "SELECT count(*) FROM senders WHERE epoch = ? AND granter IS NOT NULL"
    assert boris.connection.execute(granted, (epoch,)).get == 0
