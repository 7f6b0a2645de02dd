"""Files that are signed: read, hashed, and written beside the original, never over anything."""

import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from node.errors import LimitReached, StorageError, UserError
from protocol.approval import Document, Version
from protocol.errors import PeerError
from protocol.file import FILE_NAME_BYTES_MAX, check_file_name, read_media_type

FILE_BYTES_MAX = 256 * 1024 * 1024  # it is read as a whole: pyHanko needs a PDF so; guess
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was read."""

    path: Path
    data: bytes
    digest: bytes

    @classmethod
    def of(cls, path: Path, data: bytes) -> "File":
        """Hash bytes that are, or are to be, at a path."""
        return cls(path, data, sha256(data).digest())

    @property
    def version(self) -> Version:
        """Its SHA-256 and size."""
        return Version(self.digest, len(self.data))

    def document(self, media_type: str) -> Document:
        """Return how a request names it."""
        return Document(self.digest, len(self.data), self.path.name, media_type)


def read_file(path: Path) -> File:
    """Read a file whole. Raises UserError, StorageError or LimitReached."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file that can be signed")
    try:
        check_file_name(path.name)
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except PeerError as error:
        raise UserError(f"{error}; rename it first") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise LimitReached(f"{path} has over {FILE_BYTES_MAX} bytes; such a file is not signed")
    if not data:
        raise UserError(f"{path} is empty: there is nothing to sign")
    return File.of(path, data)


def name_with(stem: str, end: str) -> str:
    """Return a file's name with this end; of a long stem only as much as a name has room for."""
    room = FILE_NAME_BYTES_MAX - len(end.encode())
    return stem.encode()[:room].decode(errors="ignore") + end


def media_type_of(name: str) -> str:
    """Guess a media type by the ending of a name. Systems list some in capitals: it is the same."""
    guessed = (mimetypes.guess_type(name)[0] or _UNKNOWN).lower()
    try:
        return read_media_type(guessed.encode())
    except PeerError:
        return _UNKNOWN
