"""What an operator asks of a node: plain functions over its database (SPEC 10).

A running node calls `perform` for what comes through its control socket, inside a transaction; the
command line calls `carry_out` on a stopped node's database, which it has locked. Both get the same
answers: dictionaries that are JSON, with "v": 1. Times are milliseconds, ids hex.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import apsw
import msgspec
from msgspec import Struct

from node.agency import read_card
from node.backup import Kept, save
from node.config import Settings
from node.directory import Directory
from node.errors import IdentityError, RefusedError, UserError
from node.people import People
from node.replica import Replica
from node.signatories import Signatories
from node.tickets import Tickets
from node.trust import Examined, Trust, changes
from node.witness import Witness
from protocol.entry import DeviceKey
from protocol.identity import Card, Charter, UserId, verify_endorsed
from protocol.invitation import Purpose, encode_invitation
from protocol.name import Address, check_name, fold, parse_address

Arguments = Mapping[str, object]
Result = dict[str, object]

INVITATION_HOURS_MAX: Final = 24 * 90
_HOUR_SECONDS: Final = 3600
_PREFIX_CHARS_MIN: Final = 4

CHANGES_TRUST: Final = frozenset({"trust"})
CHANGES_DEVICES: Final = frozenset({"revoke"})
NEEDS_KEYS: Final = frozenset({"invite"})


@dataclass(frozen=True, slots=True)
class Desk:
    """What the operations work on.

    directory: None on a stopped node whose keys are not open. connected: keys of the peers that are
    connected; None when the node does not run. now: seconds UTC.
    """

    connection: apsw.Connection
    trust: Trust
    settings: Settings
    directory: Directory | None
    connected: Collection[bytes] | None
    now: float

    @property
    def card(self) -> Card:
        """Our own card."""
        return self.trust.own

    @property
    def people(self) -> People:
        """The users here."""
        return People(self.connection, self.card.charter.agency)


class NoArguments(Struct, forbid_unknown_fields=True):
    """Of a command that takes none."""


class CardArguments(Struct, forbid_unknown_fields=True):
    """card: in armour. fingerprint: of the agency, as the operator compared it; only to trust."""

    card: str
    fingerprint: str = ""


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


def carry_out(desk: Desk, command: str, arguments: Arguments) -> Result:
    """Carry out a command. Raises IvorError or PeerError, and has then written nothing."""
    found = _COMMANDS.get(command)
    if found is None:
        raise UserError(f"this node knows no command {command!a}; it may be of an older version")
    return {"v": 1} | found(desk, arguments)


def status(desk: Desk, arguments: Arguments) -> Result:
    """Return what the node is and what it holds."""
    _convert(arguments, NoArguments)
    card = desk.card
    people = desk.people
    devices = (
        {}
        if desk.connected is None
        else {key for key in desk.connected if people.owner(DeviceKey(key)) is not None}
    )
    agencies = desk.trust.cards().keys() - {card.charter.agency}
    return {
        "agency": card.charter.name,
        "zone": card.charter.zone,
        "fingerprint": card.charter.fingerprint,
        "id": card.charter.agency.hex(),
        "card_serial": card.charter.serial,
        "nodes": [node.node.hex() for node in card.nodes],
        "addresses": [endpoint for node in card.nodes for endpoint in node.endpoints],
        "listen": desk.settings.listen,
        "running": desk.connected is not None,
        "peers": len(agencies),
        "peers_connected": len(agencies & set(desk.connected or ())),
        "devices_connected": len(devices),
        "users": _count(
            desk,
            "SELECT count(*) FROM users WHERE agency = ? AND EXISTS"
            " (SELECT 1 FROM devices WHERE user = users.id AND revoked = 0)",
            card.charter.agency,
        ),
        "devices": _count(
            desk,
            "SELECT count(*) FROM devices JOIN users ON users.id = user"
            " WHERE agency = ? AND revoked = 0",
            card.charter.agency,
        ),
        "chats": _count(desk, "SELECT count(*) FROM chats"),
        "entries": _count(desk, "SELECT ifnull(sum(length - base), 0) FROM chains"),
        "forks": _count(desk, "SELECT count(*) FROM forks"),
        "parcels": _count(desk, "SELECT count(*) FROM parcels"),
        "database_bytes": _database_bytes(desk),
        "blobs": _count(desk, "SELECT count(*) FROM blobs WHERE state = 3"),
        "blob_bytes": _count(desk, "SELECT ifnull(sum(size), 0) FROM blobs WHERE file IS NOT NULL"),
    }


def users(desk: Desk, arguments: Arguments) -> Result:
    """List our own users, each with all devices and signing certificates that they ever had."""
    _convert(arguments, NoArguments)
    rows = desk.connection.execute(
        "SELECT id, name FROM users WHERE agency = ? ORDER BY name", (desk.card.charter.agency,)
    )
    return {
        "users": [
            {
                "name": name,
                "id": user.hex(),
                "devices": _devices(desk, user),
                "certificates": _certificates(desk, user),
            }
            for user, name in rows
        ]
    }


def peers(desk: Desk, arguments: Arguments) -> Result:
    """List the agencies that we trust: connected or not, and how far behind.

    unconfirmed: entries of our own devices that the agency is not known to store. directory: the
    number of the newest that it showed anyone, or that it showed two (SPEC 7.5).
    """
    _convert(arguments, NoArguments)
    own = desk.card.charter.agency
    return {
        "peers": [
            {
                "agency": card.charter.name,
                "zone": card.charter.zone,
                "id": agency.hex(),
                "fingerprint": card.charter.fingerprint,
                "card_serial": card.charter.serial,
                "addresses": [endpoint for node in card.nodes for endpoint in node.endpoints],
                "connected": None if desk.connected is None else agency in desk.connected,
                "chats": _count(desk, "SELECT count(*) FROM readers WHERE peer = ?", agency),
                "unconfirmed": _unconfirmed(desk, agency),
                "directory": _directory(desk, card.charter),
            }
            for agency, card in desk.trust.cards().items()
            if agency != own
        ]
    }


def _directory(desk: Desk, charter: Charter) -> str:
    """Say whether an agency shows everybody one directory: its number, or that it does not."""
    witness = Witness(desk.connection)
    if witness.split(charter.agency, charter.registrar) is not None:
        return "SHOWN DIFFERENTLY: call the agency"
    head = witness.latest(charter.agency)
    return "not seen yet" if head is None else str(head.serial)


def chats(desk: Desk, arguments: Arguments) -> Result:
    """List chats: which agencies take part, how many entries; never a title, which is sealed."""
    _convert(arguments, NoArguments)
    rows = desk.connection.execute(
        "SELECT chats.no, id, ifnull(sum(length - base), 0), count(DISTINCT device),"
        " (SELECT count(*) FROM forks WHERE chat = chats.no),"
        " (SELECT ifnull(sum(size), 0) FROM blobs WHERE file IS NOT NULL AND chat = chats.no)"
        " FROM chats LEFT JOIN chains ON chains.chat = chats.no GROUP BY chats.no ORDER BY chats.no"
    )
    return {
        "chats": [
            {
                "id": chat.hex(),
                "agencies": _agencies_in(desk, no),
                "entries": entries,
                "devices": devices,
                "forks": forks,
                "blob_bytes": blob_bytes,
            }
            for no, chat, entries, devices, forks, blob_bytes in rows
        ]
    }


def examine(desk: Desk, arguments: Arguments) -> Result:
    """Say what a card is, for the operator to compare before `trust`."""
    found = _examined(desk, _convert(arguments, CardArguments).card)
    return _described(found)


def trust(desk: Desk, arguments: Arguments) -> Result:
    """Trust an agency. Raises IdentityError unless the fingerprint is the one of the card."""
    given = _convert(arguments, CardArguments)
    found = _examined(desk, given.card)
    shown = found.card.charter.fingerprint
    if "".join(given.fingerprint.split()) != "".join(shown.split()):
        raise IdentityError(
            f"the card's fingerprint is {shown}, not the {given.fingerprint} that was compared; "
            "it is not taken"
        )
    desk.trust.accept(found)
    return _described(found)


def invite(desk: Desk, arguments: Arguments) -> Result:
    """Make a one-time invitation for a user's first device, or for one in the place of a lost."""
    given = _convert(arguments, InviteArguments)
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
    given = _convert(arguments, RevokeArguments)
    name = _own_name(desk, given.user)
    address = Address(name, desk.card.charter.name).text
    user = desk.connection.execute("SELECT id FROM users WHERE name = ?", (address,)).get
    withdrawn = Tickets(desk.connection).withdraw(name) if given.device is None else 0
    if user is None and not withdrawn:
        raise UserError(f"no user {address} here; `ivor node users` lists them")
    in_use = [one for one in _devices(desk, user or b"") if not one["revoked"]]
    chosen = in_use if given.device is None else [_chosen(in_use, given.device, address)]
    desk.people.revoke([DeviceKey(bytes.fromhex(str(one["id"]))) for one in chosen])
    return {
        "user": address,
        "revoked": [one["id"] for one in chosen],
        "invitations_withdrawn": withdrawn,
        "devices_left": len(in_use) - len(chosen),
    }


