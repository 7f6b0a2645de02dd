"""A short secret for one device: HPKE base mode with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305.

X-Wing is ML-KEM-768 and X25519 together, so a seal stays closed unless both are broken. Base mode
does not say who sealed: the signed entry that carries the Merkle root of the seals does.

Randomness: `seal` cannot be given its own. The library draws the KEM's coins from the operating
system, so two seals of one secret differ, and a simulation is reproducible except for seals.
`Prekey` is wholly determined by its 32 private bytes.
Sources: RFC 9180; draft-connolly-cfrg-xwing-kem; SPEC 4.1.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from crypto.errors import SealRefused
from crypto.labels import digest

PREKEY_PRIVATE_BYTES: Final = 32
PREKEY_BYTES: Final = 1216
PREKEY_ID_BYTES: Final = 16
SECRET_BYTES: Final = 32
SEAL_BYTES: Final = 1168  # of a 32-byte secret: 1,120 encapsulated, 32 encrypted, 16 of tag

_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = 1184
_X25519_BYTES: Final = 32
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


@dataclass(frozen=True, slots=True, eq=False)
class Prekey:
    """A pair that seals are made to: 32 random private bytes in, the 1,216 public ones out.

    private: an X-Wing decapsulation key; store these 32 bytes, repr hides them. ValueError for
    another length. Erasing every copy is what gives forward secrecy per epoch.
    """

    private: bytes = field(repr=False)
    public: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Derive the public half once."""
        mlkem, x25519 = _private_halves(self.private)
        public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        object.__setattr__(self, "public", public)


def prekey_id(public: bytes) -> bytes:
    """Return the 16 bytes by which entries name a public prekey."""
    return digest("prekey", public)[:PREKEY_ID_BYTES]


def seal(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Encrypt `plaintext` to the holder of a prekey; 1,168 bytes for 32 of plaintext.

    public: 1,216 bytes, from a peer. info: bound, not sent; the opener must know it.
    The library draws the randomness. Raises SealRefused if `public` is not an X-Wing key.
    """
    if len(public) != PREKEY_BYTES:
        refusal = f"prekey of {len(public)} bytes, must be {PREKEY_BYTES} (SPEC 4.1)"
        raise SealRefused(refusal)
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError:
        refusal = "prekey is not a valid ML-KEM-768 and X25519 pair (SPEC 4.1)"
        raise SealRefused(refusal) from None


def takes_seals(public: bytes) -> bool:
    """Whether a peer's prekey is an X-Wing key, so that `seal` takes it."""
    try:
        seal(public, b"", bytes(SECRET_BYTES))
    except SealRefused:
        return False
    return True


def open_seal(private: bytes, info: bytes, sealed: bytes) -> bytes:
    """Decrypt what `seal` made for the prekey of these 32 private bytes.

    Raises SealRefused, without saying why, if key, info or any byte of `sealed` is another.
    """
    key = MLKEM768X25519PrivateKey(*_private_halves(private))
    try:
        return _SUITE.decrypt(sealed, key, info)
    except InvalidTag:
        raise SealRefused("seal does not open with this prekey and info (SPEC 4.1)") from None


def _private_halves(private: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Expand as X-Wing's expandDecapsulationKey does (draft, section 5.2)."""
    if len(private) != PREKEY_PRIVATE_BYTES:
        bug = f"private prekey of {len(private)} bytes, must be {PREKEY_PRIVATE_BYTES}"
        raise ValueError(bug)
    expanded = hashlib.shake_256(private).digest(_MLKEM_SEED_BYTES + _X25519_BYTES)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:]),
    )
