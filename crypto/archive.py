"""A large body for one device: archive segments for a new one, a backup for a recovery key.

    seal         = HPKE(prekey, info = "ivor/1 bundle" ‖ info, key)              1,168 bytes
    bound        = H("ivor/1 bundle" ‖ seal ‖ info)
    key' ‖ nonce = XL(key, "bundle", bound, 56)
    bundle       = seal ‖ XChaCha20-Poly1305(key', nonce, aad = bound, plaintext)

Like a seal, a bundle does not say who made it: its carrier is signed (SPEC 5.4).
"""

from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError as SodiumError

from crypto.errors import SealRefused
from crypto.labels import PREFIX, digest, expand_with_label
from crypto.sealing import SEAL_BYTES, open_seal, seal

BUNDLE_KEY_BYTES: Final = 32

_LABEL: Final = "bundle"
_INFO: Final = PREFIX + b"bundle"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 24
_BUNDLE_BYTES_MIN: Final = SEAL_BYTES + 16  # the tag


def seal_bundle(public: bytes, info: bytes, key: bytes, plaintext: bytes) -> bytes:
    """Encrypt `plaintext` to the holder of a prekey; 1,184 bytes longer than it.

    public: 1,216 bytes, from a peer. info: bound, not sent; the opener must know it.
    key: 32 random bytes, for this bundle alone; ValueError for another length. HPKE draws its own
    randomness besides. Raises SealRefused if `public` is not an X-Wing key.
    """
    if len(key) != BUNDLE_KEY_BYTES:
        bug = f"bundle key of {len(key)} bytes, must be {BUNDLE_KEY_BYTES}"
        raise ValueError(bug)
    sealed = seal(public, _INFO + info, key)
    bound, body_key, nonce = _keys(key, sealed, info)
    return sealed + crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, bound, nonce, body_key)


def open_bundle(private: bytes, info: bytes, bundle: bytes) -> bytes:
    """Decrypt what `seal_bundle` made for the prekey of these 32 private bytes.

    Raises SealRefused, without saying why, if key, info or any byte of `bundle` is another.
    """
    # The binding raises a bare ValueError for less than a tag.
    if len(bundle) < _BUNDLE_BYTES_MIN:
        refusal = f"bundle of {len(bundle)} bytes, at least {_BUNDLE_BYTES_MIN} (SPEC 5.4)"
        raise SealRefused(refusal)
    sealed = bundle[:SEAL_BYTES]
    key = open_seal(private, _INFO + info, sealed)
    bound, body_key, nonce = _keys(key, sealed, info)
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(
            bundle[SEAL_BYTES:], bound, nonce, body_key
        )
    except SodiumError:
        raise SealRefused("bundle does not open (SPEC 5.4)") from None


def _keys(key: bytes, sealed: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    """Derive (bound, key', nonce)."""
    bound = digest(_LABEL, sealed, info)
    material = expand_with_label(key, _LABEL, bound, _KEY_BYTES + _NONCE_BYTES)
    return bound, material[:_KEY_BYTES], material[_KEY_BYTES:]
