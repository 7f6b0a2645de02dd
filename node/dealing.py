"""What a session asks for, as steps for whoever does the waiting (SPEC 6.5). No I/O, no clock.

A `Dealing` is one session with the replica behind it. It turns the effects of the session into
steps (`node.step`).

`node.driver` takes them over a trio stream; the simulator (tests/simulator) in simulated time.
"""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Protocol

from node.errors import NetworkError
from node.replica import Replica
from node.seals import NEWEST, OLDEST, Sealless
from node.step import Acknowledge, After, Keep, Kept, Look, Note, Step, Steps, Store, Try
from node.stored import Stored
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Consult,
    Deliver,
    Effect,
    Gossip,
    LoadChanges,
    LoadChunk,
    LoadHeads,
    LoadRun,
    LoadSeals,
    NoteHoldings,
    Preview,
    SaveCursor,
    Send,
    StoreFork,
    StoreSeals,
    Survey,
    TakeChunk,
    Wake,
)
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import (
    Blob,
    ChatHeads,
    Forked,
    Frame,
    Have,
    Holding,
    Rumour,
    Run,
    Seal,
    Seals,
    Want,
    WantBlob,
    WantSeals,
    authentic,
    encode_frame,
)
from protocol.intake import Outcome
from protocol.limits import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    HEADS_DELAY_SECONDS,
    QUEUE_BYTES_MAX,
    QUEUE_FRAMES_MAX,
    SEALS_FRAME_MAX,
)
from protocol.reconcile import Table
from protocol.run import Entry
from protocol.session import BETWEEN_NODES, WITH_LEAF, Greeting, PeerKind, Session, State

SEALS_AWAITED_MAX = 4096  # that a peer has asked for and that are not here yet
SEALS_PUT_OFF_MAX = 64  # questions for seals of chats that a peer is not known to be in; guess
CHATS_WELCOME_MAX = 4096
SALT_BYTES = 16
SEND_BYTES = 256 * 1024
UNREAD_BYTES_MAX = 4 * QUEUE_BYTES_MAX  # that wait for a peer, before it is given up; guess

_Loads = LoadRun | LoadHeads | LoadChanges | LoadSeals
_Keeps = StoreSeals | StoreFork | SaveCursor


class Surroundings(Protocol):
    """What a dealing tells the rest of its node or device."""

    def storing(self, parts: Sequence[Stored], source: "Dealing") -> Callable[[], None]:
        """Runs are being stored: called last in their transaction, before it is durable.

        Return what is to be done once it is; if it fails, that is never called.
        """

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """Seals are being kept; as `storing`."""

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """A new fork proof is durable."""

    def holdings_noted(self, holdings: Sequence[Holding], source: "Dealing") -> None:
        """Somebody stores more than they did."""

    def repeated(self, chat: ChatId, source: "Dealing") -> None:
        """A run was pushed of which all is here."""

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: "Dealing") -> None:
        """A peer speaks of the live spread of a chat; of IHAVE what is lacking here is left."""


