"""Real nodes, real devices, real processes: what an official does on a good day and a bad one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cli.main import main
from cli.opening import now_ms
from client.chats import find
from client.compose import require
from client.device import Device, open_device
from client.epochs import start_epoch
from crypto.sealing import PREKEY_BYTES
from protocol.identity import sign_prekey
from tests.guarded import guard_databases
from tests.hostile.federation import free_endpoint

SECONDS_MAX = 120
IVOR = (sys.executable, "-m", "cli.main")
ROOT = Path(__file__).parents[2]


class Town:
    """Two agencies whose nodes run, and their officials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "passphrase"
        self.secret.write_text("correct horse\n")
        self.secret.chmod(0o600)
        self.processes: list[subprocess.Popen[str]] = []
        self.nodes: dict[str, subprocess.Popen[str]] = {}

    def environment(self, home: str) -> dict[str, str]:
        return os.environ | {
            "IVOR_HOME": str(self.folder / home),
            "IVOR_PASSPHRASE_FILE": str(self.secret),
            "IVOR_ROOT_PASSPHRASE_FILE": str(self.secret),
            "PYTHONPATH": str(ROOT),
        }

    def run(self, who: str, *arguments: str, code: int = 0) -> Sequence[dict[str, object]]:
        """Run a command with --json in this process; return what it prints."""
        output = self.folder / "output"
        with pytest.MonkeyPatch.context() as patch, output.open("w") as stdout:
            for name, value in self.environment(who).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", stdout)
            guard_databases(patch)
            found = main([*arguments, "--json"])
        assert found == code, arguments
        return [json.loads(line) for line in output.read_text().splitlines()]

    def start(self, who: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command as a process of its own."""
        process = subprocess.Popen(
            # A shell that runs the tests in its background has them ignore SIGINT.
            ["/usr/bin/env", "--default-signal=INT", *IVOR, *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment(who),
            cwd=self.folder,
            text=True,
        )
        self.processes.append(process)
        return process

    def node(self, agency: str, *options: str) -> "subprocess.Popen[str]":
        folder = str(self.folder / agency)
        process = self.start("operator", "node", "run", "--dir", folder, *options)
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        self.nodes[agency] = process
        return process

    def restart(self, agency: str) -> None:
        """Stop a node, and start it with the settings that it has now."""
        self.nodes[agency].terminate()
        self.nodes[agency].wait(SECONDS_MAX)
        self.node(agency)

    def wait_for_peers(self, agency: str) -> None:
        """Wait until a node has a session with the other: before, it knows nobody there."""
        folder = str(self.folder / agency)
        deadline = time.monotonic() + SECONDS_MAX
        while not self.run("operator", "node", "peers", "--dir", folder)[0]["connected"]:
            assert time.monotonic() < deadline, "the nodes do not meet"
            time.sleep(0.05)

    def wait_until_out(self, agency: str, chat: object) -> None:
        """Wait until a node knows that its agency is in a chat no more."""
        deadline = time.monotonic() + SECONDS_MAX
        while agency in self._agencies(agency, chat):
            assert time.monotonic() < deadline, "the node does not hear that it is out"
            time.sleep(0.05)

    def _agencies(self, agency: str, chat: object) -> list[object]:
        listed = self.run("operator", "node", "chats", "--dir", str(self.folder / agency))
        return [name for one in listed if one["id"] == chat for name in list_of(one["agencies"])]

    @contextmanager
    def device(self, home: str) -> Iterator[Device]:
        """The opened device of somebody."""
        passphrase = self.secret.read_text().rstrip("\n").encode()
        with closing(open_device(self.folder / home, passphrase, os.urandom)) as device:
            yield device

    def enrol(self, name: str, agency: str, home: str) -> None:
        """Invite a user of an agency, and join as them with a device of that name."""
        folder = str(self.folder / agency)
        (told,) = self.run("operator", "node", "invite", name, "--dir", folder)
        invitation = self.folder / f"{home}.invitation"
        invitation.write_text(str(told["invitation"]))
        self.run(home, "join", str(invitation), "--label", "laptop")

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(SECONDS_MAX)
            assert process.stdout is not None
            process.stdout.close()


def list_of(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def line(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    made = Town(tmp_path_factory.mktemp("town"))
    agencies = ("minzdrav", "mincifry")
    for agency in agencies:
        folder = str(made.folder / agency)
        settings = ("--zone", "RU-UDM", "--listen", free_endpoint(), "--allow-local")
        made.run("operator", "agency", "create", agency, *settings, "--dir", folder)
    (made.folder / "mincifry" / "root.key").rename(made.folder / "root.key")  # taken offline
    for agency, other in (agencies, agencies[::-1]):
        card = str(made.folder / other / "card.ivor")
        folder = str(made.folder / agency)
        made.run("operator", "node", "trust", card, "--yes", "--dir", folder)
    for agency in agencies:
        made.node(agency)
    made.wait_for_peers("minzdrav")
    for name, agency in (("anna", "minzdrav"), ("boris", "mincifry")):
        made.enrol(name, agency, name)
    yield made
    made.end()


class TestTown:
    def test_a_message_crosses_agencies_and_is_followed(self, town: Town) -> None:
        town.run("anna", "chat", "new", "Бюджет", "boris@mincifry")
        follower = town.start("boris", "read", "Бюджет", "--follow")
        assert line(follower)["text"] == "Бюджет"
        (sent,) = town.run("anna", "send", "Бюджет", "привет", "--wait", "all")
        assert (sent["state"], sent["agencies"], sent["of"]) == ("everywhere", 2, 2)
        assert line(follower)["id"] == sent["id"]
        (own,) = town.run("boris", "send", "Бюджет", "и тебе")
        assert line(follower)["id"] == own["id"]
        follower.send_signal(signal.SIGINT)
        assert follower.wait(SECONDS_MAX) == 0

    def test_a_file_crosses_agencies(self, town: Town) -> None:
        table = town.folder / "таблица.csv"
        table.write_bytes(os.urandom(300_000))
        town.run("anna", "chat", "new", "Файлы", "boris@mincifry")
        sent = town.run("anna", "send", "Файлы", "--file", str(table), "--wait", "all")[-1]
        assert sent["agencies"] == 2, sent
        town.run("boris", "sync")
        got = town.folder / "got.csv"
        town.run("boris", "get", "Файлы", str(sent["id"])[:8], "--output", str(got))
        assert got.read_bytes() == table.read_bytes()
        town.run("anna", "redact", "Файлы", str(sent["id"])[:8], "--reason", "not that one")
        again = ("get", "Файлы", str(sent["id"])[:8], "--output", str(town.folder / "again"))
        town.run("boris", *again, code=1)

    def test_a_file_without_room_is_told_with_its_own_message_alone(self, town: Town) -> None:
        """What was sent after it arrives, and is said to."""
        settings = town.folder / "minzdrav" / "agency.toml"
        kept = settings.read_text()
        town.run("anna", "chat", "new", "Тома", "boris@mincifry")
        settings.write_text(f"{kept}blobs_chat_mib = 1\n")
        town.restart("minzdrav")
        (large := town.folder / "large").write_bytes(bytes(2_000_000))
        (small := town.folder / "small").write_bytes(bytes(200_000))
        first = town.run("anna", "send", "Тома", "--file", str(large), code=5)[-1]
        assert "no room" in str(first["problem"])
        then = town.run("anna", "send", "Тома", "--file", str(small))[-1]
        assert (then["file_agencies"], then["problem"]) in ((1, None), (2, None))
        assert town.run("anna", "send", "Тома", "и текст")[-1]["problem"] is None
        (synced,) = town.run("anna", "sync", code=5)
        assert synced["complete"]
        settings.write_text(kept)
        town.restart("minzdrav")
        town.run("anna", "sync")

    def test_a_channel_is_read_by_grants_that_nodes_hand_on(self, town: Town) -> None:
        town.run("anna", "chat", "new", "Вести", "boris@mincifry", "--kind", "channel")
        town.run("anna", "send", "Вести", "всем", "--wait", "all")
        deadline = time.monotonic() + SECONDS_MAX
        while not any(one["title"] == "Вести" for one in town.run("boris", "chat", "list")):
            assert time.monotonic() < deadline, "the reader gets no keys"
            for who in ("boris", "anna"):
                town.run(who, "sync")
        texts = [one["text"] for one in town.run("boris", "read", "Вести")]
        assert texts[-1] == "всем"
        town.run("boris", "send", "Вести", "нет", code=8)
        shown = town.run("boris", "chat", "show", "Вести")
        assert (shown[0]["members"], shown[0]["you"]) == (2, "reader")
        listed = {one["title"]: one["standing"] for one in town.run("boris", "chat", "list")}
        assert listed["Вести"] == "reader"
        assert [one["name"] for one in shown if one["type"] == "member"] == ["anna@minzdrav"]

    def test_the_node_certifies_who_signs(self, town: Town) -> None:
        """The first signature asks for a certificate, the second does not; the operator sees it."""
        town.run("anna", "chat", "new", "Приказы", "boris@mincifry")
        order = town.folder / "order.txt"
        order.write_text("one")
        (made,) = town.run("anna", "sign", "Приказы", str(order), "--ask", "boris@mincifry")
        request = str(made["request"])
        town.run("boris", "sign", "Приказы", str(order), "--request", request)
        other = town.folder / "other.txt"
        other.write_text("two")
        town.run("anna", "sign", "Приказы", str(other))
        shown = town.run("anna", "approvals", "Приказы", request)
        assert shown[0]["complete"] is True
        serial = shown[1]["serial"]
        folder = str(town.folder / "minzdrav")
        (anna,) = town.run("operator", "node", "users", "--dir", folder)
        (certificate,) = list_of(anna["certificates"])
        assert isinstance(certificate, dict)
        assert certificate["valid"] is True
        assert str(certificate["serial"]).lstrip("0") == serial

    def test_a_redaction_is_confirmed_by_every_node(self, town: Town) -> None:
        """Also by one that was down; until then it is listed as not having confirmed."""
        town.run("anna", "chat", "new", "Отзыв", "boris@mincifry")
        (sent,) = town.run("anna", "send", "Отзыв", "не туда", "--wait", "all")
        node = town.nodes["mincifry"]
        node.terminate()
        assert node.wait(SECONDS_MAX) == 0
        town.run("anna", "redact", "Отзыв", str(sent["id"]), "--reason", "ошибка")
        assert self.confirmed(town, "anna") == {
            "minzdrav": "confirmed",
            "mincifry": "not confirmed",
        }
        town.node("mincifry")
        town.run("boris", "sync")
        for who in ("anna", "boris"):
            rounds = 0
            while "not confirmed" in self.confirmed(town, who).values():
                rounds += 1
                assert rounds < SECONDS_MAX
                town.run(who, "sync")
            assert set(self.confirmed(town, who)) == {"minzdrav", "mincifry"}
        (*_, last) = town.run("boris", "read", "Отзыв")
        assert (last["text"], last["redacted"]) == (
            None,
            {"by": "anna@minzdrav", "reason": "ошибка"},
        )

    def confirmed(self, town: Town, who: str) -> dict[object, object]:
        records = town.run(who, "log", "show", "Отзыв", "--redactions")
        return {one["agency"]: one["state"] for one in records if one["type"] == "confirmation"}

    def test_what_is_written_after_a_removal_is_not_delivered(self, town: Town) -> None:
        """It is said at once, and again by `read`; nothing waits for it, here or in other chats."""
        (made,) = town.run("anna", "chat", "new", "Уход", "boris@mincifry")
        town.run("anna", "send", "Уход", "до", "--wait", "all")
        town.run("boris", "read", "Уход")
        town.nodes["mincifry"].terminate()
        assert town.nodes["mincifry"].wait(SECONDS_MAX) == 0
        town.run("anna", "chat", "remove", "Уход", "boris@mincifry")
        (sent,) = town.run("boris", "send", "Уход", "после")
        assert (sent["state"], sent["agencies"]) == ("queued", 0)
        town.node("mincifry")
        town.wait_until_out("mincifry", made["chat"])
        (synced,) = town.run("boris", "sync")
        assert (synced["complete"], synced["queued_entries"]) == (True, 0)
        assert town.run("boris", "status")[0]["state"] == "stored"
        (*_, last) = town.run("boris", "read", "Уход")
        assert (last["text"], last["state"]) == ("после", "refused")
        town.run("boris", "send", "Уход", "ещё", code=8)

    def test_an_invitation_is_good_once(self, town: Town) -> None:
        town.run("other", "join", str(town.folder / "anna.invitation"), code=8)
        assert not (town.folder / "other" / "device.key").exists()

    def test_a_further_device_has_chats_and_history(self, town: Town) -> None:
        town.run("anna", "send", "boris@mincifry", "до телефона")
        old = town.start("anna", "device", "link", "--yes")
        code = str(line(old)["code"])
        linked = town.run("phone", "device", "link", code, "--label", "phone")
        assert line(old)["shown"] == linked[0]["shown"]
        assert old.wait(SECONDS_MAX) == 0
        assert linked[-1]["complete"] is True
        (*_, last) = town.run("phone", "read", "boris@mincifry")
        assert (last["text"], last["own"]) == ("до телефона", False)
        town.run("phone", "send", "boris@mincifry", "с телефона", "--wait", "all")
        (*_, last) = town.run("boris", "read", "anna@minzdrav")
        assert last["text"] == "с телефона"
        town.run("phone", "device", "rename", "mobile", code=8)
        town.run("anna", "device", "rename", "Стол")
        seen = {one["device"]: one["label"] for one in town.run("phone", "device", "list")}
        assert set(seen.values()) == {"phone", "Стол"}
        town.run("phone", "send", "boris@mincifry", "вчера", "--wait", "all")
        town.run("anna", "device", "revoke", "phone", "--yes")
        for who, name in (("anna", "boris@mincifry"), ("boris", "anna@minzdrav")):
            (*_, last) = town.run(who, "read", name)
            assert (last["text"], last["void"]) == ("вчера", None)
        town.run("phone", "sync", code=3)
        town.run("anna", "send", "boris@mincifry", "без телефона", "--wait", "stored")
        texts = [one["text"] for one in town.run("phone", "read", "boris@mincifry")]
        assert "без телефона" not in texts

    def test_a_link_code_says_how_long_it_is_waited_for(
        self, town: Town, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def given_up(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("client.linking.wait", given_up)
        (shown,) = town.run("anna", "device", "link", code=130)
        told = capsys.readouterr().err
        assert f"'ivor device link CODE' with this: good once, until {shown['expires']}\n" in told
        assert "this waits for that device until then; once it is ended" in told
        monkeypatch.setattr("trio.sleep", given_up)
        asked = town.run("watch", "device", "link", str(shown["code"]), code=130)
        assert asked[0]["expires"] == shown["expires"]
        assert f"this waits for that until {shown['expires']}\n" in capsys.readouterr().err

    def test_a_changed_identity_is_loud_and_blocks(self, town: Town) -> None:
        """Whoever began anew, or poses as her: nothing is written to her until anna decides."""
        dina, folder = "dina@mincifry", str(town.folder / "mincifry")
        town.enrol("dina", "mincifry", "first")
        town.run("anna", "chat", "new", "Кадры", dina)
        town.run("anna", "verify", dina, "--yes")
        town.run("operator", "node", "revoke", dina, "--dir", folder)
        town.enrol("dina", "mincifry", "again")
        assert town.run("anna", "sync", code=4)[0]["changed"] == [dina]
        for command in (
            ("send", "Кадры", "тайна"),
            ("verify", dina),
            ("chat", "add", "Бюджет", dina),
        ):
            town.run("anna", *command, code=4)
        (status, *_) = town.run("anna", "status")
        shown = town.run("anna", "chat", "show", "Кадры")
        assert status["changed"] == [dina]
        assert [one["name"] for one in shown if one.get("changed")] == [dina]
        town.run("anna", "send", "Бюджет", "that goes on")
        (taken,) = town.run("anna", "verify", dina, "--accept-change")
        assert not taken["verified"]
        town.run("anna", "verify", dina, "--yes")
        assert town.run("anna", "verify", dina, "--accept-change")[0]["verified"]
        town.run("anna", "send", "Кадры", "no more a secret")
        assert town.run("anna", "sync")[0]["changed"] == []

    def test_who_was_brought_in_reads_what_is_written_next(self, town: Town) -> None:
        """Regression: `ivor send` wrote for whom it knew, and then took up who else is in."""
        town.run("anna", "chat", "new", "Приём", "boris@mincifry")
        town.run("boris", "sync")
        town.enrol("nina", "mincifry", "nina")
        town.run("anna", "chat", "add", "Приём", "nina@mincifry")
        deadline = time.monotonic() + SECONDS_MAX
        while not town.run("nina", "chat", "list"):
            assert time.monotonic() < deadline, "the chat does not come"
            town.run("nina", "sync")
        (sent,) = town.run("boris", "send", "Приём", "здравствуйте")
        town.run("boris", "edit", "Приём", str(sent["id"])[:8], "добрый день")
        (*_, last) = town.run("nina", "read", "Приём")
        assert last["text"] == "добрый день"

    def test_who_only_ever_sends_is_read_and_stays_enrolled(self, town: Town) -> None:
        """Regression: after 14 days what `ivor send` wrote was closed to all, without an end."""
        town.run("anna", "chat", "new", "Сводки", "boris@mincifry")
        (boris,) = town.run("boris", "whoami")
        with town.device("anna") as anna, town.device("boris") as other, anna.transaction():
            old = sign_prekey(other.secrets.device, bytes(PREKEY_BYTES), 0)
            key = bytes.fromhex(str(boris["device"]))
            anna.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (old, key))
            start_epoch(anna, require(anna, find(anna, "Сводки").id), now_ms())
            anna.note("refreshed", 0)
        town.run("anna", "send", "Сводки", "всё спокойно", "--wait", "all")
        (*_, last) = town.run("boris", "read", "Сводки")
        assert last["text"] == "всё спокойно"
        for command in (
            ("send", "Сводки", "и далее"),
            ("chat", "policy", "Сводки", "--retention", "1y"),
        ):
            with town.device("anna") as anna:
                anna.note("refreshed", 0)
            town.run("anna", *command)
            with town.device("anna") as anna:
                assert anna.done_at("refreshed")

    def test_status_tells_when_all_was_exchanged(self, town: Town) -> None:
        """Not when people were last asked for, which is once a day."""
        (before, *_) = town.run("anna", "status")
        town.run("anna", "send", "Бюджет", "now", "--wait", "all")
        (after, *_) = town.run("anna", "status")
        assert str(after["last_sync"]) > str(before["last_sync"])

    def test_an_unreachable_node_is_waited_for(
        self, town: Town, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = str(town.folder / "nowhere")
        settings = ("--zone", "RU-UDM", "--listen", free_endpoint(), "--allow-local")
        town.run("operator", "agency", "create", "nowhere", *settings, "--dir", folder)
        node = town.node("nowhere")
        (told,) = town.run("operator", "node", "invite", "ivan", "--dir", folder)
        town.run("ivan", "join", str(told["invitation"]))
        node.terminate()
        assert node.wait(SECONDS_MAX) == 0
        (told,) = town.run("operator", "node", "invite", "olga", "--dir", folder)
        town.run("olga", "join", str(told["invitation"]), code=3)
        assert "the same command goes on with it" in capsys.readouterr().err
        town.run("ivan", "sync", code=3)
        node = town.node("nowhere")
        town.run("olga", "join", str(told["invitation"]))
        assert "going on with what was begun here" in capsys.readouterr().err
        town.run("ivan", "send", "olga@nowhere", "дошло?", "--wait", "all")
        (*_, last) = town.run("olga", "read", "ivan@nowhere")
        assert last["text"] == "дошло?"

    def test_a_lost_first_device_is_replaced_by_the_words(self, town: Town) -> None:
        operator = ("--dir", str(town.folder / "minzdrav"))
        (told,) = town.run("operator", "node", "invite", "vera", *operator)
        town.run("vera", "join", str(told["invitation"]), "--label", "lost")
        town.run("vera", "send", "boris@mincifry", "до потери", "--wait", "all")
        (shown,) = town.run("vera", "recovery", "show")
        kept = str(town.folder / "vera.backup")
        (made,) = town.run("vera", "backup", kept)
        words = town.folder / "words"
        words.write_text(" ".join(str(word).upper() for word in list_of(shown["words"])) + "\n")
        (told,) = town.run("operator", "node", "invite", "vera", "--recover", *operator)
        again = ("join", str(told["invitation"]), "--phrase-file", str(words), "--label", "new")
        (joined,) = town.run("vera2", *again)
        assert joined["name"] == "vera@minzdrav"
        town.run("vera2", "device", "revoke", "lost", "--yes")
        town.run("vera", "sync", code=3)
        town.run("vera2", "send", "boris@mincifry", "после потери", "--wait", "all")
        (*_, last) = town.run("boris", "read", "vera@minzdrav")
        assert (last["text"], last["from"]) == ("после потери", "vera@minzdrav")
        town.run("boris", "send", "vera@minzdrav", "рад видеть", "--wait", "all")
        (*_, last) = town.run("vera2", "read", "boris@mincifry")
        assert last["text"] == "рад видеть"
        (found,) = town.run("vera2", "recover", kept)
        assert (found["proved"], found["waiting"]) == (made["messages"], 0)
        texts = [one["text"] for one in town.run("vera2", "read", "boris@mincifry")]
        assert texts == ["до потери", "после потери", "рад видеть"]
        town.run("boris", "recover", kept, code=4)
        words.write_text("abandon " * 24)
        town.run("vera2", "recover", kept, "--phrase-file", str(words), code=1)
        assert all(one["sound"] for one in town.run("vera2", "log", "verify", "--all"))
        states = {one["label"]: one["revoked"] for one in town.run("vera2", "device", "list")}
        assert states == {"lost": True, "new": False}

    def test_what_another_device_has_read_the_one_in_its_place_reads(self, town: Town) -> None:
        """The first device is lost, there is no backup, but a phone is left."""
        town.enrol("gala", "minzdrav", "gala")
        town.run("gala", "send", "boris@mincifry", "до потери", "--wait", "all")
        old = town.start("gala", "device", "link", "--yes")
        code = str(line(old)["code"])
        town.run("gala-phone", "device", "link", code, "--label", "phone")
        assert old.wait(SECONDS_MAX) == 0
        (shown,) = town.run("gala", "recovery", "show")
        words = town.folder / "gala.words"
        words.write_text(" ".join(str(word) for word in list_of(shown["words"])))
        operator = ("--dir", str(town.folder / "minzdrav"))
        (told,) = town.run("operator", "node", "invite", "gala", "--recover", *operator)
        again = ("join", str(told["invitation"]), "--phrase-file", str(words), "--label", "new")
        town.run("gala-new", *again)
        assert town.run("gala-new", "read", "boris@mincifry")[-1].get("text") != "до потери"
        (handed,) = town.run("gala-phone", "device", "hand-over", "new", "--yes")
        assert (handed["label"], handed["history_left"]) == ("new", 0)
        town.run("gala-new", "sync")
        texts = [one.get("text") for one in town.run("gala-new", "read", "boris@mincifry")]
        assert texts == ["до потери"]

    def test_a_node_is_copied_while_it_runs_and_while_it_does_not(self, town: Town) -> None:
        file, again = str(town.folder / "node.backup"), str(town.folder / "restored")
        operator = ("--dir", str(town.folder / "minzdrav"))
        (kept,) = town.run("operator", "node", "backup", file, *operator)
        (status,) = town.run("operator", "node", "status", *operator)
        town.run("operator", "node", "restore", file, *operator, code=1)
        town.run("operator", "node", "restore", file, "--dir", again)
        (stopped,) = town.run("operator", "node", "status", "--dir", again)
        assert (stopped["fingerprint"], stopped["running"]) == (status["fingerprint"], False)
        assert (stopped["chats"], stopped["entries"]) == (kept["chats"], kept["entries"])
        (copy,) = town.run("operator", "node", "backup", file, "--dir", again)
        assert copy["entries"] == kept["entries"]

    def test_every_log_holds_at_the_end(self, town: Town) -> None:
        for who in ("anna", "boris"):
            audits = town.run(who, "log", "verify", "--all")
            assert len(audits) == len(town.run(who, "chat", "list")) > 0
            assert all(one["sound"] for one in audits)

    def test_a_node_moves(self, town: Town) -> None:
        """The other node and a device that asks take the new card; one that has missed it, a file.

        The root key is where its holder keeps it.
        """
        folder, new = str(town.folder / "mincifry"), free_endpoint()
        root = ("--root-key", str(town.folder / "root.key"))
        (before,) = town.run("operator", "node", "status", "--dir", folder)
        old = str(list_of(before["addresses"])[0])
        town.run("boris", "sync")
        both = ("--address", new, "--address", old)
        town.run("operator", "agency", "move", *both, "--dir", folder, code=1)
        (moved,) = town.run("operator", "agency", "move", *both, *root, "--dir", folder)
        assert moved["addresses"] == [new, old]
        assert moved["fingerprint"] == before["fingerprint"]
        node = town.nodes["mincifry"]
        node.terminate()
        assert node.wait(SECONDS_MAX) == 0
        town.node("mincifry", "--listen", new)
        town.run("boris", "sync", code=3)
        card = town.folder / "mincifry" / "card.ivor"
        town.run("anna", "device", "card", str(card), code=4)
        (taken,) = town.run("boris", "device", "card", str(card))
        assert taken["addresses"] == [new, old]
        town.run("anna", "send", "boris@mincifry", "и там?", "--wait", "all")
        (*_, last) = town.run("boris", "read", "anna@minzdrav")
        assert last["text"] == "и там?"
        (known,) = town.run("operator", "node", "peers", "--dir", str(town.folder / "minzdrav"))
        assert (known["addresses"], known["card_serial"]) == ([new, old], moved["card_serial"])

    def test_an_agency_has_another_registrar_key(self, town: Town) -> None:
        """Its users do nothing, and write, link and rename on; the other agency takes it up."""
        folder = str(town.folder / "mincifry")
        (before,) = town.run("operator", "node", "status", "--dir", folder)
        listed = town.run("operator", "node", "users", "--dir", folder)
        root = ("--root-key", str(town.folder / "root.key"))
        (made,) = town.run("operator", "agency", "rekey", *root, "--dir", folder)
        assert made["fingerprint"] == before["fingerprint"]
        node, address = town.nodes["mincifry"], str(list_of(before["addresses"])[0])
        node.terminate()
        assert node.wait(SECONDS_MAX) == 0
        assert town.run("operator", "node", "users", "--dir", folder) == listed
        town.node("mincifry", "--listen", address)
        town.run("boris", "device", "rename", "стол")
        old = town.start("boris", "device", "link", "--yes")
        town.run("tablet", "device", "link", str(line(old)["code"]), "--label", "tablet")
        assert old.wait(SECONDS_MAX) == 0
        town.enrol("egor", "mincifry", "egor")
        town.run("tablet", "send", "anna@minzdrav", "с новым ключом", "--wait", "all")
        town.wait_for_peers("minzdrav")
        town.run("anna", "send", "egor@mincifry", "вы новый?", "--wait", "all")
        (*_, last) = town.run("anna", "read", "boris@mincifry")
        assert last["text"] == "с новым ключом"
        assert {one["label"] for one in town.run("boris", "device", "list")} == {"стол", "tablet"}
