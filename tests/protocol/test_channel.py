"""Channels (SPEC 4.6): epochs for publishers, an end to them with each departure, key grants."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.archive import seal_bundle
from protocol import case, codec, keygrant
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.epoch import check_departures, check_recipients, eligible
from protocol.errors import Inadmissible, NotCanonical, PeerError
from protocol.history import History
from protocol.identity import verify_prekey
from protocol.keygrant import ChainKey, Granted
from protocol.limits import GRANTS_MAX
from protocol.membership import Void, may_write, resolve, void_reason
from protocol.operation import Admit, Enroll, EpochOperation, Leave, Operation, Remove, SetRole
from protocol.policy import ChatKind, Role
from protocol.testing.cast import credential, grant, person, prekey, prekey_record
from protocol.testing.channels import Channel, reader
from protocol.testing.story import Story, Told, history_of

ANNA, BORIS, VERA = person("anna@mz"), person("boris@mz"), person("vera@mvd")
DINA = person("dina@mvd")
CAST = [(ANNA, Role.OWNER), (BORIS, Role.MEMBER), (VERA, Role.READER)]
READERS = 10_000
CHAT, EPOCH = ChatId(b"c" * 32), EntryId(b"e" * 32)


def begun(kind: ChatKind = ChatKind.CHANNEL) -> tuple[Story, Told]:
    """Return a chat and its first epoch, by anna."""
    story = Story(CAST, kind)
    return story, story.tell(ANNA, story.epoch(ANNA, resolve(story.history()).sealed))


def ends(story: Story, epoch: Told) -> bool:
    """Whether what everybody has seen by now ends an epoch."""
    history = story.history()
    found = history.epoch(epoch.id)
    assert found is not None
    try:
        check_departures(history, found, history.everything)
    except Inadmissible:
        assert eligible(history, history.everything, resolve(history), None, frozenset()) is None
        return True
    return False


class TestEpochs:
    def test_are_for_who_may_write(self) -> None:
        story, epoch = begun()
        sealed = resolve(story.history()).sealed
        assert sealed == {ANNA.devices[0], BORIS.devices[0]}
        operation = epoch.entry.operation
        assert isinstance(operation, EpochOperation)
        check_recipients(operation, sealed)
        with pytest.raises(Inadmissible, match="others than"):
            check_recipients(story.epoch(ANNA, [*sealed, VERA.devices[0]]), sealed)

    def test_in_a_group_readers_are_named(self) -> None:
        story, _ = begun(ChatKind.GROUP)
        assert VERA.devices[0] in resolve(story.history()).sealed

    @pytest.mark.parametrize(
        ("who", "operation"),
        [
            (ANNA, Remove(VERA.user, ())),
            (VERA, Leave()),
            (ANNA, Remove(BORIS.user, ())),
        ],
    )
    def test_end_with_a_departure(self, who: object, operation: Operation) -> None:
        story, epoch = begun()
        assert not ends(story, epoch)
        story.tell(ANNA if who is ANNA else VERA, operation)
        assert ends(story, epoch)
        later = story.tell(ANNA, story.epoch(ANNA, resolve(story.history()).sealed))
        assert not ends(story, later)

    def test_end_with_a_readers_device(self) -> None:
        story, epoch = begun()
        story.tell(VERA, Enroll(credential(VERA, (1,))))
        assert not ends(story, epoch)
        story.tell(VERA, story.revocation(VERA, 1))
        assert ends(story, epoch)

    def test_end_with_who_came_after_they_began(self) -> None:
        """Somebody was granted the keys, and is out: nothing in the epoch's past tells that."""
        story, epoch = begun()
        story.tell(ANNA, Admit((grant(DINA, Role.READER),)))
        assert not ends(story, epoch)
        story.tell(ANNA, Remove(DINA.user, ()))
        assert ends(story, epoch)

    def test_do_not_end_with_what_has_no_effect(self) -> None:
        story, epoch = begun()
        story.tell(BORIS, Remove(VERA.user, ()))
        story.tell(VERA, Remove(BORIS.user, ()))
        assert not ends(story, epoch)

    def test_go_on_for_who_has_not_seen_the_departure(self) -> None:
        story, epoch = begun()
        removal = story.tell(ANNA, Remove(VERA.user, ()))
        history = story.history()
        found = history.epoch(epoch.id)
        assert found is not None
        check_departures(history, found, history.past([epoch.id]))
        with pytest.raises(Inadmissible, match="put out"):
            check_departures(history, found, history.past([removal.id]))

    def test_a_group_has_another_rule(self) -> None:
        story, epoch = begun(ChatKind.GROUP)
        story.tell(ANNA, Admit((grant(DINA, Role.READER),)))
        story.tell(ANNA, Remove(DINA.user, ()))
        assert not ends(story, epoch)

    def test_readers_do_not_write(self) -> None:
        story, _ = begun()
        history = story.history()
        with pytest.raises(Inadmissible, match="readers do not write"):
            may_write(history, VERA.devices[0], history.everything)


