"""`ivor sync`, `status`, `log verify`: whether all is where it should be, and what it was."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, locate, note_damaged, opened, tell_of
from cli.options import Json, PassphraseFile
from cli.output import Output, note, progress
from cli.text import when

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.audit import Audit
    from client.device import Device
    from client.exchange import Visit
    from client.nacks import Told
    from node.errors import IvorError
    from protocol.chat import Chat
    from protocol.entry import ChatId

log = typer.Typer(help="The signed log.", no_args_is_help=True)
SYNC_SECONDS: Final = 60.0
NOT_VERIFIED: Final = 7
NOT_IN_TIME: Final = 3
NOT_ALL: Final = "not everything came in time: run it again"
UNTRUSTED: Final = 4


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(rich_help_panel="Official")(sync)
    app.command(rich_help_panel="Official")(status)
    app.add_typer(log, name="log", rich_help_panel="Official")


@log.callback()
def _log() -> None:
    """The signed log."""


def sync(
    *,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.0)] = SYNC_SECONDS,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Bring what is queued, fetch what is new; exit 4 if somebody's identity has changed."""
    from client import identities, witnessing
    from client.delivery import unstored

    output = Output(as_json)
    with opened(home, passphrase_file) as device:
        done, problem = _exchange(device, timeout)
        note_damaged(device)
        suspects = witnessing.suspects(device).values()
        changed = list(identities.changed(device).values())
        output.facts(
            {
                "messages": done.came.total(),
                "chats": len(done.came),
                "archived": done.archived,
                "queued_entries": unstored(device),
                "revoked": [one.device.hex() for one in done.revoked],
                "decided": [one.place.id.hex() for one in done.decided],
                "changed": changed,
                "complete": done.even,
            }
        )
    tell_of(done)
    for warning in suspects:
        note(warning)
    if not done.even:
        note(NOT_ALL)
    if problem is not None and not changed and done.even:
        raise problem
    if problem is not None:
        note(str(problem))
    if changed:
        raise output.end(f"another identity than before: {', '.join(changed)}", UNTRUSTED)
    if not done.even:
        raise output.end(NOT_ALL, NOT_IN_TIME)


def _exchange(device: "Device", timeout: float) -> "tuple[Visit, IvorError | None]":
    """Visit our node; return what came of it, and why files of ours wait here still."""
    import trio

    from cli.attaching import bring_files
    from client.exchange import visit_fresh
    from client.link import linked
    from node.errors import LimitReached, NetworkError

    async def run() -> "tuple[Visit, IvorError | None]":
        async with linked(device) as link:
            with progress("exchanging with the node", None):
                done = await visit_fresh(device, link, timeout)
            try:
                await bring_files(device, link)
            except (LimitReached, NetworkError) as problem:
                return done, problem
            return done, None

    return trio.run(run)


