"""`ivor join`, `whoami`, `verify`: become somebody, and make sure who the others are."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.opening import Home, confirmed, home_folder, opened, quiet_log, tell_of
from cli.options import Json, PassphraseFile, PhraseFile
from cli.output import Output, note
from cli.recovery import read_phrase
from cli.text import when

if TYPE_CHECKING:
    from client.device import Device
    from client.people import Acquaintance
    from protocol.invitation import Invitation

Label = Annotated[str | None, typer.Option(help="What to call this device [the host's name].")]
UNTRUSTED: Final = 4
SHORT: Final = 8
LABEL_BYTES_MAX: Final = 64
INVITATION_FILE_CHARS_MAX: Final = 64 * 1024


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (join, whoami, verify):
        app.command(rich_help_panel="Official")(command)


def join(
    invitation: Annotated[
        str, typer.Argument(help="The text of an invitation, a file with it, or - for stdin.")
    ],
    *,
    label: Label = None,
    phrase_file: PhraseFile = None,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Enrol this device: your first one, or one in the place of a lost one, with your 24 words."""
    import trio

    from client import enrol
    from client.device import open_device
    from protocol.invitation import Purpose, decode_invitation

    found = decode_invitation(read_text(invitation))
    folder = home_folder(home)
    recovers = found.purpose is Purpose.RECOVERY
    begins = may_begin(folder, found)
    quiet_log()
    seed = read_phrase(phrase_file) if recovers and begins else b""
    passphrase = device_passphrase(folder, found.ticket, passphrase_file)
    called = device_label(label)
    with said_to_be_kept():
        if begins and recovers:
            trio.run(enrol.recover, folder, found, seed, called, passphrase, os.urandom)
        elif begins:
            trio.run(enrol.join, folder, found, called, passphrase, os.urandom)
    with closing(open_device(folder, passphrase, os.urandom)) as device:
        problem = take_up(device)
        Output(as_json).facts(_who(device))
        short = device.key.hex()[:SHORT]
    if problem is not None:
        note(f"enrolled; nothing was fetched yet: {problem}")
    note("keep the passphrase: without it nobody can open this device, not even your agency")
    if recovers:
        note("put out what you lost: 'ivor device list', 'ivor device revoke DEVICE'")
        note("bring back what you had read, from a backup: 'ivor recover FILE'")
        note(f"or from another device that you still have: there, 'ivor device hand-over {short}'")
    else:
        note(
            "write down your recovery words, for the day this device is lost: 'ivor recovery show'"
        )


def read_text(argument: str) -> str:
    """Read what may be given as text, as a file, or on stdin."""
    from node.errors import UserError
    from protocol.invitation import PREFIX

    if argument == "-":
        return sys.stdin.read(INVITATION_FILE_CHARS_MAX)
    if argument.lstrip().startswith(PREFIX):
        return argument
    try:
        with Path(argument).open(encoding="utf-8") as file:
            return file.read(INVITATION_FILE_CHARS_MAX)
    except (OSError, UnicodeDecodeError, ValueError):
        raise UserError(
            f"that is neither an invitation, which begins with {PREFIX}, nor a file with one"
        ) from None


def may_begin(folder: Path, invitation: "Invitation") -> bool:
    """Tell whether an invitation is to be used; it is not if it has made the device that is here.

    Raises UserError for a folder that holds another device, RefusedError if the invitation is over.
    """
    from client import joining

    if joining.is_done(folder, invitation.ticket):
        return False
    _check_time(invitation)
    joining.check_free(folder)
    return True


def _check_time(invitation: "Invitation") -> None:
    import time

    from node.errors import RefusedError

    if invitation.expires < time.time() * 1000:
        raise RefusedError(
            f"this invitation was good until {when(invitation.expires)}: ask for a new one "
            "(and check this machine's clock)"
        )


def device_passphrase(folder: Path, ticket: bytes, file: Path | None) -> bytes:
    """Return the passphrase of a device that is enrolled: a new one, or that of a join begun."""
    from cli.passphrase import new_passphrase, read_passphrase
    from client import joining

    if joining.is_begun(folder, ticket):
        note("going on with what was begun here with this invitation")
        return read_passphrase(file, "this device, as it was chosen then")
    return new_passphrase(file, "this device")


