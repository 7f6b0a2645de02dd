"""What a peer, or a bug that it finds, may cost the others: memory that is held, jobs that fail."""

import tracemalloc
from pathlib import Path

import apsw
import msgspec
import pytest
import structlog
import trio

from node.database import connect
from node.errors import StorageError
from node.journal import Journal
from protocol.chat import Missing
from protocol.entry import CONTENT
from protocol.errors import LimitExceeded
from protocol.frame import Hello, Run, decode_frame
from protocol.intake import Outcome
from protocol.session import Greeting, PeerKind, Session
from protocol.testing.chains import CHAT, Chain, signer
from tests.hostile.forger import nonsense

FRAMES = 24
JUNK_BYTES = 1_000_000


def opened() -> Session:
    session = Session(PeerKind.NODE, Greeting(bytes(16), None, 0, bytes(16)), 0.0)
    session.receive(Hello((1,), bytes(16), None, 0, bytes(16)), 0.0)
    return session


def hold(session: Session, chain: Chain, raw: bytes) -> None:
    """Have a session receive a run that waits for an entry which never comes."""
    run = decode_frame(raw)
    assert isinstance(run, Run)
    session.receive(run, 0.0)
    missing = Missing(chain.device, CONTENT, 7, chain.entries[0].id, 0)
    session.admitted([(run, Outcome(0, (missing,)))], (), 0.0)


def test_a_held_run_is_not_its_frame() -> None:
    """Case 21: a run that waits costs what it holds, not the megabyte it came in."""
    session = opened()
    chain = Chain(signer("eve"), CHAT, CONTENT)
    chain.add(b"small")
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(chain.run()))
    raw = msgspec.msgpack.encode([*fields, bytes(JUNK_BYTES)])
    tracemalloc.start()
    for _ in range(FRAMES):
        hold(session, chain, bytes(bytearray(raw)))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * JUNK_BYTES


def test_no_more_signatures_than_records() -> None:
    """Case 20: they would be held, and handed on."""
    chain = Chain(signer("eve"), CHAT, CONTENT)
    chain.add(b"small")
    run = chain.run()
    surplus = msgspec.structs.replace(run, signatures=run.signatures * 2)
    with pytest.raises(LimitExceeded, match="more signatures than records"):
        opened().receive(surplus, 0.0)


async def test_a_bug_in_one_job_fails_that_job_only(tmp_path: Path) -> None:
    """Jobs of many peers share a transaction; one with a bug is undone alone."""
    connection = connect(tmp_path / "node.db", None)
    forgotten: list[None] = []
    journal = Journal(connection, lambda: forgotten.append(None))

    def write(key: str) -> None:
        connection.execute("INSERT INTO meta VALUES (?, ?)", (key, nonsense()))

    def buggy() -> None:
        write("of the bug")
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        with structlog.testing.capture_logs() as events:
            good = await journal.begin(lambda: write("before"))
            bad = await journal.begin(buggy)
            twice = await journal.begin(lambda: write("before"))
            last = await journal.begin(lambda: write("after"))
            nursery.start_soon(journal.run)
            await good()
            with pytest.raises(ZeroDivisionError):
                await bad()
            with pytest.raises(apsw.ConstraintError):
                await twice()
            await last()
        nursery.cancel_scope.cancel()
    assert [event["event"] for event in events] == ["a bug ended a job"] * 2
    kept = {key for (key,) in connection.execute("SELECT key FROM meta")}
    assert kept == {"incarnation", "before", "after"}
    assert forgotten
    connection.close()


async def test_a_disk_that_fails_fails_all(tmp_path: Path) -> None:
    """Case 64, in part: nothing of the transaction is acknowledged, and the next one goes on."""
    connection = connect(tmp_path / "node.db", None)
    journal = Journal(connection, lambda: None)

    def write(key: str) -> None:
        connection.execute("INSERT INTO meta VALUES (?, ?)", (key, nonsense()))

    def full() -> None:
        raise apsw.FullError

    async with trio.open_nursery() as nursery:
        with structlog.testing.capture_logs():
            one = await journal.begin(lambda: write("lost"))
            other = await journal.begin(full)
            nursery.start_soon(journal.run)
            for pending in (one, other):
                with pytest.raises(StorageError):
                    await pending()
            await journal.write(lambda: write("kept"))
        nursery.cancel_scope.cancel()
    kept = {key for (key,) in connection.execute("SELECT key FROM meta")}
    assert kept == {"incarnation", "kept"}
    connection.close()
    assert (tmp_path / "node.db").stat().st_mode & 0o077 == 0
