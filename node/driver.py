"""One connection: reads frames, drives a dealing, and takes the steps that it leaves (SPEC 6.5).

Three tasks a connection: one reads, one writes, one keeps time. A fourth kind, short-lived and
bounded in number, waits for a run to become durable and only then tells the session, so reading
and hashing the next run goes on while the disk works on this one. Whatever reads the database or
hashes is done in the peer's turn, and charged to it (`node.share`).
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import structlog
import trio

from node.dealing import Dealing
from node.errors import IvorError, NetworkError, StorageError
from node.journal import Journal
from node.pacing import Pacer
from node.replica import Replica
from node.share import Share
from node.step import Acknowledge, Keep, Kept, Look, Note, Step, Steps, Store, Try, Writing
from node.surroundings import Surroundings as Told
from node.survey import survey
from node.wire import FrameReader
from protocol.effect import (
    Close,
    Consult,
    Deliver,
    LoadChunk,
    Preview,
    Send,
    Survey,
    TakeChunk,
    Wake,
)
from protocol.entry import ChatId
from protocol.errors import PeerError
from protocol.frame import (
    Answer,
    Ask,
    Blob,
    Bye,
    Error,
    Frame,
    Have,
    Holding,
    Lacking,
    Run,
    WantBlob,
    authentic,
    decode_frame,
    encode_frame,
)
from protocol.limits import HEADS_CHAINS_MAX
from protocol.run import Entry
from protocol.session import Greeting, PeerKind, State

log = structlog.get_logger()

SEND_SECONDS_MAX = 60.0
CLOSE_SECONDS_MAX = 2.0


class Surroundings(Told, Protocol):
    """What a connection tells, and asks, the rest of its node or device."""

    def share(self, key: bytes) -> Share:
        """Return what all sessions of a peer have together."""

    def opened(self, connection: "Connection") -> None:
        """The peer has greeted."""

    async def consult(self, connection: "Connection", ask: Ask) -> Answer:
        """Answer a question of the peer."""

    async def load_chunk(self, want: WantBlob, source: "Connection") -> Blob | None:
        """Read the first chunk that a peer asks for; None if it has none to get."""

    def took_chunk(self, frame: Blob | Lacking, source: "Connection") -> None:
        """A peer brings a chunk of a blob, or lacks some."""


class Connection(Dealing):
    """A dealing with its stream."""

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
        super().__init__(peer, key, greeting, replica, surroundings, trio.current_time)
        self.failure: Exception | None = None
        self._stream = stream
        self._journal = journal
        self._surroundings = surroundings
        self._work = trio.Event()
        self._wake_at = float("inf")
        self._rescheduled = trio.Event()
        self._share = surroundings.share(key)
        self._told_of_newest = trio.Event()
        self._told_of_newest.set()
        self._previewing: dict[ChatId, list[Callable[[Sequence[Entry]], Awaitable[None]]]] = {}
        self._answers: dict[int, Answer | None] = {}
        self._answered = trio.Condition()
        self._asked = 0
        self._acknowledging = Pacer(self._start, self._acknowledge)
        self._noting = Pacer(self._start, self._note)
        self._scope = trio.CancelScope()

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
        self._session.state = State.CLOSED
        self._scope.cancel()

    def accuse(self, error: PeerError) -> None:
        """End the session with a peer that broke SPEC, and tell it so."""
        self.fail(error)

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
            self.fail(error)
        except Exception as error:  # our bug, met by one peer: the others go on
            log.exception("a bug ended a session", kind=self.peer.value)
            self.fail(error)

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._guard, task)

    def fail(self, error: Exception) -> None:
        """End the session, and remember why."""
        if self.failure is None:
            self.failure = error
        self._scope.cancel()

    # Reading

    async def _read_frames(self) -> None:
        await self._carry_out(self.start())
        reader = FrameReader(self._stream, lambda: self.frame_limit)
        while (body := await reader.body()) is not None:
            greeting = not self.open
            async with self._share.turn():
                steps = self._share.charged(partial(self._hear, body))()
            await self._carry_out(steps)
            self._work.set()
            if greeting and self.open:
                self._surroundings.opened(self)
                await self._carry_out(self.greeted())

    def _hear(self, body: bytes) -> Steps:
        return self.receive(decode_frame(body))

    async def _carry_out(self, steps: Steps) -> None:
        for step in steps:
            await self._take(step)

    async def _take(self, step: Step) -> None:
        match step:
            case Send(frame):
                self.send(frame)
            case Wake(at):
                self.wake(at)
            case Look() | Keep() | Try() | Store() | Survey() | LoadChunk() | TakeChunk():
                await self._work_at(step)
            case Acknowledge(holdings):
                await self._acknowledging.add(holdings)
            case Note(holdings):
                await self._noting.add(holdings)
            case Consult(ask):
                await self._begin_answer(ask)
            case Deliver(answer):
                await self._deliver(answer)
            case Preview(runs):
                await self._show(runs)
            case Close():
                self._scope.cancel()

    async def _work_at(
        self, step: Look | Keep | Try | Store | Survey | LoadChunk | TakeChunk
    ) -> None:
        match step:
            case Look(work):
                async with self._share.turn():
                    then = await self._journal.read(self._share.charged(work))
                    steps = self._share.charged(then)()
                await self._carry_out(steps)
            case Keep(work):
                await self._keep_for(work)
            case Try(work):
                try:
                    await self._keep_for(work)
                except StorageError as error:
                    log.warning("how far a peer has told us is not kept", reason=str(error))
            case Store(work):
                await self._store(work)
            case Survey(key):
                self._start(partial(self._survey, key))
            case LoadChunk(want):
                async with self._share.turn():
                    chunk = await self._surroundings.load_chunk(want, self)
                await self._carry_out(self.chunk_loaded(want, chunk))
            case TakeChunk(frame):
                self._surroundings.took_chunk(frame, self)

    async def _keep_for(self, work: Writing) -> None:
        """Write for the peer: queued in its turn, and at its expense."""
        async with self._share.turn():
            pending = await self._journal.begin(self._share.charged(work), _tell)
        kept = await pending()
        await self._carry_out(self._share.charged(kept.then)())

    async def _store(self, work: Writing) -> None:
        """Queue the work, and let a task wait for the disk."""
        token, told = object(), trio.Event()
        async with self._share.turn():
            await self._share.runs.acquire_on_behalf_of(token)
            before, self._told_of_newest = self._told_of_newest, told
            try:
                pending = await self._journal.begin(self._share.charged(work), _tell)
            except BaseException:  # also where the session ends: the peer may have another
                self._share.runs.release_on_behalf_of(token)
                raise
            self._nursery.start_soon(
                self._guard, partial(self._finish, token, pending, before, told)
            )

    async def _finish(
        self,
        token: object,
        pending: Callable[[], Awaitable[Kept]],
        before: trio.Event,
        told: trio.Event,
    ) -> None:
        """Wait for the disk; tell of runs in the order they came, as one commit ends many."""
        try:
            kept = await pending()
        finally:
            self._share.runs.release_on_behalf_of(token)
        await before.wait()
        await self._carry_out(self._share.charged(kept.then)())
        told.set()

    async def _survey(self, key: bytes) -> None:
        table = await survey(self._replica.sharing, self._journal, self.key, key)
        await self._carry_out(self._share.charged(partial(self.surveyed, table))())
        self._work.set()

    async def _note(self, holdings: list[Holding]) -> None:
        await self._take(Keep(lambda: self.note(holdings)))

    async def _acknowledge(self, holdings: list[Holding]) -> None:
        for at in range(0, len(holdings), HEADS_CHAINS_MAX):
            self.send(Have(tuple(holdings[at : at + HEADS_CHAINS_MAX])))

    async def ask_for_payloads(self) -> None:
        """Ask the peer for payloads that came dropped and should not have."""
        await self._carry_out(self.want_payloads())

    async def preview(
        self, chat: ChatId, show: Callable[[Sequence[Entry]], Awaitable[None]]
    ) -> None:
        """Have the end of a chat shown, once, if it is far from what is here (SPEC 6.3).

        show: gets authentic entries, judged by nobody. Who asks meanwhile is shown the same.
        """
        self._previewing.setdefault(chat, []).append(show)
        await self._carry_out(self.look_ahead(chat))

    async def _show(self, runs: Sequence[Run]) -> None:
        entries = [entry for run in runs for entry in authentic(run)]
        for show in self._previewing.pop(runs[0].chat, ()):
            await show(entries)

    # Questions

    async def _begin_answer(self, ask: Ask) -> None:
        token = object()
        async with self._share.turn():
            await self._share.questions.acquire_on_behalf_of(token)
        self._nursery.start_soon(self._guard, lambda: self._consult(ask, token))

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

    def worked(self) -> None:
        """A frame waits to be sent."""
        self._work.set()

    async def _write_frames(self) -> None:
        while True:
            while batch := self.take_queued():
                await self._send_all(b"".join(batch))
            steps = self.idle()
            if steps:
                await self._carry_out(steps)
                continue
            if not self._queue:
                self._work = trio.Event()
                await self._work.wait()

    async def _send_all(self, data: bytes) -> None:
        with trio.move_on_after(SEND_SECONDS_MAX) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise NetworkError("the peer does not read what it is sent")

    # Time

    def wake(self, at: float) -> None:
        """Look at the deadlines at this time."""
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
            await self._carry_out(self.expired())
            self._work.set()


def _tell(kept: Kept) -> None:
    kept.tell()
