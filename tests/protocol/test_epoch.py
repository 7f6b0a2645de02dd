"""Epochs (SPEC 4.2): one secret for exactly the devices of the members, with the real crypto."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import merkle
from crypto.errors import SealRefused
from crypto.schedule import commitment, epoch_secret, sender_chain
from protocol.entry import ChatId, DeviceKey, EntryId, Place, Reference, place_of
from protocol.epoch import (
    BadSeal,
    NackReason,
    author_prekey,
    build,
    check_recipients,
    check_seal,
    context,
    eligible,
    open_seal,
    position,
    prekey_of,
    rank,
    recipients_root,
    seal,
    sender_chains,
)
from protocol.errors import Inadmissible, Untrusted, UsageError
from protocol.membership import resolve
from protocol.operation import Admit, Enroll, EpochOperation, Kind, Remove
from protocol.payload import decode_operation, encode_operation
from protocol.policy import Role
from protocol.testing.cast import credential, grant, person, prekey, prekey_record
from protocol.testing.story import Story, Told

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mvd")
SECRET = b"s" * 32
DEVICES = [*ANNA.devices, *BORIS.devices]
PLACE = Place(
    ChatId(b"c" * 32),
    ANNA.devices[0],
    3,
    EntryId(b"p" * 32),
    (Reference(BORIS.devices[0], 1, EntryId(b"l" * 32)),),
)


def made(
    devices: list[DeviceKey] = DEVICES, skipped: frozenset[DeviceKey] = frozenset()
) -> tuple[EpochOperation, list[bytes]]:
    recipients = {device: prekey(device).public for device in devices}
    record = prekey_record(ANNA.signers[0])
    return build(PLACE, SECRET, recipients, skipped, record, shareable=False)


OPERATION, SEALS = made()
PATHS = merkle.paths(SEALS)
LISTED = sorted(DEVICES)


def opened(
    operation: EpochOperation,
    device: DeviceKey,
    place: Place = PLACE,
    seals: list[bytes] = SEALS,
    key: DeviceKey | None = None,
    listed: Sequence[DeviceKey] | None = None,
) -> bytes:
    listed = sorted(DEVICES)[: len(seals)] if listed is None else listed
    index = position(listed, device)
    assert index is not None
    path = merkle.paths(seals)[index]
    private = prekey(key or device).private
    return open_seal(place, operation, listed, device, private, seals[index], path)


class TestSeals:
    def test_each_recipient_opens_their_own(self) -> None:
        assert {opened(OPERATION, device) for device in DEVICES} == {SECRET}

    @given(st.integers(1, 5))
    @settings(max_examples=5)
    def test_any_number_of_recipients(self, number: int) -> None:
        operation, seals = made(DEVICES[:number])
        assert decode_operation(Kind.EPOCH, encode_operation(operation), PLACE.chat) == operation
        for device in DEVICES[:number]:
            listed = sorted(DEVICES[:number])
            assert opened(operation, device, seals=seals, listed=listed) == SECRET

    def test_not_another_ones_seal(self) -> None:
        with pytest.raises(BadSeal) as caught:
            opened(OPERATION, DEVICES[0], key=DEVICES[1])
        assert caught.value.reason == NackReason.DOES_NOT_OPEN

    @pytest.mark.parametrize(
        "place",
        [
            PLACE._replace(chat=ChatId(b"x" * 32)),
            PLACE._replace(device=BORIS.devices[0]),
            PLACE._replace(seq=4),
            PLACE._replace(prev=None),
            PLACE._replace(links=()),
        ],
        ids=["chat", "author", "seq", "prev", "links"],
    )
    def test_nowhere_else(self, place: Place) -> None:
        """A seal replayed at another place opens for nobody."""
        with pytest.raises(BadSeal) as caught:
            opened(OPERATION, DEVICES[0], place)
        assert caught.value.reason == NackReason.DOES_NOT_OPEN

    def test_not_for_other_recipients(self) -> None:
        """The same seals under an entry that names one more device, or another flag."""
        more = [*LISTED, DeviceKey(b"\xff" * 32)]
        for other, listed in (
            (replace(OPERATION, recipients_root=recipients_root(more)), more),
            (replace(OPERATION, shareable=True), LISTED),
        ):
            seals = [*SEALS, SEALS[-1]][: len(listed)]
            rooted = replace(other, seals_root=merkle.root(seals))
            with pytest.raises(BadSeal) as caught:
                opened(rooted, DEVICES[0], seals=seals, listed=listed)
            assert caught.value.reason == NackReason.DOES_NOT_OPEN

    def test_not_for_another_prekey_than_it_names(self) -> None:
        """A seal moved under the id of another prekey opens with neither."""
        at = LISTED.index(DEVICES[0])
        seals = [*SEALS]
        seals[at] = prekey_of(SEALS[at - 1]) + SEALS[at][len(prekey_of(SEALS[at])) :]
        rooted = replace(OPERATION, seals_root=merkle.root(seals))
        for key in (DEVICES[0], LISTED[at - 1]):
            with pytest.raises(BadSeal) as caught:
                opened(rooted, DEVICES[0], seals=seals, key=key)
            assert caught.value.reason == NackReason.DOES_NOT_OPEN

    def test_no_seal_at_all(self) -> None:
        for nothing in (b"", bytes(5), bytes(16), bytes(20)):
            seals = [nothing] * len(LISTED)
            rooted = replace(OPERATION, seals_root=merkle.root(seals))
            with pytest.raises(BadSeal) as caught:
                opened(rooted, DEVICES[0], seals=seals)
            assert caught.value.reason == NackReason.DOES_NOT_OPEN

    def test_wrong_commitment(self) -> None:
        """An author who seals other secrets to some is found out by them."""
        ectx = context(PLACE, OPERATION)
        wrong = commitment(b"t" * 32, ectx)
        seals = [seal(ectx, wrong, one, prekey(one).public, SECRET) for one in LISTED]
        cheating = replace(OPERATION, commit=wrong, seals_root=merkle.root(seals))
        with pytest.raises(BadSeal) as caught:
            opened(cheating, LISTED[0], seals=seals)
        assert caught.value.reason == NackReason.WRONG_COMMITMENT

    def test_not_in_the_tree(self) -> None:
        device = LISTED[0]
        for one, path in ((SEALS[1], PATHS[0]), (SEALS[0], PATHS[1]), (SEALS[0], [])):
            with pytest.raises(BadSeal) as caught:
                check_seal(OPERATION, LISTED, device, one, path)
            assert caught.value.reason == NackReason.NOT_IN_TREE
        with pytest.raises(BadSeal):
            check_seal(OPERATION, LISTED, CLARA.devices[0], SEALS[0], PATHS[0])
        check_seal(OPERATION, LISTED, device, SEALS[0], PATHS[0])

    def test_a_malformed_prekey(self) -> None:
        with pytest.raises(SealRefused):
            build(PLACE, SECRET, {DEVICES[0]: b"short"}, frozenset(), b"", shareable=False)

    def test_chains(self) -> None:
        """Every device gets its own; one skipped has one too, for when a member shares the key."""
        epoch = EntryId(b"e" * 32)
        chains = sender_chains(epoch, SECRET, set(DEVICES[:3]))
        assert set(chains) == set(DEVICES[:3])
        assert len(set(chains.values())) == 3
        expected = sender_chain(epoch_secret(epoch, SECRET), DEVICES[0])
        assert chains[DEVICES[0]] == expected


class TestRecipients:
    def test_exactly_the_devices(self) -> None:
        check_recipients(OPERATION, set(DEVICES))
        operation, _ = made(DEVICES[:3], frozenset(DEVICES[3:]))
        check_recipients(operation, set(DEVICES))

    def test_no_ghost(self) -> None:
        with pytest.raises(Inadmissible, match="others than the devices"):
            check_recipients(OPERATION, set(DEVICES[1:]))
        operation, _ = made(DEVICES[:3], frozenset(DEVICES[3:]))
        with pytest.raises(Inadmissible, match="skips a device of no member"):
            check_recipients(operation, set(DEVICES[:-1]))

    def test_nobody_left_out(self) -> None:
        with pytest.raises(Inadmissible, match="others than the devices"):
            check_recipients(OPERATION, {*DEVICES, CLARA.devices[0]})

    def test_nobody_twice(self) -> None:
        operation = replace(OPERATION, skipped=(DEVICES[0],))
        with pytest.raises(Inadmissible, match="others than the devices"):
            check_recipients(operation, set(DEVICES))

    def test_the_author_brings_their_own_prekey(self) -> None:
        assert author_prekey(OPERATION, ANNA.devices[0]).public == prekey(ANNA.devices[0]).public
        with pytest.raises(Untrusted, match="another device"):
            author_prekey(OPERATION, BORIS.devices[0])


class TestChoice:
    def story(self) -> tuple[Story, Told, Told]:
        story = Story([(ANNA, Role.OWNER), (BORIS, Role.MEMBER)])
        present = [ANNA.devices[0], BORIS.devices[0]]
        one = story.tell(ANNA, story.epoch(ANNA, present), [story.genesis])
        other = story.tell(BORIS, story.epoch(BORIS, present), [story.genesis])
        return story, one, other

    def choose(
        self,
        story: Story,
        current: EntryId | None = None,
        unusable: frozenset[EntryId] = frozenset(),
    ) -> EntryId | None:
        history = story.history()
        return eligible(history, history.everything, resolve(history), current, unusable)

    def test_deeper_is_better_then_the_smaller_id(self) -> None:
        story, one, other = self.story()
        deep = story.tell(ANNA, story.epoch(ANNA, [ANNA.devices[0], BORIS.devices[0]]))
        history = story.history()
        small, large = sorted((one.id, other.id))
        assert rank(history, deep.id) > rank(history, small) > rank(history, large)
        assert rank(history, deep.id)[0] == 2

    def test_the_best_in_ones_past(self) -> None:
        story, one, other = self.story()
        best, second = sorted((one.id, other.id))
        assert self.choose(story) == best
        assert self.choose(story, unusable=frozenset([best])) == second
        assert self.choose(story, unusable=frozenset([best, second])) is None
        history = story.history()
        seen = history.past([one.id])
        assert eligible(history, seen, resolve(history), None, frozenset()) == one.id

    def test_never_back(self) -> None:
        story, one, other = self.story()
        best, second = sorted((one.id, other.id))
        assert self.choose(story, current=second) == best
        assert self.choose(story, current=best) == best
        assert self.choose(story, best, frozenset([best])) is None

    def test_only_for_those_present(self) -> None:
        story, _, _ = self.story()
        story.tell(ANNA, Admit((grant(CLARA, Role.MEMBER),)))
        assert self.choose(story) is None
        story.tell(ANNA, Remove(CLARA.user, ()))
        assert self.choose(story) is not None
        story.tell(BORIS, Enroll(credential(BORIS, (1,))))
        assert self.choose(story) is None

    def test_not_one_that_is_void(self) -> None:
        story = Story([(ANNA, Role.OWNER), (BORIS, Role.MEMBER)])
        story.tell(ANNA, Remove(BORIS.user, ()), [story.genesis])
        story.tell(BORIS, story.epoch(BORIS, [ANNA.devices[0]]), [story.genesis])
        assert self.choose(story) is None

    def test_no_such_epoch(self) -> None:
        story, one, _ = self.story()
        history = story.history()
        with pytest.raises(UsageError, match="no epoch"):
            rank(history, story.genesis.id)
        with pytest.raises(UsageError, match="no epoch"):
            rank(history, EntryId(bytes(32)))
        found = history.epoch(one.id)
        assert found is not None
        assert history.named(found) == {ANNA.devices[0], BORIS.devices[0]}


def test_place_of_a_header() -> None:
    story = Story([(ANNA, Role.OWNER)])
    told = story.tell(ANNA, story.epoch(ANNA, ANNA.devices[:1]))
    assert place_of(told.header) == Place(story.chat, ANNA.devices[0], 1, story.genesis.id, ())
    with pytest.raises(UsageError, match="genesis"):
        place_of(story.genesis.header)
