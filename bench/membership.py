"""Membership: a long control lane resolved from nothing, and one entry more."""

import time
from collections.abc import Sequence

from bench.figures import Line, calibrate, lines_of, progress
from protocol.dag import ControlEntry
from protocol.history import History
from protocol.membership import resolve
from protocol.operation import Admit, Operation, Remove, SetRole
from protocol.policy import Role
from protocol.testing.cast import Person, grant, person
from protocol.testing.channels import Channel
from protocol.testing.story import Story

NAME = "membership"
UNITS = {"from_nothing": "s", "one_more": "ms", "one_more_most": "ms"}
ADMINS = 4
MEMBERS = 60
FURTHER = 100
LAGS = (0, 10)  # how many of the newest entries an author has not seen


def measure(sizes: Sequence[int], readers: int, runs: int) -> list[Line]:
    """Measure control lanes of these lengths, and a channel; roles, admissions and removals."""
    found: list[Line] = []
    for size in sizes:
        for lag in LAGS:
            case = f"{size:,} entries" + (f", {lag} behind" if lag else "")
            progress(f"{NAME}: {case}")
            entries = _lane(size + FURTHER, lag)
            calib_s = calibrate()
            results = [_run(entries, size) for _ in range(runs)]
            found += lines_of(NAME, case, UNITS, results, calib_s)
    progress(f"{NAME}: a channel of {readers:,} readers")
    calib_s = calibrate()
    channel = [_channel(readers) for _ in range(runs)]
    return found + lines_of(NAME, f"channel, {readers:,} readers", UNITS, channel, calib_s)


def _channel(readers: int) -> dict[str, float]:
    """Take in readers, 32 at a time; then put out one after the other."""
    channel = Channel(person("anna@minzdrav"))
    channel.admit(0, readers)
    size = len(channel.entries)
    for number in range(FURTHER):
        channel.remove(number)
    return _run(channel.entries, size)


def _lane(size: int, lag: int) -> list[ControlEntry]:
    owner = person("anna@minzdrav")
    admins = [person(f"admin{number}@minzdrav") for number in range(ADMINS)]
    members = [person(f"member{number}@mincifry") for number in range(MEMBERS)]
    story = Story([(owner, Role.OWNER), *((admin, Role.ADMIN) for admin in admins)])
    inside: list[Person] = []
    number = 0
    while len(story.told) < size:
        author = admins[number % ADMINS]
        whom = members[number % MEMBERS]
        seen = story.told[-1 - lag :][:1] or [story.genesis]
        story.tell(author, _operation(whom, inside, number), seen)
        number += 1
    return story.entries


def _operation(whom: Person, inside: list[Person], number: int) -> Operation:
    if whom not in inside:
        inside.append(whom)
        return Admit((grant(whom, Role.MEMBER),))
    if number % 3:
        return SetRole(whom.user, Role.READER if number % 2 else Role.MEMBER, ())
    inside.remove(whom)
    return Remove(whom.user, ())


def _run(entries: Sequence[ControlEntry], size: int) -> dict[str, float]:
    begun = time.perf_counter()
    history = History()
    for entry in entries[:size]:
        history.add(entry)
    resolve(history)
    seconds = time.perf_counter() - begun
    further = []
    for entry in entries[size:]:
        begun = time.perf_counter()
        history.add(entry)
        resolve(history)
        further.append((time.perf_counter() - begun) * 1e3)
    return {
        "from_nothing": seconds,
        "one_more": sorted(further)[len(further) // 2],
        "one_more_most": max(further),
    }
