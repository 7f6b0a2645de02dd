"""Card files, as commands take them, and what they say of one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.output import Record

if TYPE_CHECKING:
    from protocol.identity import Card

FILE_CHARS_MAX: Final = 64 * 1024
CardFile = Annotated[
    Path, typer.Argument(metavar="CARD", help="The card's file; - for stdin.", show_default=False)
]


def card_text(file: Path) -> str:
    """Read a card's file. Raises UserError if it cannot be read; what it says is not looked at."""
    from node.errors import UserError
    from node.words import reason

    try:
        if str(file) == "-":
            return sys.stdin.read(FILE_CHARS_MAX)
        with file.open(encoding="utf-8") as stream:
            return stream.read(FILE_CHARS_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"card {file} cannot be read: {reason(error)}; ask the agency for it"
        ) from None


def card_facts(card: "Card") -> Record:
    """Return what is printed of a card that is one's own agency's now."""
    return {
        "agency": card.charter.name,
        "fingerprint": card.charter.fingerprint,
        "card_serial": card.charter.serial,
        "addresses": card.endpoints,
    }
