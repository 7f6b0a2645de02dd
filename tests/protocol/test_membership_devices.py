"""SPEC 3.3, 3.5: devices, forks, content that counts for nothing, policies and other entries."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from protocol import standing
from protocol.dag import bits
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.errors import Inadmissible
from protocol.identity import AgencyId
from protocol.membership import (
    Void,
    content_void,
    may_append,
    may_enter,
    may_write,
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
from tests.protocol.membership_cases import head
from tests.protocol.verdicts import ANNA, BORIS, CAST, CLARA, DINA, EGOR, OLGA, outcome, reason


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

    def test_a_leave_that_an_owner_vouched_for_stays_void_whatever_arrives_beside(self) -> None:
        """Leaves and quorums are decided before checkpoints, also when they are tried again."""
        story = Story([*CAST, (OLGA, Role.ADMIN)])
        one = story.tell(CLARA, Checkpoint(), [story.genesis])
        other = story.retell(CLARA, Checkpoint((one.reference,)), one, [story.genesis])
        proof = story.tell(BORIS, story.exposure(one, other), [story.genesis])
        leave = story.retell(CLARA, Leave(()), one, [story.genesis])
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

    @pytest.mark.parametrize("how", ["itself", "identity key", "fork", "leave"])
    @pytest.mark.parametrize("then", ["remove", "revoke", "identity key", "owners"])
    def test_nobody_keeps_a_place_to_write_at_by_what_they_say_of_themselves(
        self, how: str, then: str
    ) -> None:
        """Clara names content to come of her device, which is put out all the same."""
        story = Story(CAST)
        entered = story.tell(CLARA, Enroll(credential(CLARA, (1,))))
        device = CLARA.devices[1]
        ahead = (Reference(device, 1000, EntryId(bytes(32))),)
        if how == "itself":
            story.tell(CLARA, Revoke(device, None, None, ahead), number=1)
        elif how == "identity key":
            story.tell(CLARA, story.revocation(CLARA, 1, ahead))
        elif how == "fork":
            one = story.tell(CLARA, Checkpoint(), [entered], 1)
            other = story.retell(CLARA, Checkpoint((one.reference,)), one, [entered])
            story.tell(CLARA, replace(story.exposure(one, other), seen=ahead))
        else:
            story.tell(CLARA, Leave(ahead))
            story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        seen = (Reference(device, 3, EntryId(bytes(32))),)
        void = Void.DEVICE
        if then == "remove":
            void = Void.REMOVED
            story.tell(BORIS, Remove(CLARA.user, seen))
        elif then == "revoke":
            story.tell(BORIS, Revoke(device, None, None, seen))
        elif then == "identity key":
            story.tell(CLARA, story.revocation(CLARA, 1, seen))
        else:
            story.tell(ANNA, story.quorum(ANNA, [Revoke(device, None, None, seen)], []))
        history = story.history()
        past = history.past([entered.id])
        assert content_void(history, device, 3, past) is None
        assert content_void(history, device, 4, past) == void

    def test_who_may_not_revoke_a_device_may_not_once_it_is_out(self) -> None:
        """An admin cuts off no device of an owner, nor anybody one of another's by a signature."""
        story = Story([*CAST, (OLGA, Role.OWNER)])
        story.tell(OLGA, Revoke(OLGA.devices[0], None, None, (head(OLGA, 9),)))
        ranked = story.tell(BORIS, Revoke(OLGA.devices[0], None, None, ()))
        theirs = story.revocation(CLARA).by_user
        signed = story.tell(CLARA, Revoke(OLGA.devices[0], None, theirs, ()))
        assert [reason(story, one) for one in (ranked, signed)] == [Void.RANK, Void.STRANGER]
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, OLGA.devices[0], 9, start) is None

    def test_from_a_device_that_was_named_for_another(self) -> None:
        """Its user's own grant is void; that somebody else has the device too is no grant of it."""
        holder, other = sorted([CLARA, DINA], key=lambda one: one.user)
        story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (holder, Role.MEMBER)])
        start = [story.genesis]
        device = other.devices[0]
        claim = grant(holder, Role.MEMBER)
        user = replace(claim.credential.user, devices=(device,))
        claim = replace(claim, credential=replace(claim.credential, user=user))
        claimed = story.tell(BORIS, Admit((claim,)), start)
        named = story.tell(ANNA, Admit((grant(other, Role.MEMBER),)), start)
        past = [claimed.id, named.id]
        before = story.history()
        assert content_void(before, device, 0, before.past(past)) is None
        story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), [])
        history = story.history()
        assert reason(story, claimed) == Void.OUTRANKED
        assert content_void(history, device, 0, history.past(past)) == Void.DEVICE

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
