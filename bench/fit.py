"""The power law that measured points follow: y = a·x^b, a straight line on logarithmic axes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bench.figures import Line


class Point(NamedTuple):
    """One measured case."""

    x: float
    median: float
    least: float
    most: float


def points(lines: Sequence[Line], bench: str, case: str, figure: str) -> list[Point]:
    """Return the points of one figure, by the number that stands before its case."""
    found = {}
    for line in lines:
        number, _, rest = line.case.partition(" ")
        if (line.bench, rest, line.figure) == (bench, case, figure):
            x = float(number.replace(",", ""))
            found[x] = Point(x, line.median, line.min, line.max)
    return [found[x] for x in sorted(found)]


def exponent(values: Sequence[Point]) -> float:
    """Return the b of the y = a·x^b that fits best, by least squares of the logarithms."""
    xs = [math.log(point.x) for point in values]
    ys = [math.log(point.median) for point in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


def centre(values: Sequence[Point]) -> tuple[float, float]:
    """Return the point through which every fitted line goes."""
    count = len(values)
    x = math.exp(sum(math.log(point.x) for point in values) / count)
    return x, math.exp(sum(math.log(point.median) for point in values) / count)
