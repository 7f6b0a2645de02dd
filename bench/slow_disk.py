"""A disk whose syncs take longer: what others' work on a disk does to ours, at will.

    with slow_disk.syncs(3.0):        # in the parent: its children's commits take 3 ms more
        ...
    slow_disk.delay(connection)       # in a child

The time is spent in SQLite's commit hook, so inside COMMIT, in whatever thread that runs.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

VARIABLE = "IVOR_BENCH_SYNC_MS"


@contextmanager
def syncs(longer_ms: float) -> Iterator[None]:
    """Have children that start in this block take so much longer for every commit."""
    os.environ[VARIABLE] = str(longer_ms)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def delay(connection: apsw.Connection) -> None:
    """Let commits that write take as much longer as the parent has asked for."""
    seconds = float(os.environ.get(VARIABLE, "0")) / 1000

    def wait() -> bool:
        time.sleep(seconds)
        return False

    if seconds:
        connection.set_commit_hook(wait, id=VARIABLE)
