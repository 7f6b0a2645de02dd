"""Devices of several agencies over real databases, a clock that is moved, and a node that sees all.

    world = World()
    chat = world.found("anna", "boris")
    world.say("anna", chat, "hello")
    world.carry("anna", "boris")
    world.age(15)                                # days; every device visits its node daily
    thief = world.steal("boris")                 # all that boris' device holds now
    thief.attacker.opened()

The people are the same in each world: their certificates are made once in a process.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from unittest import mock

from client import arrivals, compose, mailbox, people
from client.device import Device
from client.epochs import own_prekey
from client.erasure import erase_prekeys
from client.folder import Random
from client.mailbox import State
from crypto import keyfile
from node.errors import RefusedError
from protocol import codec
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId
from protocol.epoch import position, prekey_of
from protocol.frame import Run, authentic
from protocol.grant import Credential, verified
from protocol.identity import verify_prekey
from protocol.message import Text, encode_message
from protocol.operation import Admit, Remove
from protocol.person import Person, PersonDevice
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.run import rebuild
from protocol.testing.attacker import Attacker, Transcript
from protocol.testing.chains import Chain
from protocol.testing.interference import ghost_certificates
from tests.federation import Federation

ADDRESSES = {
    "anna": "anna@minzdrav",
    "boris": "boris@mincifry",
    "vera": "vera@mincifry",
    "dina": "dina@minzdrav",
}
NAMES = tuple(ADDRESSES)
DAY_MS = 86_400_000
RENEW_DAYS = 7
MEMORY = "/dev/shm"  # noqa: S108 - databases of throw-away people, where there is memory for them
ARCHIVE_TABLES = ("mailbox", "disclosed")  # what a device has read it keeps, by design


@cache
def people_of_all_worlds() -> Federation:
    """The agencies and devices that each world gets a copy of."""
    folder = tempfile.mkdtemp(dir=MEMORY if Path(MEMORY).is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cheap = mock.patch.multiple(keyfile, MEMORY_KIB=keyfile.MEMORY_KIB_MIN, PASSES=1)
    with cheap:
        federation = Federation(Path(folder))
        for address in ADDRESSES.values():
            federation.official(address)
    federation.close()
    return federation


@dataclass(frozen=True, slots=True)
class Said:
    """A message as its author wrote it. readers: the members that the author knew of."""

    id: EntryId
    author: str
    text: str
    epoch: EntryId
    readers: frozenset[str]
    plaintext: bytes


@dataclass(frozen=True, slots=True)
class Theft:
    """Everything of one device at one time. visited: when it last did its upkeep."""

    name: str
    time: int
    visited: int
    processed: frozenset[EntryId]
    prekeys_ever: frozenset[bytes]
    prekeys_held: frozenset[bytes]
    attacker: Attacker


class World:
    """Four people, the node between them, and what is true, whatever the code thinks."""

    def __init__(self) -> None:
        federation = people_of_all_worlds()
        self.folder = Path(tempfile.mkdtemp(dir=federation.folder))
        self.clock = max(verify_prekey(_record(one)).issued for one in _persons(federation)) + 1
        self.persons = {name: federation.persons[ADDRESSES[name]] for name in NAMES}
        self.agencies = federation.agencies
        self.devices: dict[str, Device] = {}
        for number, (name, old) in enumerate(zip(NAMES, federation.devices, strict=True)):
            copied = self.folder / old.folder.name
            shutil.copytree(old.folder, copied)
            self.devices[name] = Device(copied, old.secrets, _random(number))
            self.devices[name].settle_here()
        self.seen = Transcript()
        self.made: set[EntryId] = set()
        self.plaintexts: dict[EntryId, bytes] = {}
        self.said: dict[EntryId, Said] = {}
        self.started: dict[EntryId, int] = {}
        self.recipients: dict[EntryId, Sequence[DeviceKey]] = {}
        self.changes: list[tuple[EntryId, frozenset[str]]] = []
        self.prekeys: dict[str, set[bytes]] = {name: set() for name in NAMES}
        self.renewals: list[tuple[int, int]] = []
        self.visited = dict.fromkeys(NAMES, self.clock)
        self._noted: dict[tuple[ChatId, bytes, int], int] = {}
        self.common = _in_more_than_one(self.devices.values())
        for name in NAMES:
            self._note_prekeys(name)

    def close(self) -> None:
        """Close every database and remove it."""
        for device in self.devices.values():
            device.close()
        shutil.rmtree(self.folder)

    def name_of(self, device: bytes) -> str:
        """Return whose device this is."""
        return next(name for name, one in self.devices.items() if one.key == device)

    # What honest people do

    def found(self, owner: str, *members: str, role: Role = Role.MEMBER) -> ChatId:
        """Start a chat; nobody but the owner has it yet."""
        device = self.devices[owner]
        policy = Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)
        users = [(self.devices[name].profile.user.user, role) for name in members]
        with device.transaction():
            chat = compose.new_chat(device, ChatKind.GROUP, "", policy, users, self.tick())
        self.changes.append((EntryId(chat), frozenset((owner, *members))))
        self.note(owner)
        return chat

    def change(self, owner: str, chat: ChatId, members: frozenset[str]) -> None:
        """Let the owner bring the members to these."""
        device = self.devices[owner]
        present = self.changes[-1][1]
        for name in sorted(present ^ members):
            user = self.devices[name].profile.user.user
            with device.transaction():
                if name in members:
                    granted = [(user, Role.MEMBER)]
                    compose.add_members(device, chat, granted, self.tick())
                else:
                    compose.remove_member(device, chat, user, self.tick())
            present ^= {name}
            self.changes.append((self._newest_change(device, chat), present))
        self.note(owner)

    def _newest_change(self, device: Device, chat: ChatId) -> EntryId:
        judge = compose.require(device, chat)
        return next(
            one.id
            for one in reversed(judge.history.entries)
            if one.device == device.key and isinstance(one.operation, Admit | Remove)
        )

    def knows(self, name: str, chat: ChatId) -> frozenset[str]:
        """Return the members by what a device has seen."""
        judge = self.devices[name].replica.chat(chat)
        held = set() if judge is None else {one.id for one in judge.history.entries}
        return next(
            (names for entry, names in reversed(self.changes) if entry in held), frozenset()
        )

    def say(self, name: str, chat: ChatId, text: str) -> Said | None:
        """Write a text, unless the client refuses to."""
        device = self.devices[name]
        readers = self.knows(name, chat)
        message = Text(text, None)
        try:
            with device.transaction():
                place = compose.send(device, chat, message, self.tick(), None)
        except RefusedError:
            return None
        self.note(name)
        header = self.seen.content[place.id][0]
        said = Said(place.id, name, text, header.epoch, readers, encode_message(message))
        self.said[place.id] = said
        self.plaintexts[place.id] = said.plaintext
        return said

    def visit(self, name: str) -> None:
        """Do what a device does at its node: publish its prekey, and hear of those of others."""
        device = self.devices[name]
        erase_prekeys(device, self.tick())
        with device.transaction():
            record = own_prekey(device, self.clock)
        self.visited[name] = self.clock
        self._note_prekeys(name)
        person = self.persons[name]
        listed = PersonDevice(person.devices[0].certificate, record)
        self.persons[name] = Person(person.charter, person.certificate, (listed,))
        for other in self.persons.values():
            with device.transaction():
                people.keep_person(device, other)

    def age(self, days: int) -> None:
        """Let days pass; each device visits daily."""
        begun = self.clock
        for _ in range(days):
            self.clock += DAY_MS
            for name in NAMES:
                self.visit(name)
        if days > RENEW_DAYS:
            self.renewals.append((begun, self.clock))

    def renewed_between(self, earlier: int, later: int) -> bool:
        """Whether meanwhile every device has made a new prekey, and heard of the others'."""
        return any(earlier <= begun and ended <= later for begun, ended in self.renewals)

    def tick(self) -> int:
        """Return the time, which goes on."""
        self.clock += 1
        return self.clock

    # What passes

    def carry(self, source: str, target: str) -> None:
        """Bring the target all that the source has, as `Federation.carry` does."""
        people_of_all_worlds().carry(self.devices[source], self.devices[target])
        self.note(target)

    def chain(self, holder: str, author: str, lane: int, chat: ChatId) -> Chain:
        """Return what a device holds of another's chain, the longest branch, to go on with."""
        device, key = self.devices[holder], self.devices[author].key
        chain = Chain(self.devices[author].secrets.device, chat, lane)
        stored = device.replica.store.chat(chat)
        branches = [] if stored is None else stored.chains.get((key, lane), [])
        for branch in sorted(branches, key=lambda one: one.length)[-1:]:
            rows = device.replica.store.rows(branches, branch, 0, branch.length)
            records = [row[2] for row in rows]
            for entry in rebuild(chat, key, lane, 0, None, None, records):
                chain.append(entry.header, entry.payload or b"")
        return chain

    def runs_of(self, name: str, chat: ChatId) -> list[Run]:
        """Return what a device itself has written in a chat, an entry a run."""
        chains = [self.chain(name, name, lane, chat) for lane in (CONTROL, CONTENT)]
        return [chain.run(at, at + 1) for chain in chains for at in range(len(chain.entries))]

    def take(self, name: str, run: Run) -> bool:
        """Give a device whatever run, as a session would; tell whether something was stored."""
        device = self.devices[name]
        with device.transaction():
            stored = device.replica.append(run, authentic(run))
            arrivals.deliver(device, [stored])
        return stored.appended > 0

    def receive(self, name: str) -> None:
        """Let a device open what came."""
        device = self.devices[name]
        with device.transaction():
            mailbox.open_waiting(device)

    def note(self, name: str) -> None:
        """Let the node see what a device has written."""
        device = self.devices[name]
        for chat in device.replica.store.chats():
            for run in self.runs_of(name, chat):
                key = chat, bytes(device.key), run.lane
                if run.start < self._noted.get(key, 0):
                    continue
                self._noted[key] = run.start + 1
                for entry in authentic(run):
                    self.seen.note(entry)
                    self.made.add(entry.id)
                    if entry.id in self.seen.epochs and run.lane == CONTROL:
                        self.started[entry.id] = self.clock
                        self._note_seals(device, chat, entry.id)
        self._note_prekeys(name)

    def _note_seals(self, device: Device, chat: ChatId, epoch: EntryId) -> None:
        judge = device.replica.chat(chat)
        entry = None if judge is None else judge.history.epoch(epoch)
        assert judge is not None
        assert entry is not None
        self.recipients[epoch] = judge.history.recipients(entry)
        for seal in device.replica.seals_for(chat, epoch, self.recipients[epoch]):
            self.seen.note_seal(epoch, seal.index, seal.seal)

    # What attackers hold

    def steal(self, name: str) -> Theft:
        """Return all that a device holds, but for the archive of what it has read."""
        attacker = Attacker(self.seen)
        attacker.learn(*self.held(name))
        return Theft(
            name,
            self.clock,
            self.visited[name],
            self.processed(name),
            frozenset(self.prekeys[name]),
            frozenset(self._prekeys_now(name)),
            attacker,
        )

    def held(self, name: str) -> list[bytes]:
        """Return each value in a device's database and key file that not everybody knows."""
        device = self.devices[name]
        found = [*_values(device), device.secrets.device.seed]
        return [one for one in found if one not in self.common and one not in self.seen.public]

    def processed(self, name: str) -> frozenset[EntryId]:
        """Return the messages that a device has opened."""
        rows = self.devices[name].connection.execute(
            "SELECT id FROM mailbox WHERE state = ?", (State.OPEN,)
        )
        return frozenset(EntryId(row[0]) for row in rows)

    def prekey_of(self, name: str) -> bytes:
        """Return the public prekey that the directory has of a device."""
        return verify_prekey(_record(self.persons[name])).public

    def prekey_for(self, name: str, epoch: EntryId) -> bytes | None:
        """Return the id of the prekey by which an epoch names a device."""
        at = position(self.recipients[epoch], self.devices[name].key)
        seal = None if at is None else self.seen.epochs[epoch].seals.get(at)
        return None if seal is None else prekey_of(seal)

    def _note_prekeys(self, name: str) -> None:
        self.prekeys[name] |= self._prekeys_now(name)

    def _prekeys_now(self, name: str) -> set[bytes]:
        rows = self.devices[name].connection.execute("SELECT id FROM prekeys")
        return {row[0] for row in rows}


