"""A node in a process of its own, and what is in its file and in that of a device."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import apsw
import trio
from msgspec import convert

from client.device import Device
from node.agency import DATABASE_FILE
from protocol.entry import CONTENT, ChatId
from tests.hostile.federation import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


def started(folder: Path, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start the node of a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.node_process", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
    )


def show(log: Path) -> None:
    """Print what a node has logged: a test that waits for it has failed."""
    print(f"--- {log.name}", log.read_text(), sep="\n")


@asynccontextmanager
async def process(folder: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A node as a process of its own, once it listens; killed at the end."""
    with (folder.parent / f"{folder.name}.log").open("ab") as log, started(folder, log) as running:
        try:
            assert running.stdout is not None
            with trio.fail_after(PATIENCE_SECONDS):
                line = await trio.to_thread.run_sync(
                    running.stdout.readline, abandon_on_cancel=True
                )
            assert line
            yield running
        except BaseException:
            show(Path(log.name))
            raise
        finally:
            running.kill()


def stored_ids(folder: Path, chat: ChatId) -> set[bytes]:
    """Return the ids of a chat's entries in a node's file."""
    connection = apsw.Connection(str(folder / DATABASE_FILE))
    found = connection.execute(
        "SELECT entries.id FROM entries JOIN chains ON chains.no = place >> 32"
        " JOIN chats ON chats.no = chat WHERE chats.id = ?",
        (chat,),
    ).fetchall()
    connection.close()
    return {entry for (entry,) in convert(found, list[tuple[bytes]])}


def acknowledged(device: Device, chat: ChatId) -> set[bytes]:
    """Return the ids of our own content that our node says it stores."""
    length = max(
        (
            holding.seq + 1
            for holding in device.replica.sharing.holdings(device.key)
            if bytes(holding.agency) == device.profile.charter.agency
            and (holding.chat, holding.lane) == (chat, CONTENT)
        ),
        default=0,
    )
    chat_no = device.replica.store.chat(chat)
    assert chat_no is not None
    chain = chat_no.chains[device.key, CONTENT]
    return {row[1] for row in device.replica.store.rows(chain, chain[0], 0, length)}
