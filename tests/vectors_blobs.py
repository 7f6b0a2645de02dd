"""Vectors of blobs: lengths, chunks, what is announced, and paths (SPEC 4.7, 6.7)."""

from typing import Final

from crypto import merkle
from crypto.blob import BlobCipher, chunks_of, sealed_length
from crypto.errors import ContentRefused
from protocol.attachment import Announcement, announcement, encode_announcement
from protocol.blob import check_chunk
from protocol.entry import ATTACHED
from protocol.errors import Unauthentic
from protocol.frame import Blob
from protocol.limits import BLOB_BYTES_MAX
from protocol.testing.cast import seed
from tests.vectors import Case, Value, invalid, valid
from tests.vectors_log import attached

KEY: Final = seed("blob", "key")
TAIL: Final = b"the end of a file"
SIZES: Final = (0, 1, 17, 65_536, 262_127, 262_128, 262_129, 10**6, 2**31)


def blobs() -> list[Case]:
    """Return all cases."""
    lengths = [
        valid(
            f"a file of {size} bytes",
            {"sealed": sealed_length(size), "chunks": chunks_of(sealed_length(size))},
            do="length",
            size=size,
        )
        for size in SIZES
    ]
    return [*lengths, *_chunks(), *_announcements(), *_members()]


def _chunks() -> list[Case]:
    cipher = BlobCipher(KEY)
    good = {
        "the only chunk": (0, 1, TAIL),
        "the last of three": (2, 3, TAIL),
        "one of many": (7, 65_536, b"\x00" * 300),
    }
    cases = [
        valid(
            name,
            plain,
            do="chunk",
            key=KEY,
            index=index,
            count=count,
            chunk=cipher.seal(index, count, plain),
        )
        for name, (index, count, plain) in good.items()
    ]
    last = cipher.seal(2, 3, TAIL)
    bad: dict[str, tuple[int, int, bytes]] = {
        "a chunk at another index": (1, 3, last),
        "the last chunk, which is not the last": (2, 4, last),
        "a chunk that is not the last, at the end": (2, 3, cipher.seal(2, 4, TAIL)),
        "a chunk that was altered": (2, 3, bytes([last[0] ^ 1]) + last[1:]),
        "a chunk that was cut off": (2, 3, last[:-1]),
        "less than a tag": (2, 3, last[:15]),
    }
    return cases + [
        invalid(name, ContentRefused, do="chunk", key=KEY, index=index, count=count, chunk=chunk)
        for name, (index, count, chunk) in bad.items()
    ]


def _announcements() -> list[Case]:
    root, secret = seed("blob", "root"), b"ciphertext"
    payloads = {
        "a blob of 17 bytes": encode_announcement(Announcement(root, 17)) + secret,
        "the largest blob": encode_announcement(Announcement(root, BLOB_BYTES_MAX)) + secret,
        "a blob that is too large": encode_announcement(Announcement(root, BLOB_BYTES_MAX + 1)),
        "a blob of nothing, not even a chunk": encode_announcement(Announcement(root, 0)),
        "a blob without a byte": encode_announcement(Announcement(root, 16)),
        "a last chunk without a byte": encode_announcement(Announcement(root, 262_144 + 16)),
        "a payload too short to announce": root + bytes(7),
    }
    cases = []
    for name, payload in payloads.items():
        found = announcement(attached(), payload)
        shown: Value = None if found is None else {"root": found.root, "size": found.size}
        cases.append(valid(name, shown, do="announcement", kind=ATTACHED, payload=payload))
    return cases


def _members() -> list[Case]:
    """A blob of two chunks, of which only the second, which is short, is written here."""
    cipher = BlobCipher(KEY)
    first, last = cipher.seal(0, 2, bytes(262_128)), cipher.seal(1, 2, TAIL)
    tree = merkle.Tree([merkle.leaf_hash(first), merkle.leaf_hash(last)])
    size, path = len(first) + len(last), tree.path(1)
    announced = Announcement(tree.root, size)
    check_chunk(announced, chunk_frame(1, last, path))
    good = valid("a chunk under its root", None, **_member(announced, 1, last, path))
    bad: dict[str, tuple[Announcement, int, bytes, list[bytes]]] = {
        "a chunk at another place": (announced, 0, last, path),
        "a chunk past the end": (announced, 2, last, path),
        "a chunk under another root": (Announcement(bytes(32), size), 1, last, path),
        "a chunk that is not under the root": (announced, 1, last[:-1] + b"\x00", path),
        "a chunk that is too short": (announced, 1, last[:-1], path),
        "a chunk without its path": (announced, 1, last, []),
        "a path with a step too many": (announced, 1, last, [*path, bytes(32)]),
        "a path that was altered": (announced, 1, last, [bytes(32)]),
    }
    return [good] + [invalid(name, Unauthentic, **_member(*one)) for name, one in bad.items()]


def chunk_frame(index: int, chunk: bytes, path: list[bytes]) -> Blob:
    """Return a chunk as it is sent; of which entry does not matter."""
    return Blob(attached().chat, attached().epoch, index, chunk, tuple(path))


def _member(
    announced: Announcement, index: int, chunk: bytes, path: list[bytes]
) -> dict[str, Value]:
    return {
        "do": "member",
        "root": announced.root,
        "size": announced.size,
        "index": index,
        "chunk": chunk,
        "path": path,
    }
