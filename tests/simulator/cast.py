"""The agencies and officials of every simulation: made once a process, copied for each seed.

Agencies, certificates, keys and databases are made by the real code (`tests.federation`), from
bytes that are always the same, so that a seed means the same in every process. A device's database
is kept as bytes; a simulation opens a copy of them in memory.
"""

import os
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import shake_256
from pathlib import Path
from unittest import mock

import apsw
from msgspec import convert

from client.device import Device
from client.folder import Secrets
from crypto import keyfile
from node.agency import Agency
from node.database import open_connection
from node.people import People
from node.schema import SCHEMA
from node.trust import Trust
from protocol.entry import DeviceKey
from protocol.identity import UserId, verify_charter, verify_device, verify_user
from protocol.person import Person, PersonDevice
from tests.federation import Federation
from tests.simulator.stand_ins import Registry, seals_standing_in, standing_in

BEGINNING = 1_767_225_600  # seconds: 2026-01-01, when everybody was enrolled
MEMORY = "/dev/shm"  # noqa: S108 - databases of throw-away people, where there is memory for them
ZONES = {"ada": "RU-UDM", "bor": "RU-UDM", "ves": "RU-UDM", "gor": "RU-UDM", "mos": "RU-MOW"}
OFFICIALS = ("anna", "boris")
NEWCOMER = "clara"


@dataclass(frozen=True, slots=True)
class Role:
    """A device as it was enrolled. database: its bytes.

    replaces: the name of the lost device in the place of which its user has it, or nothing.
    person: its user, if that is a newcomer, of whom no node has heard yet.
    """

    name: str
    agency: str
    certificate: bytes
    secrets: Secrets
    database: bytes
    replaces: str = ""
    person: Person | None = None


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody. nodes: databases of new nodes, by agency. registry: what was signed so far.

    substitutes: devices that nobody has heard of yet, by the name of the one each would replace.
    listed: what a directory tells of each device, by its certificate.
    newcomers: users yet to be enrolled, by the name of their agency.
    """

    agencies: dict[str, Agency]
    nodes: dict[str, bytes]
    roles: tuple[Role, ...]
    substitutes: dict[str, Role]
    listed: dict[bytes, PersonDevice]
    newcomers: dict[str, Role]
    registry: Registry


@contextmanager
def repeatable() -> Iterator[None]:
    """Let the system's randomness and clock be the same each time, for what the real code makes."""
    state = [b"cast"]

    def urandom(size: int) -> bytes:
        state[0] = shake_256(state[0]).digest(32)
        return shake_256(b"bytes" + state[0]).digest(size)

    with (
        mock.patch.object(os, "urandom", urandom),
        mock.patch.object(time, "time", return_value=float(BEGINNING)),
        mock.patch.multiple(keyfile, MEMORY_KIB=keyfile.MEMORY_KIB_MIN, PASSES=1),
    ):
        yield


@cache
def cast(*, real: bool) -> Cast:
    """Enrol everybody. real: with Ed25519 by libsodium."""
    registry = Registry()
    standing = seals_standing_in if real else standing_in
    folder = MEMORY if Path(MEMORY).is_dir() else None
    with tempfile.TemporaryDirectory(dir=folder) as at, standing(registry), repeatable():
        federation = Federation(Path(at))
        for agency, zone in ZONES.items():
            for official in OFFICIALS:
                first = federation.official(f"{official}@{agency}", zone)
                if official == OFFICIALS[0]:
                    federation.further(first)
        devices = [*federation.devices]
        roles = tuple(_role(device) for device in devices)
        persons = tuple(federation.persons.values())
        agencies = federation.agencies
        nodes = {name: _node(one, agencies.values(), persons) for name, one in agencies.items()}
        federation.close()
        federation.devices.clear()  # nobody hears of the substitutes
        firsts = [one for one in devices if one.secrets.user]
        enrolled = {one.key for one in devices}
        substitutes = {one.profile.name: _substitute(federation, one, enrolled) for one in firsts}
        everybody = federation.persons.values()
        listed = {one.certificate: one for person in everybody for one in person.devices}
        newcomers = {name: _newcomer(federation, f"{NEWCOMER}@{name}") for name in ZONES}
    return Cast(agencies, nodes, roles, substitutes, listed, newcomers, registry)


def _role(device: Device) -> Role:
    user = device.profile.user
    verify_user(user.raw, device.profile.charter)
    own = "" if device.secrets.user else "'s second"
    device.connection.pragma("journal_mode", "delete")
    return Role(
        f"{user.name}@{device.profile.charter.name}{own}",
        device.profile.charter.name,
        device.profile.device_certificate,
        device.secrets,
        device.connection.serialize("main"),
    )


def _substitute(federation: Federation, lost: Device, enrolled: Collection[DeviceKey]) -> Role:
    """Make a device by the recovery words. Of its user's others it has yet to hear."""
    device = federation.recovered(lost)
    rows = device.connection.execute("SELECT id, user FROM devices WHERE id != ?", (device.key,))
    unknown = [
        (key,)
        for key, user in convert(rows.fetchall(), list[tuple[DeviceKey, UserId]])
        if user == device.profile.user.user or key not in enrolled
    ]
    device.connection.executemany("DELETE FROM devices WHERE id = ?", unknown)
    name = lost.profile.name
    role = replace(_role(device), name=f"{name}'s new", replaces=name)
    federation.close()
    federation.devices.clear()
    return role


def _newcomer(federation: Federation, address: str) -> Role:
    role = _role(federation.official(address))
    federation.close()
    federation.devices.clear()
    return replace(role, person=federation.persons[address])


def _node(agency: Agency, agencies: Collection[Agency], persons: Sequence[Person]) -> bytes:
    """Return the database of a node that has registered its officials, and trusts all others."""
    connection = opened(empty_database())
    trust = Trust(connection, agency.card)
    for other in agencies:
        if other is not agency:
            trust.accept(trust.examine(other.card.raw, allow_local=True))
    people = People(connection, agency.id)
    for person in persons:
        if person.charter == agency.card.charter.raw:
            enrol(people, person)
    return connection.serialize("main")


def enrol(people: People, person: Person) -> None:
    """Take a user into their agency's directory, as its registrar does."""
    charter = verify_charter(person.charter)
    user = verify_user(person.certificate, charter)
    address = f"{user.name}@{charter.name}"
    people.keep_user(user.user, people.agency, address, charter.raw, user.raw)
    for listed in person.devices:
        device = verify_device(listed.certificate, charter)
        people.keep_device(device.device, device.user, device.raw, listed.prekey)


@cache
def _empty() -> bytes:
    connection = open_connection(":memory:")
    connection.execute(SCHEMA)
    connection.execute("INSERT INTO meta VALUES ('incarnation', ?)", (bytes(16),))
    return connection.serialize("main")


def empty_database() -> bytes:
    """Return the database of a new node, its incarnation yet to be set."""
    return _empty()


def opened(database: bytes) -> apsw.Connection:
    """Open a copy of a database in memory."""
    connection = open_connection(":memory:")
    connection.deserialize("main", database)
    return connection


def open_shared(path: str) -> apsw.Connection:
    """Open a database in memory that all connections of this process find at its path."""
    return open_connection(path, "memdb")
