"""One-time invitations that a node gave out, and what their holders asked (SPEC 5.3, 7.3).

The ticket itself needs no secret comparison: TLS has proved that the peer holds the key of the
certificate that names it.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import apsw

from node.errors import LimitReached, RefusedError
from protocol.invitation import Purpose
from protocol.topic import LINKS_PENDING_MAX

KEEP_MS: Final = 24 * 3600 * 1000  # after the end, for an answer that was lost on the way
_UNUSABLE: Final = (
    "this invitation has been used, is over, or was never given out; ask for a new one"
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """An invitation that is not over. name: of the user, without the agency; request: raw."""

    id: bytes = field(repr=False)
    purpose: Purpose
    name: str
    request: bytes | None = field(repr=False)
    used: bool


class Tickets:
    """The tickets of a database. Times are milliseconds."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def find(self, ticket: bytes, purposes: Collection[Purpose], now: int) -> Ticket:
        """Return a ticket. Raises RefusedError, with one text whatever is wrong with it."""
        row = self.connection.execute(
            "SELECT id, purpose, name, request, used FROM tickets WHERE id = ? AND expires > ?",
            (ticket, now),
        ).fetchone()
        if row is None or row[1] not in purposes:
            raise RefusedError(_UNUSABLE)
        return Ticket(row[0], Purpose(row[1]), row[2], row[3], bool(row[4]))

    def keep(self, ticket: bytes, purpose: Purpose, name: str, expires: int, now: int) -> None:
        """Keep a new ticket. Raises LimitReached if too many links of this user are open."""
        self.connection.execute("DELETE FROM tickets WHERE expires < ?", (now - KEEP_MS,))
        if purpose is Purpose.LINK and self._open_links(name, now) >= LINKS_PENDING_MAX:
            raise LimitReached(
                f"{LINKS_PENDING_MAX} invitations for further devices are open; use one of them, "
                "or wait until they are over"
            )
        self.connection.execute(
            "INSERT INTO tickets (id, purpose, name, expires) VALUES (?, ?, ?, ?)",
            (ticket, purpose, name, expires),
        )

    def _open_links(self, name: str, now: int) -> int:
        return int(
            self.connection.execute(
                "SELECT count(*) FROM tickets"
                " WHERE purpose = ? AND name = ? AND expires > ? AND used = 0",
                (Purpose.LINK, name, now),
            ).get
        )

    def note(self, ticket: Ticket, request: bytes) -> None:
        """Keep what the holder asks. Raises RefusedError if another was here before."""
        if ticket.request not in (None, request):
            raise RefusedError(_UNUSABLE)
        self.connection.execute("UPDATE tickets SET request = ? WHERE id = ?", (request, ticket.id))

    def use(self, ticket: Ticket) -> None:
        """Use a ticket up."""
        self.connection.execute("UPDATE tickets SET used = 1 WHERE id = ?", (ticket.id,))

    def pending(self, name: str, now: int) -> list[Ticket]:
        """Return the links of a user that were asked for and wait for approval."""
        rows = self.connection.execute(
            "SELECT id, name, request FROM tickets WHERE purpose = ? AND name = ?"
            " AND expires > ? AND used = 0 AND request IS NOT NULL ORDER BY id",
            (Purpose.LINK, name, now),
        )
        return [Ticket(row[0], Purpose.LINK, row[1], row[2], used=False) for row in rows]

    def withdraw(self, name: str) -> int:
        """Make all unused tickets of a user worthless; return how many."""
        self.connection.execute("DELETE FROM tickets WHERE name = ? AND used = 0", (name,))
        return self.connection.changes()


def check_repeated(ticket: Ticket, request: bytes) -> None:
    """Let the holder of a used ticket ask the very same again, because the answer may be lost."""
    if ticket.request != request:
        raise RefusedError(_UNUSABLE)
