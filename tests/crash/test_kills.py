"""Case 62: a node and a device, whole processes under load, killed at random moments."""

from pathlib import Path

from tests.crash.kills import Siege


def test_killed_under_load(base: Path) -> None:
    with Siege(base / "siege") as siege:
        siege.cycle(seed=2)
        siege.cycle(seed=0)
        siege.end()
        assert siege.written > 10
