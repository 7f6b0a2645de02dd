"""Large files on the command line: sealed and stored, brought to the node, fetched, and written.

Progress is shown on a terminal and nowhere else.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.opening import now_ms
from cli.output import transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.device import Device
    from client.link import Link
    from node.blobs import StoredBlob
    from protocol.attachment import Attachment
    from protocol.entry import ChatId, Reference

PATIENCE_SECONDS: Final = 20.0  # in which nothing moves


def store_file(
    device: "Device",
    chat: "ChatId",
    path: Path,
    text: str,
    once: str | None,
    begun: Callable[[], object],
    sealed_up: Callable[[], object],
) -> "Reference":
    """Write a message with a file, inside it if that is small; return where it stands.

    begun: called as the transaction that writes it begins. sealed_up: before that, when a large
    file is sealed, which may have taken long.
    """
    from client import compose
    from client.attaching import sealed_file, sweep
    from client.documents import media_type_of
    from client.files import readable, small_file
    from protocol.attachment import Attachment

    with readable(path, text) as stream:
        small = small_file(path, stream, text)
        if small is not None:
            with device.transaction():
                begun()
                return compose.send(device, chat, small, now_ms(), once)
        size = path.stat().st_size
        announced = Attachment(path.name, media_type_of(path.name), size, b"", b"", text)
        before = compose.written_once(device, chat, once, announced)
        if before is not None:
            return before
        sweep(device)
        stream.seek(0)
        with (
            transfer(f"sealing {path.name}", size) as told,
            sealed_file(device, path, stream, text, told) as sealed,
        ):
            sealed_up()
            with device.transaction():
                begun()
                return compose.send_attached(device, chat, sealed, now_ms(), once)


async def bring_files(device: "Device", link: "Link") -> None:
    """Stay until our node has the files that wait here. Raises NetworkError or LimitReached."""
    from client.bringing import bring_up, waiting
    from crypto.blob import CHUNK_BYTES

    pending = await link.journal.read(partial(waiting, device))
    if not pending:
        return
    with transfer("to our node", sum(blob.announced.size for blob in pending)) as told:
        await bring_up(device, link, lambda chunks: told(chunks * CHUNK_BYTES), PATIENCE_SECONDS)


def fetch_file(device: "Device", blob: "StoredBlob") -> "StoredBlob":
    """Fetch a file's blob into our folder, unless it is there. Raises IvorError."""
    import trio

    from client.bringing import fetch
    from client.link import linked
    from crypto.blob import CHUNK_BYTES
    from node.blobs import State

    if blob.state is State.WHOLE:
        return blob

    held = device.replica.blobs.count_held(blob)

    async def run() -> "StoredBlob":
        async with linked(device) as link:
            with transfer("from our node", blob.announced.size) as told:
                told(held * CHUNK_BYTES)
                return await fetch(
                    device, link, blob, lambda chunks: told(chunks * CHUNK_BYTES), PATIENCE_SECONDS
                )

    return trio.run(run)


def write_file(
    device: "Device", chat: "ChatId", place: "Reference", file: "Attachment", path: Path
) -> None:
    """Fetch the file of a message and write it, over nothing. Raises IvorError."""
    from client.attaching import drop_copy, open_blob, sweep
    from client.files import check_free, received
    from node.blobs import State

    check_free(path)
    sweep(device)
    before = _announced(device, chat, place)
    with (
        _at_hand(device, chat, place) as (here, copy),
        received(path) as target,
        transfer(f"writing {path.name}", file.size) as told,
    ):
        open_blob(copy, here, file, target, told)
        _announced(device, chat, place)
    with device.transaction():
        device.connection.execute(
            "INSERT INTO fetched VALUES (?) ON CONFLICT DO NOTHING", (place.id,)
        )
    if before.state is not State.WHOLE or here.author != device.key:
        drop_copy(device, here)


def _announced(device: "Device", chat: "ChatId", place: "Reference") -> "StoredBlob":
    """Return the blob of a message. Raises UserError if there is none, or none any more."""
    from node.errors import UserError

    blob = device.replica.blobs.find(chat, place.id)
    if blob is None:
        raise UserError("no file came with that message, or it was redacted or is too old")
    return blob


@contextmanager
def _at_hand(
    device: "Device", chat: "ChatId", place: "Reference"
) -> "Iterator[tuple[StoredBlob, int]]":
    """Fetch the blob of a message and open it; again if another command has removed it meanwhile.

    Raises IvorError.
    """
    from client.attaching import drop_copy, sealed_copy

    with ExitStack() as held:
        while True:
            here = fetch_file(device, _announced(device, chat, place))
            try:
                copy = held.enter_context(sealed_copy(device, here))
            except FileNotFoundError:
                drop_copy(device, here)
            else:
                yield here, copy
                return
