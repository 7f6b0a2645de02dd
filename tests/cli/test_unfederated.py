"""What is said where the agencies of a chat are not all federated with each other."""

from cli.opening import now_ms
from client import compose
from client.delivery import progress_of
from client.device import Device
from client.epochs import start_epoch
from client.reading import letters
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.cli.conftest import Official
from tests.federation import Federation


def test_who_tells_us_nothing_is_not_waited_for(
    federation: Federation, anna: Official, boris: Official
) -> None:
    """Regression: all the time was waited for it, and 'ivor sync' was to go on with it."""
    device = anna.device
    chat = federation.chat(device, "Бюджет", boris.device)
    federation.say(device, chat, "x")
    federation.acknowledge(device)
    (judge,) = device.chats()
    place = letters(device, judge, 0, 1)[0].reference
    assert not progress_of(device, judge.id, place).settled
    agency = boris.device.profile.charter.agency
    device.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
    progress = progress_of(device, judge.id, place)
    assert (progress.settled, progress.everywhere) == (True, False)
    anna("send", "Бюджет", "to nobody")
    assert "your agency is federated with no other agency of this chat" in anna.said
    assert "once a member who knows one" not in anna.said
    device.connection.execute("UPDATE devices SET prekey = NULL WHERE id = ?", (boris.device.key,))
    with device.transaction():
        start_epoch(device, compose.require(device, chat), now_ms())
    anna("send", "Бюджет", "for boris, one day")
    assert "boris@mincifry can read this then, if within a week" in anna.said


def test_what_strangers_store_and_drop_is_not_known(
    federation: Federation, anna: Official, boris: Official
) -> None:
    """Regression: NOT YET, and "not confirmed", were said also of what its members had answered."""
    chat = federation.chat(anna.device, "Бюджет", boris.device)
    (sent,) = anna.json("send", "Бюджет", "to be redacted")
    anna("redact", "Бюджет", str(sent["id"])[:8])
    federation.acknowledge(anna.device)
    shown = anna.json("status")[1:]
    assert [(one["federated"], one["queued"]) for one in shown] == [(True, 0), (True, 2)]
    agency = boris.device.profile.charter.agency
    anna.device.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
    there = anna.json("status")[-1]
    assert (there["agency"], there["federated"]) == ("mincifry", False)
    assert (there["stored"], there["queued"]) == (None, None)
    assert "not federated with mincifry: what it stores cannot be known" in anna.said
    records = anna.json("log", "show", chat.hex(), "--redactions", code=3)
    assert {one["agency"]: one["state"] for one in records if "agency" in one} == {
        "minzdrav": "not confirmed",
        "mincifry": "not known",
    }
    assert "what it has dropped cannot be known here" in anna.said


