"""SPEC 3.3: what owners decide together."""

import pytest

from protocol import case
from protocol.membership import (
    Void,
    resolve,
)
from protocol.operation import (
    Admit,
    Checkpoint,
    Inner,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.testing.cast import Person, grant, person
from protocol.testing.story import Story
from tests.protocol.membership_cases import head
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

    @pytest.mark.parametrize("room", [4, 5])
    def test_its_decisions_share_the_room(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        """Each alone fits into the chat, together they do not."""
        monkeypatch.setattr(case, "DEVICES_CHAT_MAX", room)
        story = Story(CAST)
        parts = [Admit((grant(who, Role.MEMBER),)) for who in (DINA, EGOR)]
        told = story.tell(ANNA, story.quorum(ANNA, parts, []))
        assert reason(story, told) == (None if room == len(CAST) + 2 else Void.LIMIT)

    @pytest.mark.parametrize("room", [2, 3])
    def test_who_may_write_by_them_shares_it(
        self, monkeypatch: pytest.MonkeyPatch, room: int
    ) -> None:
        """Of a channel's readers as many may be made publishers as fit into a chat."""
        monkeypatch.setattr(case, "DEVICES_CHAT_MAX", room)
        readers = (DINA, EGOR)
        cast = [(ANNA, Role.OWNER), *((who, Role.READER) for who in readers)]
        story = Story(cast, ChatKind.CHANNEL)
        parts = [SetRole(who.user, Role.MEMBER, ()) for who in readers]
        told = story.tell(ANNA, story.quorum(ANNA, parts, []))
        assert reason(story, told) == (None if room == len(cast) else Void.LIMIT)

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

    @pytest.mark.parametrize(("until", "void"), [(1, Void.REPLAYED), (2, None)])
    def test_until_is_the_last_place_at_which_it_stands(
        self, until: int, void: Void | None
    ) -> None:
        story = Story(self.OWNERS)
        story.tell(ANNA, Checkpoint())
        told = story.tell(ANNA, story.quorum(ANNA, [Remove(DINA.user, ())], [OLGA], until=until))
        assert told.entry.seq == 2
        assert reason(story, told) == void

    def test_what_is_asked_first(self) -> None:
        """That it is used up counts before its parts, and of these the first that is void."""
        story = Story(self.OWNERS)
        stranger = SetRole(EGOR.user, Role.ADMIN, ())
        lowers = Admit((grant(BORIS, Role.READER),))
        over = story.tell(ANNA, story.quorum(ANNA, [stranger], [OLGA], until=0))
        one = story.tell(ANNA, story.quorum(ANNA, [stranger, lowers], [OLGA], until=7))
        other = story.tell(ANNA, story.quorum(ANNA, [lowers, stranger], [OLGA], until=8))
        found = [reason(story, told) for told in (over, one, other)]
        assert found == [Void.REPLAYED, Void.STRANGER, Void.LOWERS]

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
