"""One connection: reads frames, drives a session, and carries out what it asks for (SPEC 6.5).

Three tasks a connection: one reads, one writes, one keeps time. A fourth kind, short-lived and
bounded in number, waits for a run to become durable and only then tells the session, so reading
and hashing the next run goes on while the disk works on this one. Whatever reads the database or
hashes is done in the peer's turn, and charged to it (`node.share`).
"""

import os
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

import structlog
import trio

from node.errors import IvorError, NetworkError, StorageError
from node.journal import Journal
from node.pacing import Pacer
from node.replica import Replica, Stored, authentic
from node.seals import Sealless
from node.surroundings import Surroundings
from node.survey import survey
from node.wire import FrameReader
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Consult,
    Deliver,
    Effect,
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
from protocol.errors import PeerError, UsageError
from protocol.frame import (
    Answer,
    Ask,
    Bye,
    Error,
    Forked,
    Frame,
    Have,
    Holding,
    Run,
    Seal,
    Seals,
    WantSeals,
    decode_frame,
    encode_frame,
)
from protocol.intake import Outcome
from protocol.limits import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    HEADS_CHAINS_MAX,
    QUEUE_BYTES_MAX,
    QUEUE_FRAMES_MAX,
    SEALS_FRAME_MAX,
)
from protocol.run import Entry
from protocol.session import BETWEEN_NODES, WITH_LEAF, Greeting, PeerKind, Session, State

log = structlog.get_logger()

Result = TypeVar("Result")
Load = LoadRun | LoadHeads | LoadChanges | LoadSeals | Compare

SEALS_AWAITED_MAX = 4096  # that a peer has asked for and that are not here yet
CHATS_WELCOME_MAX = 4096
SALT_BYTES = 16
SEND_BYTES = 256 * 1024
SEND_SECONDS_MAX = 60.0
CLOSE_SECONDS_MAX = 2.0
UNREAD_BYTES_MAX = 4 * QUEUE_BYTES_MAX  # that wait for a peer, before it is given up; guess


