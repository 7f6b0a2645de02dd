"""What commands print: data on stdout, all else on stderr; for people, pipes or scripts.

    output = Output(as_json)
    output.facts({"agency": "minzdrav", "users": 3})
    output.rows(records, {"name": "NAME", "devices": "DEVICES"})
    note("expires in 3 days")                      # stderr
    with progress("verifying", entries) as advance: advance(1)

On a terminal: tables. In a pipe: a record a line, columns separated by tabs, without a heading.
With --json: one object a line, with "v": 1; a failure is one on stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

import typer

from cli.text import inert, inert_json

UNBROKEN_CHARS_MAX = 24  # a time, an id, a name: not broken where the terminal has room
FOLDED_CHARS = 12  # of a longer one beside them
FOLDED_CHARS_MIN = 8  # of any: the beginning of an id, as every command shows and takes it
GAP_CHARS = 3
Record = Mapping[str, object]

_MARKS = frozenset({"v", "type"})  # for scripts


@dataclass(frozen=True, slots=True)
class Output:
    """Prints results. as_json: of --json."""

    as_json: bool

    def facts(self, record: Record) -> None:
        """Print one record: a name and a value a line."""
        if self.as_json:
            self._object(record)
            return
        shown = {name: cell(value) for name, value in record.items() if name not in _MARKS}
        width = max(map(len, shown), default=0)
        gap = " " * 2 if sys.stdout.isatty() else "\t"
        for name, value in shown.items():
            plain = name.replace("_", " ")
            print((plain.ljust(width) if sys.stdout.isatty() else plain) + gap + value)

    def rows(self, records: Iterable[Record], columns: Mapping[str, str]) -> None:
        """Print records. columns: which fields, and their headings, for people."""
        if self.as_json:
            for record in records:
                self._object(record)
            return
        lines = [[cell(record.get(field)) for field in columns] for record in records]
        if sys.stdout.isatty():
            _table(list(columns.values()), lines)
            return
        for line in lines:
            print("\t".join(line))

    def line(self, text: str, record: Record) -> None:
        """Print one line of our own making; its record for scripts. Flushes: somebody may wait."""
        if self.as_json:
            self._object(record)
        else:
            print(text)
        sys.stdout.flush()

    def failure(self, why: str, code: int) -> None:
        """Tell on stderr, in one line, why the command ends with this exit code."""
        if self.as_json:
            self._object({"type": "failure", "exit_code": code, "why": why}, sys.stderr)
        else:
            note(f"ivor: {why}")

    def end(self, why: str, code: int) -> typer.Exit:
        """Return what ends a command of which people have read why; scripts are told here."""
        if self.as_json:
            self.failure(why, code)
        return typer.Exit(code)

    def _object(self, record: Record, file: TextIO | None = None) -> None:
        print(inert_json(json.dumps({"v": 1} | dict(record), ensure_ascii=False)), file=file)


def cell(value: object) -> str:
    """Return a value as people read it; inert, and without tabs or line breaks."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case str():
            return inert(value)
        case Sequence():
            return ", ".join(cell(item) for item in value) or "-"
        case _:
            return inert(str(value))


def note(text: str) -> None:
    """Tell the person at the terminal something that is no result."""
    print(inert(text), file=sys.stderr)


@contextmanager
def progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar while long work goes on, if there is a terminal to show it on.

    total: steps, None if not known. Gives a function to tell how many steps were done.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(inert(text), total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def transfer(text: str, size: int) -> Iterator[Callable[[int], None]]:
    """The same for bytes on their way, with their rate and the time that is left.

    Whole chunks may be told of: the last one, which is shorter, does not lead past the end.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(inert(text), total=size)
        shown = bar.tasks[0]
        yield lambda done: bar.advance(task, min(done, size - shown.completed))


def end_quietly() -> None:
    """Stop writing to a pipe that nobody reads any more, also when Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table whose short ids are whole; where it is too wide for that, a value a line."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    widths = [max(map(cell_len, column)) for column in zip(headings, *lines, strict=True)]
    gap = _gap(widths, console.width)
    whole = _whole(widths, console.width - gap * len(widths))
    if whole is None:
        _records(headings, lines)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, gap - 2))
    for at, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=at in whole)
    for line in lines:
        table.add_row(*(Text(value) for value in line))  # Text: no markup in what others wrote
    console.print(table)


def _gap(widths: Sequence[int], width: int) -> int:
    """Return how far apart columns stand: less, where something has to be broken anyway."""
    short = [one for one in widths if one <= UNBROKEN_CHARS_MAX]
    long = (len(widths) - len(short)) * FOLDED_CHARS
    return GAP_CHARS if sum(short) + long + GAP_CHARS * len(widths) - 1 <= width else GAP_CHARS - 1


def _whole(widths: Sequence[int], room: int) -> AbstractSet[int] | None:
    """Return which columns are not broken, the narrowest first; None if ids had to be."""
    taken = sum(min(width, FOLDED_CHARS_MIN) for width in widths)
    if taken > room:
        return None
    found = set()
    for at in sorted(range(len(widths)), key=widths.__getitem__):
        taken += max(0, widths[at] - FOLDED_CHARS_MIN)
        if taken > room or widths[at] > UNBROKEN_CHARS_MAX:
            break
        found.add(at)
    return found


def _records(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a heading and a value a line, and an empty line between records."""
    width = max(map(len, headings), default=0)
    for number, line in enumerate(lines):
        if number:
            print()
        for heading, value in zip(headings, line, strict=True):
            print(f"{heading.ljust(width)}  {value}")
