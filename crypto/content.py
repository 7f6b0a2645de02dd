"""A message body: padded, encrypted, and committed to so that it can be proved later (SPEC 4.3).

    pc          = HMAC(kf, "ivor/1 pc" ‖ H(pre) ‖ m)
    key ‖ nonce = XL(seed, "aead", H(pre ‖ pc), 56)
    ciphertext  = XChaCha20-Poly1305(key, nonce, aad = H(pre ‖ pc), kf ‖ pad(m))

`pre` is the header up to and including kind, epoch and generation; pc follows it in the header, so
the signature covers both. Whoever is given (m, kf) checks m against the header with no other key.
The key depends on pc, so a cloned device that encrypts two texts at one generation uses two keys.
"""

import hashlib
import hmac
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError as SodiumError

from crypto.errors import ContentRefused
from crypto.labels import expand_with_label, mac

FRANKING_KEY_BYTES: Final = 32

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 24
_CIPHERTEXT_BYTES_MIN: Final = FRANKING_KEY_BYTES + 1 + 16  # kf, the mark, the tag
_MARK: Final = b"\x80"


def franking_commitment(kf: bytes, pre: bytes, m: bytes) -> bytes:
    """Commit to m, 32 bytes: pc = HMAC(kf, "ivor/1 pc" ‖ SHA-256(pre) ‖ m).

    kf: 32 random bytes, for this message alone.
    To check a disclosed (m, kf), recompute and compare with the signed header.
    """
    return mac(kf, "pc", hashlib.sha256(pre).digest(), m)


def padded_length(length: int) -> int:
    """Round up to the next Padmé length: O(log log n) bits leak, at most 12 % is added.

    Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", section 4.
    """
    if length <= 1:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def pad(m: bytes) -> bytes:
    """Return m ‖ 80, then zeros up to the Padmé length."""
    return (m + _MARK).ljust(padded_length(len(m) + 1), b"\x00")


def unpad(padded: bytes) -> bytes:
    """Undo `pad`. Raises ContentRefused unless `padded` is exactly pad(m): one m, one padding."""
    marked = padded.rstrip(b"\x00")
    if not marked.endswith(_MARK) or len(padded) != padded_length(len(marked)):
        raise ContentRefused("padding is not Padmé after 80 (SPEC 4.3)")
    return marked[:-1]


def seal_content(seed: bytes, pre: bytes, kf: bytes, m: bytes) -> tuple[bytes, bytes]:
    """Encrypt one message: (pc for the header, ciphertext).

    seed: 32 bytes of `schedule.advance`, used once, then erased. kf: 32 random bytes; ValueError
    for another length. The ciphertext is 48 bytes longer than pad(m).
    """
    if len(kf) != FRANKING_KEY_BYTES:
        bug = f"franking key of {len(kf)} bytes, must be {FRANKING_KEY_BYTES}"
        raise ValueError(bug)
    pc = franking_commitment(kf, pre, m)
    bound, key, nonce = _keys(seed, pre, pc)
    return pc, crypto_aead_xchacha20poly1305_ietf_encrypt(kf + pad(m), bound, nonce, key)


def open_content(seed: bytes, pre: bytes, pc: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """Decrypt one message: (kf, m).

    pre, pc: of the header, its signature checked already. ciphertext: from a peer, any bytes.
    Raises ContentRefused if tag, padding or commitment is wrong.
    Source: draft-irtf-cfrg-xchacha, section 2.
    """
    # The binding raises a bare ValueError for less than a tag.
    if len(ciphertext) < _CIPHERTEXT_BYTES_MIN:
        refusal = f"content of {len(ciphertext)} bytes, at least {_CIPHERTEXT_BYTES_MIN} (SPEC 4.3)"
        raise ContentRefused(refusal)
    bound, key, nonce = _keys(seed, pre, pc)
    try:
        plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, bound, nonce, key)
    except SodiumError:
        raise ContentRefused("content does not open (SPEC 4.3)") from None
    kf = plaintext[:FRANKING_KEY_BYTES]
    m = unpad(plaintext[FRANKING_KEY_BYTES:])
    if not hmac.compare_digest(franking_commitment(kf, pre, m), pc):
        raise ContentRefused("content is not what its header commits to (SPEC 4.3)")
    return kf, m


def _keys(seed: bytes, pre: bytes, pc: bytes) -> tuple[bytes, bytes, bytes]:
    """Derive (H(pre ‖ pc), key, nonce)."""
    bound = hashlib.sha256(pre + pc).digest()
    material = expand_with_label(seed, "aead", bound, _KEY_BYTES + _NONCE_BYTES)
    return bound, material[:_KEY_BYTES], material[_KEY_BYTES:]
