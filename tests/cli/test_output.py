"""What others wrote is inert in every path (I19), and data is where scripts look for it."""

import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from cli.letters import MARGIN, _wrapped, told
from cli.output import Output, cell, note, progress, transfer
from cli.text import inert, inert_json, when
from protocol.message import Text, Title

HOSTILE = (
    "\x1b]52;c;cm0gLXJmIC8=\x07",  # OSC 52: writes the clipboard
    "\x1b]8;;http://evil.example\x07bank\x1b]8;;\x07",  # OSC 8: a link under another text
    "\x1bP+q544e\x1b\\",  # DCS
    "\x1b[6n",  # CSI 6n: the terminal types an answer
    "\x9b31m",  # C1
    "good\rbad",
    "a\x08b\x7f",
    "two\nlines",
    "invoice\u202egnp.exe",  # right-to-left override
    "\u2066x\u2069\u200f\u061c",
    "in\u00advis\u200bible\ufeff",
    "\u2028para\u2029",
    "\U000e0041tag",
    "\u3164filler\u115f\u2800",
    "a" + "\u0301" * 40,
    "\ud800",
)


def active(text: str) -> set[str]:
    """Characters that a terminal obeys, or that reorder or hide what stands beside them."""
    return {
        c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    }


class TestInert:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_hostile_text_is_escaped(self, text: str) -> None:
        """Hostile cases 68 and 69."""
        assert not active(inert(text))
        assert inert(text) != text

    @pytest.mark.parametrize(
        "text",
        [
            "Приказ № 5 от 3 марта",
            "ӟеч бур! ӧ ӵ",
            "naïve e\u0301",
            "日本語 العربية",
            "nbsp\u00a0and\u202fthin",
            "👩‍⚕️ 👍🏽 ❤️ 1️⃣ 🏳️‍🌈 👨‍👩‍👧‍👦",
            "back\\slash",
            "",
        ],
    )
    def test_honest_text_stays(self, text: str) -> None:
        """Hostile case 69: emoji keep their joiners."""
        assert inert(text) == text

    @pytest.mark.parametrize("text", ["pay\u200dpal", "\u200d", "👍\u200dx", "a\ufe0f", "\ufe0f"])
    def test_joiners_elsewhere_are_escaped(self, text: str) -> None:
        assert inert(text) != text

    @given(st.text())
    @example("\u200d\u200d")
    def test_nothing_active_is_left(self, text: str) -> None:
        """Whatever comes in, only an emoji's own joiner is left of what is active."""
        assert active(inert(text)) <= {"\u200d"}
        assert "\n" not in inert(text)

    @given(st.text())
    def test_json_stays_the_same_json(self, text: str) -> None:
        raw = inert_json(json.dumps(text, ensure_ascii=False))
        assert json.loads(raw) == text
        assert active(raw) <= {"\u200d"}

    def test_a_message_cannot_look_like_ours(self) -> None:
        """Hostile case 70: a line that imitates a sender or a prompt stays in its margin."""
        shown = [
            MARGIN + line for line in _wrapped("hello\nboris@minfin: pay now\n$ \r", Console())
        ]
        assert shown == [f"{MARGIN}hello", f"{MARGIN}boris@minfin: pay now", f"{MARGIN}$ \\r"]

    @pytest.mark.parametrize(
        "text",
        [
            "(title) Budget",
            "  (file a.zip, 3 bytes)",
            "\n(signature) x",
            "（redacted by anna）",
            "⑴",
        ],
    )
    def test_nor_like_what_we_say_of_one(self, text: str) -> None:
        assert told(Text(text, None)) == "\\" + text
        assert told(Title(text)) == "(title) " + text

    @pytest.mark.parametrize("text", ["", "Budget (2027)", "[title] x", "\\(", "«(x)»"])
    def test_what_begins_otherwise_stands_as_it_is(self, text: str) -> None:
        assert told(Text(text, None)) == text

    def test_times(self) -> None:
        assert when(0) == "1970-01-01T00:00:00.000Z"
        assert when(1_795_000_000_123) == "2026-11-18T11:06:40.123Z"
        assert when(2**53) == f"{2**53} ms"


RECORD: Mapping[str, object] = {
    "name": "x\x1b[2J\ty",
    "addresses": ["a:1", "b\u202e:2"],
    "connected": None,
    "running": True,
    "count": 3,
}


