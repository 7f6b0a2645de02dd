"""Hashes and derivation under labels (SPEC 4.1)."""

import hashlib
import hmac
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.labels import (
    PREFIX,
    digest,
    expand,
    expand_with_label,
    expand_with_prefix,
    extract,
    mac,
)

SHA256_SUITES = (1, 2, 3)


class HkdfCase(msgspec.Struct):
    ikm: str
    salt: str
    info: str
    size: int
    okm: str
    result: str


class HkdfGroup(msgspec.Struct):
    tests: list[HkdfCase]


class HkdfFile(msgspec.Struct):
    testGroups: list[HkdfGroup]  # noqa: N815 - the file's own name


class LabelCase(msgspec.Struct):
    secret: str
    label: str
    out: str
    context: str = ""
    length: int = 32
    generation: int = 0


class Suite(msgspec.Struct):
    cipher_suite: int
    expand_with_label: LabelCase
    derive_secret: LabelCase
    derive_tree_secret: LabelCase


class TestDigest:
    @given(st.lists(st.binary(max_size=40), max_size=4))
    def test_is_sha256_of_prefix_label_parts(self, parts: list[bytes]) -> None:
        """Parts are joined without separators, as SPEC writes them."""
        assert digest("entry", *parts) == hashlib.sha256(b"ivor/1 entry" + b"".join(parts)).digest()

    @given(st.binary(max_size=80))
    def test_labels_separate(self, data: bytes) -> None:
        """One input under two labels has two digests."""
        assert digest("entry", data) != digest("sig", data)

    @given(st.binary(max_size=80), st.lists(st.binary(max_size=40), max_size=4))
    def test_mac_is_hmac(self, key: bytes, parts: list[bytes]) -> None:
        """The same input as the digest, keyed."""
        whole = b"ivor/1 pc" + b"".join(parts)
        assert mac(key, "pc", *parts) == hmac.new(key, whole, hashlib.sha256).digest()


class TestHkdf:
    """RFC 5869."""

    def test_wycheproof(self, vector_bytes: Callable[[str], bytes]) -> None:
        """Extract then expand gives every valid case, and too long an output is refused."""
        data = vector_bytes("wycheproof-hkdf_sha256_test.json")
        groups = msgspec.json.decode(data, type=HkdfFile).testGroups
        for case in (case for group in groups for case in group.tests):
            key = extract(bytes.fromhex(case.salt), bytes.fromhex(case.ikm))
            info = bytes.fromhex(case.info)
            if case.result == "valid":
                assert expand(key, info, case.size) == bytes.fromhex(case.okm)
            else:
                with pytest.raises(ValueError, match="larger than 8160"):
                    expand(key, info, case.size)


class TestExpandWithLabel:
    """RFC 9420, section 8."""

    def test_mls_vectors(self, vector_bytes: Callable[[str], bytes]) -> None:
        """With MLS's prefix the shape is MLS's, in every SHA-256 suite."""
        suites = msgspec.json.decode(vector_bytes("mls-crypto-basics.json"), type=list[Suite])
        for suite in (suite for suite in suites if suite.cipher_suite in SHA256_SUITES):
            generation = suite.derive_tree_secret.generation.to_bytes(4, "big").hex()
            suite.derive_tree_secret.context = generation
            for case in (suite.expand_with_label, suite.derive_secret, suite.derive_tree_secret):
                assert expand_with_prefix(
                    b"MLS 1.0 ",
                    bytes.fromhex(case.secret),
                    case.label,
                    bytes.fromhex(case.context),
                    case.length,
                ) == bytes.fromhex(case.out)

    @given(st.binary(min_size=32, max_size=32), st.binary(max_size=40))
    def test_own_prefix(self, secret: bytes, context: bytes) -> None:
        """Ours is the same function under another prefix."""
        ours = expand_with_label(secret, "seed", context, 32)
        assert ours == expand_with_prefix(PREFIX, secret, "seed", context, 32)
        assert ours != expand_with_prefix(b"MLS 1.0 ", secret, "seed", context, 32)

    @pytest.mark.parametrize(
        ("size", "encoded"),
        [(0, "00"), (63, "3f"), (64, "4040"), (16383, "7fff"), (16384, "80004000")],
    )
    def test_lengths_are_shortest_varints(self, size: int, encoded: str) -> None:
        """RFC 9420, section 2.1.2: the context's length takes one, two or four bytes."""
        info = b"\x00\x20" + b"\x0bivor/1 seed" + bytes.fromhex(encoded) + b"c" * size
        assert expand_with_label(b"k" * 32, "seed", b"c" * size, 32) == expand(b"k" * 32, info, 32)

    def test_lengths_bind(self) -> None:
        """Where the label ends and the context begins makes a difference."""
        assert expand_with_label(b"k" * 32, "ab", b"c", 32) != expand_with_label(
            b"k" * 32, "a", b"bc", 32
        )
