"""What an operator asks of a node: plain functions over its database (SPEC 10).

A running node calls `perform` for what comes through its control socket, inside a transaction, and
`show` in a thread for what only reads, much of it; the command line calls `carry_out` on a stopped
node's database, which it has locked. All get the same answers: dictionaries that are JSON, with
"v": 1. Times are milliseconds, ids hex.
"""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw
from msgspec import Struct

from node.agency import read_card
from node.backup import Kept, save
from node.config import Settings
from node.desk import Arguments, Desk, Result, convert, count, devices_of
from node.directory import Directory
from node.errors import IdentityError, RefusedError, StorageError, UserError
from node.overview import NoArguments, chats, peers, status, users
from node.replica import Replica
from node.tickets import Tickets
from node.trust import Examined, Trust, changes
from protocol.entry import DeviceKey
from protocol.identity import Card
from protocol.invitation import Purpose, encode_invitation
from protocol.name import Address, check_name, fold, parse_address

INVITATION_HOURS_MAX: Final = 24 * 90
_HOUR_SECONDS: Final = 3600
_PREFIX_CHARS_MIN: Final = 4

SHOWS: Final = frozenset({"status", "users", "peers", "chats"})
CHANGES_TRUST: Final = frozenset({"trust", "distrust"})
SHUTS_OUT: Final = frozenset({"distrust", "revoke"})
NEEDS_KEYS: Final = frozenset({"invite"})


class CardArguments(Struct, forbid_unknown_fields=True):
    """card: in armour. fingerprint: of the agency, as the operator compared it; only to trust."""

    card: str
    fingerprint: str = ""


class AgencyArguments(Struct, forbid_unknown_fields=True):
    """agency: its name."""

    agency: str


class InviteArguments(Struct, forbid_unknown_fields=True):
    """name: without the agency. hours: how long it is good; None is the setting's.

    recover: for somebody whose devices are all lost and who has the recovery phrase.
    """

    name: str
    hours: int | None = None
    recover: bool = False


class BackupArguments(Struct, forbid_unknown_fields=True):
    """file: an absolute path."""

    file: str


class RevokeArguments(Struct, forbid_unknown_fields=True):
    """device: the beginning of its id, or its label; None revokes all of the user's."""

    user: str
    device: str | None = None


def perform(
    directory: Directory,
    replica: Replica,
    settings: Settings,
    command: str,
    arguments: Arguments,
    connected: Collection[bytes],
) -> Result:
    """Carry out a command on a running node. Raises as `carry_out` does."""
    connection = replica.store.connection
    desk = Desk(connection, directory.trust, settings, directory, connected, time.time())
    return carry_out(desk, command, arguments)


def show(
    database: Path,
    card: Card,
    settings: Settings,
    command: str,
    arguments: Arguments,
    connected: Collection[bytes],
) -> Result:
    """Carry out one of SHOWS beside a running node, which goes on meanwhile. Blocks.

    database: of the node, and card: its own. Raises as `carry_out` does, and StorageError.
    """
    flags = apsw.SQLITE_OPEN_READONLY
    try:
        with closing(apsw.Connection(str(database), flags=flags)) as connection:
            connection.execute("BEGIN")  # all of it is of one moment
            trust = Trust(connection, card)
            desk = Desk(connection, trust, settings, None, connected, time.time())
            return carry_out(desk, command, arguments)
    except apsw.Error as error:
        raise StorageError(f"{database} cannot be read: {error}") from error


def carry_out(desk: Desk, command: str, arguments: Arguments) -> Result:
    """Carry out a command. Raises IvorError or PeerError, and has then written nothing."""
    found = _COMMANDS.get(command)
    if found is None:
        raise UserError(f"this node knows no command {command!a}; it may be of an older version")
    return {"v": 1} | found(desk, arguments)


def examine(desk: Desk, arguments: Arguments) -> Result:
    """Say what a card is, for the operator to compare before `trust`."""
    found = _examined(desk, convert(arguments, CardArguments).card)
    return _described(found)


def trust(desk: Desk, arguments: Arguments) -> Result:
    """Trust an agency. Raises IdentityError unless the fingerprint is the one of the card."""
    given = convert(arguments, CardArguments)
    found = _examined(desk, given.card)
    shown = found.card.charter.fingerprint
    if "".join(given.fingerprint.split()) != "".join(shown.split()):
        raise IdentityError(
            f"the card's fingerprint is {shown}, not the {given.fingerprint} that was compared; "
            "it is not taken"
        )
    desk.trust.accept(found)
    return _described(found)


def distrust(desk: Desk, arguments: Arguments) -> Result:
    """Trust an agency no longer. chats: those of ours in which it stays."""
    given = convert(arguments, AgencyArguments)
    charter = desk.trust.withdraw(check_name(fold(given.agency))).charter
    shared = "SELECT count(*) FROM readers WHERE peer = ?"
    return {
        "agency": charter.name,
        "fingerprint": charter.fingerprint,
        "id": charter.agency.hex(),
        "chats": count(desk, shared, charter.agency),
    }


