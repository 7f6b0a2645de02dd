"""SPEC 10: group commit. Nobody is answered before the disk; what fails, fails whole (I1, I17)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
import trio.lowlevel

from node import journal
from node.database import connect
from node.errors import RefusedError, StorageError
from node.journal import JOBS_TRANSACTION_MAX, Journal
from protocol.errors import Inadmissible, PeerError


class Database:
    """A journal over a table of numbers. `watch`: see every statement before it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect(path, None)
        self.connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER UNIQUE)")
        self.forgotten = 0
        self.begun = 0
        self.journal = Journal(self.connection, self.forget, self.begin)

    def forget(self) -> None:
        self.forgotten += 1

    def begin(self) -> None:
        self.begun += 1

    def insert(self, *numbers: int) -> int:
        for number in numbers:
            self.connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return len(numbers)

    def numbers(self) -> list[int]:
        """What another process sees: only what was committed."""
        other = apsw.Connection(str(self.path))
        rows = [row[0] for row in other.execute("SELECT number FROM numbers ORDER BY number")]
        other.close()
        return rows


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "replica.db")


@pytest.fixture
async def running(database: Database, nursery: trio.Nursery) -> Database:
    nursery.start_soon(database.journal.run)
    return database


async def test_what_is_durable_is_told_though_nobody_waits(running: Database) -> None:
    """Whoever brought it may be gone; others wait for it."""
    told: list[int] = []
    with trio.CancelScope() as scope:
        pending = await running.journal.begin(lambda: running.insert(1), told.append)
        scope.cancel()
        await pending()
    assert scope.cancelled_caught
    await running.journal.write(lambda: running.insert(2))
    assert told == [1]


