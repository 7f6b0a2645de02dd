"""Files among the messages of a chat: what they are called and how long; others chose the name."""

from hashlib import sha256
from typing import TYPE_CHECKING

from node.words import counted
from protocol.file import File

if TYPE_CHECKING:
    from client.reading import Whereabouts
    from protocol.attachment import Attachment


def file_record(file: "File | Attachment") -> dict[str, object]:
    """Return what --json prints of one; `ivor get` gives the bytes."""
    return {
        "kind": "file",
        "text": file.text,
        "name": file.name,
        "media_type": file.media_type,
        "size": _size(file),
        "digest": _digest(file).hex(),
    }


def file_text(file: "File | Attachment") -> str:
    """Return what proves which file is meant; others wrote parts of it."""
    digest = _digest(file).hex()
    return (
        f"(file {file.name}, {counted(_size(file), 'byte')}, SHA-256 {digest}) {file.text}".rstrip()
    )


def file_line(file: "File | Attachment", whereabouts: "Whereabouts | None") -> str:
    """Return what people read of one in a chat."""
    where = "'ivor get' writes it" if whereabouts is None else _where(whereabouts)
    return f"(file {file.name}, {counted(_size(file), 'byte')}; {where}) {file.text}".rstrip()


def _where(found: "Whereabouts") -> str:
    if found.waits:
        return "it waits for our node to take it"
    if found.fetched:
        return "was fetched, 'ivor get' fetches it again"
    if not found.held:
        return "not here, 'ivor get' fetches it"
    return f"{100 * found.held // found.chunks} % is here, 'ivor get' goes on"


def _size(file: "File | Attachment") -> int:
    return len(file.data) if isinstance(file, File) else file.size


def _digest(file: "File | Attachment") -> bytes:
    return sha256(file.data).digest() if isinstance(file, File) else file.digest
