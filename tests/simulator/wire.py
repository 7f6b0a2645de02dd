"""Connections in simulated time: the real dealing at each end, a wire with faults between them.

A wire is a TCP connection: what arrives, arrives in order and once. So loss is a connection that is
cut with all that was on its way, repetition is what a new connection sends again, and only frames
of different connections overtake each other. A direction that is blocked holds frames back, as TCP
does, until it opens or a side gives up.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec import structs

from node.dealing import Dealing
from node.errors import IvorError, StorageError
from node.pacing import PAUSE_SECONDS, Batch
from node.replica import Replica
from node.share import RUNS_IN_FLIGHT_MAX
from node.step import (
    Acknowledge,
    After,
    Keep,
    Kept,
    Look,
    Note,
    Step,
    Steps,
    Store,
    Try,
    Writing,
)
from node.surroundings import Surroundings
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
    LENGTH_BYTES,
    Answer,
    Ask,
    Error,
    Frame,
    Have,
    Hello,
    Holding,
    authentic,
    decode_frame,
    encode_frame,
    frame_length,
)
from protocol.intake import Intake
from protocol.limits import HEADS_CHAINS_MAX
from protocol.reconcile import Survey as Gathering
from protocol.reconcile import Table
from protocol.run import Entry
from protocol.session import Greeting, PeerKind, State
from tests.simulator.clockwork import Clockwork
from tests.simulator.disk import Disk
from tests.simulator.trace import Trace

Thunk = Callable[[], Sequence["Item"]]
Item = Step | Thunk
EOF_SECONDS = 0.01
KEEP_ALIVE_SECONDS = 60.0  # until TCP notices that nobody is there
SLICE_SECONDS = 0.01  # between two slices of a survey


class Weather(Protocol):
    """What the network does just now."""

    clock: Clockwork
    trace: Trace
    dirty: list["Line"]

    def blocked(self, source: str, target: str) -> bool:
        """Whether nothing passes in this direction."""

    def delay(self, source: str, target: str) -> float:
        """How long the next frame takes, in seconds."""

    def drops(self, source: str, target: str) -> bool:
        """Whether the connection is lost with the next frame."""

    def crossing(self, source: "Line", raw: bytes) -> None:
        """A frame of an honest party leaves: look at it."""

    def arriving(self, target: "Line", frame: Frame) -> None:
        """A frame of an honest party has arrived: look at it."""

    def ended(self, line: "Line") -> None:
        """A connection is over."""

    def bug(self, where: str, error: Exception) -> None:
        """An exception that no peer may cause."""


class Owner(Protocol):
    """The party at an end of a wire."""

    name: str
    honest: bool
    disk: Disk
    replica: Replica

    def opened(self, line: "Line") -> None:
        """The peer has greeted."""

    def closed(self, line: "Line") -> None:
        """The connection is over."""

    def tamper(self, line: "Line", raw: bytes) -> Sequence[bytes]:
        """What really goes out in the place of a frame."""

    def consult(self, line: "Line", ask: Ask) -> None:
        """The peer asks something: answer, some time."""

    def looked_ahead(self, chat: ChatId, entries: Sequence[Entry]) -> None:
        """The end of a chat has come, to be shown."""


class Task:
    """Steps in their order; one that waits for the disk holds up those behind it."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self._steps: deque[Item] = deque()
        self._waiting = False
        self._running = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._steps and not self._waiting

    def take(self, *steps: Item) -> None:
        """Do these after the rest; a thunk gives steps once its turn has come."""
        self._steps.extend(steps)
        self.go_on()

    def go_on(self) -> None:
        """Do what can be done now."""
        if self._running:
            return
        self._running = True
        while self._steps and not self._waiting and not self._line.over:
            step = self._steps.popleft()
            thunk = step if callable(step) else partial(self._line.perform, step, self)
            self.put_first(self._line.guarded(thunk))
        self._running = False

    def put_first(self, steps: Sequence[Item]) -> None:
        """Do these before the rest."""
        self._steps.extendleft(reversed(steps))

    def wait(self) -> None:
        """Hold up what follows."""
        self._waiting = True

    def resume(self, thunk: Thunk) -> None:
        """Go on with what a thunk gives."""
        self._waiting = False
        self._steps.appendleft(thunk)
        self.go_on()
        self._line.worked()


