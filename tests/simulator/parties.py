"""Nodes and devices of a simulation: the real replica and client, on a simulated disk and wire.

A party outlives its process: `crash` loses all but the database, `start` begins anew from it.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import apsw

from node.agency import Agency
from node.database import begin_anew
from node.directory import Directory
from node.errors import IvorError
from node.hub import Hub
from node.outgoing import Outgoing
from node.replica import Replica
from node.seals import Sealless
from node.service import acknowledging
from node.stored import Stored
from node.transaction import Transaction
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import Ask, Forked, Holding, Rumour, Seal
from protocol.identity import UserId
from protocol.person import Person, PersonDevice, verify_person
from protocol.run import Entry
from protocol.session import PeerKind
from protocol.spread import NEVER
from tests.simulator import inquiries
from tests.simulator.cast import BEGINNING, enrol, opened
from tests.simulator.clockwork import Clockwork
from tests.simulator.disk import Disk
from tests.simulator.trace import Trace
from tests.simulator.wire import Line

SECOND_MS = 1000
HOUR_SECONDS = 3600.0
FOLDER = Path("/nonexistent")
REFUSED = 8
COMPARE_SECONDS = 60.0  # an hour, but a simulation is over before that
CHANGE_SECONDS = 10.0  # until a change of users is asked for again


class Place(Protocol):
    """What a party needs of its world."""

    clock: Clockwork
    trace: Trace

    def storing(self, party: "Party", parts: Sequence[Stored], source: Line | None) -> None:
        """A party judges and stores, not durably yet."""

    def durable(self, party: "Party") -> None:
        """A transaction of a party is durable."""

    def bug(self, where: str, error: Exception) -> None:
        """An exception that should not be."""

    def beside(self, party: "Party") -> bool:
        """Whether another process of a device does the next thing."""

    def parted(self, key: DeviceKey) -> None:
        """A node takes a device no longer."""

    def aged(self, party: "Party", before: AbstractSet[int]) -> None:
        """A party has dropped what has aged. before: the places that had no payload then."""


class Party:
    """What nodes and devices have in common.

    disturbed: whether its clock has leapt, or its database was brought back from an older one.
    given_up: whether it is a device that is gone for good.
    aged_at: what its clock showed when it last dropped what had aged, if it did.
    """

    def __init__(self, place: Place, name: str, connection: apsw.Connection) -> None:
        self.place = place
        self.name = name
        self.connection = connection
        self.honest = True
        self.up = False
        self.clock_off = 0.0
        self.lines: list[Line] = []
        self.backup: bytes | None = None
        self.disturbed = False
        self.given_up = False
        self.aged_at: int | None = None

    @property
    def wall(self) -> int:
        """What the party's own clock shows, in milliseconds."""
        return int((BEGINNING + HOUR_SECONDS + self.place.clock.now + self.clock_off) * SECOND_MS)

    def note(self, what: str, about: str = "") -> None:
        """Note something in the trace."""
        self.place.trace.note(self.place.clock.now, self.name, what, about)

    def crash(self) -> None:
        """Lose everything but the database."""
        self.up = False
        self.disk.crash()
        for line in list(self.lines):
            if line.wire is not None:
                line.wire.cut()
        self.lines.clear()

    def closed(self, line: Line) -> None:
        """A connection is over."""
        if line in self.lines:
            self.lines.remove(line)

    def looked_ahead(self, chat: ChatId, entries: Sequence[Entry]) -> None:
        """Nobody looks at a chat here."""

    def tamper(self, line: Line, raw: bytes) -> Sequence[bytes]:
        """Send what is to be sent."""
        del line
        return (raw,)

    def age(self) -> None:
        """Drop what has aged, as a node does every hour and a device at each visit."""

        def ended(error: Exception | None) -> None:
            if error is not None and not isinstance(error, IvorError | PeerError):
                self.place.bug(self.name, error)

        if self.up:
            self.disk.write(self._age, ended)

    def _age(self) -> None:
        if not self.replica.may_age():
            self.note("doubts its clock")
            return
        before = {row[0] for row in self.connection.execute("SELECT place FROM dropped")}
        for chat in self._ageing():
            at: int | None = 0
            while at is not None:
                at = self.replica.age(chat, at)
        self.aged_at = self.wall
        self.place.aged(self, before)

    def _ageing(self) -> Sequence[ChatId]:
        """Return the chats where something may have aged."""
        return self.replica.store.chats()

    def keep_backup(self) -> None:
        """Copy the database as it is at one moment."""
        self.disk.read(self._copy)

    def _copy(self) -> None:
        self.backup = self.connection.serialize("main")
        self.note("backup")

    disk: Disk
    replica: Replica


