"""The official's commands without a network: everything works, and what is queued is told so."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from cli import writing
from cli.letters import MARGIN, show
from cli.main import main
from cli.opening import _change
from cli.output import Output
from cli.reading import read_since
from client import chats, compose
from client.chats import find, find_letter
from client.compose import require
from client.deciding import settle
from client.device import Device
from client.link import Link, over
from client.people import acquaintance
from client.reading import Reader, letters
from node import journal
from node.errors import StorageError, UserError
from node.transaction import Transaction
from protocol.errors import Untrusted
from protocol.identity import UserId
from protocol.limits import TEXT_BYTES_MAX
from protocol.message import Edit
from tests.cli.conftest import Official
from tests.federation import Federation

HOSTILE = "\x1b]52;c;cm0=\x07 \x9b6n\r\u202egnp.exe\nanna@minzdrav: I resign"


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    return federation.chat(anna.device, "Бюджет", boris.device).hex()


class TestOffline:
    def test_a_message_is_queued_and_says_so(self, anna: Official, chat: str) -> None:
        (sent,) = anna.json("send", "Бюджет", "привет")
        assert (sent["state"], sent["chat"]) == ("queued", chat)
        assert "no node of minzdrav can be reached" in str(sent["problem"])
        (read,) = [one for one in anna.json("read", "Бюджет") if one["kind"] == "text"]
        assert (read["text"], read["id"], read["state"]) == ("привет", sent["id"], "queued")
        (status, *_) = anna.json("status")
        assert status["state"] == "queued"

    @pytest.mark.usefixtures("chat")
    def test_who_waits_is_told_that_it_did_not_come_in_time(self, anna: Official) -> None:
        assert "queued" in anna("send", "Бюджет", "x", "--wait", "all", code=3)
        assert "not in time" in anna.said

    def test_what_is_written_is_told_whoever_answers(
        self, anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a script would write it again: it goes when the node is itself."""

        async def dial(*_: object) -> None:
            raise Untrusted("another node than the card names")

        monkeypatch.setattr("client.link.dial", dial)
        (sent,) = anna.json("send", chat[:8], "once", code=4)
        assert (sent["type"], sent["state"]) == ("sent", "queued")
        assert sent["problem"] == "another node than the card names"

    def test_what_is_here_is_read_whoever_answers(
        self, anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def dial(*_: object) -> None:
            raise Untrusted("certificate is not yet valid")

        monkeypatch.setattr("client.link.dial", dial)
        assert "Бюджет" in anna("read", chat[:8])
        assert anna.said == "what is here; certificate is not yet valid\n"

    @pytest.mark.parametrize(
        ("end", "code", "said"),
        [
            (StorageError("the disk is full"), 0, "queued: the disk is full"),
            (KeyboardInterrupt(), 130, "interrupted: the change is written"),
        ],
    )
    def test_so_is_a_change(
        self,
        anna: Official,
        chat: str,
        monkeypatch: pytest.MonkeyPatch,
        end: BaseException,
        code: int,
        said: str,
    ) -> None:
        async def torn(
            device: Device,
            names: Sequence[str],
            work: Callable[[Sequence[str]], object],
            done: list[object],
        ) -> None:
            with device.transaction():
                done.append(work(names))
            raise end

        monkeypatch.setattr("cli.opening._change", torn)
        anna("chat", "role", chat[:8], "boris@mincifry", "admin", code=code)
        assert said in anna.said

    async def test_a_change_that_is_interrupted_while_the_disk_writes_it_is_done(
        self, anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is slow is what makes people interrupt."""
        ours, _theirs = memory_stream_pair()
        monkeypatch.setattr("client.link.linked", lambda device, **_: over(device, ours))
        monkeypatch.setattr("cli.opening.SETTLE_SECONDS", 0)
        monkeypatch.setattr(journal, "SMALL_SECONDS_MAX", 0)
        commit, done = Transaction.commit, list[str]()

        async def meet(*_: object) -> None:
            """It has greeted."""

        def work(_: Sequence[UserId]) -> str:
            anna.device.note("changed", 1)
            return chat

        def interrupted(transaction: Transaction) -> None:
            commit(transaction)
            if anna.device.noted("changed"):
                trio.from_thread.run_sync(command.cancel)

        monkeypatch.setattr(Link, "meet", meet)
        monkeypatch.setattr(Transaction, "commit", interrupted)
        with trio.CancelScope() as command:
            await _change(anna.device, [], work, done)
        assert command.cancelled_caught
        assert done == [chat]

    @pytest.mark.parametrize(
        ("where", "written"),
        [
            ("client.link.dial", False),
            ("cli.writing._bring", True),
            ("client.delivery.progress_of", True),
        ],
    )
    def test_who_interrupts_is_told_whether_the_message_is_written(
        self,
        anna: Official,
        chat: str,
        monkeypatch: pytest.MonkeyPatch,
        where: str,
        *,
        written: bool,
    ) -> None:
        """At whatever moment: else its author would write it again, or not."""

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        newest = "SELECT lower(hex(id)) FROM mailbox ORDER BY no DESC LIMIT 1"
        before = anna.device.connection.execute(newest).get
        monkeypatch.setattr(where, interrupted)
        anna("send", chat[:8], "once", code=130)
        after = anna.device.connection.execute(newest).get
        assert (after != before) is written
        told = f"{after[:8]} is written" if written else "the message is not written"
        assert f"interrupted: {told}" in anna.said

    def test_what_another_command_has_written_is_not_the_message(
        self, anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meet = writing._meet_node

        def interrupted(*_: object) -> None:
            monkeypatch.setattr("cli.writing._meet_node", meet)
            anna("send", chat[:8], "beside")
            raise KeyboardInterrupt

        monkeypatch.setattr("cli.writing._meet_node", interrupted)
        anna("send", chat[:8], "once", code=130)
        assert "interrupted: the message is not written" in anna.said

    def test_a_chat_that_is_begun_for_a_message_is_not_the_message(
        self, anna: Official, boris: Official, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Regression: 'it is written', and then 'nothing is written'."""

        async def torn(
            device: Device,
            names: Sequence[str],
            work: Callable[[Sequence[UserId]], object],
            done: list[object],
        ) -> None:
            users = [known.user for name in names if (known := acquaintance(device, name))]
            with device.transaction():
                done.append(work(users))
            raise KeyboardInterrupt

        monkeypatch.setattr("cli.opening._change", torn)
        anna("send", boris.device.profile.name, "hello", code=130)
        assert "interrupted: the message is not written" in anna.said
        assert "it is written" not in anna.said

    def test_a_chat_begins_with_who_is_known(self, anna: Official, boris: Official) -> None:
        (made,) = anna.json("chat", "new", "Новый", boris.device.profile.name)
        assert made["state"] == "queued"
        assert made["members"] == ["anna@minzdrav", "boris@mincifry"]
        anna("chat", "new", "Чужой", "zoya@mincifry", code=3)
        assert "zoya@mincifry is not known here yet" in anna.said

    def test_a_direct_chat_begins_with_the_first_message(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        anna("send", "Boris@Mincifry", "раз")
        anna("send", "boris@mincifry", "два")
        (listed,) = anna.json("chat", "list")
        assert (listed["kind"], listed["title"]) == ("direct", "boris@mincifry")
        federation.carry(anna.device, boris.device)
        texts = [one["text"] for one in boris.json("read", "anna@minzdrav")]
        assert texts == ["раз", "два"]

    def test_a_second_direct_chat_is_not_begun(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        """Else chance, the smaller id, would say which one 'ivor send USER' means."""
        boris_name = boris.device.profile.name
        (made,) = anna.json("chat", "new", "Дела", boris_name, "--kind", "direct")
        anna("chat", "new", "Ещё", boris_name, "--kind", "direct", code=1)
        assert f"already, {str(made['chat'])[:8]}: 'ivor send boris@mincifry'" in anna.said
        federation.carry(anna.device, boris.device)
        boris("chat", "new", "", anna.device.profile.name, "--kind", "direct", code=1)
        anna("chat", "leave", "Дела", "--yes")
        anna("chat", "new", "Ещё", boris_name, "--kind", "direct")

    def test_two_who_begin_one_each_read_both(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        """Without a network nobody knows of the other's: what was said in it is not overlooked."""
        names = [one.device.profile.name for one in (boris, anna)]
        sent = [
            one.json("send", name, "hi")[0] for one, name in zip((anna, boris), names, strict=True)
        ]
        federation.carry(anna.device, boris.device)
        federation.carry(boris.device, anna.device)
        meant, other = sorted(str(one["chat"]) for one in sent)
        for one, name in zip((anna, boris), names, strict=True):
            assert {line["chat"] for line in one.json("read", name)} == {meant}
            assert f"'ivor read {other[:8]}' too" in one.said
            one("read", other[:8])
            assert f"'ivor read {meant[:8]}' too" in one.said

    def test_two_commands_begin_one_direct_chat(
        self, anna: Official, boris: Official, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second looks while the first has not written yet."""
        name, looked = boris.device.profile.name, chats.find_direct

        def meanwhile(*_: object) -> None:
            monkeypatch.setattr("client.chats.find_direct", looked)
            anna("send", name, "раз")

        monkeypatch.setattr("client.chats.find_direct", meanwhile)
        anna("send", name, "два")
        assert [one["kind"] for one in anna.json("chat", "list")] == ["direct"]

    @pytest.mark.usefixtures("chat")
    def test_sync_says_what_is_missing(self, anna: Official) -> None:
        anna("sync", code=3)
        assert "no node of minzdrav can be reached" in anna.said

    def test_members_change(self, anna: Official, boris: Official, chat: str) -> None:
        anna("chat", "role", "Бюджет", "boris@mincifry", "admin")
        records = anna.json("chat", "show", chat[:8])
        roles = {one["name"]: one["role"] for one in records if one["type"] == "member"}
        assert roles == {"anna@minzdrav": "owner", "boris@mincifry": "admin"}
        anna("chat", "leave", "Бюджет", "--yes", code=8)
        assert "only owner" in anna.said
        anna("chat", "remove", "Бюджет", "boris@mincifry")
        anna("chat", "remove", "Бюджет", "boris@mincifry", code=1)
        anna("chat", "add", "Бюджет", "boris@mincifry", "--role", "reader")
        boris("chat", "list")

    def test_an_admin_is_told_that_an_owner_can(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        """Regression: it said that an admin can, to an admin."""
        dina = federation.official("dina@mincifry")
        anna("chat", "add", "Бюджет", "dina@mincifry")
        boris("chat", "role", chat[:8], "boris@mincifry", "admin", code=8)
        assert "does not allow that: an admin or an owner can" in boris.said
        anna("chat", "role", "Бюджет", "boris@mincifry", "admin")
        federation.carry(anna.device, boris.device)
        boris("chat", "role", chat[:8], dina.profile.name, "admin", code=8)
        assert "does not allow that: an owner can" in boris.said

    def test_who_is_out_reads_that_they_are(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        federation.carry(anna.device, boris.device)
        boris("read", chat[:8])
        assert "is not in the chat" not in boris.said
        anna("chat", "remove", chat[:8], "boris@mincifry")
        federation.carry(anna.device, boris.device)
        boris("read", chat[:8])
        assert "is not in the chat" in boris.said

    @pytest.mark.usefixtures("chat")
    def test_reactions_and_edits_name_a_message(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        (sent,) = anna.json("send", "Бюджет", "опечтака")
        short = str(sent["id"])[:8]
        anna("edit", "Бюджет", short, "опечатка")
        anna("react", "Бюджет", short, "👍")
        anna("send", "Бюджет", "да", "--reply-to", short)
        federation.carry(anna.device, boris.device)
        boris("edit", "Бюджет", short, "чужое", code=8)
        kinds = [(one["kind"], one["text"]) for one in boris.json("read", "Бюджет")[1:]]
        assert kinds == [
            ("text", "опечтака"),
            ("edit", "опечатка"),
            ("reaction", "👍"),
            ("text", "да"),
        ]
        self.check_shown_together(boris, short)

    def check_shown_together(self, boris: Official, short: str) -> None:
        """People see an edit and reactions with their message; a forged edit on its own."""
        boris("react", "Бюджет", short, "👎")
        boris("react", "Бюджет", short, "👍")
        chat = require(boris.device, find(boris.device, "Бюджет").id)
        place = find_letter(boris.device, chat.id, short)
        with boris.device.transaction():
            compose.send(boris.device, chat.id, Edit(place, "чужое"), 1, None)
        rows = [one.split("\t") for one in boris("read", "Бюджет").splitlines()]
        assert [row[4:] for row in rows[1:]] == [
            ["(edited) опечатка", "👍 anna@minzdrav, boris@mincifry"],
            [f"(reply to {short}) да", "-"],
            [f"(new text of {short}) чужое", "-"],
        ]
        boris("react", "Бюджет", short, "")
        shown = boris("read", "Бюджет")
        assert "👍 anna@minzdrav\n" in shown
        assert "taken back" not in shown
        for hidden in ("1", "2"):
            last = boris("read", "Бюджет", "--limit", hidden)
            assert f"(reaction to {short} taken back)" in last


class TestOwners:
    def test_two_owners_agree(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        """A change of owners is proposed, shown in words, signed, and published by its author."""
        vera = federation.official("vera@mincifry")
        chat = federation.chat(anna.device, "Совет", boris.device, vera)
        anna("chat", "role", "Совет", "boris@mincifry", "owner")
        (made,) = anna.json("chat", "remove", "Совет", "boris@mincifry")
        assert (made["change"], made["agreed"], made["needed"]) == ("proposed", 1, 2)
        short = str(made["proposal"])[:8]
        assert f"ivor chat approve {chat.hex()[:8]} {short}" in anna.said
        federation.carry(anna.device, boris.device)
        assert "asks the owners to decide" in boris("read", "Совет")
        (listed,) = boris.json("chat", "proposals", "Совет")
        assert listed["changes"] == ["remove boris@mincifry (now owner)"]
        assert (listed["by"], listed["state"]) == ("anna@minzdrav", "open")
        boris("chat", "approve", "Совет", short, code=1, stdin=b"")
        (signed,) = boris.json("chat", "approve", "Совет", short, "--yes")
        assert "remove boris@mincifry (now owner)" in boris.said
        assert signed["agreed"] == 2
        boris("chat", "approve", "Совет", "ffff", "--yes", code=1)
        federation.carry(boris.device, anna.device)
        with anna.device.transaction():
            (done,) = settle(anna.device, 1)
        assert done.void is None
        (listed,) = anna.json("chat", "proposals", "Совет")
        assert (listed["state"], listed["by"]) == ("decided", "anna@minzdrav")
        assert listed["changes"] == ["remove boris@mincifry (then owner)"]
        assert (listed["signed"], listed["agreed"]) == (["anna@minzdrav", "boris@mincifry"], 2)


class TestBadInput:
    """Issue 2, "What bad input gets": one line that says what to do, and the right code."""

    def one_line(self, official: Official) -> str:
        assert official.said.count("\n") == 1
        return official.said

    def test_an_unknown_chat(self, anna: Official) -> None:
        anna("send", "nowhere", "x", code=1)
        assert "'ivor chat list'" in self.one_line(anna)

    def test_an_ambiguous_chat_lists_the_candidates(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        other = federation.chat(anna.device, "Бюджет", boris.device).hex()
        anna("send", "Бюджет", "x", code=1)
        line = self.one_line(anna)
        assert chat[:8] in line
        assert other[:8] in line

    @pytest.mark.usefixtures("chat")
    def test_a_text_that_is_no_utf8(self, anna: Official) -> None:
        anna("send", "Бюджет", "-", code=1, stdin=b"ab\xff")
        assert "not UTF-8, at byte 2" in self.one_line(anna)

    @pytest.mark.usefixtures("chat")
    def test_a_text_over_the_limit(self, anna: Official) -> None:
        anna("send", "Бюджет", "-", code=5, stdin=b"a" * (TEXT_BYTES_MAX + 1))
        assert str(TEXT_BYTES_MAX) in self.one_line(anna)
        anna("send", "Бюджет", "-", stdin=b"a" * TEXT_BYTES_MAX + b"\n")

    @pytest.mark.usefixtures("chat")
    def test_an_empty_text(self, anna: Official) -> None:
        anna("send", "Бюджет", "-", code=1, stdin=b"\n")
        assert "nothing was sent" in self.one_line(anna)

    def test_a_wrong_passphrase(self, anna: Official, secret: Path) -> None:
        secret.write_bytes(b"wrong")
        anna("whoami", code=1)
        assert "does not open" in self.one_line(anna)

    def test_no_device(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("IVOR_HOME", str(tmp_path / "empty"))
        assert main(["whoami"]) == 1
        assert "ivor join" in capsys.readouterr().err
        assert not (tmp_path / "empty").exists()

    def test_a_folder_of_another_version(self, anna: Official) -> None:
        anna.device.connection.pragma("user_version", 99)
        anna("chat", "list", code=3)
        assert "version 99" in self.one_line(anna)

    def test_an_invitation_that_is_none(self, anna: Official, tmp_path: Path) -> None:
        for given in ("ivor1.damaged", str(tmp_path / "absent"), "\0"):
            anna("join", given, code=1)
            self.one_line(anna)
        anna("device", "link", "ivor1.x", code=1)

    def test_a_text_that_begins_with_a_hyphen_is_no_option(self, anna: Official, chat: str) -> None:
        """Case 71."""
        anna("send", chat[:8], "--", "--json /rm -rf")
        anna("send", chat[:8], "-x", code=2)
        (*_, last) = anna.json("read", "Бюджет")
        assert last["text"] == "--json /rm -rf"

    def test_who_is_in_a_chat_is_not_said_to_be_added(self, anna: Official, chat: str) -> None:
        anna("chat", "add", chat[:8], "boris@mincifry", code=1)
        assert "in this chat already, as member: boris@mincifry" in anna.said
        assert anna.json("chat", "add", chat[:8], "boris@mincifry", "--role", "admin")

    def test_who_has_a_role_is_not_said_to_be_given_it(self, anna: Official, chat: str) -> None:
        anna("chat", "role", chat[:8], "boris@mincifry", "member", code=1)
        assert "boris@mincifry is member in this chat already" in self.one_line(anna)

    def test_what_has_no_text_gets_no_new_one(self, anna: Official, chat: str) -> None:
        """Its edit would be seen by nobody, or as a message of its own."""
        (sent,) = anna.json("send", chat[:8], "не сюда")
        short = str(sent["id"])[:8]
        (reacted,) = anna.json("react", chat[:8], short, "👍")
        anna("edit", chat[:8], str(reacted["id"])[:8], "👎", code=1)
        assert "is no text" in self.one_line(anna)
        anna("redact", chat[:8], short)
        anna("edit", chat[:8], short, "туда", code=1)
        assert "that message is redacted" in self.one_line(anna)
        assert "edit" not in {one["kind"] for one in anna.json("read", chat[:8])}

    def test_a_key_of_another_chat_is_no_key(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        """Else what was sent there would be said to be here."""
        other = federation.chat(anna.device, "Кадры", boris.device).hex()
        anna("send", chat[:8], "x", "--idempotency-key", "k")
        anna("send", other[:8], "x", "--idempotency-key", "k", code=1)
        assert "was used in another chat" in self.one_line(anna)

    def test_a_key_of_either_direct_chat_is_known(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        """Regression: where each had begun one, who tried again was told to take another key."""
        pairs = [(anna, boris.device.profile.name), (boris, anna.device.profile.name)]
        words = ("hi", "--idempotency-key", "k")
        sent = [one.json("send", name, *words)[0]["id"] for one, name in pairs]
        federation.carry(anna.device, boris.device)
        federation.carry(boris.device, anna.device)
        assert [one.json("send", name, *words)[0]["id"] for one, name in pairs] == sent

    def test_a_key_of_another_message_is_no_key(self, anna: Official, chat: str) -> None:
        """Else a script whose variable is empty would lose all that it sends but the first."""
        (sent,) = anna.json("send", chat[:8], "x", "--idempotency-key", "k")
        (again,) = anna.json("send", chat[:8], "x", "--idempotency-key", "k")
        assert again["id"] == sent["id"]
        anna("send", chat[:8], "y", "--idempotency-key", "k", code=1)
        assert f"was used for another message, {str(sent['id'])[:8]}" in self.one_line(anna)
        anna("send", chat[:8], "x", "--idempotency-key", "", code=1)
        assert "an empty idempotency key" in self.one_line(anna)
        anna("redact", chat[:8], str(sent["id"])[:8])
        (again,) = anna.json("send", chat[:8], "x", "--idempotency-key", "k")
        assert again["id"] == sent["id"]

    def test_a_title_may_hold_an_at(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        federation.chat(anna.device, "Встреча @ 15:00", boris.device)
        anna("send", "Встреча @ 15:00", "буду")
        assert "буду" in anna("read", "Встреча @ 15:00")
        anna("send", "Встреча @ 16:00", "буду", code=1)
        assert "is not allowed" in self.one_line(anna)

    @pytest.mark.usefixtures("chat")
    def test_a_pipe_is_not_waited_for(self, anna: Official, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            anna("send", "Бюджет", "--file", str(path), code=1)
            assert "is no file that can be sent" in anna.said
            anna("sign", "Бюджет", str(path), code=1)
            assert "is no file that can be signed" in anna.said


class TestInert:
    """I19, cases 68 to 70."""

    def hostile(self, federation: Federation, anna: Official, boris: Official) -> None:
        chat = federation.chat(anna.device, HOSTILE, boris.device)
        federation.say(anna.device, chat, HOSTILE)
        federation.carry(anna.device, boris.device)

    def test_nothing_active_reaches_a_terminal(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        self.hostile(federation, anna, boris)
        outputs = []
        for command in (["chat", "list"], ["status"], ["read", HOSTILE], ["chat", "show", HOSTILE]):
            for flags in ([], ["--json"]):
                outputs += [boris(*command, *flags), boris.said]
        boris("send", HOSTILE + "?", "x", code=1)
        outputs.append(boris.said)
        for output in outputs:
            found = {unicodedata.category(c) for c in output if c not in "\n\t"}
            assert not found & {"Cc", "Cf", "Cs"}

    def test_a_message_is_one_line_in_a_pipe(
        self, federation: Federation, anna: Official, boris: Official
    ) -> None:
        self.hostile(federation, anna, boris)
        lines = boris("read", HOSTILE).splitlines()
        assert len(lines) == 2
        assert all(line.split("\t")[2] == "anna@minzdrav" for line in lines)

    def test_on_a_terminal_it_stays_behind_its_margin(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.hostile(federation, anna, boris)
        (chat,) = boris.device.replica.store.chats()
        federation.say(anna.device, chat, "x" * 500 + " anna@minzdrav: I resign")
        federation.carry(anna.device, boris.device)
        judge = require(boris.device, chat)
        reader = Reader(boris.device, judge, 0)
        lines = [reader.line(one) for one in letters(boris.device, judge, 0, 10)]
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        show(Output(as_json=False), lines)
        shown = capsys.readouterr().out.splitlines()
        headings = [line for line in shown if not line.startswith(MARGIN)]
        assert len(headings) == len(lines)
        assert not any("resign" in line for line in headings)
        assert all(len(line) <= 80 for line in shown if line.startswith(MARGIN))


def test_times_are_read_as_utc() -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for text in ("2026-05-01T10:00", "2026-05-01T10:00Z", "2026-05-01T12:00+02:00", "2h"):
        assert read_since(text, now) == int(now.timestamp() - 7200) * 1000
    for text in ("yesterday", "99999999w", "0000-00-00"):
        with pytest.raises(UserError, match="is no time"):
            read_since(text, now)
