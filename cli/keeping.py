"""`ivor redact`, `chat policy`, `chat hold`, `log show`: what is kept, how long, and by whom."""

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.chat_commands import UserName, chat
from cli.opening import (
    SETTLE_SECONDS,
    Home,
    Offline,
    change,
    confirmed,
    fetch,
    letter,
    locate,
    now_ms,
    opened,
    tell_of,
)
from cli.options import Json, PassphraseFile
from cli.output import Output, note
from cli.text import when
from cli.upkeep import NOT_VERIFIED, log
from cli.writing import ChatName, MessageId
from node.words import counted, lasting, measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client.device import Device
    from client.keeping import Confirmation
    from protocol.chat import Chat
    from protocol.entry import ChatId
    from protocol.policy import Policy

SHORT: Final = 8
NOT_ASKED: Final = 3
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600, "y": 365 * 86400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,9})([smhdwy])")
_FOR_EVER: Final = "forever"


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(rich_help_panel="Official")(redact)


def redact(
    name: ChatName,
    message_id: MessageId,
    *,
    reason: Annotated[str, typer.Option(help="Why; every member sees it.")] = "",
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Have every node and device drop a message: your own, or as an admin anybody's.

    That it was there, who wrote it and who redacted it stays in the log. What somebody has read or
    copied elsewhere cannot be taken back.
    """
    with opened(home, passphrase_file) as device:
        from client import keeping
        from node.errors import UserError
        from protocol.operation import REASON_BYTES_MAX

        if len(reason.encode()) > REASON_BYTES_MAX:
            raise UserError(f"a reason is at most {REASON_BYTES_MAX} bytes long")
        judge = locate(device, name)
        place = letter(device, judge.id, message_id)
        made = change(
            device, [], lambda _: keeping.redact(device, judge.id, place, reason, now_ms())
        )
        redacted = [entry.hex() for entry in made.result]
        made.tell(as_json, {"chat": judge.id.hex(), "redacted": redacted})


@chat.command()
def policy(
    name: ChatName,
    *,
    retention: Annotated[
        str | None,
        typer.Option(help="How long payloads are kept: 30d, 12h, 1y, or forever; m is minutes."),
    ] = None,
    history: Annotated[
        str | None, typer.Option(help="What joiners may be given: from-join or shared.")
    ] = None,
    zones: Annotated[
        str | None, typer.Option(help="Zones that may hold it; they only ever narrow. Owners.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask, though messages are dropped at once.")
    ] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show what a chat's policy is, or set it: retention, history, zones."""
    with opened(home, passphrase_file) as device:
        from client.compose import require

        judge = locate(device, name)
        problem = None
        if (retention, history, zones) != (None, None, None):
            wanted = partial(_wanted, retention=retention, history=history, zones=zones)
            problem = _set_policy(device, judge.id, wanted, yes=yes)
        membership = require(device, judge.id).membership()
        now = membership.policy
        for member in membership.users.values() if zones is not None else ():
            if member.agency not in membership.agencies:
                note(
                    f"{member.name}, in {member.zone}, is outside these zones: they get no more of "
                    "this chat, for good, and can write nothing in it"
                )
        if retention is not None and now.retention:
            note(
                f"an agency that is cut off for longer than {span(now.retention)} gets what was "
                "written meanwhile without its text, unless somebody holds it: 'ivor chat hold'"
            )
        Offline(now, problem).tell(
            as_json,
            {
                "chat": judge.id.hex(),
                "retention": span(now.retention),
                "retention_seconds": now.retention or None,
                "history": now.history.name.lower().replace("_", "-"),
                "zones": list(now.zones),
            },
        )


def _set_policy(
    device: "Device", chat_id: "ChatId", wanted: "Callable[[Policy], Policy]", *, yes: bool
) -> str | None:
    """Set what is wanted and leave the rest, as others may have set it since it was read here.

    Returns why the node does not have it yet, None if it has.
    """
    from client import keeping
    from client.compose import require

    def put() -> None:
        policy = wanted(require(device, chat_id).membership().policy)
        keeping.set_policy(device, chat_id, policy, now_ms())

    fetch(device)
    judge = require(device, chat_id)
    _confirm_loss(device, judge, wanted(judge.membership().policy), yes=yes)
    return change(device, [], lambda _: put()).problem


def _confirm_loss(device: "Device", judge: "Chat", wanted: "Policy", *, yes: bool) -> None:
    """Let a person decide, if a shorter retention drops what is here. Raises RefusedError."""
    from client.keeping import older_than
    from node.errors import RefusedError

    before, after = judge.membership().policy.retention, wanted.retention
    if not after or (before and before <= after):
        return
    lost = older_than(device, judge.id, after, now_ms())
    if lost and not confirmed(
        f"What is older than {lasting(after)} goes for good, at every agency and device: "
        f"{counted(lost, 'message')} here. Set it?",
        yes=yes,
    ):
        raise RefusedError("nothing was changed")


def _wanted(
    before: "Policy", retention: str | None, history: str | None, zones: str | None
) -> "Policy":
    from client.residency import read_zones
    from node.errors import UserError
    from protocol.policy import HistoryRule, Policy, covering

    rules = {one.name.lower().replace("_", "-"): one for one in HistoryRule}
    if history is not None and history not in rules:
        raise UserError(f"history is {' or '.join(rules)}, not {history!r}")
    return Policy(
        covering(before.zones) if zones is None else read_zones(zones),
        before.retention if retention is None else read_span(retention),
        before.history if history is None else rules[history],
    )


def read_span(text: str) -> int:
    """Read 30d, 12h, 1y or forever, in seconds, 0 for ever. Raises UserError."""
    from node.errors import UserError
    from protocol.limits import SEQ_MAX

    if text == _FOR_EVER:
        return 0
    found = _SPAN.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= SEQ_MAX:
        raise UserError(f"{text!r} is no time: give 30d, 12h, 2w or 1y, or {_FOR_EVER}")
    return seconds


def span(seconds: int) -> str:
    """Say a retention in the largest unit that fits; `read_span` reads it."""
    if not seconds:
        return _FOR_EVER
    number, unit = measured(seconds)
    return f"{number}{unit[0]}"


@chat.command()
def hold(
    name: ChatName,
    user: UserName,
    *,
    end: Annotated[bool, typer.Option("--end", help="End it.")] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Legal hold: name a member as custodian, whose agency and devices keep what ages. All see it.

    What is redacted goes there too.
    """
    with opened(home, passphrase_file) as device:
        from client import keeping
        from client.chats import find_member
        from client.compose import require

        judge = locate(device, name)

        def put() -> None:
            found = find_member(require(device, judge.id), user)
            keeping.hold(device, judge.id, found, now_ms(), ends=end)

        made = change(device, [], lambda _: put())
        done = "no custodian any more" if end else "custodian"
        made.tell(as_json, {"chat": judge.id.hex(), "user": user, "change": done})


@log.command("show")
def show_log(
    name: ChatName,
    *,
    redactions: Annotated[
        bool,
        typer.Option("--redactions", help="What is redacted, and which nodes confirm it."),
    ] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """List the entries of a chat: place, id, kind, time, and whether the payload is here."""
    with opened(home, passphrase_file) as device:
        judge = locate(device, name)
        if redactions:
            _show_redactions(device, judge.id, Output(as_json))
            return
        records = list(_entries(device, judge))
    columns = {"lane": "LANE", "seq": "SEQ", "short": "ID", "name": "BY", "from": "DEVICE"}
    rest = {"kind": "KIND", "time": "TIME", "bytes": "BYTES", "payload": "PAYLOAD"}
    Output(as_json).rows(records, columns | rest)


def _show_redactions(device: "Device", chat_id: "ChatId", output: Output) -> None:
    """List redactions, and ask who has confirmed; what does not hold ends with exit code 7."""
    from client.compose import require
    from client.keeping import confirmations

    receipts, problem = _ask_receipts(device, chat_id)
    judge = require(device, chat_id)
    found = confirmations(device, judge, receipts)
    output.rows(list(_redacted(judge)), {"short": "REDACTED", "by": "BY", "reason": "REASON"})
    nodes: list[dict[str, object]] = [
        {
            "type": "confirmation",
            "id": one.target.id.hex(),
            "short": one.target.id.hex()[:SHORT],
            "agency": one.agency,
            "node": None if one.node is None else one.node.hex(),
            "dropped": None if one.dropped is None else when(one.dropped),
            "state": _confirmed(one),
        }
        for one in found.nodes
    ]
    output.rows(nodes, {"short": "REDACTED", "agency": "AGENCY", "state": "NODE", "dropped": "AT"})
    for agency in sorted({one.agency for one in found.nodes if one.node is None}):
        note(
            f"your agency is not federated with {agency}: what it has dropped cannot be known here"
        )
    for finding in found.findings:
        note(finding)
    if found.findings:
        raise output.end("; ".join(found.findings), NOT_VERIFIED)
    if problem is not None:
        note(f"nobody was asked: {problem}")
        raise output.end(f"nobody was asked: {problem}", NOT_ASKED)


def _confirmed(one: "Confirmation") -> str:
    """Say whether a node has confirmed; an agency that ours is not federated with is not asked."""
    if one.node is None:
        return "not known"
    return "not confirmed" if one.dropped is None else "confirmed"


def _redacted(judge: "Chat") -> "Iterator[dict[str, object]]":
    from client.keeping import redactions

    for one in redactions(judge):
        yield {
            "type": "redaction",
            "id": one.target.id.hex(),
            "short": one.target.id.hex()[:SHORT],
            "by": one.by,
            "reason": one.reason,
            "redaction": one.ground.id.hex(),
        }


def _ask_receipts(device: "Device", chat_id: "ChatId") -> "tuple[list[bytes], str | None]":
    """Return the receipts for what is redacted, and why nobody was asked, if that is so."""
    import trio

    from client.compose import require
    from client.exchange import visit
    from client.keeping import redactions
    from client.link import linked
    from node.errors import NetworkError

    async def run() -> list[bytes]:
        async with linked(device) as link:
            tell_of(await visit(device, link, SETTLE_SECONDS))
            judge = await link.journal.read(lambda: require(device, chat_id))
            return await link.receipts(chat_id, [one.target.id for one in redactions(judge)])

    try:
        return trio.run(run), None
    except NetworkError as error:
        return [], str(error)


def _entries(device: "Device", judge: "Chat") -> "Iterator[dict[str, object]]":
    from client.listing import entries
    from client.reading import Reader

    stored = device.replica.store.chat(judge.id)
    reader = Reader(device, judge, now_ms())
    redacted = judge.redactions.of()
    for one in [] if stored is None else entries(device, stored):
        author = reader.author(one.place)
        found = redacted.get(one.place)
        gone = "redacted" if found is not None else "gone"
        yield {
            "type": "entry",
            "lane": one.lane,
            "seq": one.place.seq,
            "id": one.place.id.hex(),
            "short": one.place.id.hex()[:SHORT],
            "device": one.place.device.hex(),
            "from": one.place.device.hex()[:SHORT],
            "name": None if author is None else author.name,
            "kind": one.kind,
            "time": when(one.time),
            "bytes": one.size,
            "payload": "held" if one.ground is None else gone,
            "ground": None if one.ground is None else one.ground.id.hex(),
        }
