"""Payloads that go: redacted, aged, or never come; the entries stay (SPEC 2.6).

    payloads = Payloads(store, blobs, agency, owner, clock)
    entries = payloads.allowed(judge, entries)      # before they are stored
    payloads.note(judge, stored, entries)           # after that
    payloads.redact(judge, stored)                  # after control entries
    place = payloads.age(judge, stored, place)      # now and then, until it returns None

Everything runs inside the caller's transaction. `unscrubbed` tells that the database's write-ahead
log may still have bytes that were dropped: empty it (`database.empty_log`).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

from msgspec import convert, structs

from node.blobs import Blobs
from node.store import SEQ_BITS, Branch, Store, StoredChat
from protocol.chat import Chat
from protocol.entry import CONTENT, ChatId, DeviceKey, Reference
from protocol.frame import Want
from protocol.limits import HASH_BYTES, PREFIX_BYTES
from protocol.redaction import Retention, custodians, retention
from protocol.run import Entry, drop_payload, with_payload, without_payload

AGED_ROWS_MAX = 1024  # looked at in one transaction
WANTED_MAX = 32  # wants of one peer at a time, beside all else: see WANTS_SERVED_MAX
WANTED_ROWS_MAX = 4096  # that these may be of; guess
SECOND_MS = 1000
_OF_PEER = f"""
FROM dropped INDEXED BY dropped_wanted CROSS JOIN readers USING (chat)
    JOIN chats ON chats.no = dropped.chat JOIN chains ON chains.no = place >> {SEQ_BITS}
    WHERE wanted = 1 AND peer = ?1
"""
WANTED = f"""
SELECT chats.id, device, dropped.id, place {_OF_PEER}
    ORDER BY place < (SELECT place {_OF_PEER} ORDER BY dropped.id < ?2, dropped.id LIMIT 1), place
    LIMIT ?3
