"""Ivor, by its own benchmarks, in the figures of the comparison."""

from collections.abc import Mapping

from bench import catch_up, live

NAME = "ivor"
ABOUT = "encrypted end to end; every entry signed and checked; an fsync at every stop"


def measure(entries: int, messages: int, rate: int, slow_rate: int) -> Mapping[str, float]:
    """Measure once."""
    lines = catch_up.measure([entries], 1)
    rates = live.measure_rates([slow_rate, rate])
    flood = live.measure_flood(messages)
    found = {(line.case, line.figure): line.median for line in (*lines, *rates, *flood)}
    slow, fast = f"{slow_rate:,} messages/s", f"{rate:,} messages/s"
    return {
        "catch_up": found[f"{entries:,} texts", "rate"],
        "p50": found[fast, "p50"],
        "p99": found[fast, "p99"],
        "flat_out": found["flat out", "rate"],
        "p50_slow": found[slow, "p50"],
        "p99_slow": found[slow, "p99"],
    }
