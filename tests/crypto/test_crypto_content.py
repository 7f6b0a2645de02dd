"""Message bodies (SPEC 4.3)."""

import hashlib
import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError
from nacl.exceptions import TypeError as SodiumTypeError

from crypto.content import (
    franking_commitment,
    open_content,
    pad,
    padded_length,
    seal_content,
    unpad,
)
from crypto.errors import ContentRefused
from crypto.labels import expand_with_label, mac

keys = st.binary(min_size=32, max_size=32)
texts = st.binary(max_size=300)
SEED, KF, PRE = b"s" * 32, b"k" * 32, b"header"


def sealed_under(pc: bytes, plaintext: bytes) -> bytes:
    """Encrypt any plaintext as a hostile sender who knows the seed may."""
    bound = hashlib.sha256(PRE + pc).digest()
    material = expand_with_label(SEED, "aead", bound, 56)
    return crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext, bound, material[32:], material[:32]
    )


class AeadCase(msgspec.Struct):
    key: str
    iv: str
    aad: str
    msg: str
    ct: str
    tag: str
    result: str


class AeadGroup(msgspec.Struct):
    tests: list[AeadCase]


class AeadFile(msgspec.Struct):
    testGroups: list[AeadGroup]  # noqa: N815 - the file's own name


class TestPadding:
    @given(texts)
    def test_comes_back(self, m: bytes) -> None:
        """What is padded is found again, at a Padmé length."""
        assert unpad(pad(m)) == m
        assert len(pad(m)) == padded_length(len(m) + 1)

    @given(st.integers(2, 2**40))
    def test_is_padme(self, length: int) -> None:
        """The published formula in floating point, and its bound of 12 %."""
        exponent = math.floor(math.log2(length))
        step = 2 ** (exponent - (math.floor(math.log2(exponent)) + 1)) if exponent > 1 else 1
        assert padded_length(length) == -(-length // step) * step
        assert padded_length(length) <= length * 1.12

    @given(st.integers(0, 2**40))
    def test_is_idempotent(self, length: int) -> None:
        """An allowed length stays."""
        assert padded_length(padded_length(length)) == padded_length(length)

    @pytest.mark.parametrize(("length", "allowed"), [(0, 0), (1, 1), (9, 10), (100, 104)])
    def test_known_lengths(self, length: int, allowed: int) -> None:
        """Worked by hand."""
        assert padded_length(length) == allowed

    @given(st.binary(max_size=40))
    def test_one_padding_for_one_text(self, padded: bytes) -> None:
        """Whatever unpad takes is exactly what pad makes; all else is refused."""
        try:
            m = unpad(padded)
        except ContentRefused:
            return
        assert pad(m) == padded

    @pytest.mark.parametrize(
        "padded", [b"", b"\x00", b"abc", b"abc\x80\x00\x01", b"a\x80" + bytes(9)]
    )
    def test_wrong_padding(self, padded: bytes) -> None:
        """No mark, something after the mark, or too many zeros."""
        with pytest.raises(ContentRefused):
            unpad(padded)


class TestContent:
    @given(keys, texts, keys, texts)
    def test_opens(self, seed: bytes, pre: bytes, kf: bytes, m: bytes) -> None:
        """Both kf and m come back, and pc is their commitment."""
        pc, ciphertext = seal_content(seed, pre, kf, m)
        assert open_content(seed, pre, pc, ciphertext) == (kf, m)
        assert pc == franking_commitment(kf, pre, m)
        assert pc == mac(kf, "pc", hashlib.sha256(pre).digest(), m)
        assert len(ciphertext) == 48 + len(pad(m))

    @given(texts)
    def test_is_as_written(self, m: bytes) -> None:
        """The ciphertext is the one that SPEC's line makes."""
        pc, ciphertext = seal_content(SEED, PRE, KF, m)
        assert ciphertext == sealed_under(pc, KF + pad(m))

    @given(texts, st.data())
    def test_any_flipped_bit_is_refused(self, m: bytes, data: st.DataObject) -> None:
        """In seed, header, commitment or ciphertext."""
        parts = [bytearray(part) for part in (SEED, PRE, *seal_content(SEED, PRE, KF, m))]
        part = data.draw(st.sampled_from(parts))
        bit = data.draw(st.integers(0, len(part) * 8 - 1))
        part[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ContentRefused):
            open_content(*map(bytes, parts))

    @given(st.binary(max_size=80))
    def test_peers_bytes(self, ciphertext: bytes) -> None:
        """Any bytes are refused with ContentRefused, never otherwise."""
        with pytest.raises(ContentRefused):
            open_content(SEED, PRE, bytes(32), ciphertext)

    @pytest.mark.parametrize("plaintext", [b"", b"k" * 31, b"k" * 32])
    def test_short_plaintext(self, plaintext: bytes) -> None:
        """No room for kf and the mark, though the tag be right."""
        pc = bytes(32)
        with pytest.raises(ContentRefused, match="at least 49"):
            open_content(SEED, PRE, pc, sealed_under(pc, plaintext))

    @given(texts, texts)
    def test_commitment_is_enforced(self, m: bytes, other: bytes) -> None:
        """A sender cannot commit to one text and send another, though the tag be right."""
        pc = franking_commitment(KF, PRE, m)
        ciphertext = sealed_under(pc, KF + pad(other))
        if other == m:
            assert open_content(SEED, PRE, pc, ciphertext) == (KF, m)
        else:
            with pytest.raises(ContentRefused, match="commits"):
                open_content(SEED, PRE, pc, ciphertext)

    @pytest.mark.parametrize(
        "plaintext", [b"k" * 33, b"k" * 32 + b"no mark", b"k" * 32 + b"a\x80\x00"]
    )
    def test_wrong_plaintext(self, plaintext: bytes) -> None:
        """Not padded, or padded too far, though the tag be right."""
        pc = bytes(32)
        with pytest.raises(ContentRefused, match="padding"):
            open_content(SEED, PRE, pc, sealed_under(pc, plaintext))

    @given(texts, texts)
    def test_a_clone_reuses_no_key(self, m: bytes, other: bytes) -> None:
        """Two texts at one seed are encrypted under two keys: their ciphertexts share no start."""
        one, two = (seal_content(SEED, PRE, KF, text)[1] for text in (m, other))
        assert (one[:32] == two[:32]) == (m == other)

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_franking_key_of_wrong_length(self, length: int) -> None:
        """That is our own bug, so it is a ValueError."""
        with pytest.raises(ValueError, match="franking key"):
            seal_content(SEED, PRE, bytes(length), b"m")


class TestXChaCha:
    def test_wycheproof(self, vector_bytes: Callable[[str], bytes]) -> None:
        """The AEAD under the content is XChaCha20-Poly1305."""
        data = vector_bytes("wycheproof-xchacha20_poly1305_test.json")
        groups = msgspec.json.decode(data, type=AeadFile).testGroups
        for case in (case for group in groups for case in group.tests):
            key, nonce, aad = (bytes.fromhex(part) for part in (case.key, case.iv, case.aad))
            m, sealed = bytes.fromhex(case.msg), bytes.fromhex(case.ct + case.tag)
            if case.result == "valid":
                assert crypto_aead_xchacha20poly1305_ietf_encrypt(m, aad, nonce, key) == sealed
                assert crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key) == m
            else:
                with pytest.raises((CryptoError, SodiumTypeError)):
                    crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
