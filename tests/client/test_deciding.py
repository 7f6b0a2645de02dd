"""Owners decide together (SPEC 5.9): proposals, consents, and what comes of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from client import compose, exchange, identities, people
from client.chats import title_of
from client.deciding import Decided, approve, find_proposal, settle
from client.device import Device
from client.exchange import Visit
from client.following import _follow_link
from client.motions import UNTIL_ENTRIES_MAX, Asked, Stand, motions
from client.reading import Follower
from node.errors import IdentityError, RefusedError, UserError
from protocol.entry import ChatId
from protocol.identity import UserId
from protocol.message import Text
from protocol.operation import Remove
from protocol.policy import Role
from protocol.proposal import Consent, Proposal
from tests.client.post import Post
from tests.federation import Federation, now


@pytest.fixture
def olga(federation: Federation) -> Device:
    return federation.official("olga@minzdrav")


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device, vera: Device, olga: Device) -> ChatId:
    """Anna, boris and vera own it; olga is a member."""
    made = federation.chat(anna, "Совет", boris, vera, role=Role.OWNER)
    with anna.transaction():
        compose.add_members(anna, made, [(olga.profile.user.user, Role.MEMBER)], now())
    spread(federation, anna)
    return made


def spread(federation: Federation, *sources: Device) -> None:
    for source in sources:
        for target in federation.devices:
            if target is not source:
                federation.carry(source, target)


def remove(device: Device, chat: ChatId, who: Device) -> Asked:
    with device.transaction():
        place = compose.remove_member(device, chat, who.profile.user.user, now())
    assert place is not None
    return find_proposal(device, compose.require(device, chat), place.id.hex())


def sign(device: Device, chat: ChatId, asked: Asked) -> None:
    judge = compose.require(device, chat)
    with device.transaction():
        approve(device, judge, find_proposal(device, judge, asked.place.id.hex()), now())


def settled(device: Device) -> Sequence[Decided]:
    with device.transaction():
        return settle(device, now())


def members(device: Device, chat: ChatId) -> set[str]:
    return {one.name for one in compose.require(device, chat).membership().users.values()}


def test_two_of_three_owners_remove_the_third(
    federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
) -> None:
    asked = remove(anna, chat, vera)
    assert (asked.agreed, asked.needed, asked.stand) == (1, 2, Stand.OPEN)
    assert settled(anna) == []
    spread(federation, anna)
    (seen,) = motions(boris, compose.require(boris, chat))
    assert seen.words == ["remove vera@mincifry (now owner)"]
    sign(boris, chat, asked)
    assert settled(boris) == []
    assert "vera@mincifry" in members(anna, chat)
    federation.carry(boris, anna)
    (done,) = settled(anna)
    assert (done.words, done.void) == (seen.words, None)
    assert settled(anna) == []
    spread(federation, anna)
    for device in (anna, boris):
        assert members(device, chat) == {"anna@minzdrav", "boris@mincifry", "olga@minzdrav"}
        (found,) = motions(device, compose.require(device, chat))
        assert found.stand is Stand.DECIDED
        assert found.words == ["remove vera@mincifry (then owner)"]
        assert (found.agreed, len(found.owners)) == (2, 3)
    federation.say(anna, chat, "without vera")
    spread(federation, anna)
    assert "without vera" not in federation.texts(vera, chat)


@pytest.mark.parametrize("following", [False, True])
async def test_who_publishes_says_so(
    federation: Federation,
    anna: Device,
    boris: Device,
    vera: Device,
    chat: ChatId,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    following: bool,
) -> None:
    """Regression: `read --follow` was silent, and published as it began only."""
    asked = remove(anna, chat, vera)
    federation.carry(anna, boris)
    sign(boris, chat, asked)
    federation.carry(boris, anna)
    said: list[str] = []
    shown: list[object] = []

    async def visited(*_: object) -> Visit:
        return Visit(even=True, came=Counter(), archived=0, revoked=(), warnings=())

    monkeypatch.setattr("client.following.VISIT_SECONDS", 0)
    if following:
        monkeypatch.setattr(exchange, "visit", visited)
        monkeypatch.setattr("client.following.TEND_SECONDS", 0)
    async with Post(tmp_path, monkeypatch, anna).link(anna) as link:
        with trio.move_on_after(60) as scope:

            def tell(one: str) -> None:
                said.append(one)
                scope.cancel()

            judge = compose.require(anna, chat)
            await _follow_link(anna, link, chat, Follower(anna, judge), shown.append, tell)
    assert said == ["enough owners have signed, so it is done: remove vera@mincifry (now owner)"]


def test_an_old_copy_of_a_device_publishes_nothing(
    federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
) -> None:
    """SPEC 2.5: what is decided waits for a device that may sign, and ends no visit of this one."""
    asked = remove(anna, chat, vera)
    federation.carry(anna, boris)
    sign(boris, chat, asked)
    federation.carry(boris, anna)
    anna.replica.sharing.note_outrun()
    assert list(settled(anna)) == []
    (left,) = motions(anna, compose.require(anna, chat))
    assert left.ready


def test_a_new_owner_gets_the_title(
    federation: Federation, anna: Device, boris: Device, chat: ChatId
) -> None:
    ivan = federation.official("ivan@minzdrav")
    with anna.transaction():
        place = compose.add_members(anna, chat, [(ivan.profile.user.user, Role.OWNER)], now())
    assert place is not None
    spread(federation, anna)
    asked = find_proposal(boris, compose.require(boris, chat), place.id.hex())
    (words,) = asked.words
    assert words.startswith("take in ivan@minzdrav (key ")
    assert words.endswith(") as owner")
    sign(boris, chat, asked)
    federation.carry(boris, anna)
    assert len(settled(anna)) == 1
    federation.carry(anna, ivan)
    assert title_of(ivan, compose.require(ivan, chat)) == "Совет"


def test_a_changed_identity_does_not_hold_back_what_is_decided(
    federation: Federation, anna: Device, boris: Device, chat: ChatId
) -> None:
    """Nor the visit that publishes it: only what anna writes herself."""
    ivan = federation.official("ivan@minzdrav")
    with anna.transaction():
        place = compose.add_members(anna, chat, [(ivan.profile.user.user, Role.OWNER)], now())
    assert place is not None
    asked = find_proposal(anna, compose.require(anna, chat), place.id.hex())
    federation.carry(anna, boris)
    sign(boris, chat, asked)
    federation.carry(boris, anna)
    with anna.transaction():
        olga = people.checked(anna, federation.persons["olga@minzdrav"])
        identities.note(anna, replace(olga, user=UserId(bytes(32))))
    assert [one.void for one in settled(anna)] == [None]
    with pytest.raises(IdentityError), anna.transaction():
        compose.send(anna, chat, Text("to whom?", None), now(), None)


def begin_anew(federation: Federation, device: Device, *names: str) -> None:
    with device.transaction():
        for name in names:
            known = people.checked(device, federation.persons[name])
            assert identities.note(device, replace(known, user=UserId(bytes(32))))


def test_a_changed_owner_is_put_out_by_the_others(
    federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
) -> None:
    """SPEC 5.4: of all that is written there, this alone is not held back."""
    for device in (anna, boris):
        begin_anew(federation, device, vera.profile.name)
    asked = remove(anna, chat, vera)
    federation.carry(anna, boris)
    sign(boris, chat, asked)
    federation.carry(boris, anna)
    assert [one.void for one in settled(anna)] == [None]


def test_nothing_else_is_proposed_or_signed_before_a_changed_identity(
    federation: Federation, anna: Device, boris: Device, olga: Device, chat: ChatId
) -> None:
    asked = remove(anna, chat, boris)
    federation.carry(anna, boris)
    for device in (anna, boris):
        begin_anew(federation, device, olga.profile.name)
    with pytest.raises(IdentityError, match="olga@minzdrav has another identity"):
        remove(anna, chat, boris)
    with pytest.raises(IdentityError), anna.transaction():
        compose.set_role(anna, chat, olga.profile.user.user, Role.OWNER, now())
    with pytest.raises(IdentityError, match="olga@minzdrav has another identity"):
        sign(boris, chat, asked)


def test_who_may_sign(
    federation: Federation, anna: Device, boris: Device, olga: Device, vera: Device, chat: ChatId
) -> None:
    asked = remove(anna, chat, vera)
    spread(federation, anna)
    with pytest.raises(RefusedError, match="only an owner"):
        sign(olga, chat, asked)
    with pytest.raises(UserError, match="signed that already"):
        sign(anna, chat, asked)
    sign(boris, chat, asked)
    with pytest.raises(UserError, match="signed that already"):
        sign(boris, chat, asked)
    with pytest.raises(RefusedError, match="only the owners together"), olga.transaction():
        compose.remove_member(olga, chat, vera.profile.user.user, now())
    with pytest.raises(UserError, match="no proposal"):
        find_proposal(anna, compose.require(anna, chat), "00ff")


def test_a_signature_of_something_else_counts_for_nothing(
    federation: Federation, anna: Device, boris: Device, vera: Device, olga: Device, chat: ChatId
) -> None:
    asked = remove(anna, chat, vera)
    spread(federation, anna)
    for device in (boris, olga):
        with device.transaction():
            compose.send(device, chat, Consent(asked.place, bytes(64)), now(), None)
    spread(federation, boris, olga)
    (found,) = motions(anna, compose.require(anna, chat))
    assert found.agreed == 1
    assert settled(anna) == []


def test_what_was_not_signed_in_time_is_over(
    federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
) -> None:
    user = vera.profile.user.user
    with anna.transaction():
        proposal = Proposal(
            compose.require(anna, chat).history.length(anna.key), (Remove(user, ()),)
        )
        place = compose.send(anna, chat, proposal, now(), None)
        anna.connection.execute("INSERT INTO proposed VALUES (?, ?)", (place.id, chat))
        compose.set_role(anna, chat, federation.devices[3].profile.user.user, Role.ADMIN, now())
    spread(federation, anna)
    (asked,) = motions(boris, compose.require(boris, chat))
    assert asked.stand is Stand.OVER
    with pytest.raises(UserError, match="over"):
        sign(boris, chat, asked)
    assert settled(anna) == []
    assert anna.connection.execute("SELECT count(*) FROM proposed").get == 0


def test_nothing_is_signed_for_ever(
    federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
) -> None:
    length = compose.require(anna, chat).history.length(anna.key)
    proposal = Proposal(length + UNTIL_ENTRIES_MAX + 1, (Remove(vera.profile.user.user, ()),))
    with anna.transaction():
        place = compose.send(anna, chat, proposal, now(), None)
    spread(federation, anna)
    with pytest.raises(RefusedError, match="too long"):
        sign(boris, chat, find_proposal(boris, compose.require(boris, chat), place.id.hex()))


def test_two_proposals_of_one_device_are_two_decisions(
    federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
) -> None:
    one, other = remove(anna, chat, vera), remove(anna, chat, boris)
    assert one.proposal.until != other.proposal.until
    spread(federation, anna)
    sign(boris, chat, one)
    federation.carry(boris, anna)
    assert [done.place for done in settled(anna)] == [one.place]
    assert [asked.stand for asked in motions(anna, compose.require(anna, chat))] == [
        Stand.DECIDED,
        Stand.OPEN,
    ]


def test_a_member_that_is_no_owner_proposes_nothing_that_counts(
    federation: Federation, boris: Device, vera: Device, olga: Device, chat: ChatId
) -> None:
    proposal = Proposal(40, (Remove(vera.profile.user.user, ()),))
    with olga.transaction():
        place = compose.send(olga, chat, proposal, now(), None)
        compose.send(olga, chat, Text("please", None), now(), None)
    spread(federation, olga)
    asked = find_proposal(boris, compose.require(boris, chat), place.id.hex())
    assert asked.agreed == 0
    with pytest.raises(RefusedError, match="no owner any more"):
        sign(boris, chat, asked)
