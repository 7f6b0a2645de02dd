"""`ivor demo` is the widest test there is: real processes, TLS, crashes and a cut line."""

import os
import subprocess
import sys
from pathlib import Path

CHECKS = 10
SECONDS_MAX = 300


def test_every_check_of_the_demo_holds(tmp_path: Path) -> None:
    """Three agencies and six officials: each check holds, and the exit code says so."""
    folder = tmp_path / "federation"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "demo", "--keep", str(folder)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == CHECKS
    assert f"All {CHECKS} checks held." in done.stdout
    assert "Try next" in done.stdout
    logs = [file.read_text() for file in folder.glob("*/node.log")]
    assert len(logs) == len(["minzdrav", "mincifry", "minfin"])
    assert not any("a bug ended" in log for log in logs)
