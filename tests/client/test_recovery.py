"""A lost first device, and one that was given up though its node forgets it: SPEC 5.3."""

from dataclasses import replace

import pytest

from client import compose
from client.device import Device
from client.linking import bring_in
from client.people import UNTOLD, keep_person, note_lost
from client.revoking import revoke_own, tell_again
from node.errors import RefusedError
from protocol import reply
from protocol.identity import verify_revocation
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.question import Question, Revoke
from tests.client.post import Post
from tests.federation import Federation, now


class TestLostFirstDevice:
    def test_a_new_one_enters_and_puts_the_lost_one_out(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
        with anna.transaction():
            users = [(boris.profile.user.user, Role.OWNER)]
            chat = compose.new_chat(anna, ChatKind.DIRECT, "", policy, users, now())
        federation.carry(anna, boris)
        fresh = federation.recovered(anna)
        federation.carry(boris, fresh)
        with fresh.transaction():
            assert bring_in(fresh, now()) == 1
            assert bring_in(fresh, now()) == 0
            assert revoke_own(fresh, anna.key, now()) == 1
        federation.say(fresh, chat, "it is me")
        federation.carry(fresh, boris)
        federation.say(boris, chat, "welcome back")
        federation.carry(boris, fresh)
        federation.carry(boris, anna)
        assert federation.texts(boris, chat) == ["it is me", "welcome back"]
        assert federation.texts(fresh, chat) == ["it is me", "welcome back"]
        assert federation.texts(anna, chat) == []
        member = compose.require(boris, chat).membership().users[anna.profile.user.user]
        assert (member.role, member.devices) == (Role.OWNER, frozenset({fresh.key}))

    def test_what_the_directory_forgot_is_found_in_the_chats(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "Budget", boris)
        person = federation.persons[anna.profile.name]
        fresh = federation.recovered(anna)
        with fresh.transaction():
            fresh.connection.execute("DELETE FROM devices WHERE id = ?", (anna.key,))
        federation.carry(boris, fresh)
        with fresh.transaction():
            assert bring_in(fresh, now()) == 1
            assert note_lost(fresh) == 0
            assert revoke_own(fresh, anna.key, now()) == 1
        known = fresh.connection.execute(
            "SELECT certificate, revoked FROM devices WHERE id = ?", (anna.key,)
        ).get
        assert known == (person.devices[0].certificate, UNTOLD)
        assert fresh.key in compose.require(fresh, chat).membership().devices

    def test_a_removed_user_does_not_come_back_so(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "Budget", boris)
        fresh = federation.recovered(boris)
        federation.carry(anna, fresh)
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        federation.carry(anna, fresh)
        with fresh.transaction():
            assert bring_in(fresh, now()) == 0


class TestTheNodeHears:
    @pytest.fixture
    def phone(self, federation: Federation, anna: Device) -> Device:
        return federation.further(anna)

    async def told(self, device: Device, post: Post, refusal: RefusedError | None) -> list[bytes]:
        """Visit; return which devices the node is to refuse. refusal: what it says to that."""
        asked: list[bytes] = []

        async def ask(question: Question) -> reply.Reply:
            assert isinstance(question, Revoke)
            profile = device.profile
            verify_revocation(
                profile.user.user, profile.charter.agency, question.device, question.signature
            )
            asked.append(question.device)
            if refusal is not None:
                raise refusal
            return reply.Done()

        async with post.link(device) as link:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(link, "ask", ask)
                await tell_again(device, link)
            assert link.refused == ([] if refusal is None else [str(refusal)])
        return asked

    async def test_of_who_is_given_up_as_long_as_it_lists_them(
        self, federation: Federation, post: Post, anna: Device, phone: Device
    ) -> None:
        """The node was away, or is brought back from before it heard of it."""
        with_phone = federation.persons[anna.profile.name]
        without = replace(with_phone, devices=with_phone.devices[:1])
        with anna.transaction():
            revoke_own(anna, phone.key, now())
        assert await self.told(anna, post, RefusedError("not now")) == [phone.key]
        assert await self.told(anna, post, None) == [phone.key]
        assert await self.told(anna, post, None) == []
        for person, hears in ((with_phone, [phone.key]), (without, []), (with_phone, [phone.key])):
            with anna.transaction():
                keep_person(anna, person)
            assert await self.told(anna, post, None) == hears
        assert anna.others == []

    async def test_if_it_forgets_before_it_is_told_there_is_nothing_to_tell(
        self, federation: Federation, post: Post, anna: Device, phone: Device
    ) -> None:
        person = federation.persons[anna.profile.name]
        with anna.transaction():
            revoke_own(anna, phone.key, now())
            keep_person(anna, replace(person, devices=person.devices[:1]))
        assert await self.told(anna, post, None) == []

    async def test_by_the_first_device_alone_and_of_others_alone(
        self, post: Post, anna: Device, phone: Device
    ) -> None:
        for device in (anna, phone):
            with device.transaction():
                revoke_own(device, device.key, now())
            assert await self.told(device, post, None) == []
