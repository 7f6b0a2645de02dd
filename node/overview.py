"""What an operator is shown of a node: itself, its users, its peers, its chats (SPEC 10)."""

from collections.abc import Set as AbstractSet

from msgspec import Struct

from node.chats import Chats
from node.desk import Arguments, Desk, Result, convert, count, devices_of
from node.signatories import Signatories
from node.witness import Witness
from protocol.entry import ChatId, DeviceKey
from protocol.identity import Charter, UserId


class NoArguments(Struct, forbid_unknown_fields=True):
    """Of a command that takes none."""


def status(desk: Desk, arguments: Arguments) -> Result:
    """Return what the node is and what it holds."""
    convert(arguments, NoArguments)
    card = desk.card
    people = desk.people
    devices = (
        {}
        if desk.connected is None
        else {key for key in desk.connected if people.owner(DeviceKey(key)) is not None}
    )
    agencies = desk.trust.agencies() - {card.charter.agency}
    return {
        "agency": card.charter.name,
        "zone": card.charter.zone,
        "fingerprint": card.charter.fingerprint,
        "id": card.charter.agency.hex(),
        "card_serial": card.charter.serial,
        "nodes": [node.node.hex() for node in card.nodes],
        "addresses": card.endpoints,
        "listen": desk.settings.listen,
        "running": desk.connected is not None,
        "peers": len(agencies),
        "peers_connected": len(agencies & set(desk.connected or ())),
        "devices_connected": len(devices),
        "users": count(
            desk,
            "SELECT count(*) FROM users WHERE agency = ? AND EXISTS"
            " (SELECT 1 FROM devices WHERE user = users.id AND revoked = 0)",
            card.charter.agency,
        ),
        "devices": count(
            desk,
            "SELECT count(*) FROM devices JOIN users ON users.id = user"
            " WHERE agency = ? AND revoked = 0",
            card.charter.agency,
        ),
        "chats": count(desk, "SELECT count(*) FROM chats"),
        "entries": count(desk, "SELECT ifnull(sum(length - base), 0) FROM chains"),
        "forks": count(desk, "SELECT count(*) FROM forks"),
        "parcels": count(desk, "SELECT count(*) FROM parcels"),
        "database_bytes": _database_bytes(desk),
        "blobs": count(desk, "SELECT count(*) FROM blobs WHERE state = 3"),
        "blob_bytes": count(desk, "SELECT ifnull(sum(size), 0) FROM blobs WHERE file IS NOT NULL"),
    }


def users(desk: Desk, arguments: Arguments) -> Result:
    """List our own users, each with all devices and signing certificates that they ever had."""
    convert(arguments, NoArguments)
    rows = desk.connection.execute(
        "SELECT id, name FROM users WHERE agency = ? ORDER BY name", (desk.card.charter.agency,)
    )
    return {
        "users": [
            {
                "name": name,
                "id": user.hex(),
                "devices": devices_of(desk, user),
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
    convert(arguments, NoArguments)
    own = desk.card.charter.agency
    return {
        "peers": [
            {
                "agency": card.charter.name,
                "zone": card.charter.zone,
                "id": agency.hex(),
                "fingerprint": card.charter.fingerprint,
                "card_serial": card.charter.serial,
                "addresses": card.endpoints,
                "connected": None if desk.connected is None else agency in desk.connected,
                "chats": count(desk, "SELECT count(*) FROM readers WHERE peer = ?", agency),
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
    convert(arguments, NoArguments)
    rows = desk.connection.execute(
        "SELECT chats.no, id, ifnull(sum(length - base), 0), count(DISTINCT device),"
        " (SELECT count(*) FROM forks WHERE chat = chats.no),"
        " (SELECT ifnull(sum(size), 0) FROM blobs WHERE file IS NOT NULL AND chat = chats.no)"
        " FROM chats LEFT JOIN chains ON chains.chat = chats.no GROUP BY chats.no ORDER BY chats.no"
    )
    own = desk.card.charter.agency
    stored = Chats(desk.connection, own, own)
    return {
        "chats": [
            {
                "id": chat.hex(),
                "agencies": _agencies_in(desk, stored, no, ChatId(chat)),
                "entries": entries,
                "devices": devices,
                "forks": forks,
                "blob_bytes": blob_bytes,
            }
            for no, chat, entries, devices, forks, blob_bytes in rows
        ]
    }


def _database_bytes(desk: Desk) -> int:
    return int(desk.connection.pragma("page_count")) * int(desk.connection.pragma("page_size"))


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


def _unconfirmed(desk: Desk, agency: bytes) -> int:
    """Count what our own devices wrote in chats with this agency and it has not confirmed."""
    return count(
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


def _agencies_in(desk: Desk, stored: Chats, no: int, chat: ChatId) -> list[str]:
    """Name the agencies of a chat; one that we do not trust by the beginning of its id."""
    rows = desk.connection.execute(
        "SELECT peer, name FROM readers LEFT JOIN agencies ON agencies.id = peer"
        " WHERE chat = ? AND NOT EXISTS (SELECT 1 FROM devices WHERE devices.id = peer)",
        (no,),
    )
    own = desk.card.charter
    found = {peer: own.name if peer == own.agency else name for peer, name in rows}
    if None in found.values():
        found = {peer: found[peer] for peer in found.keys() - _devices_in(stored, chat)}
    return sorted(name or f"?{peer.hex()[:16]}" for peer, name in found.items())


def _devices_in(stored: Chats, chat: ChatId) -> AbstractSet[bytes]:
    """Return the devices in a chat: of our own, a node that was brought back has forgotten some."""
    judge = stored.chat(chat) if stored.is_readable(chat) else None
    return frozenset() if judge is None else judge.membership().devices.keys()
