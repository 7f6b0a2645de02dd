"""The database of a replica: chains of entries, who may read them, how far peers are (SPEC 10).

One connection, one owner. Every call is plain and synchronous; `journal` groups them into
transactions. Nothing here judges an entry: `replica` does, and then appends.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import msgspec

from node.errors import DamagedError, StorageError
from node.files import sync_file
from node.schema import APPLICATION_ID, NEWEST_CHANGE, SCHEMA, SCHEMA_VERSION
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId, Reference, encode_header
from protocol.fork import Cover
from protocol.frame import Run, Want
from protocol.limits import (
    COVER_ENTRIES_MAX,
    HEADER_BYTES_MAX,
    INCARNATION_BYTES,
    KEYFRAME_ENTRIES,
    RUN_BYTES_MAX,
    RUN_ENTRIES_MAX,
)
from protocol.run import Context, Entry, context_after, fold, pack, rebuild

SEQ_BITS = 32
CHATS_CACHED_MAX = 4096
STATEMENTS_CACHED_MAX = 512  # all that there are: one of ten had to be parsed anew with 100
BUSY_TIMEOUT_MS = 10_000

Row = tuple[int, bytes, bytes, bytes | None]  # seq, id, record, signature


@dataclass(slots=True)
class Branch:
    """One branch of a chain. `length` is the seq of its newest entry, plus one."""

    no: int
    branch: int
    parent: int | None
    base: int
    length: int
    head: EntryId
    context: Context | None = None  # that the head leaves to its successor, once it was asked for
    before: tuple[int, Context] | None = None  # seq of the head before that, and what it left


@dataclass(slots=True)
class StoredChat:
    """The chains of one chat, by device and lane; the first branch of each comes first."""

    no: int
    id: ChatId
    chains: dict[tuple[bytes, int], list[Branch]] = field(default_factory=dict)


def connect(path: Path, key: bytes | None) -> apsw.Connection:
    """Open or create a database file, mode 0600. key: 32 bytes encrypt it at rest, None does not.

    Raises StorageError, which says what to do, for a file that is not ours or not to be read.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = apsw.Connection(str(path), statementcachesize=STATEMENTS_CACHED_MAX)
    except (OSError, apsw.Error) as error:
        raise StorageError(f"{path} does not open: {error}") from None
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if key is not None:
            connection.pragma("cipher", "chacha20")
            connection.pragma("key", f"raw:{key.hex()}")
        _set_up(connection, path)
    except apsw.NotADBError:
        connection.close()
        raise StorageError(f"{path} does not open: not an Ivor database, or a wrong key") from None
    except apsw.CorruptError as error:
        connection.close()
        raise DamagedError(f"{path} does not open: {error}") from None
    except apsw.Error as error:
        connection.close()
        raise StorageError(f"{path} does not open: {error}") from None
    return connection