class Dealing(ABC):
    """A session, its replica, and the frames that wait to be sent.

    key: agency id of a node, device key, or ticket of a peer. clock: seconds, monotonic. A driver
    says in `worked`, `wake`, `close` and `fail` how it is told of what others do to this dealing.
    """

    def __init__(
        self,
        peer: PeerKind,
        key: bytes,
        greeting: Greeting,
        replica: Replica,
        surroundings: Surroundings,
        clock: Callable[[], float],
    ) -> None:
        self.peer = peer
        self.key = key
        self._replica = replica
        self._candidates_lost = replica.candidates.lost(key)
        self._told = surroundings
        self._now = clock
        self._session = Session(peer, greeting, clock())
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._welcome: set[ChatId] = set()
        self._seals_awaited: dict[EntryId, set[DeviceKey]] = {}
        self._put_off: deque[LoadSeals] = deque(maxlen=SEALS_PUT_OFF_MAX)
        self._payloads_wanted: Sequence[Want] = ()
        self._let_in = True
        self._seals_before: int = NEWEST  # where the next page begins of those to be asked for

    @property
    def open(self) -> bool:
        """Whether the peer has greeted and the session goes on."""
        return self._session.state is State.OPEN

    @property
    def caught_up(self) -> bool:
        """Whether all that the peer has listed is stored here."""
        return self._session.caught_up

    @property
    def frame_limit(self) -> int:
        """How long the peer's next frame may be."""
        return FRAME_BYTES_MAX if self.open else FRAME_BYTES_MAX_BEFORE_HELLO

    # What a driver says

    @abstractmethod
    def worked(self) -> None:
        """A frame waits to be sent."""

    @abstractmethod
    def wake(self, at: float) -> None:
        """Call `expired` at this time."""

    @abstractmethod
    def close(self) -> None:
        """End the session in a friendly way."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """End the session, and remember why."""

    # What a driver brings

    def start(self) -> Steps:
        """Greet."""
        return self._turned(self._session.start(self._now()))

    def receive(self, frame: Frame) -> Steps:
        """Take one frame. Raises PeerError when the peer broke SPEC."""
        return self._turned(self._session.receive(frame, self._now()))

    def greeted(self) -> Steps:
        """Ask for what was missing before this session. Call once, after the peer's HELLO."""
        return self.want_payloads()

    def idle(self) -> Steps:
        """Return the next piece of serving. Call when nothing waits to be sent."""
        if self._let_in and self.open:
            self._let_in = False
            return [Look(self._look_aside)]
        if self._seals_before > OLDEST and self.open:
            before, self._seals_before = self._seals_before, OLDEST
            return [Look(partial(self._look_for_seals, before))]
        return self._turned(self._session.idle())

    def let_in(self) -> None:
        """Take up what the peer listed, and asked for, of a chat before it, or we, were let in.

        It is told what is here, too: of a chat that is new here, others may have brought more.
        """
        self._let_in = True
        self.changed()
        self.worked()

    def _look_aside(self) -> After:
        listed = [Keep(self._take_up)] if self._replica.sharing.unheard(self.key) else []
        asked = [self._job(one) for one in self._put_off]
        self._put_off.clear()
        return lambda: [*listed, *asked, *self._turned(self._session.let_in(self._now()))]

    def _take_up(self) -> Kept:
        wants = self._replica.take_up(self.key)
        return Kept(then=lambda: self._turned(self._session.recalled(wants, self._now())))

    def expired(self) -> Steps:
        """Look at the deadlines, when a Wake is due."""
        return self._turned(self._session.expired(self._now()))

    def _look_for_seals(self, before: int) -> After:
        """Ask for a page of the seals that have yet to come; when that is sent, comes the next."""
        lacking, rest = self._replica.sealless(self.key, before)

        def then() -> Steps:
            self._seals_before = max(self._seals_before, rest)
            return _want_seals(lacking)

        return then

    def look_ahead(self, chat: ChatId) -> Steps:
        """Ask for the end of a chat, if it is far from what is here; it comes as a Preview."""
        return self._turned(self._session.preview(chat, self._now()))

    def surveyed(self, table: Table) -> Steps:
        """Take the answer to a Survey."""
        return self._turned(self._session.surveyed(table, self._now()))

    def chunk_loaded(self, want: WantBlob, chunk: Blob | None) -> Steps:
        """Take the answer to a LoadChunk."""
        return self._turned(self._session.chunk_loaded(want, chunk))

    def want_payloads(self) -> Steps:
        """Ask for payloads that came dropped, though nothing that we know asks to drop them."""

        def look() -> After:
            self._payloads_wanted = wants = self._replica.payloads.wanted(self.key)
            return lambda: [Send(want) for want in wants]

        return [Look(look)] if self.open and self.peer is not PeerKind.INVITATION else []

    def _turned(self, effects: Sequence[Effect]) -> Steps:
        return [step for effect in effects for step in self._turn(effect)]

    def _turn(self, effect: Effect) -> Steps:
        match effect:
            case Send(Have(holdings)):
                return [Acknowledge(holdings)]
            case Send() | Wake() | Consult() | Deliver() | Preview() | Survey() | Close():
                return [effect]
            case LoadChunk() | TakeChunk():
                return [effect]
            case Admit(runs, live):
                return self._admit(runs, live=live and not self._brings_payload(runs[0]))
            case NoteHoldings(holdings):  # a device stores for nobody else
                return [] if self.peer is PeerKind.DEVICE else [Note(holdings)]
            case _:
                return [self._job(effect)]

    def _job(self, effect: _Loads | _Keeps | Gossip | Compare) -> Step:
        match effect:
            case Gossip(rumour):
                return Look(partial(self._look_at_rumour, rumour))
            case Compare(chats):
                return Look(partial(self._compare, chats))
            case SaveCursor():  # what is not kept we are told again
                return Try(partial(self._keep, effect))
            case StoreSeals() | StoreFork():
                return Keep(partial(self._keep, effect))
            case _:
                return Look(partial(self._load, effect))

    def _load(self, effect: _Loads) -> After:
        sharing = self._replica.sharing
        match effect:
            case LoadHeads(cursor):
                page = sharing.heads_since(self.key, cursor)
                return lambda: self._turned(self._session.heads(page))
            case LoadChanges(numbers):
                page = sharing.heads_at(self.key, numbers)
                return lambda: self._turned(self._session.changes(page))
            case LoadRun(want):
                run = self._replica.serve(want, self.key)
                return lambda: self._turned(self._session.loaded(want, run))
            case LoadSeals(chat, epoch, devices):
                mine = devices if self.peer is PeerKind.NODE else (DeviceKey(self.key),)
                if not sharing.may_read(self.key, chat):
                    self._put_off.append(effect)
                    return list
                if not self._replica.is_readable(chat):
                    return list
                seals_for = partial(self._replica.seals_for, chat, epoch)
                found = seals_for(mine)
                whole = len(found) == len(mine)
                lacking = [] if whole else [one for one in mine if not seals_for((one,))]
                return lambda: self._loaded_seals(chat, epoch, lacking, found)

    def _compare(self, chats: Sequence[ChatHeads]) -> After:
        heard = self._replica.heard(chats, self.key)
        if len(heard) < len(chats):
            return lambda: [Keep(partial(self._set_aside, chats))]
        return self._compared(heard)

    def _compared(self, heard: Sequence[ChatHeads]) -> After:
        wants = self._replica.compare(heard)
        return lambda: self._turned(self._session.compared(wants, self._now()))

    def _set_aside(self, chats: Sequence[ChatHeads]) -> Kept:
        """Keep what is not heard of a page, before that is seen."""
        self._replica.set_aside(chats, self.key)
        return Kept(then=self._compared(self._replica.heard(chats, self.key)))

    def _look_at_rumour(self, rumour: Rumour) -> After:
        readers, news = self._replica.hear(rumour, self.key)
        if news is None:
            return list

        def then() -> Steps:
            self._told.gossiped(news, readers, self)
            return ()

        return then

    def _loaded_seals(
        self, chat: ChatId, epoch: EntryId, lacking: Sequence[DeviceKey], found: Sequence[Seal]
    ) -> Steps:
        """Send what is here; of the rest, what was asked for last is sent when it comes."""
        awaited = self._seals_awaited
        if lacking:
            awaited[epoch] = awaited.pop(epoch, set()) | set(lacking)
        while sum(map(len, awaited.values())) > SEALS_AWAITED_MAX:
            del awaited[next(iter(awaited))]
        return [
            Send(Seals(chat, epoch, tuple(found[at : at + SEALS_FRAME_MAX])))
            for at in range(0, len(found), SEALS_FRAME_MAX)
        ]

    def _keep(self, effect: _Keeps) -> Kept:
        match effect:
            case StoreSeals(chat) | StoreFork(Forked(chat)) if not self._replica.is_readable(chat):
                return Kept()
            case StoreSeals(chat, epoch, seals):
                kept = self._replica.keep_seals(chat, epoch, seals, self.key)
                return Kept(self._told.keeping_seals(chat, epoch, kept))
            case StoreFork(forked):
                new, readers = self._take_fork(forked)
                return Kept() if new is None else Kept(partial(self._told.fork_kept, new, readers))
            case SaveCursor(incarnation, cursor):
                self._save_cursor(incarnation, cursor)
                return Kept()

    def _save_cursor(self, incarnation: bytes, cursor: int) -> None:
        """Keep how far we are, unless we have forgotten what we were told in this session."""
        if self._replica.candidates.lost(self.key) == self._candidates_lost:
            self._replica.sharing.save_cursor(self.key, incarnation, cursor)

    def note(self, holdings: Sequence[Holding]) -> Kept:
        """Keep what the peer says that it stores: the work of a Keep."""
        told = self._replica.note_holdings(holdings, self.key)
        return Kept(partial(self._told.holdings_noted, told, self))

    def _take_fork(self, forked: Forked) -> tuple[Forked | None, list[bytes]]:
        known = self._replica.store.chat(forked.chat) is not None
        if not known or not self._replica.may_bring(self.key, forked.chat):
            return None, []
        new = self._replica.keep_fork(forked)
        return new, [] if new is None else sorted(self._replica.readers_of(new.chat))

    # Admission

    def _brings_payload(self, run: Run) -> bool:
        """Whether it was asked for, beside the session: then it was not pushed (SPEC 6.5)."""
        chain = run.chat, run.device, run.lane
        return any(
            (want.chat, want.device, want.lane) == chain and want.start <= run.start < want.stop
            for want in self._payloads_wanted
        )

    def _admit(self, runs: Sequence[Run], *, live: bool) -> Steps:
        """Verify runs here, and let the disk work on them meanwhile.

        They are queued before the next frame is read: what comes first is judged first. The runs of
        a stranger are not worth hashing; one who was welcome before is asked for again only in the
        transaction, because a look at the database waits for the commit that is on its way.
        """
        chat = runs[0].chat
        if chat in self._welcome:
            return [self._storing(runs, live=live)]

        def look() -> After:
            if not self._replica.may_bring(self.key, chat):
                return partial(self._refused, runs)
            return partial(self._welcomed, runs, live=live)

        return [Look(look)]

    def _refused(self, runs: Sequence[Run]) -> Steps:
        refused = [(run, _unwelcome(run)) for run in runs]
        return self._turned(self._session.admitted(refused, (), self._now()))

    def _welcomed(self, runs: Sequence[Run], *, live: bool) -> Steps:
        if len(self._welcome) >= CHATS_WELCOME_MAX:
            self._welcome.clear()
        self._welcome.add(runs[0].chat)
        return [self._storing(runs, live=live)]

    def _storing(self, runs: Sequence[Run], *, live: bool) -> Store:
        parts = [(run, authentic(run)) for run in runs]
        return Store(partial(self._append, parts, live=live))

    def _append(self, parts: Sequence[tuple[Run, Sequence[Entry]]], *, live: bool) -> Kept:
        chat = parts[0][0].chat
        if not (self._replica.may_bring(self.key, chat) and self._replica.is_readable(chat)):
            self._welcome.discard(chat)
            return Kept(then=partial(self._refused, [run for run, _ in parts]))
        noted = self._replica.sharing.next_sealless()
        stored = self._replica.append_together(parts, self.key)
        holdings = [self._replica.holding(one) for one in stored]
        known = [holding for holding in holdings if holding is not None]
        # A device learns what its own node has from that node's runs, too.
        self._replica.note_holdings(known, self.key)
        new = [replace(one, live=live) for one in stored if one.appended]
        if live and any(one.repeated for one in stored):
            self._told.repeated(chat, self)
        durable = self._told.storing(new, self) if new else bool

        def tell() -> None:
            durable()
            for one in stored:
                if one.fork is not None:
                    self._told.fork_kept(one.fork, sorted(one.readers))

        return Kept(tell, partial(self._stored, stored, known, noted))

    def _stored(self, parts: Sequence[Stored], holdings: Sequence[Holding], noted: int) -> Steps:
        """Ask for the seals of what was stored; of what was noted before, if that let us in."""
        if any(self._replica.owner in stored.entered for stored in parts):
            self.let_in()
            self._seals_before = max(self._seals_before, noted)
        judged = [(stored.run, stored.outcome) for stored in parts]
        seals = [step for stored in parts for step in _want_seals(stored.sealless)]
        return [*seals, *self._turned(self._session.admitted(judged, holdings, self._now()))]

    # What waits to be sent

    def send(self, frame: Frame) -> None:
        """Queue a frame that must not be lost. Fails on a peer that never reads."""
        raw = encode_frame(frame)
        frames, size = len(self._queue), self._queued_bytes + len(raw)
        if frames >= QUEUE_FRAMES_MAX * 4 or size > UNREAD_BYTES_MAX:
            self.fail(NetworkError("the peer does not read what it is sent"))
            return
        self._enqueue(raw)

    def push(self, raw: bytes) -> None:
        """Queue an encoded run, if there is room; heads will tell of it in any case."""
        if not self.open:
            return
        room = len(self._queue) < QUEUE_FRAMES_MAX
        if room and self._queued_bytes + len(raw) <= QUEUE_BYTES_MAX:
            self._enqueue(raw)
        self.changed()

    def changed(self, delay: float = HEADS_DELAY_SECONDS) -> None:
        """Soon tell the peer which heads changed."""
        for effect in self._session.pushed(self._now(), delay):
            if isinstance(effect, Wake):
                self.wake(effect.at)

    def have(self, holdings: Sequence[Holding]) -> None:
        """Tell the peer who stores what."""
        if self.open and holdings:
            self.send(Have(tuple(holdings)))

    def want_seals(self, lacking: Sequence[Sealless]) -> None:
        """Ask for the seals of epochs that came through another peer."""
        for step in _want_seals(lacking) if self.open else ():
            self.send(step.frame)

    def seals_kept(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> None:
        """Send the seals that the peer has asked for before they were here."""
        awaited = self._seals_awaited.get(epoch, set())
        found = tuple(seal for device, seal in owners if device in awaited)
        if found and self.open:
            self.send(Seals(chat, epoch, found))
            awaited.difference_update(device for device, _ in owners)
        if not awaited:
            self._seals_awaited.pop(epoch, None)

    def _enqueue(self, raw: bytes) -> None:
        self._queue.append(raw)
        self._queued_bytes += len(raw)
        self.worked()

    def take_queued(self) -> list[bytes]:
        """Take the next frames that wait, as many as go out in one call."""
        batch: list[bytes] = []
        size = 0
        while self._queue and size < SEND_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        self._queued_bytes -= size
        return batch


def greeting_for(
    replica: Replica, key: bytes, random: Callable[[int], bytes] = os.urandom
) -> Greeting:
    """Read what a session with this peer begins with, and draw its salt."""
    seen_incarnation, seen = replica.sharing.cursor(key)
    patience = BETWEEN_NODES if replica.owner == replica.agency else WITH_LEAF
    salt = random(SALT_BYTES)
    return Greeting(replica.store.incarnation, seen_incarnation, seen, salt, patience)


def _want_seals(lacking: Sequence[Sealless]) -> Sequence[Send]:
    return [
        Send(WantSeals(chat, epoch, devices[at : at + SEALS_FRAME_MAX]))
        for chat, epoch, devices in lacking
        for at in range(0, len(devices), SEALS_FRAME_MAX)
    ]


def _unwelcome(run: Run) -> Outcome:
    """It is no fault of a node that has not heard yet that its agency left the chat."""
    return Outcome(run.start, surplus=True)
