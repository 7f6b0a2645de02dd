"""A Merkle tree in the shape of RFC 6962: one root in a signed header stands for a thousand seals.

    leaf(x)    = SHA-256("ivor/1 merkle" ‖ 00 ‖ x)
    node(l, r) = SHA-256("ivor/1 merkle" ‖ 01 ‖ l ‖ r)
    empty      = SHA-256("ivor/1 merkle")

The tree of n > 1 leaves splits at the largest power of two below n. Built level by level that is
the same tree: neighbours are paired, and an odd last one rises unchanged.
"""

from collections.abc import Sequence

from crypto.labels import digest

_LABEL = "merkle"
_LEAF = b"\x00"
_NODE = b"\x01"


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the 32-byte root over `leaves`, in their order. Source: RFC 6962, section 2.1."""
    return Tree([leaf_hash(leaf) for leaf in leaves]).root


def paths(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return for each leaf its path, the 32-byte siblings from the leaf up, as `check` takes it.

    Hashes each node once, so all paths cost what the root costs. Source: RFC 6962, section 2.1.1.
    """
    tree = Tree([leaf_hash(leaf) for leaf in leaves])
    return [tree.path(index) for index in range(len(leaves))]


def leaf_hash(leaf: bytes) -> bytes:
    """Return what stands for a leaf in the tree, 32 bytes: large leaves need not be kept."""
    return digest(_LABEL, _LEAF, leaf)


class Tree:
    """All hashes of a tree, made of those of its leaves (`leaf_hash`)."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        level = list(hashes)
        self._levels = [level]
        while len(level) > 1:
            risen = level[-1:] if len(level) & 1 else []
            level = [_parent(*pair) for pair in zip(level[::2], level[1::2], strict=False)] + risen
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """The 32-byte root."""
        return self._levels[-1][0] if self._levels[0] else digest(_LABEL)

    def path(self, index: int) -> list[bytes]:
        """Collect the siblings of leaf `index` from the leaf up, where it has one."""
        path = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index >>= 1
        return path


def check(expected_root: bytes, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Tell whether `leaf` is number `index` of the `count` leaves under `expected_root`.

    path: from a peer, so any length and content is answered with False, never an exception.
    count: from the signed header; it bounds the work to log2(count) hashes.
    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < count:
        return False
    node = leaf_hash(leaf)
    siblings = iter(path)
    while count > 1:
        if index ^ 1 < count:
            sibling = next(siblings, None)
            if sibling is None:
                return False
            node = _parent(sibling, node) if index & 1 else _parent(node, sibling)
        index >>= 1
        count = (count + 1) >> 1
    return next(siblings, None) is None and node == expected_root


def _parent(left: bytes, right: bytes) -> bytes:
    return digest(_LABEL, _NODE, left, right)
