"""The operator's commands, as an operator types them."""

import json
import os
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import typer

from cli import main as program
from cli import passphrase
from cli.main import main
from node.agency import read_card
from node.errors import IvorError, LimitReached, NetworkError, StorageError
from protocol.errors import Inadmissible, LimitExceeded, PeerError, Unauthentic

READY_SECONDS = 20


class Cli:
    """Runs commands in this process. folder: of one agency, where the tests may write."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that ends with this code; return its stdout, keep its stderr."""
        self._capsys.readouterr()
        found = main(arguments)
        captured = self._capsys.readouterr()
        self.said = captured.err
        assert found == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out

    def node(self, *arguments: str, code: int = 0) -> str:
        return self("node", *arguments, "--dir", str(self.folder), code=code)

    def json(self, *arguments: str, code: int = 0) -> list[dict[str, object]]:
        said = self.node(*arguments, "--json", code=code)
        found = [json.loads(line) for line in said.splitlines()]
        assert all(record["v"] == 1 for record in found)
        return found


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    for name in ("IVOR_PASSPHRASE_FILE", "IVOR_ROOT_PASSPHRASE_FILE"):
        monkeypatch.setenv(name, str(secret))
    yield Cli(capsys, tmp_path / "minzdrav")
    structlog.reset_defaults()  # a command logs to the stderr of its test


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agency's folder to copy: making one takes two key derivations."""
    folder = tmp_path_factory.mktemp("template") / "minzdrav"
    secret = tmp_path_factory.mktemp("secret") / "passphrase"
    secret.write_text("correct horse\n")
    assert main([*creation("minzdrav", folder), *secrets(secret)]) == 0
    return folder


@pytest.fixture
def made(cli: Cli, template: Path) -> Cli:
    """A command line with an agency that was made by it."""
    shutil.copytree(template, cli.folder)
    return cli


def creation(name: str, folder: Path) -> list[str]:
    return [
        *("agency", "create", name, "--zone", "RU-UDM", "--dir", str(folder)),
        *("--listen", "127.0.0.1:0", "--address", "127.0.0.1:7340", "--allow-local"),
    ]


def secrets(file: Path) -> list[str]:
    return ["--passphrase-file", str(file), "--root-passphrase-file", str(file)]


def create(cli: Cli, name: str, folder: Path) -> str:
    return cli(*creation(name, folder))


class TestAnotherPassphrase:
    @pytest.mark.parametrize(("name", "key"), [("service.key", "node"), ("root.key", "root")])
    def test_the_same_keys_open_with_another(
        self, made: Cli, tmp_path: Path, name: str, key: str
    ) -> None:
        new = tmp_path / "new"
        new.write_text("another passphrase")
        new.chmod(0o600)
        file = made.folder / name
        root = ("--root-key", str(file)) if key == "root" else ()
        change = ("agency", "passphrase", *root, "--dir", str(made.folder))
        made(*change, "--new-passphrase-file", str(new))
        assert ("at its next start" in made.said) == (key == "node")
        made(*change, "--new-passphrase-file", str(new), code=1)
        assert f"{file}: wrong passphrase" in made.said
        opens = {"node": "--passphrase-file", "root": "--root-passphrase-file"}[key]
        rekey = ("agency", "rekey", "--dir", str(made.folder))
        made(*rekey, code=1)
        made(*rekey, opens, str(new))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


