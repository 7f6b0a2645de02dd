"""What a benchmark reports: one line a figure, with its spread and the speed of the machine.

A machine shared with others drifts by a factor of two, so each line carries `calib_s`: the seconds
that a fixed load took on all cores just before. Compare figures only at like `calib_s`.
"""

import hashlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from bench.plain import aligned

CORES = 2
CALIBRATION_BLOCKS = 4_000
CALIBRATION_STEPS = 2_000_000


class Line(Struct, frozen=True, kw_only=True):
    """One figure of one case: median, least and most of some runs."""

    bench: str
    case: str
    figure: str
    unit: str
    median: float
    min: float
    max: float
    runs: int
    calib_s: float


def lines_of(
    bench: str,
    case: str,
    units: Mapping[str, str],
    runs: Sequence[Mapping[str, float]],
    calib_s: float,
) -> list[Line]:
    """Sum up runs of one case. units: by figure, in the order to show them."""
    found = []
    for figure, unit in units.items():
        values = [run[figure] for run in runs if figure in run]
        if values:
            line = Line(
                bench=bench,
                case=case,
                figure=figure,
                unit=unit,
                median=_rounded(statistics.median(values)),
                min=_rounded(min(values)),
                max=_rounded(max(values)),
                runs=len(values),
                calib_s=calib_s,
            )
            found.append(line)
    return found


def _rounded(value: float) -> float:
    """Keep four digits: what is beyond them is noise."""
    return float(f"{value:.4g}") if abs(value) < 10_000 else float(round(value))


def table(lines: Sequence[Line]) -> str:
    """Lay lines out for people, aligned."""
    rows = [("benchmark", "case", "figure", "median", "min", "max", "unit", "runs", "calib_s")]
    rows += [
        (
            line.bench,
            line.case,
            line.figure,
            f"{line.median:,g}" if line.median < 100_000 else f"{line.median:,.0f}",
            f"{line.min:,g}" if line.min < 100_000 else f"{line.min:,.0f}",
            f"{line.max:,g}" if line.max < 100_000 else f"{line.max:,.0f}",
            line.unit,
            str(line.runs),
            f"{line.calib_s:.2f}",
        )
        for line in lines
    ]
    return aligned(rows)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def progress(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def calibrate() -> float:
    """Return the seconds of a fixed load on both cores at once, the slower of them."""
    # A fork takes over locks that threads of ours may hold.
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        return round(max(pool.map(_load, range(CORES), chunksize=1)), 3)


def _load(_: int) -> float:
    begun = time.perf_counter()
    digest = hashlib.sha256()
    block = b"x" * 65536
    for _ in range(CALIBRATION_BLOCKS):
        digest.update(block)
    seen = {}
    for step in range(CALIBRATION_STEPS):
        seen[step & 1023] = step
    return time.perf_counter() - begun


def encoded(line: Line) -> str:
    """Return a line as JSON."""
    return msgspec.json.encode(line).decode()
