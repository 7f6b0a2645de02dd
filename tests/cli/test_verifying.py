"""What shows whether people, devices and logs are what they are taken for, without a network."""

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import segno
from rich.text import Text
from trio.testing import memory_stream_pair

from client import handing, people
from client.device import Device, open_device
from client.exchange import Visit
from client.link import Link, over
from client.revoking import Exposed
from protocol.entry import ChatId
from tests.cheating import seal_wrongly
from tests.cli.conftest import Official
from tests.federation import PASSPHRASE, Federation


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    return federation.chat(anna.device, "Бюджет", boris.device).hex()


def test_the_safety_number_is_the_same_on_both_sides(anna: Official, boris: Official) -> None:
    (ours,) = anna.json("verify", "boris@mincifry", "--yes")
    (theirs,) = boris.json("verify", "anna@minzdrav")
    assert ours["safety_number"] == theirs["safety_number"]
    assert len(str(ours["safety_number"]).split()) == 12
    assert (ours["verified"], theirs["verified"]) == (True, False)


@pytest.mark.usefixtures("boris")
def test_on_a_terminal_the_number_is_also_a_qr_code(
    anna: Official, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of modules a line, light on dark whatever the terminal's own colours."""
    (known,) = anna.json("verify", "boris@mincifry", "--yes")
    monkeypatch.setattr("cli.enrolment.sys.stdout.isatty", lambda: True)
    shown = anna("verify", "boris@mincifry")
    drawn = [line for line in shown.splitlines() if line.startswith("\x1b[97m\x1b[40m")]
    cells = [list(Text.from_ansi(line).plain) for line in drawn]
    halves = [[cell in light for cell in row] for row in cells for light in ("█▀", "█▄")]
    number = str(known["safety_number"]).replace(" ", "")
    code = segno.make_qr(number).matrix_iter(border=4)
    assert halves[:-1] == [[not dark for dark in row] for row in code]


def test_where_an_identity_is_still_in_that_a_name_meant_before(
    federation: Federation, anna: Official, boris: Official, chat: str
) -> None:
    """Its owner took the new one: nothing holds back what goes to the old one any more."""
    old = boris.device.profile.user.user.hex()
    anna("send", "boris@mincifry", "до смены")
    direct = next(one for one in anna.json("chat", "list") if one["kind"] == "direct")
    with anna.device.transaction():
        people.accept_change(anna.device, "boris@mincifry")
    federation.devices.remove(boris.device)
    boris.device.close()
    federation.official("boris@mincifry")
    anna("verify", "boris@mincifry")
    assert f"ivor chat remove {chat[:8]} {old[:16]}" in anna.said
    anna("send", chat[:8], "кому?")
    assert f"ivor chat remove {chat[:8]} {old[:16]}" in anna.said
    short = str(direct["chat"])[:8]
    anna("send", short, "кому?")
    assert f"careful: the chat {short} is with the identity" in anna.said
    anna("chat", "remove", chat[:8], old[:16])
    for command in (("verify", "boris@mincifry"), ("send", chat[:8], "x")):
        anna(*command)
        assert f"chat {chat[:8]}" not in anna.said


def test_a_log_that_holds_and_one_that_does_not(anna: Official, chat: str) -> None:
    anna("send", chat[:8], "x")
    (sound,) = anna.json("log", "verify", "--all")
    assert (sound["sound"], sound["content"], sound["messages"]) == (True, 2, 2)
    anna.device.connection.execute("UPDATE entries SET record = id WHERE place & 1 = 1")
    anna("log", "verify", chat[:8], code=7)
    assert "damaged" in anna.said
    anna("log", "verify", "--all", code=7)
    assert "seq" in anna.said
    anna("log", "verify", code=1)


def test_a_fork_is_shown_and_ends_with_7(
    federation: Federation, tmp_path: Path, anna: Official, boris: Official, chat: str
) -> None:
    boris.device.connection.pragma("wal_checkpoint(TRUNCATE)")
    shutil.copytree(boris.device.folder, tmp_path / "twin")
    twin = open_device(tmp_path / "twin", PASSPHRASE, boris.device.random)
    twin.settle_here()
    (chat_id,) = boris.device.replica.store.chats()
    federation.say(boris.device, chat_id, "one")
    federation.say(twin, chat_id, "other")
    for source in (boris.device, twin):
        federation.carry(source, anna.device)
    twin.close()
    (audit,) = anna.json("log", "verify", chat[:8], code=7)
    assert audit["sound"] is True
    assert audit["forked"] == [boris.device.key.hex()]
    forks = [one for one in anna.json("chat", "show", chat[:8]) if one["type"] == "fork"]
    assert [one["name"] for one in forks] == ["boris@mincifry"]


def test_a_wrong_seal_is_shown_and_ends_with_7(
    federation: Federation, anna: Official, boris: Official
) -> None:
    vera = federation.official("vera@mincifry")
    chat = federation.chat(anna.device, "Тайна", boris.device, vera)
    seal_wrongly(federation, vera, chat, anna.device, hidden=True)
    for source, target in ((vera, anna.device), (anna.device, boris.device)):
        federation.carry(source, target)
    (audit,) = boris.json("log", "verify", "Тайна", code=7)
    assert audit["sound"] is True
    assert "anna@minzdrav says that vera@mincifry sealed an epoch wrongly" in boris.said
    nacks = [one for one in boris.json("chat", "show", "Тайна") if one["type"] == "nack"]
    assert [(one["name"], one["against"]) for one in nacks] == [("anna@minzdrav", "vera@mincifry")]


@pytest.mark.parametrize(
    "command", [("read", "Бюджет"), ("read", "Бюджет", "--follow")], ids=["read", "follow"]
)
def test_what_a_visit_has_done_is_told_by_every_command(
    anna: Official,
    boris: Official,
    chat: str,
    monkeypatch: pytest.MonkeyPatch,
    command: Sequence[str],
) -> None:
    """The next one puts out no forked device any more, and finds no parcel that was refused."""

    def linked(device: Device, **_: float) -> AbstractAsyncContextManager[Link]:
        return over(device, memory_stream_pair()[0])

    async def visit(*_: object) -> Visit:
        caught = Exposed(ChatId(bytes.fromhex(chat)), boris.device.key, b"")
        return Visit(
            even=True, came=Counter(), archived=0, revoked=[caught], warnings=["a part is lost"]
        )

    async def nothing(*_: object) -> None:
        """It has greeted, and nothing is far away."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for where in ("client.link.linked", "client.following.linked"):
        monkeypatch.setattr(where, linked)
    monkeypatch.setattr("client.exchange.visit", visit)
    for method in ("meet", "preview"):
        monkeypatch.setattr(Link, method, nothing)
    monkeypatch.setattr("client.following._fresh", interrupted)
    anna(*command)
    assert f"forked its log and was put out: {boris.device.key.hex()[:16]}" in anna.said
    assert "a part is lost" in anna.said


def test_devices_are_listed(federation: Federation, anna: Official) -> None:
    federation.further(anna.device)
    listed = anna.json("device", "list")
    assert anna.said.startswith("what is known here; no node of minzdrav")
    assert [(one["label"], one["this"]) for one in listed] == [
        ("laptop", True),
        ("phone", False),
    ]
    anna("device", "revoke", "phone", "--yes", code=3)
    assert "what it wrote and has not come here will count for nothing: no node" in anna.said
    assert "the next 'ivor sync' tells it" in anna.said
    assert [one["revoked"] for one in anna.json("device", "list")] == [False, True]
    (told,) = anna.json("device", "revoke", "laptop", "--yes", code=3)
    assert (told["label"], told["state"]) == ("laptop", "queued")
    assert f"{anna.device.folder} still holds this device's keys" in anna.said
    assert "run the same command again" in anna.said
    assert all(one["revoked"] for one in anna.json("device", "list"))


def test_history_is_handed_over_to_another_device_alone(
    federation: Federation, anna: Official
) -> None:
    phone = federation.further(anna.device)
    anna("device", "hand-over", "phone", "--yes", code=3)
    assert "the next 'ivor sync' here hands it over" in anna.said
    assert list(handing.owed(anna.device)) == [phone.key]
    anna("device", "hand-over", "laptop", "--yes", code=1)
    assert "that is this device" in anna.said
    anna("device", "revoke", "phone", "--yes", code=3)
    anna("device", "hand-over", "phone", "--yes", code=8)
    assert "'phone' is given up" in anna.said