class TestLimits:
    def channel(self, *operations: Operation) -> tuple[History, list[EntryId]]:
        made = Channel(ANNA)
        told = [made.tell(operation).id for operation in operations]
        return history_of(made.entries), told

    def reasons(self, *operations: Operation) -> list[Void | None]:
        history, told = self.channel(*operations)
        return [void_reason(history, one) for one in told]

    def test_of_readers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(case, "DEVICES_CHANNEL_MAX", 3)
        operations = [Admit((reader(number),)) for number in range(4)]
        assert self.reasons(*operations) == [None, None, Void.LIMIT, Void.LIMIT]

    def test_of_those_who_may_write(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(case, "DEVICES_CHAT_MAX", 2)
        user = reader(1).credential.user.user
        found = self.reasons(
            Admit((reader(0, Role.MEMBER),)),
            Admit((reader(1),)),
            Admit((reader(2, Role.MEMBER),)),
            SetRole(user, Role.MEMBER, ()),
            Admit((reader(1, Role.MEMBER),)),
            SetRole(reader(0).credential.user.user, Role.ADMIN, ()),
        )
        assert found == [None, None, Void.LIMIT, Void.LIMIT, Void.LIMIT, None]

    def test_in_a_group_all_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(case, "DEVICES_CHAT_MAX", 2)
        made = Channel(ANNA, ChatKind.GROUP)
        told = [made.tell(Admit((reader(number),))) for number in range(2)]
        history = history_of(made.entries)
        assert [void_reason(history, one.id) for one in told] == [None, Void.LIMIT]


class TestManyReaders:
    def test_ten_thousand(self) -> None:
        """Taken in by 313 entries, sealed for one device; the time is for the benchmarks."""
        channel = Channel(ANNA)
        channel.admit(0, READERS)
        assert len(channel.entries) == 1 + -(-READERS // GRANTS_MAX)
        history = history_of(channel.entries)
        membership = resolve(history)
        assert len(membership.devices) == READERS + 1
        assert membership.sealed == {ANNA.devices[0]}
        assert not membership.void
        gone = channel.remove(7)
        history.add(gone)
        assert len(resolve(history).users) == READERS
        assert history.authority.departures(history.everything) == 1 << history.index(gone.id)

    def test_what_is_kept_of_them_is_bounded(self) -> None:
        channel = Channel(ANNA)
        channel.admit(0, READERS)
        for number in range(60):
            channel.remove(number)
        authority = history_of(channel.entries).authority
        kept = [len(roster.devices) for roster in authority._rosters.values()]
        assert 0 < sum(kept) <= 1 << 18


def sealed(chains: dict[DeviceKey, ChainKey]) -> tuple[bytes, bytes]:
    """Return a grant by anna for vera's device, and the private prekey that opens it."""
    record = verify_prekey(prekey_record(VERA.signers[0]))
    parcel = keygrant.seal_grant(ANNA.signers[0], CHAT, EPOCH, record, chains, b"k" * 32)
    return parcel, prekey(VERA.devices[0]).private


class TestGrants:
    @given(
        st.dictionaries(
            st.binary(min_size=32, max_size=32).map(DeviceKey),
            st.builds(ChainKey, st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32)),
            min_size=1,
            max_size=9,
        )
    )
    @settings(max_examples=20)
    def test_give_what_was_granted(self, chains: dict[DeviceKey, ChainKey]) -> None:
        parcel, private = sealed(chains)
        found = keygrant.read(parcel)
        assert isinstance(found, Granted)
        assert (found.sender, found.receiver) == (ANNA.devices[0], VERA.devices[0])
        assert keygrant.open_grant(found, private) == chains

    @given(st.data())
    @settings(max_examples=60)
    def test_no_altered_byte_passes(self, data: st.DataObject) -> None:
        parcel, _ = sealed({ANNA.devices[0]: ChainKey(3, b"x" * 32)})
        at = data.draw(st.integers(0, len(parcel) - 1))
        altered = (
            parcel[:at] + bytes([parcel[at] ^ data.draw(st.integers(1, 255))]) + parcel[at + 1 :]
        )
        with pytest.raises(PeerError):
            keygrant.read(altered)

    def test_questions(self) -> None:
        record = prekey_record(VERA.signers[0])
        epochs = [EntryId(b"f" * 32), EPOCH]
        parcel = keygrant.sign_ask(VERA.signers[0], CHAT, epochs, ANNA.devices[0], record)
        found = keygrant.read(parcel)
        assert found == keygrant.Asked(
            CHAT, tuple(sorted(epochs)), VERA.devices[0], ANNA.devices[0], record
        )

    @pytest.mark.parametrize(
        "epochs", [[], [EPOCH, EPOCH], [EntryId(bytes([n]) * 32) for n in range(65)]]
    )
    def test_questions_that_are_none(self, epochs: Sequence[EntryId]) -> None:
        record = prekey_record(VERA.signers[0])
        parcel = keygrant.sign_ask(VERA.signers[0], CHAT, epochs, ANNA.devices[0], record)
        with pytest.raises(PeerError):
            keygrant.read(parcel)

    @pytest.mark.parametrize("order", [(1, 0), (0, 0)])
    def test_chains_out_of_order(self, order: Sequence[int]) -> None:
        """Or twice: a grant has one spelling."""
        record = verify_prekey(prekey_record(VERA.signers[0]))
        info = codec.encode((CHAT, EPOCH, ANNA.devices[0], VERA.devices[0], record.id))
        listed = [(bytes([one]) * 32, 0, bytes(32)) for one in order]
        bundle = seal_bundle(record.public, info, b"k" * 32, codec.encode(listed))
        found = Granted(CHAT, EPOCH, ANNA.devices[0], VERA.devices[0], record.id, bundle)
        with pytest.raises(NotCanonical, match="ascending"):
            keygrant.open_grant(found, prekey(VERA.devices[0]).private)

    def test_no_chain_at_all(self) -> None:
        parcel, private = sealed({})
        found = keygrant.read(parcel)
        assert isinstance(found, Granted)
        with pytest.raises(PeerError, match="0 chains"):
            keygrant.open_grant(found, private)
