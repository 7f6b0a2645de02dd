"""The limit of a catch-up on this machine: DATABASE TRANSACTIONS.

Takes the content entries that a node has stored, and does with them only what nobody can leave out:
two hashes an entry, a signature check for every 64, and inserts of the same rows into the same
table in as many transactions. No session, no TLS, no decoding, no rules.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import apsw

from bench.processes import tell
from crypto.signing import verify
from node.database import connect
from node.store import SEQ_BITS, Store
from protocol.entry import CONTENT, SIGNATURE_LABEL, ChatId, DeviceKey, EntryId, encode_header
from protocol.limits import COVER_ENTRIES_MAX
from protocol.run import rebuild

CHUNK_ENTRIES = 20_000
Row = tuple[int, bytes, bytes, bytes | None]


class Bare(NamedTuple):
    """What the limit is measured on: a header, its payload, and the row to insert."""

    header: bytes
    payload: bytes
    row: Row


def chunks(store: Store) -> Iterator[tuple[DeviceKey, Sequence[Bare]]]:
    """Yield the content of a database, ready to be hashed, some of it at a time."""
    for chat in store.chats():
        stored = store.chat(chat)
        for (device, lane), chain in () if stored is None else stored.chains.items():
            if lane != CONTENT:
                continue
            branch = chain[0]
            for start in range(0, branch.length, CHUNK_ENTRIES):
                stop = min(start + CHUNK_ENTRIES, branch.length)
                prev, context = store.context_before(chain, branch, lane, start)
                rows = list(store.rows(chain, branch, start, stop))
                records = [row[2] for row in rows]
                entries = rebuild(
                    ChatId(chat), DeviceKey(device), lane, start, prev, context, records
                )
                yield (
                    DeviceKey(device),
                    [
                        Bare(
                            b"ivor/1 entry" + encode_header(entry.header),
                            entry.payload or b"",
                            (branch.no << SEQ_BITS | row[0], *row[1:]),
                        )
                        for entry, row in zip(entries, rows, strict=True)
                    ],
                )


def work(connection: apsw.Connection, device: DeviceKey, bare: Sequence[Bare], size: int) -> float:
    """Do what can not be left out; return the seconds that it took."""
    begun = time.perf_counter()
    remaining = iter(bare)
    while part := list(islice(remaining, size)):
        connection.execute("BEGIN IMMEDIATE")
        for header, payload, _ in part:
            sha256(header).digest()
            sha256(payload).digest()
        signed = [row for _, _, row in part if row[3] is not None]
        for row in signed[: len(part) // COVER_ENTRIES_MAX + 1]:
            verify(device, SIGNATURE_LABEL, EntryId(row[1]), row[3] or b"")
        connection.executemany(
            "INSERT INTO entries (place, id, record, signature) VALUES (?, ?, ?, ?)",
            [row for _, _, row in part],
        )
        connection.execute("COMMIT")
    return time.perf_counter() - begun


def main(database: Path, transactions: int) -> None:
    """Measure and report `limit`."""
    source = connect(database, None)
    total = int(source.execute("SELECT count(*) FROM entries").get)
    size = max(1, total // max(1, transactions))
    count = 0
    seconds = 0.0
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        target = connect(Path(folder) / "bare.db", None)
        for device, bare in chunks(Store(source)):
            seconds += work(target, device, bare, size)
            count += len(bare)
        target.close()
    source.close()
    tell("limit", rate=count / seconds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
