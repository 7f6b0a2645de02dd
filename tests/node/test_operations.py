"""What an operator asks: the answers, on a stopped node and on a running one."""

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crypto.sealing import PREKEY_BYTES
from crypto.signing import Signer
from node import agency as agencies
from node.agency import Agency, Founding
from node.config import Settings
from node.database import connect
from node.desk import Desk, Result
from node.directory import Directory
from node.doctor import examine as examine_folder
from node.errors import IdentityError, IvorError, RefusedError, UserError
from node.operations import carry_out, perform, show
from node.replica import Replica
from node.tls import authority_of
from node.trust import Trust
from protocol import identity
from protocol.armour import armour
from protocol.entry import DeviceKey
from protocol.errors import PeerError
from protocol.identity import UserId
from protocol.invitation import Purpose, decode_invitation
from protocol.person import PersonDevice
from protocol.testing.cast import agency
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.replicas import node, take

NOW = datetime.now(UTC).timestamp()
draw = random.Random(4711).randbytes


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Agency, Agency]:
    """Two agencies that tests only read."""
    made = []
    for name in ("minzdrav", "mincifry"):
        folder = tmp_path_factory.mktemp("agency") / name
        founding = Founding(name, "RU", (f"{name}.example:7340",), {})
        made.append(agencies.create(folder, founding, b"p", b"r", NOW, draw))
    return made[0], made[1]


@pytest.fixture
def desk(founded: tuple[Agency, Agency], tmp_path: Path) -> Iterator[Desk]:
    """The desk of a running node with its keys."""
    connection = connect(tmp_path / "node.db", None)
    directory = Directory(connection, founded[0], draw)
    yield Desk(connection, directory.trust, Settings(), directory, frozenset(), NOW)
    connection.close()


@pytest.fixture
def stopped(desk: Desk) -> Desk:
    """The same database without keys, as the command line opens it."""
    trust = Trust(desk.connection, desk.card)
    return Desk(desk.connection, trust, Settings(), None, None, NOW)


def ask(desk: Desk, command: str, **arguments: object) -> Result:
    answer = carry_out(desk, command, arguments)
    assert answer["v"] == 1
    assert json.loads(json.dumps(answer)) == answer, "not plain JSON"
    return answer


def records(result: Result, name: str) -> list[Result]:
    listed = result[name]
    assert isinstance(listed, list)
    return listed


def card_of(agency: Agency) -> str:
    return armour("CARD", agency.card.raw)


def with_device(desk: Desk, name: str, label: str = "phone") -> DeviceKey:
    """Put a user with a device into the tables, or a further device of theirs."""
    assert desk.directory is not None
    agency = desk.directory.agency
    user = Signer(name.encode().ljust(32, b"u"))
    device = Signer(draw(32))
    people = desk.people
    certificate = agencies.register_user(
        agency, identity.request_user(user, agency.id, name, 1), name
    )
    registered = agencies.register_device(
        agency, identity.request_device(user, device, agency.id, label, 1), UserId(user.public)
    )
    people.keep_user(
        certificate.user,
        agency.id,
        f"{name}@minzdrav",
        agency.card.charter.raw,
        certificate.raw,
    )
    prekey = identity.sign_prekey(device, bytes(PREKEY_BYTES), 1)
    listed = PersonDevice(registered.raw, prekey)
    people.keep_device(registered.device, certificate.user, *listed)
    return registered.device


class TestStatus:
    def test_of_a_new_node(self, desk: Desk) -> None:
        found = ask(desk, "status")
        assert found["agency"] == "minzdrav"
        assert found["fingerprint"] == desk.card.charter.fingerprint
        assert (found["running"], found["users"], found["chats"]) == (True, 0, 0)
        assert isinstance(found["database_bytes"], int)
        assert found["database_bytes"] > 0

    def test_of_a_stopped_one(self, stopped: Desk) -> None:
        assert ask(stopped, "status")["running"] is False

    def test_counts(self, desk: Desk, founded: tuple[Agency, Agency]) -> None:
        device = with_device(desk, "anna")
        with_device(desk, "anna", "tablet")
        ask(
            desk, "trust", card=card_of(founded[1]), fingerprint=founded[1].card.charter.fingerprint
        )
        connected = {bytes(device), bytes(founded[1].id), b"ticket"}
        assert desk.directory is not None
        busy = Desk(desk.connection, desk.trust, desk.settings, desk.directory, connected, NOW)
        found = ask(busy, "status")
        names = ("users", "devices", "peers", "peers_connected", "devices_connected")
        assert [found[name] for name in names] == [1, 2, 1, 1, 1]

    def test_a_running_node_answers_the_same(self, desk: Desk) -> None:
        assert desk.directory is not None
        replica = Replica(desk.connection, desk.card.charter.agency, desk.card.charter.agency)
        found = perform(desk.directory, replica, desk.settings, "status", {}, frozenset())
        assert found == ask(desk, "status")

    @pytest.mark.parametrize(
        ("command", "arguments", "text"),
        [
            ("dance", {}, "knows no command 'dance'"),
            ("status", {"x": 1}, "unknown field"),
            ("invite", {"name": 3}, r"\$.name"),
            ("invite", {}, "missing required field"),
        ],
    )
    def test_what_it_does_not_take(
        self, desk: Desk, command: str, arguments: dict[str, object], text: str
    ) -> None:
        with pytest.raises(UserError, match=text):
            carry_out(desk, command, arguments)


