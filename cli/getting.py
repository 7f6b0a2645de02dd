"""`ivor get`: write a file that came in a message into the current folder."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.file_letters import file_record
from cli.opening import Home, fetch, locate, opened
from cli.options import Json, PassphraseFile
from cli.output import Output, note
from cli.writing import ChatName, MessageId


def _here(name: str) -> Path:
    """Return where a file goes. Raises UserError for a name that this system cannot write."""
    from node.errors import UserError

    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise UserError(
            f"file names here are {sys.getfilesystemencoding()}, which has no {name!r}: give "
            "another name with --output, or set LC_ALL=C.UTF-8"
        ) from None
    return Path.cwd() / name


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command(rich_help_panel="Official")(get)


def get(
    chat: ChatName,
    message_id: MessageId,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write it [its name, in this folder]."),
    ] = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write the file of a message here, under its name. Nothing is ever overwritten.

    A large one is fetched first; what has come stays, so a second try goes on from there.
    """
    with opened(home, passphrase_file) as device:
        from cli.attaching import write_file
        from client.files import find_file, write_new
        from protocol.attachment import Attachment

        chat_id = locate(device, chat).id
        problem = fetch(device)  # it may be redacted since, or yet to come
        place, file = find_file(device, chat_id, message_id)
        path = _here(file.name) if output is None else output
        if isinstance(file, Attachment):
            write_file(device, chat_id, place, file, path)
        else:
            write_new(path, file.data)
        if problem is not None:
            note(f"what is here; {problem}")
        Output(as_json).facts(
            {"type": "file"} | file_record(file) | {"written": str(path)},
        )
