"""`ivor read`: what was said in a chat, and what is being said."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, bring_in, locate, now_ms, opened
from cli.options import COUNT_MAX, Json, PassphraseFile
from cli.output import Output, note
from cli.writing import ChatName

if TYPE_CHECKING:
    from client.device import Device
    from client.reading import Line
    from protocol.chat import Chat

LIMIT: Final = 50
EVERYTHING: Final = -1  # SQLite's LIMIT for no limit
_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command(rich_help_panel="Official")(read)


def read(
    chat: ChatName,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as messages come.")] = False,
    since: Annotated[
        str | None, typer.Option(help="A time such as 2026-05-01 or 2026-05-01T08:00Z, or 2h, 3d.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help=f"At most so many [{LIMIT}; all with --since].", min=0, max=COUNT_MAX),
    ] = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Read a chat. What others wrote is shown inert; what is doubtful is marked."""
    start = 0 if since is None else read_since(since, datetime.now(UTC))
    most = limit if limit is not None else (LIMIT if since is None else EVERYTHING)
    output = Output(as_json)
    with opened(home, passphrase_file) as device:
        judge = locate(device, chat)
        if not follow:
            _read_once(device, judge, start, most, output)
            _note_beside(device, judge)
            return
        _note_beside(device, judge)
        try:
            _follow(device, judge, start, most, output)
        except KeyboardInterrupt:
            return


def _note_beside(device: "Device", judge: "Chat") -> None:
    """Name a second direct chat with the same person: what is said there is not shown here."""
    from client.chats import SHORT_CHARS, beside
    from client.compose import require

    for other in beside(device, require(device, judge.id)):
        note(f"each of you has begun a direct chat: 'ivor read {other.hex()[:SHORT_CHARS]}' too")


def _read_once(device: "Device", judge: "Chat", since: int, limit: int, output: Output) -> None:
    """Show the end of the chat: at once and as a preview, if most of it is yet to come."""
    from cli.letters import show

    previewed = []

    def ahead(lines: "Sequence[Line]") -> None:
        found = [line for line in lines if line.letter.time >= since]
        show(output, found if limit == EVERYTHING else found[max(0, len(found) - limit) :])
        previewed.append(len(found))

    bring_in(device, lambda link: link.preview(judge.id, ahead))
    if not previewed:
        _show(device, judge, since, limit, output)
        return
    note("the end of the chat, before the rest is here; 'ivor sync' fetches it")


def read_since(text: str, now: datetime) -> int:
    """Read a time, or how long ago; in milliseconds. Raises UserError."""
    from node.errors import UserError

    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UserError(
            f"{text!r} is no time: give one such as 2026-05-01T08:00Z (UTC), or 2h, 3d, 1w"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))


def _catch_up(device: "Device") -> None:
    """Open what other commands have fetched and left sealed."""
    from client.arrivals import take_in

    with device.transaction():
        take_in(device, now_ms())


def _show(device: "Device", judge: "Chat", since: int, limit: int, output: Output) -> None:
    from cli.letters import show
    from client.compose import require
    from client.reading import Reader, letters

    fresh = require(device, judge.id)
    reader = Reader(device, fresh, now_ms())
    show(output, [reader.line(letter) for letter in letters(device, fresh, since, limit)])
    if device.key not in fresh.membership().devices:
        note("this device is not in the chat: what is written there now does not come here")


def _follow(device: "Device", judge: "Chat", since: int, limit: int, output: Output) -> None:
    import trio

    from cli.letters import show
    from client.following import follow
    from client.reading import Follower

    _catch_up(device)
    follower = Follower(device, judge)
    _show(device, judge, since, limit, output)

    def new(lines: "Sequence[Line]") -> None:
        show(output, lines)

    trio.run(follow, device, judge.id, follower, new, note)