class TestInvite:
    def test_an_invitation(self, desk: Desk) -> None:
        found = ask(desk, "invite", name="Anna", hours=2)
        invitation = decode_invitation(str(found["invitation"]))
        assert (invitation.name, invitation.purpose) == ("anna", Purpose.FIRST_DEVICE)
        assert found["expires"] == invitation.expires == int((NOW + 7200) * 1000)
        assert found["user"] == "anna@minzdrav"
        assert desk.directory is not None
        desk.directory.tickets.find(invitation.ticket, (Purpose.FIRST_DEVICE,), int(NOW * 1000))

    def test_without_keys(self, stopped: Desk) -> None:
        with pytest.raises(RefusedError, match="passphrase"):
            ask(stopped, "invite", name="anna")

    @pytest.mark.parametrize("hours", [0, -1, 10**6])
    def test_hours(self, desk: Desk, hours: int) -> None:
        with pytest.raises(UserError, match="hours"):
            ask(desk, "invite", name="anna", hours=hours)

    @pytest.mark.parametrize("name", ["", "anna@mincifry", "аnna", "an\u200bna", "a/b"])
    def test_names(self, desk: Desk, name: str) -> None:
        """Hostile case 59."""
        with pytest.raises((IvorError, PeerError)):
            ask(desk, "invite", name=name)

    def test_a_user_with_devices(self, desk: Desk) -> None:
        with_device(desk, "anna")
        with pytest.raises(RefusedError, match="device link"):
            ask(desk, "invite", name="anna")


class TestTrust:
    def test_first_look_then_trust(self, stopped: Desk, founded: tuple[Agency, Agency]) -> None:
        card = card_of(founded[1])
        seen = ask(stopped, "examine", card=card)
        assert (seen["agency"], seen["standing"]) == ("mincifry", "new")
        assert ask(stopped, "peers")["peers"] == []
        ask(stopped, "trust", card=card, fingerprint=seen["fingerprint"])
        assert ask(stopped, "examine", card=card)["standing"] == "same"
        (peer,) = records(ask(stopped, "peers"), "peers")
        assert (peer["agency"], peer["connected"], peer["unconfirmed"]) == ("mincifry", None, 0)

    def test_another_fingerprint_than_was_compared(
        self, stopped: Desk, founded: tuple[Agency, Agency]
    ) -> None:
        with pytest.raises(IdentityError, match="not taken"):
            ask(
                stopped,
                "trust",
                card=card_of(founded[1]),
                fingerprint=founded[0].card.charter.fingerprint,
            )
        assert ask(stopped, "peers")["peers"] == []

    def test_what_is_no_card(self, stopped: Desk) -> None:
        with pytest.raises(PeerError):
            ask(stopped, "examine", card="hello")


class TestUsersAndRevoke:
    def test_users(self, desk: Desk) -> None:
        phone = with_device(desk, "anna")
        assert ask(desk, "users")["users"] == [
            {
                "name": "anna@minzdrav",
                "id": Signer(b"anna".ljust(32, b"u")).public.hex(),
                "devices": [
                    {
                        "id": phone.hex(),
                        "label": "phone",
                        "issued": 1,
                        "revoked": False,
                        "prekey": True,
                    }
                ],
                "certificates": [],
            }
        ]

    def test_one_device(self, desk: Desk) -> None:
        phone, tablet = with_device(desk, "anna"), with_device(desk, "anna", "tablet")
        done = ask(desk, "revoke", user="anna@minzdrav", device="phone")
        assert (done["revoked"], done["devices_left"]) == ([phone.hex()], 1)
        done = ask(desk, "revoke", user="anna", device=tablet.hex()[:8].upper())
        assert (done["revoked"], done["devices_left"]) == ([tablet.hex()], 0)

    def test_all_devices_and_open_invitations(self, desk: Desk) -> None:
        ask(desk, "invite", name="anna")
        with_device(desk, "anna")
        done = ask(desk, "revoke", user="anna")
        assert (done["devices_left"], done["invitations_withdrawn"]) == (0, 1)
        assert ask(desk, "status")["users"] == 0
        ask(desk, "invite", name="anna")

    def test_candidates_are_listed(self, desk: Desk) -> None:
        with_device(desk, "anna")
        with_device(desk, "anna")
        with pytest.raises(
            UserError, match=r"several devices called 'phone'.*\(phone\).*\(phone\)"
        ):
            ask(desk, "revoke", user="anna", device="phone")
        with pytest.raises(UserError, match="no device in use called 'watch'"):
            ask(desk, "revoke", user="anna", device="watch")

    def test_unknown_and_foreign_users(self, desk: Desk) -> None:
        with pytest.raises(UserError, match="no user boris@minzdrav"):
            ask(desk, "revoke", user="boris")
        with pytest.raises(UserError, match="ask their operator"):
            ask(desk, "revoke", user="boris@mincifry")