class TestWhoLeaves:
    """Our node may be the only one by which two other agencies hear of each other."""

    def test_is_told_what_ends(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        vera = federation.official("vera@mvd")
        chat = federation.chat(anna.device, "Бюджет", boris.device, vera, role=Role.OWNER)
        anna("chat", "leave", chat.hex(), code=1)
        assert "by your node alone, and no more once you have left" in anna.said
        assert "nobody is there to answer" in anna.said
        anna("chat", "leave", chat.hex(), "--yes")
        assert "by your node alone" in anna.said

    def test_not_where_another_stays_or_it_hears_of_one_alone(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        vera, olga = (federation.official(name) for name in ("vera@mvd", "olga@minzdrav"))
        both = federation.chat(anna.device, "both", boris.device, role=Role.OWNER)
        stays = federation.chat(anna.device, "stays", boris.device, vera, olga, role=Role.OWNER)
        stranger = federation.chat(anna.device, "stranger", boris.device, vera, role=Role.OWNER)
        agency = vera.profile.charter.agency
        anna("chat", "leave", both.hex(), "--yes")
        assert "careful" not in anna.said
        anna("chat", "leave", stays.hex(), "--yes")
        assert "careful" not in anna.said
        anna.device.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
        anna("chat", "leave", stranger.hex(), "--yes")
        assert "careful" not in anna.said

    def test_who_puts_out_the_last_of_another_agency_is_warned(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        """Regression: nothing was said, and what vera wrote from then on came to nobody here."""
        vera, olga = (federation.official(name) for name in ("vera@mvd", "olga@mincifry"))
        for title in ("known", "vera", "bridge"):
            federation.chat(anna.device, title, boris.device, vera)
        federation.chat(anna.device, "stays", boris.device, vera, olga)
        anna("chat", "remove", "known", "boris@mincifry")
        assert "careful" not in anna.said
        agency = vera.profile.charter.agency
        anna.device.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
        anna("chat", "remove", "vera", "vera@mvd")
        assert "careful" not in anna.said
        anna("chat", "remove", "stays", "boris@mincifry")
        assert "careful" not in anna.said
        anna("chat", "remove", "bridge", "boris@mincifry")
        assert "is not federated with mvd: the two may hear from each other here" in anna.said

    def test_who_signs_that_is_warned_before(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        vera, kira = federation.official("vera@mvd"), federation.official("kira@minfin")
        everybody = (boris.device, vera, kira)
        chat = federation.chat(anna.device, "four", *everybody, role=Role.OWNER).hex()
        proposals = [
            str(next(iter(anna.json("chat", "remove", "four", one)))["proposal"])[:8]
            for one in ("vera@mvd", "boris@mincifry")
        ]
        federation.carry(anna.device, boris.device)
        boris("chat", "approve", chat, proposals[0], code=1, stdin=b"")
        assert "careful" not in boris.said
        agency = kira.profile.charter.agency
        boris.device.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
        boris("chat", "approve", chat, proposals[0], code=1, stdin=b"")
        assert "by that node alone, and no more once vera@mvd is out" in boris.said
        boris("chat", "approve", chat, proposals[1], code=1, stdin=b"")
        assert "by your node alone" in boris.said


class TestChannelsOfStrangers:
    """Agencies that are not federated hand each other no keys of channels."""

    def test_who_cannot_be_granted_keys_is_named(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        """Regression: nothing was said, and the readers were told that the key was to come."""
        title = self.channel(federation, anna.device, boris.device)
        anna("send", title, "for all")
        assert "federated" not in anna.said
        federation.carry(anna.device, boris.device)
        assert "its key has not come yet" in boris("read", title)
        self.part(anna.device, boris.device)
        self.part(boris.device, anna.device)
        anna("send", title, "not for boris")
        assert "not federated with mincifry: its readers can read this only once" in anna.said
        federation.carry(anna.device, boris.device)
        assert "its key cannot come: your agency is federated with none" in boris("read", title)

    def test_a_publisher_among_them_grants(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        dina = federation.official("dina@mincifry")
        title = self.channel(federation, anna.device, boris.device, dina)
        self.part(anna.device, boris.device)
        self.part(boris.device, anna.device)
        anna("send", title, "granted by dina")
        assert "federated" not in anna.said
        federation.carry(anna.device, boris.device)
        assert "its key has not come yet" in boris("read", title)

    def channel(
        self, federation: Federation, owner: Device, reader: Device, *publishers: Device
    ) -> str:
        policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
        known = federation.official("vera@mvd")
        members = [(one.profile.user.user, Role.MEMBER) for one in publishers]
        members += [(one.profile.user.user, Role.READER) for one in (reader, known)]
        with owner.transaction():
            made = compose.new_chat(owner, ChatKind.CHANNEL, "", policy, members, now_ms())
        return made.hex()[:8]

    def part(self, device: Device, other: Device) -> None:
        """Let a device know another's agency no more."""
        agency = other.profile.charter.agency
        device.connection.execute("DELETE FROM cards WHERE id = ?", (agency,))
