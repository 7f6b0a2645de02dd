"""Officials who type commands, with devices that have no network."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from cli.main import main
from client.device import Device
from crypto import keyfile
from tests.federation import PASSPHRASE, Federation


class Official:
    """Runs `ivor` in this process, as the owner of a device."""

    def __init__(self, device: Device, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.device = device
        self._secret = secret
        self._capsys = capsys
        self.said = ""

    def __call__(self, *arguments: str, code: int = 0, stdin: bytes | None = None) -> str:
        """Run a command that ends with this code; return its stdout, keep its stderr."""
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IVOR_HOME", str(self.device.folder))
            patch.setenv("IVOR_PASSPHRASE_FILE", str(self._secret))
            if stdin is not None:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            found = main(arguments)
        captured = self._capsys.readouterr()
        self.said = captured.err
        assert found == code, captured.err
        assert "Traceback" not in captured.err
        self.device.refresh()
        return captured.out

    def json(self, *arguments: str, code: int = 0) -> Sequence[dict[str, object]]:
        """Run a command with --json; what fails tells scripts why."""
        lines = self(*arguments, "--json", code=code).splitlines()
        found = [json.loads(line) for line in lines]
        assert all(record["v"] == 1 for record in found)
        failures = [json.loads(one) for one in self.said.splitlines() if one.startswith("{")]
        assert [one["exit_code"] for one in failures] == ([code] if code else [])
        return found


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    monkeypatch.setattr(keyfile, "MEMORY_KIB", keyfile.MEMORY_KIB_MIN)
    monkeypatch.setattr(keyfile, "PASSES", 1)
    made = Federation(tmp_path)
    yield made
    made.close()
    structlog.reset_defaults()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE)
    path.chmod(0o600)
    return path


@pytest.fixture
def anna(federation: Federation, secret: Path, capsys: pytest.CaptureFixture[str]) -> Official:
    return Official(federation.official("anna@minzdrav"), secret, capsys)


@pytest.fixture
def boris(federation: Federation, secret: Path, capsys: pytest.CaptureFixture[str]) -> Official:
    return Official(federation.official("boris@mincifry"), secret, capsys)
