"""Large files: sealed into the device's folder and sent from there, fetched into it and opened.

    with readable(path, text) as stream, sealed_file(device, path, stream, text, told) as sealed:
        with device.transaction():
            compose.send_attached(device, chat, sealed, now, None)
    with sealed_copy(device, blob) as copy:                 # one that was fetched (`bringing`)
        open_blob(copy, blob, attachment, target, told)

The sealed copy stays until our own node has all of it, so a message that was queued offline, or
whose upload a crash cut off, goes on from where it was. Memory does not grow with the file.
"""

import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from client.device import Device
from client.documents import media_type_of
from crypto import merkle
from crypto.blob import (
    BLOB_KEY_BYTES,
    CHUNK_BYTES,
    CHUNK_PLAIN_BYTES,
    TAG_BYTES,
    BlobCipher,
    chunk_length,
    chunks_of,
    sealed_length,
)
from crypto.errors import ContentRefused
from node.blobs import StoredBlob, chunk_in, folder_of, new_name, remove
from node.errors import EvidenceError, LimitReached, StorageError, UserError
from node.files import sync_folder
from protocol.attachment import Announcement, Attachment, check_announced
from protocol.entry import ChatId, Reference
from protocol.errors import NotCanonical
from protocol.limits import BLOB_BYTES_MAX

Item = TypeVar("Item")

AHEAD_CHUNKS: Final = 16  # read and not yet sealed
_OWNER_ONLY: Final = 0o600


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file whose sealed chunks are in the device's folder, durably. file: their name there."""

    attachment: Attachment
    announced: Announcement
    file: str
    tree: merkle.Tree


@contextmanager
def sealed_file(
    device: Device, path: Path, stream: BinaryIO, text: str, told: Callable[[int], object]
) -> Iterator[SealedFile]:
    """Seal a file in one pass; it stays if the block keeps it, and goes if that ends otherwise.

    told: of each number of bytes that were sealed. Raises LimitReached, UserError for a file that
    changes meanwhile, or StorageError.
    """
    size = os.fstat(stream.fileno()).st_size
    sealed = sealed_length(size)
    if sealed > BLOB_BYTES_MAX:
        raise LimitReached(
            f"{path} has {size} bytes, at most about {BLOB_BYTES_MAX >> 30} GiB can be sent: "
            "hand it over by other means"
        )
    place, descriptor = _begun(folder_of(device.folder))
    name = place.name
    try:
        key = device.random(BLOB_KEY_BYTES)
        digest, tree = _seal(stream, size, BlobCipher(key), descriptor, told)
        os.fdatasync(descriptor)
        sync_folder(place.parent)
        attachment = Attachment(path.name, media_type_of(path.name), size, digest, key, text)
        yield SealedFile(attachment, Announcement(tree.root, sealed), name, tree)
    except OSError as error:
        raise StorageError(f"{path} was not sealed, the disk says: {error.strerror}") from error
    finally:
        if name not in device.replica.blobs.files():
            place.unlink(missing_ok=True)
        os.close(descriptor)


def _begun(folder: Path) -> tuple[Path, int]:
    """Make an empty file, and lock it so that `sweep` lets it be. Raises StorageError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        while True:
            place = folder / new_name()
            descriptor = os.open(place, flags, _OWNER_ONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return place, descriptor
            os.close(descriptor)  # it was swept before it was locked
    except OSError as error:
        raise StorageError(f"{folder} takes no file, the disk says: {error.strerror}") from error


def _seal(
    stream: BinaryIO,
    size: int,
    cipher: BlobCipher,
    descriptor: int,
    told: Callable[[int], object],
) -> tuple[bytes, merkle.Tree]:
    """Seal all chunks, on every core; return the file's SHA-256 and the tree over the chunks."""
    sealed = sealed_length(size)
    digest, hashes = sha256(), []
    count = chunks_of(sealed)

    def plains() -> Iterator[bytes]:
        for index in range(count):
            room = chunk_length(sealed, index) - TAG_BYTES
            plain = stream.read(min(room, max(0, size - index * CHUNK_PLAIN_BYTES)))
            digest.update(plain)
            yield plain.ljust(room, b"\x00")

    with ThreadPoolExecutor() as pool:
        for leaf in _ahead(pool, partial(_seal_chunk, cipher, descriptor, count), plains()):
            hashes.append(leaf)
            told(CHUNK_PLAIN_BYTES)
    if stream.tell() != size or stream.read(1):
        raise UserError("the file has changed while it was read: send it again")
    return digest.digest(), merkle.Tree(hashes)


