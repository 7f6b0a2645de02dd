"""Which reconciliation of a session is on, whose turn it is, when the next is due (SPEC 6.3).

One follows the greeting where a side does not know how far it is with the other; later ones are
audits. They are numbered, and have each a key that nobody knew before the session began.

    audits = Audits(our_salt)
    audits.greeted(their_salt)
    survey = audits.begin()            # gather a table with its key
    turn = audits.surveyed(table)      # what to say now; a turn that ends it says what was found
    turn = audits.heard(frame)         # the peer's turn
    audits.plan(now)                   # the next one; `due` begins it
"""

from typing import NamedTuple

from protocol.effect import Effect, Send, Survey
from protocol.errors import OutOfTurn
from protocol.frame import Recon
from protocol.intake import NEVER
from protocol.limits import RECON_AUDIT_SECONDS
from protocol.reconcile import Reconciliation, Table, recon_key


class Turn(NamedTuple):
    """What a turn leads to. ended: the reconciliation that is over with it, None for none."""

    effects: list[Effect]
    ended: Reconciliation | None = None


class Audits:
    """The reconciliations of one session, one after the other. salt: ours, drawn for it."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._peer_salt = b""
        self._number = 0
        self._surveying = False
        self._on: Reconciliation | None = None
        self._waits: Recon | None = None
        self._due = NEVER

    def greeted(self, salt: bytes) -> None:
        """Take the peer's salt."""
        self._peer_salt = salt

    @property
    def _begins(self) -> bool:
        """Whether it is for us to say the first word."""
        return self._salt < self._peer_salt

    def _key(self) -> bytes:
        return recon_key(self._salt, self._peer_salt, self._number)

    def plan_first(self, now: float) -> None:
        """Let the first audit be due after a part of a day, so that short sessions have some."""
        part = int.from_bytes(self._key()[:8], "big") / 2**64
        self._plan(now + part * RECON_AUDIT_SECONDS)

    def plan(self, now: float) -> None:
        """Let the next audit be due in a day."""
        self._plan(now + RECON_AUDIT_SECONDS)

    def _plan(self, at: float) -> None:
        self._due = at if self._begins else NEVER

    def begin(self) -> Survey:
        """Have what the peer may see gathered, for the reconciliation that is on now."""
        self._surveying = True
        return Survey(self._key())

    def due(self, now: float) -> list[Effect]:
        """Begin the next audit, if it is time."""
        if self._due > now:
            return []
        self._due = NEVER
        self._number += 1
        return [self.begin()]

    def surveyed(self, table: Table) -> Turn:
        """Take the answer to Survey."""
        self._surveying = False
        self._on = Reconciliation(table)
        if self._begins:
            return Turn([Send(self._on.begin(self._number))])
        waits, self._waits = self._waits, None
        return Turn([]) if waits is None else self._take(self._on, waits)

    def heard(self, frame: Recon) -> Turn:
        """Take a turn, now or when our own survey is done; a new number asks for an audit.

        Raises OutOfTurn, and LimitExceeded, for a peer that breaks SPEC.
        """
        if self._on is not None and frame.number == self._number:
            return self._take(self._on, frame)
        idle = self._on is None and self._waits is None and not self._begins
        audit = frame.number == self._number + 1 and not self._surveying
        if not idle or not (audit or (frame.number == self._number and self._surveying)):
            raise OutOfTurn(f"turn of a reconciliation {frame.number} that is not on (SPEC 6.3)")
        self._waits = frame
        if not audit:
            return Turn([])
        self._number = frame.number
        return Turn([self.begin()])

    def _take(self, ours: Reconciliation, frame: Recon) -> Turn:
        reply = ours.answer(frame)
        if ours.over:
            self._on = None
        return Turn([] if reply is None else [Send(reply)], ours if ours.over else None)
