"""Files among the messages of a chat: what they are called and how long; others chose the name."""

from hashlib import sha256

from protocol.file import File


def file_record(file: File) -> dict[str, object]:
    """Return what --json prints of one; `ivor get` gives the bytes."""
    return {
        "kind": "file",
        "text": file.text,
        "name": file.name,
        "media_type": file.media_type,
        "size": len(file.data),
        "digest": sha256(file.data).hexdigest(),
    }


def file_text(file: File) -> str:
    """Return what people read of one; others wrote parts of it."""
    return f"(file {file.name}, {len(file.data)} bytes; 'ivor get' writes it) {file.text}".rstrip()
