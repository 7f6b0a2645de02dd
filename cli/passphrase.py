"""Passphrases: from a file for services and scripts, else asked for on the terminal."""

import getpass
import sys
from pathlib import Path
from typing import Final

from cli.output import note
from node.errors import UserError

FILE_BYTES_MAX: Final = 1024
TYPED_CHARS_MIN: Final = 8
COPIES: Final = "copies and backups of the file from before open with the old passphrase"
_OTHERS: Final = 0o077


def read_passphrase(file: Path | None, what: str) -> bytes:
    """Return an existing passphrase. what: whose, such as "the node's keys"."""
    return _from_file(file) if file is not None else _typed(f"Passphrase of {what}: ")


def new_passphrase(file: Path | None, what: str) -> bytes:
    """Return a passphrase for something new; a typed one is asked for twice."""
    if file is not None:
        return _from_file(file)
    typed = _typed(f"New passphrase for {what}: ")
    if len(typed) < TYPED_CHARS_MIN:
        raise UserError(f"a passphrase of fewer than {TYPED_CHARS_MIN} characters; choose another")
    if typed != _typed("The same again: "):
        raise UserError("the two passphrases differ; nothing was made, try again")
    return typed


def _from_file(file: Path) -> bytes:
    try:
        if file.is_file() and file.stat().st_mode & _OTHERS:
            note(f"warning: others may read {file}; run 'chmod 600 {file}'")
        with file.open("rb") as stream:
            found = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(f"passphrase file {file} cannot be read: {error.strerror}") from None
    found = found.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(found) <= FILE_BYTES_MAX:
        raise UserError(f"passphrase file {file} must hold 1 to {FILE_BYTES_MAX} bytes")
    return found


def _typed(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise UserError(
            "no terminal to ask for a passphrase: give --passphrase-file FILE, "
            "or set IVOR_PASSPHRASE_FILE"
        )
    return getpass.getpass(prompt, stream=sys.stderr).encode()
