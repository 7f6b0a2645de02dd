"""A lost first device: SPEC 5.3."""

from client import compose
from client.device import Device
from client.linking import bring_in
from client.people import note_lost
from client.revoking import revoke_own
from protocol.policy import ChatKind, HistoryRule, Policy, Role
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
        assert known == (person.devices[0].certificate, 1)
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
