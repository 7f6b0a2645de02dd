"""A large file that goes with a message: what the message says, and what nodes see (SPEC 4.7, 5.5).

    m       = [11, name, media type, size, SHA-256, blob key, text]
    payload = root ‖ u64 size, sealed ‖ ciphertext               of a content entry of kind 1

The message is encrypted and names the file and its key. What stands before the ciphertext lets
every node of the chat fetch, check and count the sealed chunks, of which it can open none. The
header signs both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from crypto.blob import BLOB_KEY_BYTES, TAG_BYTES, chunk_length, chunks_of, sealed_length
from protocol import codec
from protocol.codec import Value
from protocol.entry import ATTACHED, Header
from protocol.errors import NotCanonical
from protocol.file import FILE_TEXT_BYTES_MAX, encoded, read_file_name, read_media_type
from protocol.limits import BLOB_BYTES_MAX, HASH_BYTES

ANNOUNCEMENT_BYTES: Final = HASH_BYTES + 8

_ATTACHMENT: Final = 11


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a blob. digest: SHA-256 of the file. text: what its author says, or nothing."""

    name: str
    media_type: str
    size: int
    digest: bytes
    key: bytes = field(repr=False)
    text: str


class Announcement(NamedTuple):
    """What nodes know of a blob: the root over its sealed chunks, and how many bytes these have."""

    root: bytes
    size: int

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return chunks_of(self.size)


def attachment_fields(one: Attachment) -> Sequence[Value]:
    """Return the fields of a plaintext. Raises NotCanonical or LimitExceeded as the reader does."""
    name, media_type, text = map(encoded, (one.name, one.media_type, one.text))
    fields = (name, media_type, one.size, one.digest, one.key, text)
    read_attachment(fields)
    return (_ATTACHMENT, *fields)


def read_attachment(values: Sequence[object]) -> Attachment:
    """Read the fields of a plaintext after the kind. Raises NotCanonical or LimitExceeded."""
    name, media_type, size, digest, key, text = codec.record(values, 6, "attachment")
    return Attachment(
        read_file_name(name),
        read_media_type(media_type),
        codec.uint(size, BLOB_BYTES_MAX, "file"),
        codec.fixed(digest, HASH_BYTES, "digest"),
        codec.fixed(key, BLOB_KEY_BYTES, "blob key"),
        codec.text(text, FILE_TEXT_BYTES_MAX, "text"),
    )


def check_announced(one: Attachment, announced: Announcement | None) -> Announcement:
    """Return what is announced if it can be the blob of this file, else raise NotCanonical."""
    if announced is None or announced.size != sealed_length(one.size):
        raise NotCanonical("a file that is not as long as its blob (SPEC 4.7)")
    return announced


def encode_announcement(announced: Announcement) -> bytes:
    """Return what stands before the ciphertext of an entry with a blob."""
    return announced.root + announced.size.to_bytes(8, "big")


def announcement(header: Header, payload: bytes) -> Announcement | None:
    """Read which blob goes with a content entry; None if none does.

    An entry that announces what cannot be is no less an entry: nothing is fetched for it.
    """
    if header.kind != ATTACHED or len(payload) < ANNOUNCEMENT_BYTES:
        return None
    size = int.from_bytes(payload[HASH_BYTES:ANNOUNCEMENT_BYTES], "big")
    found = Announcement(payload[:HASH_BYTES], size)
    if not 0 < size <= BLOB_BYTES_MAX or chunk_length(size, found.chunks - 1) <= TAG_BYTES:
        return None
    return found


def ciphertext_of(header: Header, payload: bytes) -> bytes:
    """Return the ciphertext in the payload of a content entry."""
    return payload[ANNOUNCEMENT_BYTES:] if header.kind == ATTACHED else payload
