"""Membership (SPEC 3): a function of the set of control entries, and safe against who lies."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dag import ControlEntry, bits
from protocol.entry import ChatId, DeviceKey, EntryId, Reference
from protocol.errors import Inadmissible, UsageError
from protocol.history import History
from protocol.identity import AgencyId
from protocol.membership import (
    Membership,
    Void,
    content_void,
    may_append,
    may_enter,
    may_write,
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
    Nack,
    Operation,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, HistoryRule, Policy, Role, narrow
from protocol.roster import PROVEN
from protocol.testing.cast import Person, agency, credential, grant, person
from protocol.testing.histories import histories, reorder, stories
from protocol.testing.story import Story, Told, history_of
from tests.protocol.membership_cases import WorkedCase, head, make_cases

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mz")
DINA, EGOR, OLGA = person("dina@mvd"), person("egor@mvd"), person("olga@mz")
CAST = [(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)]


def roles(membership: Membership) -> dict[str, Role]:
    return {member.name: member.role for member in membership.users.values()}


def outcome(story: Story) -> dict[str, Role]:
    return roles(resolve(story.history()))


def reason(story: Story, told: Told) -> Void | None:
    return void_reason(story.history(), told.id)


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
        kept, anew = authority.verdict(within), authority._anew(authority.verdict(within).scope)
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
        story.tell(CLARA, Leave(()), [story.genesis])
        assert "clara@mz" not in outcome(story)
        story.tell(BORIS, Admit((grant(CLARA, Role.READER),)))
        assert outcome(story)["clara@mz"] == Role.READER

    def test_leaving_does_not_lift_a_demotion(self) -> None:
        """A demoted admin who leaves beside the demotion gains nothing for what was backdated."""
        story = Story(CAST)
        story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), [story.genesis])
        late = story.tell(BORIS, Remove(CLARA.user, ()), [story.genesis])
        story.tell(BORIS, Leave(()), [])
        assert reason(story, late) == Void.OUTRANKED
        assert outcome(story) == {"anna@mz": Role.OWNER, "clara@mz": Role.MEMBER}

    def test_what_another_device_did_before_knowing_of_the_leave_stays(self) -> None:
        story = Story(CAST)
        both = story.tell(BORIS, Enroll(credential(BORIS, (1,))))
        story.tell(BORIS, Leave(()), [both])
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


class TestQuorum:
    OWNERS = (
        (ANNA, Role.OWNER),
        (OLGA, Role.OWNER),
        (DINA, Role.OWNER),
        (BORIS, Role.ADMIN),
    )

    def test_two_of_three_owners_remove_the_third(self) -> None:
        story = Story(self.OWNERS)
        story.tell(ANNA, story.quorum(ANNA, [Remove(DINA.user, ())], [OLGA]))
        assert "dina@mvd" not in outcome(story)

    @pytest.mark.parametrize("signers", [[], [BORIS]])
    def test_one_of_three_is_too_few(self, signers: list[Person]) -> None:
        story = Story(self.OWNERS)
        told = story.tell(ANNA, story.quorum(ANNA, [Remove(DINA.user, ())], signers))
        assert reason(story, told) == Void.UNSIGNED

    @pytest.mark.parametrize(("count", "signed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4)])
    def test_two_thirds_rounded_up(self, count: int, signed: int) -> None:
        names = ("anna@mz", "boris@mz", "clara@mz", "dina@mvd", "egor@mvd", "olga@mz")
        owners = [person(name) for name in names[:count]]
        for number in range(1, count + 1):
            story = Story([(who, Role.OWNER) for who in owners])
            parts: list[Inner] = [SetPolicy(Policy(("RU",), 9, HistoryRule.SHARED))]
            told = story.tell(ANNA, story.quorum(ANNA, parts, owners[1:number]))
            assert (reason(story, told) is None) == (number >= signed)

    def test_an_admin_does_not_publish_it(self) -> None:
        story = Story(self.OWNERS)
        told = story.tell(BORIS, story.quorum(BORIS, [Remove(DINA.user, ())], [ANNA, OLGA]))
        assert reason(story, told) == Void.UNSIGNED

    def test_a_sole_owner_is_enough(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, story.quorum(ANNA, [SetRole(BORIS.user, Role.OWNER, ())], []))
        assert outcome(story)["boris@mz"] == Role.OWNER

    def test_it_counts_once(self) -> None:
        """The signatures on a removal do not remove again whom the owners took back."""
        story = Story(self.OWNERS)
        decided = story.quorum(ANNA, [Remove(DINA.user, ())], [OLGA], until=5)
        story.tell(ANNA, decided)
        back = story.quorum(ANNA, [Admit((grant(DINA, Role.OWNER),))], [OLGA], until=6)
        story.tell(ANNA, back)
        again = story.tell(ANNA, decided)
        assert reason(story, again) == Void.REPLAYED
        assert outcome(story)["dina@mvd"] == Role.OWNER

    def test_it_runs_out(self) -> None:
        story = Story(self.OWNERS)
        story.tell(ANNA, Checkpoint())
        told = story.tell(ANNA, story.quorum(ANNA, [Remove(DINA.user, ())], [OLGA], until=1))
        assert reason(story, told) == Void.REPLAYED

    def test_nobody_else_publishes_it(self) -> None:
        story = Story(self.OWNERS)
        decided = story.quorum(ANNA, [Remove(DINA.user, ())], [OLGA])
        assert reason(story, story.tell(OLGA, decided)) == Void.REPLAYED

    def test_a_stolen_device_does_not_sign(self) -> None:
        """A co-signature by a device whose user revokes it beside the decision is none."""
        story = Story(self.OWNERS)
        start = [story.genesis]
        told = story.tell(ANNA, story.quorum(ANNA, [Remove(DINA.user, ())], [OLGA]), start)
        story.tell(ANNA, SetPolicy(Policy(("RU",), 9, HistoryRule.SHARED)), [])
        story.tell(BORIS, story.revocation(OLGA), start)
        assert reason(story, told) == Void.UNSIGNED
        assert outcome(story)["dina@mvd"] == Role.OWNER

    def test_a_faulty_part_voids_the_whole(self) -> None:
        story = Story(self.OWNERS)
        parts: list[Inner] = [Remove(DINA.user, ()), SetRole(EGOR.user, Role.ADMIN, ())]
        told = story.tell(ANNA, story.quorum(ANNA, parts, [OLGA]))
        assert reason(story, told) == Void.STRANGER

    def test_all_its_parts_have_effect(self) -> None:
        story = Story(self.OWNERS)
        parts: list[Inner] = [
            Revoke(DINA.devices[0], None, None, (head(DINA, 3),)),
            SetPolicy(Policy(("RU-UDM",), 9, HistoryRule.SHARED)),
            SetRole(BORIS.user, Role.MEMBER, ()),
        ]
        story.tell(ANNA, story.quorum(ANNA, parts, [OLGA]))
        membership = resolve(story.history())
        assert membership.policy == Policy(("RU-UDM",), 9, HistoryRule.SHARED)
        assert roles(membership)["boris@mz"] == Role.MEMBER
        assert membership.users[DINA.user].devices == frozenset()

    def test_what_was_decided_beside_a_demotion_does_not_bind(self) -> None:
        """Owners keep an admin whom one owner demotes: the admin's work beside it stays."""
        story = Story([*self.OWNERS, CAST[2]])
        start = [story.genesis]
        mine = story.tell(BORIS, Remove(CLARA.user, ()), start)
        story.tell(OLGA, SetRole(BORIS.user, Role.READER, ()), start)
        kept = story.quorum(ANNA, [SetRole(BORIS.user, Role.ADMIN, ())], [DINA])
        story.tell(ANNA, kept, start)
        assert reason(story, mine) is None
        assert outcome(story)["boris@mz"] == Role.ADMIN


