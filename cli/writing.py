"""`ivor send`, `react`, `edit`: write into a chat; what has no network yet is queued."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from cli.opening import (
    NOT_CONFIRMED,
    Home,
    addresses,
    change,
    fetch,
    locate,
    now_ms,
    opened,
    tell_of,
)
from cli.options import Json, PassphraseFile
from cli.output import Output, note

if TYPE_CHECKING:
    from client.device import Device
    from client.link import Link, Silent
    from node.errors import IvorError
    from protocol.chat import Chat
    from protocol.entry import ChatId, Reference
    from protocol.errors import PeerError
    from protocol.identity import UserId
    from protocol.message import Message

ChatName = Annotated[
    str, typer.Argument(help="A title, the beginning of an id, or anna@minzdrav.", metavar="CHAT")
]
MessageId = Annotated[
    str, typer.Argument(help="The message: the beginning of its id.", metavar="ID")
]

SETTLE_SECONDS: Final = 3.0
BUSY_SECONDS: Final = 10.0  # for each, once it is written: a node that has just started is busy
WAIT_SECONDS: Final = 30.0
NOT_IN_TIME: Final = 3
STDIN: Final = "-"


class Wait(StrEnum):
    """How far a message must be before the command ends."""

    STORED = "stored"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    panel = "Official"
    app.command(rich_help_panel=panel)(send)
    app.command(rich_help_panel=panel)(react)
    app.command(rich_help_panel=panel)(edit)


def send(
    chat: ChatName,
    text: Annotated[
        str | None,
        typer.Argument(help="What to say; - reads it from stdin. After -- it may begin with -."),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(help="A file to send, of up to 15 GiB; the text may be left out."),
    ] = None,
    reply_to: Annotated[
        str | None, typer.Option(help="Id of the message that this answers.", metavar="ID")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Send once under this key, however often called.")
    ] = None,
    wait: Annotated[
        Wait | None,
        typer.Option(help="Return when our node, or each agency of the chat, stores it; else 3."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for --wait.", min=0.0)] = WAIT_SECONDS,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Send a message. Without a network it is queued, and goes with the next command."""
    words = _words(text) if file is None or text else ""
    with opened(home, passphrase_file) as device:
        from client.chats import find_letter
        from protocol.message import Text

        with _told_if_written(device) as begun:
            met = _meet_node(device, *_chat_for(device, chat, idempotency_key))
            if file is not None:
                place = _store_file(device, met, file, words, reply_to, idempotency_key, begun)
            else:
                reply = None if reply_to is None else find_letter(device, met.chat.id, reply_to)
                place = _store(device, met.chat, Text(words, reply), idempotency_key, begun)
            _deliver(device, met, place, wait, timeout, Output(as_json))


