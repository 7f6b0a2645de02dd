"""A large file, encrypted in chunks that can be checked, opened and fetched one by one (SPEC 4.7).

    cipher = BlobCipher(key)                            # 32 random bytes, for this file alone
    sealed = cipher.seal(index, count, plain)           # each of `count` chunks, in any order
    plain = cipher.open(index, count, sealed)

The nonce of a chunk is its index and whether it is the last, so a chunk that was moved, left out or
cut off does not open (STREAM, Hoang et al., "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance"). Who has no key checks a chunk against the root of a Merkle tree
over the sealed chunks (`merkle`).
"""

from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError as SodiumError

from crypto.content import padded_length
from crypto.errors import ContentRefused
from crypto.labels import expand_with_label

BLOB_KEY_BYTES: Final = 32
CHUNK_BYTES: Final = 256 * 1024  # sealed; only the last is shorter
TAG_BYTES: Final = 16
CHUNK_PLAIN_BYTES: Final = CHUNK_BYTES - TAG_BYTES

_KEY_BYTES: Final = 32
_PREFIX_BYTES: Final = 19
_INDEX_BYTES: Final = 4


def chunks_of(sealed: int) -> int:
    """Return how many chunks a blob of so many sealed bytes has."""
    return -(-sealed // CHUNK_BYTES)


def chunk_length(sealed: int, index: int) -> int:
    """Return how long a chunk of a blob of so many sealed bytes is."""
    return min(CHUNK_BYTES, sealed - index * CHUNK_BYTES)


def sealed_length(size: int) -> int:
    """Return how many bytes a file of `size` has once it is padded (Padmé) and sealed.

    An empty file has one byte of padding, so every blob has a chunk.
    """
    padded = padded_length(max(size, 1))
    return padded + TAG_BYTES * -(-padded // CHUNK_PLAIN_BYTES)


class BlobCipher:
    """Seals and opens the chunks of one blob."""

    def __init__(self, key: bytes) -> None:
        """key: `BLOB_KEY_BYTES` random bytes, used for one blob."""
        derived = expand_with_label(key, "blob", b"", _KEY_BYTES + _PREFIX_BYTES)
        self._key = derived[:_KEY_BYTES]
        self._prefix = derived[_KEY_BYTES:]

    def seal(self, index: int, count: int, plain: bytes) -> bytes:
        """Encrypt chunk `index` of `count`."""
        nonce = self._nonce(index, count)
        return crypto_aead_xchacha20poly1305_ietf_encrypt(plain, None, nonce, self._key)

    def open(self, index: int, count: int, sealed: bytes) -> bytes:
        """Decrypt chunk `index` of `count`. Raises ContentRefused if it is any other, or altered.

        sealed: from a peer, any bytes. Source: draft-irtf-cfrg-xchacha, section 2.
        """
        if len(sealed) < TAG_BYTES:
            raise ContentRefused("a chunk that is shorter than its tag (SPEC 4.7)")
        nonce = self._nonce(index, count)
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, None, nonce, self._key)
        except SodiumError:
            raise ContentRefused(f"chunk {index} does not open (SPEC 4.7)") from None

    def _nonce(self, index: int, count: int) -> bytes:
        last = b"\x01" if index == count - 1 else b"\x00"
        return self._prefix + index.to_bytes(_INDEX_BYTES, "big") + last
