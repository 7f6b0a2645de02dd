"""SPEC 5.4: a name that means another identity closes its chats until a person decides."""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from trio.testing import memory_stream_pair

from client import chats, compose, identities, people
from client.device import Device
from client.link import over
from crypto.signing import SEED_BYTES, Signer
from node.agency import register_user
from node.errors import IdentityError, NetworkError, UserError
from protocol.entry import ChatId
from protocol.identity import UserId, request_user
from protocol.message import Text
from protocol.person import Person
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.question import Lookup, Question, Witness
from protocol.reply import Done, People, Reply, Witnessed
from tests.client.test_listed import placed
from tests.federation import Federation, now

BORIS = "boris@mincifry"
WORD = Text("to whom?", None)
Refresh = Callable[[], Awaitable[Sequence[str]]]


def begin_anew(federation: Federation, device: Device) -> None:
    """The agency gives boris' name to a new identity, and the device hears of it."""
    with device.transaction():
        known = people.checked(device, federation.persons[BORIS])
        assert not identities.note(device, known)
        anew = replace(known, user=UserId(os.urandom(32)))
        assert identities.note(device, anew)
        assert identities.note(device, anew)


def send(device: Device, chat: ChatId) -> None:
    with device.transaction():
        compose.send(device, chat, WORD, now(), None)


