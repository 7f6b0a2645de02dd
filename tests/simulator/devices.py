"""Devices of a simulation: the real client, on a simulated disk and wire.

A device has a process that stays, as `ivor read --follow` does. Others beside it come and go, as
`ivor send` in the next terminal: each opens the same database, does one thing there, and ends.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import apsw

from client import arrivals
from client.deciding import settle
from client.delivery import unstored
from client.device import Device
from client.erasure import erase_prekeys
from client.folder import Secrets
from client.linking import bring_in
from client.outbox import Outbox
from client.preview import preview
from client.revoking import revoke_exposed, revoke_given_up
from node.errors import IvorError
from node.outgoing import Outgoing
from node.seals import Sealless
from node.stored import Stored
from node.transaction import Transaction
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import Answer, Ask, Forked, Holding, Rumour, Seal
from protocol.identity import UserId
from protocol.run import Entry
from tests.simulator import inquiries
from tests.simulator.cast import Role, open_shared, opened
from tests.simulator.disk import Disk
from tests.simulator.parties import NodeParty, Party, Place
from tests.simulator.wire import Line

REFUSED = 8
FOLDER = Path("/nonexistent")
_NUMBERS = count(1)  # of databases


class _Pocket(Device):
    """A device whose database is in memory, and whose folder has the place that we say."""

    def __init__(
        self, secrets: Secrets, random: Callable[[int], bytes], at: apsw.Connection, number: int
    ) -> None:
        self._at = at
        self._number = number
        super().__init__(FOLDER, secrets, random)

    def _open(self) -> apsw.Connection:
        return self._at

    def _place(self) -> int:
        return self._number


@dataclass(frozen=True, slots=True)
class Saved:
    """A backup, and the ids of the letters that are in it."""

    raw: bytes
    letters: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class LastWords:
    """A message, and the devices in the chat as far as its author had heard."""

    entry: EntryId
    members: frozenset[DeviceKey]


class DeviceParty(Party):
    """An official's device.

    handed: what it could read when it owed that to another of theirs.
    saved: the backup that was made of it, or that it was given.
    stale_visits: since it last took up people and published its prekey.
    last_words: what it has said in each chat when the world was at rest.
    seeks: whether it looks for whom it does not know, and takes up people once a day only.
    """

    def __init__(self, place: Place, name: str, role: Role, home: NodeParty) -> None:
        super().__init__(place, name, self._bring(role.database))
        self.role = role
        self.home = home
        self.online = False
        self.chance = place.clock.stream("visit", name)
        self.handed: dict[DeviceKey, frozenset[bytes]] = {}
        self.saved: Saved | None = None
        self.stale_visits = 0
        self.last_words: dict[ChatId, LastWords] = {}
        self.seeks = False
        self._random: Random = place.clock.stream("keys", name)
        self._number = 1
        self._outboxes: dict[Line, Outbox] = {}
        self._visit: inquiries.Visit | None = None
        self.start()
        self.device.settle_here()

    @property
    def key(self) -> DeviceKey:
        """The device's key."""
        return DeviceKey(self.role.secrets.device.public)

    @property
    def is_further(self) -> bool:
        """Whether another device of the same user has certified it."""
        return self.role.secrets.user is None

    @property
    def is_recovered(self) -> bool:
        """Whether it was enrolled in the place of a lost one, by the recovery words."""
        return bool(self.role.replaces)

    @property
    def is_newcomer(self) -> bool:
        """Whether its user was enrolled when others were there already."""
        return self.role.person is not None

    @property
    def user(self) -> UserId:
        """Whose device it is."""
        return self.device.profile.user.user

    def start(self) -> None:
        """Begin from the database."""
        self._outboxes.clear()
        self._visit = None
        self._enter_process(self.connection)
        transaction = Transaction(
            self.connection, self.device.forget, self._look_again, self._appended
        )
        self.disk = Disk(
            self.place.clock, self.name, transaction, partial(self.place.durable, self)
        )
        self.up = True

    def _look_again(self) -> None:
        """See what other processes have written, as `client.link` does."""
        if self.device.refresh():
            for line in self.lines:
                line.ask_for_seals()

    def _bring(self, database: bytes) -> apsw.Connection:
        """Copy a database to where each process of this device finds it."""
        self._path = f"/{next(_NUMBERS)}"
        connection, original = open_shared(self._path), opened(database)
        with connection.backup("main", original, "main") as copying:
            copying.step()
        return connection

    def _enter_process(self, connection: apsw.Connection) -> None:
        """Open the database, as a process does when it begins."""
        self.connection = connection
        self.device = _Pocket(self.role.secrets, self._random.randbytes, connection, self._number)
        self.replica = self.device.replica
        self.replica.payloads.clock = lambda: self.wall
        self.replica.payloads.random = self.place.clock.stream("payloads", self.name).randbytes

    def forget_people(self) -> None:
        """Begin as one who was just enrolled does: of others it has yet to hear."""
        self.seeks = True
        for table, column in (("devices", "user"), ("users", "id")):
            self.connection.execute(
                f"DELETE FROM {table} WHERE {column} != ?",  # noqa: S608 - ours
                (self.user,),
            )

    def restore(self) -> None:
        """Bring an old copy of the folder back: it is in another place (SPEC 2.5)."""
        if self.backup is not None:
            self.connection = self._bring(self.backup)
            self._number += 1

    def consult(self, line: Line, ask: Ask) -> None:
        """A device keeps no directory."""
        line.say(Answer(ask.number, REFUSED, b"a device answers no questions"))

    def _appended(self) -> Callable[[], object]:
        pushes = [outbox.appended() for outbox in self._outboxes.values()]

        def push_all() -> None:
            for push in pushes:
                push()

        return push_all

    def linked(self, line: Line) -> None:
        """A session begins."""
        self._outboxes[line] = Outbox(self.device, line.push)

    def looked_ahead(self, chat: ChatId, entries: Sequence[Entry]) -> None:
        """Show the end of a chat before it is here; nothing of that is kept."""
        self.act("looks ahead", lambda: preview(self.device, chat, entries, self.wall))

    def _age(self) -> None:
        if not unstored(self.device):
            super()._age()

    def opened(self, line: Line) -> None:
        """The node has greeted: visit it."""
        del line
        self.visit()

    def closed(self, line: Line) -> None:
        """The session is over. Another one is another process, which had asked for seals, too."""
        super().closed(line)
        self._outboxes.pop(line, None)
        for other in self.lines:
            other.ask_for_seals()

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Open what is being stored."""
        self.place.storing(self, parts, source if isinstance(source, Line) else None)
        arrivals.deliver(self.device, parts)
        return lambda: None

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """A seal has come."""
        del epoch, owners
        arrivals.open_waiting_in(self.device, chat)
        return lambda: None

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        """A device reaches its own node alone."""

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """A device was caught."""
        del forked, readers

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        """A device is nobody's neighbour."""

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        """A device is nobody's neighbour."""

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        """A message got farther."""
        del holdings, source

    # What its owner and its program do

    def act(self, what: str, work: Callable[[], object], then: Callable[[], object] = bool) -> None:
        """Do something in a transaction, then another thing; that a rule refuses is no fault.

        Here or in another process: work looks up `device` when it is called.
        """

        def done() -> None:
            work()
            self.place.storing(self, (), None)
            self.note(what)

        def ended(error: Exception | None) -> None:
            if error is None:
                then()
            elif isinstance(error, IvorError | PeerError):
                self.note("refused", f"{what}: {type(error).__name__}")
            else:
                self.place.bug(self.name, error)

        if not self.up:
            return
        if self.honest and not self.device.displaced and self.place.beside(self):
            self.disk.read(partial(self._beside, done, ended))
        else:
            self.disk.write(done, ended)

    def _beside(self, work: Callable[[], None], ended: Callable[[Exception | None], None]) -> None:
        """Do it in a process that ends then. The one that stays goes on, and is not told."""
        self.note("in another process")
        own = self.connection, self.device, self.replica
        self._enter_process(open_shared(self._path))
        transaction = Transaction(self.connection, self.device.forget, self.device.refresh)
        error = self.disk.write_beside(transaction, work)
        self.connection.close()
        self.connection, self.device, self.replica = own
        ended(error)

    def visit(self) -> None:
        """Do what `client.exchange` does at each visit, and once in a while after."""
        if not self.up or not self.lines:
            return
        wall = self.wall
        chats = self.replica.store.chats()
        if chats:  # somebody looks at one of them
            self.lines[0].preview(self.place.clock.stream("preview", self.name).choice(chats))
        self.act("taken in", lambda: arrivals.take_in(self.device, wall))
        self.act("revoked", lambda: revoke_exposed(self.device, wall))
        self.act("decided", lambda: settle(self.device, wall))
        self.act("gives up again", lambda: revoke_given_up(self.device, wall))
        self.act("brought in", lambda: bring_in(self.device, wall))
        self.disk.read(partial(_erase, self.device, wall))
        self.age()
        if self._visit is None or self._visit.over:
            self._visit = inquiries.Visit(self, self.lines[0])
        if self.device.displaced:
            self.disk.read(self._settle)

    def _settle(self) -> None:
        if self.lines and self.lines[0].caught_up and not unstored(self.device):
            self.device.settle_here()


def _erase(device: Device, wall: int) -> None:
    erase_prekeys(device, wall)
