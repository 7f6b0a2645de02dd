"""Witness of directories: what agencies showed us, held against what they showed others (SPEC 7.5).

    head = witness.own_head(agency, now)              # ours, signed anew if users have changed
    witness.agrees(raw)                               # somebody's; False: now there is a proof
    witness.compared(asked)                           # what a peer must hear of what it has seen

The same tables serve nodes and devices. Calls that write run inside a transaction of the caller's.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import apsw
import structlog
from msgspec import convert

from crypto import merkle
from node.agency import Agency
from node.people import LISTED
from protocol.grant import verified
from protocol.identity import AgencyId, VerifiedUser
from protocol.listing import (
    Head,
    Listing,
    Split,
    contradiction,
    leaf_of,
    sign_head,
    verify_head,
    verify_split,
)
from protocol.question import Seen
from protocol.question import Witness as Asked
from protocol.reply import Witnessed
from protocol.topic import HEADS_SHOWN_MAX, SPLITS_MAX

log = structlog.get_logger()

SPLITS_AGENCY_MAX: Final = 8  # proofs against keys of one agency; guess
HEADS_KEPT_MAX: Final = 16 * 1024  # of one agency: four hours at least, at the most that is taken

# From one agency to the next, so that it takes as long as there are agencies, not heads.
NEWEST_HEADS = """
WITH RECURSIVE known (agency) AS (
    SELECT min(agency) FROM directories
    UNION ALL
    SELECT (SELECT min(agency) FROM directories WHERE agency > known.agency) FROM known
        WHERE known.agency IS NOT NULL)
SELECT directories.agency, serial, id FROM known CROSS JOIN directories
    ON directories.agency = known.agency
    AND serial = (SELECT max(serial) FROM directories WHERE agency = known.agency)
    ORDER BY 1
"""
HEAD_AT_OR_NEWEST = """
SELECT id, head FROM directories WHERE agency = ?1 AND serial = ifnull(
    (SELECT serial FROM directories WHERE agency = ?1 AND serial = ?2),
    (SELECT max(serial) FROM directories WHERE agency = ?1 AND serial > ?2))
