"""What a replica stores of a chat: as the frames that it would send, and as verified entries.

And which letters a device can read.
"""

from collections.abc import Iterator, Sequence

import apsw

from client.mailbox import State
from node.replica import Replica
from node.runs import read_run
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import Run, Want, authentic
from protocol.run import Entry


def stored_runs(replica: Replica, chat: ChatId) -> Iterator[Run]:
    """Everything that is stored of a chat, as frames."""
    stored = replica.store.chat(chat)
    for (author, lane), chain in ({} if stored is None else stored.chains).items():
        for branch in chain:
            start = 0
            while start < branch.length:
                head, stop = branch.head[:8], branch.length
                want = Want(chat, DeviceKey(author), lane, head, start, stop)
                run = read_run(replica.store, want)
                if run is None:
                    break
                yield run
                start += len(run.records)


def stored_entries(replica: Replica, chat: ChatId) -> Sequence[Entry]:
    """Every entry that is stored of a chat, rebuilt from its record and verified."""
    stored = replica.store.chat(chat)
    lengths = {
        (device, lane): max(branch.length for branch in chain)
        for (device, lane), chain in (stored.chains if stored else {}).items()
    }
    found: dict[EntryId, Entry] = {}
    for run in stored_runs(replica, chat):
        try:
            entries = authentic(run)
        except PeerError:
            continue
        for entry in entries:
            if entry.header.seq < lengths[entry.header.device, entry.header.lane]:
                found[entry.id] = entry
    return list(found.values())


def readable(connection: apsw.Connection) -> frozenset[bytes]:
    """The ids of the letters of a device's database that are open."""
    rows = connection.execute("SELECT id FROM mailbox WHERE state = ?", (State.OPEN,))
    return frozenset(row[0] for row in rows)


def unreadable(connection: apsw.Connection) -> frozenset[bytes]:
    """The ids of those that are neither open nor gone."""
    rows = connection.execute(
        "SELECT id FROM mailbox WHERE state NOT IN (?, ?)", (State.OPEN, State.GONE)
    )
    return frozenset(row[0] for row in rows)