"""


def now_ms() -> int:
    """Return the time in milliseconds UTC."""
    return int(time.time() * SECOND_MS)


class Payloads:
    """The payloads of one replica. clock: milliseconds UTC; for the others see `Chats`.

    random: where to draw from which of too many are asked for.
    """

    def __init__(
        self, store: Store, blobs: Blobs, agency: bytes, owner: bytes, clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._connection = store.connection
        self._blobs = blobs
        self._agency = agency
        self._owner = owner
        self.clock = clock
        self.random: Callable[[int], bytes] = os.urandom
        self.unscrubbed = True
        self.ageless: set[ChatId] = set()  # where nothing ages, by their control lane as it is
        self._applied: WeakKeyDictionary[Chat, set[Reference]] = WeakKeyDictionary()

    # What comes

    def allowed(self, judge: Chat, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return content entries as they may be stored: without what is redacted."""
        if not judge.history.redactions:
            return entries
        redacted = judge.redactions.of()
        return [
            without_payload(entry, found.ground)
            if entry.payload is not None and (found := redacted.get(entry.reference))
            else entry
            for entry in entries
        ]

    def note(self, judge: Chat, stored: StoredChat, entries: Sequence[Entry]) -> None:
        """Note which of the entries that were stored just now have no payload."""
        bare = [entry for entry in entries if entry.ground is not None]
        if not bare:
            return
        redacted, aging = judge.redactions.of(), self._aging(judge)
        now = self.clock()
        for entry in bare:
            found = redacted.get(entry.reference)
            ground = entry.ground if found is None else found.ground
            aged = aging is not None and entry.header.time <= _cutoff(aging, now)
            wanted = found is None and not aged
            row = self._store.content_row(stored, entry.reference)
            self._mark(stored, row, entry.id, ground, wanted=wanted)

    def fill(self, judge: Chat, stored: StoredChat, entries: Sequence[Entry]) -> None:
        """Take the payloads that were wanted, from entries that are stored already."""
        if not self._wants(stored):
            return
        redacted = judge.redactions.of()
        for entry in entries:
            if entry.payload is None or entry.reference in redacted:
                continue
            place = self._connection.execute(
                "SELECT place FROM dropped WHERE id = ? AND chat = ? AND wanted = 1",
                (entry.id, stored.no),
            ).get
            if place is None:
                continue
            record = self._connection.execute(
                "SELECT record FROM entries WHERE place = ?", (place,)
            ).get
            self._connection.execute(
                "UPDATE entries SET record = ?, since = ? WHERE place = ?",
                (
                    with_payload(record, entry.payload),
                    max(self.clock(), entry.header.time),
                    place,
                ),
            )
            self._connection.execute("DELETE FROM dropped WHERE place = ?", (place,))
            self._blobs.announce(judge, stored, [entry])

    def _wants(self, stored: StoredChat) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM dropped WHERE chat = ? AND wanted = 1 LIMIT 1", (stored.no,)
        ).get
        return found is not None

    def wanted(self, peer: bytes) -> list[Want]:
        """Return the payloads that a peer is to be asked for, in chats that it may read.

        If there are many, others each time: ids are hashes, so one of them is drawn to begin with.
        Those that follow each other in a chain are one want.
        """
        rows = self._connection.execute(WANTED, (peer, self.random(HASH_BYTES), WANTED_ROWS_MAX))
        wants: list[Want] = []
        before = -1
        for chat, device, entry, place in rows:
            prefix, seq = entry[:PREFIX_BYTES], place & (1 << SEQ_BITS) - 1
            if place == before + 1 and seq:
                wants[-1] = structs.replace(wants[-1], prefix=prefix, stop=seq + 1)
            elif len(wants) == WANTED_MAX:
                break
            else:
                wants.append(Want(ChatId(chat), DeviceKey(device), CONTENT, prefix, seq, seq + 1))
            before = place
        return wants

    # What goes

    def redact(self, judge: Chat, stored: StoredChat) -> int:
        """Drop what is redacted by now and still here; return how much that was."""
        self.ageless.discard(stored.id)
        if not judge.history.redactions:
            return 0
        redacted = judge.redactions.of()
        applied = self._applied.setdefault(judge, set())
        dropped = 0
        for place, found in redacted.items():
            if place not in applied:
                applied.add(place)
                dropped += self._drop_redacted(stored, place, found.ground)
        return dropped

    def _drop_redacted(self, stored: StoredChat, place: Reference, ground: Reference) -> int:
        number = self._store.content_row(stored, place)
        if number is None:
            return 0
        self._connection.execute(
            "UPDATE dropped SET ground = ?, wanted = 0 WHERE place = ? AND id = ?",
            (ground.id, number, place.id),
        )
        if self._connection.changes():
            return 0
        self._drop(stored, number, place.id, ground)
        return 1

    def age(self, judge: Chat, stored: StoredChat, start: int) -> int | None:
        """Drop what has aged among the next entries; return where to go on, None at the end.

        start: the place of a row, 0 to begin.
        """
        aging = self._aging(judge)
        if aging is None:
            self.ageless.add(stored.id)
            return None
        cutoff = _cutoff(aging, self.clock())
        if not start:  # what came without a payload is too old by now, whoever has it yet
            self._connection.execute(
                "UPDATE dropped SET wanted = 0 WHERE chat = ? AND wanted = 1 AND at <= ?",
                (stored.no, cutoff),
            )
        for branch in _content(stored):
            first, end = max(start, branch.no << SEQ_BITS), branch.no + 1 << SEQ_BITS
            rows = self._connection.execute(
                "SELECT place, id, since FROM entries WHERE place >= ? AND place < ?"
                " ORDER BY place LIMIT ?",
                (first, end, AGED_ROWS_MAX),
            ).fetchall()
            listed = convert(rows, list[tuple[int, bytes, int | None]])
            for place, entry, since in listed:
                if since is not None and since <= cutoff:
                    self._drop(stored, place, entry, aging.ground)
            if listed:
                return listed[-1][0] + 1
        return None

    def _aging(self, judge: Chat) -> Retention | None:
        """Return what this replica drops by age, None if by nothing, or if it has a custodian."""
        found = retention(judge.history)
        if found is None or not judge.history.custody:
            return found
        view = judge.membership()
        keeping = {view.users[user] for user in custodians(judge.history)}
        if self._owner == self._agency:
            return None if any(one.agency == self._agency for one in keeping) else found
        return None if any(self._owner in one.devices for one in keeping) else found

    def _drop(self, stored: StoredChat, place: int, entry: bytes, ground: Reference) -> None:
        record = self._connection.execute(
            "SELECT record FROM entries WHERE place = ?", (place,)
        ).get
        self._connection.execute(
            "UPDATE entries SET record = ?, since = NULL WHERE place = ?",
            (drop_payload(record, ground), place),
        )
        self._mark(stored, place, entry, ground, wanted=False)
        self.unscrubbed = True

    def _mark(
        self,
        stored: StoredChat,
        place: int | None,
        entry: bytes,
        ground: Reference | None,
        *,
        wanted: bool,
    ) -> None:
        if place is None or ground is None:
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO dropped VALUES (?, ?, ?, ?, ?, ?)",
            (place, stored.no, entry, ground.id, self.clock(), int(wanted)),
        )


def _content(stored: StoredChat) -> Iterator[Branch]:
    branches = [
        branch for (_, lane), chain in stored.chains.items() if lane == CONTENT for branch in chain
    ]
    yield from sorted(branches, key=lambda branch: branch.no)


def _cutoff(aging: Retention, now: int) -> int:
    return now - aging.seconds * SECOND_MS