def _set_up(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    if version not in (0, SCHEMA_VERSION):
        raise StorageError(
            f"{path} has data of version {version}, this Ivor reads version {SCHEMA_VERSION}: "
            "use the Ivor that wrote it"
        )
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("secure_delete", "ON")
    connection.pragma("wal_autocheckpoint", 1000)
    if version == 0:
        with connection:
            connection.execute(SCHEMA)
            fresh = os.urandom(INCARNATION_BYTES)
            connection.execute("INSERT INTO meta VALUES ('incarnation', ?)", (fresh,))
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", SCHEMA_VERSION)
    # What a killed process wrote and had not synced yet is read like all else. It must be durable
    # before anybody is told of it. If others have the file open, they have seen to that.
    empty_log(connection)


def incarnation_of(connection: apsw.Connection) -> bytes:
    """Return the 16 random bytes that a restored or new database has of its own."""
    return bytes(connection.execute("SELECT value FROM meta WHERE key = 'incarnation'").get)


class Store:
    """Entries and what is derived from them. See the module's docstring."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._chats: OrderedDict[bytes, StoredChat] = OrderedDict()
        self._changed = self._newest_change()

    def _newest_change(self) -> int:
        return int(self.connection.execute(NEWEST_CHANGE).get)

    @property
    def incarnation(self) -> bytes:
        """16 random bytes that a restored or new database has of its own."""
        return incarnation_of(self.connection)

    @property
    def changed(self) -> int:
        """The change counter: the number of the newest change of a head."""
        return self._changed

    def forget(self) -> None:
        """Drop what is cached: after a rollback, or when another process wrote."""
        self._chats.clear()
        self._changed = self._newest_change()

    def chat(self, chat: bytes) -> StoredChat | None:
        """Return a chat's chains, None when nothing is stored of it."""
        cached = self._chats.get(chat)
        if cached is not None:
            self._chats.move_to_end(chat)
            return cached
        no = self.connection.execute("SELECT no FROM chats WHERE id = ?", (chat,)).get
        return None if no is None else self._load(no, ChatId(chat))

    def create_chat(self, chat: ChatId) -> StoredChat:
        """Return a chat's chains, making the chat if need be."""
        known = self.chat(chat)
        if known is not None:
            return known
        self.connection.execute("INSERT INTO chats (id) VALUES (?)", (chat,))
        return self._load(self.connection.last_insert_rowid(), chat)

    def _load(self, no: int, chat: ChatId) -> StoredChat:
        stored = StoredChat(no, chat)
        rows = self.connection.execute(
            "SELECT device, lane, no, branch, parent, base, length, head FROM chains"
            " WHERE chat = ? ORDER BY branch",
            (no,),
        )
        for device, lane, *columns in rows:
            stored.chains.setdefault((device, lane), []).append(Branch(*columns))
        self._chats[chat] = stored
        if len(self._chats) > CHATS_CACHED_MAX:
            self._chats.popitem(last=False)
        return stored

    def chats(self) -> list[ChatId]:
        """Return the ids of all chats, in the order of their arrival."""
        rows = self.connection.execute("SELECT id FROM chats ORDER BY no")
        return [ChatId(row[0]) for row in rows]

    # Entries

    def append(
        self, chat: StoredChat, entries: Sequence[Entry], branch: int | None, now: int
    ) -> None:
        """Append consecutive entries after the one that they follow.

        branch: the branch to go on with; None begins a new one. now: milliseconds. The caller has
        judged them, and calls `keep_cover` if the last is not signed.
        """
        first = entries[0].header
        chain = chat.chains.setdefault((first.device, first.lane), [])
        if branch is None or not chain:
            target = self._begin_branch(chat, entries[0], chain)
        else:
            target = chain[branch]
        place = target.no << SEQ_BITS
        signed = self._uncover(target, entries)
        entries = [self._relative(chain, target, entries[0]), *entries[1:]]
        self.connection.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
            [
                (
                    place | e.header.seq,
                    e.id,
                    e.record,
                    e.signature or signed.get(e.id),
                    _since(e, now),
                )
                for e in entries
            ],
        )
        if first.lane == CONTROL:
            self.connection.executemany(
                "INSERT INTO controls (chat, place) VALUES (?, ?)",
                [(chat.no, place | e.header.seq) for e in entries],
            )
        if target.context is not None:
            target.before = target.length - 1, target.context
        target.length = entries[-1].header.seq + 1
        target.head = entries[-1].id
        target.context = context_after(entries[-1].header)
        self.connection.execute(
            "UPDATE chains SET length = ?, head = ?, changed = ? WHERE no = ?",
            (target.length, target.head, self.next_change(), target.no),
        )

    def _cover(self, branch: Branch) -> Sequence[Row]:
        """Return what stands after the head of a branch, to cover it."""
        rows = self.connection.execute(
            "SELECT place, id, record, signature FROM entries WHERE place >= ? AND place < ?"
            " ORDER BY place",
            (branch.no << SEQ_BITS | branch.length, branch.no + 1 << SEQ_BITS),
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    def covered_otherwise(self, branch: Branch, entries: Sequence[Entry]) -> bool:
        """Tell whether what covers the head of a branch is another one's than these entries."""
        return any(row[1] != e.id for row, e in zip(self._cover(branch), entries, strict=False))

    def _uncover(self, branch: Branch, entries: Sequence[Entry]) -> Mapping[bytes, bytes | None]:
        """Remove what entries stand in the place of; a cover that goes on after them stays.

        Return its signatures: what it has covered may have no other.
        """
        cover = self._cover(branch)
        replaced = cover[: len(entries)]
        if replaced and replaced[-1][1] != entries[len(replaced) - 1].id:
            replaced = cover
        self.connection.executemany(
            "DELETE FROM entries WHERE place = ?", [(row[0],) for row in replaced]
        )
        return {row[1]: row[3] for row in replaced}

    def _relative(self, chain: Sequence[Branch], branch: Branch, entry: Entry) -> Entry:
        """Return an entry with its record relative to the predecessor that is stored here.

        The peer may have claimed another context, with a record that makes up for it: the header
        and its signature are right all the same, but what is stored would be of another entry.
        """
        header = entry.header
        body = entry.ground if entry.payload is None else entry.payload
        if header.seq % KEYFRAME_ENTRIES == 0 or body is None:
            return entry
        before = self.context_after(chain, branch, header.lane, header.seq - 1)
        return msgspec.structs.replace(entry, record=pack(header, body, before))

    def keep_cover(self, chat: StoredChat, last: Entry, cover: Sequence[Entry]) -> None:
        """Keep what follows an unsigned head, up to a signed entry.

        These do not count as stored, and the next append replaces them; but without them nobody
        could be shown that what is stored is authentic. What covers it already stays.
        """
        header = last.header
        branch = self.branch_of(chat, header.device, header.lane, header.seq, last.id)
        target = None if branch is None else chat.chains[header.device, header.lane][branch]
        if target is None or target.head != last.id or self._cover(target):
            return
        self.connection.executemany(
            "INSERT INTO entries (place, id, record, signature) VALUES (?, ?, ?, ?)",
            [(target.no << SEQ_BITS | e.header.seq, e.id, e.record, e.signature) for e in cover],
        )

    def touch(self, chat: StoredChat) -> None:
        """List all chains of a chat as changed, so that a new reader is told of them.

        Control chains first: one of them lets the reader in.
        """
        chains = sorted(chat.chains.items(), key=lambda item: item[0][1])
        self.connection.executemany(
            "UPDATE chains SET changed = ? WHERE no = ?",
            [(self.next_change(), branch.no) for _, chain in chains for branch in chain],
        )

    def next_change(self) -> int:
        """Count one more change, and return its number."""
        self._changed += 1
        return self._changed

    def _begin_branch(self, chat: StoredChat, first: Entry, chain: list[Branch]) -> Branch:
        header = first.header
        parent = None
        if header.prev is not None:
            found = self.branch_of(chat, header.device, header.lane, header.seq - 1, header.prev)
            parent = None if found is None else chain[found].no
        number = len(chain)
        self.connection.execute(
            "INSERT INTO chains (chat, device, lane, branch, parent, base, length, head, changed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (chat.no, header.device, header.lane, number, parent, header.seq, 0, first.id),
        )
        no = self.connection.last_insert_rowid()
        chain.append(Branch(no, number, parent, header.seq, header.seq, first.id))
        return chain[-1]

    def branch_of(
        self, chat: StoredChat, device: bytes, lane: int, seq: int, entry: bytes
    ) -> int | None:
        """Return the branch that holds this very entry, None if none does."""
        chain = chat.chains.get((device, lane), ())
        for branch in chain:
            if seq == branch.length - 1 and branch.head == entry:
                return branch.branch
        for branch in chain:
            if branch.base <= seq < branch.length - 1 and self._id_at(branch, seq) == entry:
                return branch.branch
        return None

    def content_row(self, chat: StoredChat, place: Reference) -> int | None:
        """Return where an entry is stored; also one that only covers what is before it."""
        for branch in chat.chains.get((place.device, CONTENT), ()):
            number = branch.no << SEQ_BITS | place.seq
            if self._id_at(branch, place.seq) == place.id:
                return number
        return None

    def _id_at(self, branch: Branch, seq: int) -> bytes | None:
        found = self.connection.execute(
            "SELECT id FROM entries WHERE place = ?", (branch.no << SEQ_BITS | seq,)
        ).get
        return None if found is None else bytes(found)

    def _segments(
        self, chain: Sequence[Branch], branch: Branch, start: int, stop: int
    ) -> list[tuple[int, int, int]]:
        """Return (chain number, start, stop) pieces of a branch, its ancestors' first."""
        pieces: list[tuple[int, int, int]] = []
        at: Branch | None = branch
        while at is not None and start < stop:
            if stop > at.base:
                pieces.append((at.no, max(start, at.base), stop))
                stop = at.base
            at = next((other for other in chain if other.no == at.parent), None)
        return pieces[::-1]

    def rows(self, chain: Sequence[Branch], branch: Branch, start: int, stop: int) -> Iterator[Row]:
        """Yield the rows of a branch, in order."""
        for no, first, end in self._segments(chain, branch, start, stop):
            cursor = self.connection.execute(
                "SELECT place, id, record, signature FROM entries WHERE place >= ? AND place < ?"
                " ORDER BY place",
                (no << SEQ_BITS | first, no << SEQ_BITS | end),
            )
            for place, entry, record, signature in cursor:
                yield place & (1 << SEQ_BITS) - 1, entry, record, signature

    def context_before(
        self, chain: Sequence[Branch], branch: Branch, lane: int, seq: int
    ) -> tuple[EntryId | None, Context | None]:
        """Return the id of the predecessor of `seq`, and the context it leaves (None: keyframe)."""
        if seq == 0:
            return None, None
        prev = next(self.rows(chain, branch, seq - 1, seq))[1]
        if seq % KEYFRAME_ENTRIES == 0:
            return EntryId(prev), None
        return EntryId(prev), self.context_after(chain, branch, lane, seq - 1)

    def context_after(
        self, chain: Sequence[Branch], branch: Branch, lane: int, seq: int
    ) -> Context:
        """Return the context that the entry at `seq` leaves to its successor."""
        if seq == branch.length - 1 and branch.context is not None:
            return branch.context
        if branch.before is not None and seq == branch.before[0]:
            return branch.before[1]
        keyframe = seq // KEYFRAME_ENTRIES * KEYFRAME_ENTRIES
        context = fold(lane, [row[2] for row in self.rows(chain, branch, keyframe, seq + 1)])
        if seq == branch.length - 1:
            branch.context = context
        return context

    def run(self, want: Want) -> Run | None:
        """Read a run from `want.start` on; None if this branch does not exist here.

        It ends with a signed entry, at or before the limits of a frame. In the content lane it
        carries no more signatures than cover it, in the control lane all that are here: a removed
        reader is shown a lane up to its removal, and nothing that stands after and covers it.
        """
        chat = self.chat(want.chat)
        chain = [] if chat is None else chat.chains.get((want.device, want.lane), [])
        branch = self.branch_with_prefix(chain, want.stop - 1, want.prefix)
        if branch is None:
            return None
        rows = self._covered(chain, branch, want, RUN_BYTES_MAX)
        fits = bool(rows)
        if not fits:
            more = self._covered(chain, branch, want, RUN_BYTES_MAX + HEADER_BYTES_MAX)
            rows = more[: 1 + next((at for at, row in enumerate(more) if row[3]), 0)]
        if not rows:
            return None
        prev, context = self.context_before(chain, branch, want.lane, want.start)
        records = [row[2] for row in rows]
        if not fits and context is not None:
            context, records[0] = _shortest(want, prev, context, records[0])
        if len(records) > 1 and sum(map(len, records)) > RUN_BYTES_MAX:
            return None
        signatures = _signatures(rows) if want.lane == CONTROL else _cover(rows)
        raws = tuple(map(msgspec.Raw, records))
        return Run(want.chat, want.device, want.lane, want.start, prev, context, raws, signatures)

    def _covered(
        self, chain: Sequence[Branch], branch: Branch, want: Want, bytes_max: int
    ) -> list[Row]:
        """Return rows from `want.start` on, as many as fit and as signatures among them cover."""
        rows: list[Row] = []
        size = signed = 0
        for row in self.rows(chain, branch, want.start, branch.length + COVER_ENTRIES_MAX):
            size += len(row[2])
            shown = row[0] >= branch.length and signed == len(rows)
            if rows and (size > bytes_max or shown or len(rows) - signed >= COVER_ENTRIES_MAX):
                break
            rows.append(row)
            signed = len(rows) if row[3] is not None else signed
            if len(rows) >= RUN_ENTRIES_MAX or (signed == len(rows) and row[0] >= want.stop - 1):
                break
        return rows[:signed]

    def branch_with_prefix(self, chain: Sequence[Branch], seq: int, prefix: bytes) -> Branch | None:
        """Return the branch whose entry at `seq` has an id that begins with `prefix`."""
        for branch in chain:
            if branch.base <= seq < branch.length:
                last = seq == branch.length - 1
                found = branch.head if last else self._id_at(branch, seq)
                if found is not None and found.startswith(prefix):
                    return branch
        return None

    def control_order(self, chat: StoredChat) -> list[int]:
        """Return the places of a chat's control entries in the order of their admission."""
        rows = self.connection.execute(
            "SELECT place FROM controls WHERE chat = ? ORDER BY no", (chat.no,)
        )
        return [row[0] for row in rows]

    def cover(self, chat: StoredChat, device: bytes, lane: int, branch: Branch, seq: int) -> Cover:
        """Return the headers from `seq` to the next signed entry, and its signature."""
        chain = chat.chains[device, lane]
        prev, context = self.context_before(chain, branch, lane, seq)
        rows = []
        for row in self.rows(chain, branch, seq, branch.length + COVER_ENTRIES_MAX):
            rows.append(row)
            if row[3] is not None:
                break
        entries = rebuild(
            chat.id, DeviceKey(device), lane, seq, prev, context, [row[2] for row in rows]
        )
        return Cover(tuple(encode_header(entry.header) for entry in entries), rows[-1][3] or b"")


def _since(entry: Entry, now: int) -> int | None:
    """Return what the age of a payload counts from, None where there is none that ages."""
    ages = entry.header.lane == CONTENT and entry.payload is not None
    return max(now, entry.header.time) if ages else None


def begin_anew(connection: apsw.Connection, random: Callable[[int], bytes]) -> None:
    """Have peers and devices tell everything anew: a new incarnation, and no cursors.

    For a database that has lost something. Call inside a transaction.
    """
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'incarnation'", (random(INCARNATION_BYTES),)
    )
    connection.execute("DELETE FROM cursors")


