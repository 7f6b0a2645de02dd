"""Messages about signing files, as the vectors of messages have them (SPEC 5.5)."""

from typing import Final

from protocol import codec
from protocol.approval import (
    Document,
    FileSignature,
    Revision,
    SignatureRefusal,
    SignatureRequest,
    Version,
)
from protocol.entry import Reference
from protocol.errors import LimitExceeded, NotCanonical, PeerError
from protocol.message import Message
from protocol.testing.cast import person, seed

ASKED: Final = tuple(sorted(person(name).user for name in ("anna@mz", "boris@mz")))
DOCUMENT: Final = Document(seed("document"), 48_213, "Приказ 17.pdf", "application/pdf")
REVISION: Final = Revision(Version(DOCUMENT.digest, 48_213), Version(seed("signed"), 65_004))


def approval_messages(target: Reference) -> list[tuple[str, Message]]:
    """Requests, signatures and refusals that are accepted."""
    digest = DOCUMENT.digest
    return [
        ("signature request", SignatureRequest(DOCUMENT, ASKED, "by Friday")),
        ("signature request of nobody else", SignatureRequest(DOCUMENT, (), "")),
        ("signature", FileSignature(target, digest, b"DER", None)),
        ("signature in a PDF", FileSignature(target, digest, b"DER", REVISION)),
        ("signature refusal", SignatureRefusal(target, digest, "wrong year")),
    ]


def bad_approvals(target: Reference) -> list[tuple[str, codec.Value, type[PeerError]]]:
    """Requests, signatures and refusals that are refused."""
    digest, kind = DOCUMENT.digest, b"application/pdf"
    good = (digest, 1, b"a.pdf", kind)

    def named(name: bytes) -> codec.Value:
        return (7, (digest, 1, name, kind), (), b"")

    def revised(base: int, result: int) -> codec.Value:
        return (8, target, digest, b"", ((digest, base), (digest, result)))

    return [
        ("a file name with a folder", named(b"../a.pdf"), NotCanonical),
        ("a file name with a Windows folder", named(b"..\\a.pdf"), NotCanonical),
        ("a file name that is a folder", named(b".."), NotCanonical),
        ("an empty file name", named(b""), NotCanonical),
        ("a file name with a line break", named(b"a\n.pdf"), NotCanonical),
        ("a file name over the limit", named(b"a" * 256), LimitExceeded),
        ("a media type in capitals", (7, (digest, 1, b"a", b"Text/Plain"), (), b""), NotCanonical),
        ("a digest of 31 bytes", (7, (digest[1:], 1, b"a", kind), (), b""), NotCanonical),
        ("a size of 2^53", (7, (digest, 2**53, b"a", kind), (), b""), LimitExceeded),
        ("asked twice", (7, good, (ASKED[0], ASKED[0]), b""), NotCanonical),
        ("33 asked", (7, good, [bytes([i]) * 32 for i in range(33)], b""), LimitExceeded),
        ("a note over the limit", (7, good, (), b"a" * 1025), LimitExceeded),
        ("a CMS over the limit", (8, target, digest, bytes(16_385), None), LimitExceeded),
        ("a revision that adds nothing", revised(5, 5), NotCanonical),
        ("a signature without a request", (8, None, digest, b"", None), NotCanonical),
        ("a reason over the limit", (9, target, digest, b"a" * 1025), LimitExceeded),
    ]
