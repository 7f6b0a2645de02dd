"""`ivor device …`: further devices of one user, their labels and history, and giving one up."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.cards import CardFile, card_facts, card_text
from cli.enrolment import (
    Label,
    device_label,
    device_passphrase,
    may_begin,
    said_to_be_kept,
    take_up,
)
from cli.opening import (
    Home,
    confirmed,
    confirmed_meanwhile,
    home_folder,
    now_ms,
    opened,
    quiet_log,
    tell_of,
)
from cli.options import Json, NewPassphraseFile, PassphraseFile
from cli.output import Output, note, progress
from cli.text import inert, when
from node.words import counted

if TYPE_CHECKING:
    from client.device import Device
    from client.linking import History
    from protocol.identity import DeviceCertificate

device_app = typer.Typer(help="Your devices: link a further one, rename this one, give one up.")
SETTLE_SECONDS = 5.0
HISTORY_SECONDS = 60.0
HAND_OVER_SECONDS = 20.0  # in which the new device takes nothing
PREFIX_CHARS_MIN = 4
VOID = (
    "nothing was given to the new device, and its code is void: where it waits still, end that "
    "there, and begin again here"
)
APPROVING = "'ivor device list' tells whether the new device was approved"
HANDED_OVER = (
    "the history is at the node, where the new device can open it for 14 days; that device says "
    "itself whether it has all of it"
)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(device_app, name="device", rich_help_panel="Official")


@device_app.callback(no_args_is_help=True)
def _device() -> None:
    """Your devices: link a further one, rename this one, give one up."""


@device_app.command("link")
def link_device(
    code: Annotated[
        str | None,
        typer.Argument(help="On the new device: the code; - for stdin. On the old one: nothing."),
    ] = None,
    *,
    label: Label = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Approve the next device without asking.")
    ] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Link a further device: without CODE on the old one, with it on the new one."""
    import trio

    output = Output(as_json)
    if code is not None:
        _join_as_further(code, label, home, passphrase_file, output)
        return
    with opened(home, passphrase_file) as device:
        with _told_if_ended() as stages:
            target = trio.run(_approve_next, device, yes, output, stages)
        _hand_over(device, target, "linked", output)


