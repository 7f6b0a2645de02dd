"""The Merkle tree over seals (SPEC 4.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.labels import digest
from crypto.merkle import check, paths, root

leaf_lists = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH, word for word as RFC 6962, section 2.1, defines it."""
    if not leaves:
        return digest("merkle")
    if len(leaves) == 1:
        return digest("merkle", b"\x00", leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return digest("merkle", b"\x01", defined_root(leaves[:split]), defined_root(leaves[split:]))


def defined_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH, word for word as RFC 6962, section 2.1.1, defines it."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*defined_path(index, leaves[:split]), defined_root(leaves[split:])]
    return [*defined_path(index - split, leaves[split:]), defined_root(leaves[:split])]


class TestTree:
    @pytest.mark.parametrize("count", range(18))
    def test_is_the_tree_of_rfc_6962(self, count: int) -> None:
        """Built level by level, root and paths equal the recursive definition's."""
        leaves = [bytes([number]) for number in range(count)]
        assert root(leaves) == defined_root(leaves)
        assert paths(leaves) == [defined_path(index, leaves) for index in range(count)]

    @given(leaf_lists)
    def test_every_leaf_checks(self, leaves: list[bytes]) -> None:
        """Each leaf's own path leads to the root."""
        top = root(leaves)
        for index, path in enumerate(paths(leaves)):
            assert check(top, leaves[index], index, len(leaves), path)

    @given(leaf_lists, st.binary(max_size=8), st.data())
    def test_nothing_else_checks(
        self, leaves: list[bytes], other: bytes, data: st.DataObject
    ) -> None:
        """Another leaf, or a path altered, cut or lengthened, does not lead to the root."""
        top = root(leaves)
        count = len(leaves)
        index = data.draw(st.integers(0, count - 1))
        path = paths(leaves)[index]
        if other != leaves[index]:
            assert not check(top, other, index, count, path)
        assert not check(top, leaves[index], index, count, [*path, bytes(32)])
        if path:
            assert not check(top, leaves[index], index, count, path[:-1])
            assert not check(top, leaves[index], index, count, [*path[:-1], bytes(32)])

    @given(st.integers(2, 40), st.data())
    def test_index_is_bound(self, count: int, data: st.DataObject) -> None:
        """A leaf proves its own place only."""
        leaves = [bytes([number]) for number in range(count)]
        index, claimed = data.draw(st.permutations(range(count)))[:2]
        assert not check(root(leaves), leaves[index], claimed, count, paths(leaves)[index])

    @pytest.mark.parametrize(("index", "count"), [(-1, 1), (1, 1), (0, 0), (5, 3), (0, -1)])
    def test_index_outside_is_false(self, index: int, count: int) -> None:
        """A peer's index is answered, not raised at."""
        assert not check(root([b"a"]), b"a", index, count, [])

    def test_a_node_is_not_a_leaf(self) -> None:
        """The prefixes keep an inner node from passing as a leaf."""
        inner = digest("merkle", b"\x00", b"a") + digest("merkle", b"\x00", b"b")
        assert not check(root([b"a", b"b"]), inner, 0, 1, [])

    def test_a_thousand_leaves(self) -> None:
        """No path is longer than the tree is high."""
        leaves = [number.to_bytes(2, "big") for number in range(1000)]
        every = paths(leaves)
        assert max(map(len, every)) == 10
        assert check(root(leaves), leaves[999], 999, 1000, every[999])
