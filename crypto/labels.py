"""Domain-separated hashes and key derivation: SHA-256, HMAC and HKDF, each use under its own label.

A label is a constant of our own code, never a peer's bytes. `digest` and `mac` put label and parts
one after another with no lengths between, as SPEC 4.1 writes them, so a use whose first part is
of variable length must not have a label that begins with another use's label.
`expand_with_label` does carry lengths.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

PREFIX: Final = b"ivor/1 "
DIGEST_BYTES: Final = 32

_VARINT_1_BYTE_MAX: Final = (1 << 6) - 1
_VARINT_2_BYTES_MAX: Final = (1 << 14) - 1


def digest(label: str, *parts: bytes) -> bytes:
    """Return SHA-256("ivor/1 " ‖ label ‖ parts…), 32 bytes."""
    return hashlib.sha256(b"".join((PREFIX, label.encode(), *parts))).digest()


def mac(key: bytes, label: str, *parts: bytes) -> bytes:
    """Return HMAC-SHA-256(key, "ivor/1 " ‖ label ‖ parts…), 32 bytes.

    Compare with `hmac.compare_digest`.
    """
    return hmac.digest(key, b"".join((PREFIX, label.encode(), *parts)), "sha256")


def extract(salt: bytes, ikm: bytes) -> bytes:
    """Return HKDF-Extract with SHA-256, 32 bytes. Source: RFC 5869, section 2.2."""
    return hmac.digest(salt, ikm, "sha256")


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    """Return HKDF-Expand with SHA-256, `length` bytes, at most 8,160 (ValueError above).

    Source: RFC 5869, section 2.3.
    """
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)


def expand_with_label(secret: bytes, label: str, context: bytes, length: int) -> bytes:
    """Derive `length` bytes bound to label and context: ExpandWithLabel, prefix "ivor/1 ".

    secret: 32 bytes, uniform. Source: RFC 9420, section 8; SPEC 4.1, there written XL.
    """
    return expand_with_prefix(PREFIX, secret, label, context, length)


def expand_with_prefix(
    prefix: bytes, secret: bytes, label: str, context: bytes, length: int
) -> bytes:
    """Return ExpandWithLabel of RFC 9420 with any prefix.

    MLS's own prefix is b"MLS 1.0 "; through it MLS's vectors test the shape.
    """
    full = prefix + label.encode()
    info = b"".join(
        (
            length.to_bytes(2, "big"),
            _vector_length(len(full)),
            full,
            _vector_length(len(context)),
            context,
        )
    )
    return expand(secret, info, length)


def _vector_length(length: int) -> bytes:
    """Encode the shortest variable-length integer (RFC 9420, section 2.1.2)."""
    if length <= _VARINT_1_BYTE_MAX:
        return length.to_bytes(1, "big")
    if length <= _VARINT_2_BYTES_MAX:
        return (0x4000 | length).to_bytes(2, "big")
    return (0x8000_0000 | length).to_bytes(4, "big")