"""


class _Tree(NamedTuple):
    """The paths of one state of our own directory, so that it is hashed once."""

    head: Head
    places: Mapping[bytes, int]
    paths: Sequence[Sequence[bytes]]


class Witness:
    """The directory heads, and the proofs against agencies, in a database."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._tree: _Tree | None = None
        self._kept: dict[AgencyId, int] = {}  # heads, or more after a rollback

    # Our own directory

    def own_head(self, agency: Agency, now: float) -> Head:
        """Return the head of our directory as it stands; sign a new one if it has changed.

        now: seconds UTC.
        """
        return self._own_tree(agency, now).head

    def listing(self, agency: Agency, user: VerifiedUser, now: float) -> Listing:
        """Return where one of our users stands in our directory."""
        tree = self._own_tree(agency, now)
        index = tree.places[leaf_of(user)]
        return Listing(tree.head.raw, index, tuple(tree.paths[index]))

    def _own_tree(self, agency: Agency, now: float) -> _Tree:
        last = self.latest(agency.id)
        charter = agency.card.charter
        current = last is not None and last.charter.raw == charter.raw and self._is_listed()
        if self._tree is not None and current and self._tree.head == last:
            return self._tree
        leaves = self._leaves(agency.id)
        if last is None or last.charter.raw != charter.raw or last.root != merkle.root(leaves):
            last = sign_head(agency.registrar, charter, last, leaves, int(now * 1000))
            self._insert(last)
        self.connection.execute("INSERT OR IGNORE INTO meta VALUES (?, 1)", (LISTED,))
        places = {leaf: at for at, leaf in enumerate(leaves)}
        self._tree = _Tree(last, places, merkle.paths(leaves))
        return self._tree

    def _is_listed(self) -> bool:
        found = self.connection.execute("SELECT 1 FROM meta WHERE key = ?", (LISTED,)).get
        return found is not None

    def _leaves(self, agency: AgencyId) -> list[bytes]:
        rows = self.connection.execute(
            "SELECT users.charter, users.certificate, devices.certificate FROM users"
            " JOIN devices ON user = users.id WHERE agency = ? AND revoked = 0"
            " ORDER BY users.id, devices.id",
            (agency,),
        )
        listed: dict[tuple[bytes, bytes], list[bytes]] = {}
        for charter, certificate, device in rows:
            listed.setdefault((charter, certificate), []).append(device)
        return sorted(leaf_of(verified(*user, devices).user) for user, devices in listed.items())

    # What agencies showed us, or showed others

    def latest(self, agency: AgencyId) -> Head | None:
        """Return the head of the highest number that we have seen of an agency."""
        raw = self.connection.execute(
            "SELECT head FROM directories WHERE agency = ? ORDER BY serial DESC LIMIT 1", (agency,)
        ).get
        return None if raw is None else verify_head(raw)

    def seen(self) -> tuple[Seen, ...]:
        """Say which newest head of each agency we have seen."""
        rows = self.connection.execute(NEWEST_HEADS).fetchall()
        return tuple(convert(rows, list[Seen]))

    def agrees(self, raw: bytes) -> bool:
        """Keep a head that somebody showed; if it contradicts another, keep the proof instead.

        Raises what `verify_head` raises.
        """
        head = verify_head(raw)
        rows = self.connection.execute(
            "SELECT head FROM directories WHERE agency = ? AND serial BETWEEN ? AND ?",
            (head.agency, head.serial - 1, head.serial + 1),
        ).fetchall()
        for (known,) in convert(rows, list[tuple[bytes]]):
            split = None if known == raw else contradiction(head, verify_head(known))
            if split is not None:
                self.keep_split(split)
                return False
        self._insert(head)
        return True

    def _insert(self, head: Head) -> None:
        """Keep a head. Of too many the oldest go: what contradicts them was shown long ago."""
        known = self._kept.get(head.agency)
        if known is None:
            known = self.connection.execute(
                "SELECT count(*) FROM directories WHERE agency = ?", (head.agency,)
            ).get
        self.connection.execute(
            "INSERT OR IGNORE INTO directories VALUES (?, ?, ?, ?)",
            (head.agency, head.serial, head.id, head.raw),
        )
        kept = int(known) + self.connection.changes()
        if kept > HEADS_KEPT_MAX + HEADS_SHOWN_MAX:
            self.connection.execute(
                "DELETE FROM directories WHERE agency = ?1 AND serial <= (SELECT serial"
                " FROM directories WHERE agency = ?1 ORDER BY serial DESC LIMIT 1 OFFSET ?2)",
                (head.agency, HEADS_KEPT_MAX),
            )
            kept = HEADS_KEPT_MAX
        self._kept[head.agency] = kept

    def reach(self, agency: AgencyId) -> tuple[int, int]:
        """Return the number up to which no head is missing since the first seen, and the newest."""
        row = self.connection.execute(
            "SELECT min(serial) FILTER (WHERE NOT EXISTS (SELECT 1 FROM directories AS next"
            " WHERE next.agency = one.agency AND next.serial = one.serial + 1)), max(serial)"
            " FROM directories AS one WHERE agency = ?",
            (agency,),
        ).fetchone()
        return (0, 0) if row is None or row[1] is None else (int(row[0]), int(row[1]))

    def after(self, agency: AgencyId, serial: int) -> tuple[bytes, ...]:
        """Return the heads of an agency that follow a number, as many as one answer holds."""
        rows = self.connection.execute(
            "SELECT head FROM directories WHERE agency = ? AND serial > ? ORDER BY serial LIMIT ?",
            (agency, serial, HEADS_SHOWN_MAX),
        )
        return tuple(row[0] for row in rows)

    def question(self, answerer: AgencyId) -> Asked:
        """Return what to ask an agency's node, with its newest head: it may have lost that."""
        newest = self.latest(answerer)
        return Asked(self.seen(), self.proofs(), None if newest is None else newest.raw)

    def compared(self, asked: Asked) -> Witnessed:
        """Answer what a peer must hear of what it has seen: other heads, newer ones, proofs."""
        heads: list[bytes] = []
        for agency, serial, known in asked.seen:
            rows = self.connection.execute(HEAD_AT_OR_NEWEST, (agency, serial)).fetchall()
            found = convert(rows, list[tuple[bytes, bytes]])
            heads += [raw for head, raw in found if head != known]
        return Witnessed(tuple(heads[:HEADS_SHOWN_MAX]), self.proofs())

    # Proofs

    def keep_split(self, split: Split) -> bool:
        """Keep a proof against an agency, one for each registrar key; return whether it is new.

        An agency can make as many keys, and proofs, as it likes: a few say that its root is in bad
        hands, and then no key of it is believed.
        """
        self.connection.execute(
            "INSERT OR IGNORE INTO splits SELECT ?1, ?2, ?3"
            " WHERE (SELECT count(*) FROM splits WHERE agency = ?1) < ?4",
            (split.agency, split.registrar, split.raw, SPLITS_AGENCY_MAX),
        )
        new = bool(self.connection.changes())
        if new:
            log.error("an agency shows different directories", agency=split.agency.hex()[:16])
        return new

    def proofs(self) -> tuple[bytes, ...]:
        """Return the proofs that we hold, of too many one of each agency, then a second."""
        rows = self.connection.execute(
            "SELECT proof FROM splits ORDER BY row_number() OVER (PARTITION BY agency), agency"
            " LIMIT ?",
            (SPLITS_MAX,),
        )
        return tuple(row[0] for row in rows)

    def split(self, agency: AgencyId, registrar: bytes) -> Split | None:
        """Return the proof against an agency that concerns its present registrar key, or all."""
        raw = self.connection.execute(
            "SELECT proof FROM splits WHERE agency = ?1 AND (registrar = ?2 OR"
            " (SELECT count(*) FROM splits WHERE agency = ?1) >= ?3) LIMIT 1",
            (agency, registrar, SPLITS_AGENCY_MAX),
        ).get
        return None if raw is None else verify_split(raw)
