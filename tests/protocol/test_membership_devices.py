"""SPEC 3.3: devices, forks, and other entries."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from protocol import standing
from protocol.dag import bits
from protocol.entry import DeviceKey, EntryId
from protocol.errors import Inadmissible
from protocol.identity import AgencyId
from protocol.membership import (
    Void,
    may_append,
    may_enter,
    resolve,
)
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Leave,
    Nack,
    Operation,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import HistoryRule, Policy, Role
from protocol.testing.cast import Person, agency, credential, grant
from protocol.testing.story import Story, Told, history_of
from protocol.trial import Trial
from tests.protocol.verdicts import (
    ANNA,
    BORIS,
    CAST,
    CLARA,
    DINA,
    EGOR,
    OLGA,
    fates,
    outcome,
    reason,
)


class TestDevices:
    def test_of_two_admissions_the_smaller_id_names_the_user(self) -> None:
        """In whatever order they came: the charters may differ."""
        story = Story([*CAST, (OLGA, Role.OWNER)])
        told = [
            story.tell(who, Admit((grant(DINA, Role.MEMBER, (0, number)),)), [story.genesis])
            for number, who in ((1, ANNA), (2, OLGA))
        ]
        number = 1 + told.index(min(told, key=lambda one: one.id))
        for order in (told, told[::-1]):
            history = history_of([story.genesis.entry, *(one.entry for one in order)])
            found = resolve(history).users[DINA.user]
            assert found.devices == set(DINA.devices)
            assert found.identity == credential(DINA, (0, number)).user

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

    def test_revoked_and_taken_back_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only the last of either is looked at, not each pair of them."""
        story = Story(CAST)
        for _ in range(30):
            story.tell(BORIS, Revoke(CLARA.devices[0], None, None, ()))
            story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        history = story.history()
        effects = history.authority.verdict(history.everything).effects
        looked: list[int] = []

        def counted(members: int) -> Iterator[int]:
            for one in bits(members):
                looked.append(one)
                yield one

        monkeypatch.setattr(standing, "bits", counted)
        assert not effects.lost(CLARA.devices[0], -1)
        assert len(looked) <= 2

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
        leave = story.tell(BORIS, Leave(), [])
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

    def test_a_device_stays_its_users_when_they_are_out(self) -> None:
        """Or an agency could certify one device for user after user: disputes are of each pair."""
        story = Story(CAST)
        story.tell(BORIS, Remove(CLARA.user, ()))
        named = replace(credential(DINA).user, devices=CLARA.devices[:1])
        passed_on = replace(
            grant(DINA, Role.MEMBER), credential=replace(credential(DINA), user=named)
        )
        told = story.tell(BORIS, Admit((passed_on,)))
        back = story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        assert reason(story, told) == Void.TAKEN
        assert reason(story, back) is None
        assert not story.history().authority.register.disputes

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

    @pytest.mark.parametrize("fault", [Void.AGENCY, Void.TAKEN, Void.LIMIT])
    def test_an_enrolment_is_bound_as_a_grant_is(self, fault: Void) -> None:
        story = Story(CAST)
        one = credential(CLARA, (1,))
        user = {
            Void.AGENCY: replace(one.user, agency=AgencyId(agency("mvd").root.public)),
            Void.TAKEN: replace(one.user, devices=BORIS.devices[:1]),
            Void.LIMIT: one.user,
        }[fault]
        if fault is Void.LIMIT:
            crowd = tuple(DeviceKey(bytes([number]) * 32) for number in range(31))
            full = replace(credential(CLARA), user=replace(one.user, devices=crowd))
            story.tell(BORIS, Admit((replace(grant(CLARA, Role.MEMBER), credential=full),)))
        told = story.tell(CLARA, Enroll(replace(one, user=user)))
        assert reason(story, told) == fault


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
        other = story.retell(BORIS, Leave(), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other), [story.genesis])
        story.tell(ANNA, Checkpoint((one.reference,)), [proof, one])
        assert reason(story, one) is None
        assert reason(story, other) == Void.FORKED

    def test_not_for_a_fork_that_the_owner_does_not_know(self) -> None:
        story, _, _, proof = self.forked()
        one = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [proof])
        other = story.retell(CLARA, Leave(), one, [proof])
        unaware = story.tell(ANNA, Checkpoint((one.reference,)), [one])
        story.tell(ANNA, story.exposure(one, other))
        assert reason(story, unaware) is None
        assert reason(story, one) == Void.FORKED

    def test_nor_for_that_beside_another_that_they_know(self) -> None:
        story = Story([*CAST, (OLGA, Role.OWNER)])
        one = story.tell(BORIS, Checkpoint(), [story.genesis])
        proof = story.tell(
            ANNA, story.exposure(one, story.retell(BORIS, Leave(), one, [story.genesis]))
        )
        theirs = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [proof])
        other = story.retell(CLARA, Leave(), theirs, [proof])
        story.tell(OLGA, story.exposure(theirs, other), [proof])
        story.tell(OLGA, Checkpoint(), [proof])
        story.tell(ANNA, Checkpoint((theirs.reference,)), [proof, theirs])
        assert reason(story, theirs) == Void.FORKED
        assert CLARA.devices[1] not in resolve(story.history()).devices

    def test_nor_by_a_checkpoint_that_counts_for_nothing(self) -> None:
        """An owner's device that has forked itself vouches for nobody."""
        story = Story([*CAST, (OLGA, Role.OWNER)])
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Leave(), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        vouching = story.tell(OLGA, Checkpoint((one.reference,)), [proof])
        again = story.retell(OLGA, Leave(), vouching, [proof])
        assert reason(story, one) is None
        story.tell(ANNA, story.exposure(vouching, again))
        assert reason(story, vouching) == Void.FORKED
        assert reason(story, one) == Void.FORKED

    def test_a_chain_that_forks_further_back_is_void_again(self) -> None:
        """Whoever asks after each entry: void, vouched for, void by another proof."""
        story = Story(CAST)
        first = story.tell(BORIS, Checkpoint(), [story.genesis])
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [story.genesis])
        other = story.retell(BORIS, Leave(), one, [story.genesis])
        story.tell(CLARA, story.exposure(one, other))
        story.tell(ANNA, Checkpoint())
        again = story.retell(BORIS, Checkpoint((first.reference,)), first, [story.genesis])
        story.tell(CLARA, story.exposure(first, again))
        assert fates(story, one) == [None, None, Void.FORKED, None, None, Void.FORKED]

    def test_what_a_checkpoint_vouched_for_falls_with_it(self) -> None:
        story = Story([*CAST, (OLGA, Role.OWNER)])
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [story.genesis])
        other = story.retell(BORIS, Leave(), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        vouching = story.tell(OLGA, Checkpoint(), [proof])
        again = story.retell(OLGA, Leave(), vouching, [proof])
        story.tell(ANNA, story.exposure(vouching, again))
        assert fates(story, one) == [None, None, Void.FORKED, None, None, Void.FORKED]

    def test_what_was_vouched_for_stays_whoever_acts_beside(self) -> None:
        """An operation about the forked device's user, seen by nobody yet, changes nothing."""
        story = Story([*CAST, (OLGA, Role.OWNER)])
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Leave(), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        story.tell(ANNA, Checkpoint((one.reference,)), [proof])
        story.tell(ANNA, SetPolicy(Policy(("RU",), 9, HistoryRule.SHARED)))
        story.tell(OLGA, SetRole(BORIS.user, Role.ADMIN, ()), [story.genesis])
        assert reason(story, one) is None
        assert "dina@mvd" in outcome(story)

    def test_a_leave_that_an_owner_vouched_for_stays_void_whatever_arrives_beside(self) -> None:
        """Leaves and quorums are decided before checkpoints, also when they are tried again."""
        story = Story([*CAST, (OLGA, Role.ADMIN)])
        one = story.tell(CLARA, Checkpoint(), [story.genesis])
        other = story.retell(CLARA, Checkpoint((one.reference,)), one, [story.genesis])
        proof = story.tell(BORIS, story.exposure(one, other), [story.genesis])
        leave = story.retell(CLARA, Leave(), one, [story.genesis])
        story.tell(ANNA, Checkpoint(), [proof, leave])
        assert reason(story, leave) == Void.FORKED
        story.tell(OLGA, SetRole(CLARA.user, Role.READER, ()), [story.genesis])
        assert reason(story, leave) == Void.FORKED
        assert outcome(story)["clara@mz"] == Role.READER

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
        leave = story.tell(BORIS, Leave(), [one])
        assert [reason(story, epoch), reason(story, leave)] == [Void.FORKED, Void.FORKED]

    def test_a_decision_on_the_branch_is_lost(self) -> None:
        """Whom a forked device made owner cannot vouch for that very decision."""
        story = Story(CAST)
        story.tell(ANNA, Checkpoint())
        decided = story.quorum(ANNA, [SetRole(BORIS.user, Role.OWNER, ())], [])
        one = story.tell(ANNA, decided)
        other = story.retell(ANNA, Leave(), one, [story.genesis])
        proof = story.tell(CLARA, story.exposure(one, other))
        story.tell(BORIS, Checkpoint((one.reference,)), [proof])
        assert reason(story, one) == Void.FORKED
        assert outcome(story)["boris@mz"] == Role.ADMIN

    def test_a_proof_known_already_adds_nothing(self) -> None:
        story, one, other, _ = self.forked()
        told = story.tell(ANNA, story.exposure(one, other))
        assert reason(story, told) == Void.KNOWN

    def test_a_proof_costs_no_more_than_what_it_is_about(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reader makes up devices and forks them without end: nothing else is tried again."""
        tried: list[int] = []
        run = Trial.run

        def counted(trial: Trial, window: Iterable[int]) -> None:
            listed = list(window)
            tried.extend(listed)
            run(trial, listed)

        monkeypatch.setattr(Trial, "run", counted)
        story = Story([*CAST, (EGOR, Role.READER)])
        for number in range(20):
            story.tell(ANNA, SetPolicy(Policy(("RU",), number, HistoryRule.SHARED)))
        one = story.tell(CLARA, Checkpoint(), [story.genesis])
        other = story.retell(CLARA, Checkpoint((one.reference,)), one, [story.genesis])
        proof = story.exposure(one, other)
        assert proof.fork is not None
        for number in range(20):
            device = DeviceKey(bytes([number]) * 32)
            story.tell(EGOR, Revoke(device, replace(proof.fork, device=device), None, ()))
        history = story.history()
        assert resolve(history).void == {}
        assert len(tried) == 40

    def test_a_fork_of_content_puts_the_device_out_and_no_more(self) -> None:
        story = Story(CAST)
        story.tell(BORIS, Checkpoint())
        one = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)))
        other = story.retell(BORIS, Leave(), one, [])
        proof = story.exposure(one, other)
        assert proof.fork is not None
        story.untell()
        content = replace(proof, fork=replace(proof.fork, lane=1))
        story.tell(ANNA, content)
        assert reason(story, story.tell(CLARA, content)) == Void.KNOWN
        assert reason(story, one) is None
        assert BORIS.devices[0] not in resolve(story.history()).devices


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
            (DINA, Leave(), Void.NOT_A_MEMBER),
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
