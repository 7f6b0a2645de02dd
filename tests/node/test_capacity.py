"""A node of thousands of connections: open files, and all devices that come back at once."""

import gc
import resource

import pytest

from node.capacity import (
    COLLECTIONS,
    FILES_BESIDE,
    allow_files,
    collect_rarely,
    files_wanted,
)
from node.config import Settings

INFINITE = resource.RLIM_INFINITY


def test_everything_is_looked_through_rarely() -> None:
    """A hundred million new objects, less those that went by themselves; never not at all."""
    before = gc.get_threshold()
    try:
        collect_rarely()
        assert gc.isenabled()
        assert gc.get_threshold() == COLLECTIONS
        assert 10**7 < COLLECTIONS[0] * COLLECTIONS[1] * COLLECTIONS[2] <= 10**8
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("soft", "hard", "after", "lacking"),
    [
        (1024, 524288, 4096 + FILES_BESIDE, 0),
        (1024, INFINITE, 4096 + FILES_BESIDE, 0),
        (1024, 2048, 2048, 4096 + FILES_BESIDE - 2048),
        (1024, 1024, 1024, 4096 + FILES_BESIDE - 1024),
        (65536, 65536, 65536, 0),
        (INFINITE, INFINITE, INFINITE, 0),
    ],
)
def test_open_files(
    soft: int, hard: int, after: int, lacking: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 75: raised as far as it goes, never lowered; what is lacking is told."""
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    settings = Settings(connections_max=4096)
    assert files_wanted(settings) == 4096 + FILES_BESIDE
    assert allow_files(settings) == lacking
    assert limits[-1] == (after, hard)
