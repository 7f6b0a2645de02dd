"""Evidence: a file of many messages, made and checked."""

import time
from collections.abc import Sequence

from bench.figures import Line, calibrate, lines_of, progress
from protocol.evidence import check
from protocol.policy import Role
from protocol.testing.cast import person
from protocol.testing.exhibits import Record

NAME = "evidence"
UNITS = {"checked": "s", "anchored": "s", "bytes": "bytes/message"}
AUTHORS = 4
TEXT = "отчёт о закупках передан в казначейство; the annex follows by Friday. " * 2


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure files of so many messages by four people, under a checkpoint every 1,000."""
    found: list[Line] = []
    for size in sizes:
        progress(f"{NAME}: {size:,} messages")
        raw, anchors = _file(size)
        calib_s = calibrate()
        results = [
            {
                "checked": _seconds(raw, {}),
                "anchored": _seconds(raw, anchors),
                "bytes": len(raw) / size,
            }
            for _ in range(runs)
        ]
        found += lines_of(NAME, f"{size:,} messages", UNITS, results, calib_s)
    return found


def _file(size: int) -> tuple[bytes, dict[str, str]]:
    people = [person(f"author{number}@minzdrav") for number in range(AUTHORS)]
    talk = Record.of([(who, Role.OWNER) for who in people])
    for number in range(size):
        talk.write(people[number % AUTHORS], f"{number} {TEXT}")
        if number % 1000 == 999:  # as in SPEC 2.7
            talk.checkpoint(people[0])
    talk.checkpoint(people[0])
    raw = talk.file()
    return raw, {one.name: one.fingerprint for one in check(raw).charters}


def _seconds(raw: bytes, anchors: dict[str, str]) -> float:
    begun = time.perf_counter()
    check(raw, anchors)
    return time.perf_counter() - begun
