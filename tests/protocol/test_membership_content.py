"""SPEC 3.5: content that counts for nothing."""

from dataclasses import replace

import pytest

from protocol.entry import EntryId, Reference
from protocol.errors import Inadmissible
from protocol.membership import (
    Void,
    content_void,
    may_write,
    resolve,
)
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Leave,
    Operation,
    Remove,
    Revoke,
    SetRole,
)
from protocol.policy import Role
from protocol.testing.cast import Person, credential, grant
from protocol.testing.story import Story, Told
from tests.protocol.membership_cases import head
from tests.protocol.verdicts import ANNA, BORIS, CAST, CLARA, DINA, EGOR, OLGA, reason


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
            story.tell(CLARA, Leave())
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
        """Nobody takes back by leaving what was said; what names the leave is by no member."""
        story = Story(CAST)
        left = story.tell(CLARA, Leave())
        history = story.history()
        start = history.past([story.genesis.id])
        assert content_void(history, CLARA.devices[0], 0, start) is None
        assert content_void(history, CLARA.devices[0], 1000, start) is None
        assert content_void(history, CLARA.devices[0], 0, history.past([left.id]))


class TestWhoseWordCounts:
    """Anybody can bring a proof, and name less than is due."""

    def put_out(self, how: str, *seen: Reference) -> tuple[Story, Told]:
        """Let Egor expose Clara's device, or its thief give it up."""
        story = Story([*CAST, (EGOR, Role.READER)])
        entered = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [story.genesis])
        if how == "itself":
            story.tell(CLARA, Revoke(CLARA.devices[1], None, None, seen), [entered], 1)
            return story, entered
        one = story.tell(CLARA, Checkpoint(), [entered], 1)
        other = story.retell(CLARA, Checkpoint((one.reference,)), one, [entered])
        proof = replace(story.exposure(one, other), seen=seen)
        assert proof.fork is not None
        if how == "fork of content":
            story.untell()
            story.untell()
            proof = replace(proof, fork=replace(proof.fork, lane=1))
        story.tell(EGOR, proof)
        return story, entered

    def fates(self, story: Story, entered: Told, *seqs: int) -> list[Void | None]:
        history = story.history()
        past = history.past([entered.id])
        return [content_void(history, CLARA.devices[1], seq, past) for seq in seqs]

    @pytest.mark.parametrize("how", ["itself", "fork", "fork of content"])
    @pytest.mark.parametrize("then", ["rank", "user", "owners"])
    @pytest.mark.parametrize("when", ["after", "beside"])
    def test_of_rank_or_of_the_user(self, how: str, then: str, when: str) -> None:
        story, entered = self.put_out(how)
        assert self.fates(story, entered, 0) == [Void.DEVICE]
        seen = (Reference(CLARA.devices[1], 57, EntryId(bytes(32))),)
        said: dict[str, tuple[Person, Operation]] = {
            "rank": (BORIS, Revoke(CLARA.devices[1], None, None, seen)),
            "user": (CLARA, story.revocation(CLARA, 1, seen)),
            "owners": (
                ANNA,
                story.quorum(ANNA, [Revoke(CLARA.devices[1], None, None, seen)], []),
            ),
        }
        told = story.tell(*said[then], None if when == "after" else [entered])
        assert reason(story, told) is None
        assert self.fates(story, entered, 57, 58) == [None, Void.DEVICE]

    def test_among_those_the_smaller_cut_off(self) -> None:
        story, entered = self.put_out("fork")
        seen = [(Reference(CLARA.devices[1], seq, EntryId(bytes(32))),) for seq in (57, 30)]
        story.tell(CLARA, story.revocation(CLARA, 1, seen[0]))
        story.tell(BORIS, Revoke(CLARA.devices[1], None, None, seen[1]))
        assert self.fates(story, entered, 30, 31) == [None, Void.DEVICE]

    def test_not_of_whoever_has_no_rank(self) -> None:
        story, entered = self.put_out("itself")
        seen = (Reference(CLARA.devices[1], 57, EntryId(bytes(32))),)
        told = story.tell(EGOR, Revoke(CLARA.devices[1], None, None, seen))
        assert reason(story, told) == Void.RANK
        assert self.fates(story, entered, 0) == [Void.DEVICE]

    def test_not_of_a_removal(self) -> None:
        """It names what its author holds, also what was void by then."""
        story, entered = self.put_out("fork", Reference(CLARA.devices[1], 3, EntryId(bytes(32))))
        seen = (Reference(CLARA.devices[1], 57, EntryId(bytes(32))),)
        story.tell(BORIS, Remove(CLARA.user, seen))
        assert self.fates(story, entered, 3, 4) == [None, Void.DEVICE]

    def test_not_what_an_author_had_seen(self) -> None:
        """Who took the device back in speaks of what it wrote before, not of its fork since."""
        story = Story([*CAST, (EGOR, Role.READER)])
        device = CLARA.devices[0]
        begun = story.tell(CLARA, Checkpoint(), [story.genesis])
        story.tell(BORIS, Revoke(device, None, None, (head(CLARA, 9),)), [begun])
        back = story.tell(BORIS, Admit((grant(CLARA, Role.MEMBER),)))
        one = story.tell(CLARA, Checkpoint(), [back])
        other = story.retell(CLARA, Checkpoint((one.reference,)), one, [back])
        story.tell(EGOR, replace(story.exposure(one, other), seen=(head(CLARA, 30),)), [other])
        history = story.history()
        past = history.past([back.id])
        found = [content_void(history, device, seq, past) for seq in (30, 31)]
        assert found == [None, Void.DEVICE]
        start = history.past([story.genesis.id])
        assert content_void(history, device, 9, start) is None
        assert content_void(history, device, 10, start) == Void.DEVICE
