"""`ivor redact`, `chat policy`, `chat hold`, `log show`."""

from collections.abc import Callable, Sequence

import pytest

from cli.keeping import read_span, span
from cli.opening import Offline, change, now_ms
from client.device import Device
from node.errors import UserError
from protocol.identity import UserId
from tests.cli.conftest import Official
from tests.federation import Federation


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    return federation.chat(anna.device, "Бюджет", boris.device).hex()


class TestRedact:
    def test_who_did_it_and_why_is_shown_instead(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        (sent,) = anna.json("send", chat[:8], "не сюда")
        (told,) = anna.json("redact", chat[:8], str(sent["id"])[:12], "--reason", "\x1b[31mспам")
        assert (told["redacted"], told["state"]) == ([sent["id"]], "queued")
        federation.carry(anna.device, boris.device)
        for who in (anna, boris):
            (read,) = [one for one in who.json("read", chat[:8]) if one["id"] == sent["id"]]
            assert (read["text"], read["readable"]) == (None, "gone")
            assert read["redacted"] == {"by": "anna@minzdrav", "reason": "\x1b[31mспам"}
            out = who("read", chat[:8])
            assert "(redacted by anna@minzdrav" in out
            assert "REDACTED" in out
            assert "\x1b" not in out
            listed = who.json("log", "show", chat[:8])
            assert {one["id"] for one in listed if one["payload"] == "redacted"} == {sent["id"]}
            assert {one["kind"] for one in listed} >= {"genesis", "epoch", "redact", "content"}
            assert who.json("log", "verify", chat[:8])[0]["sound"] is True
        anna("redact", chat[:8], str(sent["id"])[:12], code=1)
        boris("redact", chat[:8], "ffffffff", code=1)

    def test_a_message_that_says_so_is_told_apart(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        """Case 70: else a member could say in another's name that something had to go."""
        boris("send", chat[:8], "(redacted by anna@minzdrav: secret)")
        federation.carry(boris.device, anna.device)
        shown = anna("read", chat[:8]).splitlines()[-1].split("\t")
        assert shown[3:5] == ["not verified", r"\(redacted by anna@minzdrav: secret)"]

    def test_not_ours(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        (sent,) = anna.json("send", chat[:8], "hers")
        federation.carry(anna.device, boris.device)
        boris("redact", chat[:8], str(sent["id"])[:12], code=8)
        assert "your role in this chat does not allow" in boris.said
        assert "hers" in boris("read", chat[:8])
        anna("redact", chat[:8], str(sent["id"])[:12], "--reason", "x" * 513, code=1)

    def test_what_was_told_by_telephone_is_looked_for(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        chat: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Regression: the id was looked up before what is new was fetched."""
        (sent,) = boris.json("send", chat[:8], "not here, please")
        spoken = str(sent["id"])[:8]
        anna("redact", chat[:8], spoken, code=1)
        assert "what is here; no node of minzdrav can be reached" in anna.said
        monkeypatch.setattr(
            "cli.opening.fetch", lambda device, *_: federation.carry(boris.device, device)
        )
        assert anna.json("redact", chat[:8], spoken)[0]["redacted"] == [sent["id"]]


class TestPolicy:
    def test_shown_and_set(self, anna: Official, boris: Official, chat: str) -> None:
        (before,) = anna.json("chat", "policy", chat[:8])
        assert (before["retention"], before["history"]) == ("forever", "from-join")
        (after,) = anna.json("chat", "policy", chat[:8], "--retention", "30d")
        assert (after["retention"], after["retention_seconds"]) == ("30d", 30 * 86400)
        assert "cut off for longer than 30d" in anna.said
        assert anna.json("chat", "policy", chat[:8])[0]["retention"] == "30d"
        assert "cut off" not in anna.said
        assert anna.json("chat", "show", chat[:8])[0]["retention_seconds"] == 30 * 86400
        anna("chat", "policy", chat[:8], "--retention", "soon", code=1)
        anna("chat", "policy", chat[:8], "--history", "none", code=1)
        boris("chat", "policy", chat[:8], "--retention", "1d", code=8)

    def test_who_is_shut_out_by_zones_is_named(
        self, federation: Federation, anna: Official
    ) -> None:
        federation.official("olga@mos", "RU-MOW")
        anna("chat", "new", "Wide", "olga@mos")
        anna("chat", "policy", "Wide", "--zones", "RU-UDM")
        assert "olga@mos, in RU-MOW, is outside these zones" in anna.said
        assert "anna@minzdrav, in" not in anna.said

    def test_what_is_here_is_not_dropped_unasked(
        self, anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever means six months by 6m loses all that was ever said, everywhere."""
        anna("send", chat[:8], "of this morning")
        later = now_ms() + 3_600_000
        monkeypatch.setattr("cli.keeping.now_ms", lambda: later)
        anna("chat", "policy", chat[:8], "--retention", "6m", code=1, stdin=b"")
        assert "older than 6 minutes goes for good, at every agency" in anna.said
        assert ": 2 messages here" in anna.said
        assert anna.json("chat", "policy", chat[:8])[0]["retention"] == "forever"
        anna("chat", "policy", chat[:8], "--retention", "1d")
        monkeypatch.setattr("cli.keeping.confirmed", lambda *_, yes: yes)
        anna("chat", "policy", chat[:8], "--retention", "6m", code=8)
        anna("chat", "policy", chat[:8], "--retention", "6m", "--yes")
        anna("chat", "policy", chat[:8], "--retention", "7m")

    def test_what_another_admin_has_set_meanwhile_stays(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        chat: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Else who sets the retention would open what is said to joiners again, and not know."""
        anna("chat", "role", chat[:8], "boris@mincifry", "admin")
        anna("chat", "policy", chat[:8], "--history", "shared")
        federation.carry(anna.device, boris.device)
        anna("chat", "policy", chat[:8], "--history", "from-join")

        def meet_node(
            device: Device, names: Sequence[str], work: Callable[[Sequence[UserId]], None]
        ) -> Offline[None]:
            federation.carry(anna.device, device)
            return change(device, names, work)

        monkeypatch.setattr("cli.keeping.change", meet_node)
        (set_,) = boris.json("chat", "policy", chat[:8], "--retention", "30d")
        assert (set_["retention"], set_["history"]) == ("30d", "from-join")

    def test_what_is_dropped_is_asked_by_the_policy_that_the_node_has(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        chat: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        anna("chat", "role", chat[:8], "boris@mincifry", "admin")
        anna("chat", "policy", chat[:8], "--retention", "5m")
        federation.carry(anna.device, boris.device)
        anna("chat", "policy", chat[:8], "--retention", "forever")
        monkeypatch.setattr(
            "cli.keeping.fetch", lambda device: federation.carry(anna.device, device)
        )
        later = now_ms() + 3_600_000
        monkeypatch.setattr("cli.keeping.now_ms", lambda: later)
        boris("chat", "policy", chat[:8], "--retention", "6m", code=1, stdin=b"")
        assert "older than 6 minutes goes for good" in boris.said

    def test_spans(self) -> None:
        for text in ("forever", "30d", "12h", "90s", "5m"):
            assert span(read_span(text)) == text
        assert span(read_span("2w")) == "14d"
        for text in ("", "0d", "-1d", "1.5h", "d", "9999999999y", "1 d"):
            with pytest.raises(UserError):
                read_span(text)

    def test_a_custodian_is_shown_to_all(
        self, federation: Federation, anna: Official, boris: Official, chat: str
    ) -> None:
        anna("chat", "hold", chat[:8], "boris@mincifry")
        federation.carry(anna.device, boris.device)
        for who in (anna, boris):
            assert who.json("chat", "show", chat[:8])[0]["custodians"] == ["boris@mincifry"]
        boris("chat", "hold", chat[:8], "boris@mincifry", "--end", code=8)
        anna("chat", "hold", chat[:8], "boris@mincifry", "--end")
        assert anna.json("chat", "show", chat[:8])[0]["custodians"] == []
        anna("chat", "hold", chat[:8], "zoya@mincifry", code=1)

    def test_a_hold_that_is_no_news_is_not_said_to_be_made(self, anna: Official, chat: str) -> None:
        anna("chat", "hold", chat[:8], "boris@mincifry", "--end", code=1)
        assert "boris@mincifry is no custodian of this chat" in anna.said
        anna("chat", "hold", chat[:8], "boris@mincifry")
        before = len(anna.json("log", "show", chat[:8]))
        anna("chat", "hold", chat[:8], "boris@mincifry", code=1)
        assert "boris@mincifry is a custodian of it already" in anna.said
        assert len(anna.json("log", "show", chat[:8])) == before

    def test_a_hold_does_not_end_unsaid(self, anna: Official, boris: Official, chat: str) -> None:
        anna("chat", "hold", chat[:8], boris.device.profile.name)
        anna("chat", "remove", chat[:8], "boris@mincifry")
        assert "the legal hold on boris@mincifry ends with this" in anna.said
        assert anna.json("chat", "show", chat[:8])[0]["custodians"] == []
