"""A disk: jobs become durable a while after they ran, and a crash in between undoes them.

The transaction is the real one (`node.transaction`) over a real SQLite in memory; what a real disk
does to its own bytes in a power cut is shown by other tests. Jobs that come while a commit is on
its way share the next one, as in `node.journal`; reads wait for it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import apsw

from node.errors import StorageError
from node.journal import JOBS_TRANSACTION_MAX
from node.transaction import Job, Transaction
from tests.simulator.clockwork import Clockwork

SYNC_SECONDS = (0.0002, 0.004)
SLOW_SYNC_SECONDS = 0.5
SLOW_SHARE = 0.01


@dataclass(slots=True)
class Faults:
    """What a disk does wrong now. failing: share of syncs that fail. full: all of them do."""

    failing: float = 0.0
    full: bool = False


class _Waiting(Job):
    """A job, and who is told of its end."""

    def __init__(self, work: Callable[[], None], ended: Callable[[Exception | None], None]) -> None:
        super().__init__(work)
        self.ended = ended


class Disk:
    """The disk under one party's database. durable: called after each commit."""

    def __init__(
        self, clock: Clockwork, name: str, transaction: Transaction, durable: Callable[[], None]
    ) -> None:
        self.faults = Faults()
        self.syncs = 0
        self._clock = clock
        self._chance: Random = clock.stream("disk", name)
        self._transaction = transaction
        self._durable = durable
        self._queue: deque[_Waiting] = deque()
        self._reads: deque[Callable[[], None]] = deque()
        self._under_way: list[_Waiting] = []
        self._busy = False
        self._dead = False

    def write(self, work: Callable[[], None], ended: Callable[[Exception | None], None]) -> None:
        """Run `work` in a transaction; say `ended` once that is durable, or why it is not."""
        self._queue.append(_Waiting(work, ended))
        if not self._busy:
            self._busy = True
            self._clock.after(0.0, self._begin)

    def read(self, work: Callable[[], None]) -> None:
        """Run `work` when no commit is under way: at once, or right after it."""
        if self._under_way:
            self._reads.append(work)
        else:
            self._transaction.begun()
            work()

    def write_beside(self, transaction: Transaction, work: Callable[[], None]) -> Exception | None:
        """Run `work` in a transaction of another process, all at once; return why it failed.

        Call while no commit is under way: a database has one writer.
        """
        job = Job(work)
        try:
            _, durable = transaction.begin([job])
            self._try_to_sync()
            transaction.commit()
        except apsw.Error as error:
            transaction.roll_back([job], error)
        else:
            self._durable()
            durable()
        return job.error

    def crash(self) -> None:
        """Lose what is not durable, and answer nobody any more."""
        self._dead = True
        if self._under_way:
            self._transaction.roll_back([], apsw.IOError("the power is gone"))

    def _begin(self) -> None:
        if self._dead:
            return
        count = min(len(self._queue), JOBS_TRANSACTION_MAX)
        jobs = [self._queue.popleft() for _ in range(count)]
        self._under_way = jobs
        try:
            _, durable = self._transaction.begin(jobs)
        except apsw.Error as error:
            self._fail(error)
            return
        slow = self._chance.random() < SLOW_SHARE
        seconds = SLOW_SYNC_SECONDS if slow else self._chance.uniform(*SYNC_SECONDS)
        self._clock.after(seconds, lambda: self._sync(durable))

    def _sync(self, durable: Callable[[], object]) -> None:
        if self._dead:
            return
        self.syncs += 1
        try:
            self._try_to_sync()
        except apsw.Error as error:
            self._fail(error)
            return
        self._transaction.commit()
        self._durable()
        durable()
        self._end()

    def _try_to_sync(self) -> None:
        """Raises apsw.Error while the disk is full or fails."""
        faults = self.faults
        if faults.full:
            raise apsw.FullError("no space")
        if faults.failing and self._chance.random() < faults.failing:
            raise apsw.IOError("no sync")

    def _fail(self, error: apsw.Error) -> None:
        self._transaction.roll_back(self._under_way, error)
        self._end()

    def _end(self) -> None:
        """Tell those who waited, in order, and go on with what came meanwhile."""
        jobs, self._under_way = self._under_way, []
        while self._reads and not self._dead:
            self._reads.popleft()()
        for job in jobs:
            if not self._dead:
                job.ended(job.error)
        if self._queue and not self._dead:
            self._begin()
        else:
            self._busy = False


def failed(error: Exception | None) -> bool:
    """Whether the disk is why a job failed."""
    return isinstance(error, StorageError)