class TestDevices:
    def test_enrolled_by_the_user(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        story.tell(CLARA, Enroll(credential(CLARA, (2,))), number=1)
        assert resolve(story.history()).users[CLARA.user].devices == set(CLARA.devices)

    def test_a_new_stint_has_the_devices_that_it_names(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        story.tell(BORIS, Remove(CLARA.user, ()))
        story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        assert resolve(story.history()).users[CLARA.user].devices == {CLARA.devices[0]}

    def test_not_by_others(self) -> None:
        story = Story(CAST)
        told = story.tell(BORIS, Enroll(credential(CLARA, (1,))))
        assert reason(story, told) == Void.STRANGER

    def test_a_new_device_of_a_member_brings_itself_in(self) -> None:
        """The first device is lost, and no other is there to enrol the new one."""
        story = Story(CAST)
        entered = story.tell(CLARA, Enroll(credential(CLARA, (1,))), number=1)
        assert reason(story, entered) is None
        story.tell(CLARA, story.revocation(CLARA), number=1)
        assert resolve(story.history()).users[CLARA.user].devices == {CLARA.devices[1]}
        assert outcome(story)[CLARA.name] == Role.MEMBER

    def test_not_once_it_is_revoked(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        story.tell(CLARA, Enroll(credential(CLARA, (2,))))
        story.tell(CLARA, story.revocation(CLARA, 1))
        story.tell(BORIS, Revoke(CLARA.devices[2], None, None, ()))
        by_user = story.tell(CLARA, Enroll(credential(CLARA, (1,))), number=1)
        by_rank = story.tell(CLARA, Enroll(credential(CLARA, (2,))), number=2)
        assert [reason(story, by_user), reason(story, by_rank)] == [Void.DEVICE, Void.DEVICE]
        assert resolve(story.history()).users[CLARA.user].devices == {CLARA.devices[0]}

    def test_not_beside_a_removal_of_its_user(self) -> None:
        story = Story(CAST)
        story.tell(BORIS, Remove(CLARA.user, ()), [story.genesis])
        beside = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [story.genesis], number=1)
        assert reason(story, beside) == Void.OUTRANKED
        assert CLARA.user not in resolve(story.history()).users

    @pytest.mark.parametrize(
        ("who", "number"), [(CLARA, 2), (DINA, 1)], ids=["another device's", "of no member"]
    )
    def test_nobody_else_enters_so(self, who: Person, number: int) -> None:
        story = Story(CAST)
        told = story.tell(who, Enroll(credential(who, (number,))), number=1)
        history = story.history()
        assert not may_enter(history, told.entry, history.past_of(told.id))
        assert reason(story, told) == Void.NOT_A_MEMBER

    def test_revoked_by_rank_and_back_by_a_later_grant(self) -> None:
        story = Story(CAST)
        story.tell(BORIS, Revoke(CLARA.devices[0], None, None, ()))
        assert CLARA.devices[0] not in resolve(story.history()).devices
        story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        assert CLARA.devices[0] in resolve(story.history()).devices

    def test_enrolling_does_not_undo_a_revocation_by_rank(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        story.tell(BORIS, Revoke(CLARA.devices[0], None, None, ()))
        story.tell(CLARA, Enroll(credential(CLARA, (0,))), number=1)
        assert resolve(story.history()).users[CLARA.user].devices == {CLARA.devices[1]}

    def test_revoked_by_the_user_for_good(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        story.tell(CLARA, story.revocation(CLARA), number=1)
        story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        assert resolve(story.history()).users[CLARA.user].devices == {CLARA.devices[1]}

    def test_one_device_does_not_revoke_its_sister(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        told = story.tell(CLARA, Revoke(CLARA.devices[0], None, None, ()), number=1)
        assert reason(story, told) == Void.RANK

    def test_a_device_revokes_itself(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Revoke(CLARA.devices[0], None, None, ()))
        assert resolve(story.history()).users[CLARA.user].devices == frozenset()

    def test_a_stranger_is_not_revoked(self) -> None:
        story = Story(CAST)
        told = story.tell(BORIS, Revoke(DINA.devices[0], None, None, ()))
        assert reason(story, told) == Void.STRANGER

    def test_a_signature_of_another_user_is_none(self) -> None:
        story = Story(CAST)
        theirs = story.revocation(BORIS).by_user
        told = story.tell(BORIS, Revoke(CLARA.devices[0], None, theirs, ()))
        assert reason(story, told) == Void.STRANGER

    def test_a_thief_does_nothing_beside_the_revocation(self) -> None:
        story = Story(CAST)
        start = [story.genesis]
        story.tell(CLARA, story.revocation(BORIS), start)
        grant_ = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), start)
        leave = story.tell(BORIS, Leave(()), [])
        assert [reason(story, grant_), reason(story, leave)] == [Void.DEVICE, Void.DEVICE]
        assert outcome(story)["boris@mz"] == Role.ADMIN

    def test_a_revoked_device_is_refused(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, story.revocation(BORIS))
        history = story.history()
        with pytest.raises(Inadmissible, match="no device of a member"):
            may_append(history, BORIS.devices[0], history.everything)

    def test_a_device_of_another_member_is_not_brought_in(self) -> None:
        story = Story(CAST)
        stolen = replace(
            credential(DINA), user=replace(credential(DINA).user, devices=CLARA.devices[:1])
        )
        told = story.tell(BORIS, Admit((replace(grant(DINA, Role.MEMBER), credential=stolen),)))
        assert reason(story, told) == Void.TAKEN

    def test_of_two_concurrent_claims_the_smaller_user_holds(self) -> None:
        story = Story(CAST)
        start = [story.genesis]
        both = sorted((DINA, EGOR), key=lambda who: who.user)
        shared = DINA.devices[2]
        for who, author in zip(both, (ANNA, BORIS), strict=True):
            named = replace(credential(who).user, devices=(who.devices[0], shared))
            claim = replace(
                grant(who, Role.MEMBER), credential=replace(credential(who), user=named)
            )
            story.tell(author, Admit((claim,)), start)
        membership = resolve(story.history())
        assert membership.devices[shared] == both[0].user
        assert membership.users[both[1].user].devices == {both[1].devices[0]}

    def test_a_member_keeps_their_agency(self) -> None:
        story = Story(CAST)
        home = AgencyId(agency("mvd").root.public)
        moved = replace(credential(CLARA), user=replace(credential(CLARA).user, agency=home))
        told = story.tell(BORIS, Admit((replace(grant(CLARA, Role.MEMBER), credential=moved),)))
        assert reason(story, told) == Void.AGENCY

    def test_no_user_has_too_many(self) -> None:
        story = Story(CAST)
        devices = tuple(DeviceKey(bytes([number]) * 32) for number in range(32))
        crowd = replace(credential(CLARA), user=replace(credential(CLARA).user, devices=devices))
        told = story.tell(BORIS, Admit((replace(grant(CLARA, Role.MEMBER), credential=crowd),)))
        assert reason(story, told) == Void.LIMIT


class TestForks:
    def forked(self) -> tuple[Story, Told, Told, Told]:
        """Boris' device forks; Anna exposes it."""
        story = Story(CAST)
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Admit((grant(EGOR, Role.MEMBER),)), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        return story, one, other, proof

    def test_neither_branch_counts(self) -> None:
        story, one, other, _ = self.forked()
        assert [reason(story, one), reason(story, other)] == [Void.FORKED, Void.FORKED]
        assert set(outcome(story)) == {"anna@mz", "boris@mz", "clara@mz"}
        assert BORIS.devices[0] not in resolve(story.history()).devices

    def test_an_owner_vouches_for_a_branch(self) -> None:
        story, one, other, proof = self.forked()
        vouching = Checkpoint((one.reference,))
        story.tell(ANNA, vouching, [proof])
        assert [reason(story, one), reason(story, other)] == [None, None]

    def test_also_for_what_the_proof_had_not_seen(self) -> None:
        story = Story(CAST)
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Leave(()), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other), [story.genesis])
        story.tell(ANNA, Checkpoint((one.reference,)), [proof, one])
        assert reason(story, one) is None
        assert reason(story, other) == Void.FORKED

    def test_not_for_a_fork_that_the_owner_does_not_know(self) -> None:
        story, _, _, proof = self.forked()
        one = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [proof])
        other = story.retell(CLARA, Leave(()), one, [proof])
        unaware = story.tell(ANNA, Checkpoint((one.reference,)), [one])
        story.tell(ANNA, story.exposure(one, other))
        assert reason(story, unaware) is None
        assert reason(story, one) == Void.FORKED

    def test_what_was_vouched_for_stays_whoever_acts_beside(self) -> None:
        """An operation about the forked device's user, seen by nobody yet, changes nothing."""
        story = Story([*CAST, (OLGA, Role.OWNER)])
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Leave(()), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        story.tell(ANNA, Checkpoint((one.reference,)), [proof])
        story.tell(ANNA, SetPolicy(Policy(("RU",), 9, HistoryRule.SHARED)))
        story.tell(OLGA, SetRole(BORIS.user, Role.ADMIN, ()), [story.genesis])
        assert reason(story, one) is None
        assert "dina@mvd" in outcome(story)

    def test_only_for_what_the_owner_has_seen(self) -> None:
        story, one, _, proof = self.forked()
        late = story.tell(BORIS, Admit((grant(OLGA, Role.MEMBER),)), [])
        story.tell(ANNA, Checkpoint((one.reference,)), [proof])
        assert reason(story, one) is None
        assert reason(story, late) == Void.FORKED

    def test_nobody_else_vouches(self) -> None:
        story, one, _, proof = self.forked()
        told = story.tell(CLARA, Checkpoint((one.reference,)), [proof])
        assert reason(story, told) is None
        assert reason(story, one) == Void.FORKED

    def test_other_kinds_on_the_branch_do_not_count_either(self) -> None:
        story, one, _, _ = self.forked()
        epoch = story.tell(BORIS, story.epoch(BORIS, BORIS.devices), [one])
        leave = story.tell(BORIS, Leave(()), [one])
        assert [reason(story, epoch), reason(story, leave)] == [Void.FORKED, Void.FORKED]

    def test_a_decision_on_the_branch_is_lost(self) -> None:
        """Whom a forked device made owner cannot vouch for that very decision."""
        story = Story(CAST)
        story.tell(ANNA, Checkpoint())
        decided = story.quorum(ANNA, [SetRole(BORIS.user, Role.OWNER, ())], [])
        one = story.tell(ANNA, decided)
        other = story.retell(ANNA, Leave(()), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        story.tell(BORIS, Checkpoint((one.reference,)), [proof])
        assert reason(story, one) == Void.FORKED
        assert outcome(story)["boris@mz"] == Role.ADMIN

    def test_a_proof_known_already_adds_nothing(self) -> None:
        story, one, other, _ = self.forked()
        told = story.tell(ANNA, story.exposure(one, other))
        assert reason(story, told) == Void.KNOWN

    def test_a_fork_of_content_puts_the_device_out_and_no_more(self) -> None:
        story = Story(CAST)
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Leave(()), one, [])
        proof = story.exposure(one, other)
        assert proof.fork is not None
        story.untell()
        content = replace(proof, fork=replace(proof.fork, lane=1))
        story.tell(ANNA, content)
        assert reason(story, story.tell(CLARA, content)) == Void.KNOWN
        assert reason(story, one) is None
        assert BORIS.devices[0] not in resolve(story.history()).devices


