"""One side of a connection between two replicas (SPEC 6).

Each side tells which heads changed since the other last looked, asks for what it lacks, and serves
what it is asked for. Where the other does not know how far it is, they reconcile first, and only
what the other lacks is told. New entries are pushed as short runs; what a push leaves open, the
next page of heads repairs, so pushing only lowers latency.

    session = Session(peer_kind, greeting, now)
    effects = session.start(now)
    effects = session.receive(frame, now)      # for each frame that arrives
    effects = session.idle()                   # when nothing waits to be sent: the next work
    effects = session.expired(now)             # when a Wake is due

Does no I/O, never waits. What it remembers of a peer is bounded by `limits`.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from protocol.audit import Audits, Turn
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Consult,
    Deliver,
    Effect,
    Gossip,
    LoadChanges,
    LoadHeads,
    NoteHoldings,
    NoteShared,
    Preview,
    SaveCursor,
    Send,
    StoreFork,
    StoreSeals,
    TakeChunk,
    Wake,
)
from protocol.entry import ChatId
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import (
    Absent,
    Answer,
    Ask,
    Blob,
    Bye,
    ChatHeads,
    Error,
    Forked,
    Frame,
    Graft,
    Have,
    Head,
    Heads,
    Hello,
    Holding,
    IHave,
    Lacking,
    Ping,
    Pong,
    Prune,
    Recon,
    Rumour,
    Run,
    Seals,
    Seen,
    Want,
    WantBlob,
    WantSeals,
)
from protocol.intake import NEVER, Intake, Outcome
from protocol.limits import (
    HEADS_CHAINS_MAX,
    HEADS_DELAY_SECONDS,
    HELLO_TIMEOUT_SECONDS,
    IDLE_CLOSE_SECONDS,
    IDLE_PING_SECONDS,
    LEAF_CLOSE_SECONDS,
    LEAF_PING_SECONDS,
    PAGES_OPEN_MAX,
    RUN_BYTES_MAX,
)
from protocol.preview import Previews
from protocol.reconcile import Table
from protocol.serving import Serving

VERSION = 1


class PeerKind(Enum):
    """Who is on the other side, as TLS has proved it."""

    NODE = "node"
    DEVICE = "device"
    INVITATION = "invitation"


class State(Enum):
    """Where a session stands."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


_END = frozenset({Error, Bye})
_SYNC = frozenset(
    {Heads, Want, Run, Absent, Have, Forked, WantSeals, Seals, Ask, Answer, Seen, Recon}
)
_BLOBS = frozenset({WantBlob, Blob, Lacking})
_OPEN = _SYNC | _BLOBS | _END | {Ping, Pong}
_GOSSIP = frozenset({IHave, Graft, Prune})
ALLOWED: Mapping[tuple[State, PeerKind], frozenset[type]] = {
    (State.GREETING, PeerKind.NODE): _END | {Hello},
    (State.GREETING, PeerKind.DEVICE): _END | {Hello},
    (State.GREETING, PeerKind.INVITATION): _END | {Ask, Answer},
    (State.OPEN, PeerKind.NODE): _OPEN | _GOSSIP,
    (State.OPEN, PeerKind.DEVICE): _OPEN,
}


class Patience(NamedTuple):
    """How long it may be silent until PING, and until the end, in seconds."""

    ping: float
    close: float


BETWEEN_NODES = Patience(IDLE_PING_SECONDS, IDLE_CLOSE_SECONDS)
WITH_LEAF = Patience(LEAF_PING_SECONDS, LEAF_CLOSE_SECONDS)


@dataclass(frozen=True, slots=True)
class Greeting:
    """This replica's incarnation, and how far it has seen the peer's changes.

    salt: 16 bytes, drawn for this session. patience: WITH_LEAF if this is a device's replica.
    """

    incarnation: bytes
    seen_incarnation: bytes | None
    seen: int
    salt: bytes
    patience: Patience = BETWEEN_NODES


