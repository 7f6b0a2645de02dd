"""`ivor search`: find what was said, in one chat or in all."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, bring_in, locate, now_ms, opened
from cli.options import COUNT_MAX, Json, PassphraseFile
from cli.output import Output, note

if TYPE_CHECKING:
    from client.mailbox import Letter
    from protocol.entry import ChatId

LIMIT: Final = 50


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command(rich_help_panel="Official")(search)


def search(
    words: Annotated[list[str], typer.Argument(help="All of these, each the beginning of a word.")],
    *,
    chat: Annotated[str | None, typer.Option(help="Only in this chat.")] = None,
    limit: Annotated[
        int, typer.Option(help="At most so many, the newest.", min=1, max=COUNT_MAX)
    ] = LIMIT,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Find messages by their words, in all that this device can read."""
    with opened(home, passphrase_file) as device:
        from cli.letters import show_found
        from client.chats import summary
        from client.compose import require
        from client.reading import Reader
        from client.search import search as find

        bring_in(device)
        within = None if chat is None else locate(device, chat).id
        by_chat: dict[ChatId, list[Letter]] = {}
        for letter in find(device, " ".join(words), within, limit):
            by_chat.setdefault(letter.chat, []).append(letter)
        for at, letters in by_chat.items():
            judge = require(device, at)
            reader = Reader(device, judge, now_ms())
            lines = [reader.line(letter) for letter in letters]
            show_found(Output(as_json), summary(device, judge), lines)
        if not by_chat:
            note("nothing found")
