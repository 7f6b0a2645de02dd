"""While a session runs its database is the journal's: a COMMIT in a thread has it (SPEC 10)."""

import pytest

from node.journal import Journal


def guard_databases(patch: pytest.MonkeyPatch) -> None:
    """Fail whatever uses the database of a running journal of this process without its lock."""
    run = Journal.run

    async def guarded(journal: Journal) -> None:
        def trace(_cursor: object, sql: str, _bindings: object) -> bool:
            assert journal._lock.locked(), f"nobody asked the journal: {sql}"
            return True

        connection = journal._transaction._connection
        connection.exec_trace = trace
        try:
            await run(journal)
        finally:
            connection.exec_trace = None

    patch.setattr(Journal, "run", guarded)