class Session:
    """The state machine of one connection. See the module's docstring for the calls."""

    def __init__(self, peer: PeerKind, greeting: Greeting, now: float) -> None:
        self.peer = peer
        self.state = State.GREETING
        self._greeting = greeting
        self._patience = WITH_LEAF if peer is PeerKind.DEVICE else greeting.patience
        self._intake = Intake()
        self._previews = Previews()
        self._serving = Serving()
        self._peer_incarnation = b""
        self._seen = self._saved = -1
        self._told: int | None = None
        self._found: Sequence[int] = ()
        self._audits = Audits(greeting.salt)
        self._unseen: deque[int] = deque()
        self._greeted_back = False
        self._heads_due = False
        self._listed = False
        self._tell_at: float | None = None
        self._heard = now

    def start(self, now: float) -> list[Effect]:
        """Greet. An invitation has no replica, so its connection goes without HELLO."""
        if self.peer is PeerKind.INVITATION:
            return [Wake(now + IDLE_CLOSE_SECONDS)]
        ours = self._greeting
        hello = Hello((VERSION,), ours.incarnation, ours.seen_incarnation, ours.seen, ours.salt)
        return [Send(hello), Wake(now + HELLO_TIMEOUT_SECONDS)]

    def receive(self, frame: Frame, now: float) -> list[Effect]:
        """Take one frame. Raises PeerError when the peer broke SPEC: send ERROR and close."""
        if type(frame) not in ALLOWED.get((self.state, self.peer), frozenset()):
            name = type(frame).__name__.upper()
            raise OutOfTurn(f"{name} from a {self.peer.value} while {self.state.value} (SPEC 6.2)")
        self._heard = now
        match frame:
            case Hello():
                return self._greeted(frame, now)
            case Heads():
                _check_page(frame)
                self._listed = bool(frame.last)
                self._intake.open_page(frame.cursor)
                return [Compare(frame.chats)]
            case Want() | WantSeals() | WantBlob():
                self._serving.asked(frame)
                return []
            case Run():
                return self._brought(frame, now)
            case Absent(chat, device, lane, start):
                if not self._previews.absent(chat, device, lane, start):
                    self._intake.absent((chat, device, lane), start, now)
                return self._go_on(now)
            case _:
                return self._answer(frame, now)

    def _answer(self, frame: Frame, now: float) -> list[Effect]:
        """Take what does not concern the receiving of entries."""
        match frame:
            case Recon():
                return self._took(self._audits.heard(frame), now)
            case IHave() | Graft() | Prune():
                return self._rumoured(frame)
            case Error() | Bye():
                self.state = State.CLOSED
                return [Close(None)]
            case Seen(cursor):
                if self._unseen and self._unseen[0] == cursor:
                    self._unseen.popleft()
                return []
            case _:
                return _handed_on(frame)

    def _greeted(self, hello: Hello, now: float) -> list[Effect]:
        if VERSION not in hello.versions:
            raise OutOfTurn(f"peer speaks versions {hello.versions}, we speak {VERSION} (SPEC 6.2)")
        self.state = State.OPEN
        self._peer_incarnation = hello.incarnation
        self._audits.greeted(hello.salt)
        effects: list[Effect] = [Wake(now + self._patience.ping)]
        knows_us = hello.seen_incarnation == self._greeting.incarnation
        known = hello.incarnation == self._greeting.seen_incarnation
        if known:
            self._seen = self._saved = self._greeting.seen
        if knows_us:
            self._told = hello.seen
            effects.append(LoadHeads(self._told))
        if knows_us and known:
            self._audits.plan_first(now)
        else:
            effects.append(self._audits.begin())
        return effects

    @property
    def caught_up(self) -> bool:
        """Whether the peer has listed all it has, and all of that is stored here."""
        return self._listed and self._intake.settled

    def heads(self, page: Heads) -> list[Effect]:
        """Take the answer to LoadHeads; `idle` asks for the next page if this is not the last."""
        nothing = page.cursor == self._told and not page.chats
        self._heads_due = self._heads_due or not page.last
        self._told = page.cursor
        if nothing and self._greeted_back:
            return []
        self._greeted_back = True
        return self.changes(page)

    def changes(self, page: Heads) -> list[Effect]:
        """Take the answer to LoadChanges: heads that the peer was found to lack."""
        self._unseen.append(page.cursor)
        return [Send(page)]

    def pushed(self, now: float, delay: float = HEADS_DELAY_SECONDS) -> list[Effect]:
        """Note that the peer may lack something; soon tell how far what is here reaches.

        Runs were pushed, or dropped for want of room; or it gave more than it has stored itself.
        """
        at = now + delay
        if self.state is not State.OPEN or (self._tell_at is not None and self._tell_at <= at):
            return []
        self._tell_at = at
        return [Wake(at)]

    def idle(self) -> list[Effect]:
        """Return the next piece of serving. Call when nothing waits to be sent."""
        if self.state is not State.OPEN:
            return []
        load = self._serving.next()
        if load is not None:
            return [load]
        page = self._next_page() if len(self._unseen) < PAGES_OPEN_MAX else []
        chunk = None if page else self._serving.next_chunk()
        return page if chunk is None else [chunk]

    def _next_page(self) -> list[Effect]:
        if self._found:
            numbers = tuple(self._found[:HEADS_CHAINS_MAX])
            self._found = self._found[HEADS_CHAINS_MAX:]
            return [LoadChanges(numbers)]
        if self._heads_due and self._told is not None:
            self._heads_due = False
            return [LoadHeads(self._told)]
        return []

    def chunk_loaded(self, want: WantBlob, found: Blob | None) -> list[Effect]:
        """Take the answer to LoadChunk; None if the chunk is not here, or not for the peer."""
        return [Send(self._serving.chunk_loaded(want, found))]

    def _rumoured(self, rumour: Rumour) -> list[Effect]:
        """Hand on what concerns the spread; a GRAFT is a want, too."""
        if isinstance(rumour, Graft):
            head = rumour.head
            stop = head.seq + 1
            want = Want(rumour.chat, head.device, head.lane, head.prefix, head.seq, stop)
            self._serving.asked(want)
        return [Gossip(rumour)]

    def loaded(self, want: Want, run: Run | None) -> list[Effect]:
        """Take the answer to LoadRun; None when there is nothing that the peer may see."""
        return [Send(self._serving.loaded(want, run))]

    def _brought(self, run: Run, now: float) -> list[Effect]:
        _check_size(run)
        if self._previews.takes(run):
            return self._go_on(now)
        return [Admit((run,), live=self._intake.received(run, now))]

    def preview(self, chat: ChatId, now: float) -> list[Effect]:
        """Have the end of a chat shown, by `Preview`, if much of it is yet to come."""
        self._previews.wish(chat)
        return self._go_on(now)

    def compared(self, wants: Sequence[Want], now: float) -> list[Effect]:
        """Take the answer to Compare: what we lack of that page."""
        self._intake.lacking(wants)
        return self._go_on(now)

    def recalled(self, wants: Sequence[Want], now: float) -> list[Effect]:
        """Ask for what was listed in a page of any session before, and is heard only now."""
        self._intake.recalled(wants)
        return self._go_on(now)

    def let_in(self, now: float) -> list[Effect]:
        """Ask again for what the peer has of chats that we were not known to be in."""
        self._intake.let_in()
        return self._go_on(now)

    def listed(self, runs: Sequence[Run]) -> Sequence[ChatHeads]:
        """Return the heads that the peer has listed and that these runs are of.

        Call before `admitted`, for what is not to be given up with them.
        """
        wants = [want for run in runs if (want := self._intake.wanted(run)) is not None]
        return [
            ChatHeads(want.chat, (Head(want.device, want.lane, want.stop - 1, want.prefix),))
            for want in wants
        ]

    def admitted(
        self, judged: Sequence[tuple[Run, Outcome]], holdings: Sequence[Holding], now: float
    ) -> list[Effect]:
        """Take the answer to Admit, after what it stored is durable. holdings: to acknowledge."""
        again: list[Run] = []
        told: list[Effect] = []
        for run, outcome in judged:
            if self._intake.outdoes(run, outcome):
                told += self.pushed(now)
            again += self._intake.judged(run, outcome)
        have: list[Effect] = [Send(Have(tuple(holdings)))] if holdings else []
        retry: list[Effect] = [Admit(tuple(again))] if again else []
        return [*have, *retry, *told, *self._go_on(now)]

    def _go_on(self, now: float) -> list[Effect]:
        runs = self._previews.finished()
        effects: list[Effect] = [Preview(runs)] if runs else []
        wants = [*self._previews.ask(self._intake.backlog, now), *self._intake.ask(now)]
        effects += [Send(want) for want in wants]
        effects += [Wake(self._awaited())] if wants else []
        cursors = self._intake.finished()
        self._seen = max([self._seen, *cursors])
        if self._seen > self._saved and not self._intake.behind:
            self._saved = self._seen
            effects.append(SaveCursor(self._peer_incarnation, self._saved))
        effects += [Send(Seen(cursor)) for cursor in cursors]
        if self._listed and self._intake.told_too_early:
            effects.append(Close(None))
        return effects

    # Reconciliation

    def surveyed(self, table: Table, now: float) -> list[Effect]:
        """Take the answer to Survey."""
        return self._took(self._audits.surveyed(table), now) if self.state is State.OPEN else []

    def _took(self, turn: Turn, now: float) -> list[Effect]:
        """List what the peer lacks; what changed since the survey the usual pages tell.

        What the first finds it to have, too, it stores: no page of its heads will ever say so.
        """
        ended = turn.ended
        if ended is None:
            return turn.effects
        self._audits.plan(now)
        noted: list[Effect] = []
        if self._told is None:
            self._told = 0 if ended.lacks_all else ended.cursor
            self._heads_due = True
            shared = ended.shared()
            pages = range(0, len(shared), HEADS_CHAINS_MAX)
            noted += [NoteShared(tuple(shared[at : at + HEADS_CHAINS_MAX])) for at in pages]
        if self._told:
            found = ended.found()
            self._found = found[: bisect_right(found, self._told)]
        if self._found:
            self._heads_due, self._greeted_back = True, False
        return [*turn.effects, *noted]

    def expired(self, now: float) -> list[Effect]:
        """Look at the deadlines. Raises OutOfTurn for a peer that is silent for too long."""
        if self.state is State.CLOSED:
            return []
        if self.state is State.GREETING:
            return self._still_greeting(now)
        ping, close = self._patience
        if now >= self._heard + close:
            raise OutOfTurn(f"nothing heard for {close:.0f} s (SPEC 6.2)")
        if self._tell_at is not None and self._tell_at <= now:
            self._tell_at = None
            self._heads_due = True
        self._intake.expired(now)
        self._previews.expired(now)
        # Compared with the very sum that was asked for: a difference, rounded, may never be due.
        pings: list[Effect] = [Send(Ping())] if now >= self._heard + ping else []
        effects = [*pings, *self._audits.due(now), *self._go_on(now)]
        quiet = now + ping / 2 if pings else self._heard + ping
        return [*effects, Wake(min(quiet, self._awaited(), self._tell_at or NEVER))]

    def _awaited(self) -> float:
        """Return when an answer that is under way would be too late."""
        return min(self._intake.deadline(), self._previews.deadline())

    def _still_greeting(self, now: float) -> list[Effect]:
        waits = self.peer is PeerKind.INVITATION
        most = IDLE_CLOSE_SECONDS if waits else HELLO_TIMEOUT_SECONDS
        if now >= self._heard + most:
            raise OutOfTurn(f"no word for {most:.0f} s (SPEC 6.2)")
        return [Wake(self._heard + most)]


