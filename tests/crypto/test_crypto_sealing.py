"""Seals: HPKE with X-Wing (SPEC 4.1)."""

import hmac
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import SealRefused
from crypto.labels import expand
from crypto.sealing import (
    PREKEY_BYTES,
    PREKEY_ID_BYTES,
    PREKEY_PRIVATE_BYTES,
    SEAL_BYTES,
    Prekey,
    open_seal,
    prekey_id,
    seal,
)

privates = st.binary(min_size=32, max_size=32)
PREKEY = Prekey(b"p" * PREKEY_PRIVATE_BYTES)
SEALED = seal(PREKEY.public, b"info", b"s" * 32)
SUITE_ID = b"HPKE" + bytes.fromhex("647a 0001 0003")  # X-Wing, HKDF-SHA256, ChaCha20-Poly1305


class XWingCase(msgspec.Struct):
    sk: str
    pk: str
    ct: str
    ss: str


def labeled_extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """RFC 9180, section 4."""
    return hmac.digest(salt, b"HPKE-v1" + SUITE_ID + label + ikm, "sha256")


def labeled_expand(secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180, section 4."""
    return expand(secret, length.to_bytes(2, "big") + b"HPKE-v1" + SUITE_ID + label + info, length)


def hpke_body(shared: bytes, info: bytes, plaintext: bytes) -> bytes:
    """What base mode encrypts under a KEM's shared secret (RFC 9180, section 5.1)."""
    context = (
        b"\x00"
        + labeled_extract(b"", b"psk_id_hash", b"")
        + labeled_extract(b"", b"info_hash", info)
    )
    secret = labeled_extract(shared, b"secret", b"")
    key = labeled_expand(secret, b"key", context, 32)
    nonce = labeled_expand(secret, b"base_nonce", context, 12)
    return ChaCha20Poly1305(key).encrypt(nonce, plaintext, b"")


class TestSeal:
    @given(privates, st.binary(max_size=80), st.binary(min_size=32, max_size=32))
    def test_opens(self, private: bytes, info: bytes, secret: bytes) -> None:
        """A seal of 32 bytes is 1,168 long and opens with the same prekey and info."""
        prekey = Prekey(private)
        sealed = seal(prekey.public, info, secret)
        assert len(prekey.public) == PREKEY_BYTES
        assert len(sealed) == SEAL_BYTES
        assert open_seal(private, info, sealed) == secret

    @given(st.integers(0, SEAL_BYTES * 8 - 1))
    def test_any_flipped_bit_is_refused(self, bit: int) -> None:
        """No bit of a seal is spare."""
        altered = bytearray(SEALED)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealRefused):
            open_seal(PREKEY.private, b"info", bytes(altered))

    @given(st.integers(0, SEAL_BYTES - 1))
    def test_cut_is_refused(self, length: int) -> None:
        """No prefix of a seal opens."""
        with pytest.raises(SealRefused):
            open_seal(PREKEY.private, b"info", SEALED[:length])

    def test_other_info_or_prekey_is_refused(self) -> None:
        """A seal cannot be replayed elsewhere."""
        with pytest.raises(SealRefused):
            open_seal(PREKEY.private, b"other", SEALED)
        with pytest.raises(SealRefused):
            open_seal(b"q" * PREKEY_PRIVATE_BYTES, b"info", SEALED)


class TestPrekey:
    @given(st.binary(min_size=PREKEY_BYTES, max_size=PREKEY_BYTES))
    def test_peers_bytes(self, public: bytes) -> None:
        """Any 1,216 bytes are sealed to or refused with SealRefused, never otherwise."""
        try:
            sealed = seal(public, b"", b"s")
        except SealRefused:
            return
        assert len(sealed) == SEAL_BYTES - 31

    @pytest.mark.parametrize(
        "public",
        [
            b"",
            PREKEY.public[:-1],
            PREKEY.public + b"\x00",
            b"\xff" * PREKEY_BYTES,
            PREKEY.public[:-32] + bytes(32),
        ],
        ids=["empty", "short", "long", "not reduced", "small order"],
    )
    def test_malformed_is_refused(self, public: bytes) -> None:
        """Neither ML-KEM's modulus check nor X25519's zero check is skipped."""
        with pytest.raises(SealRefused):
            seal(public, b"", b"s" * 32)

    @given(privates, privates)
    def test_id_names_the_key(self, one: bytes, other: bytes) -> None:
        """Equal ids mean equal keys; the id is 16 bytes."""
        ids = [prekey_id(Prekey(private).public) for private in (one, other)]
        assert len(ids[0]) == PREKEY_ID_BYTES
        assert (ids[0] == ids[1]) == (one == other)

    def test_repr_hides_the_secret(self) -> None:
        """The private half is not shown."""
        assert "private" not in repr(PREKEY)

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_private_of_wrong_length(self, length: int) -> None:
        """That is our own bug, so it is a ValueError."""
        with pytest.raises(ValueError, match="private prekey"):
            Prekey(bytes(length))


class TestXWingVectors:
    """draft-connolly-cfrg-xwing-kem, appendix C."""

    def test_public_keys(self, vector_bytes: Callable[[str], bytes]) -> None:
        """The private bytes expand to the vector's public key."""
        for case in msgspec.json.decode(vector_bytes("xwing.json"), type=list[XWingCase]):
            assert Prekey(bytes.fromhex(case.sk)).public == bytes.fromhex(case.pk)

    def test_decapsulation(self, vector_bytes: Callable[[str], bytes]) -> None:
        """HPKE made by hand over the vector's ciphertext and shared secret opens."""
        for case in msgspec.json.decode(vector_bytes("xwing.json"), type=list[XWingCase]):
            body = hpke_body(bytes.fromhex(case.ss), b"info", b"secret")
            sealed = bytes.fromhex(case.ct) + body
            assert open_seal(bytes.fromhex(case.sk), b"info", sealed) == b"secret"
