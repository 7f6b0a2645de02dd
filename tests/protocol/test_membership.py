"""Membership (SPEC 3): a function of the set of control entries, and safe against who lies."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dag import ControlEntry, bits
from protocol.entry import ChatId, EntryId, Reference
from protocol.errors import Inadmissible, UsageError
from protocol.history import History
from protocol.membership import (
    Void,
    content_void,
    may_append,
    resolve,
    void_reason,
)
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Genesis,
    Inner,
    Leave,
    Operation,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.roster import PROVEN
from protocol.testing.cast import Person, credential, grant, person
from protocol.testing.histories import histories, reorder, stories
from protocol.testing.story import Story, Told, history_of
from tests.protocol.membership_cases import WorkedCase, make_cases
from tests.protocol.verdicts import (
    ANNA,
    BORIS,
    CAST,
    CLARA,
    DINA,
    EGOR,
    OLGA,
    outcome,
    reason,
    roles,
)


@pytest.mark.parametrize("case", list(make_cases()), ids=lambda case: case.letter)
class TestWorkedCases:
    """SPEC 3.6: (a) to (h)."""

    def test_roles(self, case: WorkedCase) -> None:
        assert outcome(case.story) == {who.name: role for who, role in case.roles.items()}

    def test_void_entries(self, case: WorkedCase) -> None:
        history = case.story.history()
        found = {told.id: void_reason(history, told.id) for told in case.story.told}
        assert {entry: void for entry, void in found.items() if void is not None} == case.void

    def test_content(self, case: WorkedCase) -> None:
        history = case.story.history()
        for one in case.content:
            saw = history.past(one.saw)
            assert content_void(history, one.device, one.seq, saw) == one.void, one.what

    def test_policy(self, case: WorkedCase) -> None:
        if case.policy is not None:
            assert resolve(case.story.history()).policy == case.policy

    @given(random=st.randoms())
    @settings(max_examples=10)
    def test_any_order(self, case: WorkedCase, random: Random) -> None:
        entries = reorder(case.story.entries, random.choice)
        assert resolve(history_of(entries)) == resolve(case.story.history())


class TestLaws:
    """SPEC 3.3."""

    @given(histories(), st.randoms())
    def test_arrival_order_does_not_matter(
        self, entries: list[ControlEntry], random: Random
    ) -> None:
        """Equal sets give equal memberships, reasons, and views of the past."""
        one, other = history_of(entries), history_of(reorder(entries, random.choice))
        assert resolve(one) == resolve(other)
        assert resolve(one).agencies == resolve(other).agencies
        for entry in entries:
            assert void_reason(one, entry.id) == void_reason(other, entry.id)
        some = [entry.id for entry in random.sample(entries, min(3, len(entries)))]
        assert resolve(one, one.past(some)) == resolve(other, other.past(some))

    @given(histories(), st.randoms())
    def test_other_entries_do_not_matter(self, entries: list[ControlEntry], random: Random) -> None:
        """What a set amounts to is the same in a history that holds nothing else."""
        history = history_of(entries)
        heads = [entry.id for entry in random.sample(entries, min(2, len(entries)))]
        within = history.past(heads)
        alone = history_of(entries[index] for index in bits(within))
        assert resolve(alone) == resolve(history, within)

    @given(histories(40), st.integers(0, 40))
    @settings(max_examples=100)
    def test_what_is_kept_is_what_would_be_found_anew(
        self, entries: list[ControlEntry], cut: int
    ) -> None:
        """Caches, and starting from a part, change nothing."""
        history = history_of(entries)
        authority = history.authority
        within = history.past([entry.id for entry in entries[: cut + 1]])
        kept = authority.verdict(within)
        first = authority.verdict(1)
        anew = authority._found(*authority._tried(first, kept.scope & ~first.scope, 0))
        assert kept.effects.levels == anew.effects.levels
        assert kept.voids == anew.voids
        assert authority._amount(anew) == authority.roster(within)

    @given(stories(), st.sampled_from([ANNA, BORIS, CLARA, DINA]), st.integers(0, 2**16))
    def test_lower_levels_decide_nothing_higher(
        self, story: Story, other: Person, number: int
    ) -> None:
        """An entry beside the others changes no effect of a level above its own."""
        before = story.history().authority.verdict(-1).effects.levels
        beside = story.told[number % len(story.told)]
        who = _author(story, beside)
        if who is None:
            return
        person_, device = who
        choices: list[Operation] = [Remove(other.user, ()), SetRole(other.user, Role.READER, ())]
        told = story.tell(person_, choices[number % 2], [beside], device)
        after = story.history().authority.verdict(-1).effects
        index = len(story.told) - 1
        for level in range(PROVEN):
            if after.levels[level] >> index & 1:
                assert after.levels[level + 1 :] == before[level + 1 :]
                return
        assert after.levels == before, told

    @given(stories(12), st.integers(0, 2**16))
    def test_a_removed_admin_has_no_power_beside_the_removal(
        self, story: Story, number: int
    ) -> None:
        """However an admin who was removed backdates, nothing of it has effect."""
        history = story.history()
        view = resolve(history)
        founder = person("anna@mz")
        if founder.user not in view.users or founder.devices[0] not in view.devices:
            return
        admit = story.tell(founder, Admit((grant(OLGA, Role.ADMIN),)))
        story.tell(founder, Remove(OLGA.user, ()))
        targets: list[Operation] = [
            Remove(BORIS.user, ()),
            Admit((grant(EGOR, Role.MEMBER),)),
            SetRole(CLARA.user, Role.READER, ()),
            Enroll(credential(OLGA, (1,))),
        ]
        late = story.tell(OLGA, targets[number % 4], [admit])
        again = story.tell(founder, Admit((grant(OLGA, Role.MEMBER),)), [story.told[-2]])
        if reason(story, again) is None:
            assert reason(story, late) is not None

    @given(histories(kind=ChatKind.DIRECT))
    def test_nobody_joins_a_direct_chat(self, entries: list[ControlEntry]) -> None:
        genesis = entries[0].operation
        assert isinstance(genesis, Genesis)
        two = {one.credential.user.user for one in genesis.grants}
        assert resolve(history_of(entries)).users.keys() <= two

    @given(histories())
    def test_devices_are_the_members(self, entries: list[ControlEntry]) -> None:
        """Each device is of one member, and a member's agency is the one that vouched."""
        membership = resolve(history_of(entries))
        listed = [device for one in membership.users.values() for device in one.devices]
        assert sorted(listed) == sorted(membership.devices)
        for device, user in membership.devices.items():
            assert device in membership.users[user].devices


