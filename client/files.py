"""Files that travel with messages: read from a folder, and written into one (SPEC 5.5).

A received name was checked when the message was opened, so it names a file in the folder where it
is put. It is written only where nothing is yet, and never through a link.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from client.chats import find_letter
from client.device import Device
from client.documents import media_type_of
from client.mailbox import read_letter
from node.errors import LimitReached, StorageError, UserError
from protocol.attachment import Attachment
from protocol.entry import ChatId, Reference
from protocol.errors import PeerError
from protocol.file import FILE_BYTES_MAX, FILE_TEXT_BYTES_MAX, File, check_file_name

_THERE: Final = "{} exists already; give another name with --output"
_DRAFT: Final = ".ivor-"
_DRAFT_BYTES: Final = 8
_OPEN_FILES: Final = "/proc/self/fd"
_OWNER_ONLY: Final = 0o600
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextmanager
def readable(path: Path, text: str) -> Iterator[BinaryIO]:
    """Open a file to send. Raises UserError, LimitReached or StorageError."""
    if len(text.encode()) > FILE_TEXT_BYTES_MAX:
        raise LimitReached(
            f"the text with a file is at most {FILE_TEXT_BYTES_MAX} bytes long, and this is "
            "longer: send it as a message of its own"
        )
    try:
        check_file_name(path.name)
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
            raise UserError(f"{path} is no file that can be sent")
        with path.open("rb") as stream:
            yield stream
    except PeerError as error:
        raise UserError(f"{error}; rename it first") from None
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None


def small_file(path: Path, stream: BinaryIO, text: str) -> File | None:
    """Return a file that goes inside a message, None if it is too long for that."""
    data = stream.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        return None
    return File(path.name, media_type_of(path.name), data, text)


def find_file(device: Device, chat: ChatId, prefix: str) -> tuple[Reference, File | Attachment]:
    """Return the message whose id begins with these hex digits, and its file. Raises UserError."""
    place = find_letter(device, chat, prefix)
    message = read_letter(device, place.id)
    if not isinstance(message, File | Attachment):
        raise UserError(
            f"the message {prefix} holds no file that can be read here; "
            "'ivor read' shows which ones do"
        )
    return place, message


@contextmanager
def received(path: Path) -> Iterator[BinaryIO]:
    """Write a file of mode 0600 that must not exist yet; at the end of the block it is there whole.

    If the block raises, or the process is killed, nothing is there; where the file system has no
    files without a name, a killed process leaves a draft. Raises UserError if something is there
    already, be it a link to nowhere, or StorageError.
    """
    check_free(path)
    try:
        with _folder(path.parent) as folder, _draft(folder) as (file, name):
            yield file
            file.flush()
            os.fsync(file.fileno())
            _put(folder, name, path.name)
            os.fsync(folder)
    except FileExistsError:
        raise UserError(_THERE.format(path)) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    found = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield found
    finally:
        os.close(found)


@contextmanager
def _draft(folder: int) -> Iterator[tuple[BinaryIO, str]]:
    """Open a new file in a folder, and tell how it is called until it has its own name."""
    try:
        made = os.open(f"{_OPEN_FILES}/{folder}", os.O_TMPFILE | os.O_WRONLY, _OWNER_ONLY)
    except OSError:
        with _named_draft(folder) as found:
            yield found
    else:
        with os.fdopen(made, "wb") as file:
            yield file, f"{_OPEN_FILES}/{made}"


@contextmanager
def _named_draft(folder: int) -> Iterator[tuple[BinaryIO, str]]:
    name = f"{_DRAFT}{os.urandom(_DRAFT_BYTES).hex()}"
    made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY, dir_fd=folder)
    try:
        with os.fdopen(made, "wb") as file:
            yield file, name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _put(folder: int, draft: str, name: str) -> None:
    """Give a draft its name, where nothing is. Raises OSError.

    A file system without links, as on many sticks, first has the name taken by an empty file.
    """
    try:
        os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS or draft.startswith(_OPEN_FILES):
            raise
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY, dir_fd=folder))
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)


def check_free(path: Path) -> None:
    """Raise UserError if something is there, be it a link to nowhere."""
    if os.path.lexists(path):
        raise UserError(_THERE.format(path))


def write_new(path: Path, data: bytes) -> None:
    """Write a file as `received` does, from bytes that are here."""
    with received(path) as file:
        file.write(data)