class TestCreate:
    def test_what_it_prints(self, cli: Cli) -> None:
        shown = create(cli, "minzdrav", cli.folder)
        facts = dict(line.split("\t") for line in shown.splitlines())
        assert re.fullmatch(r"[A-Z2-7]{4}( [A-Z2-7]{4}){7}", facts["fingerprint"])
        assert facts["files"] == "agency.toml, card.ivor, root.key, service.key"
        assert "ivor node run --dir" in cli.said
        assert "offline" in cli.said
        assert stat.S_IMODE(cli.folder.stat().st_mode) == 0o700

    def test_not_twice(self, made: Cli) -> None:
        made(*("agency", "create", "x", "--zone", "RU", "--dir", str(made.folder)), code=1)
        assert made.said.count("\n") == 1
        assert "not empty" in made.said

    def test_without_an_address_it_says_how_to_get_one(self, cli: Cli) -> None:
        create = ("agency", "create", "minzdrav", "--zone", "RU", "--dir", str(cli.folder))
        cli(*create)
        assert f"ivor agency move --address HOST:PORT --dir {cli.folder}" in cli.said
        cli(*("agency", "move", "--address", "mz.example:7340", "--dir", str(cli.folder)))
        assert cli.json("status")[0]["addresses"] == ["mz.example:7340"]

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (["Минздрав", "--zone", "RU"], 1, "is not allowed"),
            (["минzdrav", "--zone", "RU"], 4, "mixes Latin and Cyrillic"),
            (["minzdrav", "--zone", "ru"], 1, "zone"),
            (["minzdrav", "--zone", "RU", "--listen", "here"], 1, "cannot listen"),
            (["minzdrav", "--zone", "RU", "--listen", "127.0.0.1:7340"], 1, "--allow-local"),
            (["minzdrav", "--zone", "RU", "--address", "localhost:1"], 1, "--allow-local"),
            (["minzdrav", "--zone", "RU", "--address", "nowhere"], 1, "host:port"),
            (["minzdrav"], 2, "Missing option '--zone'"),
            (["minzdrav\x1b[2J", "--zone", "RU"], 1, r"\x1b[2J"),
        ],
    )
    def test_what_it_refuses(self, cli: Cli, arguments: list[str], code: int, text: str) -> None:
        cli(*("agency", "create", *arguments, "--dir", str(cli.folder)), code=code)
        assert text in cli.said
        assert "\x1b" not in cli.said
        assert not cli.folder.exists()

    def test_no_address_is_said(self, cli: Cli) -> None:
        shown = cli(*("agency", "create", "x", "--zone", "RU", "--dir", str(cli.folder)))
        assert "addresses\t-" in shown
        assert "none can dial it" in cli.said