@device_app.command("hand-over")
def hand_over(
    which: Annotated[str, typer.Argument(help="Its label, or the beginning of its key.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Hand all that this device has read to another of yours."""
    from client import handing
    from node.errors import NetworkError, RefusedError, UserError

    with opened(home, passphrase_file) as device:
        problem = take_up(device)
        target = _choose(device, which)
        if target.device == device.key:
            raise UserError("that is this device: name the one that is to get what this one has")
        if target.device not in device.others:
            raise RefusedError(f"{inert(target.label)!r} is given up: it gets nothing any more")
        asked = f"Hand all that this device has read to {inert(target.label)!r}"
        if not confirmed(f"{asked}, certified {when(target.issued)}?", yes=yes):
            raise RefusedError("nothing was done")
        with device.transaction():
            handing.begin(device, target.device)
        if problem is not None:
            raise NetworkError(f"{problem}; the next 'ivor sync' here hands it over")
        _hand_over(device, target, "handed over", Output(as_json))


def _hand_over(device: "Device", target: "DeviceCertificate", what: str, output: Output) -> None:
    """Hand what this device has read to another of ours, and say how far that is."""
    import trio

    from client import handing

    with progress("handing over history", None):
        parts = trio.run(_introduce, device)
    output.facts(
        {
            "type": what,
            "device": target.device.hex(),
            "label": target.label,
            "chats": len(device.replica.store.chats()),
            "history_parts": parts,
            "history_left": handing.waiting(device),
        }
    )
    for said in handing.unfinished(device) or [HANDED_OVER]:
        note(said)


@device_app.command("card")
def take_card(
    card_file: CardFile,
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take your agency's newer card from a file: its node has moved, and is not found."""
    from client.people import keep_own_card
    from node.agency import read_card

    given = read_card(card_text(card_file))
    with opened(home, passphrase_file) as device:
        with device.transaction():
            card = keep_own_card(device, given.raw)
        Output(as_json).facts(card_facts(card))
        if given.charter.serial < card.charter.serial:
            note("that card is older than the one here, which stays")


@contextmanager
def _told_if_ended() -> Iterator[list[str]]:
    """Say of a linking that does not come to its end what was put last into what is yielded."""
    from node.errors import NetworkError

    stages: list[str] = []
    try:
        yield stages
    except (KeyboardInterrupt, typer.Abort, NetworkError):
        for stage in stages[-1:]:
            note(stage)
        raise


async def _approve_next(
    device: "Device", yes: bool, output: Output, stages: list[str]
) -> "DeviceCertificate":
    """Show a code, wait for the device that uses it, and approve it.

    stages: gets what is to be said if it ends after that.
    """
    from client import linking
    from client.link import linked
    from crypto.fingerprint import fingerprint, link_code
    from node.errors import RefusedError

    async with linked(device) as link:
        code, invitation = await linking.begin(device, link)
        stages.append(VOID)
        until = when(invitation.expires)
        output.line(code, {"type": "code", "code": code, "expires": until})
        note(f"on the new device run 'ivor device link CODE' with this: good once, until {until}")
        note("this waits for that device until then; once it is ended, only another code will do")
        pending, request = await linking.wait(link, invitation)
        shown = link_code(invitation.ticket, request.raw)
        if output.as_json:
            record = {"type": "waiting", "device": request.device.hex(), "label": request.label}
            output.line("", record | {"fingerprint": fingerprint(request.device), "shown": shown})
        note(f"a device called {inert(request.label)!r} asks; it must show this very code: {shown}")
        if not await confirmed_meanwhile("Does the new device show the very same code?", yes=yes):
            raise RefusedError(f"not approved: {VOID}")
        stages.append(APPROVING)
        return await linking.approve(device, link, pending)


async def _introduce(device: "Device") -> int:
    """Bring further devices into every chat, and hand over what we have read."""
    from functools import partial

    from client import handing, linking
    from client.link import linked

    async with linked(device) as link:
        await link.settle(SETTLE_SECONDS)
        await link.write(partial(linking.bring_in, device, now_ms()))
        await link.settle(SETTLE_SECONDS)
        return await handing.hand_over(device, link, HAND_OVER_SECONDS)


def _join_as_further(
    code: str, label: str | None, home: Home, passphrase_file: PassphraseFile, output: Output
) -> None:
    """On the new device: ask, wait to be approved, take over chats and history."""
    import trio

    from client import enrol, linking, mailbox
    from client.device import open_device
    from crypto.fingerprint import link_code

    found = linking.read_code(sys.stdin.read() if code == "-" else code)
    folder = home_folder(home)
    begins = may_begin(folder, found.invitation)
    quiet_log()
    passphrase = device_passphrase(folder, found.invitation.ticket, passphrase_file)

    until = when(found.invitation.expires)

    def shown(request: bytes) -> None:
        told = link_code(found.invitation.ticket, request)
        if output.as_json:
            output.line("", {"type": "shown", "shown": told, "expires": until})
        note(f"the other device must show this very code; then approve there: {told}")
        note(f"this waits for that until {until}")

    if begins:
        with said_to_be_kept():
            trio.run(
                enrol.link,
                folder,
                found.invitation,
                found.user,
                device_label(label),
                passphrase,
                os.urandom,
                shown,
            )
    with closing(open_device(folder, passphrase, os.urandom)) as device:
        history = _take_history(device)
        output.facts(
            {
                "type": "linked",
                "name": device.profile.name,
                "device": device.key.hex(),
                "chats": len(device.replica.store.chats()),
                "messages": mailbox.readable(device),
                "complete": history.whole,
            }
        )
        for said in history.refused:
            note(said)
        if not history.complete:
            note(
                "the history has not come whole yet: 'ivor sync' fetches the rest, first on the "
                "old device, then here"
            )


def _take_history(device: "Device") -> "History":
    import trio

    from client.exchange import visit_fresh
    from client.link import linked
    from client.linking import History, take_history
    from node.errors import NetworkError

    async def run() -> "History":
        async with linked(device) as link:
            with progress("waiting for the history", None):
                history = await take_history(device, link, HISTORY_SECONDS, lambda _: None)
            tell_of(await visit_fresh(device, link, SETTLE_SECONDS))
            return history

    try:
        return trio.run(run)
    except NetworkError as error:
        note(f"linked, and then: {error}")
        return History()


@device_app.command("list")
def list_devices(
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """List your devices."""
    with opened(home, passphrase_file) as device:
        problem = take_up(device)
        if problem is not None:
            note(f"what is known here; {problem}")
        records = _devices(device)
    columns = {"short": "KEY", "label": "LABEL", "fingerprint": "FINGERPRINT"}
    rest = {"issued": "CERTIFIED", "this": "THIS ONE", "revoked": "REVOKED"}
    Output(as_json).rows(records, columns | rest)


def _own_devices(device: "Device") -> "list[tuple[DeviceCertificate, bool]]":
    """Return our devices, oldest first, and whether each was given up."""
    from msgspec import convert

    from protocol.identity import verify_endorsed

    rows = device.connection.execute(
        "SELECT certificate, revoked != 0 FROM devices WHERE user = ?", (device.profile.user.user,)
    ).fetchall()
    found = [
        (verify_endorsed(raw), revoked)
        for raw, revoked in convert(rows, list[tuple[bytes, bool]], strict=False)
    ]
    return sorted(found, key=lambda item: item[0].issued)


def _devices(device: "Device") -> list[dict[str, object]]:
    from crypto.fingerprint import fingerprint

    return [
        {
            "device": one.device.hex(),
            "short": one.device.hex()[:8],
            "label": one.label,
            "fingerprint": fingerprint(one.device),
            "issued": when(one.issued),
            "this": one.device == device.key,
            "revoked": revoked,
        }
        for one, revoked in _own_devices(device)
    ]


@device_app.command()
def rename(
    label: Annotated[str, typer.Argument(help="What this device is called from now on.")],
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give this device, your first one, another label."""
    import trio

    from client.renaming import request

    with opened(home, passphrase_file) as device:
        request(device, label, now_ms())
        certificate = trio.run(_rename, device, label)
        Output(as_json).facts({"device": device.key.hex(), "label": certificate.label})


async def _rename(device: "Device", label: str) -> "DeviceCertificate":
    from client.link import linked
    from client.renaming import rename as ask

    async with linked(device) as link:
        return await ask(device, link, label)


@device_app.command()
def passphrase(
    *,
    new_passphrase_file: NewPassphraseFile = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give this device another passphrase; its keys stay."""
    from cli.passphrase import COPIES, new_passphrase

    with opened(home, passphrase_file) as device:
        device.change_passphrase(new_passphrase(new_passphrase_file, "this device"))
        Output(as_json).facts({"type": "passphrase changed", "folder": str(device.folder)})
    if passphrase_file is not None:
        note(f"every command that has it from {passphrase_file} needs the new one there")
    note(f"{COPIES}; if somebody may have one, replace the device: 'ivor device revoke' it")


@device_app.command()
def revoke(
    which: Annotated[str, typer.Argument(help="Its label, or the beginning of its key.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give up a device, lost or this one: nothing is sealed to it any more, in any chat."""
    import trio

    from client.revoking import revoke_own, still_in
    from node.errors import NetworkError, RefusedError

    output = Output(as_json)
    with opened(home, passphrase_file) as device:
        target = _choose(device, which)
        if target.device != device.key:
            _take_last_words(device)
        if not confirmed(_question(device, target), yes=yes):
            raise RefusedError("nothing was done")
        with device.transaction():
            chats = revoke_own(device, target.device, now_ms())
            left = len(still_in(device, target.device)) + len(device.damaged())
        problem = trio.run(_tell_node, device, target)
        output.facts(
            {
                "device": target.device.hex(),
                "label": target.label,
                "chats": chats,
                "still_in": left,
                "state": "queued" if problem else "stored",
                "problem": problem,
            }
        )
        if target.device == device.key:
            _tell_what_stays(device)
        if problem is not None:
            why = f"the node does not know yet ({problem}): {_who_tells(device, target)}"
            note(why)
            raise output.end(why, NetworkError.exit_code)
        if left:
            chats_left = counted(left, "chat")
            why = f"it is still in {chats_left} where this device cannot write: ask others there"
            note(why)
            raise output.end(why, RefusedError.exit_code)


def _take_last_words(device: "Device") -> None:
    """Take what is at the node, and nothing else: what a device wrote counts as far as it is here.

    A node that does not answer, or lies, saves no device from being given up.
    """
    import trio

    from client.link import linked
    from node.errors import IvorError, NetworkError
    from protocol.errors import PeerError

    async def run() -> None:
        async with linked(device) as link:
            if not await link.settle(SETTLE_SECONDS):
                raise NetworkError("not everything came in time")

    try:
        trio.run(run)
    except (IvorError, PeerError) as error:
        note(f"what it wrote and has not come here will count for nothing: {error}")


def _choose(device: "Device", which: str) -> "DeviceCertificate":
    from node.errors import UserError

    known = [one for one, _ in _own_devices(device)]
    fitting = [one for one in known if one.label == which]
    if not fitting and len(which) >= PREFIX_CHARS_MIN:
        fitting = [one for one in known if one.device.hex().startswith(which.lower())]
    if len(fitting) != 1:
        fits = "no device of yours fits" if not fitting else f"{len(fitting)} devices of yours fit"
        raise UserError(f"{fits} {which!r}; 'ivor device list' shows their keys")
    return fitting[0]


async def _tell_node(device: "Device", target: "DeviceCertificate") -> str | None:
    """Have our agency refuse the device from now on; return why that did not work."""
    from client.link import linked
    from client.revoking import tell_node
    from node.errors import NetworkError

    try:
        async with linked(device) as link:
            await tell_node(device, link, target.device, SETTLE_SECONDS)
    except NetworkError as error:
        return str(error)
    return None


def _question(device: "Device", target: "DeviceCertificate") -> str:
    """Return what to ask before a device is given up; more if it is this one."""
    asked = f"Give up {inert(target.label)!r} for good?"
    if target.device != device.key:
        return asked
    others = sum(not revoked for _, revoked in _own_devices(device)) - 1
    back = "another of your devices brings" if others else "only your recovery words bring"
    return f"This is the device you sit at: after that {back} you into your chats. {asked}"


def _who_tells(device: "Device", target: "DeviceCertificate") -> str:
    own = target.device == device.key
    return "run the same command again" if own else "the next 'ivor sync' tells it"


def _tell_what_stays(device: "Device") -> None:
    from client.mailbox import readable

    note(
        f"{device.folder} still holds this device's keys and "
        f"{counted(readable(device), 'message')}, encrypted: remove the folder when nobody needs it"
    )
