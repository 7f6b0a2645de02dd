"""How costs grow: each over three decades, for the plots of `bench.plots`.

The figures are those of the benchmarks of the same names, at more sizes. `--quick` takes one
decade less.
"""

from collections.abc import Sequence

from bench import catch_up, epochs, live, reconnect
from bench.figures import Line

NAME = "growth"
HISTORIES: Sequence[int] = (100, 1_000, 10_000, 100_000)
CHATS: Sequence[int] = (100, 1_000, 10_000, 100_000)
DEVICES: Sequence[int] = (2, 10, 100, 1_000)
RATES: Sequence[int] = (2, 20, 200, 2_000)


def measure(decades: int, runs: int) -> list[Line]:
    """Measure over so many decades, from the smallest sizes on."""
    sizes = slice(decades + 1)
    return [
        *catch_up.measure(HISTORIES[sizes], runs),
        *reconnect_at(CHATS[sizes], runs),
        *live.measure_rates(RATES[sizes]),
        *epochs.measure(DEVICES[sizes], runs),
    ]


def reconnect_at(chats: Sequence[int], runs: int) -> list[Line]:
    """Measure reconnecting with these numbers of chats."""
    return [line for count in chats for line in reconnect.measure(count, runs)]
