"""One transaction of a replica: jobs that stand or fall together with the disk (SPEC 10).

    changes, durable = transaction.begin(jobs)   # each job ran, or has its error
    transaction.commit()                         # apsw.Error: the disk; then
    transaction.roll_back(jobs, error)           # nothing of it is kept
    durable()

Plain calls that wait for nothing but the disk: `journal` says when, and who is told.
"""

from collections.abc import Callable, Sequence

import apsw
import structlog

from node.disk import failed
from node.errors import IvorError, StorageError
from protocol.errors import PeerError

log = structlog.get_logger()


class Job:
    """One function that waits for its transaction, and what became of it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self.error: Exception | None = None


class Transaction:
    """What a transaction does on the one connection of a replica.

    forget: called after a rollback, to drop what was cached of the database. begun: called when
    the connection is ours, before any job: a device looks there whether another process wrote.
    ending: called after the jobs of a transaction; what it returns is called once that is durable:
    a device reads there what it has appended, and sends it then.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        forget: Callable[[], None],
        begun: Callable[[], object] = bool,
        ending: Callable[[], Callable[[], object]] = lambda: bool,
    ) -> None:
        self.begun = begun
        self._connection = connection
        self._forget = forget
        self._ending = ending

    def begin(self, jobs: Sequence[Job]) -> tuple[int, Callable[[], object]]:
        """Run jobs, up to the commit; return how many rows changed, and what to call after that.

        Raises apsw.Error when the disk fails.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        self.begun()
        before = self._connection.total_changes()
        for job in jobs:
            self._attempt(job)
        durable = self._ending()
        return self._connection.total_changes() - before, durable

    def commit(self) -> None:
        """Make it durable. Raises apsw.Error when the disk fails."""
        self._connection.execute("COMMIT")

    def roll_back(self, jobs: Sequence[Job], error: apsw.Error) -> None:
        """Undo all, and have every job fail."""
        why = self.failed(error, "not stored")
        log.error("transaction failed", error=str(why), jobs=len(jobs))
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._forget()
        for job in jobs:
            job.error = why

    def failed(self, error: apsw.Error, what: str) -> StorageError:
        """Return what to raise for a failure of the connection. what: see `disk.failed`."""
        return failed(error, self._connection, what)

    def _attempt(self, job: Job) -> None:
        """Run a job; undo what it wrote if it fails, and leave the other jobs alone."""
        before = self._connection.total_changes()
        self._connection.execute("SAVEPOINT job")
        try:
            job.work()
        except (PeerError, IvorError) as error:
            job.error = error
            self._connection.execute("ROLLBACK TO job")
            if self._connection.total_changes() != before:
                self._forget()
        except Exception as error:
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
                raise  # the disk, which concerns all
            log.exception("a bug ended a job")
            job.error = error
            self._connection.execute("ROLLBACK TO job")
            self._forget()
        self._connection.execute("RELEASE job")