def empty_log(connection: apsw.Connection) -> bool:
    """Bring the write-ahead log into the database and cut it to nothing, durably.

    Until then it has the pages as they were before something was overwritten. Returns False if
    another process is reading just now: the next time does it. Call outside a transaction.
    Raises StorageError and apsw.Error.
    """
    connection.set_busy_timeout(0)
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        return False
    finally:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    try:
        sync_file(Path(connection.filename_wal))  # SQLite does not, and the cut could be undone
    except OSError as error:
        raise StorageError(f"the database's log is not emptied: {error}") from error
    return True


def _shortest(
    want: Want, prev: EntryId | None, context: Context, record: bytes
) -> tuple[Context, bytes]:
    """Return the context relative to which the record at the start of a run is shortest.

    Whoever signs rarely may have sent it so, in a run of which the true record would be too much.
    Whoever gets it puts it right again (SPEC 6.4).
    """
    entry = rebuild(want.chat, want.device, want.lane, want.start, prev, context, [record])[0]
    header, body = entry.header, entry.ground if entry.payload is None else entry.payload
    if body is None:
        return context, record
    like = context_after(header)
    like = like._replace(generation=max(0, like.generation - 1))
    return like, pack(header, body, like)


def _signatures(rows: Sequence[Row]) -> tuple[tuple[int, bytes], ...]:
    return tuple((index, row[3]) for index, row in enumerate(rows) if row[3] is not None)


def _cover(rows: Sequence[Row]) -> tuple[tuple[int, bytes], ...]:
    """Choose the fewest signatures that cover all rows, the last of which is signed."""
    chosen: list[tuple[int, bytes]] = []
    candidate: tuple[int, bytes] | None = None
    uncovered = 0
    for index, row in enumerate(rows):
        if index - uncovered >= COVER_ENTRIES_MAX and candidate is not None:
            chosen.append(candidate)
            uncovered = candidate[0] + 1
        if row[3] is not None:
            candidate = (index, row[3])
    return (*chosen, candidate) if candidate is not None else tuple(chosen)
