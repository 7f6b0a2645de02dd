"""ML-DSA-65: signatures that still prove something when every Ed25519 key is public (SPEC 2.7).

Two uses, each under its own label: an agency's archive key certifies the archive key of a device,
and that certifies checkpoints. As with Ed25519 a signature is over "ivor/1 " ‖ label ‖ message;
the context string of FIPS 204 is empty. Verifying takes 0.2 ms.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from crypto.errors import BadSignature
from crypto.labels import PREFIX, digest

ARCHIVAL_SEED_BYTES: Final = 32
ARCHIVAL_KEY_BYTES: Final = 1952
ARCHIVAL_SIGNATURE_BYTES: Final = 3309


@dataclass(frozen=True, slots=True, eq=False)
class ArchivalSigner:
    """An ML-DSA-65 key, made from its 32-byte seed (ValueError for another length); repr hides it.

    Source: FIPS 204, algorithms 1 and 2; SPEC 2.7.
    """

    seed: bytes = field(repr=False)
    public: bytes = field(init=False, repr=False)
    _secret: MLDSA65PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derive both halves once."""
        secret = MLDSA65PrivateKey.from_seed_bytes(self.seed)
        object.__setattr__(self, "_secret", secret)
        object.__setattr__(self, "public", secret.public_key().public_bytes_raw())

    def sign(self, label: str, message: bytes) -> bytes:
        """Return the 3,309-byte signature over "ivor/1 " ‖ label ‖ message; another each time."""
        return self._secret.sign(b"".join((PREFIX, label.encode(), message)))


def verify_archival(public: bytes, label: str, message: bytes, signature: bytes) -> None:
    """Check a signature over "ivor/1 " ‖ label ‖ message.

    Raises BadSignature if it is not of this key, or if a length is not that of ML-DSA-65.
    """
    try:
        key = MLDSA65PublicKey.from_public_bytes(public)
        key.verify(signature, b"".join((PREFIX, label.encode(), message)))
    except (InvalidSignature, ValueError):
        raise BadSignature("no ML-DSA-65 signature of this key over this message") from None


def archive_digest(public: bytes) -> bytes:
    """Return the 32 bytes by which a charter or a certificate names an archive key."""
    return digest("archive key", public)
