"""A device in a process of its own that sends or gets one file: write or read, HOME, CHAT, FILE.

It reports `ready`, and begins at the first line of its stdin. A writer reports `sent`: when it
began, when the file was sealed, when our node and when every agency had it. A reader waits for the
message, fetches its file while the nodes may still pass it on, and reports `got`: when all had come
and when the file was written.
"""

import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from bench.federation import PASSPHRASE, milliseconds
from bench.processes import memory_mib, tell
from client import compose, exchange, mailbox
from client.attaching import open_blob, sealed_copy, sealed_file
from client.bringing import bring_up, fetch, spread
from client.device import Device, open_device
from client.files import readable, received
from client.link import Link, linked
from node.errors import UserError
from node.logs import open_log
from protocol.attachment import Attachment
from protocol.entry import ChatId, Reference

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.01


async def attach(device: Device, link: Link, chat: ChatId, file: Path) -> Reference:
    """Seal a file beside the session; its message is stored by that, which has the database."""
    with readable(file, "") as stream:
        sealing = ExitStack()
        begin = partial(sealing.enter_context, sealed_file(device, file, stream, "", bool))
        try:
            sealed = await trio.to_thread.run_sync(begin)
            sent = partial(compose.send_attached, device, chat, sealed, milliseconds(), None)
            return await link.write(sent)
        finally:
            await link.journal.read(sealing.close)


async def write(device: Device, link: Link, chat: ChatId, file: Path) -> None:
    """Send a file, and wait until everybody has it."""
    begun = time.monotonic()
    place = await attach(device, link, chat, file)
    sealed = time.monotonic()
    await bring_up(device, link, bool, PATIENCE_SECONDS)
    own = time.monotonic()
    await spread(device, link, chat, place.id, PATIENCE_SECONDS)
    everywhere, peak = time.monotonic(), memory_mib("VmHWM")
    tell("sent", begun=begun, sealed=sealed, own=own, everywhere=everywhere, peak=peak)


def attached(device: Device, chat: ChatId) -> list[tuple[Reference, Attachment]]:
    """Return the newest message, if it brings a file."""
    return [
        (letter.reference, letter.message)
        for letter in mailbox.letters(device, chat, 1)
        if isinstance(letter.message, Attachment)
    ]


async def read(device: Device, link: Link, chat: ChatId, file: Path) -> None:
    """Wait for the newest message, and get its file."""
    found: list[tuple[Reference, Attachment]] = []
    while not found:
        await exchange.receive(device, link)
        found = await link.journal.read(partial(attached, device, chat))
        await trio.sleep(POLL_SECONDS)
    (place, message) = found[0]
    blob = await link.journal.read(partial(device.replica.blobs.find, chat, place.id))
    if blob is None:
        raise UserError("the message has no blob")
    here = await fetch(device, link, blob, bool, PATIENCE_SECONDS)
    fetched = time.monotonic()

    def save() -> None:
        with sealed_copy(device, here) as copy, received(file) as target:
            open_blob(copy, here, message, target, bool)

    await trio.to_thread.run_sync(save)
    tell("got", fetched=fetched, written=time.monotonic(), peak=memory_mib("VmHWM"))


async def main(role: str, home: Path, chat: ChatId, file: Path) -> None:
    """Begin at the first line of stdin."""
    open_log(sys.stderr, "text", "warning")
    device = open_device(home, PASSPHRASE, os.urandom)
    async with linked(device) as link:
        await link.greeted.wait()
        await link.settle(10.0)
        tell("ready")
        await trio.to_thread.run_sync(sys.stdin.readline)
        await (write if role == "write" else read)(device, link, chat, file)
    device.close()


if __name__ == "__main__":
    trio.run(
        main,
        sys.argv[1],
        Path(sys.argv[2]),
        ChatId(bytes.fromhex(sys.argv[3])),
        Path(sys.argv[4]),
    )
