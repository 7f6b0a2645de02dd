"""Tables as plain text: words to the left, numbers to the right."""

from collections.abc import Sequence

NUMBER = frozenset("0123456789.,-+e")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns; the first row is the heading. A column of numbers stands right."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(set(cell) <= NUMBER for cell in column[1:]) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    )