class Connection:
    """A session with its stream. key: agency id of a node, device key, or ticket of a peer."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        peer: PeerKind,
        key: bytes,
        greeting: Greeting,
        replica: Replica,
        journal: Journal,
        surroundings: Surroundings,
    ) -> None:
        self.peer = peer
        self.key = key
        self.failure: Exception | None = None
        self._stream = stream
        self._replica = replica
        self._candidates_lost = replica.candidates_lost
        self._journal = journal
        self._surroundings = surroundings
        self._now: Callable[[], float] = trio.current_time
        self._session = Session(peer, greeting, self._now())
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._work = trio.Event()
        self._wake_at = float("inf")
        self._rescheduled = trio.Event()
        self._share = surroundings.share(key)
        self._told_of_newest = trio.Event()
        self._told_of_newest.set()
        self._previewing: dict[ChatId, Callable[[Sequence[Entry]], Awaitable[None]]] = {}
        self._answers: dict[int, Answer | None] = {}
        self._answered = trio.Condition()
        self._asked = 0
        self._welcome: set[ChatId] = set()
        self._seals_awaited: dict[EntryId, set[DeviceKey]] = {}
        self._acknowledging = Pacer(self._start, self._acknowledge)
        self._noting = Pacer(self._start, self._note)
        self._scope = trio.CancelScope()

    @property
    def open(self) -> bool:
        """Whether the peer has greeted and the session goes on."""
        return self._session.state is State.OPEN

    @property
    def caught_up(self) -> bool:
        """Whether all that the peer has listed is stored here."""
        return self._session.caught_up

    async def run(self) -> None:
        """Run the session to its end. A failure of either side is left in `failure`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._guard, self._write_frames)
                    nursery.start_soon(self._guard, self._keep_time)
                    await self._guard(self._read_frames)
                    nursery.cancel_scope.cancel()
        finally:
            self._session.state = State.CLOSED
            with trio.CancelScope(shield=True):
                async with self._answered:
                    self._answered.notify_all()
            await self._part()

    def close(self) -> None:
        """End the session in a friendly way."""
        self._scope.cancel()

    def accuse(self, error: PeerError) -> None:
        """End the session with a peer that broke SPEC, and tell it so."""
        self._fail(error)

    async def _part(self) -> None:
        """Say why we go, if the stream still takes it, and close it."""
        frame: Frame = Bye()
        if isinstance(self.failure, PeerError):
            frame = Error(self.failure.code, str(self.failure).encode()[:512])
        with trio.move_on_after(CLOSE_SECONDS_MAX) as scope:
            scope.shield = True
            try:
                await self._stream.send_all(encode_frame(frame))
                await self._stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass
        await trio.aclose_forcefully(self._stream)

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of this connection; an expected failure ends the connection, not the node."""
        try:
            await task()
        except (PeerError, IvorError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._fail(error)
        except Exception as error:  # our bug, met by one peer: the others go on
            log.exception("a bug ended a session", kind=self.peer.value)
            self._fail(error)

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._guard, task)

    def _fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
        self._scope.cancel()

    # Reading

    async def _read_frames(self) -> None:
        await self._carry_out(self._session.start(self._now()))
        reader = FrameReader(self._stream, self._frame_limit)
        while (body := await reader.body()) is not None:
            greeting = self._session.state is State.GREETING
            async with self._share.turn():
                effects = self._share.charged(partial(self._take, body))()
            await self._carry_out(effects)
            self._work.set()
            if greeting and self.open:
                self._surroundings.opened(self)
                self._want_seals(await self._journal.read(self._sealless))
                await self.want_payloads()

    def _take(self, body: bytes) -> Sequence[Effect]:
        return self._session.receive(decode_frame(body), self._now())

    def _frame_limit(self) -> int:
        return FRAME_BYTES_MAX if self.open else FRAME_BYTES_MAX_BEFORE_HELLO

    async def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            await self._perform(effect)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(Have(holdings)):
                await self._acknowledging.add(_by_chain(holdings))
            case Send(frame):
                self.send(frame)
            case Wake(at):
                self._wake(at)
            case Admit(runs):
                await self._admit(runs)
            case Preview(runs):
                await self._show(runs)
            case LoadRun() | LoadHeads() | LoadChanges() | LoadSeals() | LoadChunk() | Compare():
                await self._load(effect)
            case Consult(ask):
                async with self._share.turn():
                    token = object()
                    await self._share.questions.acquire_on_behalf_of(token)
                self._nursery.start_soon(self._guard, lambda: self._consult(ask, token))
            case Deliver(answer):
                await self._deliver(answer)
            case Close():
                self._scope.cancel()
            case _:
                await self._keep(effect)

    async def _load(self, effect: Load | LoadChunk) -> None:
        async with self._share.turn():
            if isinstance(effect, LoadChunk):
                chunk = await self._surroundings.load_chunk(effect.want, self)
                effects: Sequence[Effect] = self._session.chunk_loaded(effect.want, chunk)
            else:
                work = self._share.charged(partial(self._loaded, effect))
                effects = await self._journal.read(work)
        await self._carry_out(effects)

    def _loaded(self, effect: Load) -> Sequence[Effect]:
        sharing = self._replica.sharing
        match effect:
            case Compare(chats):
                wants = self._replica.compare(chats, self.key)
                return self._session.compared(wants, self._now())
            case LoadHeads(cursor):
                return self._session.heads(sharing.heads_since(self.key, cursor))
            case LoadChanges(numbers):
                return self._session.changes(sharing.heads_at(self.key, numbers))
            case LoadRun(want):
                return self._session.loaded(want, self._replica.serve(want, self.key))
            case LoadSeals(chat, epoch, devices):
                return self._seals_for(chat, epoch, devices)

    def _seals_for(
        self, chat: ChatId, epoch: EntryId, devices: tuple[DeviceKey, ...]
    ) -> Sequence[Effect]:
        if not self._replica.sharing.may_read(self.key, chat):
            return []
        mine = devices if self.peer is PeerKind.NODE else (DeviceKey(self.key),)
        found = self._replica.seals_for(chat, epoch, mine)
        noted = sum(map(len, self._seals_awaited.values()))
        if len(found) < len(mine) and noted + len(mine) <= SEALS_AWAITED_MAX:
            self._seals_awaited.setdefault(epoch, set()).update(mine)
        return [
            Send(Seals(chat, epoch, tuple(found[at : at + SEALS_FRAME_MAX])))
            for at in range(0, len(found), SEALS_FRAME_MAX)
        ]

    async def _survey(self, key: bytes) -> None:
        table = await survey(self._replica.sharing, self._journal, self.key, key)
        await self._carry_out(self._session.surveyed(table, self._now()))
        self._work.set()

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

    async def _keep(self, effect: Effect) -> None:
        replica = self._replica
        match effect:
            case StoreSeals(chat, epoch, seals):

                def keep() -> Callable[[], None]:
                    kept = replica.keep_seals(chat, epoch, seals, self.key)
                    return self._surroundings.keeping_seals(chat, epoch, kept)

                durable = await self._write(keep)
                durable()
            case StoreFork(forked):
                new, readers = await self._write(lambda: self._take_fork(forked))
                if new is not None:
                    self._surroundings.fork_kept(new, readers)
            case TakeChunk(frame):
                self._surroundings.took_chunk(frame, self)
            case NoteHoldings() if self.peer is PeerKind.DEVICE:
                pass  # it stores for nobody else
            case NoteHoldings(holdings):
                await self._noting.add(_by_chain(holdings))
            case Survey(key):
                self._start(partial(self._survey, key))
            case SaveCursor(incarnation, cursor):
                await self._keep_cursor(incarnation, cursor)
            case _:
                raise UsageError(f"an effect that nobody carries out: {effect}")

    async def _write(self, work: Callable[[], Result]) -> Result:
        """Write for the peer: queued in its turn, and at its expense."""
        async with self._share.turn():
            pending = await self._journal.begin(self._share.charged(work))
        return await pending()

    async def _keep_cursor(self, incarnation: bytes, cursor: int) -> None:
        """Keep how far we are. If it fails we are only told more the next time, and serve on."""
        try:
            await self._journal.write(partial(self._save_cursor, incarnation, cursor))
        except StorageError as error:
            log.warning("how far a peer has told us is not kept", reason=str(error))

    def _save_cursor(self, incarnation: bytes, cursor: int) -> None:
        """Keep how far we are, unless we have forgotten what we were told in this session."""
        if self._replica.candidates_lost == self._candidates_lost:
            self._replica.sharing.save_cursor(self.key, incarnation, cursor)

    async def _note(self, holdings: list[Holding]) -> None:
        replica = self._replica
        told = await self._write(lambda: replica.note_holdings(holdings, self.key))
        self._surroundings.holdings_noted(told, self)

    async def _acknowledge(self, holdings: list[Holding]) -> None:
        for at in range(0, len(holdings), HEADS_CHAINS_MAX):
            self.send(Have(tuple(holdings[at : at + HEADS_CHAINS_MAX])))

    def _take_fork(self, forked: Forked) -> tuple[Forked | None, list[bytes]]:
        if not self._replica.sharing.may_read(self.key, forked.chat):
            return None, []
        new = self._replica.keep_fork(forked)
        return new, [] if new is None else list(self._replica.readers_of(new.chat))

    # Admission

    async def _show(self, runs: Sequence[Run]) -> None:
        entries = [entry for run in runs for entry in authentic(run)]
        await self._previewing.pop(runs[0].chat)(entries)

    async def _admit(self, runs: Sequence[Run]) -> None:
        async with self._share.turn():
            refused = await self._begin_admission(runs)
        if refused:
            await self._carry_out(self._session.admitted(refused, (), self._now()))

    async def _begin_admission(self, runs: Sequence[Run]) -> Sequence[tuple[Run, Outcome]]:
        """Verify runs here, and let a task wait for the disk. Bounded, so a peer can't pile up.

        They are queued before the next frame is read: what comes first is judged first. The runs of
        a stranger are not worth hashing, and are returned with what becomes of them; one who was
        welcome before is asked for again only in the transaction, because a look at the database
        waits for the commit that is on its way.
        """
        chat = runs[0].chat
        if chat not in self._welcome:
            if not await self._journal.read(lambda: self._may_bring(chat)):
                return [(run, _unwelcome(run)) for run in runs]
            if len(self._welcome) >= CHATS_WELCOME_MAX:
                self._welcome.clear()
            self._welcome.add(chat)
        parts = self._share.charged(lambda: [(run, authentic(run)) for run in runs])()
        token = object()
        await self._share.runs.acquire_on_behalf_of(token)
        before, told = self._told_of_newest, trio.Event()
        self._told_of_newest = told
        pending = await self._journal.begin(self._share.charged(lambda: self._append(parts)))

        async def finish() -> None:
            try:
                stored, holdings, durable = await pending()
            finally:
                self._share.runs.release_on_behalf_of(token)
            await before.wait()  # one commit ends many: runs are told of in the order they came
            durable()
            await self._stored(stored, holdings)
            told.set()

        self._nursery.start_soon(self._guard, finish)
        return ()

    def _append(
        self, parts: Sequence[tuple[Run, Sequence[Entry]]]
    ) -> tuple[Sequence[Stored], Sequence[Holding], Callable[[], object]]:
        chat = parts[0][0].chat
        if not self._may_bring(chat):
            self._welcome.discard(chat)
            return [Stored(_unwelcome(run), run) for run, _ in parts], [], bool
        stored = self._replica.append_together(parts)
        holdings = [self._replica.holding(one) for one in stored]
        known = [holding for holding in holdings if holding is not None]
        # A device learns what its own node has from that node's runs, too.
        self._replica.note_holdings(known, self.key)
        new = [one for one in stored if one.appended]
        return stored, known, self._surroundings.storing(new, self) if new else bool

    def _may_bring(self, chat: ChatId) -> bool:
        known = self._replica.store.chat(chat) is not None
        return not known or self._replica.sharing.may_read(self.key, chat)

    def _sealless(self) -> Sequence[Sealless]:
        return self._replica.sealless(self.key)

    async def want_payloads(self) -> None:
        """Ask for payloads that came dropped, though nothing that we know asks to drop them."""
        if self.open and self.peer is not PeerKind.INVITATION:
            payloads = self._replica.payloads
            for want in await self._journal.read(lambda: payloads.wanted(self.key)):
                self.send(want)

    def _want_seals(self, lacking: Sequence[Sealless]) -> None:
        for chat, epoch, devices in lacking:
            for at in range(0, len(devices), SEALS_FRAME_MAX):
                self.send(WantSeals(chat, epoch, devices[at : at + SEALS_FRAME_MAX]))

    async def _stored(self, parts: Sequence[Stored], holdings: Sequence[Holding]) -> None:
        for stored in parts:
            if stored.fork is not None:
                self._surroundings.fork_kept(stored.fork, list(stored.readers))
            self._want_seals(stored.sealless)
        judged = [(stored.run, stored.outcome) for stored in parts]
        await self._carry_out(self._session.admitted(judged, holdings, self._now()))

    async def preview(
        self, chat: ChatId, show: Callable[[Sequence[Entry]], Awaitable[None]]
    ) -> None:
        """Have the end of a chat shown, once, if it is far from what is here (SPEC 6.3).

        show: gets authentic entries, judged by nobody.
        """
        self._previewing[chat] = show
        await self._carry_out(self._session.preview(chat, self._now()))

    # Questions

    async def _consult(self, ask: Ask, token: object) -> None:
        try:
            answer = await self._surroundings.consult(self, ask)
        finally:
            self._share.questions.release_on_behalf_of(token)
        self.send(answer)

    async def _deliver(self, answer: Answer) -> None:
        async with self._answered:
            if answer.number in self._answers:
                self._answers[answer.number] = answer
                self._answered.notify_all()

    async def ask(self, topic: int, body: bytes) -> Answer:
        """Ask the peer's directory. Raises NetworkError if the connection ends first."""
        self._asked += 1
        number = self._asked
        self._answers[number] = None
        self.send(Ask(number, topic, body))
        try:
            async with self._answered:
                while (answer := self._answers[number]) is None:
                    if self._session.state is State.CLOSED:
                        raise NetworkError("the connection ended before the answer came")
                    await self._answered.wait()
        finally:
            del self._answers[number]
        return answer

    # Writing

    def send(self, frame: Frame) -> None:
        """Queue a frame that must not be lost. Closes on a peer that never reads."""
        raw = encode_frame(frame)
        frames, size = len(self._queue), self._queued_bytes + len(raw)
        if frames >= QUEUE_FRAMES_MAX * 4 or size > UNREAD_BYTES_MAX:
            self._fail(NetworkError("the peer does not read what it is sent"))
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

    def changed(self) -> None:
        """Soon tell the peer which heads changed."""
        for effect in self._session.pushed(self._now()):
            if isinstance(effect, Wake):
                self._wake(effect.at)

    def have(self, holdings: Sequence[Holding]) -> None:
        """Tell the peer who stores what."""
        if self.open and holdings:
            self.send(Have(tuple(holdings)))

    def _enqueue(self, raw: bytes) -> None:
        self._queue.append(raw)
        self._queued_bytes += len(raw)
        self._work.set()

    async def _write_frames(self) -> None:
        while True:
            while self._queue:
                await self._send_some()
            effects = self._session.idle()
            if effects:
                await self._carry_out(effects)
                continue
            if not self._queue:
                self._work = trio.Event()
                await self._work.wait()

    async def _send_some(self) -> None:
        """Send what waits, many frames at once, in one call."""
        batch = []
        size = 0
        while self._queue and size < SEND_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        self._queued_bytes -= size
        with trio.move_on_after(SEND_SECONDS_MAX) as scope:
            await self._stream.send_all(b"".join(batch))
        if scope.cancelled_caught:
            raise NetworkError("the peer does not read what it is sent")

    # Time

    def _wake(self, at: float) -> None:
        if at < self._wake_at:
            self._wake_at = at
            self._rescheduled.set()

    async def _keep_time(self) -> None:
        while True:
            self._rescheduled = trio.Event()
            with trio.move_on_at(self._wake_at):
                await self._rescheduled.wait()
                continue
            self._wake_at = float("inf")
            await self._carry_out(self._session.expired(self._now()))
            self._work.set()


def greeting_for(replica: Replica, key: bytes) -> Greeting:
    """Read what a session with this peer begins with, and draw its salt."""
    seen_incarnation, seen = replica.sharing.cursor(key)
    patience = BETWEEN_NODES if replica.owner == replica.agency else WITH_LEAF
    salt = os.urandom(SALT_BYTES)
    return Greeting(replica.store.incarnation, seen_incarnation, seen, salt, patience)


def _unwelcome(run: Run) -> Outcome:
    """It is no fault of a node that has not heard yet that its agency left the chat."""
    return Outcome(run.start, surplus=True)


def _by_chain(holdings: Sequence[Holding]) -> dict[Hashable, Holding]:
    return {(one.agency, one.chat, one.device, one.lane): one for one in holdings}