def _author(story: Story, beside: Told) -> tuple[Person, int] | None:
    """Return someone, with a fresh device chain, who may act beside all but this entry."""
    history = story.history()
    view = resolve(history, history.past([beside.id]))
    for name in ("fyodor@mvd", "egor@mvd", "dina@mvd", "clara@mz", "boris@mz", "anna@mz"):
        who = person(name)
        for number, device in enumerate(who.devices):
            if device in view.devices and not history.length(device):
                return who, number
    return None


class TestRanks:
    def test_an_admin_takes_members_in_and_puts_them_out(self) -> None:
        story = Story(CAST)
        story.tell(BORIS, Admit((grant(DINA, Role.MEMBER), grant(EGOR, Role.READER))))
        story.tell(BORIS, Remove(CLARA.user, ()))
        assert outcome(story) == {
            "anna@mz": Role.OWNER,
            "boris@mz": Role.ADMIN,
            "dina@mvd": Role.MEMBER,
            "egor@mvd": Role.READER,
        }

    @pytest.mark.parametrize(
        ("who", "operation"),
        [
            (CLARA, Remove(BORIS.user, ())),
            (CLARA, Admit((grant(DINA, Role.READER),))),
            (CLARA, SetPolicy(Policy(("RU",), 1, HistoryRule.SHARED))),
            (BORIS, Remove(ANNA.user, ())),
            (BORIS, Admit((grant(DINA, Role.ADMIN),))),
            (BORIS, SetRole(CLARA.user, Role.ADMIN, ())),
            (BORIS, SetRole(BORIS.user, Role.MEMBER, ())),
            (BORIS, Revoke(ANNA.devices[0], None, None, ())),
            (BORIS, SetPolicy(Policy(("RU-UDM",), 0, HistoryRule.SHARED))),
            (ANNA, SetRole(CLARA.user, Role.OWNER, ())),
        ],
    )
    def test_not_by_these(self, who: Person, operation: Operation) -> None:
        story = Story(CAST)
        before = outcome(story)
        assert reason(story, story.tell(who, operation)) == Void.RANK
        assert outcome(story) == before

    def test_who_leaves_is_out_even_if_promoted_meanwhile(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, SetRole(CLARA.user, Role.ADMIN, ()), [story.genesis])
        story.tell(CLARA, Leave(), [story.genesis])
        assert "clara@mz" not in outcome(story)
        story.tell(BORIS, Admit((grant(CLARA, Role.READER),)))
        assert outcome(story)["clara@mz"] == Role.READER

    def test_leaving_does_not_lift_a_demotion(self) -> None:
        """A demoted admin who leaves beside the demotion gains nothing for what was backdated."""
        story = Story(CAST)
        story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), [story.genesis])
        late = story.tell(BORIS, Remove(CLARA.user, ()), [story.genesis])
        story.tell(BORIS, Leave(), [])
        assert reason(story, late) == Void.OUTRANKED
        assert outcome(story) == {"anna@mz": Role.OWNER, "clara@mz": Role.MEMBER}

    def test_what_another_device_did_before_knowing_of_the_leave_stays(self) -> None:
        story = Story(CAST)
        both = story.tell(BORIS, Enroll(credential(BORIS, (1,))))
        story.tell(BORIS, Leave(), [both])
        told = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [both], number=1)
        assert reason(story, told) is None
        assert set(outcome(story)) == {"anna@mz", "clara@mz", "dina@mvd"}

    def test_void_to_its_author_is_void_for_good(self) -> None:
        """Boris acts though he knows of his demotion; that the demotion falls changes nothing."""
        owners = [(ANNA, Role.OWNER), (DINA, Role.OWNER), (OLGA, Role.OWNER)]
        story = Story([*owners, *CAST[1:]])
        demotion = story.tell(OLGA, SetRole(BORIS.user, Role.MEMBER, ()), [story.genesis])
        defiant = story.tell(BORIS, Remove(CLARA.user, ()), [demotion])
        decided = story.quorum(ANNA, [SetRole(OLGA.user, Role.MEMBER, ())], [DINA])
        story.tell(ANNA, decided, [story.genesis])
        assert reason(story, demotion) == Void.OUTRANKED
        assert reason(story, defiant) == Void.RANK
        assert outcome(story)["boris@mz"] == Role.ADMIN
        assert outcome(story)["clara@mz"] == Role.MEMBER

    def test_what_was_seen_before_a_demotion_stays(self) -> None:
        story = Story(CAST)
        removal = story.tell(BORIS, Remove(CLARA.user, ()))
        story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()))
        assert reason(story, removal) is None
        assert "clara@mz" not in outcome(story)

    def test_a_demoted_owner_keeps_what_an_admin_may(self) -> None:
        story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER), (BORIS, Role.ADMIN), CAST[2]])
        start = [story.genesis]
        story.tell(ANNA, story.quorum(ANNA, [SetRole(OLGA.user, Role.ADMIN, ())], [OLGA]), start)
        member = story.tell(OLGA, Remove(CLARA.user, ()), start)
        admin = story.tell(OLGA, Remove(BORIS.user, ()), [])
        assert reason(story, member) is None
        assert reason(story, admin) == Void.OUTRANKED
        assert outcome(story)["olga@mz"] == Role.ADMIN

    def test_a_higher_rank_keeps_what_a_lower_one_took(self) -> None:
        """What a member did before either is not undone by a removal that an owner overruled."""
        story = Story(CAST)
        start = [story.genesis]
        story.tell(BORIS, Remove(CLARA.user, ()), start)
        mine = story.tell(CLARA, Enroll(credential(CLARA, (1,))), start)
        story.tell(ANNA, SetRole(CLARA.user, Role.ADMIN, ()), start)
        assert reason(story, mine) is None
        assert CLARA.devices[1] in resolve(story.history()).devices

    def test_a_lower_grant_does_not_revive_a_higher_dispute(self) -> None:
        """Owners disagree about C: out. An admin who saw only the removal cannot make C admin."""
        story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER), (BORIS, Role.ADMIN), CAST[2]])
        start = [story.genesis]
        story.tell(ANNA, SetRole(CLARA.user, Role.ADMIN, ()), start)
        removal = story.tell(OLGA, Remove(CLARA.user, ()), start)
        assert "clara@mz" not in outcome(story)
        story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)), [removal])
        assert outcome(story)["clara@mz"] == Role.MEMBER

    def test_a_grant_lowers_nobody(self) -> None:
        story = Story(CAST)
        told = story.tell(ANNA, Admit((grant(BORIS, Role.MEMBER),)))
        assert reason(story, told) == Void.LOWERS

    def test_a_role_needs_a_member(self) -> None:
        story = Story(CAST)
        told = story.tell(ANNA, SetRole(DINA.user, Role.ADMIN, ()))
        assert reason(story, told) == Void.STRANGER

    def test_a_promotion_confirms_the_member_that_was_seen(self) -> None:
        """An owner promotes whom an admin took in; the admin's grant falls; the promotion stays."""
        story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER), (BORIS, Role.ADMIN)])
        start = [story.genesis]
        taken = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), start)
        story.tell(ANNA, SetRole(DINA.user, Role.ADMIN, ()), [taken])
        story.tell(OLGA, Remove(BORIS.user, ()), start)
        membership = resolve(story.history())
        assert reason(story, taken) == Void.OUTRANKED
        assert roles(membership)["dina@mvd"] == Role.ADMIN
        assert membership.devices[DINA.devices[0]] == DINA.user


