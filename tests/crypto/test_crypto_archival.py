"""ML-DSA-65 (SPEC 2.7), held against what the library and FIPS 204 fix."""

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from crypto.archival import (
    ARCHIVAL_KEY_BYTES,
    ARCHIVAL_SIGNATURE_BYTES,
    ArchivalSigner,
    archive_digest,
    verify_archival,
)
from crypto.errors import BadSignature
from crypto.labels import digest

SIGNER = ArchivalSigner(b"s" * 32)
SIGNATURE = SIGNER.sign("checkpoint", b"message")


def test_sizes_of_ml_dsa_65() -> None:
    assert (len(SIGNER.public), len(SIGNATURE)) == (ARCHIVAL_KEY_BYTES, ARCHIVAL_SIGNATURE_BYTES)


def test_what_is_signed_is_prefix_label_and_message() -> None:
    """So another implementation verifies it with no context string."""
    key = MLDSA65PublicKey.from_public_bytes(SIGNER.public)
    key.verify(SIGNATURE, b"ivor/1 checkpointmessage")


def test_it_verifies() -> None:
    verify_archival(SIGNER.public, "checkpoint", b"message", SIGNATURE)
    verify_archival(SIGNER.public, "checkpoint", b"message", SIGNER.sign("checkpoint", b"message"))


@pytest.mark.parametrize(
    ("public", "label", "message", "signature"),
    [
        (ArchivalSigner(b"t" * 32).public, "checkpoint", b"message", SIGNATURE),
        (SIGNER.public, "archive certificate", b"message", SIGNATURE),
        (SIGNER.public, "checkpoint", b"massage", SIGNATURE),
        (SIGNER.public, "checkpoint", b"message", bytes([SIGNATURE[0] ^ 1]) + SIGNATURE[1:]),
        (SIGNER.public, "checkpoint", b"message", SIGNATURE[:-1]),
        (SIGNER.public[:-1], "checkpoint", b"message", SIGNATURE),
        (b"", "checkpoint", b"message", b""),
    ],
)
def test_what_is_refused(public: bytes, label: str, message: bytes, signature: bytes) -> None:
    with pytest.raises(BadSignature):
        verify_archival(public, label, message, signature)


def test_a_seed_of_another_length_is_our_bug() -> None:
    with pytest.raises(ValueError, match="32"):
        ArchivalSigner(b"short")


def test_the_seed_is_not_shown() -> None:
    assert repr(SIGNER) == "ArchivalSigner()"


def test_the_digest_of_a_key() -> None:
    assert archive_digest(SIGNER.public) == digest("archive key", SIGNER.public)
