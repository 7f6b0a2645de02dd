"""Draws how costs grow: `python -m bench.plots [LINES] [FOLDER]`; needs the extra `bench`.

LINES are what `python -m bench growth --json` prints. Each picture is one figure against one size,
on logarithmic axes, with the power law that fits it and, thin, the slope that it should have.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import msgspec
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.figures import Line
from bench.fit import Point, centre, exponent, points
from bench.processes import ROOT

RESULTS = ROOT / "bench" / "results"
INK, SOFT, GRID = "#1b2a3a", "#7b8794", "#e4e7eb"
COLOURS = ("#1f6feb", "#d1495b")
INCHES = (6.4, 4.0)
DOTS_INCH = 160
HEADROOM = 2.0  # of the greatest value and of the least, beyond the points
FLAT = 30.0  # a range so small is labelled within its decades


class Picture(NamedTuple):
    """What to draw: some figures of one benchmark, over the number that their case begins with.

    ideal: the exponent that the cost should have.
    """

    name: str
    title: str
    bench: str
    case: str
    figures: tuple[tuple[str, str], ...]
    x: str
    y: str
    ideal: float


PICTURES = (
    Picture(
        "growth-catch-up",
        "Catch-up rate against history",
        "catch-up",
        "texts",
        (("rate", "catch-up"), ("limit", "limit: hashes, checks, inserts alone")),
        "entries in the chat",
        "entries a second",
        0,
    ),
    Picture(
        "growth-reconnect",
        "Reconnect cost against chats shared, nothing new",
        "reconnect",
        "chats, nothing new",
        (("time", "time"),),
        "chats that both nodes hold",
        "milliseconds",
        0,
    ),
    Picture(
        "growth-live",
        "Live latency against load",
        "live",
        "messages/s",
        (("p50", "median"), ("p99", "99th percentile")),
        "messages a second",
        "milliseconds, device to device",
        0,
    ),
    Picture(
        "growth-epoch",
        "Epoch cost against devices",
        "epoch",
        "devices",
        (("start", "start, by its author"), ("open", "open, by each other device")),
        "devices in the chat",
        "milliseconds",
        1,
    ),
    Picture(
        "growth-memory",
        "Memory of a node against entries taken in",
        "catch-up",
        "texts",
        (("peak_receiver", "receiver, peak"), ("peak_sender", "sender, peak")),
        "entries in the chat",
        "MiB",
        0,
    ),
)


def draw(picture: Picture, lines: Sequence[Line], folder: Path) -> bool:
    """Write a picture as SVG and PNG; return False if there is nothing to draw."""
    series = [
        (points(lines, picture.bench, picture.case, figure), label)
        for figure, label in picture.figures
    ]
    series = [(values, label) for values, label in series if len(values) > 1]
    if not series:
        return False
    figure, axes = plt.subplots(figsize=INCHES, layout="constrained")
    _frame(axes, picture, series)
    for (values, label), colour in zip(series, COLOURS, strict=False):
        _draw_series(axes, values, label, colour)
    _draw_ideal(axes, series[0][0], picture.ideal)
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9, labelcolor=INK)
    for kind in ("svg", "png"):
        # Without a date the same lines give the same bytes.
        figure.savefig(
            folder / f"{picture.name}.{kind}",
            dpi=DOTS_INCH,
            metadata={"Date": None} if kind == "svg" else None,
        )
    plt.close(figure)
    return True


def _frame(axes: Axes, picture: Picture, series: Sequence[tuple[list[Point], str]]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    grows = " and ".join(f"$n^{{{round(exponent(values), 2) + 0.0:.2f}}}$" for values, _ in series)
    axes.set_title(f"{picture.title}: {grows}", loc="left", fontsize=11, color=INK, pad=12)
    axes.set_xlabel(picture.x, color=INK)
    axes.set_ylabel(picture.y, color=INK)
    least = min(point.least for values, _ in series for point in values)
    most = max(point.most for values, _ in series for point in values)
    axes.set_ylim(least / HEADROOM, most * HEADROOM)
    flat = most / least < FLAT
    for axis, subs in ((axes.xaxis, (1.0,)), (axes.yaxis, (1.0, 2.0, 5.0) if flat else (1.0,))):
        axis.set_major_locator(LogLocator(10, subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(b=True)
    axes.tick_params(colors=SOFT, which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_series(axes: Axes, values: Sequence[Point], label: str, colour: str) -> None:
    xs = [point.x for point in values]
    ys = [point.median for point in values]
    spread = [
        [point.median - point.least for point in values],
        [point.most - point.median for point in values],
    ]
    axes.errorbar(
        xs, ys, spread, fmt="o", color=colour, markersize=6, capsize=3, label=label, zorder=3
    )
    power, (middle, height) = exponent(values), centre(values)
    fitted = [height * (x / middle) ** power for x in xs]
    axes.plot(xs, fitted, color=colour, linewidth=1.6, alpha=0.55)


def _draw_ideal(axes: Axes, values: Sequence[Point], ideal: float) -> None:
    middle, height = centre(values)
    xs = [values[0].x, values[-1].x]
    ys = [height * (x / middle) ** ideal for x in xs]
    label = "should be constant" if ideal == 0 else f"should grow as $n^{{{ideal:g}}}$"
    axes.plot(xs, ys, color=SOFT, linewidth=0.8, linestyle=(0, (6, 3)), label=label)


def main(arguments: Sequence[str]) -> None:
    """Draw every picture for which there are lines."""
    source = Path(arguments[0]) if arguments else RESULTS / "growth.jsonl"
    folder = Path(arguments[1]) if len(arguments) > 1 else RESULTS
    if not source.exists():
        sys.exit(f"{source} is not there: python -m bench growth --json > {source}")
    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "ivor", "font.family": "sans-serif"})
    lines = [msgspec.json.decode(line, type=Line) for line in source.read_bytes().splitlines()]
    for picture in PICTURES:
        if draw(picture, lines, folder):
            print(folder / f"{picture.name}.svg")
        else:
            print(f"{picture.name}: {source} has no figures for it", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
