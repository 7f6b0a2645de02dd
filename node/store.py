"""What a replica stores of chats: chains of entries, their branches, what covers them (SPEC 10).

One connection, one owner. Every call is plain and synchronous; `journal` groups them into
transactions. Nothing here judges an entry: `replica` does, and then appends.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import apsw
import msgspec

from node.database import incarnation_of
from node.schema import NEWEST_CHANGE
from protocol.entry import CONTENT, CONTROL, ChatId, EntryId, Reference
from protocol.limits import (
    KEYFRAME_ENTRIES,
)
from protocol.run import Context, Entry, context_after, fold, pack

SEQ_BITS = 32
CHATS_CACHED_MAX = 4096

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

    def parting(self, branch: Branch, entries: Sequence[Entry]) -> Entry | None:
        """Return the first entry that is another than what covers the head of a branch."""
        pairs = zip(self._cover(branch), entries, strict=False)
        return next((entry for row, entry in pairs if row[1] != entry.id), None)

    def _uncover(self, branch: Branch, entries: Sequence[Entry]) -> Mapping[bytes, bytes | None]:
        """Remove what entries stand in the place of; a cover that goes on after them stays.

        Return its signatures: what it has covered may have no other.
        """
        cover = self._cover(branch)
        replaced = cover[: len(entries)]
        if replaced and replaced[-1][1] != entries[len(replaced) - 1].id:
            replaced = cover
        places = [(row[0],) for row in replaced]
        self.connection.executemany("DELETE FROM entries WHERE place = ?", places)
        self.connection.executemany("DELETE FROM dropped WHERE place = ?", places)
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

    def keep_cover(self, chat: StoredChat, last: Entry, cover: Sequence[Entry], now: int) -> None:
        """Keep what follows an unsigned head, up to a signed entry. now: milliseconds.

        These do not count as stored, and the next append replaces them; but without them nobody
        could be shown that what is stored is authentic. What covers it already stays. Their
        payloads age like others, as they may never be more than a cover.
        """
        header = last.header
        branch = self.branch_of(chat, header.device, header.lane, header.seq, last.id)
        target = None if branch is None else chat.chains[header.device, header.lane][branch]
        if target is None or target.head != last.id or self._cover(target):
            return
        self.connection.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
            [
                (
                    target.no << SEQ_BITS | e.header.seq,
                    e.id,
                    e.record,
                    e.signature,
                    _since(e, now),
                )
                for e in cover
            ],
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


def _since(entry: Entry, now: int) -> int | None:
    """Return what the age of a payload counts from, None where there is none that ages."""
    ages = entry.header.lane == CONTENT and entry.payload is not None
    return max(now, entry.header.time) if ages else None
