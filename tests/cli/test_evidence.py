"""`ivor evidence`: made by an official, checked by anybody."""

import json
from pathlib import Path

import pytest

from cli.letters import BENEATH, MARGIN
from cli.main import main
from protocol.errors import NotCanonical
from protocol.message import Message, Text, encode_message
from tests.cli.conftest import Official
from tests.federation import Federation

HOSTILE = "\x1b]52;c;cm0=\x07 paid"


@pytest.fixture
def file(federation: Federation, anna: Official, boris: Official, tmp_path: Path) -> Path:
    federation.chat(anna.device, "Budget", boris.device)
    anna("send", "Budget", HOSTILE)
    anna("send", "Budget", "never disclosed")
    return tmp_path / "budget.evidence"


def first_id(anna: Official) -> str:
    return next(str(one["id"]) for one in anna.json("read", "Budget") if one.get("text") == HOSTILE)


def checked(file: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    """Check it as somebody without any folder of Ivor."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("IVOR_HOME", raising=False)
        patch.setenv("HOME", "/nonexistent")
        code = main(["evidence", "check", str(file), *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class TestEvidence:
    def test_one_message(
        self, anna: Official, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (made,) = anna.json("evidence", "export", "Budget", first_id(anna)[:8], "-o", str(file))
        assert (made["messages"], made["not_under_a_checkpoint"]) == (1, 1)
        assert "under no checkpoint" in anna.said
        code, out, err = checked(file, capsys)
        assert code == 0
        assert "\x1b" not in out
        assert "paid" in out
        assert "never disclosed" not in out
        assert "anna@minzdrav" in out
        assert anna.device.profile.charter.fingerprint in out
        assert "compare the fingerprints" in err
        assert file.stat().st_mode & 0o777 == 0o600

    def test_every_kind_reads_as_in_the_chat(
        self, anna: Official, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "table.csv").write_text("a,b")
        anna("send", "Budget", "look", "--file", str(tmp_path / "table.csv"))
        anna("evidence", "export", "Budget", "-o", str(file))
        _, out, _ = checked(file, capsys)
        assert "(title) Budget" in out
        assert "(file table.csv, 3 bytes" in out
        assert "b'" not in out

    @pytest.mark.parametrize("covered", [False, True])
    def test_on_a_terminal_it_reads_as_in_the_chat(
        self,
        anna: Official,
        file: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        *,
        covered: bool,
    ) -> None:
        """Regression: in a table of seven columns times and devices took three lines each."""
        anna("send", "Budget", "word " * 40)
        options = ["--checkpoint"] if covered else []
        anna("evidence", "export", "Budget", "-o", str(file), *options)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        _, out, _ = checked(file, capsys)
        heading, text, place, cover = out[out.index("Z ") - 23 :].splitlines()[:4]
        assert heading.endswith(" anna@minzdrav [counts]")
        assert text == f"{MARGIN}(title) Budget"
        assert place == f"{BENEATH}entry 0 of the device {anna.device.key.hex()[:16]}"
        told = "under a checkpoint of anna@minzdrav" if covered else "under no checkpoint"
        assert cover == f"{BENEATH}{told}"
        behind = [line for line in out.splitlines() if line.startswith(MARGIN)]
        assert f"{MARGIN}\\x1b]52;c;cm0=\\x07 paid" in behind
        assert max(map(len, behind)) <= 80

    def test_what_is_no_message_does_not_pass_for_one(
        self,
        anna: Official,
        file: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A device can sign any bytes; they are told in hex."""

        def decode(_: bytes) -> Message:
            raise NotCanonical("no message")

        anna("evidence", "export", "Budget", "-o", str(file))
        monkeypatch.setattr("protocol.message.decode_message", decode)
        _, out, _ = checked(file, capsys)
        assert f"\t(unreadable) {encode_message(Text(HOSTILE, None)).hex()}\t" in out

    def test_in_a_pipe_it_is_a_line_of_the_same_columns(
        self, anna: Official, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The first five are those of `ivor read`, and so is the order."""
        anna("evidence", "export", "Budget", "-o", str(file))
        _, out, _ = checked(file, capsys)
        found = [line.split("\t") for line in out.splitlines() if "\tanna@minzdrav\t" in line]
        read = [line.split("\t") for line in anna("read", "Budget").splitlines()]
        assert [[*one[:3], one[4]] for one in found] == [[*one[:3], one[4]] for one in read]
        device = anna.device.key.hex()[:16]
        assert [one[5:] for one in found] == [[str(seq), device, "-"] for seq in range(3)]

    def test_with_the_fingerprint(
        self, anna: Official, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anna("evidence", "export", "Budget", "-o", str(file), "--checkpoint")
        right = f"minzdrav={anna.device.profile.charter.fingerprint}"
        code, out, err = checked(file, capsys, "--fingerprint", right, "--json")
        assert (code, err) == (0, "")
        assert '"anchored": true' in out
        wrong = right[:-1] + ("A" if right[-1] != "A" else "B")
        code, out, err = checked(file, capsys, "--fingerprint", wrong, "--json")
        assert code == 7
        assert '"rule": "fingerprint"' in out
        assert "rule fingerprint" in err

    def test_a_wrong_byte_is_named(
        self, anna: Official, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anna("evidence", "export", "Budget", "-o", str(file))
        raw = bytearray(file.read_bytes())
        raw[40] ^= 1
        file.write_bytes(raw)
        code, out, err = checked(file, capsys)
        assert (code, out) == (7, "")
        assert "proves nothing: at byte 16, rule signature" in err

    def test_what_is_no_evidence(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert checked(tmp_path / "absent", capsys)[0] == 1
        (tmp_path / "junk").write_bytes(b"junk")
        code, _, err = checked(tmp_path / "junk", capsys)
        assert code == 7
        assert "at byte 0, rule magic" in err

    def test_scripts_are_told_what_is_no_evidence(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "junk").write_bytes(b"junk")
        for name, ends in (("absent", 1), ("junk", 7)):
            code, _, err = checked(tmp_path / name, capsys, "--json")
            failure = json.loads(err.splitlines()[-1])
            assert (failure["type"], failure["exit_code"], code) == ("failure", ends, ends)
            assert str(tmp_path / name) in failure["why"]

    def test_times(self, anna: Official, file: Path) -> None:
        anna("evidence", "export", "Budget", "-o", str(file), "--to", "2001-01-01", code=1)
        assert "no message to prove" in anna.said
        assert not file.exists()
        anna("evidence", "export", "Budget", "-o", str(file), "--from", "1h")
        anna("evidence", "export", "Budget", "ab12", "-o", str(file), "--from", "1h", code=1)

    def test_what_was_told_by_telephone_is_looked_for(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        file: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Regression: what is new was not fetched for an id that is not known here."""
        (sent,) = boris.json("send", "Budget", "to be proved")
        monkeypatch.setattr(
            "cli.opening.fetch", lambda device, *_: federation.carry(boris.device, device)
        )
        spoken = str(sent["id"])[:8]
        (told,) = anna.json("evidence", "export", "Budget", spoken, "-o", str(file))
        assert told["messages"] == 1

    def test_nothing_is_overwritten(self, anna: Official, file: Path) -> None:
        file.write_bytes(b"another proof")
        anna("evidence", "export", "Budget", "-o", str(file), code=1)
        assert file.read_bytes() == b"another proof"

    def test_a_fingerprint_that_is_none(
        self, anna: Official, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anna("evidence", "export", "Budget", "-o", str(file))
        code, _, err = checked(file, capsys, "--fingerprint", "minzdrav")
        assert code == 1
        assert "is not AGENCY=FINGERPRINT" in err
        code, _, err = checked(file, capsys, "--fingerprint", "minzdrav=short")
        assert code == 1
        assert "'short' is no fingerprint" in err

    def test_an_agency_that_the_file_does_not_name(
        self, anna: Official, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A slip of the one who checks says nothing against the file; a broken file says so."""
        anna("evidence", "export", "Budget", "-o", str(file), "--checkpoint")
        given = f"minzdrv={anna.device.profile.charter.fingerprint}"
        code, _, err = checked(file, capsys, "--fingerprint", given)
        assert code == 1
        assert "names no agency minzdrv; it names mincifry, minzdrav" in err
        file.write_bytes(file.read_bytes()[:-1])
        code, _, err = checked(file, capsys, "--fingerprint", given)
        assert code == 7
        assert "proves nothing" in err
