"""Who may read what, and how far everybody is: the tables behind a session (SPEC 6.3, 10).

Readers are derived from membership and kept with the chat, so that telling a peer what changed is
one indexed query and never a look at each chat.
"""

import json
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import apsw
from msgspec import convert

from node.database import BEGUN_ANEW
from node.schema import NEWEST_CHANGE
from node.store import StoredChat
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.fork import Fork
from protocol.frame import ChatHeads, Head, Heads, Holding, Seal, Want
from protocol.identity import UserId
from protocol.limits import (
    BRANCHES_MAX,
    HASH_BYTES,
    HEADS_CHAINS_MAX,
    PREFIX_BYTES,
    SEALLESS_ASKED_MAX,
    UNHEARD_MAX,
)

SURVEYED_CHATS = 256  # in one go: about 5 ms

_HEADS = """
SELECT changed, id, device, lane, length - 1, substr(head, 1, :prefix) FROM WALK
    CROSS JOIN chats ON chats.no = chains.chat
    WHERE peer = :peer AND changed CHOSEN
UNION ALL
SELECT seen.changed, chats.id, device, lane, seen.length - 1, substr(entries.id, 1, :prefix)
    FROM former CROSS JOIN departures AS seen ON seen.no = departure
    JOIN chains ON chains.no = chain JOIN chats ON chats.no = chains.chat
    JOIN entries ON place = (chain << 32 | seen.length - 1)
    WHERE peer = :peer AND seen.changed CHOSEN
"""
# SQLite keeps to the order of a CROSS JOIN. By itself it walks all chats of the peer.
_BY_CHANGE = _HEADS.replace(
    "WALK",
    "chains INDEXED BY chains_changed CROSS JOIN readers ON readers.chat = chains.chat",
)
_BY_CHAT = _HEADS.replace("WALK", "readers CROSS JOIN chains ON chains.chat = readers.chat")
_SINCE = ("CHOSEN", "> :cursor")
HEADS_OF_FEW_CHANGES = _BY_CHANGE.replace(*_SINCE) + "ORDER BY 1 LIMIT :most"
HEADS_OF_FEW_CHATS = _BY_CHAT.replace(*_SINCE) + "ORDER BY 1 LIMIT :most"
HEADS_AT = _BY_CHANGE.replace("CHOSEN", "IN (SELECT value FROM json_each(:numbers))")
_FRESH = """
SELECT chats.id FROM devices AS fresh INDEXED BY devices_enters
    CROSS JOIN devices AS old ON old.user = fresh.user CROSS JOIN SEEN
    CROSS JOIN chats ON chats.no = chat
    WHERE fresh.enters = 1 AND fresh.revoked = 0
    AND NOT EXISTS (SELECT 1 FROM readers AS own WHERE own.peer = fresh.id)
"""
_FORGOTTEN = """
SELECT chats.id FROM meta CROSS JOIN devices AS fresh INDEXED BY devices_enters
    CROSS JOIN readers CROSS JOIN chats ON chats.no = readers.chat
    WHERE meta.key = 'ANEW' AND fresh.enters = 1 AND fresh.revoked = 0
    AND NOT EXISTS (SELECT 1 FROM readers AS own WHERE own.peer = fresh.id)
    AND NOT EXISTS (SELECT 1 FROM devices AS known WHERE known.id = peer)
    AND NOT EXISTS (SELECT 1 FROM agencies WHERE agencies.id = peer)
    AND peer != (SELECT agency FROM users WHERE users.id = fresh.user)
"""
AWAITING = "UNION".join(
    (
        _FRESH.replace("SEEN", "readers ON readers.peer = old.id"),
        _FRESH.replace("SEEN", "former ON former.peer = old.id"),
        _FORGOTTEN.replace("ANEW", BEGUN_ANEW),
    )
)