class NodeParty(Party):
    """An agency's node."""

    def __init__(self, place: Place, name: str, agency: Agency, database: bytes) -> None:
        super().__init__(place, name, opened(database))
        self.agency = bytes(agency.id)
        self.keys = agency
        self.hub: Hub[Line]
        self.start()

    @property
    def key(self) -> bytes:
        """How others call it."""
        return self.agency

    def start(self) -> None:
        """Begin from the database."""
        self.hub = Hub(self.agency, lambda: self.place.clock.now)
        self._spreads_at = NEVER
        self.replica = Replica(self.connection, self.agency, self.agency, lambda: self.wall)
        self.replica.payloads.random = self.place.clock.stream("payloads", self.name).randbytes
        draw = self.place.clock.stream("directory", self.name).randbytes
        self.directory = Directory(self.connection, self.keys, draw)
        self.hub.agencies = frozenset(self.directory.cards())
        transaction = Transaction(self.connection, self.replica.forget)
        self.disk = Disk(
            self.place.clock, self.name, transaction, partial(self.place.durable, self)
        )
        self.up = True
        self.service = inquiries.Service(self)
        self._keep_comparing(self.service)

    def _keep_comparing(self, service: inquiries.Service) -> None:
        """Compare directories, and drop what has aged: as it starts and every hour."""
        if self.up and service is self.service:
            service.compare()
            self.age()
            self.place.clock.after(COMPARE_SECONDS, lambda: self._keep_comparing(service))

    def _ageing(self) -> Sequence[ChatId]:
        """Leave out what was found to hold nothing that ages, as `node.sweep` does."""
        ageless = self.replica.payloads.ageless
        return [chat for chat in self.replica.store.chats() if chat not in ageless]

    def keep_backup(self) -> None:
        """Copy the database once our directory is signed as it stands, as an operator's backup."""

        def signed(error: Exception | None) -> None:
            if error is None:
                super(NodeParty, self).keep_backup()

        self.disk.write(lambda: self.directory.sign(self.wall / SECOND_MS), signed)

    def restore(self) -> None:
        """Go on from the backup, as a node of its own (SPEC 10)."""
        if self.backup is None:
            return
        self.connection = opened(self.backup)
        begin_anew(self.connection, self.place.clock.stream("incarnation", self.name).randbytes)

    def consult(self, line: Line, ask: Ask) -> None:
        """Answer from the directory."""
        self.service.answer(line, ask)

    def register(
        self, user: UserId, device: DeviceKey, listed: PersonDevice, then: Callable[[], None]
    ) -> None:
        """Certify a further device of a user, unless it is certified here; then do that."""
        keep = partial(self._keep, user, device, listed)
        self._change_users("certifies", keep, then)

    def recover(
        self, user: UserId, device: DeviceKey, listed: PersonDevice, then: Callable[[], None]
    ) -> None:
        """The same with one in the place of a lost one, which may bring itself in."""

        def work() -> None:
            self._keep(user, device, listed)
            self.directory.people.let_enter(device)
            self.replica.welcome()

        self._change_users("recovers", work, then)

    def enrol(self, person: Person, device: DeviceKey, then: Callable[[], None]) -> None:
        """Enrol a user with a first device, unless they are enrolled here; then do that."""

        def work() -> None:
            if not self.directory.people.known_device(device):
                enrol(self.directory.people, person)
                self.replica.welcome()

        self._change_users("enrols", work, then)

    def _keep(self, user: UserId, device: DeviceKey, listed: PersonDevice) -> None:
        people = self.directory.people
        if not people.known_device(device):
            people.keep_device(device, user, listed.certificate, listed.prekey)

    def look_up(self, user: UserId, then: Callable[[Person], None]) -> None:
        """Have the directory tell of a user, as it stands; then do something with that.

        Nothing, if it has revoked them by now.
        """
        found: list[Person] = []

        def work() -> None:
            people, witness = self.directory.people, self.directory.witness
            person = people.by_id(user)
            if person is not None:
                now = self.wall / SECOND_MS
                known = verify_person(person).user
                listing = witness.listing(self.keys, known, now, people.unmet())
                found[:] = [replace(person, listing=listing)]

        def done() -> None:
            for person in found:
                then(person)

        self._change_users("looks up", work, done)

    def dismiss(self, device: DeviceKey, then: Callable[[], None]) -> None:
        """Refuse a device of a user from now on; then do that."""
        self._change_users("dismisses", lambda: self.directory.people.revoke([device]), then)

    def _change_users(self, what: str, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Change the directory; a node that was brought back does it when it has met its peers."""

        def ended(error: Exception | None) -> None:
            self.note(what, str(error or ""))
            if error is None:
                then()
            else:
                self._change_later(what, work, then)

        if self.up:
            self.disk.write(work, ended)
        else:
            self._change_later(what, work, then)

    def _change_later(self, what: str, work: Callable[[], None], then: Callable[[], None]) -> None:
        again = partial(self._change_users, what, work, then)
        self.place.clock.after(CHANGE_SECONDS, again)

    def resume(self) -> None:
        """The operator lets it change users: whom it has not met since it was brought back died."""

        def work() -> None:
            self.directory.people.resume()

        self.disk.write(work, lambda _: None)

    def opened(self, line: Line) -> None:
        """Take part; a device hears what is stored."""
        self.hub.add(line)
        if line.peer is PeerKind.DEVICE:
            self.service.tell_holdings(line)
        else:
            self.service.compare([line])

    def closed(self, line: Line) -> None:
        """Hand on to it no more."""
        super().closed(line)
        self.hub.remove(line)
        if self.up and line.peer is PeerKind.DEVICE:
            for other in self.hub.of(line.key):
                self.service.tell_holdings(other)

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Push on, and see to what that leaves to be done."""
        self.place.storing(self, parts, source if isinstance(source, Line) else None)
        hand_on = self.hub.storing(parts, source)
        tell_home = acknowledging(self.replica, self.hub, parts, source)
        self._spread_in_time()

        def durable() -> None:
            hand_on()
            tell_home()
            self._spread_in_time()

        return durable

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """Hand seals on once they are durable."""
        readers = self.replica.readers_of(chat)
        return partial(self.hub.seals_kept, chat, epoch, owners, readers)

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        """Ask who made them, also on behalf of another node."""
        for line in self.hub.of(home):
            line.relay_seals(lacked)

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """Spread a proof."""
        self.note("fork", forked.chat.hex()[:8])
        self.hub.fork_kept(forked, readers)

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        """Prune, in a large chat."""
        self.hub.repeated(chat, source)
        self._spread_in_time()

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        """Take part in the spread of large chats."""
        self.hub.gossiped(rumour, readers, source)
        self._spread_in_time()

    def _spread_in_time(self) -> None:
        """Have the hub announce and ask when that is due, as `Hub.keep_spreading` does."""
        hub, due = self.hub, self.hub.due
        if due < self._spreads_at:
            self._spreads_at = due
            self.place.clock.at(due, partial(self._spread, hub))

    def _spread(self, hub: Hub[Line]) -> None:
        if hub is self.hub and self.up:
            self._spreads_at = NEVER
            hub.spread()
            self._spread_in_time()

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        """Tell authors."""
        del source
        self.hub.holdings_noted(holdings)