class TestContent:
    def test_after_a_readmission(self) -> None:
        story = Story(CAST)
        removal = story.tell(BORIS, Remove(CLARA.user, (head(CLARA, 3),)))
        back = story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        history = story.history()
        start, now = history.past([story.genesis.id]), history.past([back.id])
        device = CLARA.devices[0]
        assert content_void(history, device, 3, start) is None
        assert content_void(history, device, 4, start) == Void.REMOVED
        assert content_void(history, device, 4, now) is None
        assert content_void(history, device, 4, history.past([removal.id])) == Void.NOT_A_MEMBER

    def test_readers_do_not_write(self) -> None:
        story = Story(CAST)
        told = story.tell(BORIS, SetRole(CLARA.user, Role.READER, (head(CLARA, 7),)))
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 7, start) is None
        assert content_void(history, CLARA.devices[0], 8, start) == Void.REMOVED
        assert content_void(history, CLARA.devices[0], 8, history.past([told.id]))
        assert not resolve(history).may_write(CLARA.devices[0])
        with pytest.raises(Inadmissible, match="readers do not write"):
            may_write(history, CLARA.devices[0], history.everything)
        assert may_write(history, CLARA.devices[0], start).role == Role.MEMBER

    def test_a_void_removal_does_not_lift_the_frontier(self) -> None:
        """C cannot name a high head of their own before being removed."""
        story = Story(CAST)
        story.tell(CLARA, Remove(CLARA.user, (head(CLARA, 200),)))
        story.tell(BORIS, Remove(CLARA.user, (head(CLARA, 3),)))
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 4, start) == Void.REMOVED

    def test_nor_does_one_that_fell(self) -> None:
        """A removal by an admin who was demoted beside it names a high head; it does not count."""
        story = Story([*CAST, (OLGA, Role.ADMIN)])
        start = [story.genesis]
        fallen = story.tell(BORIS, Remove(CLARA.user, (head(CLARA, 200),)), start)
        demotion = story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), start)
        story.tell(OLGA, Remove(CLARA.user, (head(CLARA, 3),)), [fallen, demotion])
        history = story.history()
        seen = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 3, seen) is None
        assert content_void(history, CLARA.devices[0], 4, seen) == Void.REMOVED

    def test_an_earlier_frontier_stays_valid(self) -> None:
        """Who was removed, taken back and removed again keeps what the first removal had seen."""
        story = Story(CAST)
        story.tell(BORIS, Remove(CLARA.user, (head(CLARA, 5),)))
        story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        story.tell(BORIS, Remove(CLARA.user, ()))
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 5, start) is None
        assert content_void(history, CLARA.devices[0], 6, start) == Void.REMOVED

    def test_of_a_revoked_device(self) -> None:
        story = Story(CAST)
        told = story.tell(BORIS, Revoke(CLARA.devices[0], None, None, (head(CLARA, 2),)))
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 2, start) is None
        assert content_void(history, CLARA.devices[0], 3, start) == Void.DEVICE
        assert content_void(history, CLARA.devices[0], 3, history.past([told.id]))

    def test_of_who_left(self) -> None:
        story = Story(CAST)
        story.tell(CLARA, Leave((head(CLARA, 9),)))
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 9, start) is None
        assert content_void(history, CLARA.devices[0], 10, start) == Void.REMOVED


