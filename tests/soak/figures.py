"""What a soak has written down, line by line, and what follows from it: slopes, and what grew."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

WARM_UP_SHARE: Final = 0.25
GREW_SHARE_MIN: Final = 0.2  # of a type's objects, before it is named
GREW_MIN: Final = 500
FITTED: Final = ("rss_mib", "sqlite_mib", "fds", "tasks", "threads", "blocks")


class Sample(Struct, frozen=True, tag_field="what", tag="sample", kw_only=True):
    """One process at one moment. at: seconds since the beginning. starts: how often it began."""

    at: float
    who: str
    starts: int
    values: dict[str, float]


class Happened(Struct, frozen=True, tag_field="what", tag="event", kw_only=True):
    """A fault, or the end of one."""

    at: float
    how: str
    who: str


class Counted(Struct, frozen=True, tag_field="what", tag="counted", kw_only=True):
    """Objects by type, in one process at one moment."""

    at: float
    who: str
    objects: dict[str, float]


Record = Sample | Happened | Counted


def read(file: Path) -> list[Record]:
    """Return all records of a file."""
    decode = msgspec.json.Decoder(Record).decode
    return [decode(line) for line in file.read_bytes().splitlines()]


def slopes(samples: Sequence[Sample]) -> dict[str, float]:
    """Return how much each value grew an hour after the warm-up, by least squares."""
    if not samples:
        return {}
    begin, end = samples[0].at, samples[-1].at
    steady = [one for one in samples if one.at >= begin + WARM_UP_SHARE * (end - begin)]
    found = {}
    for name in FITTED:
        points = [(one.at / 3600, one.values[name]) for one in steady if name in one.values]
        if len({at for at, _ in points}) > 1:
            hours, values = zip(*points, strict=True)
            found[name] = statistics.linear_regression(hours, values).slope
    return found


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the types of which there are more, by how many, the most first."""
    more = {name: count - before.get(name, 0.0) for name, count in after.items()}
    named = {
        name: by
        for name, by in more.items()
        if by >= max(GREW_MIN, GREW_SHARE_MIN * before.get(name, 0.0))
    }
    return dict(sorted(named.items(), key=lambda one: -one[1]))
