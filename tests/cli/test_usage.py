"""A command line that is wrong: one line that says what, and where the right form stands."""

import json

import pytest

from cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["read"], "Missing argument 'CHAT'; see 'ivor read --help'"),
        (["log", "verify", "--fast"], "No such option: --fast; see 'ivor log verify --help'"),
        (["send", "a", "b", "c"], "extra argument(s) (c); see 'ivor send --help'"),
        (["sned"], "No such command 'sned'. Did you mean 'send'?"),
        (["qqq"], "No such command 'qqq'; see 'ivor --help'"),
    ],
)
def test_says_where_the_right_form_stands(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_says_it_to_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    why = "Missing argument 'CHAT'; see 'ivor read --help'"
    assert json.loads(shown.err) == {"v": 1, "type": "failure", "exit_code": 2, "why": why}
