"""SPEC 4.7: chunks of a blob."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.blob import (
    CHUNK_BYTES,
    CHUNK_PLAIN_BYTES,
    TAG_BYTES,
    BlobCipher,
    chunk_length,
    chunks_of,
    sealed_length,
)
from crypto.content import padded_length
from crypto.errors import ContentRefused
from crypto.merkle import Tree, leaf_hash, paths, root

KEYS = st.binary(min_size=32, max_size=32)
COUNTS = st.integers(1, 65_536)


@given(KEYS, COUNTS, st.data(), st.binary(max_size=99))
def test_a_chunk_opens_at_its_place_alone(
    key: bytes, count: int, data: st.DataObject, plain: bytes
) -> None:
    """Moved, repeated, or taken for the last or not the last, a chunk does not open."""
    index = data.draw(st.integers(0, count - 1))
    cipher = BlobCipher(key)
    sealed = cipher.seal(index, count, plain)
    assert cipher.open(index, count, sealed) == plain
    other_index, other_count = data.draw(st.integers(0, count - 1)), data.draw(COUNTS)
    places = {(other_index, count), (min(index, other_count - 1), other_count)}
    for at, of in places:
        if (at, at == of - 1) != (index, index == count - 1):
            with pytest.raises(ContentRefused):
                cipher.open(at, of, sealed)


@given(KEYS, KEYS, st.binary(min_size=1, max_size=99), st.data())
def test_nothing_else_opens(key: bytes, other: bytes, plain: bytes, data: st.DataObject) -> None:
    """Altered, cut off or under another key, a chunk does not open."""
    sealed = BlobCipher(key).seal(0, 1, plain)
    at = data.draw(st.integers(0, len(sealed) - 1))
    altered = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    for cipher, chunk in (
        (BlobCipher(key), altered),
        (BlobCipher(key), sealed[:at]),
        (BlobCipher(bytes([key[0] ^ 1]) + key[1:]), sealed),
    ):
        with pytest.raises(ContentRefused):
            cipher.open(0, 1, chunk)
    if other != key:
        assert BlobCipher(other).seal(0, 1, plain) != sealed


@given(st.integers(0, 2**34))
def test_lengths_add_up(size: int) -> None:
    """All chunks but the last are full, none is empty, and together they hold the padded file."""
    sealed = sealed_length(size)
    count = chunks_of(sealed)
    last = chunk_length(sealed, count - 1)
    assert TAG_BYTES < last <= CHUNK_BYTES
    assert all(
        chunk_length(sealed, at) == CHUNK_BYTES for at in {0, count - 2} if at in range(count - 1)
    )
    assert (count - 1) * CHUNK_PLAIN_BYTES + last - TAG_BYTES == padded_length(max(size, 1))


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20))
def test_a_tree_of_hashes_is_the_tree_of_the_leaves(leaves: list[bytes]) -> None:
    tree = Tree([leaf_hash(leaf) for leaf in leaves])
    assert tree.root == root(leaves)
    assert [tree.path(index) for index in range(len(leaves))] == paths(leaves)