def invite(desk: Desk, arguments: Arguments) -> Result:
    """Make a one-time invitation for a user's first device, or for one in the place of a lost."""
    given = convert(arguments, InviteArguments)
    if desk.directory is None:
        raise RefusedError("an invitation needs the node's keys: give the passphrase")
    hours = desk.settings.invitation_hours if given.hours is None else given.hours
    if not 1 <= hours <= INVITATION_HOURS_MAX:
        raise UserError(f"an invitation is good for 1 to {INVITATION_HOURS_MAX} hours, not {hours}")
    name = _own_name(desk, given.name)
    seconds = hours * _HOUR_SECONDS
    purpose = Purpose.RECOVERY if given.recover else Purpose.FIRST_DEVICE
    invitation = desk.directory.registrar.invite(name, purpose, desk.now, seconds)
    return {
        "user": Address(name, desk.card.charter.name).text,
        "invitation": encode_invitation(invitation),
        "expires": invitation.expires,
    }


def revoke(desk: Desk, arguments: Arguments) -> Result:
    """Revoke a device of a user, or all of them and the invitations that are still open."""
    given = convert(arguments, RevokeArguments)
    name = _own_name(desk, given.user)
    address = Address(name, desk.card.charter.name).text
    user = desk.connection.execute("SELECT id FROM users WHERE name = ?", (address,)).get
    withdrawn = Tickets(desk.connection).withdraw(name) if given.device is None else 0
    if user is None and not withdrawn:
        raise UserError(f"no user {address} here; 'ivor node users' lists them")
    in_use = [one for one in devices_of(desk, user or b"") if not one["revoked"]]
    chosen = in_use if given.device is None else [_chosen(in_use, given.device, address)]
    desk.people.revoke([DeviceKey(bytes.fromhex(str(one["id"]))) for one in chosen])
    return {
        "user": address,
        "revoked": [one["id"] for one in chosen],
        "invitations_withdrawn": withdrawn,
        "devices_left": len(in_use) - len(chosen),
    }


def resume(desk: Desk, arguments: Arguments) -> Result:
    """Let a node that was brought back change users, whoever it has not met since."""
    convert(arguments, NoArguments)
    return {"not_met": desk.people.resume()}


def backup_file(arguments: Arguments) -> Path:
    """Return where a backup is to be written. Raises UserError unless it is an absolute path."""
    file = Path(convert(arguments, BackupArguments).file)
    if not file.is_absolute():
        raise UserError("a backup is written to an absolute path, or two programs may differ")
    return file


def backed_up(folder: Path, file: Path) -> Result:
    """Copy the node into a file, while it runs or not. Blocks. Raises StorageError."""
    return {"v": 1} | backup_record(save(folder, file)) | {"file": str(file)}


def backup_record(kept: Kept) -> Result:
    """Return what a backup holds, for the operator."""
    return {
        "agency": kept.agency,
        "fingerprint": kept.fingerprint,
        "made": kept.made,
        "chats": kept.chats,
        "entries": kept.entries,
        "bytes": kept.size,
    }


_COMMANDS: Final[Mapping[str, Callable[[Desk, Arguments], Result]]] = {
    "status": status,
    "users": users,
    "peers": peers,
    "chats": chats,
    "examine": examine,
    "trust": trust,
    "distrust": distrust,
    "invite": invite,
    "revoke": revoke,
    "resume": resume,
}


def _own_name(desk: Desk, text: str) -> str:
    """Read `anna` or `anna@minzdrav`, a user of ours."""
    if "@" not in text:
        return check_name(fold(text))
    address = parse_address(text)
    if address.agency != desk.card.charter.name:
        raise UserError(
            f"{address.text} is a user of agency {address.agency}, this is the node of "
            f"{desk.card.charter.name}: ask their operator"
        )
    return address.user


def _chosen(devices: list[Result], wanted: str, address: str) -> Result:
    """Find the one device that an operator means. Raises UserError, listing the candidates."""
    found = [
        one
        for one in devices
        if one["label"] == wanted
        or (len(wanted) >= _PREFIX_CHARS_MIN and str(one["id"]).startswith(wanted.lower()))
    ]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{str(one['id'])[:16]} ({one['label']})" for one in found or devices)
    which = "several devices" if found else "no device in use"
    raise UserError(
        f"{address} has {which} called {wanted!r}; give more of the id: {shown or 'none'}"
    )


def _examined(desk: Desk, card: str) -> Examined:
    return desk.trust.examine(read_card(card).raw, allow_local=desk.settings.allow_local)


def _described(found: Examined) -> Result:
    charter = found.card.charter
    return {
        "agency": charter.name,
        "zone": charter.zone,
        "fingerprint": charter.fingerprint,
        "id": charter.agency.hex(),
        "card_serial": charter.serial,
        "issued": found.card.issued,
        "addresses": found.card.endpoints,
        "standing": found.standing.value,
        "changes": [] if found.known is None else list(changes(found.known, found.card)),
        "looks_like": list(found.looks_like),
    }
