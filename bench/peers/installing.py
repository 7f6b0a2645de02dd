"""Installing what is compared, each in a folder of its own, by its own system's client."""

import subprocess
from collections.abc import Sequence

from bench.figures import progress


class NotHere(Exception):
    """A system cannot be measured here; the message says what it lacks."""


def run(command: Sequence[str]) -> str:
    """Run a command to its end; return its stdout. Raises NotHere with what it said."""
    progress(f"peers: {' '.join(command)[:100]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"{command[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
