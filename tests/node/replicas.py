"""Replicas of a node for the tests, and what is stored in them."""

import os
from pathlib import Path

from node.database import connect
from node.replica import Replica
from node.runs import read_run
from node.stored import Stored
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import Run, Want, authentic
from protocol.testing.cast import agency, person
from protocol.testing.conversations import Conversation

MVD = agency("mvd").root.public
MZ = agency("mz").root.public
LATE = agency("late").root.public
FYODOR = person("fyodor@late")


def node(home: bytes = MZ, path: Path | None = None) -> Replica:
    """Return the replica of an agency's node."""
    if path is None:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        path = Path("build") / f"replica-tests-{worker}.db"
        path.parent.mkdir(exist_ok=True)
        for file in path.parent.glob(path.name + "*"):
            file.unlink()
    connection = connect(path, None)
    connection.pragma("synchronous", "OFF")
    return Replica(connection, home, home)


def take(replica: Replica, *runs: Run, peer: bytes = MVD) -> list[Stored]:
    """Take runs as the driver does: one transaction."""
    found: list[Stored] = []
    with replica.store.connection:
        found += replica.append_together([(run, authentic(run)) for run in runs], peer)
    return found


def entries(replica: Replica, chat: ChatId) -> set[EntryId]:
    """Return the ids of what is stored of a chat, without what only covers it."""
    stored = replica.store.chat(chat)
    return {
        EntryId(row[1])
        for chain in (stored.chains.values() if stored else ())
        for branch in chain
        for row in replica.store.rows(chain, branch, 0, branch.length)
    }


def all_of(talk: Conversation) -> set[EntryId]:
    return {authentic(run)[0].id for run in talk.runs}


def check_covers(replica: Replica, chat: ChatId) -> None:
    """I6: every entry that is stored can be served, and is authentic then."""
    stored = replica.store.chat(chat)
    assert stored is not None
    for (device, lane), chain in stored.chains.items():
        for branch in chain:
            at = 0
            while at < branch.length:
                want = Want(chat, DeviceKey(device), lane, branch.head[:8], at, branch.length)
                run = read_run(replica.store, want)
                assert run is not None
                assert len(authentic(run)) == len(run.records)
                at += len(run.records)
