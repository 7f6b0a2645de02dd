"""Ed25519 by libsodium, the one verifier: two that disagree on one signature split the network.

libsodium refuses small-order keys, non-canonical points and S ≥ L; OpenSSL takes some of them.
A signature is over "ivor/1 " ‖ label ‖ message, so one made for one purpose is void for another.
"""

from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from crypto.errors import BadSignature
from crypto.labels import PREFIX

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


def public_key(seed: bytes) -> bytes:
    """Return the 32-byte Ed25519 public key of a 32-byte seed. ValueError for another length."""
    return crypto_sign_seed_keypair(seed)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """A signing key, made from its 32-byte seed (ValueError for another length); repr hides it.

    Source: RFC 8032, section 5.1; SPEC 4.1.
    """

    seed: bytes = field(repr=False)
    public: bytes = field(init=False)
    _secret: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derive both halves once."""
        public, secret = crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "_secret", secret)

    def sign(self, label: str, message: bytes) -> bytes:
        """Return the 64-byte signature over "ivor/1 " ‖ label ‖ message. Deterministic."""
        signed = crypto_sign(b"".join((PREFIX, label.encode(), message)), self._secret)
        return signed[:SIGNATURE_BYTES]


def verify(public: bytes, label: str, message: bytes, signature: bytes) -> None:
    """Check a signature over "ivor/1 " ‖ label ‖ message.

    Raises BadSignature if libsodium refuses it, or the key is not 32 or the signature not 64 bytes.
    """
    verify_raw(public, b"".join((PREFIX, label.encode(), message)), signature)


def verify_raw(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature over exactly `message`. For test vectors; all else calls `verify`.

    Raises BadSignature as `verify` does. The lengths are checked here because libsodium's binding
    would read past a short key, and complete a short signature with the message's first bytes.
    """
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        refusal = (
            f"public key of {len(public)} bytes and signature of {len(signature)}, "
            f"must be {PUBLIC_BYTES} and {SIGNATURE_BYTES} (SPEC 4.1)"
        )
        raise BadSignature(refusal)
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        raise BadSignature("signature is not of this key over this message (SPEC 4.1)") from None
