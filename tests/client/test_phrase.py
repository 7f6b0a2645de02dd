"""The recovery phrase: SPEC 5.6."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.phrase import phrase_of, seed_of
from node.errors import UserError

# From the test vectors of BIP 39 (trezor/python-mnemonic, vectors.json).
ZEROS = "abandon " * 23 + "art"
ONES = "zoo " * 23 + "vote"


class TestPhrase:
    @pytest.mark.parametrize(("seed", "text"), [(bytes(32), ZEROS), (b"\xff" * 32, ONES)])
    def test_it_is_that_of_bip_39(self, seed: bytes, text: str) -> None:
        assert " ".join(phrase_of(seed)) == text
        assert seed_of(text) == seed

    @given(st.binary(min_size=32, max_size=32), st.sampled_from([" ", "\n", " \t  "]))
    def test_there_and_back_however_it_is_typed(self, seed: bytes, gap: str) -> None:
        assert seed_of(f"  {gap.join(phrase_of(seed)).upper()}\n") == seed

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (ZEROS.replace("art", "arrt"), r"word 24, 'arrt', is not in the list"),
            ("abandon \x1b[31mzoo " + ZEROS, r"word 2, '\\x1b\[31mzoo', is not"),
            ("бросать " + ZEROS, r"word 1, '\\u0431.*', is not"),
            (ZEROS.removesuffix(" art"), "has 24 words, these are 23"),
            ("", "these are 0"),
            (ZEROS.replace("art", "zoo"), "checksum is wrong"),
            ("zoo " + ZEROS.removeprefix("abandon "), "checksum is wrong"),
            ("x" * 1000, r"word 1, 'x{32}', is not"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, why: str) -> None:
        with pytest.raises(UserError, match=why):
            seed_of(text)
