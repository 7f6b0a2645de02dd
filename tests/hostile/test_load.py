"""The load measurement runs: what it says of p99 decides nothing here."""

import json
import subprocess
import sys
from pathlib import Path

from tests.hostile.load.attacks import ATTACKS

ROOT = Path(__file__).parents[2]
SHORT = ("--seconds", "0.5", "--rounds", "1", "--json")


def test_honest_messages_arrive_beside_an_attack() -> None:
    """Case 32: sixteen sessions ask for all history again and again; nothing honest is lost."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.load", "32", *SHORT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    (figure,) = report["figures"]
    assert (report["v"], report["what"]) == (1, "load")
    assert figure["case"] in ATTACKS
    assert figure["lost"] == 0
