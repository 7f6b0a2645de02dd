"""A node in a process of its own, whose parent may look inside: FOLDER PORT.

Tells `ready`. `look` on stdin is answered by `looked`: tasks of trio, objects that the garbage
collector tracks, entries stored. `count` is answered by `counted`: the objects by type.
"""

import gc
import os
import sys
from collections import Counter
from pathlib import Path

import apsw
import trio

from bench.federation import NODE_FILE, PASSPHRASE
from bench.processes import tell
from node.agency import open_agency
from node.config import Settings
from node.control import FolderLock
from node.logs import open_log
from node.service import Node
from node.store import connect

TYPES_TOLD = 60
ENTRIES = "SELECT ifnull(sum(length - base), 0) FROM chains"


async def answer(connection: apsw.Connection) -> None:
    """Answer the parent until it closes our stdin."""
    async for raw in trio.lowlevel.FdStream(os.dup(0)):
        for command in raw.decode().split():
            if command == "look":
                tell(
                    "looked",
                    tasks=trio.lowlevel.current_statistics().tasks_living,
                    objects=len(gc.get_objects()),
                    entries=float(connection.execute(ENTRIES).get),
                )
            elif command == "count":
                gc.collect()
                kinds = Counter(type(one).__qualname__ for one in gc.get_objects())
                tell("counted", **{name: float(n) for name, n in kinds.most_common(TYPES_TOLD)})


async def main(folder: Path, port: int) -> None:
    """Run the node until SIGTERM."""
    open_log(sys.stderr, "text", "error")
    agency = open_agency(folder, PASSPHRASE)
    settings = Settings(listen=f"127.0.0.1:{port}", allow_local=True)
    with FolderLock(folder):
        connection = connect(folder / NODE_FILE, None)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, connection)
                node = Node(agency, settings, connection)
                await node.run(lambda host, bound: tell("ready", host=host, port=bound))
                nursery.cancel_scope.cancel()
        finally:
            connection.close()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
