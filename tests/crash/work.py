"""What is at work when the disk fails: a node that stores, a device that writes and reads.

Each is the product's own code over its own database. It goes on until all is acknowledged: what
fails is tried again, as peers and people do, and after each failure everything acknowledged before
must be there to be read. `check` looks at what a crash has left.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol
from unittest import mock

import apsw
import trio

from client import compose
from client.arrivals import deliver
from client.device import Device
from client.folder import DATABASE_FILE as DEVICE_FILE
from client.mailbox import State
from node.agency import DATABASE_FILE as NODE_FILE
from node.chats import Chats
from node.database import connect, empty_log
from node.errors import StorageError
from node.journal import Journal
from node.replica import Replica
from node.runs import read_run
from protocol.entry import CONTENT, ChatId, DeviceKey, EntryId
from protocol.frame import Run, Want, authentic
from protocol.message import Text
from protocol.testing.cast import agency
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from tests.crash.disk import Disk
from tests.federation import Federation, runs

HOME = agency("mz").root.public
TRIES_MAX = 40
CHECKPOINT_PAGES = 30  # so that even a short work goes through several checkpoints
EMPTIED_EVERY = 5
PAST = 1_700_000_000_000  # milliseconds; one moment, so that equal works write equal bytes

Place = tuple[ChatId, DeviceKey, int, int]  # chat, device, lane, seq
Entries = dict[Place, EntryId]


@dataclass(frozen=True, slots=True)
class Told:
    """What was acknowledged, or shown to somebody. at: how long the disk's log was by then."""

    at: int
    entries: Entries


@dataclass(slots=True)
class Witness:
    """Hears what is acknowledged while a work goes on."""

    disk: Disk
    told: list[Told] = field(default_factory=list)

    def hear(self, entries: Entries) -> None:
        """Note an acknowledgement of now."""
        known = self.all()
        for place, entry in entries.items():
            assert known.get(place, entry) == entry, f"two entries signed at {place[2:]}"
        self.told.append(Told(len(self.disk.log), entries))

    def all(self) -> Entries:
        """Everything acknowledged so far."""
        return known(self.told, len(self.disk.log))


def known(told: list[Told], at: int) -> Entries:
    """Return what was acknowledged by the time that the log was so long."""
    found: Entries = {}
    for one in told:
        if one.at <= at:
            found.update(one.entries)
    return found


class Work(Protocol):
    """Something that goes on over one database."""

    @property
    def file(self) -> str:
        """The database's name in its folder."""

    def prepare(self, folder: Path) -> None:
        """Put into an empty folder what is durable there before the work begins."""

    def run(self, folder: Path, witness: Witness) -> None:
        """Do all of it, however often the disk fails meanwhile."""

    def check(self, folder: Path, acknowledged: Mapping[Place, EntryId]) -> None:
        """Open what is left, as the product does; fail if anything is not as it must be."""


def again(attempt: Callable[[], bool]) -> None:
    """Try something until it works."""
    assert any(attempt() for _ in range(TRIES_MAX)), "it does not work any more"


def present(chats: Chats) -> Entries:
    """Return what a replica has, read as it is served to others, and so verified."""
    return {place: entry for chat in chats.store.chats() for place, entry in _of(chats, chat)}


def _of(chats: Chats, chat: ChatId) -> Iterator[tuple[Place, EntryId]]:
    stored = chats.store.chat(chat)
    assert stored is not None
    for (device, lane), chain in stored.chains.items():
        assert len(chain) == 1, "a chain has forked"
        (branch,) = chain
        at, last = 0, None
        while at < branch.length:
            want = Want(chat, DeviceKey(device), lane, branch.head[:8], at, branch.length)
            run = read_run(chats.store, want)
            assert run is not None, "a head without its entries"
            entries = authentic(run)
            assert len(entries) == len(run.records), "what is stored is not authentic"
            for entry in entries:
                yield (chat, DeviceKey(device), lane, entry.header.seq), entry.id
            at, last = at + len(entries), entries[-1].id
        assert last == branch.head, "a head that is not its chain's last entry"


def sound(connection: apsw.Connection) -> None:
    """Fail if the file is damaged."""
    found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    assert found == ["ok"], found[:3]


@contextmanager
def closing(opened: apsw.Connection | Device) -> Iterator[None]:
    """Close at the end. SQLite forgives a disk that fails then; apsw tells of it all the same."""
    try:
        yield
    finally:
        with suppress(apsw.Error):
            opened.close()


def holds(found: Mapping[Place, EntryId], acknowledged: Mapping[Place, EntryId]) -> None:
    """Fail if something acknowledged is not there, or something else stands in its place."""
    lost = [place[2:] for place, entry in acknowledged.items() if found.get(place) != entry]
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged entries lost: {lost[:3]}"


