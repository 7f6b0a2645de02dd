"""`ivor recovery show`, `backup`, `recover`: what a user keeps for the day a device is lost."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, fetch, now_ms, opened
from cli.options import Json, PassphraseFile, PhraseFile
from cli.output import Output, note, progress
from cli.text import when
from node.words import counted

if TYPE_CHECKING:
    from client.backup import Contents
    from client.device import Device

recovery = typer.Typer(help="The words that restore your identity.", no_args_is_help=True)
PHRASE_CHARS_MAX: Final = 4096
COLUMNS: Final = 4
_TO_COME: Final = "'ivor sync' fetches what your node has of it"
_NOWHERE: Final = (
    "your node has no more of that now. What others bring it comes with a later 'ivor sync'; what "
    "the lost device had not sent, and what is of chats that you are no longer in, may never come"
)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(recovery, name="recovery", rich_help_panel="Official")
    app.command(rich_help_panel="Official")(backup)
    app.command(rich_help_panel="Official")(recover)


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


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; an older one is replaced.")],
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write down what this device has read and whom it knows, sealed to your recovery words."""
    from client import backup as backups
    from client.mailbox import readable

    with opened(home, passphrase_file) as device:
        with progress("writing the backup", readable(device)) as advance:
            made = backups.save(device, file, now_ms(), advance)
        Output(as_json).facts(_contents(made) | {"file": str(file)})
    note("only your recovery words open it; it revives no device, so keep it as you keep letters")


def recover(
    file: Annotated[Path, typer.Argument(help="A backup of one of your devices.")],
    *,
    phrase_file: PhraseFile = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Bring back what a lost device had read, each message proved by the signed log."""
    from client import backup as backups
    from client.link import SYNCED
    from node.errors import EvidenceError, IdentityError

    with opened(home, passphrase_file) as device:
        seed = _seed(device, phrase_file)
        with progress("checking the backup", backups.size(file)) as advance:
            contents = backups.check(device, file, seed, advance)
        begun = now_ms()
        problem = fetch(device)
        even = device.done_at(SYNCED) >= begun
        found = backups.take_up(device, file, seed, contents)
        Output(as_json).facts(
            _contents(contents)
            | {
                "proved": found.proved,
                "known": found.known,
                "waiting": found.waiting,
                "refused": found.refused,
                "redacted_or_aged": found.gone,
                "chats_not_here": found.missing,
                "changed": list(found.changed),
            }
        )
    if found.waiting:
        waiting = counted(found.waiting, "message waits", "messages wait")
        note(f"{waiting} for the signed log: {_NOWHERE if even else _TO_COME}")
    if problem is not None:
        note(f"the node was not asked: {problem}")
    for name in found.changed:
        note(f"{name} has another identity than your lost device knew: run 'ivor verify {name}'")
    if found.refused:
        refused = counted(found.refused, "message fits", "messages fit")
        raise EvidenceError(f"{refused} no signed header: not taken")
    if found.changed:
        raise IdentityError("somebody's identity has changed since the backup was made")


def _seed(device: "Device", phrase_file: Path | None) -> bytes:
    from crypto.signing import Signer
    from node.errors import IdentityError

    if device.secrets.user is not None and phrase_file is None:
        return device.secrets.user.seed
    seed = read_phrase(phrase_file)
    if Signer(seed).public != device.profile.user.user:
        raise IdentityError(f"these are not the recovery words of {device.profile.name}")
    return seed


def _contents(contents: "Contents") -> dict[str, object]:
    return {
        "made": when(contents.made),
        "device": contents.device.hex(),
        "label": contents.label,
        "messages": contents.letters,
        "people": contents.people,
        "chats": contents.chats,
    }


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