def _check_page(page: Heads) -> None:
    """Refuse a page that would open more wants than we are ready to remember."""
    listed = sum(len(item.heads) for item in page.chats)
    if listed > HEADS_CHAINS_MAX:
        raise LimitExceeded(f"{listed} heads in a page, at most {HEADS_CHAINS_MAX} (SPEC 8)")


def _check_size(run: Run) -> None:
    """Refuse a run so long that, signed at its end only, it could not be served on from here."""
    size = sum(len(memoryview(record)) for record in run.records)
    if len(run.records) > 1 and size > RUN_BYTES_MAX:
        raise LimitExceeded(f"a run of {size} bytes, at most {RUN_BYTES_MAX} allowed (SPEC 8)")
    if len(run.signatures) > len(run.records):
        raise LimitExceeded("a run with more signatures than records (SPEC 8)")


def _handed_on(frame: Frame) -> list[Effect]:
    """Return what is done about frames that do not concern the sync of chains."""
    effects: list[Effect] = []
    match frame:
        case Ping():
            effects.append(Send(Pong()))
        case Have():
            effects.append(NoteHoldings(frame.holdings))
        case Forked():
            effects.append(StoreFork(frame))
        case Seals():
            effects.append(StoreSeals(frame.chat, frame.epoch, frame.seals))
        case Ask():
            effects.append(Consult(frame))
        case Answer():
            effects.append(Deliver(frame))
        case Blob() | Lacking():
            effects.append(TakeChunk(frame))
        case _:
            pass  # PONG: that it came is all it says
    return effects
