"""Which blobs a node brings here, and when; which go; what it says of them (SPEC 6.7).

A node takes the blobs of its own users' messages, so that their devices need not stay, and by its
setting those of others: all, or what its devices ask for. Few are on their way at a time. One that
nobody has just now is tried again later; while others wait, each has a turn.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from crypto.blob import CHUNK_BYTES
from node import blobs
from node.blobs import Quotas, State, StoredBlob
from node.config import Settings
from node.driver import Connection
from node.errors import RefusedError, StorageError
from node.fetching import Fetching
from node.hub import Hub
from node.journal import Journal
from node.replica import Replica
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import Blob, Lacking, WantBlob
from protocol.identity import AgencyId
from protocol.limits import BLOBS_FETCHED_MAX
from protocol.question import GetBlobs
from protocol.reply import BlobState, Standing
from protocol.session import PeerKind

log = structlog.get_logger()

MIB: Final = 1024 * 1024
LOOK_SECONDS: Final = 0.1  # between two looks at what is wanted
TURN_SECONDS: Final = 30.0  # of one blob while others wait; guess
AGAIN_SECONDS: Final = 0.1  # until one that nobody had is tried again; doubles each time
AGAIN_SECONDS_MAX: Final = 8.0
REFUSED_SECONDS: Final = 3600.0  # after the disk failed, or when there was no room
PATIENCE_MAX: Final = 65_536  # blobs that wait so; of more the oldest are tried sooner; guess
NEVER: Final = float("inf")


@dataclass(slots=True)
class _Patience:
    """When a blob is tried again. seconds: how long that is from the last time."""

    at: float
    seconds: float


class Larder:
    """The blobs of a running node. home: the folder of its database."""

    def __init__(
        self,
        replica: Replica,
        journal: Journal,
        settings: Settings,
        home: Path,
        hub: Hub[Connection],
    ) -> None:
        self._replica = replica
        self._journal = journal
        self._index = replica.blobs
        self._least = State.KNOWN if settings.blobs == "all" else State.WANTED
        self._quotas = Quotas(
            settings.blobs_chat_mib * MIB,
            settings.blobs_device_mib * MIB,
            settings.blobs_agency_mib * MIB,
            settings.blobs_mib * MIB,
        )
        self._home = home
        self._hub = hub
        self._fetching = Fetching(replica, journal, home, self.changed)
        self._turns: dict[EntryId, Collection[bytes]] = {}  # who may have it
        self._coming: dict[EntryId, StoredBlob] = {}  # the same blobs
        self._patience: dict[EntryId, _Patience] = {}
        self._crowded = False
        self._more = False  # than the last look has seen
        self._crowders: set[DeviceKey] = set()  # whose blobs had no room, as was logged once
        self._news = trio.Event()

    async def run(self) -> None:
        """Remove what is left over; then bring what is wanted, for ever."""
        await self._sweep()
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                looked = trio.current_time()
                for blob, peers in await self._due():
                    self._turns[blob.entry] = peers
                    self._coming[blob.entry] = blob
                    nursery.start_soon(self._turn, blob, peers)
                await trio.sleep(LOOK_SECONDS)
                again = [one.at for one in self._patience.values() if one.at > looked]
                again += [looked + AGAIN_SECONDS_MAX] if self._more else []
                with trio.move_on_at(min(again, default=NEVER)):
                    await self._news.wait()

    async def _sweep(self) -> None:
        """Remove files that no blob speaks of: something ended between the one and the other."""
        try:
            await self._fetching.clear()
            spoken_of = await self._journal.read(self._index.files)
            folder = blobs.folder_of(self._home)
            for file in folder.iterdir():
                if file.name not in spoken_of:
                    blobs.remove(file)
        except (StorageError, OSError):
            log.exception("left-over blobs were not removed; the next start tries again")

    def changed(self) -> None:
        """Something new may be wanted."""
        self._news.set()

    async def clear(self) -> None:
        """Remove the files of what was dropped; then there may be room for others."""
        await self._fetching.clear()
        self._retry()

    def _retry(self) -> None:
        self._patience.clear()
        self._crowders.clear()
        self._news.set()

    # Bringing

    async def _due(self) -> Sequence[tuple[StoredBlob, Collection[bytes]]]:
        """Return the blobs whose turn begins now, with those who may have them."""
        found: list[tuple[StoredBlob, Collection[bytes]]] = []
        self._crowded = False
        try:
            look = partial(self._index.open, self._least)
            listed, self._more = await self._journal.read(look)
            for blob in in_turn(sorted(listed, key=self._disappointment)):
                if blob.entry in self._turns or self._is_later(blob):
                    continue
                peers = await self._journal.read(partial(self.readers, blob.chat))
                sources = self._sources(blob, peers)
                self._crowded = bool(sources) and self._full(len(found))
                if self._crowded:
                    break
                coming = [*self._coming.values(), *(one for one, _ in found)]
                if await self._may_begin(blob, sources, coming):
                    found.append((blob, peers))
        except StorageError:
            log.exception("blobs cannot be looked after now")
        return found

    def _disappointment(self, blob: StoredBlob) -> float:
        """What nobody had again and again comes after what was not tried yet."""
        patience = self._patience.get(blob.entry)
        return 0.0 if patience is None else patience.seconds

    def _is_later(self, blob: StoredBlob) -> bool:
        patience = self._patience.get(blob.entry)
        return patience is not None and patience.at > trio.current_time()

    def _full(self, more: int) -> bool:
        return len(self._turns) + more >= BLOBS_FETCHED_MAX

    async def _may_begin(
        self, blob: StoredBlob, sources: Sequence[Connection], coming: Sequence[StoredBlob]
    ) -> bool:
        """Whether a blob's turn may begin. Of one that does not fit at all nothing stays."""
        if not sources and blob.file is None:
            return False
        if not await self._has_room(blob, ()):
            await self._refuse(blob)
            return False
        return bool(sources) and await self._has_room(blob, coming)

    async def _has_room(self, blob: StoredBlob, coming: Sequence[StoredBlob]) -> bool:
        fits = partial(self._index.has_room, blob, self._quotas, coming)
        return await self._journal.read(fits)

    def _sources(self, blob: StoredBlob, peers: Collection[bytes]) -> list[Connection]:
        return [
            connection
            for peer in peers
            for connection in self._hub.of(peer)
            if _may_have(connection, blob)
        ]

    async def _refuse(self, blob: StoredBlob) -> None:
        """There is no room: nothing of it stays, also if it was begun under larger quotas."""
        if blob.author not in self._crowders:
            self._crowders.add(blob.author)
            log.warning("no room for a blob", entry=blob.entry.hex()[:16], size=blob.announced.size)
        self._wait(blob.entry, REFUSED_SECONDS)
        if blob.file is not None:
            await self._fetching.let_go(blob)

    def _wait(self, entry: EntryId, seconds: float) -> None:
        self._patience.pop(entry, None)
        self._patience[entry] = _Patience(trio.current_time() + seconds, seconds)
        if len(self._patience) > PATIENCE_MAX:
            del self._patience[next(iter(self._patience))]

    async def _turn(self, blob: StoredBlob, peers: Collection[bytes]) -> None:
        """Bring a blob as far as it goes now."""
        end = trio.current_time() + TURN_SECONDS
        moved: list[int] = []
        try:
            begun = blob if blob.state is State.FETCHING else await self._begun(blob)
            if begun is not None:
                await self._fetching.bring(
                    begun,
                    partial(self._sources, blob, peers),
                    moved.append,
                    lambda: self._crowded and trio.current_time() > end,
                )
            now = await self._journal.read(partial(self._index.find, blob.chat, blob.entry))
            before = self._patience.pop(blob.entry, None)
            if now is not None and now.state < State.WHOLE:
                seconds = AGAIN_SECONDS if moved or before is None else 2 * before.seconds
                self._wait(blob.entry, min(seconds, AGAIN_SECONDS_MAX))
        except StorageError as error:
            log.warning("a blob was given up", entry=blob.entry.hex()[:16], why=str(error))
            self._wait(blob.entry, REFUSED_SECONDS)
            await self._give_up(blob)
        finally:
            del self._turns[blob.entry], self._coming[blob.entry]
            self._news.set()

    async def _begun(self, blob: StoredBlob) -> StoredBlob | None:
        return await self._journal.write(partial(self._index.begin, blob, blobs.new_name()))

    async def _give_up(self, blob: StoredBlob) -> None:
        """Leave nothing of a blob that could not be stored."""
        try:
            begun = await self._journal.read(partial(self._index.find, blob.chat, blob.entry))
            if begun is not None:
                await self._fetching.let_go(begun)
        except StorageError:
            log.exception("what was begun of a blob was not removed")

    # What connections tell and ask

    def opened(self, connection: Connection) -> None:
        """A peer is here, who may have what is wanted."""
        for entry, peers in self._turns.items():
            if connection.key in peers:
                self._fetching.joined(entry, connection)
        if connection.peer is PeerKind.NODE:
            self._patience = {
                entry: one
                for entry, one in self._patience.items()
                if one.seconds > AGAIN_SECONDS_MAX
            }
        self._news.set()

    def closed(self, connection: Connection) -> None:
        """A peer is gone."""
        self._fetching.left(connection)

    def took(self, frame: Blob | Lacking, source: Connection) -> None:
        """A peer brings a chunk, or lacks some."""
        self._fetching.took(frame, source)

    async def load(self, want: WantBlob, source: Connection) -> Blob | None:
        """Read a chunk for a peer. What a device of ours asks for and is not here is wanted."""
        found = await self._fetching.load(want, source.key)
        if found is None and source.peer is PeerKind.DEVICE:
            await self.want(want.chat, want.entry, source.key)
        return found

    async def want(self, chat: bytes, entry: bytes, device: bytes) -> None:
        """Fetch a blob for a device of ours that may read it."""

        def note() -> bool:
            blob = self._index.find(chat, entry)
            may = self._replica.sharing.may_read(device, chat)
            if blob is None or blob.state is not State.KNOWN or not may:
                return False
            self._index.want([blob.place])
            return True

        if self._least is State.WANTED and await self._journal.write(note):
            self._retry()

    def readers(self, chat: ChatId) -> Collection[bytes]:
        """Return the agencies and own devices in a chat."""
        stored = self._replica.store.chat(chat)
        return () if stored is None else self._replica.sharing.readers(stored)

    def states(self, peer: bytes, asked: GetBlobs) -> list[BlobState]:
        """Say how far blobs are here. Raises RefusedError for who is not in the chat."""
        if not self._replica.sharing.may_read(peer, asked.chat):
            raise RefusedError("this node does not answer that to you")
        rooms: dict[DeviceKey, int] = {}
        return [self._state(self._index.find(asked.chat, entry), rooms) for entry in asked.entries]

    def _state(self, blob: StoredBlob | None, rooms: dict[DeviceKey, int]) -> BlobState:
        """Say how far a blob is here. rooms: what was found for the authors of a chat."""
        if blob is None:
            return BlobState(0, Standing.NONE, ())
        held = self._index.count_held(blob)
        if blob.state is State.WHOLE:
            return BlobState(held, Standing.WHOLE, (AgencyId(self._replica.agency),))
        if blob.author not in rooms:
            rooms[blob.author] = self._index.room(blob, self._quotas)
        if blob.announced.size - held * CHUNK_BYTES > rooms[blob.author]:
            return BlobState(held, Standing.NO_ROOM, ())
        standing = Standing.COMING if blob.state >= self._least else Standing.UNWANTED
        return BlobState(held, standing, ())


def _may_have(connection: Connection, blob: StoredBlob) -> bool:
    """Whether a peer may have a blob: a node, or the device that wrote the message."""
    return connection.peer is PeerKind.NODE or connection.key == blob.author


def in_turn(listed: Iterable[StoredBlob]) -> list[StoredBlob]:
    """Put one blob of each author first, then a second: nobody has the turns of others."""
    before: Counter[bytes] = Counter()
    ranked: list[tuple[int, StoredBlob]] = []
    for blob in listed:
        ranked.append((before[blob.author], blob))
        before[blob.author] += 1
    return [blob for _, blob in sorted(ranked, key=lambda one: one[0])]
