"""`ivor recover`: what is told of what a backup holds and the log does not have here yet."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.opening import now_ms
from client.device import Device
from client.link import SYNCED
from node.errors import IvorError, NetworkError
from tests.cli.conftest import Official
from tests.federation import Federation


def unreached(_: Device) -> IvorError | None:
    return NetworkError("no node")


def unfinished(_: Device) -> IvorError | None:
    return None


def even(device: Device) -> IvorError | None:
    device.note(SYNCED, now_ms())
    return None


@pytest.mark.parametrize(
    ("fetch", "told"),
    [
        (unreached, "'ivor sync' fetches what your node has of it"),
        (unfinished, "'ivor sync' fetches what your node has of it"),
        (even, "may never come"),
    ],
)
def test_what_waits_for_the_log_is_not_promised(
    federation: Federation,
    anna: Official,
    boris: Official,
    secret: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    fetch: Callable[[Device], IvorError | None],
    told: str,
) -> None:
    """Regression: 'ivor sync' fetches that, though the lost device had never sent it."""
    federation.chat(anna.device, "Бюджет", boris.device)
    anna("send", "Бюджет", "queued when the device was lost")
    anna("backup", str(tmp_path / "kept"))
    fresh = Official(federation.recovered(anna.device), secret, capsys)
    monkeypatch.setattr("cli.recovery.fetch", fetch)
    (found,) = fresh.json("recover", str(tmp_path / "kept"))
    assert (found["waiting"], found["proved"]) == (2, 0)
    assert "2 messages wait for the signed log: " in fresh.said
    assert told in fresh.said