class TestDirect:
    CAST = ((ANNA, Role.OWNER), (BORIS, Role.OWNER))

    @pytest.mark.parametrize(
        "operation",
        [
            Admit((grant(CLARA, Role.MEMBER),)),
            Remove(BORIS.user, ()),
            SetRole(BORIS.user, Role.MEMBER, ()),
            SetRole(CLARA.user, Role.MEMBER, ()),
        ],
    )
    def test_nothing_changes_but_by_oneself(self, operation: Inner) -> None:
        story = Story(self.CAST, ChatKind.DIRECT)
        assert reason(story, story.tell(ANNA, operation)) == Void.DIRECT
        decided = story.quorum(ANNA, [operation], [BORIS])
        assert reason(story, story.tell(ANNA, decided)) == Void.DIRECT

    def test_devices_and_leaving(self) -> None:
        story = Story(self.CAST, ChatKind.DIRECT)
        story.tell(ANNA, Enroll(credential(ANNA, (1,))))
        story.tell(BORIS, Leave())
        membership = resolve(story.history())
        assert membership.devices == dict.fromkeys(ANNA.devices[:2], ANNA.user)


class TestHistory:
    def test_a_genesis_stands_first_and_alone(self) -> None:
        story = Story(CAST)
        first = story.genesis.entry
        with pytest.raises(Inadmissible, match="genesis stands first"):
            History().add(story.tell(ANNA, Leave()).entry)
        history = story.history()
        with pytest.raises(Inadmissible, match="genesis stands first"):
            history.add(replace(first, id=EntryId(bytes(32))))
        with pytest.raises(Inadmissible, match="genesis stands first"):
            History().add(replace(first, seq=1, prev=first.id))

    def test_a_genesis_is_made_by_its_owner(self) -> None:
        first = Story(CAST).genesis.entry
        with pytest.raises(Inadmissible, match="one of its owners"):
            History().add(replace(first, device=CLARA.devices[0]))

    def test_an_entry_is_held_once(self) -> None:
        story = Story(CAST)
        history = story.history()
        assert history.add(story.genesis.entry) == 0
        assert len(history) == 1
        assert story.genesis.id in history

    def test_places_must_be_true(self) -> None:
        story = Story(CAST)
        told = story.tell(ANNA, Checkpoint())
        history = history_of(story.entries[:1])
        with pytest.raises(Inadmissible, match="entry before"):
            history.add(replace(told.entry, seq=7))
        wrong = Reference(BORIS.devices[0], 0, story.genesis.id)
        with pytest.raises(Inadmissible, match="wrong place"):
            history.add(replace(told.entry, links=(wrong,)))
        unknown = Reference(BORIS.devices[0], 0, EntryId(bytes(32)))
        with pytest.raises(UsageError, match="link"):
            history.add(replace(told.entry, links=(unknown,)))
        with pytest.raises(UsageError, match="not in this history"):
            history.past([told.id])
        assert len(history) == 1
        history.add(told.entry)
        assert history.past_of(told.id) == 1
        assert history.heads() == (told.reference,)
        assert history.length(ANNA.devices[0]) == 2
        assert history.holds(told.reference)
        assert not history.holds(unknown)

    def test_no_membership_of_nothing(self) -> None:
        history = Story(CAST).history()
        with pytest.raises(UsageError, match="genesis"):
            resolve(history, 0)
        with pytest.raises(Inadmissible):
            may_append(history, ANNA.devices[0], 0)

    def test_caches_are_bounded(self) -> None:
        story = Story(CAST)
        branches = [
            story.tell(ANNA, SetPolicy(Policy(("RU",), number, HistoryRule.SHARED)))
            for number in range(300)
        ]
        history = story.history()
        for number, told in enumerate(branches):
            assert resolve(history, history.past([told.id])).policy.retention == number
        assert len(history.authority._rosters) <= 256

    def test_a_long_lane_is_judged_in_one_go(self) -> None:
        """10,000 entries, most of them epochs; the time is for the benchmarks."""
        history = history_of(_long_lane(10_000))
        membership = resolve(history)
        assert len(membership.users) == 2
        assert not membership.void


def _long_lane(size: int) -> Sequence[ControlEntry]:
    story = Story(CAST[:2])
    first = story.genesis.entry
    chat = ChatId(first.id)
    epoch = story.epoch(ANNA, ANNA.devices[:1])
    policies = [SetPolicy(Policy(("RU",), number, HistoryRule.SHARED)) for number in range(2)]
    entries, tips = [first], {ANNA.devices[0]: first}
    for number in range(1, size):
        device = (ANNA, BORIS)[number % 2].devices[0]
        tip, last = tips.get(device), entries[-1]
        links = () if last.device == device else (Reference(last.device, last.seq, last.id),)
        entry = ControlEntry(
            EntryId(number.to_bytes(4) + chat[4:]),
            device,
            tip.seq + 1 if tip else 0,
            tip.id if tip else None,
            links,
            policies[number % 3 % 2] if number % 20 == 0 else epoch,
        )
        entries.append(entry)
        tips[device] = entry
    return entries
