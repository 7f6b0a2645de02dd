"""`ivor search`, without a network."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.search import matcher
from node.errors import UserError
from protocol.file import FILE_BYTES_MAX
from tests.cli.conftest import Official
from tests.federation import Federation


@pytest.fixture
def chats(federation: Federation, anna: Official, boris: Official) -> tuple[str, str]:
    budget = federation.chat(anna.device, "Бюджет", boris.device).hex()
    other = federation.chat(anna.device, "Отпуска", boris.device).hex()
    return budget, other


@pytest.mark.usefixtures("chats")
class TestSearching:
    def test_words_are_found_in_every_chat_by_their_beginnings(self, anna: Official) -> None:
        anna("send", "Бюджет", "Счёта за март согласованы")
        anna("send", "Отпуска", "СЧЕТ открыт до пятницы")
        anna("send", "Бюджет", "Расчёт готов")
        found = [one["text"] for one in anna.json("search", "счёт")]
        assert found == ["Счёта за март согласованы", "СЧЕТ открыт до пятницы"]
        assert [one["text"] for one in anna.json("search", "март", "счет")] == found[:1]
        assert [one["text"] for one in anna.json("search", "счет", "--chat", "Отпуска")] == found[
            1:
        ]

    def test_what_the_other_wrote_edits_and_names_of_files(
        self, federation: Federation, anna: Official, boris: Official, tmp_path: Path
    ) -> None:
        (sent,) = boris.json("send", "Бюджет", "draft figures")
        boris("edit", "Бюджет", str(sent["id"])[:8], "final figures")
        path = tmp_path / "figures of May.csv"
        path.write_text("a,b")
        boris("send", "Бюджет", "--file", str(path))
        path.write_bytes(bytes(FILE_BYTES_MAX + 1))
        boris("send", "Бюджет", "--file", str(path))
        federation.carry(boris.device, anna.device)
        kinds = [one["kind"] for one in anna.json("search", "figures")]
        assert kinds == ["text", "edit", "file", "file"]

    def test_the_newest_are_shown_in_the_order_in_which_they_came(self, anna: Official) -> None:
        for number in range(5):
            anna("send", "Бюджет", f"отчёт {number}")
        found = [one["text"] for one in anna.json("search", "отчет", "--limit", "2")]
        assert found == ["отчёт 3", "отчёт 4"]

    def test_what_is_redacted_is_found_no_more(self, anna: Official) -> None:
        (sent,) = anna.json("send", "Бюджет", "пароль 12345")
        assert anna.json("search", "пароль")
        anna("redact", "Бюджет", str(sent["id"])[:8])
        assert not anna.json("search", "пароль")
        assert "nothing found" in anna.said

    def test_a_column_names_the_chat(self, anna: Official, chats: tuple[str, str]) -> None:
        anna("send", "Отпуска", "до августа")
        (line,) = anna("search", "август").splitlines()
        assert line.split("\t")[0] == chats[1][:8]
        assert "до августа" in line

    def test_no_word_is_the_users_error(self, anna: Official) -> None:
        anna("search", "…", code=1)
        assert "no word to look for" in anna.said
        anna("search", "x", "--chat", "нет такого", code=1)


@given(st.text(), st.text(), st.text())
def test_a_text_is_found_by_its_own_words(before: str, text: str, after: str) -> None:
    """Whatever stands around them."""
    try:
        found = matcher(text)
    except UserError:
        return
    assert found(f"{before} {text} {after}")


@given(st.text("abcxyzабвёйэюя ", min_size=1).filter(str.strip))
def test_case_does_not_matter(text: str) -> None:
    assert matcher(text)(text.upper())
    assert matcher(text.upper())(text)