class TestPolicy:
    def test_agencies_inside_the_zones_hold_the_chat(self) -> None:
        afar = person("ivan@perm", "RU-PER")
        story = Story([*CAST, (afar, Role.MEMBER)])
        homes = {AgencyId(one.agency.root.public) for one in (ANNA, afar)}
        assert resolve(story.history()).agencies == homes
        story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)))
        assert resolve(story.history()).agencies == homes - {AgencyId(afar.agency.root.public)}

    def test_the_last_setting_holds(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 60, HistoryRule.FROM_JOIN)))
        story.tell(BORIS, SetPolicy(Policy(("RU-UDM",), 3600, HistoryRule.SHARED)))
        assert resolve(story.history()).policy == Policy(("RU-UDM",), 3600, HistoryRule.SHARED)

    def test_zones_never_widen_and_never_vanish(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 0, HistoryRule.SHARED)))
        story.tell(ANNA, SetPolicy(Policy(("KZ", "RU"), 0, HistoryRule.SHARED)))
        nowhere = story.tell(ANNA, SetPolicy(Policy(("KZ",), 0, HistoryRule.SHARED)))
        assert reason(story, nowhere) == Void.NOWHERE
        assert resolve(story.history()).policy.zones == ("RU-UDM",)

    def test_zones_that_meet(self) -> None:
        assert narrow(("RU",), ("RU-PER", "RU-UDM")) == ("RU-PER", "RU-UDM")
        assert narrow(("RU", "RU-UDM"), ("RU-UDM-IZH", "RU-UDM")) == ("RU-UDM",)
        assert narrow(("RU",), ("RUS",)) == ()