async def test_threads_that_hang_hold_up_no_commit(
    running: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that nobody resolves, a disk of large files that does not answer: others go on."""
    monkeypatch.setattr(journal, "SMALL_SECONDS_MAX", 0.0)  # so that COMMIT runs in a thread
    threads = trio.to_thread.current_default_thread_limiter()
    for _ in range(int(threads.total_tokens)):
        threads.acquire_on_behalf_of_nowait(object())
    with trio.fail_after(60):
        assert await running.journal.write(lambda: running.insert(1)) == 1


async def test_what_is_refused_is_told_to_nobody(running: Database) -> None:
    told: list[None] = []
    pending = await running.journal.begin(refuse(RefusedError("no")), told.append)
    with pytest.raises(RefusedError):
        await pending()
    assert not told


async def test_a_bug_in_what_is_told_ends_nobody_else(running: Database) -> None:
    def bug(_: int) -> None:
        raise ZeroDivisionError

    pending = await running.journal.begin(lambda: running.insert(1), bug)
    with pytest.raises(ZeroDivisionError):
        await pending()
    await running.journal.write(lambda: running.insert(2))
    assert running.numbers() == [1, 2]


class Failing:
    """An apsw execution tracer that fails one kind of statement."""

    def __init__(self, statement: str, error: Exception) -> None:
        self.statement = statement
        self.error = error

    def __call__(self, _cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        if sql.startswith(self.statement):
            raise self.error
        return True


def refuse(error: Exception, before: Callable[[], object] = bool) -> Callable[[], None]:
    def work() -> None:
        before()
        raise error

    return work


class TestCommit:
    async def test_answers_after_commit(self, running: Database) -> None:
        """Whoever is answered finds it on the disk."""
        assert await running.journal.write(lambda: running.insert(1, 2)) == 2
        assert running.numbers() == [1, 2]

    async def test_no_answer_before_commit(self, database: Database, nursery: trio.Nursery) -> None:
        done = []

        async def write(number: int) -> None:
            await database.journal.write(lambda: database.insert(number))
            assert number in database.numbers()
            done.append(number)

        for number in range(50):
            nursery.start_soon(write, number)
        await trio.testing.wait_all_tasks_blocked()
        assert not done
        nursery.start_soon(database.journal.run)
        while len(done) < 50:
            await trio.lowlevel.checkpoint()
        assert database.numbers() == list(range(50))

    async def test_many_jobs_one_transaction(
        self, database: Database, nursery: trio.Nursery
    ) -> None:
        count = JOBS_TRANSACTION_MAX + 1
        pending = [
            await database.journal.begin(partial(database.insert, number))
            for number in range(count)
        ]
        nursery.start_soon(database.journal.run)
        for wait in pending:
            await wait()
        assert database.begun == 2
        assert database.numbers() == list(range(count))

    async def test_in_order(self, running: Database) -> None:
        """Jobs run in the order in which they were queued."""
        order: list[int] = []
        pending = [await running.journal.begin(partial(order.append, n)) for n in range(300)]
        for wait in reversed(pending):
            await wait()
        assert order == list(range(300))

    async def test_reads_between(self, running: Database) -> None:
        """A read never sees half of a transaction."""

        async def read() -> None:
            for _ in range(20):
                rows = await running.journal.read(running.numbers)
                assert len(rows) % 3 == 0

        async with trio.open_nursery() as readers:
            readers.start_soon(read)
            for at in range(0, 60, 3):
                await running.journal.write(partial(running.insert, at, at + 1, at + 2))


class TestFailure:
    @pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "INSERT", "SAVEPOINT", "RELEASE"])
    @pytest.mark.parametrize(
        "error", [apsw.FullError("full"), apsw.IOError("disk I/O error"), apsw.CorruptError("bad")]
    )
    async def test_a_disk_that_fails(
        self, database: Database, nursery: trio.Nursery, statement: str, error: apsw.Error
    ) -> None:
        """I17, cases 64 and 65: all jobs of the transaction fail, nothing of it is kept."""
        await trio.lowlevel.checkpoint()
        kept = await database.journal.begin(lambda: database.insert(1))
        nursery.start_soon(database.journal.run)
        await kept()
        database.connection.exec_trace = Failing(statement, error)
        pending = [await database.journal.begin(partial(database.insert, n)) for n in range(2, 9)]
        for wait in pending:
            with pytest.raises(StorageError, match="not stored"):
                await wait()
        assert database.numbers() == [1]
        assert database.forgotten
        assert await database.journal.read(database.numbers) == [1]
        database.connection.exec_trace = None
        assert await database.journal.write(lambda: database.insert(9)) == 1
        assert database.numbers() == [1, 9]

    async def test_a_commit_that_fails_once_is_never_taken_as_success(
        self, running: Database
    ) -> None:
        """Case 65: a later transaction does not bring back what failed."""
        running.connection.exec_trace = Failing("COMMIT", apsw.IOError("fsync"))
        with pytest.raises(StorageError):
            await running.journal.write(lambda: running.insert(1))
        running.connection.exec_trace = None
        await running.journal.write(lambda: running.insert(2))
        assert running.numbers() == [2]

    @pytest.mark.parametrize("error", [Inadmissible("no"), RefusedError("no")])
    async def test_one_job_that_is_refused(
        self, database: Database, nursery: trio.Nursery, error: PeerError | RefusedError
    ) -> None:
        """It gets its own error, what it wrote is undone, the others do not notice."""
        journal = database.journal
        before = await journal.begin(lambda: database.insert(1))
        empty = await journal.begin(refuse(error))
        written = await journal.begin(refuse(error, lambda: database.insert(2, 3)))
        after = await journal.begin(lambda: database.insert(4))
        nursery.start_soon(journal.run)
        assert (await before(), await after()) == (1, 1)
        for wait in (empty, written):
            with pytest.raises(type(error)) as caught:
                await wait()
            assert caught.value is error
        assert database.numbers() == [1, 4]
        assert database.forgotten == 1

    async def test_a_read_that_fails(self, running: Database) -> None:
        with pytest.raises(StorageError, match="cannot be read"):
            await running.journal.read(lambda: running.connection.execute("SELECT nothing"))
        with pytest.raises(Inadmissible):
            await running.journal.read(refuse(Inadmissible("no")))

    async def test_whoever_stops_waiting(self, running: Database) -> None:
        """A job that was queued is carried out, though nobody waits for it any more."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await running.journal.write(lambda: running.insert(1))
        pending = await running.journal.begin(lambda: running.insert(2))
        with trio.move_on_after(0):
            await pending()
        await running.journal.write(lambda: running.insert(3))
        assert running.numbers()[-2:] == [2, 3]
