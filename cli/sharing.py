"""`ivor chat share`: what was said before somebody joined, given to them by a member."""

from typing import Annotated, Final

import typer

from cli.opening import Home, change, locate, now_ms, opened
from cli.options import COUNT_MAX, Json, PassphraseFile
from cli.writing import ChatName

LAST: Final = 1000


def register(chat: typer.Typer) -> None:
    """Add the command to those of a chat."""
    chat.command()(share)


def share(
    name: ChatName,
    *,
    last: Annotated[
        int, typer.Option(help="How many messages, the newest.", min=1, max=COUNT_MAX)
    ] = LAST,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give earlier messages to members who joined later; all see that you did.

    Only in a chat whose policy says that history is shared, and only what was said since then.
    """
    with opened(home, passphrase_file) as device:
        from client import sharing

        judge = locate(device, name)
        made = change(device, [], lambda _: sharing.share(device, judge.id, last, now_ms()))
        facts = {"chat": judge.id.hex(), "shared": made.result.messages}
        made.tell(as_json, facts | {"left_out": made.result.left_out})
