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
from node.errors import RefusedError
from node.people import LISTED
from protocol.identity import AgencyId, Charter, VerifiedUser
from protocol.limits import SEQ_MAX
from protocol.listing import (
    Head,
    Listing,
    Split,
    contradiction,
    leaf,
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
HEADS_KEPT_MAX: Final = 16 * 1024  # of one agency: three hours at least, at the most that is taken

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
OTHER_OR_NEWER_HEAD = """
SELECT head FROM directories WHERE agency = ?1 AND serial = ifnull(
    (SELECT serial FROM directories WHERE agency = ?1 AND serial = ?2 AND id != ?3),
    (SELECT max(serial) FROM directories WHERE agency = ?1 AND serial > ?2))
"""


REKEY: Final = (
    "nobody believes what it lists before the root key's holder has run 'ivor agency rekey' again, "
    "and the node was restarted"
)


def replaced(charter: Charter, by: Charter) -> bool:
    """Whether a newer charter of an agency has another registrar key."""
    return by.serial > charter.serial and by.registrar != charter.registrar


class _Tree(NamedTuple):
    """The paths of one state of our own directory, so that it is hashed once."""

    head: Head
    places: Mapping[bytes, int]
    paths: Sequence[Sequence[bytes]]


class Witness:
    """The directory heads, and the proofs against agencies, in a database."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.signed = 0  # heads of ours, or more after a rollback
        self._tree: _Tree | None = None
        self._kept: dict[AgencyId, int] = {}  # heads, or more after a rollback

    # Our own directory

    def own_head(self, agency: Agency, now: float, unmet: Sequence[str] = ()) -> Head:
        """Return the head of our directory as it stands; sign a new one if it has changed.

        now: seconds UTC. unmet: the names of agencies that may have later heads of ours. Raises
        RefusedError if these are in the way of another head.
        """
        return self._own_tree(agency, now, unmet).head

    def listing(
        self, agency: Agency, user: VerifiedUser, now: float, unmet: Sequence[str]
    ) -> Listing:
        """Return where one of our users stands in our directory; as `own_head`."""
        tree = self._own_tree(agency, now, unmet)
        index = tree.places[leaf_of(user)]
        return Listing(tree.head.raw, index, tuple(tree.paths[index]))

    def _own_tree(self, agency: Agency, now: float, unmet: Sequence[str]) -> _Tree:
        last = self.latest(agency.id)
        charter = agency.card.charter
        current = last is not None and last.charter.raw == charter.raw and self._is_listed()
        if self._tree is not None and current and self._tree.head == last:
            return self._tree
        leaves = self._leaves(agency.id)
        if last is None or last.charter.raw != charter.raw or last.root != merkle.root(leaves):
            last = self._next(agency, last, leaves, now, unmet)
        self.connection.execute("INSERT OR IGNORE INTO meta VALUES (?, 1)", (LISTED,))
        places = {leaf: at for at, leaf in enumerate(leaves)}
        self._tree = _Tree(last, places, merkle.paths(leaves))
        return self._tree

    def _next(
        self,
        agency: Agency,
        last: Head | None,
        leaves: Sequence[bytes],
        now: float,
        unmet: Sequence[str],
    ) -> Head:
        """Sign another head; none while somebody may have one of its number, by the same key."""
        charter = agency.card.charter
        if last is not None and replaced(charter, last.charter):
            raise RefusedError(
                f"this node was brought back with a registrar key that was replaced: {REKEY}"
            )
        if unmet and (last is None or last.charter.registrar == charter.registrar):
            if last is not None and last.root == merkle.root(leaves):
                return last
            raise RefusedError(
                "this node was brought back with older users than it showed to others; it lists "
                f"them again when it has met {', '.join(unmet)}; if that is not possible any more, "
                "the operator runs 'ivor node resume'"
            )
        last = self.before(charter)
        head = sign_head(agency.registrar, charter, last, leaves, int(now * 1000))
        self._insert(head)
        self.signed += 1
        return head

    def before(self, charter: Charter) -> Head | None:
        """Return the head that the next one of an agency under a charter of its own follows."""
        last = self.latest(charter.agency)
        if last is None or not replaced(last.charter, charter):
            return last
        return self._at(charter.agency, self.reach(charter.agency)[0])

    def _is_listed(self) -> bool:
        found = self.connection.execute("SELECT 1 FROM meta WHERE key = ?", (LISTED,)).get
        return found is not None

    def _leaves(self, agency: AgencyId) -> list[bytes]:
        rows = self.connection.execute(
            "SELECT users.id, name, devices.id FROM users"
            " JOIN devices ON user = users.id WHERE agency = ? AND revoked = 0"
            " ORDER BY users.id, devices.id",
            (agency,),
        )
        listed: dict[tuple[bytes, str], list[bytes]] = {}
        for user, name, device in rows:
            listed.setdefault((user, name), []).append(device)
        return sorted(leaf(*user, devices) for user, devices in listed.items())

    # What agencies showed us, or showed others

    def latest(self, agency: AgencyId) -> Head | None:
        """Return the head of the highest number that we have seen of an agency."""
        return self._at(agency, SEQ_MAX)

    def _at(self, agency: AgencyId, serial: int) -> Head | None:
        """Return the head of a number, or the next smaller one that we have seen."""
        raw = self.connection.execute(
            "SELECT head FROM directories WHERE agency = ? AND serial <= ?"
            " ORDER BY serial DESC LIMIT 1",
            (agency, serial),
        ).get
        return None if raw is None else verify_head(raw)

    def seen(self) -> tuple[Seen, ...]:
        """Say which newest head of each agency we have seen."""
        rows = self.connection.execute(NEWEST_HEADS).fetchall()
        return tuple(convert(rows, list[Seen]))

    def agrees(self, raw: bytes) -> bool:
        """Keep a head that somebody showed; if it contradicts another, keep the proof instead.

        Where heads of a registrar key begin, those end of the keys that it replaced. Raises what
        `verify_head` raises.
        """
        head = verify_head(raw)
        rows = self.connection.execute(
            "SELECT head FROM directories WHERE agency = ? AND serial BETWEEN ? AND ?",
            (head.agency, head.serial - 1, head.serial + 1),
        ).fetchall()
        for (known,) in convert(rows, list[tuple[bytes]]):
            other = verify_head(known)
            split = contradiction(head, other)
            if split is not None:
                self.keep_split(split)
                if not replaced(other.charter, head.charter):
                    return False
        before = self._at(head.agency, head.serial)
        if before is not None and replaced(head.charter, before.charter):
            return False
        self._insert(head)
        return True

    def _insert(self, head: Head) -> None:
        """Keep a head. Of too many the oldest go: what contradicts them was shown long ago."""
        self._supersede(head)
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

    def _supersede(self, head: Head) -> None:
        """Drop what registrar keys that it replaced have signed of this number and those after."""
        last = None
        for serial, raw in self.connection.execute(
            "SELECT serial, head FROM directories WHERE agency = ? AND serial >= ? ORDER BY serial",
            (head.agency, head.serial),
        ):
            if not replaced(verify_head(raw).charter, head.charter):
                break
            last = serial
        self.connection.execute(
            "DELETE FROM directories WHERE agency = ? AND serial BETWEEN ? AND ?",
            (head.agency, head.serial, last),
        )

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

    def news(self, agency: AgencyId) -> Asked | None:
        """Return what shows a peer the newest head of our directory; None if there is none."""
        head = self.latest(agency)
        return None if head is None else Asked((Seen(agency, head.serial, head.id),), (), head.raw)

    def question(self, answerer: AgencyId) -> Asked:
        """Return what to ask an agency's node, with its newest head: it may have lost that."""
        newest = self.latest(answerer)
        return Asked(self.seen(), self.proofs(), None if newest is None else newest.raw)

    def compared(self, asked: Asked, asker: bytes) -> Witnessed:
        """Answer what a peer must hear of what it has seen: other heads, newer ones, proofs.

        First of its own directory: if it was brought back it goes on from there.
        """
        heads: list[bytes] = []
        for seen in sorted(asked.seen, key=lambda one: one.agency != asker):
            heads += [row[0] for row in self.connection.execute(OTHER_OR_NEWER_HEAD, seen)]
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
