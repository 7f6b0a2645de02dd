"""Messages with files, as the vectors of messages have them (SPEC 5.5)."""

from typing import Final

from protocol import codec
from protocol.attachment import Attachment
from protocol.errors import LimitExceeded, NotCanonical, PeerError
from protocol.file import FILE_BYTES_MAX, FILE_TEXT_BYTES_MAX, File
from protocol.message import Message
from protocol.testing.cast import seed

KIND: Final = b"text/csv"
DIGEST: Final = seed("file", "digest")
BLOB_KEY: Final = seed("blob", "key")
REFUSED: Final = {
    "a folder": "../x",
    "a folder from the root": "/x",
    "a Windows folder": "..\\x",
    "a drive": "C:x",
    "a NUL": "x\0.txt",
    "a line break": "x\n.txt",
    "a C1 control": "x\x9b.txt",
    "a right-to-left override": "x\u202etxt.exe",
    "a hidden character": "x\ufeff.txt",
    "a device": "CON",
    "a device with an ending": "lpt1 .tar.gz",
    "a dot": ".",
    "two dots": "..",
    "nothing": "",
    "a dot before it": ".profile",
    "a hyphen before it": "-rf",
    "a dot after it": "x.",
    "a space after it": "x ",
    "an ideographic space after it": "x\u3000",
}
ACCEPTED: Final = ("таблица.csv", "консоль.txt", "CON-1", "a..b", "archive.tar.gz", "ы" * 127)


def file_messages() -> list[tuple[str, Message]]:
    """Files that are accepted."""
    return [
        ("file", File("бюджет 2027.csv", "text/csv", b"a;b\n1;2\n", "")),
        ("file with a text", File("a", "application/octet-stream", b"", "look")),
        (
            "attachment",
            Attachment("план.iso", "application/octet-stream", 2**31, DIGEST, BLOB_KEY, "look"),
        ),
        *((f"file called {name[:14]}", File(name, "text/csv", b"", "")) for name in ACCEPTED),
    ]


def bad_files() -> list[tuple[str, codec.Value, type[PeerError]]]:
    """Files that are refused."""

    def file(
        name: bytes = b"a", kind: bytes = KIND, data: bytes = b"", text: bytes = b""
    ) -> codec.Value:
        return (6, name, kind, data, text)

    def attachment(
        name: bytes = b"a", size: int = 0, digest: bytes = DIGEST, key: bytes = BLOB_KEY
    ) -> codec.Value:
        return (11, name, KIND, size, digest, key, b"")

    names: list[tuple[str, codec.Value, type[PeerError]]] = [
        (f"file name: {what}", file(name.encode()), NotCanonical) for what, name in REFUSED.items()
    ]
    return [
        *names,
        ("file name: 300 bytes", file(b"a" * 300), LimitExceeded),
        ("file name: not UTF-8", file(b"\xff"), NotCanonical),
        ("file of no media type", file(kind=b"text"), NotCanonical),
        ("file over the limit", file(data=bytes(FILE_BYTES_MAX + 1)), LimitExceeded),
        ("file with too long a text", file(text=b"a" * (FILE_TEXT_BYTES_MAX + 1)), LimitExceeded),
        ("attachment of no name", attachment(name=b""), NotCanonical),
        ("attachment over the limit", attachment(size=2**34 + 1), LimitExceeded),
        ("attachment with a key of 31 bytes", attachment(key=bytes(31)), NotCanonical),
        ("attachment with a digest of 31 bytes", attachment(digest=bytes(31)), NotCanonical),
        ("attachment without a text", (11, b"a", KIND, 0, DIGEST, BLOB_KEY), NotCanonical),
        ("file without a text", (6, b"a", KIND, b""), NotCanonical),
    ]
