"""A command line that is wrong: one line that says what, and where the right form stands."""

import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.conftest import Official
from tests.federation import Federation

ROOT = Path(__file__).parents[2]


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


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ivor {declared}\n"


def test_a_group_without_a_command_says_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is laid out, and not in one line with what cannot be shown."""
    assert main(["node"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Usage: ivor node [OPTIONS] COMMAND [ARGS]...\n")
    assert "\\n" not in shown.err


def test_says_it_to_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    why = "Missing argument 'CHAT'; see 'ivor read --help'"
    assert json.loads(shown.err) == {"v": 1, "type": "failure", "exit_code": 2, "why": why}


@pytest.mark.parametrize(
    "arguments",
    [["read", "x", "--limit"], ["search", "x", "--limit"], ["chat", "share", "x", "--last"]],
)
def test_a_number_without_end(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "9" * 30]) == 2
    assert "less than or equal to 1000000000" in capsys.readouterr().err


def test_bytes_that_are_no_text(anna: Official) -> None:
    """A shell hands them over as they are; what is meant cannot be known."""
    anna("redact", "x", "abcd", "--reason", "\udcff", code=1)
    assert anna.said == "ivor: argument 5 is not UTF-8: convert it first\n"


def test_a_home_that_is_nobodys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whoami", "--home", "~nobody-of-that-name/ivor"]) == 1
    assert "whose home ~nobody-of-that-name/ivor means is not known" in capsys.readouterr().err


def test_no_home_at_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service without one, of a user whom the system does not list."""
    for name in ("IVOR_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert main(["whoami"]) == 1
    assert "give the device's folder with --home" in capsys.readouterr().err


def ran(anna: Official, secret: Path, command: str, **more: str) -> tuple[int, str, str]:
    """What a process of its own ends with, and prints."""
    found = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m cli.main {command}', sys.executable],
        env=os.environ
        | {"IVOR_HOME": str(anna.device.folder), "IVOR_PASSPHRASE_FILE": str(secret)}
        | more,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout, found.stderr


def test_an_interruption_while_it_loads() -> None:
    """Of what Python was loading just then nobody is told."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from cli.entry import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_process_without_stdout(anna: Official, secret: Path) -> None:
    """Its number must not become that of a database."""
    assert ran(anna, secret, "whoami >&-") == (0, "", "")


def test_letters_that_a_terminal_lacks(
    federation: Federation, anna: Official, boris: Official, secret: Path
) -> None:
    federation.chat(anna.device, "Бюджет", boris.device)
    code, out, _ = ran(anna, secret, "chat list", PYTHONIOENCODING="ascii")
    assert (code, out.count("\\u")) == (0, len("Бюджет"))


def test_a_disk_that_is_full(anna: Official, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/media/stick")

    monkeypatch.setattr("client.backup.save", save)
    anna("backup", "kept", code=3)
    said = "ivor: /media/stick: No space left on device; make room on it, and do it again\n"
    assert anna.said == said
