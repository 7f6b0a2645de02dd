"""`python -m tests.soak.plot FILE…`: draw what a soak has written, as FILE.svg and FILE.png.

Needs the extra `bench`. Each process is a line, each fault a stroke behind them; a
node that was killed begins a new line.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.soak.figures import Happened, Record, Sample, read, slopes

PANELS: Final = (
    ("rss_mib", "memory, MiB (RSS)"),
    ("sqlite_mib", "memory of SQLite, MiB"),
    ("fds", "open descriptors"),
    ("tasks", "tasks of trio"),
    ("blocks", "blocks of memory that Python has given out"),
    ("p99", "delivery, p99, ms"),
    ("disk_mib", "disk, MiB, journal included"),
)
COLOURS: Final = {
    "killed": "#d62728",
    "cut": "#ff7f0e",
    "drop": "#ff7f0e",
    "frozen": "#1f77b4",
    "visits": "#7f7f7f",
}
LOGARITHMIC: Final = frozenset({"p99"})


class Curve(NamedTuple):
    """One process from one of its starts on. label: none but for the first of a process."""

    colour: str
    label: str | None
    minutes: list[float]
    values: list[float]


def draw(records: Sequence[Record], targets: Sequence[Path]) -> None:
    """Draw into these files."""
    figure = Figure(figsize=(12, 15), layout="constrained")
    samples = [one for one in records if isinstance(one, Sample)]
    faults = [one for one in records if isinstance(one, Happened) and one.how in COLOURS]
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    for panel, (name, title) in zip(panels, PANELS, strict=True):
        for curve in _curves(name, samples):
            panel.plot(
                curve.minutes, curve.values, color=curve.colour, label=curve.label, linewidth=1.1
            )
        for one in faults:
            panel.axvline(one.at / 60, color=COLOURS[one.how], alpha=0.25, linewidth=0.8)
        panel.set_yscale("log" if name in LOGARITHMIC else "linear")
        panel.set_ylabel(title, fontsize=9)
        panel.grid(alpha=0.25)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    panels[-1].set_xlabel("minutes")
    panels[0].set_title(_title(samples), loc="left", fontsize=10)
    for target in targets:
        figure.savefig(target, dpi=110)


def _curves(name: str, samples: Sequence[Sample]) -> Iterator[Curve]:
    named = [one for one in samples if name in one.values]
    for number, who in enumerate(sorted({one.who for one in named})):
        label: str | None = who
        for _, lived in groupby(
            (one for one in named if one.who == who), key=lambda one: one.starts
        ):
            points = [(one.at / 60, one.values[name]) for one in lived]
            minutes, values = zip(*points, strict=True)
            yield Curve(f"C{number}", label, list(minutes), list(values))
            label = None


def _title(samples: Sequence[Sample]) -> str:
    first = samples[0].who
    grew = slopes([one for one in samples if one.who == first])
    told = ", ".join(f"{name} {by:+.2f}" for name, by in grew.items())
    faults = "strokes: red killed, orange cut, blue stood still, grey visitors"
    return f"{first}, growth an hour after a quarter of the time: {told}\n{faults}"


def main(files: Sequence[str]) -> None:
    """Draw each file."""
    mpl.use("agg")
    for file in map(Path, files):
        targets = [file.with_suffix(suffix) for suffix in (".svg", ".png")]
        draw(read(file), targets)
        print(*targets, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