def status(
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show what is queued, and which agency stores how much of what you wrote. Asks nobody."""
    from client import identities, witnessing
    from client.delivery import unstored
    from client.link import SYNCED

    output = Output(as_json)
    with opened(home, passphrase_file) as device:
        queued = unstored(device)
        synced = device.done_at(SYNCED)
        output.facts(
            {
                "type": "device",
                "name": device.profile.name,
                "chats": len(device.replica.store.chats()),
                "queued_entries": queued,
                "state": "queued" if queued else "stored",
                "last_sync": when(synced) if synced else None,
                "changed": list(identities.changed(device).values()),
            }
        )
        for warning in witnessing.suspects(device).values():
            note(warning)
        note_damaged(device)
        records = [record for chat in _chats(device) for record in _stored(device, chat)]
    for agency in sorted({str(one["agency"]) for one in records if not one["federated"]}):
        note(f"your agency is not federated with {agency}: what it stores cannot be known here")
    columns = {"short": "CHAT", "title": "TITLE", "agency": "AGENCY", "written": "WRITTEN"}
    output.rows(records, columns | {"stored": "STORED THERE", "queued": "NOT YET"})


def _chats(device: "Device") -> "Iterator[Chat]":
    for judge in device.chats():
        if judge.history:
            yield judge


def _stored(device: "Device", judge: "Chat") -> "Iterator[dict[str, object]]":
    """How much of what we wrote in a chat each of its agencies stores, ours first.

    None for what is not known, as one that ours is not federated with tells us nothing.
    """
    from client.chats import summary
    from client.delivery import Deliveries, written
    from client.federated import strange

    membership = judge.membership()
    names = {one.agency: one.identity.agency_name for one in membership.users.values()}
    deliveries, strangers = Deliveries(device, judge), strange(device, judge)
    total = written(device, judge.id)
    ours = device.profile.charter.agency
    for agency in sorted(membership.agencies, key=lambda one: (one != ours, names[one])):
        there = min(deliveries.length_at(agency), total)
        known = there == total or agency not in strangers
        yield {
            "type": "stored",
            "chat": judge.id.hex(),
            "short": judge.id.hex()[:8],
            "title": summary(device, judge).label,
            "agency": names[agency],
            "own": agency == ours,
            "federated": agency not in strangers,
            "written": total,
            "stored": there if there or known else None,
            "queued": total - there if known else None,
        }


@log.command()
def verify(
    chat: Annotated[str | None, typer.Argument(help="The chat.", metavar="CHAT")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All chats.")] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Verify the whole log anew, from its bytes; exit 7 if something does not hold."""
    from client import audit
    from node.errors import UserError

    if (chat is None) is not everything:
        raise UserError("name one chat, or give --all")
    output = Output(as_json)
    with opened(home, passphrase_file) as device:
        chosen = device.replica.store.chats() if chat is None else [_named(device, chat)]
        total = sum(audit.entries_stored(device, one) for one in chosen)
        with progress("verifying", total) as advance:
            audits = [audit.audit(device, one, advance) for one in chosen]
    columns = {"short": "CHAT", "sound": "HOLDS", "control": "CONTROL", "content": "CONTENT"}
    rest = {"messages": "OPENED", "chains": "CHAINS", "forks": "FORKED DEVICES"}
    output.rows([_audited(one) for one in audits], columns | rest)
    findings = [f"chat {one.chat.hex()[:8]}: {said}" for one in audits for said in _findings(one)]
    for said in findings:
        note(said)
    if findings:
        raise output.end("; ".join(findings), NOT_VERIFIED)


def _named(device: "Device", name: str) -> "ChatId":
    """Return the chat that is meant; a log too damaged to tell fails the verification."""
    from node.errors import DamagedError, EvidenceError
    from protocol.errors import PeerError

    try:
        return locate(device, name).id
    except (DamagedError, PeerError) as error:
        raise EvidenceError(
            f"the log here is damaged: {error}; 'ivor log verify --all' shows where"
        ) from None


def _findings(one: "Audit") -> "Iterator[str]":
    """Yield what does not hold in a chat."""
    yield from one.faults
    for forked in sorted(one.forked):
        yield f"device {forked.hex()[:16]} has forked; proof kept"
    yield from map(_complaint, one.nacks)
    yield from one.disputed


def _audited(one: "Audit") -> dict[str, object]:
    return {
        "type": "audit",
        "chat": one.chat.hex(),
        "short": one.chat.hex()[:8],
        "sound": one.sound,
        "control": one.control,
        "content": one.content,
        "messages": one.messages,
        "dropped": one.dropped,
        "chains": one.chains,
        "forks": len(one.forked),
        "forked": [device.hex() for device in sorted(one.forked)],
        "nacks": [_complaint(nack) for nack in one.nacks],
        "disputed_checkpoints": list(one.disputed),
        "faults": list(one.faults),
    }


def _complaint(nack: "Told") -> str:
    return f"{nack.by} says that {nack.against} sealed an epoch wrongly: {nack.why}"
