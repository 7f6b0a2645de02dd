"""Brings blobs here chunk by chunk, from several peers at once, and serves them (SPEC 6.7).

    fetching = Fetching(replica, journal, home)
    await fetching.bring(blob, sources, kept, gives_way)     # as far as it comes just now
    found = await fetching.load(want, peer)                  # for a peer that asks
    fetching.took(frame, connection)                         # what peers bring

`protocol.blob` says what is asked of whom. Chunks are hashed and written in a thread; only what was
checked, and is on the disk, is noted in the database and counts.
"""

import errno
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from node import blobs
from node.blobs import StoredBlob
from node.driver import Connection
from node.errors import StorageError
from node.journal import Journal
from node.replica import Replica
from protocol.blob import Fetch, check_chunk
from protocol.entry import EntryId
from protocol.errors import Unauthentic
from protocol.frame import Blob, Lacking, WantBlob

log = structlog.get_logger()

Result = TypeVar("Result")

LIARS_MAX = 4096
THREADS_MAX = 8  # that read and write files at once; guess
# By these a disk says that it has lost something; without a number: the file ends too early.
LOST = frozenset({None, errno.ENOENT, errno.EIO, errno.EBADMSG, errno.EUCLEAN})


@dataclass(slots=True)
class _Active:
    """A blob on its way. came: chunks that were asked for, not looked at yet.

    dropped: its message was redacted, or is too old.
    """

    blob: StoredBlob
    fetch: Fetch[Connection]
    dropped: bool = False
    came: list[Blob] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)


