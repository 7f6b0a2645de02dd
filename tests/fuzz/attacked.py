"""A replica in memory in a session with somebody hostile: what a driver does, without any I/O."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from protocol.effect import (
    Admit,
    Compare,
    Effect,
    LoadChanges,
    LoadHeads,
    LoadRun,
    SaveCursor,
    StoreFork,
    Survey,
)
from protocol.fork import verify_fork
from protocol.frame import Run, decode_frame
from protocol.limits import (
    HEADS_CHAINS_MAX,
    HELD_BYTES_MAX,
    HELD_ENTRIES_MAX,
    HELD_RUNS_MAX,
    PAGES_OPEN_MAX,
    RECON_PENDING_MAX,
    REFUSALS_MAX,
    SEALS_SERVED_MAX,
    WANTS_OUTSTANDING_MAX,
    WANTS_SERVED_MAX,
)
from protocol.reconcile import tabulate
from protocol.session import Greeting, PeerKind, Session
from protocol.testing.cast import seed
from protocol.testing.network import Replica

THEIRS: Final = seed("theirs")[:16]
SALT: Final = seed("salt")[:16]


class Attacked:
    """The replica and its newest session."""

    def __init__(self, kind: PeerKind) -> None:
        self.replica = Replica("attacked")
        self.kind = kind
        self.now = 0.0
        self.pending: deque[tuple[Run, ...]] = deque()
        self.session = self._begun()

    def _begun(self) -> Session:
        seen_incarnation, seen = self.replica.cursors.get(THEIRS, (None, 0))
        greeting = Greeting(self.replica.incarnation, seen_incarnation, seen, SALT)
        return Session(self.kind, greeting, self.now)

    def connect(self) -> None:
        """Forget the session, as both sides do when a connection ends."""
        self.pending.clear()
        self.session = self._begun()
        self.perform(self.session.start(self.now))

    def hear(self, raw: bytes) -> None:
        self.perform(self.session.receive(decode_frame(raw), self.now))

    def store(self) -> None:
        """Let the oldest runs that wait become durable."""
        if self.pending:
            runs = self.pending.popleft()
            judged = list(zip(runs, self.replica.take(*runs), strict=True))
            self.perform(self.session.admitted(judged, (), self.now))

    def serve(self) -> None:
        self.perform(self.session.idle())

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.session.expired(self.now))

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Admit(runs):
                    self.pending.append(runs)
                case Compare(chats):
                    wants = self.replica.compare(chats)
                    self.perform(self.session.compared(wants, self.now))
                case LoadHeads() | LoadChanges() | Survey():
                    self._list(effect)
                case LoadRun(want):
                    self.perform(self.session.loaded(want, self.replica.serve(want)))
                case StoreFork(forked) if forked.chat in self.replica.chats:
                    if verify_fork(forked.proof).chat == forked.chat:
                        self.replica.keep_fork(forked)
                case SaveCursor(incarnation, cursor):
                    self.replica.cursors[incarnation] = (incarnation, cursor)
                case _:
                    pass  # what is sent, and what concerns no chain

    def _list(self, effect: LoadHeads | LoadChanges | Survey) -> None:
        match effect:
            case LoadHeads(cursor):
                self.perform(self.session.heads(self.replica.heads_since(cursor)))
            case LoadChanges(numbers):
                self.perform(self.session.changes(self.replica.heads_at(numbers)))
            case Survey(key):
                table = tabulate(key, self.replica.heads(), self.replica.changes)
                self.perform(self.session.surveyed(table, self.now))


def check_bounds(session: Session) -> None:
    """What is remembered of a peer is bounded (SPEC 6.6)."""
    intake = session._intake
    assert len(intake._pages) <= PAGES_OPEN_MAX
    assert len(intake._asked) <= WANTS_OUTSTANDING_MAX
    assert len(intake._held) <= HELD_RUNS_MAX
    assert intake._held.entries <= HELD_ENTRIES_MAX
    assert intake._held.bytes <= HELD_BYTES_MAX
    assert intake._refusals <= REFUSALS_MAX + 1
    queued = sum(len(wants) for lane in intake._queued.values() for wants in lane.values())
    assert queued <= PAGES_OPEN_MAX * HEADS_CHAINS_MAX + HELD_RUNS_MAX
    assert len(session._serving._runs) <= WANTS_SERVED_MAX + 1
    assert len(session._unseen) <= PAGES_OPEN_MAX
    assert len(session._serving._seals) <= session._serving._seal_devices <= SEALS_SERVED_MAX
    ours = session._audits._on
    assert ours is None or len(ours._pending) <= RECON_PENDING_MAX
