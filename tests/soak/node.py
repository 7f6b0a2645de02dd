"""A node in a process of its own, whose parent may look inside: FOLDER PORT.

Tells `ready`. `look` on stdin is answered by `looked`: tasks of trio, blocks of memory that Python
has given out, memory that SQLite has (its page cache fills at first), entries stored; all without
taking memory itself, as a list of all objects would. `count` is
answered by `counted`: the objects by type, and with PYTHONTRACEMALLOC=1 the bytes by line.
"""

import gc
import os
import sys
import tracemalloc
from collections import Counter
from contextlib import closing
from pathlib import Path

import apsw
import trio

from bench.federation import NODE_FILE, PASSPHRASE
from bench.processes import tell
from node.agency import open_agency
from node.config import Settings
from node.control import FolderLock
from node.database import connect
from node.logs import open_log
from node.service import Node

TYPES_TOLD = 60
LINES_TOLD = 200
ENTRIES = "SELECT ifnull(sum(length - base), 0) FROM chains"


def counted() -> dict[str, float]:
    """Return objects by type, and, where Python traces memory, bytes by the line that took them."""
    kinds = Counter(type(one).__qualname__ for one in gc.get_objects())
    found = {name: float(number) for name, number in kinds.most_common(TYPES_TOLD)}
    if tracemalloc.is_tracing():
        for line in tracemalloc.take_snapshot().statistics("lineno")[:LINES_TOLD]:
            place = line.traceback[0]
            found[f"bytes of {place.filename}:{place.lineno}"] = float(line.size)
    return found


async def answer(reading: apsw.Connection) -> None:
    """Answer the parent until it closes our stdin.

    reading: not the node's own connection, which a thread may be committing on.
    """
    async for raw in trio.lowlevel.FdStream(os.dup(0)):
        for command in raw.decode().split():
            if command == "look":
                tell(
                    "looked",
                    tasks=trio.lowlevel.current_statistics().tasks_living,
                    blocks=sys.getallocatedblocks(),
                    sqlite_mib=apsw.memory_used() / 2**20,
                    entries=float(reading.execute(ENTRIES).get),
                )
            elif command == "count":
                gc.collect()
                tell("counted", **counted())


async def main(folder: Path, port: int) -> None:
    """Run the node until SIGTERM."""
    open_log(sys.stderr, "text", "error")
    agency = open_agency(folder, PASSPHRASE)
    settings = Settings(listen=f"127.0.0.1:{port}", allow_local=True)
    with FolderLock(folder), closing(connect(folder / NODE_FILE, None)) as connection:
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(folder / NODE_FILE), flags=flags)) as reading:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, reading)
                node = Node(agency, settings, connection)
                await node.run(lambda host, bound: tell("ready", host=host, port=bound))
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