class TestChats:
    def test_what_a_node_may_know(self, desk: Desk, founded: tuple[Agency, Agency]) -> None:
        device = with_device(desk, "anna")
        ask(
            desk, "trust", card=card_of(founded[1]), fingerprint=founded[1].card.charter.fingerprint
        )
        add = desk.connection.execute
        add("INSERT INTO chats (no, id) VALUES (1, ?)", (b"c" * 32,))
        add(
            "INSERT INTO chains (chat, device, lane, branch, base, length, head, changed)"
            " VALUES (1, ?, 0, 0, 0, 5, ?, 1), (1, ?, 1, 0, 0, 2, ?, 2)",
            (device, b"h" * 32, device, b"h" * 32),
        )
        for peer in (founded[0].id, founded[1].id, device):
            add("INSERT INTO readers (peer, chat) VALUES (?, 1)", (peer,))
        add("INSERT INTO holdings VALUES (1, ?, 0, ?, 3)", (device, founded[1].id))
        assert ask(desk, "chats")["chats"] == [
            {
                "id": (b"c" * 32).hex(),
                "agencies": ["mincifry", "minzdrav"],
                "entries": 7,
                "devices": 1,
                "forks": 0,
                "blob_bytes": 0,
            }
        ]
        (mincifry,) = records(ask(desk, "peers"), "peers")
        assert (mincifry["chats"], mincifry["unconfirmed"], mincifry["connected"]) == (1, 4, False)

    @pytest.mark.parametrize("damaged", [False, True])
    def test_a_device_that_was_forgotten_is_no_agency(
        self, founded: tuple[Agency, Agency], tmp_path: Path, *, damaged: bool
    ) -> None:
        """A node that was brought back lacks whom it enrolled since; who is not trusted is named.

        In a chat that cannot be read nobody can tell them apart.
        """
        talk, mz = conversation(Dice(6), 0), agency("mz")
        database = tmp_path / "node.db"
        replica = node(path=database)
        for run in talk.runs:
            take(replica, run)
        if damaged:
            replica.store.connection.execute("DELETE FROM entries")
        card = founded[0].card
        ours = identity.sign_card(mz.root, mz.charter, card.ca, card.nodes, 1)
        shown = show(database, identity.verify_card(ours), Settings(), "chats", {}, frozenset())
        (told,) = records(shown, "chats")
        peers = {who.agency.root.public for who in talk.people} - {mz.root.public}
        if damaged:
            peers |= {talk.people[0].devices[0], talk.people[2].devices[0]}
        assert told["agencies"] == sorted(["mz", *(f"?{one.hex()[:16]}" for one in peers)])


class TestDoctor:
    def states(self, folder: Path) -> dict[str, str]:
        return {one.check: one.state for one in examine_folder(folder, NOW)}

    def test_a_new_folder(self, founded: tuple[Agency, Agency]) -> None:
        states = self.states(founded[0].folder)
        assert states.pop("root key") == "warn"
        assert states.pop("disk") in {"ok", "warn"}
        assert set(states.values()) == {"ok"}

    def test_a_certificate_that_ends(self, founded: tuple[Agency, Agency]) -> None:
        """Days are counted forward and back, and one is one."""
        folder, end = founded[0].folder, authority_of(founded[0].card).not_valid_after_utc
        said = [
            next(one.text for one in examine_folder(folder, now) if one.check == "card")
            for now in (end.timestamp() - 90_000, end.timestamp() + 1, end.timestamp() + 90_000)
        ]
        assert said == [
            "the CA's certificate ends in 1 day",
            "the CA's certificate ended 1 day ago",
            "the CA's certificate ended 2 days ago",
        ]

    def test_no_folder(self, tmp_path: Path) -> None:
        assert self.states(tmp_path / "none")["folder"] == "fail"

    def test_a_folder_that_others_read(self, tmp_path: Path) -> None:
        folder = tmp_path / "wide"
        agencies.create(folder, Founding("minfin", "RU", (), {}), b"p", b"r", NOW, draw)
        (folder / "agency.toml").chmod(0o644)
        connect(folder / "node.db", None).close()
        states = self.states(folder)
        assert (states["folder"], states["card"], states["database"]) == ("fail", "warn", "ok")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_a_file_of_another_user(self, tmp_path: Path) -> None:
        """Root reads it, the node's user does not. The root key is its holder's."""
        folder = tmp_path / "mixed"
        agencies.create(folder, Founding("minfin", "RU", (), {}), b"p", b"r", NOW, draw)
        for name in (".", "agency.toml", "card.ivor"):
            os.chown(folder / name, 4711, 4711)
        (found,) = (one for one in examine_folder(folder, NOW) if one.check == "folder")
        assert (found.state, "user: service.key; run 'chown" in found.text) == ("fail", True)

    def test_a_damaged_database(self, tmp_path: Path) -> None:
        folder = tmp_path / "broken"
        agencies.create(folder, Founding("minfin", "RU", (), {}), b"p", b"r", NOW, draw)
        (folder / "node.db").write_bytes(b"no database" * 1000)
        assert self.states(folder)["database"] == "fail"
