"""Ed25519 answers as libsodium does (SPEC 4.1)."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import BadSignature
from crypto.signing import (
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    Signer,
    public_key,
    verify,
    verify_raw,
)

seeds = st.binary(min_size=32, max_size=32)
SPECCHECK_ACCEPTED = [3]  # libsodium's row in "Taming the many EdDSAs", table 5


class SpecCase(msgspec.Struct):
    message: str
    pub_key: str
    signature: str


class Key(msgspec.Struct):
    pk: str


class SignatureCase(msgspec.Struct):
    msg: str
    sig: str
    result: str


class SignatureGroup(msgspec.Struct):
    publicKey: Key  # noqa: N815 - the file's own name
    tests: list[SignatureCase]


class SignatureFile(msgspec.Struct):
    testGroups: list[SignatureGroup]  # noqa: N815 - the file's own name


def accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_raw(public, message, signature)
    except BadSignature:
        return False
    return True


class TestSigner:
    @given(seeds, st.binary(max_size=200))
    def test_signature_verifies(self, seed: bytes, message: bytes) -> None:
        """What a signer signs, its public key verifies, and always with the same bytes."""
        signer = Signer(seed)
        signature = signer.sign("sig", message)
        assert len(signature) == SIGNATURE_BYTES
        assert len(signer.public) == PUBLIC_BYTES
        assert signer.public == public_key(seed)
        assert Signer(seed).sign("sig", message) == signature
        verify(signer.public, "sig", message, signature)

    @given(seeds, st.binary(max_size=64), st.data())
    def test_any_flipped_bit_is_refused(
        self, seed: bytes, message: bytes, data: st.DataObject
    ) -> None:
        """A signature is for one message, and is not malleable."""
        signer = Signer(seed)
        whole = bytearray(signer.sign("sig", message) + message)
        bit = data.draw(st.integers(0, len(whole) * 8 - 1))
        whole[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            verify(
                signer.public, "sig", bytes(whole[SIGNATURE_BYTES:]), bytes(whole[:SIGNATURE_BYTES])
            )

    @given(seeds, seeds, st.binary(max_size=64))
    def test_other_label_or_key_is_refused(self, seed: bytes, other: bytes, message: bytes) -> None:
        """A signature made for one purpose is void for another."""
        signer = Signer(seed)
        signature = signer.sign("sig", message)
        with pytest.raises(BadSignature):
            verify(signer.public, "card", message, signature)
        if other != seed:
            with pytest.raises(BadSignature):
                verify(public_key(other), "sig", message, signature)

    @given(st.binary(max_size=70), st.binary(max_size=70))
    def test_lengths_of_peers_bytes(self, public: bytes, signature: bytes) -> None:
        """Any bytes as key and signature are refused with BadSignature, never otherwise."""
        with pytest.raises(BadSignature):
            verify(public, "sig", b"message", signature)

    def test_short_signature_is_not_completed_by_the_message(self) -> None:
        """Moving the border between signature and message changes the answer."""
        signer = Signer(bytes(32))
        signature = signer.sign("sig", b"m")
        with pytest.raises(BadSignature, match="63"):
            verify_raw(signer.public, signature[63:] + b"ivor/1 sigm", signature[:63])

    def test_repr_hides_the_secret(self) -> None:
        """Neither seed nor expanded key is shown."""
        shown = repr(Signer(b"\xaa" * 32))
        assert "seed" not in shown
        assert "_secret" not in shown
        assert repr(b"\xaa" * 32)[1:] not in shown

    @pytest.mark.parametrize("length", [0, 31, 33, 64])
    def test_seed_of_wrong_length(self, length: int) -> None:
        """That is our own bug, so it is a ValueError."""
        with pytest.raises(ValueError, match="seed"):
            Signer(bytes(length))


class TestVectors:
    def test_speccheck(self, vector_bytes: Callable[[str], bytes]) -> None:
        """On the twelve edge cases the answer is libsodium's."""
        cases = msgspec.json.decode(vector_bytes("ed25519-speccheck.json"), type=list[SpecCase])
        accepted = [
            number
            for number, case in enumerate(cases)
            if accepts(
                bytes.fromhex(case.pub_key),
                bytes.fromhex(case.message),
                bytes.fromhex(case.signature),
            )
        ]
        assert accepted == SPECCHECK_ACCEPTED

    def test_wycheproof(self, vector_bytes: Callable[[str], bytes]) -> None:
        """Valid cases verify, invalid ones do not."""
        data = vector_bytes("wycheproof-ed25519_test.json")
        for group in msgspec.json.decode(data, type=SignatureFile).testGroups:
            public = bytes.fromhex(group.publicKey.pk)
            for case in group.tests:
                answer = accepts(public, bytes.fromhex(case.msg), bytes.fromhex(case.sig))
                assert answer == (case.result == "valid"), case