class NodeWork:
    """A node that is sent a conversation, from its very first start."""

    file = NODE_FILE

    def __init__(self, messages: int = 20, together: int = 3) -> None:
        talk: Conversation = conversation(Dice(3), messages, epochs=8)
        self._groups = [talk.runs[at : at + together] for at in range(0, len(talk.runs), together)]

    def prepare(self, folder: Path) -> None:
        """Nothing is there before."""

    def run(self, folder: Path, witness: Witness) -> None:
        again(lambda: trio.run(self._attempt, folder, witness))

    async def _attempt(self, folder: Path, witness: Witness) -> bool:
        """Open the database and store all that is not acknowledged; whether it could be opened."""
        try:
            connection = connect(folder / self.file, None)
            connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            replica = Replica(connection, HOME, HOME, lambda: PAST)
        except (StorageError, apsw.Error):
            return False
        journal = Journal(connection, replica.forget)
        with closing(connection):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                witness.hear(await _read(journal, partial(present, replica)))
                for number, group in enumerate(self._groups):
                    await self._store(journal, replica, group, witness)
                    if number % EMPTIED_EVERY == 0:
                        with suppress(StorageError):
                            await journal.read(partial(empty_log, connection))
                nursery.cancel_scope.cancel()
        return True

    async def _store(
        self, journal: Journal, replica: Replica, group: list[Run], witness: Witness
    ) -> None:
        parts = [(run, authentic(run)) for run in group]
        for _ in range(TRIES_MAX):
            try:
                await journal.write(partial(replica.append_together, parts, replica.agency))
            except StorageError:
                holds(await _read(journal, partial(present, replica)), witness.all())
                continue
            witness.hear(
                {
                    (run.chat, run.device, run.lane, entry.header.seq): entry.id
                    for run, entries in parts
                    for entry in entries
                }
            )
            return
        raise AssertionError("the node does not store any more")

    def check(self, folder: Path, acknowledged: Mapping[Place, EntryId]) -> None:
        connection = connect(folder / self.file, None)
        with closing(connection):
            sound(connection)
            replica = Replica(connection, HOME, HOME, lambda: PAST)
            holds(present(replica), acknowledged)
            for chat in replica.store.chats():
                assert replica.chat(chat) is not None


async def _read(journal: Journal, work: Callable[[], Entries]) -> Entries:
    """Read in spite of one failure: a disk that fails once is read the next time."""
    with suppress(StorageError):
        return await journal.read(work)
    return await journal.read(work)


@contextmanager
def here() -> Iterator[None]:
    """A copied folder is no folder that was brought back, for once."""
    with (
        mock.patch("client.device.place_of", return_value=1),
        mock.patch("client.device.count_of", return_value=0),
    ):
        yield


class DeviceWork:
    """A device that writes into a chat, and gets what the other member writes.

    Everything that its database holds at an opening counts as shown: a device sends what it has.
    """

    file = DEVICE_FILE

    def __init__(self, base: Path, messages: int = 8) -> None:
        """base: a folder to make the federation in, that stays."""
        federation = Federation(base)
        with here():
            anna, boris = (federation.official(name) for name in ("anna@mz", "boris@mvd"))
        self._chat = federation.chat(anna, "Budget", boris)
        for number in range(messages):
            federation.say(boris, self._chat, f"incoming {number}")
        self._incoming = [
            run for run in runs(boris, self._chat) if (run.device, run.lane) == (boris.key, CONTENT)
        ]
        self._messages = messages
        self._folder, self._secrets, self._random = anna.folder, anna.secrets, anna.random
        federation.close()

    def prepare(self, folder: Path) -> None:
        for path in self._folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    def run(self, folder: Path, witness: Witness) -> None:
        again(lambda: self._attempt(folder, witness))

    def _open(self, folder: Path) -> Device:
        with here():
            return Device(folder, self._secrets, self._random)

    def _attempt(self, folder: Path, witness: Witness) -> bool:
        try:
            device = self._open(folder)
            device.connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            shown = present(device.replica)
        except (StorageError, apsw.Error):
            return False
        with closing(device):
            witness.hear(shown)
            for number in range(self._messages):
                again(partial(self._step, device, witness, partial(self._write, device, number)))
                if number < len(self._incoming):
                    again(partial(self._step, device, witness, partial(self._take, device, number)))
        return True

    def _step(self, device: Device, witness: Witness, work: Callable[[], Entries]) -> bool:
        try:
            with device.transaction():
                entries = work()
        except StorageError:
            with suppress(apsw.Error):
                holds(present(device.replica), witness.all())
                return False
            holds(present(device.replica), witness.all())
            return False
        witness.hear(entries)
        return True

    def _write(self, device: Device, number: int) -> Entries:
        stored = device.replica.store.chat(self._chat)
        assert stored is not None
        before = present(device.replica)
        compose.send(device, self._chat, Text(f"message {number}", None), PAST + number, None)
        return dict(present(device.replica).items() - before.items())

    def _take(self, device: Device, number: int) -> Entries:
        run = self._incoming[number]
        deliver(device, [device.replica.append(run, authentic(run))])
        return {}

    def check(self, folder: Path, acknowledged: Mapping[Place, EntryId]) -> None:
        device = self._open(folder)
        with closing(device):
            sound(device.connection)
            found = present(device.replica)
            holds(found, acknowledged)
            closed = device.connection.execute(
                "SELECT count(*) FROM mailbox WHERE state != ?", (State.OPEN,)
            ).get
            assert not closed, "a key chain was lost: a message does not open"
            rows = device.connection.execute("SELECT count(*) FROM mailbox").get
            content = sum(lane == CONTENT for _, _, lane, _ in found)
            assert rows == content, "an entry without its row in the mailbox"
            with device.transaction():
                written = self._write(device, self._messages)
            assert not written.keys() & acknowledged.keys(), "a seq signed twice"
