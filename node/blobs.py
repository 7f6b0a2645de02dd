"""Blobs of a replica: which are known, how much of each is here, and the files they are in.

Chunks stand in one file a blob, mode 0600, in a folder beside the database; the database says which
of them count: those that were checked and are durable. What was dropped is marked in the
transaction that drops its entry (a trigger), and its file goes right after (SPEC 4.7, 2.6).

Everything but the functions at the end runs inside the caller's transaction.
"""

import os
import random
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import convert

from crypto.blob import CHUNK_BYTES, chunk_length
from node.files import sync_folder
from node.store import SEQ_BITS, Store, StoredChat
from protocol.attachment import Announcement, announcement
from protocol.chat import Chat
from protocol.entry import ATTACHED, ChatId, DeviceKey, EntryId, Reference
from protocol.frame import Blob
from protocol.identity import AgencyId
from protocol.limits import HASH_BYTES
from protocol.operation import credentials
from protocol.run import Entry

FOLDER: Final = "blobs"
LOOKED_AT_MAX: Final = 256  # blobs, at a time
# From one chain to the next, so that it takes as long as there are chains, not blobs.
OPEN_CHAINS: Final = f"""
WITH RECURSIVE one (state, first) AS (
    SELECT value, (SELECT min(place) FROM blobs WHERE state = value) FROM json_each(?)
    UNION ALL
    SELECT state, (SELECT min(place) FROM blobs WHERE state = one.state
        AND place >= (one.first >> {SEQ_BITS}) + 1 << {SEQ_BITS}) FROM one WHERE first IS NOT NULL)
SELECT state, first, (SELECT max(place) FROM blobs WHERE state = one.state
    AND place < (one.first >> {SEQ_BITS}) + 1 << {SEQ_BITS}) FROM one WHERE first IS NOT NULL
    ORDER BY random()
"""  # noqa: S608 - ours
_NAME_BYTES: Final = 16
_OWNER_ONLY: Final = 0o600


class State(IntEnum):
    """How far a blob is here."""

    KNOWN = 0  # not wanted by anybody here yet
    WANTED = 1
    FETCHING = 2  # it has a file, and counts against the quotas
    WHOLE = 3
    GOING = 4  # its entry was dropped; the file goes next


class StoredBlob(NamedTuple):
    """One blob as the database has it. author: whose device announced it. agency: the author's."""

    place: int
    chat: ChatId
    entry: EntryId
    author: DeviceKey
    agency: AgencyId
    announced: Announcement
    state: State
    file: str | None


class Scope(IntEnum):
    """For whom the bytes of a blob count."""

    CHAT = 0
    DEVICE = 1
    AGENCY = 2
    ALL = 3


class Quotas(NamedTuple):
    """How many bytes of blobs may be here: in the order of `Scope`, the third of other agencies."""

    chat: int
    device: int
    agency: int
    total: int