def react(
    chat: ChatName,
    message_id: MessageId,
    reaction: Annotated[str, typer.Argument(help="Such as 👍; empty takes it back.")],
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """React to a message."""
    with opened(home, passphrase_file) as device:
        from client.chats import find_letter
        from protocol.message import Reaction

        with _told_if_written(device) as begun:
            met = _meet_node(device, locate(device, chat))
            made = Reaction(find_letter(device, met.chat.id, message_id), reaction)
            place = _store(device, met.chat, made, None, begun)
            _deliver(device, met, place, None, 0, Output(as_json))


def edit(
    chat: ChatName,
    message_id: MessageId,
    text: Annotated[str | None, typer.Argument(help="The new text; - reads it from stdin.")] = None,
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give a message of yours a new text; the old one stays in the log."""
    words = _words(text)
    with opened(home, passphrase_file) as device:
        from client import compose
        from client.chats import find_letter

        with _told_if_written(device) as begun:
            met = _meet_node(device, locate(device, chat))
            place = find_letter(device, met.chat.id, message_id)
            with device.transaction():
                begun()
                written = compose.edit(device, met.chat.id, place, words, now_ms())
            _deliver(device, met, written, None, 0, Output(as_json))


@contextmanager
def _told_if_written(device: "Device") -> Iterator[Callable[[], object]]:
    """Say at an interruption, wherever it comes, whether a message is written.

    Else its author, who has seen nothing, would write it again, or not. Call what is yielded as the
    transaction begins: before that it is other commands, and decisions of owners, that write.
    """
    from client.mailbox import latest, written_since

    before: list[int] = []
    try:
        yield lambda: before.append(latest(device))
    except KeyboardInterrupt:
        written = written_since(device, before[0]) if before else None
        if written is None:
            note("interrupted: the message is not written")
        else:
            note(f"interrupted: {written.hex()[:8]} is written, and goes with the next command")
        raise


def _store_file(
    device: "Device",
    met: "Met",
    path: Path,
    text: str,
    reply_to: str | None,
    once: str | None,
    begun: Callable[[], object],
) -> "Reference":
    """Write a message with a file; who is in the chat is asked again once a large one is sealed."""
    from cli.attaching import store_file
    from node.errors import UserError

    if reply_to is not None:
        raise UserError("a file answers no message: send it, then the answer as a text")
    meet_again = partial(fetch, device) if met.problem is None else bool
    return store_file(device, met.chat.id, path, text, once, begun, meet_again)


def _store(
    device: "Device",
    chat: "Chat",
    message: "Message",
    once: str | None,
    begun: Callable[[], object],
) -> "Reference":
    from client import compose

    with device.transaction():
        begun()
        return compose.send(device, chat.id, message, now_ms(), once)


def _words(text: str | None) -> str:
    """Return what to say. Raises UserError if it is no UTF-8, LimitReached if it is too long."""
    from node.errors import LimitReached, UserError
    from protocol.limits import TEXT_BYTES_MAX

    if text is None and sys.stdin.isatty():
        raise UserError("nothing to say: give a text, or - to read it from stdin")
    if text is not None and text != STDIN:
        raw = text.encode(errors="surrogateescape")
    else:
        raw = sys.stdin.buffer.read(TEXT_BYTES_MAX + 2).removesuffix(b"\n")
    if len(raw) > TEXT_BYTES_MAX:
        raise LimitReached(
            f"a message is at most {TEXT_BYTES_MAX} bytes long, and this is longer: "
            "send it in parts"
        )
    try:
        words = raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the text is not UTF-8, at byte {error.start}: convert it first") from None
    if not words.strip():
        raise UserError("the text is empty: nothing was sent")
    return words


class Found(NamedTuple):
    """A chat as it is here. silent: that our node has just been waited for, if it has in vain."""

    chat: "Chat"
    silent: "Silent | None" = None


def _chat_for(device: "Device", name: str, once: str | None) -> Found:
    """Return the chat; a direct one with somebody is begun if there is none.

    Where each of the two has begun one it is that in which this key was used.
    """
    from client.chats import beside, find_direct, is_address
    from client.compose import require, used_in
    from client.link import Silent

    if not is_address(name):
        return Found(_titled(device, name))
    found, silent = find_direct(device, name), None
    if found is None:
        problem = fetch(device)
        silent = problem if isinstance(problem, Silent) else None
        found = find_direct(device, name)  # the other one may have begun it
    if found is None:
        return _begin_direct(device, name, silent)
    used = used_in(device, once)
    if used is None or used not in beside(device, found):
        return Found(found, silent)
    return Found(require(device, used), silent)


def _titled(device: "Device", name: str) -> "Chat":
    """Return the chat of this title, which may hold an @; else say why that is no address."""
    from client.chats import NoSuchChat
    from protocol.name import parse_address

    try:
        return locate(device, name)
    except NoSuchChat:
        if "@" in name:
            parse_address(name)
        raise


class Met(NamedTuple):
    """A chat as our node has it. problem: why what is new there is not here, None if it is."""

    chat: "Chat"
    problem: "IvorError | PeerError | None"


def _meet_node(device: "Device", chat: "Chat", silent: "Silent | None" = None) -> Met:
    """Take up what is new before something is written in a chat.

    Who was brought in since, and whoever's keys are not known here, could not read it, ever.
    silent: as in `Found`; such a node is not waited for once more.
    """
    from client.compose import require

    problem = silent or fetch(device)
    return Met(require(device, chat.id), problem)


def _begin_direct(device: "Device", name: str, silent: "Silent | None") -> Found:
    """Begin a direct chat: without a silent node, if who it is with is known here."""
    from client.chats import find_direct
    from client.compose import new_chat, require
    from client.people import acquaintance
    from client.residency import zones_of
    from protocol.policy import ChatKind, HistoryRule, Policy, Role

    (address,) = addresses(device, [name])

    def begin(users: "Sequence[UserId]") -> "ChatId":
        found = find_direct(device, address)  # another command may have begun it meanwhile
        if found is not None:
            return found.id
        policy = Policy(zones_of(device, users), 0, HistoryRule.FROM_JOIN)
        members = [(user, Role.OWNER) for user in users]
        return new_chat(device, ChatKind.DIRECT, "", policy, members, now_ms())

    known = acquaintance(device, address)
    if silent is None or known is None:
        return Found(require(device, change(device, [address], begin).result))
    with device.transaction():
        begun = begin([known.user])
    return Found(require(device, begun), silent)


def _deliver(
    device: "Device",
    met: Met,
    place: "Reference",
    wait: Wait | None,
    timeout: float,
    output: Output,
) -> None:
    """Bring a message to the node, with its file if it has one, and tell how far it is."""
    from client.compose import require
    from client.delivery import progress_of
    from node.errors import NetworkError, RefusedError, exit_code

    chat, brought = met.chat, _bring(device, met, place, wait, timeout)
    progress, problem = progress_of(device, chat.id, place), brought.problem
    if problem is None and progress.state == "queued":
        problem = NetworkError(NOT_CONFIRMED)
    told = f"{place.id.hex()[:8]} {progress}"
    if brought.holders is not None:
        told += f"; its file at {brought.holders} of {progress.of}"
    output.line(
        told if problem is None else f"{told}: {problem}",
        {
            "type": "sent",
            "chat": chat.id.hex(),
            "id": place.id.hex(),
            "state": progress.state,
            "agencies": progress.agencies,
            "of": progress.of,
            "file_agencies": brought.holders,
            "problem": None if problem is None else str(problem),
        },
    )
    _tell_who_is_missed(device, require(device, chat.id))
    if problem is not None and not isinstance(problem, NetworkError):
        raise output.end(str(problem), exit_code(problem))
    if progress.refused:
        raise output.end(told, RefusedError.exit_code)
    everywhere = progress.everywhere and brought.holders in (None, progress.of)
    late = (wait is Wait.ALL and not everywhere) or (wait is Wait.STORED and not progress.own)
    if late or (wait is not None and problem is not None):
        why = f"not in time: {told}; it goes on with the next command or 'ivor sync'"
        if progress.settled and problem is None and brought.holders in (None, progress.agencies):
            why = f"not known: {told}; your agency is not federated with the others"
        note(why)
        raise output.end(why, NOT_IN_TIME)


def _tell_who_is_missed(device: "Device", judge: "Chat") -> None:
    """Say who cannot read what was written last, and whose identity has changed."""
    from client import identities
    from client.epochs import closed_to
    from client.federated import is_alone, out_of_reach
    from client.people import why_closed

    if is_alone(device, judge):
        note(
            "your agency is federated with no other agency of this chat: what is written gets to "
            "none of them, nor from them here, until it is; ask your administrator"
        )
        for name in closed_to(device, judge):
            note(f"{name} can read this then, if within a week: no key of theirs is known yet")
    else:
        for name in closed_to(device, judge):
            note(why_closed(device, name))
        for agency in out_of_reach(device, judge):
            note(
                f"your agency is not federated with {agency}: its readers can read this only once "
                "a publisher whose agency is has been online"
            )
    for user, name in identities.left_behind(device, judge).items():
        note(identities.careful(judge, user, name))


class Brought(NamedTuple):
    """What became of a message. problem: why it, or its file, is not at the node.

    holders: how many agencies have all of its file; None if it has none, or nobody was asked.
    """

    problem: "IvorError | PeerError | None" = None
    holders: int | None = None


def _bring(
    device: "Device", met: Met, place: "Reference", wait: Wait | None, timeout: float
) -> Brought:
    """Bring what is queued to the node, unless that could not be met just now.

    One that was silent may be busy: now that the message is written, it is waited for.
    """
    import trio

    from client.exchange import visit
    from client.link import Silent, linked
    from node.errors import IvorError
    from protocol.errors import PeerError

    async def run() -> Brought:
        async with linked(device, patience=BUSY_SECONDS) as link:
            await link.meet(BUSY_SECONDS)
            if met.problem is not None:
                tell_of(await visit(device, link, SETTLE_SECONDS))
            return await _bring_over(device, link, met.chat, place, wait, timeout)

    if met.problem is not None and not isinstance(met.problem, Silent):
        return Brought(met.problem)
    try:
        if met.problem is not None:
            note(f"{place.id.hex()[:8]} is written; the node does not answer yet: waiting for it")
        return trio.run(run)
    except (IvorError, PeerError) as error:  # it is written, whatever became of it: say so
        return Brought(error)


async def _bring_over(
    device: "Device",
    link: "Link",
    chat: "Chat",
    place: "Reference",
    wait: Wait | None,
    seconds: float,
) -> Brought:
    from client.bringing import holders, spread
    from client.delivery import progress_of
    from client.exchange import wait_until

    def far_enough() -> bool:
        progress = progress_of(device, chat.id, place)
        enough = progress.settled if wait is Wait.ALL else progress.own
        return enough or progress.refused

    await link.settle(SETTLE_SECONDS)
    await wait_until(link, far_enough, BUSY_SECONDS if wait is None else seconds)
    await _bring_files(device, link, chat, place)
    if await link.journal.read(partial(device.replica.blobs.find, chat.id, place.id)) is None:
        return Brought()
    if wait is Wait.ALL:
        return Brought(None, await spread(device, link, chat.id, place.id, seconds))
    return Brought(None, await holders(link, chat.id, place.id))


async def _bring_files(device: "Device", link: "Link", chat: "Chat", place: "Reference") -> None:
    """Bring the files that wait here; what only others of them meet is told, and no error."""
    from cli.attaching import bring_files
    from client.bringing import waiting
    from client.delivery import progress_of
    from node.errors import LimitReached, NetworkError

    def concerns() -> bool:
        stored = progress_of(device, chat.id, place).own
        return not stored or place.id in [blob.entry for blob in waiting(device)]

    try:
        await bring_files(device, link)
    except (LimitReached, NetworkError) as error:
        if await link.journal.read(concerns):
            raise
        note(f"of what was sent before: {error}")