class Sharing:
    """Readers, heads, cursors, holdings, fork proofs and seals of one replica."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def readers(self, chat: StoredChat) -> AbstractSet[bytes]:
        """Return the agencies, and own devices, that may see a chat."""
        rows = self.connection.execute("SELECT peer FROM readers WHERE chat = ?", (chat.no,))
        return frozenset(row[0] for row in rows)

    def note_outrun(self) -> None:
        """Remember for good that this is an old copy of a device that wrote on elsewhere."""
        self.connection.execute("INSERT INTO meta VALUES ('outrun', 1) ON CONFLICT DO NOTHING")

    def outrun(self) -> bool:
        """Whether this is an old copy of a device that wrote on elsewhere."""
        found = self.connection.execute("SELECT 1 FROM meta WHERE key = 'outrun'").get
        return found is not None

    def entrants(self) -> list[tuple[DeviceKey, UserId]]:
        """Return the devices in use that may bring themselves into the chats of their users."""
        rows = self.connection.execute(
            "SELECT id, user FROM devices WHERE enters = 1 AND revoked = 0"
        )
        return [(DeviceKey(device), UserId(user)) for device, user in rows]

    def awaiting(self) -> list[ChatId]:
        """Return the chats in which a device was or is whose user has one that sees none yet.

        At a node that was brought back also those with a device that it knows nobody by.
        """
        rows = self.connection.execute(AWAITING)
        return [ChatId(row[0]) for row in rows]

    def set_readers(self, chat: StoredChat, peers: AbstractSet[bytes]) -> None:
        """Replace the readers of a chat. Who comes (back) is no longer a former reader."""
        before = self.readers(chat)
        self.connection.executemany(
            "DELETE FROM readers WHERE chat = ? AND peer = ?",
            [(chat.no, peer) for peer in before - peers],
        )
        self.connection.executemany(
            "INSERT INTO readers (chat, peer) VALUES (?, ?)",
            [(chat.no, peer) for peer in peers - before],
        )
        self.connection.executemany(
            "DELETE FROM former WHERE peer = ? AND chat = ?",
            [(peer, chat.no) for peer in peers - before],
        )

    def set_former(
        self, chat: StoredChat, peers: Iterable[bytes], lengths: Sequence[tuple[int, int, int]]
    ) -> None:
        """Keep what removed readers may see, all the same.

        lengths: (control chain, its length then, change), one at least.
        """
        departure = lengths[0][2]
        self.connection.executemany(
            "INSERT INTO departures VALUES (?, ?, ?, ?)",
            [(departure, *length) for length in lengths],
        )
        self.connection.executemany(
            "INSERT INTO former VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [(peer, chat.no, departure) for peer in peers],
        )

    def may_ask(self, peer: bytes, want: Want) -> bool:
        """Tell whether a peer may have a range: a reader any, a former one its own removal."""
        if self.may_read(peer, want.chat):
            return True
        length = self.connection.execute(
            "SELECT max(seen.length) FROM chats JOIN former ON former.chat = chats.no"
            " JOIN departures AS seen ON seen.no = departure JOIN chains ON chains.no = chain"
            " WHERE peer = ? AND id = ? AND device = ? AND lane = ?",
            (peer, want.chat, want.device, want.lane),
        ).get
        return length is not None and want.stop <= length

    def may_read(self, peer: bytes, chat: bytes) -> bool:
        """Tell whether a peer may see a chat that is stored here."""
        found = self.connection.execute(
            "SELECT 1 FROM readers JOIN chats ON no = chat WHERE peer = ? AND id = ?", (peer, chat)
        ).get
        return found is not None

    def heads_since(self, peer: bytes, cursor: int) -> Heads:
        """Return the page of heads that changed after `cursor` and that the peer may see.

        It takes as long as there are changes since, or chats of the peer, whichever are fewer.
        """
        asked = {"prefix": PREFIX_BYTES, "peer": peer, "cursor": cursor}
        asked["most"] = HEADS_CHAINS_MAX + 1
        newest = self.newest_change()
        few = self._has_fewer_chats(peer, newest - cursor)
        heads = HEADS_OF_FEW_CHATS if few else HEADS_OF_FEW_CHANGES
        rows = self.connection.execute(heads, asked).fetchall()
        whole = len(rows) <= HEADS_CHAINS_MAX
        del rows[HEADS_CHAINS_MAX:]
        reached = convert(rows[-1][0], int) if rows else cursor
        return Heads(max(cursor, reached, newest if whole else 0), int(whole), _listed(rows))

    def _has_fewer_chats(self, peer: bytes, number: int) -> bool:
        found = self.connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM readers WHERE peer = ? LIMIT max(0, ?))",
            (peer, number),
        ).get
        return int(found) < number

    def heads_at(self, peer: bytes, numbers: Sequence[int]) -> Heads:
        """Return a page of the heads that these changes made, of those that the peer may see."""
        asked = {"prefix": PREFIX_BYTES, "peer": peer, "numbers": json.dumps(list(numbers))}
        rows = self.connection.execute(HEADS_AT, asked).fetchall()
        return Heads(numbers[-1], 0, _listed(rows))

    def survey(self, peer: bytes, after: int) -> tuple[list[tuple[bytes, int]], int | None]:
        """Return (entry id, change) of the heads in the next chats of this peer, and how to go on.

        after: 0, then what was returned, until that is None.
        """
        last = self.connection.execute(
            "SELECT max(chat) FROM (SELECT chat FROM readers WHERE peer = ? AND chat > ?"
            " ORDER BY chat LIMIT ?)",
            (peer, after, SURVEYED_CHATS),
        ).get
        if last is None:
            return self._former_heads(peer), None
        rows = self.connection.execute(
            "SELECT head, changed FROM readers JOIN chains ON chains.chat = readers.chat"
            " WHERE peer = ? AND readers.chat > ? AND readers.chat <= ?",
            (peer, after, last),
        ).fetchall()
        return convert(rows, list[tuple[bytes, int]]), int(last)

    def _former_heads(self, peer: bytes) -> list[tuple[bytes, int]]:
        rows = self.connection.execute(
            "SELECT entries.id, changed FROM former JOIN departures ON no = departure"
            " JOIN entries ON place = (chain << 32 | length - 1) WHERE peer = ?",
            (peer,),
        ).fetchall()
        return convert(rows, list[tuple[bytes, int]])

    def newest_change(self) -> int:
        """Return the change counter."""
        return int(self.connection.execute(NEWEST_CHANGE).get)

    def cursor(self, peer: bytes) -> tuple[bytes | None, int]:
        """Return the incarnation of a peer and how far we have seen its changes."""
        row = self.connection.execute(
            "SELECT incarnation, cursor FROM cursors WHERE peer = ?", (peer,)
        ).fetchone()
        return (None, 0) if row is None else (row[0], row[1])

    def save_cursor(self, peer: bytes, incarnation: bytes, cursor: int) -> None:
        """Keep how far we have seen a peer's changes."""
        self.connection.execute(
            "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (peer) DO UPDATE"
            " SET incarnation = excluded.incarnation, cursor = excluded.cursor",
            (peer, incarnation, cursor),
        )

    def note_unheard(self, peer: bytes, heads: Iterable[tuple[StoredChat, Head]]) -> None:
        """Remember what a peer listed of chats that it may not see; of too much, the newest.

        Of a chain as many heads as it may have branches: each may be one.
        """
        self.connection.executemany(
            "INSERT OR REPLACE INTO unheard VALUES (?, ?, ?, ?, ?, ?)",
            [
                (peer, chat.no, head.device, head.lane, head.seq, head.prefix)
                for chat, head in heads
            ],
        )
        self.connection.execute(
            "DELETE FROM unheard WHERE rowid IN (SELECT rowid FROM (SELECT rowid,"
            " row_number() OVER (PARTITION BY chat, device, lane ORDER BY rowid DESC) AS of_chain,"
            " row_number() OVER (ORDER BY rowid DESC) AS of_all FROM unheard WHERE peer = ?)"
            " WHERE of_chain > ? OR of_all > ?)",
            (peer, BRANCHES_MAX, UNHEARD_MAX),
        )

    def unheard(self, peer: bytes) -> tuple[ChatHeads, ...]:
        """Return what a peer listed of chats before it was let into them."""
        rows = self.connection.execute(
            "SELECT 0, id, device, lane, seq, prefix FROM unheard JOIN readers USING (peer, chat)"
            " JOIN chats ON no = chat WHERE peer = ?",
            (peer,),
        ).fetchall()
        return _listed(rows)

    def forget_unheard(self, peer: bytes, heads: Iterable[tuple[ChatId, Head]]) -> None:
        """What a peer listed of these is here."""
        self.connection.executemany(
            "DELETE FROM unheard WHERE peer = ? AND device = ? AND lane = ? AND seq = ?"
            " AND prefix = ? AND chat = (SELECT no FROM chats WHERE id = ?)",
            [(peer, head.device, head.lane, head.seq, head.prefix, chat) for chat, head in heads],
        )

    def note_holdings(self, chat: StoredChat, holdings: Iterable[Holding]) -> None:
        """Keep which agency stores how much of a chat's chains."""
        self.connection.executemany(
            "INSERT INTO holdings VALUES (?, ?, ?, ?, ?) ON CONFLICT (device, chat, lane, agency)"
            " DO UPDATE SET length = max(length, excluded.length)",
            [(chat.no, h.device, h.lane, h.agency, h.seq + 1) for h in holdings],
        )

    def length_there(self, chat: StoredChat, head: Head, agency: bytes) -> int:
        """Return how much of a chain an agency is known to store."""
        found = self.connection.execute(
            "SELECT length FROM holdings WHERE device = ? AND chat = ? AND lane = ? AND agency = ?",
            (head.device, chat.no, head.lane, agency),
        ).get
        return int(found or 0)

    def holdings(self, device: DeviceKey) -> list[Holding]:
        """Return which agencies store how much of a device's own chains."""
        rows = self.connection.execute(
            "SELECT agency, id, device, lane, length - 1 FROM holdings JOIN chats ON no = chat"
            " WHERE device = ?",
            (device,),
        )
        return [Holding(*row) for row in rows]

    def stored_of(self, device: DeviceKey, agency: bytes) -> list[Holding]:
        """Return how much of a device's own chains is stored here, as this agency says it.

        Of chats that it has left, too: else it waits for ever to hear that this is stored.
        """
        rows = self.connection.execute(
            "SELECT ?, id, device, lane, max(length) - 1 FROM chains JOIN chats ON chats.no = chat"
            " WHERE device = ? AND length > 0 GROUP BY chat, lane",
            (agency, device),
        )
        return [Holding(*row) for row in rows]

    def keep_fork(self, chat: StoredChat, fork: Fork) -> bool:
        """Keep a proof; return whether it was new. A few of one chain are enough."""
        known = self.connection.execute(
            "SELECT count(*) FROM forks WHERE chat = ? AND device = ? AND lane = ?",
            (chat.no, fork.device, fork.lane),
        ).get
        if known >= BRANCHES_MAX:
            return False
        self.connection.execute(
            "INSERT INTO forks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (chat.no, fork.device, fork.lane, fork.seq, fork.proof),
        )
        return bool(self.connection.changes())

    def forks(self, chat: StoredChat) -> list[bytes]:
        """Return the proofs of a chat."""
        rows = self.connection.execute("SELECT proof FROM forks WHERE chat = ?", (chat.no,))
        return [row[0] for row in rows]

    def keep_seals(self, epoch: EntryId, seals: Iterable[Seal]) -> list[Seal]:
        """Keep seals that were checked against their epoch; return those that are new here."""
        new = []
        for seal in seals:
            self.connection.execute(
                "INSERT INTO seals VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (epoch, seal.index, seal.seal, b"".join(seal.path)),
            )
            if self.connection.changes():
                new.append(seal)
        return new

    def seals(self, epoch: EntryId, positions: Iterable[int]) -> list[Seal]:
        """Return the seals that are here, of these recipients."""
        found = []
        for position in positions:
            row = self.connection.execute(
                "SELECT seal, path FROM seals WHERE epoch = ? AND position = ?", (epoch, position)
            ).fetchone()
            if row is not None:
                path = row[1]
                steps = range(0, len(path), HASH_BYTES)
                hashes = tuple(path[at : at + HASH_BYTES] for at in steps)
                found.append(Seal(position, row[0], hashes))
        return found

    def note_sealless(self, chat: StoredChat, epoch: EntryId) -> None:
        """Remember an epoch whose seals have yet to come."""
        self.connection.execute(
            "INSERT INTO sealless VALUES (?, ?) ON CONFLICT DO NOTHING", (epoch, chat.no)
        )

    def next_sealless(self) -> int:
        """Return the number that the next epoch whose seals have yet to come will have."""
        return int(self.connection.execute("SELECT ifnull(max(rowid), 0) + 1 FROM sealless").get)

    def forget_sealless(self, epoch: EntryId) -> None:
        """All seals of an epoch that concern us are here."""
        self.connection.execute("DELETE FROM sealless WHERE epoch = ?", (epoch,))

    def sealless(self, peer: bytes, before: int) -> list[tuple[int, ChatId, EntryId]]:
        """Return epochs of this peer's chats whose seals have yet to come, newest first.

        Each with its number; only those with a number below `before`, and only so many.
        """
        rows = self.connection.execute(
            "SELECT sealless.rowid, id, epoch"
            " FROM sealless JOIN readers USING (chat) JOIN chats ON no = chat"
            " WHERE peer = ? AND sealless.rowid < ? ORDER BY sealless.rowid DESC LIMIT ?",
            (peer, before, SEALLESS_ASKED_MAX),
        )
        return [(number, ChatId(chat), EntryId(epoch)) for number, chat, epoch in rows]


def _listed(rows: Sequence[tuple[object, ...]]) -> tuple[ChatHeads, ...]:
    chats: dict[ChatId, list[Head]] = {}
    for chat, head in convert([(row[1], row[2:]) for row in rows], list[tuple[ChatId, Head]]):
        chats.setdefault(chat, []).append(head)
    return tuple(ChatHeads(chat, tuple(heads)) for chat, heads in chats.items())
