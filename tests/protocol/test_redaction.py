"""SPEC 2.6: which payloads go, by what, and that no view keeps a header from anybody."""

from hashlib import sha256
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import redaction
from protocol.chat import Admission
from protocol.dag import ControlEntry
from protocol.entry import CONTENT, CONTROL, DeviceKey, EntryId, Reference
from protocol.errors import Inadmissible, LimitExceeded, NotCanonical
from protocol.frame import Run, authentic
from protocol.history import History
from protocol.membership import void_reason
from protocol.operation import (
    Checkpoint,
    Hold,
    Kind,
    Operation,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.payload import decode_operation, encode_operation
from protocol.policy import HistoryRule, Policy, Role
from protocol.redaction import Redactions, Retention, allows, custodians, retention
from protocol.roster import Void
from protocol.run import pack
from protocol.testing.cast import Person, person
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice, histories, reorder
from protocol.testing.network import Replica
from protocol.testing.story import Seen, Story, Told, history_of

ANNA, BORIS, CLARA, DINA = (person(name) for name in ("anna@mz", "boris@mvd", "clara@mz", "d@fns"))
CAST = ((ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER), (DINA, Role.READER))
TARGET = Reference(CLARA.devices[0], 3, EntryId(sha256(b"target").digest()))
NUMBERS = st.integers(0, 2**32)


def redact(place: Reference, lane: int = CONTENT, reason: str = "") -> Redact:
    return Redact(place.device, lane, place.seq, place.id, reason)


def keep_for(seconds: int) -> SetPolicy:
    return SetPolicy(Policy(("RU",), seconds, HistoryRule.FROM_JOIN))


def redacted(history: History) -> dict[Reference, Reference]:
    return {place: one.ground for place, one in Redactions(history).of().items()}


class TestWhoRedacts:
    @pytest.mark.parametrize(
        ("who", "counts"), [(ANNA, True), (BORIS, True), (CLARA, True), (DINA, False)]
    )
    def test_by_role(self, who: Person, counts: bool) -> None:  # noqa: FBT001 - a column
        story = Story(CAST)
        told = story.tell(who, redact(TARGET, reason="spam"))
        found = Redactions(story.history()).of()
        assert (TARGET in found) is counts
        if counts:
            assert found[TARGET].ground == told.reference
            assert (found[TARGET].by.name, found[TARGET].reason) == (who.name, "spam")

    def test_others_content_needs_an_admin(self) -> None:
        story = Story(CAST)
        place = TARGET._replace(device=BORIS.devices[0])
        story.tell(CLARA, redact(place))
        assert redacted(story.history()) == {}

    def test_control_entries_stay(self) -> None:
        story = Story(CAST)
        told = story.tell(ANNA, redact(TARGET, CONTROL))
        assert redacted(story.history()) == {}
        assert not allows(story.history(), told.reference, TARGET)

    def test_beside_a_demotion(self) -> None:
        """What a demoted admin redacts, unseen by whoever demoted them, drops nothing more."""
        story = Story(CAST)
        start = [story.genesis]
        told = story.tell(BORIS, redact(TARGET), start)
        history = story.history()
        found = Redactions(history)
        assert found.of().keys() == {TARGET}
        history.add(story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), start).entry)
        assert found.of() == {}
        assert allows(history, told.reference, TARGET)  # headers must still come through

    @pytest.mark.parametrize(
        "operation", [Remove(BORIS.user, ()), Revoke(BORIS.devices[0], None, None, ())]
    )
    def test_beside_what_puts_its_author_out(self, operation: Operation) -> None:
        story = Story(CAST)
        start = [story.genesis]
        story.tell(BORIS, redact(TARGET), start)
        history = story.history()
        found = Redactions(history)
        assert found.of().keys() == {TARGET}
        history.add(story.tell(ANNA, operation, start).entry)
        assert found.of() == {}

    def test_on_a_branch_that_an_owner_vouches_for(self) -> None:
        """The proof of a fork makes it void, and the owner's word lets it count again."""
        story = Story(CAST)
        start = [story.genesis]
        one = story.tell(BORIS, redact(TARGET), start)
        other = story.retell(BORIS, redact(TARGET._replace(seq=9)), one, start)
        history = story.history()
        found = Redactions(history)
        assert len(found.of()) == 2
        proof = story.tell(CLARA, story.exposure(one, other))
        history.add(proof.entry)
        assert found.of() == {}
        history.add(story.tell(ANNA, Checkpoint((one.reference,)), [proof, one]).entry)
        assert {TARGET} <= found.of().keys()
        assert redacted(story.history()).keys() == found.of().keys()

    def test_costs_what_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each is judged when it comes, and again only with what is about its author."""
        story = Story(CAST)
        history = story.history()
        found = Redactions(history)
        judged: list[EntryId] = []

        def counting(history: History, entry: EntryId) -> Void | None:
            judged.append(entry)
            return void_reason(history, entry)

        monkeypatch.setattr(redaction, "void_reason", counting)
        for seq in range(20):
            told = story.tell(BORIS, redact(TARGET._replace(seq=seq)), [story.genesis])
            history.add(told.entry)
            assert len(found.of()) == seq + 1
        for role in (Role.MEMBER, Role.READER):
            history.add(story.tell(ANNA, SetRole(CLARA.user, role, ()), [story.genesis]).entry)
            assert len(found.of()) == 20
        assert len(judged) == 20
        history.add(story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), [story.genesis]).entry)
        assert not found.of()
        assert len(judged) == 40

    def test_after_a_removal(self) -> None:
        """A removed admin backdates a redaction: nobody who knows of the removal drops for it."""
        story = Story(CAST)
        story.tell(ANNA, Remove(BORIS.user, ()))
        story.tell(BORIS, redact(TARGET), [story.genesis])
        assert redacted(story.history()) == {}

    def test_two_of_one_entry(self) -> None:
        """The smaller id, in whatever order they came."""
        story = Story(CAST)
        start = [story.genesis]
        one, two = story.tell(ANNA, redact(TARGET), start), story.tell(CLARA, redact(TARGET), start)
        smaller = min(one, two, key=lambda told: told.id)
        for order in ((one, two), (two, one)):
            history = history_of([story.genesis.entry, *(told.entry for told in order)])
            assert redacted(history) == {TARGET: smaller.reference}

    @given(histories(), st.randoms(use_true_random=False), st.data())
    def test_a_function_of_the_set(
        self, entries: list[ControlEntry], random: Random, data: st.DataObject
    ) -> None:
        """Any causal order, asked at any time in between, ends the same; so do holds, retention."""
        history = History()
        found = Redactions(history)
        asked = data.draw(st.sets(st.integers(0, len(entries) - 1)))
        for number, entry in enumerate(reorder(entries, random.choice)):
            history.add(entry)
            if number in asked:
                found.of()
        other = history_of(entries)
        assert {place: one.ground for place, one in found.of().items()} == redacted(other)
        assert custodians(history) == custodians(other)
        assert retention(history) == retention(other)

    @given(histories())
    def test_what_has_effect_is_allowed(self, entries: list[ControlEntry]) -> None:
        """So whoever dropped by the law can always hand the header on, to any view."""
        history = history_of(entries)
        for place, ground in redacted(history).items():
            assert allows(history, ground, place)
        aged = retention(history)
        assert aged is None or allows(history, aged.ground, TARGET)

    @given(histories(), st.data())
    def test_what_is_allowed_stays_so(
        self, entries: list[ControlEntry], data: st.DataObject
    ) -> None:
        """I12: no entry that comes later changes whether a record is taken."""
        history = History()
        before: dict[Reference, bool] = {}
        places = [
            Reference(one.operation.device, one.operation.seq, one.operation.id)
            for one in entries
            if isinstance(one.operation, Redact)
        ]
        place = data.draw(st.sampled_from([*places, TARGET]))
        for entry in entries:
            history.add(entry)
            ground = Reference(entry.device, entry.seq, entry.id)
            before[ground] = allows(history, ground, place)
            assert all(allows(history, one, place) == said for one, said in before.items())


class TestRetention:
    def test_none(self) -> None:
        assert retention(Story(CAST).history()) is None

    def test_the_shortest_of_concurrent_ones(self) -> None:
        story = Story(CAST)
        start = [story.genesis]
        story.tell(ANNA, keep_for(0), start)
        story.tell(ANNA, keep_for(3600), start)
        short = story.tell(BORIS, keep_for(60), start)
        assert retention(story.history()) == Retention(60, short.reference)
        later = story.tell(BORIS, keep_for(600))
        assert retention(story.history()) == Retention(600, later.reference)
        story.tell(ANNA, keep_for(0))
        assert retention(story.history()) is None

    def test_by_a_quorum_and_by_the_genesis(self) -> None:
        story = Story(CAST, policy=Policy(("RU",), 90, HistoryRule.FROM_JOIN))
        assert retention(story.history()) == Retention(90, story.genesis.reference)
        told = story.tell(ANNA, story.quorum(ANNA, [keep_for(30)], []))
        assert retention(story.history()) == Retention(30, told.reference)

    def test_of_equal_settings_the_smaller_id(self) -> None:
        """In whatever order they came."""
        story = Story(CAST)
        told = [
            story.tell(who, SetPolicy(Policy(("RU",), 60, HistoryRule.FROM_JOIN)), [story.genesis])
            for who in (ANNA, BORIS)
        ]
        smaller = min(told, key=lambda one: one.id)
        for order in (told, told[::-1]):
            history = history_of([story.genesis.entry, *(one.entry for one in order)])
            assert retention(history) == Retention(60, smaller.reference)

    def test_allowed_by_a_setting_with_a_retention_only(self) -> None:
        story = Story(CAST)
        ever, aged = story.tell(ANNA, keep_for(0)), story.tell(ANNA, keep_for(60))
        void, other = story.tell(CLARA, keep_for(60)), story.tell(ANNA, Hold(ANNA.user, ends=False))
        history = story.history()
        grounds = [story.genesis, ever, aged, void, other]
        said = [allows(history, told.reference, TARGET) for told in grounds]
        assert said == [False, False, True, False, False]


class TestHolds:
    def hold(
        self, story: Story, who: Person, *, ends: bool = False, seen: Seen | None = None
    ) -> Told:
        return story.tell(who, Hold(CLARA.user, ends), seen)

    def test_named_and_ended(self) -> None:
        story = Story(CAST)
        self.hold(story, BORIS)
        assert custodians(story.history()) == {CLARA.user}
        self.hold(story, ANNA, ends=True)
        assert custodians(story.history()) == frozenset()
        self.hold(story, BORIS)
        assert custodians(story.history()) == {CLARA.user}

    def test_needs_an_admin(self) -> None:
        story = Story(CAST)
        self.hold(story, CLARA)
        assert custodians(story.history()) == frozenset()
        self.hold(story, ANNA)
        self.hold(story, CLARA, ends=True)
        assert custodians(story.history()) == {CLARA.user}

    def test_beside_its_end(self) -> None:
        """Who kept too much has lost nothing."""
        story = Story(CAST)
        start = [story.genesis]
        self.hold(story, ANNA, seen=start)
        self.hold(story, BORIS, ends=True, seen=start)
        assert custodians(story.history()) == {CLARA.user}

    def test_of_who_is_gone(self) -> None:
        story = Story(CAST)
        self.hold(story, BORIS)
        story.tell(ANNA, Remove(CLARA.user, ()))
        assert custodians(story.history()) == frozenset()

    def test_bytes(self) -> None:
        one: Operation = Hold(CLARA.user, ends=True)
        raw = encode_operation(one)
        assert decode_operation(Kind.HOLD, raw, Story(CAST).chat) == one
        with pytest.raises(LimitExceeded):
            decode_operation(Kind.HOLD, raw[:-1] + b"\x02", Story(CAST).chat)
        with pytest.raises(NotCanonical):
            decode_operation(Kind.HOLD, raw[:-1], Story(CAST).chat)


def bare(talk: Conversation, place: Reference, ground: Reference) -> Run:
    """Return the run of one content entry, as a node sends it that has dropped the payload."""
    chain = talk.chains[place.device, CONTENT]
    run = chain.run(place.seq, place.seq + 1)
    record = pack(chain.entries[place.seq].header, ground, chain.context(place.seq))
    return msgspec.structs.replace(run, records=(msgspec.Raw(record),))


class TestAdmission:
    @pytest.fixture
    def talk(self) -> Conversation:
        made = conversation(Dice(3), 0)
        for number in range(4):
            made.say(made.people[number % 2], b"%d" % number)
        return made

    def place(self, talk: Conversation, seq: int = 1) -> Reference:
        return talk.chains[talk.people[1].devices[0], CONTENT].entries[seq].reference

    def judge(self, talk: Conversation, run: Run, *without: Reference) -> Admission:
        """Judge a run where all is known but the entries left out."""
        replica = Replica("here")
        for one in talk.runs:
            if authentic(one)[0].id not in {place.id for place in without}:
                replica.take(one)
        kept = replica.chats[talk.chat]
        return kept.chat.admit(authentic(run), kept)

    def test_by_a_redaction(self, talk: Conversation) -> None:
        place = self.place(talk)
        told = talk.story.tell(talk.people[1], redact(place))
        talk.tell(talk.people[1], told)
        found = self.judge(talk, bare(talk, place, told.reference), place)
        assert [(entry.id, entry.payload) for entry in found.entries] == [(place.id, None)]

    def test_of_another_entry(self, talk: Conversation) -> None:
        place, other = self.place(talk), self.place(talk, 0)
        told = talk.story.tell(talk.people[1], redact(other))
        talk.tell(talk.people[1], told)
        found = self.judge(talk, bare(talk, place, told.reference), place)
        assert isinstance(found.refusal, Inadmissible)
        assert not found.entries

    def test_without_authority(self, talk: Conversation) -> None:
        """A malicious node and a member who redacts what is not theirs suppress nothing."""
        place = self.place(talk)
        told = talk.story.tell(talk.people[2], redact(place))
        talk.tell(talk.people[2], told)
        found = self.judge(talk, bare(talk, place, told.reference), place)
        assert isinstance(found.refusal, Inadmissible)

    def test_no_retention_in_this_chat(self, talk: Conversation) -> None:
        place = self.place(talk)
        found = self.judge(talk, bare(talk, place, talk.story.genesis.reference), place)
        assert isinstance(found.refusal, Inadmissible)

    def test_waits_for_its_ground(self, talk: Conversation) -> None:
        place = self.place(talk)
        told = talk.story.tell(talk.people[1], redact(place))
        talk.tell(talk.people[1], told)
        found = self.judge(talk, bare(talk, place, told.reference), place, told.reference)
        assert [item.id for item in found.missing] == [told.id]
        assert not found.entries
        assert found.refusal is None

    def test_a_wrong_place_of_its_ground(self, talk: Conversation) -> None:
        place = self.place(talk)
        told = talk.story.tell(talk.people[1], redact(place))
        talk.tell(talk.people[1], told)
        wrong = told.reference._replace(device=DeviceKey(bytes(32)))
        found = self.judge(talk, bare(talk, place, wrong), place)
        assert isinstance(found.refusal, Inadmissible)

    @given(NUMBERS, st.randoms(use_true_random=False))
    def test_with_or_without(self, number: int, random: Random) -> None:
        """I2: who got all payloads, who got none, in any order: one set of headers, one chat."""
        talk = conversation(Dice(number), 12, epochs=6)
        aged = talk.story.tell(talk.people[0], keep_for(60))
        talk.tell(talk.people[0], aged)
        stripped = []
        for run in talk.runs:
            entry = authentic(run)[0]
            told = run.lane == CONTENT and random.choice((True, False))
            stripped.append(bare(talk, entry.reference, aged.reference) if told else run)
        waiting = random.sample(stripped, len(stripped))
        here, there = Replica("here"), Replica("there")
        for run in talk.runs:
            here.take(run)
        while waiting:
            before = len(waiting)
            waiting = [run for run in waiting if there.take(run)[0].reached == run.start]
            assert len(waiting) < before
        assert here.summary() == there.summary()