class TestChanged:
    def test_its_chats_are_closed_and_no_others(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        both = federation.chat(anna, "both", boris, vera)
        alone = federation.chat(anna, "one", vera)
        begin_anew(federation, anna)
        assert list(identities.changed(anna).values()) == [BORIS]
        with pytest.raises(IdentityError, match=f"{BORIS} has another identity"):
            send(anna, both)
        send(anna, alone)
        send(vera, both)

    def test_until_it_is_taken(self, federation: Federation, anna: Device, boris: Device) -> None:
        chat = federation.chat(anna, "", boris)
        begin_anew(federation, anna)
        with anna.transaction():
            people.accept_change(anna, BORIS)
        assert not identities.changed(anna)
        send(anna, chat)

    def test_or_put_out(self, federation: Federation, anna: Device, boris: Device) -> None:
        chat = federation.chat(anna, "", boris)
        begin_anew(federation, anna)
        with anna.transaction():
            compose.remove_member(anna, chat, boris.profile.user.user, now())
        send(anna, chat)

    def test_that_an_owner_be_put_out_can_be_proposed(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        chat = federation.chat(anna, "", boris, vera, role=Role.OWNER)
        begin_anew(federation, anna)
        with anna.transaction():
            found = compose.remove_member(anna, chat, boris.profile.user.user, now())
        assert found is not None

    def test_once_it_is_taken_the_name_means_nobody_else(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        """Whom it meant before may be whoever posed as them, and can be put out by their key."""
        chat = federation.chat(anna, "Кадры", boris, role=Role.MEMBER)
        policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
        old, known = boris.profile.user.user, [(boris.profile.user.user, Role.OWNER)]
        with anna.transaction():
            direct = compose.new_chat(anna, ChatKind.DIRECT, "", policy, known, now())
            found = chats.find_direct(anna, BORIS)
            assert found is not None
            assert found.id == direct
            people.accept_change(anna, BORIS)
        federation.devices.remove(boris)
        boris.close()
        fresh = federation.official(BORIS).profile.user.user
        assert chats.find_direct(anna, BORIS) is None
        with anna.transaction():
            compose.add_members(anna, chat, [(fresh, Role.MEMBER)], now())
        judge = compose.require(anna, chat)
        with pytest.raises(UserError, match=f"2 members are called {BORIS}, with the keys"):
            chats.find_member(judge, BORIS)
        with pytest.raises(UserError, match="2 members are called"):
            chats.find_member(judge, BORIS, {UserId(bytes(32)): BORIS})
        assert chats.find_member(judge, old.hex()[:16]) == old
        with anna.transaction():
            compose.remove_member(anna, chat, old, now())
        assert chats.find_member(compose.require(anna, chat), BORIS) == fresh
        assert chats.find_member(compose.require(anna, chat), BORIS, {old: BORIS}) == fresh
        assert chats.find_member(compose.require(anna, chat), "zoya@x", {old: "zoya@x"}) == old
        with pytest.raises(UserError, match="is not in this chat"):
            chats.find_member(compose.require(anna, chat), old.hex())

    def test_readers_do_not_close_a_channel(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
        readers = [(boris.profile.user.user, Role.READER)]
        with anna.transaction():
            chat = compose.new_chat(anna, ChatKind.CHANNEL, "", policy, readers, now())
        begin_anew(federation, anna)
        send(anna, chat)


AGAIN = "again"  # whom the name means in the end


def anew(federation: Federation) -> Person:
    """Boris as his agency shows him once it has enrolled him by another key."""
    agency = federation.agencies["mincifry"]
    request = request_user(Signer(os.urandom(SEED_BYTES)), agency.id, "boris", now())
    certificate = register_user(agency, request, "boris").raw
    return Person(federation.persons[BORIS].charter, certificate, ())


class TestTakenBack:
    """The directory gives a name to whom it meant before."""

    @pytest.fixture
    def shown(self, federation: Federation, anna: Device, boris: Device) -> dict[object, Person]:
        """What is answered, by name and by id; at first the name means another one."""
        federation.chat(anna, "", boris)
        agencies, persons = federation.agencies, federation.persons
        ours, _ = placed(agencies["minzdrav"], persons[anna.profile.name], None)
        known, head = placed(agencies["mincifry"], persons[BORIS], None)
        other, head = placed(agencies["mincifry"], anew(federation), head)
        again, _ = placed(agencies["mincifry"], persons[BORIS], head)
        mine, theirs = (device.profile.user.user for device in (anna, boris))
        return {mine: ours, theirs: known, BORIS: other, AGAIN: again}

    @pytest.fixture
    def refresh(
        self, anna: Device, shown: dict[object, Person], monkeypatch: pytest.MonkeyPatch
    ) -> Refresh:
        async def ask(question: Question) -> Reply:
            match question:
                case Lookup(names, users):
                    return People(tuple(shown.get(one) for one in (*names, *users)))
                case Witness():
                    return Witnessed((), ())
                case _:
                    return Done()

        async def refresh() -> Sequence[str]:
            ours, theirs = memory_stream_pair()
            async with over(anna, ours) as link:
                monkeypatch.setattr(link, "ask", ask)
                await link.refresh()
            await theirs.aclose()
            return link.refused

        return refresh

    async def test_its_chats_are_open_again_and_that_is_told_once(
        self, anna: Device, boris: Device, shown: dict[object, Person], refresh: Refresh
    ) -> None:
        """Regression: every command warned for good, and nothing was written there."""
        (chat,), old = anna.replica.store.chats(), boris.profile.user.user
        known = shown.pop(old)
        await refresh()
        shown[old] = known
        assert not await refresh()
        assert identities.changed(anna) == {old: BORIS}, "both are listed: the name means the other"
        shown[BORIS] = shown[AGAIN]
        (told,) = await refresh()
        assert f"{BORIS} has the identity again that you knew" in told
        send(anna, chat)
        assert not await refresh()


class TestUnknown:
    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("zoya@minzdrav", "your agency has enrolled nobody"),
            ("zoya@mincifry", "mincifry has enrolled nobody of that name"),
            ("zoya@nowhere", "not federated with any called nowhere"),
        ],
    )
    @pytest.mark.usefixtures("boris")
    def test_why(self, anna: Device, name: str, why: str) -> None:
        """What to do next depends on it: look at the name, or ask the administrator."""
        told = people.why_not(anna, name, ())
        assert isinstance(told, UserError)
        assert str(told).startswith(f"{name} is not known: ")
        assert why in str(told)

    def test_nobody_to_ask(self, anna: Device, boris: Device) -> None:
        """The name may be right: it is to be tried again."""
        agency = boris.profile.charter.agency
        told = people.why_not(anna, "zoya@mincifry", (agency,))
        assert isinstance(told, NetworkError)
        assert "the node of mincifry cannot be reached" in str(told)
