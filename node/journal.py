"""Group commit: many jobs, one transaction, one fsync; nobody is answered before it (SPEC 10).

A job is a plain function that reads and writes the replica. Jobs that arrive while a commit is on
its way share the next one. COMMIT runs in a thread, where SQLite waits for the disk without the
interpreter's lock; the lock here keeps everyone else off the connection meanwhile. Only where the
disk is so fast that the way to the thread and back takes longer, a small COMMIT runs in place.
"""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import apsw
import structlog
import trio

from node.transaction import Job, Transaction

log = structlog.get_logger()

Result = TypeVar("Result")

JOBS_WAITING_MAX = 1024
JOBS_TRANSACTION_MAX = 256
SMALL_CHANGES_MAX = 64  # rows
SMALL_SECONDS_MAX = 0.002
REST_SHARE = 3.0  # how long nobody reads much, by the time that somebody did; guess


class _Job(Job):
    """A job that somebody waits for. durable: called once it is, even if nobody waits any more."""

    def __init__(self, work: Callable[[], None], durable: Callable[[], object]) -> None:
        super().__init__(work)
        self._durable = durable
        self.done = trio.Event()

    def settle(self) -> None:
        """Tell what became of it. Our own bug there is this job's, and ends nobody else's."""
        try:
            if self.error is None:
                self._durable()
        except Exception as error:
            log.exception("a bug ended a job")
            self.error = error
        self.done.set()


class Journal:
    """The one owner of a connection while a node runs; see `Transaction` for the arguments."""

    def __init__(
        self,
        connection: apsw.Connection,
        forget: Callable[[], None],
        begun: Callable[[], object] = bool,
        ending: Callable[[], Callable[[], object]] = lambda: bool,
    ) -> None:
        self._transaction = Transaction(connection, forget, begun, ending)
        self._lock = trio.Lock()
        self._leisure = trio.Lock()
        self._rested = -math.inf
        self._small_seconds = 0.0  # of late; of a small COMMIT
        # Of its own: others' wait for names that nobody resolves, or for the disk of large files.
        self._thread = trio.CapacityLimiter(1)
        self._send, self._receive = trio.open_memory_channel[_Job](JOBS_WAITING_MAX)

    async def write(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a transaction; return its result once that is durable.

        Raises what `work` raised if that was a PeerError or IvorError, and StorageError when the
        disk failed; either way nothing that the job wrote is kept.
        """
        pending = await self.begin(work)
        return await pending()

    async def begin(
        self, work: Callable[[], Result], durable: Callable[[Result], object] = bool
    ) -> Callable[[], Awaitable[Result]]:
        """Queue `work` for a transaction; await what is returned for what `write` returns.

        Jobs are carried out in the order in which they were queued. durable: gets the result once
        that is durable, in that order, whether or not anybody still waits.
        """
        results: list[Result] = []
        job = _Job(lambda: results.append(work()), lambda: durable(results[0]))
        await self._send.send(job)

        async def pending() -> Result:
            await job.done.wait()
            if job.error is not None:
                raise job.error
            return results[0]

        return pending

    async def read(self, work: Callable[[], Result]) -> Result:
        """Run `work`, which only reads, between two transactions."""
        async with self._lock:
            try:
                self._transaction.begun()
                return work()
            except apsw.Error as error:
                raise self._transaction.failed(error, "the database cannot be read") from error

    @asynccontextmanager
    async def at_leisure(self) -> AsyncIterator[None]:
        """Wait for the right to read much, in many small calls of `read`.

        One at a time has it, and all together for a part of the time, so others go on being served
        whoever asks for it.
        """
        async with self._leisure:
            await trio.sleep_until(self._rested)
            begun = trio.current_time()
            try:
                yield
            finally:
                now = trio.current_time()
                self._rested = now + REST_SHARE * (now - begun)

    async def run(self) -> None:
        """Carry out jobs for ever."""
        async for first in self._receive:
            jobs = [first]
            while len(jobs) < JOBS_TRANSACTION_MAX:
                try:
                    jobs.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            with trio.CancelScope(shield=True):
                await self._commit(jobs)

    async def _commit(self, jobs: list[_Job]) -> None:
        async with self._lock:
            try:
                changes, durable = self._transaction.begin(jobs)
                await self._end(changes)
                durable()
            except apsw.Error as error:
                self._transaction.roll_back(jobs, error)
        for job in jobs:
            job.settle()

    async def _end(self, changes: int) -> None:
        small = changes <= SMALL_CHANGES_MAX
        if small and self._small_seconds < SMALL_SECONDS_MAX:
            seconds = self._sync()
        else:
            seconds = await trio.to_thread.run_sync(self._sync, limiter=self._thread)
        if small:
            self._small_seconds += (seconds - self._small_seconds) / 8

    def _sync(self) -> float:
        """Commit; return the seconds that it took."""
        begun = time.monotonic()
        self._transaction.commit()
        return time.monotonic() - begun