class Fetching:
    """The blobs of one node or device, as they come and go. home: the folder of its database."""

    def __init__(
        self,
        replica: Replica,
        journal: Journal,
        home: Path,
        lost: Callable[[], object] = bool,
    ) -> None:
        """lost: called when the disk has lost a chunk, which is wanted again."""
        self._index = replica.blobs
        self._sharing = replica.sharing
        self._journal = journal
        self._home = home
        self._lost = lost
        # Of its own: others' wait for names that nobody resolves, and sessions wait for these.
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._active: dict[EntryId, _Active] = {}
        self._liars: OrderedDict[tuple[EntryId, bytes], None] = OrderedDict()

    # Bringing

    async def bring(
        self,
        blob: StoredBlob,
        sources: Callable[[], Sequence[Connection]],
        kept: Callable[[int], object],
        gives_way: Callable[[], bool],
    ) -> None:
        """Fetch a blob that has a file, until it is whole or no source has more of it just now.

        sources: who is here; asked when it begins, `joined` and `left` tell of changes after that.
        kept: told of each number of chunks that became durable. gives_way: whether to stop early.
        Raises StorageError when the disk fails. A blob that is dropped meanwhile ends it.
        """
        if blob.entry in self._active:
            return
        held = await self._journal.read(partial(self._index.held, blob))
        fetch: Fetch[Connection] = Fetch(blob.announced.chunks, held)
        active = self._active[blob.entry] = _Active(blob, fetch)
        for source in sources():
            self._join(active, source)
        try:
            while not (fetch.complete or active.dropped or gives_way()):
                now = trio.current_time()
                fetch.expired(now)
                for source, start, stop in fetch.ask(now):
                    source.send(WantBlob(blob.chat, blob.entry, start, stop))
                if active.came:
                    await self._keep(active, kept)
                elif fetch.idle:
                    break
                else:
                    await _news(active, fetch.deadline(now))
        finally:
            del self._active[blob.entry]
        if active.dropped:
            await self._remove(blob)  # if it was cleared before we were here, it was written anew
            await self.clear()

    def _join(self, active: _Active, source: Connection) -> None:
        if (active.blob.entry, source.key) not in self._liars:
            active.fetch.joined(source)

    async def _keep(self, active: _Active, kept: Callable[[int], object]) -> None:
        """Check, write and note what came."""
        came, active.came = active.came, []
        blob = active.blob
        try:
            path = blobs.folder_of(self._home) / str(blob.file)
            wrong = await self._aside(partial(_check_and_write, path, blob, came))
        except OSError as error:
            raise StorageError(f"a blob was not stored, the disk says: {error}") from error
        good = [(one.index, one.path) for one in came if one.index not in wrong]

        def note() -> bool:
            wanted = self._index.keep(blob, good)
            if wanted:
                self._index.complete(blob)
            return wanted

        if not await self._journal.write(note):
            active.dropped = True
            return
        for index, _ in good:
            active.fetch.kept(index)
        kept(len(good))
        for index, why in wrong.items():
            self._accuse(blob.entry, active.fetch.refused(index), why)

    def _accuse(self, entry: EntryId, liar: Connection, error: Unauthentic) -> None:
        """End the session with a peer that sent a wrong chunk, and ask it no more for this blob."""
        log.warning("a wrong chunk", peer=liar.key.hex()[:16], entry=entry.hex()[:16])
        self._liars[entry, liar.key] = None
        if len(self._liars) > LIARS_MAX:
            self._liars.popitem(last=False)
        liar.accuse(error)

    def took(self, frame: Blob | Lacking, source: Connection) -> None:
        """Take what a peer brings; what it was not asked for is not looked at."""
        active = self._active.get(frame.entry)
        if active is None or active.blob.chat != frame.chat:
            return
        now = trio.current_time()
        if isinstance(frame, Lacking):
            active.fetch.lacking(source, frame.start, frame.stop, now)
        elif active.fetch.arrived(source, frame.index, now):
            active.came.append(frame)
        else:
            return
        active.news.set()

    def joined(self, entry: EntryId, source: Connection) -> None:
        """A further peer may have a blob that is on its way."""
        active = self._active.get(entry)
        if active is not None:
            self._join(active, source)
            active.news.set()

    def left(self, source: Connection) -> None:
        """A peer is gone."""
        for active in self._active.values():
            active.fetch.left(source)
            active.news.set()

    # Serving, and what goes

    async def load(self, want: WantBlob, peer: bytes) -> Blob | None:
        """Read the first chunk that a peer asks for; None if it has none to get."""

        def look_up() -> tuple[StoredBlob, tuple[bytes, ...]] | None:
            if not self._sharing.may_read(peer, want.chat):
                return None
            blob = self._index.find(want.chat, want.entry)
            path = None if blob is None else self._index.path(blob, want.start)
            return None if blob is None or path is None else (blob, path)

        found = await self._journal.read(look_up)
        if found is None:
            return None
        blob, path = found
        read = partial(_read_and_check, self._home, blob, want.start, path)
        try:
            return await self._aside(read)
        except (OSError, Unauthentic) as error:
            log.warning("a chunk cannot be read", entry=blob.entry.hex()[:16], why=str(error))
            if _is_lost(error):
                await self._journal.write(partial(self._index.lose, blob, want.start))
                self._lost()
            return None

    async def let_go(self, blob: StoredBlob) -> None:
        """Remove what is here of a blob; it may be fetched again."""
        await self._journal.write(partial(self._index.let_go, blob))
        await self._remove(blob)

    async def clear(self) -> None:
        """Remove the files of dropped blobs. Raises StorageError if one cannot be removed now.

        One that is being written goes when that has ended: so nothing makes its file anew.
        """
        for blob in await self._journal.read(self._index.going):
            active = self._active.get(blob.entry)
            if active is not None:
                active.dropped = True
                active.news.set()
                continue
            await self._remove(blob)
            await self._journal.write(partial(self._index.gone, blob))

    async def _remove(self, blob: StoredBlob) -> None:
        if blob.file is None:
            return
        try:
            path = blobs.folder_of(self._home) / blob.file
            await self._aside(partial(blobs.remove, path))
        except OSError as error:
            raise StorageError(f"a blob was not removed, the disk says: {error}") from error

    async def _aside(self, work: Callable[[], Result]) -> Result:
        """Do in a thread what waits for the disk."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)


async def _news(active: _Active, deadline: float) -> None:
    active.news = trio.Event()
    with trio.move_on_at(deadline):
        await active.news.wait()


def _read_and_check(home: Path, blob: StoredBlob, index: int, path: tuple[bytes, ...]) -> Blob:
    """Read a chunk; one that the disk has altered since is not handed on as if it were right."""
    chunk = blobs.read_blob_chunk(home, blob, index, path)
    check_chunk(blob.announced, chunk)
    return chunk


def _is_lost(error: OSError | Unauthentic) -> bool:
    """Whether a chunk is gone; it is not where only files or memory are short just now."""
    return isinstance(error, Unauthentic) or error.errno in LOST


def _check_and_write(path: Path, blob: StoredBlob, came: Sequence[Blob]) -> dict[int, Unauthentic]:
    """Write the chunks that are under the blob's root; return why the others are not."""
    wrong: dict[int, Unauthentic] = {}
    for one in came:
        try:
            check_chunk(blob.announced, one)
        except Unauthentic as error:
            wrong[one.index] = error
    blobs.write_chunks(path, [(one.index, one.chunk) for one in came if one.index not in wrong])
    return wrong