class TestPassphrase:
    def test_no_terminal_and_no_file(self, made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IVOR_PASSPHRASE_FILE")
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        made.node("invite", "anna", code=1)
        assert "IVOR_PASSPHRASE_FILE" in made.said

    def test_a_wrong_one(self, made: Cli, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.write_text("wrong horse")
        made.node("invite", "anna", "--passphrase-file", str(other), code=1)
        assert "wrong passphrase" in made.said
        assert "others may read" in made.said

    @pytest.mark.parametrize("content", [b"", b"\n", b"x" * 2000])
    def test_what_is_none(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "p"
        file.write_bytes(content)
        with pytest.raises(IvorError, match="must hold"):
            passphrase.read_passphrase(file, "x")

    def test_an_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(IvorError, match="cannot be read"):
            passphrase.read_passphrase(tmp_path / "none", "x")

    @pytest.mark.parametrize(
        ("typed", "text"),
        [(["short"], "fewer than"), (["long enough", "long enougg"], "differ")],
    )
    def test_a_typed_one_is_checked(
        self, monkeypatch: pytest.MonkeyPatch, typed: list[str], text: str
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("getpass.getpass", lambda *_, **__: typed.pop(0))
        with pytest.raises(IvorError, match=text):
            passphrase.new_passphrase(None, "x")

    def test_a_typed_one_is_asked_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        asked: list[str] = []

        def type_it(prompt: str, **_: object) -> str:
            asked.append(prompt)
            return "long enough"

        monkeypatch.setattr("getpass.getpass", type_it)
        assert passphrase.new_passphrase(None, "the root key") == b"long enough"
        assert len(asked) == 2


class TestStopped:
    """Commands on a node that does not run."""

    def test_status(self, made: Cli) -> None:
        (record,) = made.json("status")
        assert (record["agency"], record["running"], record["entries"]) == ("minzdrav", False, 0)
        assert "agency\tminzdrav" in made.node("status")

    def test_the_environment_names_the_folder(
        self, made: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IVOR_NODE_DIR", str(made.folder))
        assert "minzdrav" in made("node", "status")

    def test_invite(self, made: Cli) -> None:
        shown = made.node("invite", "anna")
        assert shown.startswith("ivor1.")
        assert shown.count("\n") == 1
        assert "anna@minzdrav" in made.said
        (record,) = made.json("invite", "boris", "--hours", "1")
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", str(record["expires"]))

    def test_card(self, made: Cli) -> None:
        assert made.node("card") == (made.folder / "card.ivor").read_text()
        assert "fingerprint of minzdrav" in made.said
        (record,) = made.json("card")
        assert record["card"] == (made.folder / "card.ivor").read_text()

    def test_ca(self, made: Cli) -> None:
        """The very certificate of the card, as a verifier without Ivor reads it."""
        shown = made.node("ca")
        card = read_card((made.folder / "card.ivor").read_text())
        assert ssl.PEM_cert_to_DER_cert(shown) == card.ca
        (record,) = made.json("ca")
        assert (record["agency"], record["ca"]) == ("minzdrav", shown)

    @pytest.mark.parametrize("command", ["users", "peers", "chats"])
    def test_empty_lists(self, made: Cli, command: str) -> None:
        assert made.node(command) == ""
        assert made.json(command) == []

    def test_config(self, made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flags before the environment before the file before the default."""
        assert made.node("config", "check") == "ok\n"
        monkeypatch.setenv("IVOR_LOG_LEVEL", "debug")
        found = {record["name"]: record for record in made.json("config", "explain")}
        assert found["log_level"]["source"] == "environment"
        assert str(found["listen"]["source"]).endswith("agency.toml")
        assert found["connections_max"]["source"] == "default"
        monkeypatch.setenv("IVOR_LOG_LEVEL", "loud")
        made.node("config", "check", code=1)
        assert "log_level" in made.said

    @pytest.mark.parametrize(("mib", "state"), [(0, "fail"), (100, "warn"), (4096, "ok")])
    def test_the_doctor_of_a_disk(
        self, made: Cli, monkeypatch: pytest.MonkeyPatch, mib: int, state: str
    ) -> None:
        """Regression: a node that takes nothing any more was warned of, and the exit code was 0."""
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=mib * 1024**2))
        said = made.node("doctor", "--json", code=3 if state == "fail" else 0)
        found = [json.loads(line) for line in said.splitlines()]
        assert {one["check"]: one["state"] for one in found}["disk"] == state

    def test_doctor(self, made: Cli) -> None:
        states = {record["check"]: record["state"] for record in made.json("doctor")}
        assert states["folder"] == "ok"
        (made.folder / "card.ivor").unlink()
        made.node("doctor", code=3)

    def test_mend(self, made: Cli) -> None:
        (record,) = made.json("mend")
        assert (record["chats"], record["entries"], record["kept"]) == ([], 0, None)
        assert "nothing is damaged" in made.said

    def test_revoke_an_unknown_user(self, made: Cli) -> None:
        made.node("revoke", "nobody", code=1)
        assert made.said == "ivor: no user nobody@minzdrav here; 'ivor node users' lists them\n"

    def test_no_agencys_folder(self, cli: Cli) -> None:
        cli.node("status", code=1)
        assert "ivor agency create" in cli.said

    def test_the_doctor_is_asked_of_no_agencys_folder(self, cli: Cli, tmp_path: Path) -> None:
        """It has nothing to look at; of a part of one it says what is missing."""
        for command in ("doctor", "card", "ca"):
            assert cli.node(command, code=1) == ""
            assert "there is no such folder" in cli.said
        cli.folder = tmp_path
        assert cli.node("doctor", code=1) == ""
        assert "agency.toml is missing" in cli.said

    def test_the_doctor_says_what_is_damaged(self, made: Cli) -> None:
        """Regression: of a card that is not text it said only that this is a bug."""
        (made.folder / "card.ivor").write_bytes(b"\xff")
        found = {one["check"]: one["text"] for one in made.json("doctor", code=3)}
        card = made.folder / "card.ivor"
        assert found["card"] == f"{card} is damaged: not text; restore it from a backup"

    def test_the_doctor_says_what_is_missing(self, made: Cli) -> None:
        (made.folder / "card.ivor").unlink()
        found = {one["check"]: one["text"] for one in made.json("doctor", code=3)}
        assert found["folder"] == "missing: card.ivor; restore from a backup"
        card = made.folder / "card.ivor"
        assert found["card"] == f"{card} is missing; restore it from a backup"


class TestTrust:
    @pytest.fixture
    def theirs(self, made: Cli, tmp_path: Path) -> Path:
        create(made, "mincifry", tmp_path / "mincifry")
        return tmp_path / "mincifry" / "card.ivor"

    def test_whom_a_restored_node_has_yet_to_meet(
        self, made: Cli, theirs: Path, tmp_path: Path
    ) -> None:
        made.node("trust", str(theirs), "--yes")
        made.node("backup", str(tmp_path / "kept"))
        made.folder = tmp_path / "again"
        made.node("restore", str(tmp_path / "kept"))
        assert "before it has met all" in made.said
        assert "have your own users run 'ivor sync'" in made.said
        assert "'ivor node invite NAME --recover' and their words" in made.said
        assert [one["not_met"] for one in made.json("resume")] == [["mincifry"]]
        assert "for a lie" in made.said
        assert [one["not_met"] for one in made.json("resume")] == [[]]
        assert "nobody left to meet" in made.said

    def test_for_scripts(self, made: Cli, theirs: Path) -> None:
        made.node("trust", str(theirs), "--yes")
        made.node("trust", str(theirs), "--yes")
        (record,) = made.json("peers")
        assert (record["agency"], record["connected"]) == ("mincifry", None)
        assert made.node("peers") == "mincifry\tRU-UDM\t-\t0\t0\tnot seen yet\t127.0.0.1:7340\n"

    def test_an_agency_that_is_trusted_no_longer(self, made: Cli, theirs: Path) -> None:
        made.node("distrust", "mincifry", "--yes", code=1)
        assert "no agency mincifry is trusted here; 'ivor node peers' lists who is" in made.said
        made.node("distrust", "minzdrav", "--yes", code=1)
        assert "this agency itself" in made.said
        made.node("trust", str(theirs), "--yes")
        (done,) = made.json("distrust", "Mincifry", "--yes")
        assert (done["agency"], done["chats"]) == ("mincifry", 0)
        assert made.json("peers") == []
        made.node("trust", str(theirs), "--yes")
        assert [one["agency"] for one in made.json("peers")] == ["mincifry"]

    @pytest.mark.parametrize("answer", [True, False])
    def test_a_person_decides_on_that_too(
        self,
        made: Cli,
        theirs: Path,
        monkeypatch: pytest.MonkeyPatch,
        answer: bool,  # noqa: FBT001 - what the person says
    ) -> None:
        made.node("trust", str(theirs), "--yes")
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        made.node("distrust", "mincifry", code=1)
        assert "add --yes" in made.said
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", lambda *_, **__: answer)
        made.node("distrust", "mincifry", code=not answer)
        assert len(made.json("peers")) == (not answer)
        monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
        made.node("trust", str(theirs), code=0 if not answer else 1)

    def test_nobody_to_ask(self, made: Cli, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        made.node("trust", str(theirs), code=1)
        assert "fingerprint" in made.said
        assert made.json("peers") == []

    @pytest.mark.parametrize(("answer", "code", "peers"), [(True, 0, 1), (False, 1, 0)])
    def test_a_person_decides(
        self,
        made: Cli,
        theirs: Path,
        monkeypatch: pytest.MonkeyPatch,
        answer: bool,  # noqa: FBT001 - what the person says
        code: int,
        peers: int,
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", lambda *_, **__: answer)
        made.node("trust", str(theirs), code=code)
        assert len(made.json("peers")) == peers

    def test_a_name_that_looks_alike(self, made: Cli, tmp_path: Path) -> None:
        """Hostile case 59: never taken unseen, also by a script."""
        for number, name in enumerate(("cop", "сор")):
            folder = tmp_path / f"other{number}"
            create(made, name, folder)
            made.node("trust", str(folder / "card.ivor"), "--yes", code=4 * number)
        assert "looks like cop" in made.said

    def test_a_local_address(self, made: Cli, theirs: Path) -> None:
        """Hostile case 60."""
        settings = made.folder / "agency.toml"
        settings.write_text(settings.read_text().replace("allow_local = true\n", ""))
        made.node("trust", str(theirs), "--yes", code=4)
        assert "local to a machine" in made.said

    @pytest.mark.parametrize("content", ["", "hello", "\x1b[2J"])
    def test_what_is_no_card(self, made: Cli, tmp_path: Path, content: str) -> None:
        file = tmp_path / "card"
        file.write_text(content)
        made.node("trust", str(file), "--yes", code=1)
        made.node("trust", str(tmp_path / "none"), "--yes", code=1)
        assert "ask the agency" in made.said


class TestErrors:
    """One line on stderr, one exit code, no traceback."""

    def end(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
        def raising(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(program, "app", raising)
        return main(["x"])

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (StorageError("x"), 3),
            (NetworkError("x"), 3),
            (LimitReached("x"), 5),
            (LimitExceeded("x"), 5),
            (Unauthentic("x"), 7),
            (Inadmissible("x"), 8),
            (PeerError("x"), 3),
            (OSError(28, "No space left on device"), 3),
            (KeyError("x"), 1),
            (KeyboardInterrupt(), 130),
            (typer.Abort(), 130),
            (BaseExceptionGroup("x", [KeyboardInterrupt()]), 130),
            (ExceptionGroup("x", [ExceptionGroup("y", [StorageError("disk \x1b[2J")])]), 3),
        ],
    )
    def test_codes(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: BaseException,
        code: int,
    ) -> None:
        assert self.end(monkeypatch, error) == code
        said = capsys.readouterr().err
        assert said.count("\n") <= 1
        assert "\x1b" not in said
        assert "Traceback" not in said

    def test_a_trace_on_demand(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv(program.TRACE_VARIABLE, "1")
        self.end(monkeypatch, KeyError("x"))
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments", [["dance"], ["node", "dance"], ["node", "status", "--loud"], []]
    )
    def test_usage(self, cli: Cli, arguments: list[str]) -> None:
        cli(*arguments, code=2)


@pytest.fixture
def running(made: Cli) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own, ready."""
    arguments = [sys.executable, "-m", "cli.main", "node", "run", "--dir", str(made.folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(rb"ready 127\.0\.0\.1:\d+ minzdrav\n", line), line
        yield process
        process.kill()


class TestProcess:
    """Whole processes: what a shell sees."""

    def test_a_running_node_answers_its_operator(
        self, made: Cli, running: subprocess.Popen[bytes], tmp_path: Path
    ) -> None:
        (record,) = made.json("status")
        assert record["running"] is True
        assert made.node("invite", "anna").startswith("ivor1.")
        create(made, "mincifry", tmp_path / "mincifry")
        made.node("trust", str(tmp_path / "mincifry" / "card.ivor"), "--yes")
        (peer,) = made.json("peers")
        assert peer["connected"] is False
        made.node("revoke", "nobody", code=1)
        assert {one["check"]: one["state"] for one in made.json("doctor")}["database"] == "ok"
        running.send_signal(signal.SIGTERM)
        assert running.wait(READY_SECONDS) == 0
        (record,) = made.json("status")
        assert (record["running"], record["peers"]) == (False, 1)

    def test_help_is_quick_and_light(self) -> None:
        """What a help text does not need is not imported: the time then follows."""
        code = (
            "import sys; from cli.main import main; main(['node', '--help']);"
            "print(sorted({'trio', 'apsw', 'nacl', 'cryptography', 'rich', 'structlog'}"
            " & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert "revoke" in done.stdout
        assert done.stderr == "[]\n"

    def test_a_reader_who_leaves_is_no_error(self, made: Cli) -> None:
        arguments = [sys.executable, "-m", "cli.main", "node", "card", "--dir", str(made.folder)]
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(arguments, check=False, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert done.returncode == program.BROKEN_PIPE
        assert b"Broken" not in done.stderr
        assert b"Traceback" not in done.stderr
