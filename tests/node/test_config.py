"""Settings and logs of a node."""

import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import (
    ConfigError,
    Explained,
    Settings,
    Value,
    explain,
    is_local,
    load_settings,
    parse_listen,
    refuse_local,
    write_settings,
)
from node.logs import REDACTED, Form, log_form, open_log
from protocol.errors import Untrusted

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.sampled_from(("127.0.0.1:0", "[::]:7340", "localhost:65535")),
        "allow_local": st.booleans(),
        "log_level": st.sampled_from(("debug", "info", "warning", "error")),
        "connections_max": st.integers(2, 100_000),
    },
)


class TestPrecedence:
    def test_defaults(self, tmp_path: Path) -> None:
        loaded = load_settings(tmp_path / "absent.toml", {}, {"listen": None})
        assert loaded.settings == Settings()
        assert {one.source for one in explain(loaded)} == {"default"}

    def test_flag_over_environment_over_file_over_default(self, tmp_path: Path) -> None:
        file = tmp_path / "agency.toml"
        file.write_text('format = 1\nlisten = "file:1"\nlog_level = "error"\nconnections_max = 9\n')
        environment = {"IVOR_LISTEN": "environment:2", "IVOR_LOG_LEVEL": "debug", "PATH": "/bin"}
        loaded = load_settings(file, environment, {"listen": "flag:3", "metrics": None})
        shown = {one.name: one for one in explain(loaded)}
        assert shown["listen"] == Explained("listen", "flag:3", "flag")
        assert shown["log_level"] == Explained("log_level", "debug", "environment")
        assert shown["connections_max"] == Explained("connections_max", 9, str(file))
        assert shown["metrics"] == Explained("metrics", "", "default")

    def test_the_environment_speaks_text(self, tmp_path: Path) -> None:
        environment = {"IVOR_ALLOW_LOCAL": "true", "IVOR_CONNECTIONS_MAX": "77"}
        settings = load_settings(tmp_path / "none", environment, {}).settings
        assert settings.allow_local is True
        assert settings.connections_max == 77

    @given(values=SETTINGS)
    def test_what_is_written_reads_back(
        self, tmp_path_factory: pytest.TempPathFactory, values: dict[str, Value]
    ) -> None:
        file = tmp_path_factory.mktemp("settings") / "agency.toml"
        file.write_text(write_settings(values))
        assert load_settings(file, {}, {}).settings == msgspec.convert(values, Settings)


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('listn = "a:1"', "is listen meant"),
            ("conections_max = 5", "is connections_max meant"),
            ("[listen]\nport = 1", "listen: Expected `str`"),
            ('connections_max = "5"', "Expected `int`"),
            ("connections_max = 0", ">= 2"),
            ('log_level = "loud"', "Invalid enum value"),
            ("listen = ", "not TOML"),
            ("listen = " + "[" * 2000, "not TOML"),
            ("connections_max = " + "9" * 5000, "not TOML"),
            ('listen = "nowhere"', "cannot listen"),
            ('metrics = "nowhere"', "cannot listen"),
        ],
    )
    def test_the_message_says_what_is_meant(self, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "agency.toml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_settings(file, {}, {})

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        file = tmp_path / "agency.toml"
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="not TOML"):
            load_settings(file, {}, {})

    def test_a_misspelt_variable(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is IVOR_LISTEN meant"):
            load_settings(tmp_path / "none", {"IVOR_LISTN": "a:1"}, {})

    def test_a_variable_that_is_not_text(self, tmp_path: Path) -> None:
        """As the system hands on bytes that are no UTF-8."""
        with pytest.raises(ConfigError, match="environment: connections_max"):
            load_settings(tmp_path / "none", {"IVOR_CONNECTIONS_MAX": "\udcff"}, {})

    @pytest.mark.parametrize("text", ["", "192.0.2.7", "::1", "fe80::1%eth0"])
    def test_an_address_to_dial_from(self, tmp_path: Path, text: str) -> None:
        settings = load_settings(tmp_path / "none", {"IVOR_SOURCE": text}, {}).settings
        assert settings.source == text

    @pytest.mark.parametrize("text", ["eth0", "1.2.3", "::1%\x7f", "\x01\udcbd", " ::1", "::1:5:"])
    def test_no_address_to_dial_from(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ConfigError, match="cannot dial from"):
            load_settings(tmp_path / "none", {"IVOR_SOURCE": text}, {})
        with pytest.raises(ConfigError):
            write_settings({"source": text})

    def test_other_variables_are_not_ours(self, tmp_path: Path) -> None:
        environment = {"IVOR_HOME": "/x", "IVOR_PASSPHRASE_FILE": "/y", "LISTEN": "z"}
        assert load_settings(tmp_path / "none", environment, {}).settings == Settings()

    def test_a_flag_of_a_wrong_type(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="flag: connections_max"):
            load_settings(tmp_path / "none", {}, {"connections_max": "many"})

    def test_writing_checks_too(self) -> None:
        with pytest.raises(ConfigError, match="is allow_local meant"):
            write_settings({"allow_locals": True})


class TestListen:
    def test_addresses(self) -> None:
        assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
        assert parse_listen("[::1]:7340") == ("::1", 7340)

    @pytest.mark.parametrize("text", ["", ":1", "a", "a:", "a:65536", "::1:5", "a b:1", "a:١"])
    def test_other_texts(self, text: str) -> None:
        with pytest.raises(ConfigError, match="cannot listen"):
            parse_listen(text)


class TestLocalEndpoints:
    """Hostile case 60."""

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "0"),  # noqa: S104 - refused here
            *("localhost", "LOCALHOST.", "a.localhost", "printer.local", "169.254.0.1"),
            *("[::1]", "[::]", "[fe80::1]", "[::ffff:127.0.0.1]", "224.0.0.1", "[ff02::1]"),
        ],
    )
    def test_local_ones_are_refused(self, host: str) -> None:
        with pytest.raises(Untrusted, match="allow_local"):
            refuse_local(["node.example:1", f"{host}:7340"])

    def test_others_are_not(self) -> None:
        refuse_local(["node.example:1", "10.1.2.3:1", "192.0.2.1:1", "[2001:db8::1]:1"])

    def test_an_address_of_a_socket(self) -> None:
        assert is_local("fe80::1%eth0")
        assert not is_local("192.0.2.1")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A file on a disk that is full until `room`."""

    room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


class TestLogs:
    def test_a_full_disk_ends_nobody_who_logs_on_it(self) -> None:
        """The first that a node does about a full disk is to say so."""
        stream = Full()
        log = open_log(stream, "json", "debug")
        for say in (log.debug, log.info, log.warning, log.error, log.critical, log.exception):
            say("lost")
        stream.room = True
        log.info("told")
        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["told"]

    def logged(self, form: Form, **values: object) -> str:
        stream = io.StringIO()
        open_log(stream, form, "info").info("told", **values)
        return stream.getvalue()

    def test_json_is_one_object_a_line(self) -> None:
        line = self.logged("json", chat="abc", size=3, ratio=0.5, peer=None)
        event = json.loads(line)
        assert line.count("\n") == 1
        assert event.pop("timestamp").endswith("Z")
        assert event == {
            "v": 1,
            "event": "told",
            "level": "info",
            "chat": "abc",
            "size": 3,
            "ratio": 0.5,
            "peer": None,
        }

    def test_levels(self) -> None:
        stream = io.StringIO()
        log = open_log(stream, "json", "warning")
        log.info("quiet")
        log.warning("heard")
        assert "quiet" not in stream.getvalue()
        assert "heard" in stream.getvalue()

    def test_the_form_follows_the_stream(self) -> None:
        assert log_form(io.StringIO()) == "json"
        assert log_form(Terminal()) == "text"

    @pytest.mark.parametrize("form", ["json", "text"])
    @pytest.mark.parametrize(
        "hide",
        [
            lambda canary: {"data": canary.encode()},
            lambda canary: {"data": bytearray(canary.encode())},
            lambda canary: {"passphrase": canary},
            lambda canary: {"root_key": canary},
            lambda canary: {"data": [canary.encode()]},
            lambda canary: {"data": {"seed": canary}},
            lambda canary: {"data": {canary.encode()}},
            lambda canary: {"data": type("T", (), {"__repr__": lambda _: canary})()},
            lambda canary: {"data": [[[[[[canary]]]]]]},
        ],
        ids=("bytes", "bytearray", "name", "word", "list", "mapping", "set", "repr", "depth"),
    )
    def test_secrets_are_not_written(
        self, form: Form, hide: Callable[[str], dict[str, object]]
    ) -> None:
        """Invariant I7: neither bytes nor what is named like a secret is in any line."""
        line = self.logged(form, **hide("canary"))
        assert "told" in line
        assert "canary" not in line

    def test_what_is_left_says_so(self) -> None:
        assert REDACTED in self.logged("json", token="abc")
        assert "ValueError: odd" in self.logged("json", error=ValueError("odd"))
        assert json.loads(self.logged("json", sizes=(1, 2)))["sizes"] == [1, 2]

    @given(st.text(max_size=20))
    def test_text_is_inert(self, text: str) -> None:
        """Case 68: nothing that a peer sent reaches a terminal as a control."""
        forms: tuple[Form, ...] = ("json", "text")
        for form in forms:
            stream = io.StringIO()
            open_log(stream, form, "info").info(f"told {text}", name=text, names=[text])
            line = stream.getvalue().removesuffix("\n")
            assert all(c.isprintable() for c in line)

    def test_an_exception_is_told_with_its_trace(self) -> None:
        stream = io.StringIO()
        try:
            int("\x1b]52;c;AAAA\x07")
        except ValueError:
            open_log(stream, "text", "info").exception("failed \x1b]0;x")
        assert "Traceback" in stream.getvalue()
        assert "\x1b" not in stream.getvalue()

    @pytest.mark.parametrize("form", ["json", "text"])
    def test_an_exception_is_told_without_file_descriptors(self, form: Form) -> None:
        """Case 75: a node that has none left logs that, and goes on."""
        code = f"""
import resource, sys
from node.logs import open_log
log = open_log(sys.stderr, {form!r}, "info")
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    open("/dev/null")
except OSError:
    log.exception("no file")
print("goes on")
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stdout == "goes on\n", done.stderr
        assert "Too many open files" in done.stderr