class TestOtherEntries:
    @pytest.mark.parametrize(
        ("who", "operation", "void"),
        [
            (CLARA, Nack(EntryId(bytes(32)), 1), None),
            (CLARA, Redact(CLARA.devices[0], 1, 0, EntryId(bytes(32)), ""), None),
            (CLARA, Redact(BORIS.devices[0], 1, 0, EntryId(bytes(32)), ""), Void.RANK),
            (BORIS, Redact(CLARA.devices[0], 1, 0, EntryId(bytes(32)), ""), None),
            (EGOR, Nack(EntryId(bytes(32)), 1), None),
            (EGOR, Redact(EGOR.devices[0], 1, 0, EntryId(bytes(32)), ""), Void.RANK),
            (DINA, Nack(EntryId(bytes(32)), 1), Void.NOT_A_MEMBER),
            (DINA, Leave(()), Void.NOT_A_MEMBER),
        ],
    )
    def test_who_may(self, who: Person, operation: Operation, void: Void | None) -> None:
        story = Story([*CAST, (EGOR, Role.READER)])
        assert reason(story, story.tell(who, operation)) == void

    def test_beside_a_removal(self) -> None:
        story = Story(CAST)
        start = [story.genesis]
        story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), start)
        target = Redact(CLARA.devices[0], 1, 0, EntryId(bytes(32)), "")
        assert reason(story, story.tell(BORIS, target, start)) == Void.OUTRANKED
        own = Redact(BORIS.devices[0], 1, 0, EntryId(bytes(32)), "")
        assert reason(story, story.tell(BORIS, own, [])) is None

    def test_beside_a_revocation(self) -> None:
        story = Story(CAST)
        story.tell(ANNA, story.revocation(CLARA), [story.genesis])
        late = story.tell(CLARA, Nack(EntryId(bytes(32)), 1), [story.genesis])
        assert reason(story, late) == Void.DEVICE


class TestDirect:
    CAST = ((ANNA, Role.OWNER), (BORIS, Role.OWNER))

    @pytest.mark.parametrize(
        "operation",
        [
            Admit((grant(CLARA, Role.MEMBER),)),
            Remove(BORIS.user, ()),
            SetRole(BORIS.user, Role.MEMBER, ()),
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
        story.tell(BORIS, Leave(()))
        membership = resolve(story.history())
        assert membership.devices == dict.fromkeys(ANNA.devices[:2], ANNA.user)


class TestHistory:
    def test_a_genesis_stands_first_and_alone(self) -> None:
        story = Story(CAST)
        first = story.genesis.entry
        with pytest.raises(Inadmissible, match="genesis stands first"):
            History().add(story.tell(ANNA, Leave(())).entry)
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
