"""Spread: the tree of a large chat, on a simulated network of as many nodes, some of them down.

Everything of `protocol.spread` is real, the links are not: 10 to 50 ms each way, drawn once a link.
Ten messages of one author warm the tree up; then five are measured, by five authors. For a share of
nodes that fail, they die before each of these, and nobody has noticed when it is written.
"""

import statistics
from collections.abc import Sequence
from random import Random

from bench.figures import Line, calibrate, lines_of, progress
from protocol.testing.histories import Dice
from protocol.testing.swarm import Message, Swarm

NAME = "spread"
UNITS = {
    "reached": "%",
    "redundancy": "payloads",
    "hops": "hops",
    "all": "ms",
    "sent": "B/node",
    "control": "frames/node",
}
WARM_UP = 10
MEASURED = 5
SETTLE_SECONDS = 3.0
PATIENCE_SECONDS = 10.0
FAILING = (0.0, 0.1, 0.3)


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure swarms of these sizes, each with no, some and many nodes down."""
    lines: list[Line] = []
    calib_s = calibrate()
    for count in sizes:
        for share in FAILING:
            case = f"{count:,} nodes, {share:.0%} fail"
            progress(f"{NAME}: {case}")
            found = [_figures(count, share, seed) for seed in range(runs)]
            lines += lines_of(NAME, case, UNITS, found, calib_s)
        case = f"{count:,} nodes, the first message"
        lines += lines_of(NAME, case, UNITS, [_cold(count)], calib_s)
    return lines


def _cold(count: int) -> dict[str, float]:
    """Measure what a chat's very first message costs, before there is a tree."""
    swarm = Swarm(Dice(0), count)
    return _summed(swarm, [_written(swarm, swarm.names[0])])


def _figures(count: int, share: float, seed: int) -> dict[str, float]:
    swarm, dice = Swarm(Dice(seed), count), Random(seed)
    names = swarm.names
    for _ in range(WARM_UP):
        swarm.write(names[0])
        swarm.run(SETTLE_SECONDS)
    authors = [names[number * len(names) // MEASURED] for number in range(MEASURED)]
    others = [name for name in names if name not in authors]
    down = dice.sample(others, int(share * len(names)))
    before = sum(swarm.sent.values()), sum(swarm.frames.values())
    messages = []
    for number, author in enumerate(authors):
        dying = down[number::MEASURED]
        swarm.kill(dying)
        messages.append(_written(swarm, author))
        swarm.notice(dying)
    return _summed(swarm, messages, *before)


def _written(swarm: Swarm, author: bytes) -> Message:
    message = swarm.write(author)
    swarm.run(PATIENCE_SECONDS)
    return message


def _summed(
    swarm: Swarm, messages: Sequence[Message], sent: int = 0, frames: int = 0
) -> dict[str, float]:
    """Return means of a message. redundancy: payloads that a node gets beyond the one it needs."""
    living = len(swarm.alive)
    reached = [len(swarm.alive & message.reached.keys()) / living for message in messages]
    payloads = [message.payloads / (len(message.reached) - 1) - 1 for message in messages]
    share = len(messages) * len(swarm.names)
    return {
        "reached": 100 * statistics.mean(reached),
        "redundancy": statistics.mean(payloads),
        "hops": max(message.hops for message in messages),
        "all": 1e3 * statistics.mean(message.seconds for message in messages),
        "sent": (sum(swarm.sent.values()) - sent) / share,
        "control": (sum(swarm.frames.values()) - frames) / share,
    }
