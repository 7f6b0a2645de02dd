"""The command line from a cold start: `ivor send`, as a person waits for it."""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.federation import PASSPHRASE, Site, founded, node_of, opened, user_of
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import new_chat, text_of
from bench.processes import ROOT, ChildFailed

NAME = "command"
UNITS = {"send": "ms", "help": "ms", "python": "ms"}
PREFIX_DIGITS = 16


def measure(runs: int) -> list[Line]:
    """Measure the command; beside it what Python alone and a command without work take."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        progress(f"{NAME}: two agencies, and a chat")
        sites = founded(Path(folder))
        device = opened(sites[0])
        chat = new_chat(device, [user_of(device, sites[1])])
        device.close()
        secret = Path(folder) / "passphrase"
        secret.write_bytes(PASSPHRASE)
        secret.chmod(0o600)
        calib_s = calibrate()
        with node_of(sites[0]), node_of(sites[1]):
            results = [_run(sites[0], secret, chat.hex()[:PREFIX_DIGITS]) for _ in range(runs)]
    return lines_of(NAME, "cold start", UNITS, results, calib_s)


def _run(site: Site, secret: Path, chat: str) -> dict[str, float]:
    options = ["--home", str(site.home), "--passphrase-file", str(secret)]
    return {
        "send": _timed("-m", "cli.main", "send", chat, text_of(0), *options),
        "help": _timed("-m", "cli.main", "--help"),
        "python": _timed("-c", "pass"),
    }


def _timed(*arguments: str) -> float:
    """Return the milliseconds that a command took. Raises ChildFailed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ, capture_output=True, check=False
    )
    if done.returncode:
        raise ChildFailed(f"{' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return (time.perf_counter() - begun) * 1e3
