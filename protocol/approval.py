"""Asking officials to sign a file, their signatures and refusals, as messages (SPEC 5.5, 5.8).

    m = [7, document, asked, note] · [8, request, digest, CMS, revision or nil] ·
        [9, request, digest, reason]
    document = [digest, size, name, media type];  revision = [[digest, size], [digest, size]]

The file itself stays where it is. Whether a signature verifies, and whose it is, is asked of the
certificates and the log (SPEC 5.8): nothing of that is known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol import codec
from protocol.codec import Value
from protocol.entry import Reference
from protocol.errors import NotCanonical
from protocol.field import check_ascending, read_reference, read_user
from protocol.file import encoded, read_file_name, read_media_type
from protocol.identity import UserId
from protocol.limits import HASH_BYTES

FILE_SIZE_MAX: Final = 2**53 - 1
ASKED_MAX: Final = 32
CMS_BYTES_MAX: Final = 16 * 1024  # a P-256 signature with its certificates has about 2 KiB
NOTE_BYTES_MAX: Final = 1024

_REQUEST, _SIGNATURE, _REFUSAL = 7, 8, 9


@dataclass(frozen=True, slots=True)
class Document:
    """A file by what it is: SHA-256 and size in bytes. name: without a folder."""

    digest: bytes
    size: int
    name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Version:
    """The bytes of a signed PDF at one moment: SHA-256 and size."""

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Revision:
    """What a signature inside a PDF made of it: the result begins with the bytes of the base."""

    base: Version
    result: Version


@dataclass(frozen=True, slots=True)
class SignatureRequest:
    """Asks for signatures on a file; of nobody, if its author alone is to sign."""

    document: Document
    asked: tuple[UserId, ...]
    note: str


@dataclass(frozen=True, slots=True)
class FileSignature:
    """The author's signature on the file of a request.

    digest: the file's, as in the request. cms: a detached CMS signature over it, DER.
    revision: if a signature was also put into the PDF.
    """

    request: Reference
    digest: bytes
    cms: bytes = field(repr=False)
    revision: Revision | None


@dataclass(frozen=True, slots=True)
class SignatureRefusal:
    """The author will not sign the file of a request."""

    request: Reference
    digest: bytes
    reason: str


Act = SignatureRequest | FileSignature | SignatureRefusal


def act_fields(act: Act) -> Sequence[Value]:
    """Return the fields of a plaintext. Raises NotCanonical or LimitExceeded as `read_act` does."""
    fields: Sequence[Value]
    match act:
        case SignatureRequest(document, asked, note):
            fields = (_REQUEST, _document_fields(document), asked, encoded(note))
        case FileSignature(request, digest, cms, revision):
            fields = (_SIGNATURE, request, digest, cms, _revision_fields(revision))
        case SignatureRefusal(request, digest, reason):
            fields = (_REFUSAL, request, digest, encoded(reason))
    read_act(codec.decode(codec.encode(fields), CMS_BYTES_MAX + 4096))
    return fields


def read_act(fields: Sequence[object]) -> Act:
    """Read the fields of a plaintext. Raises NotCanonical, also for other kinds, LimitExceeded."""
    match fields:
        case (7, document, asked, note):
            users = tuple(read_user(one) for one in codec.array(asked, ASKED_MAX, "asked users"))
            check_ascending(users, "asked users")
            return SignatureRequest(
                _read_document(document), users, codec.text(note, NOTE_BYTES_MAX, "note")
            )
        case (8, request, digest, cms, revision):
            return FileSignature(
                read_reference(request),
                codec.fixed(digest, HASH_BYTES, "digest"),
                codec.binary(cms, CMS_BYTES_MAX, "CMS signature"),
                None if revision is None else _read_revision(revision),
            )
        case (9, request, digest, reason):
            return SignatureRefusal(
                read_reference(request),
                codec.fixed(digest, HASH_BYTES, "digest"),
                codec.text(reason, NOTE_BYTES_MAX, "reason"),
            )
        case _:
            kind = fields[0] if fields and isinstance(fields[0], int) else None
            refusal = f"no message has kind {kind} and {len(fields)} fields (SPEC 5.5)"
            raise NotCanonical(refusal)


def _document_fields(document: Document) -> Sequence[Value]:
    name, media_type = encoded(document.name), encoded(document.media_type)
    return (document.digest, document.size, name, media_type)


def _read_document(value: object) -> Document:
    digest, size, name, media_type = codec.record(value, 4, "document")
    return Document(
        codec.fixed(digest, HASH_BYTES, "digest"),
        codec.uint(size, FILE_SIZE_MAX, "size"),
        read_file_name(name),
        read_media_type(media_type),
    )


def _revision_fields(revision: Revision | None) -> Value:
    if revision is None:
        return None
    base, result = revision.base, revision.result
    return ((base.digest, base.size), (result.digest, result.size))


def _read_revision(value: object) -> Revision:
    base, result = codec.record(value, 2, "revision")
    revision = Revision(_read_version(base), _read_version(result))
    if revision.result.size <= revision.base.size:
        raise NotCanonical("a signed PDF is not longer than what was signed (SPEC 5.5)")
    return revision


def _read_version(value: object) -> Version:
    digest, size = codec.record(value, 2, "version")
    return Version(
        codec.fixed(digest, HASH_BYTES, "digest"), codec.uint(size, FILE_SIZE_MAX, "size")
    )