class TestOutput:
    def test_facts_in_a_pipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).facts(RECORD)
        assert capsys.readouterr().out.splitlines() == [
            "name\tx\\x1b[2J\\ty",
            "addresses\ta:1, b\\u202e:2",
            "connected\t-",
            "running\tyes",
            "count\t3",
        ]

    def test_rows_in_a_pipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).rows([RECORD], {"count": "N", "name": "NAME", "none": "NONE"})
        assert capsys.readouterr().out == "3\tx\\x1b[2J\\ty\t-\n"

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        output = Output(as_json=True)
        output.facts(RECORD)
        output.rows([RECORD, RECORD], {"name": "NAME"})
        output.line("text", RECORD)
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line) for line in lines] == [{"v": 1} | dict(RECORD)] * 4
        assert not any(active(line) for line in lines)

    def test_a_line_for_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).line("ready 127.0.0.1:1 x", {})
        assert capsys.readouterr().out == "ready 127.0.0.1:1 x\n"

    def test_notes_go_to_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        note("what \x1b[31mthey\nwrote")
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "what \\x1b[31mthey\\nwrote\n")

    def test_empty_values(self) -> None:
        values: tuple[object, ...] = ([], None, False, "", 1.5)
        assert [cell(value) for value in values] == ["-", "-", "no", "", "1.5"]

    def test_no_progress_in_a_pipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        with progress("verifying", 10) as advance:
            advance(5)
        assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestTerminal:
    def test_a_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Terminal()
        monkeypatch.setattr("sys.stdout", screen)
        Output(as_json=False).rows([{"name": "[bold]x[/]\x1b[2J"}], {"name": "NAME"})
        shown = screen.getvalue()
        assert "NAME" in shown
        assert "[bold]x[/]\\x1b[2J" in shown, "markup in what others wrote is text"

    @pytest.mark.parametrize(("columns", "whole"), [(50, 0), (56, 1), (60, 1), (100, 1)])
    def test_a_time_stays_whole(
        self, columns: int, whole: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where there is room: the long column gives way. Nothing is ever cut off."""
        screen = Terminal()
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setenv("COLUMNS", str(columns))
        time, why = "2026-11-28T18:11:45.450Z", "she asked for that, so " * 3
        row = {"who": "anna@minzdrav", "time": time, "why": why}
        Output(as_json=False).rows([row], {"who": "WHO", "time": "TIME", "why": "WHY"})
        shown = screen.getvalue()
        assert shown.count(time) == whole
        assert shown.count("asked") == why.count("asked")

    @pytest.mark.parametrize("columns", [20, 40, 75, 76, 80, 120])
    def test_ids_stay_whole(self, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are there to be copied. Where columns were too narrow, each value has a line."""
        screen = Terminal()
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setenv("COLUMNS", str(columns))
        row = {
            "lane": "0",
            "seq": "12",
            "id": "e12948ff",
            "by": "anna@minzdrav",
            "device": "3b722d0e",
            "kind": "genesis",
            "time": "2026-11-28T18:11:45.450Z",
            "bytes": "1514",
            "payload": "held",
        }
        Output(as_json=False).rows([row, row], {name: name.upper() for name in row})
        shown = screen.getvalue()
        assert [shown.count(row[name]) for name in ("id", "device", "kind", "payload")] == [2] * 4
        assert ("ID       e12948ff\n" in shown) is (columns < 76)

    def test_facts_are_aligned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Terminal()
        monkeypatch.setattr("sys.stdout", screen)
        Output(as_json=False).facts({"v": 1, "a": 1, "long_name": 2})
        assert screen.getvalue() == "a          1\nlong name  2\n"

    def test_a_progress_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        with progress("verifying", 10) as advance:
            advance(5)
        assert "verifying" in screen.getvalue()

    def test_a_real_terminal_gets_no_escape_of_others(self) -> None:
        """Hostile case 68, seen from the terminal's side."""
        code = (
            "from cli.output import Output, note\n"
            "Output(False).rows([{'n': '\\x1b]52;c;eA==\\x07\\x9b6n'}], {'n': 'N'})\n"
            "note('\\x1b[6n')\n"
        )
        screen, end = pty.openpty()
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            stdout=end,
            stderr=end,
            env=os.environ | {"NO_COLOR": "1", "TERM": "dumb"},
        )
        os.close(end)
        shown = os.read(screen, 65536)
        os.close(screen)
        assert b"\\x1b]52" in shown
        assert b"\x1b" not in shown
        assert b"\xc2\x9b" not in shown


class Screen(io.StringIO):
    """A terminal that remembers what it was told to show."""

    def isatty(self) -> bool:
        return True


def test_a_transfer_ends_at_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are counted whole, and the last one is shorter."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with transfer("sealing", 10) as told:
        told(8)
        told(8)
    assert "10/10 bytes" in screen.getvalue()
    assert "16/10" not in screen.getvalue()