class Pacing:
    """Hands on holdings in batches, as `node.pacing`. work: gives the steps for a batch."""

    def __init__(self, line: "Line", work: Callable[[Sequence[Holding]], Steps]) -> None:
        self._line = line
        self._work = work
        self._task = Task(line)
        self._batch = Batch()
        self._running = False

    def add(self, holdings: Sequence[Holding]) -> None:
        """Hand on holdings now, or with the next batch."""
        self._batch.add(holdings)
        if not self._running:
            self._hand_on()

    def _hand_on(self) -> None:
        batch = self._batch.take()
        self._running = bool(batch)
        if batch:
            self._task.take(lambda: self._work(batch), self._rest)
            self._line.worked()

    def _rest(self) -> Steps:
        self._line.later(PAUSE_SECONDS, self._hand_on)
        return ()


class Line(Dealing):
    """One end of a wire: a driver of steps, as `node.driver`, with a heap instead of tasks."""

    def __init__(
        self,
        weather: Weather,
        owner: Owner,
        peer: PeerKind,
        key: bytes,
        greeting: Greeting,
        told: Surroundings,
    ) -> None:
        super().__init__(peer, key, greeting, owner.replica, told, lambda: weather.clock.now)
        self.owner = owner
        self.failure: Exception | None = None
        self.over = False
        self.wire: Wire | None = None
        self._weather = weather
        self._dirty = False
        self._wake_at = float("inf")
        self._reader, self._writer, self._keeper, self._finisher = (Task(self) for _ in range(4))
        self._acknowledging = Pacing(self, self._acknowledge)
        self._noting = Pacing(self, self._note)
        self._slots: deque[list[Thunk]] = deque()
        self._held_up: list[Task] = []
        self._asking: dict[int, Callable[[Answer | None], None]] = {}
        self._asked = 0

    @property
    def queued_bytes(self) -> int:
        """How much waits to be sent."""
        return self._queued_bytes

    @property
    def intake(self) -> Intake:
        """What the session holds for its peer."""
        return self._session._intake

    def begin(self) -> None:
        """Greet."""
        self._keeper.take(self.start)

    def preview(self, chat: ChatId) -> None:
        """Have the end of a chat shown, once, if it is far from what is here."""
        self._keeper.take(lambda: self.look_ahead(chat))
        self.worked()

    def ask_for_payloads(self) -> None:
        """Ask for what came dropped and should not have, as a node does every hour."""
        self._finisher.take(self.want_payloads)
        self.worked()

    def arrive(self, raw: bytes) -> None:
        """Take an encoded frame."""
        self._reader.take(lambda: self._hear(raw))
        self.worked()

    def _hear(self, raw: bytes) -> Sequence[Item]:
        frame_length(raw[:LENGTH_BYTES], self.frame_limit)
        frame = decode_frame(raw[LENGTH_BYTES:])
        self._weather.arriving(self, frame)
        greeting = not self.open
        steps = self.receive(frame)
        return [*steps, self._opened] if greeting and self.open else steps

    def _opened(self) -> Steps:
        self.owner.opened(self)
        return self.greeted()

    def guarded(self, thunk: Thunk) -> Sequence[Item]:
        """Run something; what a peer may cause ends the connection, all else is a bug."""
        try:
            return thunk()
        except (PeerError, IvorError) as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - the simulator reports it
            self._weather.bug(self.owner.name, error)
            self.fail(error)
        return ()

    def perform(self, step: Step, task: Task) -> Steps:
        """Take a step; return those that it turns into."""
        match step:
            case Send(frame):
                self.send(self._varied(frame))
            case Wake(at):
                self.wake(at)
            case Acknowledge(holdings) | Note(holdings):
                noted = isinstance(step, Note)
                (self._noting if noted else self._acknowledging).add(holdings)
            case Consult() | Deliver():
                self._consult(step)
            case LoadChunk(want):  # there are no blobs here
                return self.chunk_loaded(want, None)
            case Preview(runs):
                entries = [entry for run in runs for entry in authentic(run)]
                self.owner.looked_ahead(runs[0].chat, entries)
            case TakeChunk():
                pass
            case Close():
                self.close()
            case Look() | Keep() | Try() | Store() | Survey():
                self._work_at(step, task)
        return ()

    def _survey(self, gathered: Gathering, table: Table | None, after: int) -> None:
        """Gather all heads that the peer may see, in slices, as `node.survey` does."""

        def look() -> None:
            if self.over:
                return
            sharing = self._replica.sharing
            whole = Table(sharing.newest_change()) if table is None else table
            heads, rest = sharing.survey(self.key, after)
            gathered.add(heads)
            if rest is not None:
                again = partial(self._survey, gathered, whole, rest)
                self._weather.clock.after(SLICE_SECONDS, again)
                return
            for piece in gathered.pieces():
                whole.extend(piece)
            self._finisher.take(lambda: self.surveyed(whole))
            self.worked()

        self.owner.disk.read(look)

    def _acknowledge(self, holdings: Sequence[Holding]) -> Steps:
        return [
            Send(Have(tuple(holdings[at : at + HEADS_CHAINS_MAX])))
            for at in range(0, len(holdings), HEADS_CHAINS_MAX)
        ]

    def _note(self, holdings: Sequence[Holding]) -> Steps:
        return [Keep(lambda: self.note(holdings))]

    def later(self, seconds: float, then: Callable[[], None]) -> None:
        """Do something after a while, if the session goes on."""
        self._weather.clock.after(seconds, lambda: None if self.over else then())

    def _varied(self, hello: Frame) -> Frame:
        """Greet with a version more than there is, now and then, as a newer program would."""
        if not isinstance(hello, Hello):
            return hello
        chance = self._weather.clock.stream("versions", self.owner.name)
        newer = (*hello.versions, 9) if chance.random() < 0.2 else hello.versions
        return structs.replace(hello, versions=newer)

    def _work_at(self, step: Look | Keep | Try | Store | Survey, task: Task) -> None:
        disk = self.owner.disk
        match step:
            case Look(work):
                task.wait()
                disk.read(lambda: self._looked(work, task))
            case Keep(writing) | Try(writing):
                task.wait()
                left: list[Kept] = []

                def kept(error: Exception | None) -> None:
                    _tell(left, error)
                    task.resume(lambda: _after(left, _that_matters(step, error)))

                disk.write(lambda: left.append(writing()), kept)
            case Store(writing):
                self._store(writing, task)
            case Survey(key):
                self._survey(Gathering(key), None, 0)

    def _looked(self, work: Callable[[], After], task: Task) -> None:
        if self.over:
            return
        try:
            then = work()
        except (PeerError, IvorError) as error:
            self.fail(error)
            return
        except Exception as error:  # noqa: BLE001 - the simulator reports it
            self._weather.bug(self.owner.name, error)
            self.fail(error)
            return
        task.resume(then)

    def _store(self, work: Writing, task: Task) -> None:
        slot: list[Thunk] = []
        self._slots.append(slot)
        left: list[Kept] = []
        if len(self._slots) >= RUNS_IN_FLIGHT_MAX:
            self._held_up.append(task)
            task.wait()

        def ended(error: Exception | None) -> None:
            _tell(left, error)
            if self.over:
                return
            slot.append(lambda: _after(left, error))
            while self._slots and self._slots[0]:
                self._finisher.take(self._slots.popleft()[0])
            while self._held_up and len(self._slots) < RUNS_IN_FLIGHT_MAX:
                self._held_up.pop().resume(tuple)

        self.owner.disk.write(lambda: left.append(work()), ended)

    # Questions

    def ask(
        self, topic: int, body: bytes, then: Callable[[Answer | None], None], seconds: float
    ) -> None:
        """Put a question to the peer. then: gets the answer, or None if none came in time."""
        self._asked += 1
        number = self._asked
        self._asking[number] = then
        self.say(Ask(number, topic, body))
        pause = 0.0 if self.over else seconds
        self._weather.clock.after(pause, lambda: self._answered(number, None))

    def _consult(self, step: Consult | Deliver) -> None:
        match step:
            case Consult(ask):
                self.owner.consult(self, ask)
            case Deliver(answer):
                self._answered(answer.number, answer)

    def _answered(self, number: int, answer: Answer | None) -> None:
        then = self._asking.pop(number, None)
        if then is not None:
            then(answer)

    def say(self, frame: Frame) -> None:
        """Send a frame, if the connection is still there."""
        if not self.over:
            self.send(frame)
            self.worked()

    # What waits to be sent, and time

    def worked(self) -> None:
        """A frame waits to be sent, or there may be more to serve."""
        if not self._dirty and not self.over:
            self._dirty = True
            self._weather.dirty.append(self)

    def pump(self) -> None:
        """Send what waits, then serve."""
        self._dirty = False
        while not self.over:
            for raw in self.take_queued():
                for sent in self.owner.tamper(self, raw):
                    if self.wire is not None:
                        self.wire.carry(self, sent)
            if self._queue:
                continue
            steps = () if not self._writer.idle else self.guarded(self.idle)
            if not steps:
                return
            self._writer.take(*steps)

    def wake(self, at: float) -> None:
        """Look at the deadlines at this time."""
        if at < self._wake_at:
            self._wake_at = at
            self._weather.clock.at(at, lambda: self._woken(at))

    def _woken(self, at: float) -> None:
        if self.over or at != self._wake_at:
            return
        self._wake_at = float("inf")
        self._keeper.take(self.expired)
        self.worked()

    def fail(self, error: Exception) -> None:
        """End the session, saying why where the peer is to hear it."""
        if self.over:
            return
        self.failure = error
        if isinstance(error, PeerError) and self.wire is not None:
            self.wire.carry(self, encode_frame(Error(error.code, str(error).encode()[:512])))
        self.close()

    def close(self) -> None:
        """End the connection; the peer notices."""
        if self.over:
            return
        self.end()
        if self.wire is not None:
            self.wire.hang_up(self)

    def end(self) -> None:
        """The connection is gone."""
        if self.over:
            return
        self.over = True
        self._session.state = State.CLOSED
        for number in self._asking:
            self._weather.clock.after(0.0, partial(self._answered, number, None))
        self._weather.trace.note(
            self._weather.clock.now, self.owner.name, "closed", str(self.failure or "")
        )
        self.owner.closed(self)
        self._weather.ended(self)


