"""Case 62: a node and a device, whole processes under load, killed at random moments."""

from pathlib import Path

from tests.crash.kills import Siege
from tests.hostile.federation import Founded, copied


def test_killed_under_load(template: tuple[Path, Founded], tmp_path: Path) -> None:
    folder, founded = template
    with Siege(copied(folder, tmp_path / "siege"), founded.quiet) as siege:
        siege.cycle(seed=0)
        siege.end()
        assert siege.written > 10
