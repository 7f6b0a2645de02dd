"""Devices of several agencies write to each other: who can read what, and who can no more."""

from collections.abc import Iterator, Sequence

import pytest

from client import compose, mailbox, reading
from client.audit import audit
from client.chats import NoSuchChat, find, find_direct, find_letter, title_of
from client.delivery import Progress, progress_of
from client.device import Device, open_device
from client.epochs import start_epoch
from client.linking import bring_in
from client.mailbox import WAITING, Letter, State, select
from client.reading import Follower, Reader, letters
from client.residency import check_zones, read_zones, zones_of
from node.errors import IdentityError, RefusedError, UserError
from protocol.entry import CONTENT, DeviceKey
from protocol.frame import Holding
from protocol.message import Edit, Reaction, Text, Title
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.roster import Void
from tests.federation import PASSPHRASE, Federation, now


class TestWritingAndReading:
    def test_both_sides_read_the_same_in_the_same_order(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "Бюджет", boris)
        federation.say(anna, chat, "привет")
        federation.say(boris, chat, "hello")
        for source, target in ((anna, boris), (boris, anna), (anna, boris)):
            federation.carry(source, target)
        federation.say(boris, chat, "ответ")
        federation.carry(boris, anna)
        assert federation.texts(anna, chat) == federation.texts(boris, chat)
        assert federation.texts(anna, chat)[-1] == "ответ"

    def test_a_key_sends_once(self, federation: Federation, anna: Device, boris: Device) -> None:
        chat = federation.chat(anna, "", boris)
        places = []
        for _ in range(2):
            with anna.transaction():
                places.append(compose.send(anna, chat, Text("once", None), now(), "k1"))
        assert places[0] == places[1]
        assert federation.texts(anna, chat) == ["once"]

    def test_two_processes_never_sign_one_seq_twice(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        """I16: each takes the lock, and looks again at what the other has written."""
        chat = federation.chat(anna, "", boris)
        other = open_device(anna.folder, PASSPHRASE, anna.random)
        for number in range(6):
            federation.say((anna, other)[number % 2], chat, str(number))
        other.close()
        anna.refresh()
        federation.carry(anna, boris)
        assert federation.texts(boris, chat) == list("012345")
        assert audit(anna, chat, lambda _: None).faults == []

    def test_what_fails_leaves_nothing_behind(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)

        def fail() -> None:
            with anna.transaction():
                compose.send(anna, chat, Text("lost", None), now(), None)
                raise UserError("no")

        with pytest.raises(UserError):
            fail()
        federation.say(anna, chat, "kept")
        federation.carry(anna, boris)
        assert federation.texts(boris, chat) == ["kept"]


class TestMembers:
    def test_the_removed_cannot_read_on(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        chat = federation.chat(anna, "", boris, vera)
        federation.say(anna, chat, "all")
        with anna.transaction():
            compose.remove_member(anna, chat, vera.profile.user.user, now())
        federation.say(anna, chat, "without vera")
        for target in (boris, vera):
            federation.carry(anna, target)
        assert federation.texts(boris, chat) == ["all", "without vera"]
        assert federation.texts(vera, chat) == ["all"]
        with pytest.raises(RefusedError, match="may not write"):
            federation.say(vera, chat, "still here?")

    def test_what_a_removed_member_wrote_unseen_is_void_and_shown_so(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        """Case (g): honest, but past the frontier."""
        chat = federation.chat(anna, "", boris, vera)
        federation.say(vera, chat, "unseen")
        with anna.transaction():
            compose.remove_member(anna, chat, vera.profile.user.user, now())
        federation.carry(anna, boris)
        federation.carry(vera, boris)
        judge = compose.require(boris, chat)
        reader = Reader(boris, judge, now())
        (line,) = [reader.line(one) for one in letters(boris, judge, 0, 10)]
        assert line.void is Void.REMOVED
        assert line.author is not None
        assert line.author.name == "vera@mincifry"

    def test_the_last_owner_stays(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        with pytest.raises(RefusedError, match="only owner"), anna.transaction():
            compose.leave(anna, chat, now())
        with boris.transaction():
            compose.leave(boris, chat, now())

    def test_a_member_may_not_remove(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        chat = federation.chat(anna, "", boris, vera)
        before = len(compose.require(boris, chat).history)
        with pytest.raises(RefusedError, match="your role"), boris.transaction():
            compose.remove_member(boris, chat, vera.profile.user.user, now())
        assert len(compose.require(boris, chat).history) == before

    def test_zones_are_those_of_the_members(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        far = federation.official("ivan@mosgor", "RU-MOW")
        users = [boris.profile.user.user]
        assert zones_of(anna, users) == ("RU-UDM",)
        assert zones_of(anna, [*users, far.profile.user.user]) == ("RU-MOW", "RU-UDM")
        assert read_zones("ru-udm, RU") == ("RU",)
        policy = Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)
        with pytest.raises(RefusedError, match="ivan@mosgor is in zone RU-MOW"):
            check_zones(anna, policy, [far.profile.user.user])


class TestNames:
    def test_a_title_names_a_chat_until_two_have_it(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "Budget", boris)
        assert find(anna, "Budget").id == find(anna, "budget").id == chat
        assert find(anna, chat.hex()[:6]).id == chat
        federation.chat(anna, "Budget", boris)
        with pytest.raises(UserError, match="fits 2 chats") as caught:
            find(anna, "Budget")
        assert chat.hex()[:8] in str(caught.value)
        with pytest.raises(NoSuchChat):
            find(anna, "Budge")

    def test_a_title_that_reads_like_an_id_takes_nobody_there(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        chat = federation.chat(anna, "Budget", boris)
        for title in (chat.hex(), chat.hex()[:8], chat.hex()[:6]):
            federation.chat(vera, title, boris)
        for chars in (64, 20, 8):  # eight are shown everywhere: one of them is told by those
            assert find(boris, chat.hex()[:chars].upper()).id == chat
        with pytest.raises(UserError, match="fits 2 chats"):
            find(boris, chat.hex()[:6])

    def test_a_title_that_reads_like_an_address_takes_nobody_there(
        self, federation: Federation, anna: Device, boris: Device, vera: Device
    ) -> None:
        chat = federation.chat(vera, anna.profile.name, boris)
        with pytest.raises(NoSuchChat):
            find(boris, anna.profile.name)
        assert find(boris, chat.hex()).id == chat

    def test_the_latest_valid_title_counts(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "old", boris)
        with boris.transaction():
            compose.send(boris, chat, Title("new"), now(), None)
        federation.carry(boris, anna)
        assert title_of(anna, compose.require(anna, chat)) == "new"

    def test_a_direct_chat_goes_by_the_other_ones_name(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        policy = Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)
        with anna.transaction():
            chat = compose.new_chat(
                anna,
                ChatKind.DIRECT,
                "",
                policy,
                [(boris.profile.user.user, Role.OWNER)],
                now(),
            )
        federation.carry(anna, boris)
        for device, name in ((anna, "Boris@Mincifry"), (boris, "anna@minzdrav")):
            judge = find_direct(device, name)
            assert judge is not None
            assert judge.id == chat
        assert find_direct(anna, "anna@minzdrav") is None

    def test_letters_go_by_the_beginning_of_their_id(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        place = federation.say(anna, chat, "this")
        assert find_letter(anna, chat, place.id.hex()[:6].upper()) == place
        for prefix in ("abc", "%%%%", "zzzz"):
            with pytest.raises(UserError, match="no message id"):
                find_letter(anna, chat, prefix)
        with pytest.raises(UserError, match="no message"):
            find_letter(anna, chat, "00" * 32)

    @pytest.mark.usefixtures("anna")
    def test_a_changed_identity_is_not_taken_in_silence(self, federation: Federation) -> None:
        federation.official("boris@mincifry")
        with pytest.raises(IdentityError, match="accept-change"):
            federation.official("boris@mincifry")


class TestFollowing:
    @pytest.mark.parametrize("waiting", sorted(WAITING))
    def test_each_letter_comes_once_also_those_opened_late(
        self, federation: Federation, anna: Device, boris: Device, waiting: State
    ) -> None:
        chat = federation.chat(anna, "", boris)
        follower = Follower(boris, compose.require(boris, chat))
        assert follower.fresh() == []
        place = federation.say(anna, chat, "one")
        federation.carry(anna, boris)
        for _ in range(2):  # it came while somebody followed, or before
            boris.connection.execute("UPDATE mailbox SET state = ?", (waiting,))
            assert follower.fresh() == []
            boris.connection.execute("UPDATE mailbox SET state = ?", (State.OPEN,))
            assert [letter.reference for letter in follower.fresh()] == [place]
            assert follower.fresh() == []
            boris.connection.execute("UPDATE mailbox SET state = ?", (waiting,))
            follower = Follower(boris, compose.require(boris, chat))

    def test_what_another_process_writes_meanwhile_comes_once(
        self, federation: Federation, anna: Device, boris: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chat = federation.chat(anna, "", boris)
        follower = Follower(anna, compose.require(anna, chat))
        federation.say(anna, chat, "one")

        def late(asking: Device, where: str, values: Sequence[int | bytes]) -> Iterator[Letter]:
            monkeypatch.undo()
            federation.say(anna, chat, "two")
            return select(asking, where, values)

        monkeypatch.setattr(reading, "select", late)
        found = [letter.message for _ in range(3) for letter in follower.fresh()]
        assert found == [Text("one", None), Text("two", None)]

    def test_progress_follows_what_agencies_say(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        place = federation.say(anna, chat, "where?")
        told = [progress_of(anna, chat, place)]
        stored = anna.replica.store.chat(chat)
        assert stored is not None
        for name in ("minzdrav", "mincifry"):
            agency = federation.agencies[name].id
            holding = Holding(DeviceKey(agency), chat, anna.key, CONTENT, place.seq)
            anna.replica.sharing.note_holdings(stored, [holding])
            told.append(progress_of(anna, chat, place))
        assert [one.state for one in told] == ["queued", "stored", "everywhere"]
        assert str(Progress(own=True, agencies=1, of=1)) == "stored at 1 of 1 agency"
        assert [str(one) for one in told] == [
            "queued",
            "stored at own node, 1 of 2 agencies",
            "stored at 2 of 2 agencies",
        ]

    def test_a_time_far_ahead_is_flagged_and_orders_nothing(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        """Case 25."""
        chat = federation.chat(anna, "", boris)
        with anna.transaction():
            compose.send(anna, chat, Text("early", None), now() + 10 * 365 * 86_400_000, None)
        federation.carry(anna, boris)
        federation.say(boris, chat, "late")
        judge = compose.require(boris, chat)
        reader = Reader(boris, judge, now())
        lines = [reader.line(one) for one in letters(boris, judge, 0, 10)]
        assert [line.future for line in lines] == [True, False]

    def test_reactions_and_edits_are_messages_too(
        self, federation: Federation, anna: Device, boris: Device
    ) -> None:
        chat = federation.chat(anna, "", boris)
        place = federation.say(anna, chat, "tpyo")
        for message in (Edit(place, "typo"), Reaction(place, "👍")):
            with anna.transaction():
                compose.send(anna, chat, message, now(), None)
        federation.carry(anna, boris)
        found = [letter.message for letter in mailbox.letters(boris, chat, 10)]
        assert found[1:] == [Edit(place, "typo"), Reaction(place, "👍")]


def test_many_heads(federation: Federation, anna: Device) -> None:
    """A link between agencies was down: each member went on, and two linked a phone."""
    members = [federation.official(f"m{'abcdefghijkl'[n]}@minzdrav") for n in range(11)]
    chat = federation.chat(anna, "", *members)
    members.sort(key=lambda one: one.key)
    for one in members[:-2]:
        with one.transaction():
            start_epoch(one, compose.require(one, chat), now())
    for one in members[-2:]:
        federation.further(one)
        with one.transaction():
            assert bring_in(one, now()) == 1
    for one in members:
        federation.carry(one, anna)
    assert len(compose.require(anna, chat).history.heads()) == 11
    federation.say(anna, chat, "hello")


def test_nothing_is_written_to_an_identity_that_a_name_no_longer_means(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Without a network a name stands for whom it meant, also if that is known to have changed."""
    anna.connection.execute(
        "INSERT INTO changed_identities VALUES (?, ?)", (boris.profile.name, bytes(32))
    )
    policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
    user = boris.profile.user.user
    with pytest.raises(IdentityError), anna.transaction():
        compose.new_chat(
            anna, ChatKind.GROUP, "Who leaks to Boris?", policy, [(user, Role.MEMBER)], now()
        )


def test_the_last_owner_stays_one(federation: Federation, anna: Device, boris: Device) -> None:
    """As with leaving: nobody could change the members any more."""
    chat = federation.chat(anna, "", boris)
    ours = anna.profile.user.user
    with pytest.raises(RefusedError, match="only owner"), anna.transaction():
        compose.set_role(anna, chat, ours, Role.READER, now())


def test_no_name_at_all_is_no_chat(federation: Federation, anna: Device, boris: Device) -> None:
    """Regression: it was one whose title reads like an address."""
    federation.chat(boris, "x@y", anna)
    for nothing in ("", " "):
        with pytest.raises(UserError, match="no chat is named"):
            find(anna, nothing)


def test_the_only_way_out_is_to_leave(federation: Federation, anna: Device, boris: Device) -> None:
    chat = federation.chat(anna, "", boris)
    with pytest.raises(UserError, match="ivor chat leave"), anna.transaction():
        compose.remove_member(anna, chat, anna.profile.user.user, now())