def _that_matters(step: Step, error: Exception | None) -> Exception | None:
    return None if isinstance(step, Try) and isinstance(error, StorageError) else error


def _tell(left: Sequence[Kept], error: Exception | None) -> None:
    """Tell others what is durable, whatever has become of the line."""
    if error is None and left:
        left[0].tell()


def _after(left: Sequence[Kept], error: Exception | None) -> Steps:
    """What a job left to its session. Raises what the job raised."""
    if error is not None:
        raise error
    return left[0].then() if left else ()


class Wire:
    """One connection between two parties."""

    def __init__(self, weather: Weather, one: Line, other: Line) -> None:
        self.ends = (one, other)
        self._weather = weather
        self._latest = [0.0, 0.0]
        self._held: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        one.wire = other.wire = self

    def begin(self) -> None:
        """Let both ends greet."""
        for end in self.ends:
            end.begin()

    def carry(self, source: Line, raw: bytes) -> None:
        """Bring a frame to the other end, some time."""
        way = self.ends.index(source)
        one, other = source.owner.name, self.ends[1 - way].owner.name
        if source.owner.honest:
            self._weather.crossing(source, raw)
        if self._weather.drops(one, other):
            self._weather.trace.note(self._weather.clock.now, one, "lost", other)
            self.cut()
        elif self._weather.blocked(one, other):
            self._held[way].append(raw)
        else:
            self._fly(way, raw)

    def _fly(self, way: int, raw: bytes) -> None:
        clock = self._weather.clock
        source, target = self.ends[way], self.ends[1 - way]
        names = source.owner.name, target.owner.name
        began = clock.now
        at = max(self._latest[way], began + self._weather.delay(*names))
        self._latest[way] = at

        def land() -> None:
            if not target.over:
                self._weather.trace.arrived(began, clock.now, names, raw)
                target.arrive(raw)

        clock.at(at, land)

    def cleared(self) -> None:
        """Let go what was held back in a direction that is open again."""
        for way, held in enumerate(self._held):
            names = self.ends[way].owner.name, self.ends[1 - way].owner.name
            while held and not self._weather.blocked(*names):
                self._fly(way, held.popleft())

    def hang_up(self, source: Line) -> None:
        """One side has closed: the other notices, late if nothing reaches it."""
        way = self.ends.index(source)
        target = self.ends[1 - way]
        names = source.owner.name, target.owner.name
        clock = self._weather.clock
        blocked = self._weather.blocked(*names)
        seconds = KEEP_ALIVE_SECONDS if blocked else EOF_SECONDS
        clock.at(max(self._latest[way], clock.now) + seconds, target.end)

    def cut(self) -> None:
        """Lose the connection and all that is on its way."""
        for end in self.ends:
            end.end()
