"""Small files that travel inside messages: read from a folder, and written into one (SPEC 5.5).

A received name was checked when the message was opened, so it names a file in the folder where it
is put. It is written only where nothing is yet, and never through a link.
"""

import os
from pathlib import Path

from client.chats import find_letter
from client.device import Device
from client.documents import media_type_of
from client.mailbox import read_letter
from node.errors import LimitReached, StorageError, UserError
from node.files import sync_folder
from protocol.entry import ChatId
from protocol.errors import PeerError
from protocol.file import FILE_BYTES_MAX, FILE_TEXT_BYTES_MAX, File, check_file_name

_OWNER_ONLY = 0o600


def attach(path: Path, text: str) -> File:
    """Read a file to send. Raises UserError, LimitReached or StorageError."""
    try:
        check_file_name(path.name)
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except PeerError as error:
        raise UserError(f"{error}; rename it first") from None
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise LimitReached(
            f"{path} is longer than {FILE_BYTES_MAX} bytes, the most that a message carries: "
            "hand it over by other means"
        )
    if len(text.encode()) > FILE_TEXT_BYTES_MAX:
        raise LimitReached(
            f"the text with a file is at most {FILE_TEXT_BYTES_MAX} bytes long, and this is "
            "longer: send it as a message of its own"
        )
    return File(path.name, media_type_of(path.name), data, text)


def find_file(device: Device, chat: ChatId, prefix: str) -> File:
    """Return the file in the message whose id begins with these hex digits. Raises UserError."""
    place = find_letter(device, chat, prefix)
    message = read_letter(device, place.id)
    if not isinstance(message, File):
        raise UserError(
            f"the message {prefix} holds no file that can be read here; "
            "'ivor read' shows which ones do"
        )
    return message


def write_received(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 that must not exist yet, whole or not at all, durably.

    Raises UserError if something is there, be it a link to nowhere, or StorageError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, _OWNER_ONLY)
    except FileExistsError:
        raise UserError(f"{path} exists already; give another name with --output") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None