def _seal_chunk(cipher: BlobCipher, descriptor: int, count: int, index: int, plain: bytes) -> bytes:
    """Seal a chunk and write it; return what stands for it in the tree."""
    chunk = cipher.seal(index, count, plain)
    if os.pwrite(descriptor, chunk, index * CHUNK_BYTES) != len(chunk):
        raise StorageError(
            "the file was not sealed: a part was not written whole; is the disk full?"
        )
    return merkle.leaf_hash(chunk)


def keep_sealed(device: Device, chat: ChatId, place: Reference, sealed: SealedFile) -> None:
    """Note that the blob of a message of ours is here. Call in the transaction that writes it."""
    index = device.replica.blobs
    blob = index.find(chat, place.id)
    if blob is not None and (begun := index.begin(blob, sealed.file)) is not None:
        paths = ((at, sealed.tree.path(at)) for at in range(sealed.announced.chunks))
        index.keep(begun, paths)
        index.complete(begun)


def sweep(device: Device) -> None:
    """Remove files of blobs that a crash has left and that nobody is about to keep."""
    folder = folder_of(device.folder)
    for name in [one.name for one in folder.iterdir()]:
        try:
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another process has swept it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if name not in device.replica.blobs.files():
                (folder / name).unlink(missing_ok=True)
        except BlockingIOError:
            pass  # it is being sealed just now
        finally:
            os.close(descriptor)


def clear_dropped(device: Device) -> None:
    """Remove the files of blobs whose message was redacted, or is too old."""
    index = device.replica.blobs
    for blob in index.going():
        if blob.file is not None:
            remove(folder_of(device.folder) / blob.file)
        with device.transaction():
            index.gone(blob)


# Opening what came


@contextmanager
def sealed_copy(device: Device, blob: StoredBlob) -> Iterator[int]:
    """Open the file of a blob: so it can be read though another command removes it meanwhile.

    Raises FileNotFoundError if one has, or StorageError.
    """
    place = folder_of(device.folder) / str(blob.file)
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{place} cannot be read: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def drop_copy(device: Device, blob: StoredBlob) -> None:
    """Remove the file of a blob, and forget it, unless another command has begun another file."""
    index = device.replica.blobs
    with device.transaction():
        now = index.find(blob.chat, blob.entry)
        if now is not None and now.file == blob.file:
            index.let_go(blob)
    remove(folder_of(device.folder) / str(blob.file))


def open_blob(
    copy: int,
    blob: StoredBlob,
    attachment: Attachment,
    target: BinaryIO,
    told: Callable[[int], object],
) -> None:
    """Decrypt a blob of which all is in `copy`, and write the file into `target`.

    Raises EvidenceError if it is not the file that the message promises, or StorageError.
    """
    sealed, left = blob.announced, attachment.size
    cipher, digest = BlobCipher(attachment.key), sha256()
    read = partial(_open_chunk, cipher, copy)
    try:
        check_announced(attachment, sealed)
        with ThreadPoolExecutor() as pool:
            for plain in _ahead(pool, read, repeat(sealed, sealed.chunks)):
                data, padding = plain[:left], plain[left:]
                _check_padding(padding)
                digest.update(data)
                target.write(data)
                left -= len(data)
                told(len(data))
    except (ContentRefused, NotCanonical) as error:
        raise EvidenceError(f"the file is not what its author promised: {error}") from None
    except OSError as error:
        raise StorageError(f"the file was not written: {error.strerror or error}") from error
    if digest.digest() != attachment.digest:
        raise EvidenceError("the file has another SHA-256 than its author promised")


def _check_padding(padding: bytes) -> None:
    if padding.strip(b"\x00"):
        raise ContentRefused("what follows the file is not zeros (SPEC 4.7)")


def _open_chunk(cipher: BlobCipher, copy: int, index: int, sealed: Announcement) -> bytes:
    return cipher.open(index, sealed.chunks, chunk_in(copy, sealed.size, index))


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[int, Item], bytes], items: Iterable[Item]
) -> Iterator[bytes]:
    """Yield what `work` makes of each item, in order, some of them ahead and on every core."""
    waiting: deque[Future[bytes]] = deque()
    for index, item in enumerate(items):
        waiting.append(pool.submit(work, index, item))
        if len(waiting) > AHEAD_CHUNKS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