def backup_file(arguments: Arguments) -> Path:
    """Return where a backup is to be written. Raises UserError unless it is an absolute path."""
    file = Path(_convert(arguments, BackupArguments).file)
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
    "invite": invite,
    "revoke": revoke,
}

Shape = TypeVar("Shape", bound=Struct)


def _convert(arguments: Arguments, shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(arguments, shape)
    except msgspec.ValidationError as error:
        raise UserError(f"not what the command takes: {error}") from None


def _count(desk: Desk, query: str, *bindings: bytes) -> int:
    return int(desk.connection.execute(query, bindings).get)


def _database_bytes(desk: Desk) -> int:
    return int(desk.connection.pragma("page_count")) * int(desk.connection.pragma("page_size"))


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


def _certificates(desk: Desk, user: UserId) -> list[Result]:
    return [
        {
            "serial": one.serial.hex(),
            "device": one.device.hex(),
            "expires": one.ends * 1000,
            "valid": desk.now < one.ends and desk.people.owner(one.device) is not None,
        }
        for one in Signatories(desk.connection).of(user)
    ]


def _devices(desk: Desk, user: bytes) -> list[Result]:
    rows = desk.connection.execute(
        "SELECT id, certificate, revoked, prekey IS NOT NULL FROM devices WHERE user = ?"
        " ORDER BY id",
        (user,),
    )
    found: list[Result] = []
    for device, raw, revoked, prekey in rows:
        certificate = verify_endorsed(raw)
        found.append(
            {
                "id": device.hex(),
                "label": certificate.label,
                "issued": certificate.issued,
                "revoked": bool(revoked),
                "prekey": bool(prekey),
            }
        )
    return found


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


def _unconfirmed(desk: Desk, agency: bytes) -> int:
    """Count what our own devices wrote in chats with this agency and it has not confirmed."""
    return _count(
        desk,
        "SELECT ifnull(sum(max(0, chains.length - ifnull(holdings.length, 0))), 0) FROM readers"
        " JOIN chains ON chains.chat = readers.chat AND branch = 0"
        " JOIN devices ON devices.id = chains.device"
        " JOIN users ON users.id = devices.user AND users.agency = ?2"
        " LEFT JOIN holdings ON holdings.chat = chains.chat AND holdings.device = chains.device"
        " AND holdings.lane = chains.lane AND holdings.agency = readers.peer"
        " WHERE readers.peer = ?1",
        agency,
        desk.card.charter.agency,
    )


def _agencies_in(desk: Desk, chat: int) -> list[str]:
    """Name the agencies of a chat; one that we do not trust by the beginning of its id."""
    rows = desk.connection.execute(
        "SELECT peer, name FROM readers LEFT JOIN agencies ON agencies.id = peer"
        " WHERE chat = ? AND NOT EXISTS (SELECT 1 FROM devices WHERE devices.id = peer)",
        (chat,),
    )
    own = desk.card.charter
    return sorted(
        own.name if peer == own.agency else name or f"?{peer.hex()[:16]}" for peer, name in rows
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
        "addresses": [endpoint for node in found.card.nodes for endpoint in node.endpoints],
        "standing": found.standing.value,
        "changes": [] if found.known is None else list(changes(found.known, found.card)),
        "looks_like": list(found.looks_like),
    }
