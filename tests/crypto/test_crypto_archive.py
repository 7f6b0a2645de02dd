"""Bundles for one device (SPEC 5.4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.archive import open_bundle, seal_bundle
from crypto.errors import SealRefused
from crypto.sealing import SEAL_BYTES, Prekey, open_seal

PREKEY = Prekey(b"p" * 32)
BUNDLE = seal_bundle(PREKEY.public, b"info", b"k" * 32, b"segment")


class TestBundle:
    @given(st.binary(max_size=40), st.binary(min_size=32, max_size=32), st.binary(max_size=300))
    def test_opens(self, info: bytes, key: bytes, plaintext: bytes) -> None:
        """What is bundled comes back, 1,184 bytes shorter."""
        bundle = seal_bundle(PREKEY.public, info, key, plaintext)
        assert open_bundle(PREKEY.private, info, bundle) == plaintext
        assert len(bundle) == len(plaintext) + SEAL_BYTES + 16

    @given(st.integers(0, len(BUNDLE) * 8 - 1))
    def test_any_flipped_bit_is_refused(self, bit: int) -> None:
        """No bit of a bundle is spare."""
        altered = bytearray(BUNDLE)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealRefused):
            open_bundle(PREKEY.private, b"info", bytes(altered))

    @given(st.integers(0, len(BUNDLE) - 1))
    def test_cut_is_refused(self, length: int) -> None:
        """No prefix of a bundle opens."""
        with pytest.raises(SealRefused):
            open_bundle(PREKEY.private, b"info", BUNDLE[:length])

    def test_other_info_or_prekey_is_refused(self) -> None:
        """A bundle is for one place and one device."""
        with pytest.raises(SealRefused):
            open_bundle(PREKEY.private, b"other", BUNDLE)
        with pytest.raises(SealRefused):
            open_bundle(b"q" * 32, b"info", BUNDLE)

    def test_its_seal_is_no_epoch_seal(self) -> None:
        """The wrapped key opens under no other info."""
        with pytest.raises(SealRefused):
            open_seal(PREKEY.private, b"ivor/1 sealinfo", BUNDLE[:SEAL_BYTES])

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_key_of_wrong_length(self, length: int) -> None:
        """That is our own bug, so it is a ValueError."""
        with pytest.raises(ValueError, match="bundle key"):
            seal_bundle(PREKEY.public, b"info", bytes(length), b"segment")
