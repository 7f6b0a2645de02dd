"""`ivor recovery show`: the 24 words that a user writes down for the day a device is lost."""

import sys
from pathlib import Path
from typing import Final

import typer

from cli.opening import Home, opened
from cli.options import Json, PassphraseFile
from cli.output import Output, note

recovery = typer.Typer(help="The words that restore your identity.", no_args_is_help=True)
PHRASE_CHARS_MAX: Final = 4096
COLUMNS: Final = 4


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(recovery, name="recovery", rich_help_panel="Official")


@recovery.callback()
def _recovery() -> None:
    """The words that restore your identity."""


@recovery.command()
def show(
    *, home: Home = None, passphrase_file: PassphraseFile = None, as_json: Json = False
) -> None:
    """Show your 24 recovery words, on a terminal only (or with --json, for scripts)."""
    from client.phrase import phrase_of
    from node.errors import RefusedError, UserError

    if not as_json and not sys.stdout.isatty():
        raise UserError(
            "the recovery words are shown on a terminal only, so that they end up in no file by "
            "accident; a script that means it gives --json"
        )
    with opened(home, passphrase_file) as device:
        user = device.secrets.user
        if user is None:
            raise RefusedError(
                "this device was linked to another one: the words are on your first device, "
                "which holds your identity key"
            )
        words = phrase_of(user.seed)
    Output(as_json).line(_numbered(words), {"type": "recovery phrase", "words": words})
    note("write them on paper and lock that away: who has them can be you, if your agency agrees")


def _numbered(words: tuple[str, ...]) -> str:
    cells = [f"{number:2} {word:<10}" for number, word in enumerate(words, 1)]
    rows = [cells[at : at + COLUMNS] for at in range(0, len(cells), COLUMNS)]
    return "\n".join("".join(row).rstrip() for row in rows)


def read_phrase(file: Path | None) -> bytes:
    """Return the seed of the recovery words in a file, or typed. Raises UserError."""
    from client.phrase import seed_of
    from node.errors import UserError

    if file is None:
        if not sys.stdin.isatty():
            raise UserError("no terminal to ask for the recovery words: give --phrase-file FILE")
        return seed_of(typer.prompt("Your 24 recovery words", err=True))
    try:
        with file.open(encoding="utf-8") as stream:
            return seed_of(stream.read(PHRASE_CHARS_MAX))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{file} with the recovery words cannot be read: {reason}") from None