def ghost_credential(world: World, name: str) -> Credential:
    """Return what only an agency can make: a device of a user who did not sign for it."""
    person = world.persons[name]
    good = verified(person.charter, person.certificate, [person.devices[0].certificate])
    registrar = world.agencies[ADDRESSES[name].partition("@")[2]].registrar
    ghosts = ghost_certificates(registrar, good.user.user, good.user.agency)
    return replace(good, devices=(ghosts[1],))


def _values(device: Device) -> Iterator[bytes]:
    tables = device.connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table'"
    ).fetchall()
    for (table,) in tables:
        if table in ARCHIVE_TABLES:
            continue
        rows = device.connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - our own
        yield from (value for row in rows for value in row if isinstance(value, bytes))


def _in_more_than_one(devices: Iterable[Device]) -> frozenset[bytes]:
    """What several devices know before there is any chat is no secret."""
    once: set[bytes] = set()
    again: set[bytes] = set()
    for device in devices:
        found = set(_values(device))
        again |= once & found
        once |= found
    return frozenset(again)


def _persons(federation: Federation) -> list[Person]:
    return list(federation.persons.values())


def _record(person: Person) -> bytes:
    record = person.devices[0].prekey
    assert record is not None
    return record


def _random(number: int) -> Random:
    """Return a repeatable source of bytes, another for each device."""
    state = [sha256(codec.encode((number,))).digest()]

    def draw(size: int) -> bytes:
        state[0] = sha256(state[0]).digest()
        blocks = range(-(-size // len(state[0])))
        return b"".join(sha256(state[0] + bytes([one])).digest() for one in blocks)[:size]

    return draw