class Blobs:
    """The blobs in a replica's tables."""

    def __init__(self, store: Store, owner: bytes) -> None:
        """owner: the agency of a node, whose users' blobs are wanted; the key of a device."""
        self._store = store
        self._connection = store.connection
        self._owner = owner

    def announce(self, judge: Chat, stored: StoredChat, entries: Sequence[Entry]) -> None:
        """Note the blobs that go with entries that were stored just now."""
        for entry in entries:
            header = entry.header
            if header.kind != ATTACHED or header.lane == 0 or entry.payload is None:
                continue
            found = announcement(header, entry.payload)
            place = Reference(header.device, header.seq, entry.id)
            row = self._store.content_row(stored, place)
            if found is not None and row is not None:
                agency = _agency_of(judge, header.device)
                self._connection.execute(
                    "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, EXISTS (SELECT 1 FROM"
                    " devices JOIN users ON users.id = user WHERE devices.id = ? AND agency = ?),"
                    " NULL, 0)",
                    (row, stored.no, entry.id, agency, *found, header.device, self._owner),
                )

    def find(self, chat: bytes, entry: bytes) -> StoredBlob | None:
        """Return the blob that goes with an entry of a chat; None if none does any more."""
        found = self._select("chats.id = ? AND blobs.id = ? AND state != 4", (chat, entry))
        return found[0] if found else None

    def going(self) -> Sequence[StoredBlob]:
        """Return the blobs whose files have to go."""
        return self._select("state = 4", ())

    def open(self, least: State) -> tuple[Sequence[StoredBlob], bool]:
        """Return blobs that are not whole, from a state on, and whether there may be more.

        Of each chain some, others each time: nobody may ever bring the rest of them, and however
        many there are of these, they must not be in the way of the others.
        """
        states = str(list(range(least, State.WHOLE)))
        rows = self._connection.execute(OPEN_CHAINS, (states,)).fetchall()
        chains = convert(rows, list[tuple[int, int, int]])[:LOOKED_AT_MAX]
        found: list[StoredBlob] = []
        more = len(rows) > len(chains)
        for state, first, last in chains:
            start, most = random.randint(first, last), LOOKED_AT_MAX // len(chains)  # noqa: S311
            after = self._some(state, start, last + 1, most)
            some = [*after, *self._some(state, first, start, most - len(after))]
            found += some
            more = more or len(some) == most
        return found, more

    def _some(self, state: int, start: int, stop: int, most: int) -> list[StoredBlob]:
        return self._select(
            "state = ? AND place >= ? AND place < ? ORDER BY place LIMIT ?",
            (state, start, stop, most),
        )

    def _select(self, where: str, values: tuple[int | bytes, ...]) -> list[StoredBlob]:
        rows = self._connection.execute(
            "SELECT place, chats.id, blobs.id, device, agency, root, size, state, file FROM blobs"  # noqa: S608
            " JOIN chats ON chats.no = blobs.chat JOIN chains ON chains.no = place >> "
            f"{SEQ_BITS} WHERE {where}",
            values,
        ).fetchall()
        return convert(
            [(*row[:5], row[5:7], *row[7:]) for row in rows], list[StoredBlob], strict=False
        )

    def want(self, places: Iterable[int]) -> None:
        """Note that somebody here wants these blobs."""
        self._connection.executemany(
            "UPDATE blobs SET state = 1 WHERE place = ? AND state = 0", [(one,) for one in places]
        )

    def has_room(self, blob: StoredBlob, quotas: Quotas, coming: Sequence[StoredBlob]) -> bool:
        """Whether a blob fits beside what is here of the others, and all of those that are coming.

        What was announced and never came takes no room.
        """
        others = [one for one in coming if one.place != blob.place]
        return self._lacking(blob) <= self.room(blob, quotas, others)

    def room(self, blob: StoredBlob, quotas: Quotas, coming: Sequence[StoredBlob] = ()) -> int:
        """Return how many bytes more may come where a blob counts."""
        yet = [(one, self._lacking(one)) for one in coming]
        rooms = [
            most - self._held(scope, blob) - sum(n for one, n in yet if _shared(scope, one, blob))
            for scope, most in zip(Scope, quotas, strict=True)
            if not (scope is Scope.AGENCY and blob.agency == self._owner)
        ]
        return min(rooms)

    def _lacking(self, blob: StoredBlob) -> int:
        """Return how many bytes of a blob are yet to come."""
        found = self._connection.execute(
            "SELECT size - held FROM blobs WHERE place = ?", (blob.place,)
        ).get
        return int(found or 0)

    def _held(self, scope: Scope, blob: StoredBlob) -> int:
        """Return how many bytes are here of all blobs that count where this one does."""
        found = self._connection.execute(
            "SELECT held FROM blob_bytes JOIN blob_scopes USING (scope, whose)"
            " WHERE place = ? AND scope = ?",
            (blob.place, scope),
        ).get
        return int(found or 0)

    def begin(self, blob: StoredBlob, name: str) -> StoredBlob | None:
        """Give a blob the file of this name, if it has none; return it, None if it was dropped."""
        self._connection.execute(
            "UPDATE blobs SET state = 2, file = ifnull(file, ?) WHERE place = ? AND state < 3",
            (name, blob.place),
        )
        return self.find(blob.chat, blob.entry)

    def whole_of(self, author: DeviceKey) -> Sequence[StoredBlob]:
        """Return the blobs of this author of which all is here."""
        return self._select("state = 3 AND device = ? ORDER BY place", (author,))

    def held(self, blob: StoredBlob) -> list[int]:
        """Return which chunks are here."""
        rows = self._connection.execute("SELECT position FROM chunks WHERE blob = ?", (blob.place,))
        return [row[0] for row in rows]

    def count_held(self, blob: StoredBlob) -> int:
        """Return how many chunks are here."""
        held = self._connection.execute("SELECT held FROM blobs WHERE place = ?", (blob.place,)).get
        return -(-int(held or 0) // CHUNK_BYTES)

    def keep(self, blob: StoredBlob, chunks: Iterable[tuple[int, Sequence[bytes]]]) -> bool:
        """Note chunks that are in the file, durably; return False if the blob is not wanted now.

        chunks: position and path.
        """
        current = self.find(blob.chat, blob.entry)
        if current is None or current.file != blob.file:
            return False
        self._connection.executemany(
            "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?)",
            [(blob.place, position, b"".join(path)) for position, path in chunks],
        )
        return True

    def complete(self, blob: StoredBlob) -> None:
        """Note that all of a blob is here, if it is."""
        if self.count_held(blob) == blob.announced.chunks:
            self._connection.execute("UPDATE blobs SET state = 3 WHERE place = ?", (blob.place,))

    def path(self, blob: StoredBlob, index: int) -> tuple[bytes, ...] | None:
        """Return the path of a chunk that is here."""
        found = self._connection.execute(
            "SELECT path FROM chunks WHERE blob = ? AND position = ?", (blob.place, index)
        ).get
        if found is None:
            return None
        return tuple(found[at : at + HASH_BYTES] for at in range(0, len(found), HASH_BYTES))

    def lose(self, blob: StoredBlob, index: int) -> None:
        """Forget a chunk that the disk has lost: it is wanted again."""
        self._connection.execute(
            "DELETE FROM chunks WHERE blob = ? AND position = ?", (blob.place, index)
        )
        self._connection.execute(
            "UPDATE blobs SET state = 2 WHERE place = ? AND state = 3", (blob.place,)
        )

    def let_go(self, blob: StoredBlob) -> None:
        """Forget what is here of a blob, before its file is removed.

        It may be fetched again, and is wanted still if it was.
        """
        self._connection.execute("DELETE FROM chunks WHERE blob = ?", (blob.place,))
        self._connection.execute(
            "UPDATE blobs SET state = min(state, 1), file = NULL WHERE place = ? AND state != 4",
            (blob.place,),
        )

    def gone(self, blob: StoredBlob) -> None:
        """The file of a dropped blob was removed: nothing is left of it."""
        self._connection.execute("DELETE FROM chunks WHERE blob = ?", (blob.place,))
        self._connection.execute("DELETE FROM blobs WHERE place = ? AND state = 4", (blob.place,))

    def files(self) -> frozenset[str]:
        """Return the names of all files that are spoken of."""
        rows = self._connection.execute("SELECT file FROM blobs WHERE file IS NOT NULL")
        return frozenset(row[0] for row in rows)


def _shared(scope: Scope, one: StoredBlob, other: StoredBlob) -> bool:
    """Whether two blobs count for the same of a scope."""
    match scope:
        case Scope.CHAT:
            return one.chat == other.chat
        case Scope.DEVICE:
            return one.author == other.author
        case Scope.AGENCY:
            return one.agency == other.agency
        case Scope.ALL:
            return True


def _agency_of(judge: Chat, device: DeviceKey) -> AgencyId:
    """Return the agency of a device that is in a chat, or was when it wrote."""
    member = judge.membership().member_of(device)
    if member is not None:
        return member.agency
    return next(
        credential.user.agency
        for entry in reversed(judge.history.entries)
        for credential in credentials(entry.operation)
        if device in credential.user.devices
    )


# Files


def folder_of(home: Path) -> Path:
    """Return the folder of blobs, made if need be, for its owner alone."""
    folder = home / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def new_name() -> str:
    """Return a name that no file has."""
    return os.urandom(_NAME_BYTES).hex()


def write_chunks(path: Path, chunks: Iterable[tuple[int, bytes]]) -> None:
    """Write chunks at their places, durably. Raises OSError."""
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, _OWNER_ONLY)
    try:
        for index, chunk in chunks:
            if os.pwrite(descriptor, chunk, index * CHUNK_BYTES) != len(chunk):
                raise OSError(f"{path}: a chunk was not written whole")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        sync_folder(path.parent)


def read_chunk(path: Path, size: int, index: int) -> bytes:
    """Read a chunk of a blob of `size` bytes. Raises OSError, also if it is not there whole."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return chunk_in(descriptor, size, index)
    finally:
        os.close(descriptor)


def chunk_in(descriptor: int, size: int, index: int) -> bytes:
    """Read a chunk from an open file, as `read_chunk`; it may have been removed since."""
    length = chunk_length(size, index)
    chunk = os.pread(descriptor, length, index * CHUNK_BYTES)
    if len(chunk) != length:
        raise OSError(f"chunk {index} of a blob is not there")
    return chunk


def remove(path: Path) -> None:
    """Remove the file of a blob, durably; one that is not there is no error. Raises OSError."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_blob_chunk(home: Path, blob: StoredBlob, index: int, path: tuple[bytes, ...]) -> Blob:
    """Read a chunk of a stored blob as it is sent. Raises OSError."""
    if blob.file is None:
        raise OSError(f"no file of the blob of {blob.entry.hex()[:16]}")
    chunk = read_chunk(home / FOLDER / blob.file, blob.announced.size, index)
    return Blob(blob.chat, blob.entry, index, chunk, path)
