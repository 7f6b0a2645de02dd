"""The product's own coroutines in simulated time: what they wait for is on the heap.

    Running(party, visit.run(), ended)      # goes on, step by step, while the party's process lives

A coroutine waits for a disk or for an answer, and for nothing else: what of trio it uses stands in
here. Its clock is the party's.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar
from unittest import mock

from node.errors import NetworkError
from protocol.frame import Answer
from tests.simulator.clockwork import Clockwork
from tests.simulator.disk import Disk
from tests.simulator.wire import Line

Given = ParamSpec("Given")
Result = TypeVar("Result")
Waiting = Callable[[Callable[[], None]], None]
MILLISECONDS = 1000


class Process(Protocol):
    """Whose process a coroutine is in."""

    up: bool
    disk: Disk

    @property
    def wall(self) -> int:
        """The time by its own clock, in milliseconds."""


class Late(Exception):
    """Something did not come in time: as trio cancels what waits, up to whoever set the time."""


class _Wait(Awaitable[Result]):
    """Something that ends later. start: gets what to call with the outcome."""

    def __init__(self, start: Callable[[Callable[[Result], None]], object]) -> None:
        self._start = start

    def __await__(self) -> Generator[Waiting, None, Result]:
        found: list[Result] = []

        def begin(resume: Callable[[], None]) -> None:
            def ended(outcome: Result) -> None:
                found.append(outcome)
                resume()

            self._start(ended)

        yield begin
        return found[0]


class Running:
    """A coroutine that is running. ended: gets why it failed, or None."""

    def __init__(
        self,
        process: Process,
        work: Coroutine[Waiting, None, None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self.over = False
        self._process = process
        self._disk = process.disk
        self._work = work
        self._ended = ended
        self._step()

    def _step(self) -> None:
        """Go on with what was waited for, up to the next wait. A killed process does not."""
        if not self._process.up or self._process.disk is not self._disk:
            return
        try:
            with _clock_of(self._process):
                begin = self._work.send(None)
        except StopIteration:
            self.over = True
            self._ended(None)
        except Exception as error:  # noqa: BLE001 - whoever started it sees to it
            self.over = True
            self._ended(error)
        else:
            begin(self._step)


def _clock_of(process: Process) -> AbstractContextManager[object]:
    """Let the system's clock be the process's own."""

    def seconds() -> float:
        return process.wall / MILLISECONDS

    return mock.patch.object(time, "time", seconds)


class HeapJournal:
    """What `node.journal.Journal` is to a coroutine. written: called in each transaction."""

    def __init__(self, process: Process, written: Callable[[], object]) -> None:
        self._process = process
        self._disk = process.disk
        self._written = written

    async def write(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a transaction; return once that is durable."""
        found: list[Result] = []

        def done() -> None:
            with _clock_of(self._process):
                found.append(work())
            self._written()

        error = await _Wait[Exception | None](lambda ended: self._disk.write(done, ended))
        if error is not None:
            raise error
        return found[0]

    async def begin(self, work: Callable[[], Result]) -> Callable[[], Awaitable[Result]]:
        """Return what writes it: nobody here does anything else before that."""
        return partial(self.write, work)

    async def read(self, work: Callable[[], Result]) -> Result:
        """Run `work` when no commit is under way."""
        await _Wait[None](lambda ended: self._disk.read(lambda: ended(None)))
        return work()


async def pause(clock: Clockwork, seconds: float) -> None:
    """Wait a while."""
    await _Wait[None](lambda ended: clock.after(seconds, lambda: ended(None)))


async def put(line: Line, topic: int, body: bytes, seconds: float) -> Answer:
    """Put a question to a peer. Raises NetworkError if the line ends, Late if nothing comes."""
    said = await _Wait[Answer | None](lambda ended: line.ask(topic, body, ended, seconds))
    if said is not None:
        return said
    if line.over:
        raise NetworkError("the connection ended before the answer came")
    raise Late


# What of trio is used


class _Deadline:
    """Ends the block when something in it is late."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is Late


class _Nursery:
    """Runs its children one after the other, at the end of the block."""

    def __init__(self) -> None:
        self._children: list[Callable[[], Awaitable[None]]] = []

    def start_soon(
        self, child: Callable[Given, Awaitable[None]], *values: Given.args, **named: Given.kwargs
    ) -> None:
        self._children.append(lambda: child(*values, **named))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        for child in self._children if kind is None else ():
            await child()


class Trio:
    """Stands in for the module `trio`."""

    open_nursery = _Nursery

    @staticmethod
    def move_on_after(seconds: float) -> _Deadline:
        """Every question has its own time: see `put`."""
        del seconds
        return _Deadline()


class FreeShare:
    """A share of the node's time that nobody has to wait for."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def charged(self, work: Callable[[], Result]) -> Callable[[], Result]:
        return work

    def owes(self, seconds: float) -> None:
        """Nothing is charged."""
