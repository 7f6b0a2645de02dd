"""Nacks (SPEC 4.2): who may refuse which epoch, and what that costs a sender."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.entry import DeviceKey, EntryId
from protocol.epoch import eligible
from protocol.history import History
from protocol.membership import resolve
from protocol.nack import complaints, shunned
from protocol.operation import Nack, Remove
from protocol.policy import Role
from protocol.testing.cast import Person, person
from protocol.testing.histories import reorder
from protocol.testing.story import Story, Told

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mvd")
EVERYONE = (ANNA, BORIS, CLARA)
DEVICES = [who.devices[0] for who in EVERYONE]


@pytest.fixture
def story() -> Story:
    return Story([(ANNA, Role.OWNER), (BORIS, Role.MEMBER), (CLARA, Role.MEMBER)])


def begin(
    story: Story, who: Person, devices: list[DeviceKey] = DEVICES, skipped: Sequence[DeviceKey] = ()
) -> Told:
    return story.tell(who, story.epoch(who, devices, skipped))


def counted(story: Story) -> list[tuple[DeviceKey, EntryId, int]]:
    history = story.history()
    found = complaints(history, history.everything)
    return [(one.by, one.epoch, one.reason) for one in found]


def avoided(story: Story, who: Person) -> set[EntryId]:
    history = story.history()
    return set(shunned(history, history.everything, who.devices[0]))


def choice(history: History, who: Person, current: EntryId | None) -> EntryId | None:
    past = history.everything
    unusable = shunned(history, past, who.devices[0])
    return eligible(history, past, resolve(history), current, unusable)


class TestWhatCounts:
    def test_a_recipient_once_an_epoch(self, story: Story) -> None:
        one, other = begin(story, BORIS), begin(story, BORIS)
        for epoch, reason in ((one, 1), (one, 2), (other, 2)):
            story.tell(CLARA, Nack(epoch.id, reason))
        clara = CLARA.devices[0]
        assert counted(story) == [(clara, one.id, 1), (clara, other.id, 2)]

    def test_not_of_ones_that_it_has_not_seen(self, story: Story) -> None:
        epoch = begin(story, BORIS)
        story.tell(CLARA, Nack(epoch.id, 1), [story.genesis])
        story.tell(CLARA, Nack(EntryId(bytes(32)), 1))
        story.tell(CLARA, Nack(story.genesis.id, 1))
        assert counted(story) == []

    def test_not_of_a_seal_that_is_for_another(self, story: Story) -> None:
        begun = begin(story, BORIS, DEVICES[:2], DEVICES[2:])
        story.tell(CLARA, Nack(begun.id, 1))
        assert counted(story) == []
        assert avoided(story, ANNA) == set()

    def test_not_of_the_removed(self, story: Story) -> None:
        epoch = begin(story, BORIS)
        story.tell(ANNA, Remove(CLARA.user, ()), [epoch])
        story.tell(CLARA, Nack(epoch.id, 1), [epoch])
        assert counted(story) == []

    def test_a_reader_is_heard(self) -> None:
        story = Story([(ANNA, Role.OWNER), (BORIS, Role.READER)])
        epoch = begin(story, ANNA, DEVICES[:2])
        story.tell(BORIS, Nack(epoch.id, 1))
        assert avoided(story, ANNA) == {epoch.id}


class TestSenders:
    def test_others_avoid_all_that_the_doubted_seals_to_the_victim(self, story: Story) -> None:
        bad, good, without = (
            begin(story, BORIS),
            begin(story, ANNA),
            begin(story, BORIS, DEVICES[:2], DEVICES[2:]),
        )
        story.tell(CLARA, Nack(bad.id, 2))
        later = begin(story, BORIS)
        assert avoided(story, ANNA) == avoided(story, CLARA) == {bad.id, later.id}
        assert avoided(story, ANNA).isdisjoint({good.id, without.id})
        assert choice(story.history(), ANNA, None) == without.id

    def test_the_author_leaves_it_once_for_each_who_says_so(self, story: Story) -> None:
        epochs = []
        for _ in range(3):
            epochs.append(begin(story, BORIS).id)
            story.tell(CLARA, Nack(epochs[-1], 1))
        assert avoided(story, BORIS) == {epochs[0]}
        assert choice(story.history(), BORIS, epochs[1]) == epochs[2]
        story.tell(ANNA, Nack(epochs[2], 1))
        assert avoided(story, BORIS) == {epochs[0], epochs[2]}

    def test_only_who_has_seen_it(self, story: Story) -> None:
        epoch = begin(story, BORIS)
        before = story.history()
        story.tell(CLARA, Nack(epoch.id, 1))
        history = story.history()
        assert shunned(history, before.everything, ANNA.devices[0]) == set()
        assert shunned(history, history.everything, ANNA.devices[0]) == {epoch.id}


def test_what_a_forked_device_says_first_is_the_same_in_any_order(story: Story) -> None:
    """Regression: it was what had come first."""
    first, second = begin(story, ANNA), begin(story, ANNA)
    one = story.tell(CLARA, Nack(first.id, 1))
    other = story.retell(CLARA, Nack(second.id, 2), one, [second])
    again = story.tell(CLARA, Nack(first.id, 0), [])
    found = []
    for branches in ((one, other, again), (other, again, one)):
        history = story.history()
        turned = History()
        for told in (*story.told[:3], *branches):
            turned.add(told.entry)
        assert resolve(turned) == resolve(history)
        avoided_now = shunned(turned, turned.everything, ANNA.devices[0])
        said = [(c.by, c.epoch, c.reason) for c in complaints(turned, turned.everything)]
        found.append((avoided_now, said))
    assert found[0] == found[1]


class TestLaws:
    @given(st.lists(st.integers(0, 1), max_size=12), st.randoms())
    @settings(max_examples=30, deadline=None)
    def test_a_storm_of_nacks_costs_each_sender_little(
        self, senders: list[int], random: Random
    ) -> None:
        """One device nacks every epoch: no sender starts more than three, however many write."""
        story = Story([(who, Role.MEMBER if who is not ANNA else Role.OWNER) for who in EVERYONE])
        current: dict[Person, EntryId] = {}
        begun = dict.fromkeys(EVERYONE[:2], 0)
        for number in senders:
            who = EVERYONE[number]
            found = choice(story.history(), who, current.get(who))
            if found is None:
                begun[who] += 1
                found = begin(story, who).id
                story.tell(CLARA, Nack(found, random.choice((0, 1, 2))))
            current[who] = found
        assert max(begun.values()) <= 3

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=10), st.randoms())
    @settings(max_examples=30, deadline=None)
    def test_the_order_of_arrival_does_not_matter(
        self, steps: list[tuple[int, int]], random: Random
    ) -> None:
        """What is avoided is a function of the set of entries, also where a device forks."""
        story = Story([(who, Role.MEMBER if who is not ANNA else Role.OWNER) for who in EVERYONE])
        epochs = [begin(story, BORIS)]
        nacks: dict[Person, list[Told]] = {who: [] for who in EVERYONE}
        for number, step in steps:
            who = EVERYONE[number]
            nack = Nack(random.choice(epochs).id, random.choice((0, 1, 2)))
            if step == 0:
                epochs.append(begin(story, who))
            elif step == 1 or not nacks[who]:
                nacks[who].append(story.tell(who, nack))
            else:
                story.retell(who, nack, random.choice(nacks[who]), [epochs[-1]])
        expected = [avoided(story, who) for who in EVERYONE]
        shuffled = History()
        for entry in reorder(story.entries, random.choice):
            shuffled.add(entry)
        for who, wanted in zip(EVERYONE, expected, strict=True):
            assert shunned(shuffled, shuffled.everything, who.devices[0]) == wanted