@contextmanager
def said_to_be_kept() -> Iterator[None]:
    """Say, when the node does not answer or nobody waits, that nothing of an enrolment is lost."""
    from node.errors import NetworkError

    try:
        yield
    except (NetworkError, KeyboardInterrupt):
        note("what was begun is kept: the same command goes on with it")
        raise


def device_label(label: str | None) -> str:
    """Return what to call this device."""
    import platform

    from node.errors import LimitReached

    chosen = label or platform.node() or "device"
    if len(chosen.encode()) > LABEL_BYTES_MAX:
        raise LimitReached(f"a device's label has at most {LABEL_BYTES_MAX} bytes")
    return chosen


def take_up(device: "Device") -> str | None:
    """Take up cards and chats once, if the node can be reached; else return why it cannot."""
    import trio

    from client.exchange import visit_fresh
    from client.link import linked
    from node.errors import NetworkError

    async def run() -> None:
        async with linked(device) as link:
            tell_of(await visit_fresh(device, link, 3.0))

    try:
        trio.run(run)
    except NetworkError as error:
        return str(error)
    return None


def whoami(
    *,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show who you are, and this device's fingerprint."""
    with opened(home, passphrase_file) as device:
        Output(as_json).facts(_who(device))


def _who(device: "Device") -> dict[str, object]:
    from crypto.fingerprint import fingerprint
    from protocol.identity import verify_device

    profile = device.profile
    certificate = verify_device(profile.device_certificate, profile.charter)
    return {
        "name": profile.name,
        "user": profile.user.user.hex(),
        "device": device.key.hex(),
        "label": certificate.label,
        "fingerprint": fingerprint(device.key),
        "agency": profile.charter.name,
        "zone": profile.charter.zone,
        "agency_fingerprint": profile.charter.fingerprint,
        "first_device": device.secrets.user is not None,
        "folder": str(device.folder),
    }


def verify(
    user: Annotated[str, typer.Argument(help="Such as boris@mincifry.", metavar="USER")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="The numbers were compared.")] = False,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Take the user's new identity.")
    ] = False,
    home: Home = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show the safety number that you and the other both see; then mark them as verified."""
    from cli.opening import addresses
    from client import people

    with opened(home, passphrase_file) as device:
        (name,) = addresses(device, [user])
        person = _look_up(device, name, accept_change=accept_change)
        _tell_left_behind(device, person)
        number = people.safety_number_with(device, person)
        if sys.stdout.isatty() and not as_json:
            _show_number(name, number)
        if not person.verified and (yes or (sys.stdin.isatty() and not as_json)):
            question = f"Does {name} see the same number?"
            if confirmed(question, yes=yes):
                with device.transaction():
                    people.mark_verified(device, person)
        known = people.acquaintance(device, name)
        verified = known is not None and known.verified
        record = {"name": name, "user": person.user.hex(), "safety_number": number}
        Output(as_json).facts(record | {"verified": verified})


def _tell_left_behind(device: "Device", person: "Acquaintance") -> None:
    """Say where the identity that the name meant before goes on reading."""
    from client.identities import careful, left_behind

    for judge in device.chats():
        for user, name in left_behind(device, judge).items():
            if name == person.name:
                note(careful(judge, user, name))


def _look_up(device: "Device", name: str, *, accept_change: bool) -> "Acquaintance":
    """Ask for the user's present identity; without a network the known one has to do."""
    import trio

    from client import people
    from client.link import linked
    from node.errors import NetworkError, UserError

    async def ask() -> None:
        async with linked(device) as link:
            if accept_change:
                await link.accept_change(name)
            else:
                await link.look_up([name])
            for said in link.refused:
                note(said)

    try:
        trio.run(ask)
    except NetworkError as error:
        if accept_change or people.acquaintance(device, name) is None:
            raise
        note(f"from what is known here: {error}")
    person = people.acquaintance(device, name)
    if person is None:
        raise UserError(f"{name} is not known here")
    return person


def _show_number(name: str, number: str) -> None:
    """Print the number in three rows, and as a QR code."""
    import io

    import segno

    groups = number.split()
    print(f"Safety number of you and {name}:\n")
    for at in range(0, len(groups), 4):
        print("    " + " ".join(groups[at : at + 4]))
    print()
    drawn = io.StringIO()
    segno.make_qr("".join(groups)).terminal(drawn, compact=True)
    for row in drawn.getvalue().splitlines():  # light on dark on every terminal: cameras ask for it
        print(typer.style(row, fg="bright_white", bg="black"))
    print("Compare it by voice or in person, never by a message.")
