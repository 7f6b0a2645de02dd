"""Signatures and seals as hashes, so that a simulation is fast and repeatable.

    with standing_in(Registry()):        # signatures and seals
    with seals_standing_in(Registry()):  # seals and ML-DSA only: Ed25519 stays libsodium's

A stand-in accepts exactly what was made before with the right key over the right bytes: what nobody
signed does not verify. The registry fails on any collision. The seals of HPKE and the signatures of
ML-DSA stand in always: the library draws their randomness from the system, so no run of them could
be repeated. Hashes, key schedule and content encryption are always the real ones.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b, shake_256
from unittest import mock

from cryptography.exceptions import InvalidSignature, InvalidTag

from crypto import archival, sealing, signing
from crypto.archival import ARCHIVAL_SIGNATURE_BYTES, ArchivalSigner
from crypto.errors import BadSignature
from crypto.labels import PREFIX
from crypto.sealing import PREKEY_BYTES, SEAL_BYTES
from crypto.signing import PUBLIC_BYTES, SEED_BYTES, SIGNATURE_BYTES

TAG_BYTES = 16


class Collision(Exception):
    """Two things have one stand-in: what follows means nothing."""


@dataclass(slots=True)
class Registry:
    """What was signed and sealed so far."""

    signatures: dict[bytes, bytes] = field(default_factory=dict)
    seals: dict[bytes, tuple[bytes, bytes, bytes]] = field(default_factory=dict)

    def sign(self, public: bytes, message: bytes, size: int) -> bytes:
        """Return the signature of a key over a message."""
        what = blake2b(public + message, digest_size=32).digest()
        signature = shake_256(b"signature" + what).digest(size)
        if self.signatures.setdefault(signature, what) != what:
            raise Collision(signature.hex())
        return signature

    def signed(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether this key signed this message so."""
        known = self.signatures.get(signature)
        return known is not None and known == blake2b(public + message, digest_size=32).digest()

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """Return a seal that only the private half opens, with the same info."""
        sealed = shake_256(b"seal" + public + info + plaintext).digest(SEAL_BYTES)
        what = public, info, plaintext
        if self.seals.setdefault(sealed, what) != what:
            raise Collision(sealed.hex())
        return sealed

    def open(self, public: bytes, info: bytes, sealed: bytes) -> bytes:
        """Return what was sealed. Raises InvalidTag."""
        what = self.seals.get(sealed)
        if what is None or what[:2] != (public, info):
            raise InvalidTag
        return what[2]


@dataclass(frozen=True, slots=True)
class _SealKey:
    """Both halves of an X-Wing key, told by the public one."""

    raw: bytes

    def public_key(self) -> "_SealKey":
        """Return itself."""
        return self

    def public_bytes_raw(self) -> bytes:
        """Return itself."""
        return self.raw


def _public(private: bytes) -> bytes:
    return shake_256(b"prekey" + private).digest(PREKEY_BYTES)


@dataclass(frozen=True, slots=True)
class _ArchiveKey:
    """An ML-DSA public key."""

    registry: Registry
    public: bytes

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check. Raises InvalidSignature."""
        if not self.registry.signed(self.public, message, signature):
            raise InvalidSignature


def _patches(registry: Registry) -> Iterator[AbstractContextManager[object]]:
    """Seals, prekeys and ML-DSA."""

    class Public:
        @staticmethod
        def from_public_bytes(raw: bytes) -> _ArchiveKey:
            return _ArchiveKey(registry, raw)

    def sign(signer: ArchivalSigner, label: str, message: bytes) -> bytes:
        signed = b"".join((PREFIX, label.encode(), message))
        return registry.sign(signer.public, signed, ARCHIVAL_SIGNATURE_BYTES)

    def halves(private: bytes) -> tuple[_SealKey, _SealKey]:
        public = _public(private)
        return _SealKey(public[: sealing._MLKEM_PUBLIC_BYTES]), _SealKey(
            public[sealing._MLKEM_PUBLIC_BYTES :]
        )

    # A signer may be older than the registry: the cast is made once.
    yield mock.patch.object(ArchivalSigner, "sign", sign)
    yield mock.patch.object(archival, "MLDSA65PublicKey", Public)
    yield mock.patch.object(sealing, "_private_halves", halves)
    yield mock.patch.multiple(
        sealing,
        MLKEM768PublicKey=_Half,
        X25519PublicKey=_Half,
        MLKEM768X25519PublicKey=_joined,
        MLKEM768X25519PrivateKey=_joined,
        _SUITE=_Suite(registry),
    )


class _Half:
    """Reads one half of a public key."""

    @staticmethod
    def from_public_bytes(raw: bytes) -> _SealKey:
        """Return it."""
        return _SealKey(raw)


def _joined(one: _SealKey, other: _SealKey) -> bytes:
    return one.raw + other.raw


@dataclass(frozen=True, slots=True)
class _Suite:
    """HPKE."""

    registry: Registry

    def encrypt(self, plaintext: bytes, key: bytes, info: bytes) -> bytes:
        """Seal."""
        return self.registry.seal(key, info, plaintext)

    def decrypt(self, sealed: bytes, key: bytes, info: bytes) -> bytes:
        """Open a seal."""
        return self.registry.open(key, info, sealed)


@contextmanager
def seals_standing_in(registry: Registry) -> Iterator[Registry]:
    """Let seals and ML-DSA stand in."""
    with ExitStack() as stack:
        for patch in _patches(registry):
            stack.enter_context(patch)
        yield registry


@contextmanager
def standing_in(registry: Registry) -> Iterator[Registry]:
    """Let all signatures and seals stand in."""

    def sign(message: bytes, secret: bytes) -> bytes:
        return registry.sign(secret[SEED_BYTES:], message, SIGNATURE_BYTES) + message

    def verify_raw(public: bytes, message: bytes, signature: bytes) -> None:
        if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
            raise BadSignature("key or signature of another length (SPEC 4.1)")
        if not registry.signed(public, message, signature):
            raise BadSignature("signature is not of this key over this message (SPEC 4.1)")

    with (
        seals_standing_in(registry),
        mock.patch.object(signing, "crypto_sign", sign),
        mock.patch.object(signing, "verify_raw", verify_raw),
    ):
        yield registry
