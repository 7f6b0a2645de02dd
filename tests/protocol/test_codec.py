"""SPEC 1: canonical msgpack."""

import json
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import LimitExceeded, NotCanonical
from protocol.limits import DEPTH_MAX, ELEMENTS_MAX

LIMIT = 1024 * 1024
SUITE = Path(__file__).parents[3] / "shared" / "vectors" / "msgpack-test-suite.json"

LEAVES = st.none() | st.integers(0, 2**64 - 1) | st.binary(max_size=300)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=20).map(tuple), max_leaves=60)
ARRAYS = st.lists(VALUES, max_size=20).map(tuple)


def nested(depth: int) -> codec.Value:
    value: codec.Value = ()
    for _ in range(depth - 1):
        value = (value,)
    return value


class TestOneValueOneEncoding:
    @given(ARRAYS)
    def test_round_trip(self, value: tuple[codec.Value, ...]) -> None:
        """Decode ∘ encode is the identity."""
        assert codec.decode(codec.encode(value), LIMIT) == value

    @given(ARRAYS)
    def test_lists_and_tuples_are_one(self, value: tuple[codec.Value, ...]) -> None:
        assert codec.encode(list(value)) == codec.encode(value)

    @given(ARRAYS)
    def test_another_library_agrees(self, value: tuple[codec.Value, ...]) -> None:
        """msgpack, the other implementation, writes the same bytes and reads the same value."""
        raw = codec.encode(value)
        assert msgpack.packb(value, use_bin_type=True) == raw
        assert msgpack.unpackb(raw, use_list=False) == value

    @given(ARRAYS, st.data())
    def test_any_other_bytes_are_another_value_or_refused(
        self, value: tuple[codec.Value, ...], data: st.DataObject
    ) -> None:
        """What decodes encodes to the very bytes that it was decoded from."""
        raw = bytearray(codec.encode(value))
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = codec.decode(bytes(raw), LIMIT)
        except (NotCanonical, LimitExceeded):
            return
        assert msgpack.packb(found) == bytes(raw)

    @given(st.binary(max_size=60))
    def test_any_bytes(self, raw: bytes) -> None:
        try:
            found = codec.decode(raw, LIMIT)
        except (NotCanonical, LimitExceeded):
            return
        assert msgpack.packb(found) == raw

    @given(ARRAYS, st.binary(min_size=1, max_size=4))
    def test_trailing_bytes(self, value: tuple[codec.Value, ...], more: bytes) -> None:
        with pytest.raises(NotCanonical):
            codec.decode(codec.encode(value) + more, LIMIT)

    @given(ARRAYS)
    def test_cut_short(self, value: tuple[codec.Value, ...]) -> None:
        with pytest.raises(NotCanonical):
            codec.decode(codec.encode(value)[:-1], LIMIT)


def suite() -> list[bytes]:
    """Return every encoding of every value of the suite."""
    if not SUITE.exists():
        return []
    groups = json.loads(SUITE.read_text()).values()
    return [
        bytes.fromhex(raw.replace("-", ""))
        for group in groups
        for case in group
        for raw in case["msgpack"]
    ]


def is_ours(value: object) -> bool:
    """Whether a value is made of the types of signed structures only."""
    if isinstance(value, list):
        return all(is_ours(item) for item in value)
    return value is None or isinstance(value, bytes) or (type(value) is int and value >= 0)


@pytest.mark.skipif(not SUITE.exists(), reason="msgpack-test-suite.json is not here")
def test_suite() -> None:
    """Of the suite, what is of our types and shortest is read; all else is refused."""
    read = refused = 0
    for raw in suite():
        value = msgpack.unpackb(raw, strict_map_key=False)
        if is_ours(value) and msgpack.packb(value) == raw:
            assert msgpack.packb(codec.decode(b"\x91" + raw, LIMIT)) == b"\x91" + raw
            read += 1
        else:
            with pytest.raises(NotCanonical):
                codec.decode(b"\x91" + raw, LIMIT)
            refused += 1
    assert (read, refused) > (20, 200)


class TestLimits:
    def test_size(self) -> None:
        raw = codec.encode([bytes(100)])
        assert codec.decode(raw, len(raw))
        with pytest.raises(LimitExceeded):
            codec.decode(raw, len(raw) - 1)

    def test_depth(self) -> None:
        assert codec.decode(codec.encode(nested(DEPTH_MAX + 1)), LIMIT)
        with pytest.raises(LimitExceeded, match="deeper"):
            codec.decode(codec.encode(nested(DEPTH_MAX + 2)), LIMIT)

    @pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
    def test_very_deep(self, depth: int) -> None:
        with pytest.raises(LimitExceeded, match="deeper"):
            codec.decode(b"\x91" * depth + b"\x90", 2 * LIMIT)

    def test_elements(self) -> None:
        assert codec.decode(codec.encode([None] * ELEMENTS_MAX), LIMIT)
        with pytest.raises(LimitExceeded, match="elements"):
            codec.decode(codec.encode([None] * (ELEMENTS_MAX + 1)), LIMIT)
        with pytest.raises(LimitExceeded, match="elements"):
            codec.decode(codec.encode([[()] * (ELEMENTS_MAX // 2)] * 3), LIMIT)

    @pytest.mark.parametrize(
        "raw",
        [
            "dd ffffffff",
            "df ffffffff",
            "c6 ffffffff",
            "c9 ffffffff 01",
            "91 dd ffffffff",
            "db 7fffffff",
        ],
    )
    def test_giant_claims(self, raw: str) -> None:
        """Case 4: what is claimed is not allocated."""
        with pytest.raises(NotCanonical):
            codec.decode(bytes.fromhex(raw), LIMIT)

    @pytest.mark.parametrize(
        "raw",
        ["80", "91 80", "91 81 90 90", "91 a1 61", "91 a1 ff", "91 cb 7ff8000000000000", "91 c3",
         "91 ff", "91 d6 ff 00000000", "91 c7 0c ff ffffffffffffffffffffffff",
         "91 82 01 02 01 02", "c0", "", "01"],
    )  # fmt: skip
    def test_types_that_are_not_ours(self, raw: str) -> None:
        """Cases 7 to 9."""
        with pytest.raises(NotCanonical):
            codec.decode(bytes.fromhex(raw), LIMIT)


class TestFields:
    def test_fixed(self) -> None:
        assert codec.fixed(b"ab", 2, "x") == b"ab"
        for wrong in (b"a", b"abc", 7, None, (b"ab",)):
            with pytest.raises(NotCanonical, match="x is not 2 bytes"):
                codec.fixed(wrong, 2, "x")

    def test_binary(self) -> None:
        assert codec.binary(b"", 2, "x") == b""
        with pytest.raises(NotCanonical):
            codec.binary(3, 2, "x")
        with pytest.raises(LimitExceeded, match="x has 3 bytes, at most 2"):
            codec.binary(b"abc", 2, "x")

    def test_uint(self) -> None:
        assert codec.uint(5, 5, "x") == 5
        with pytest.raises(NotCanonical):
            codec.uint(b"", 5, "x")
        with pytest.raises(LimitExceeded):
            codec.uint(6, 5, "x")

    def test_array_and_record(self) -> None:
        assert codec.array((1, 2), 2, "x") == (1, 2)
        assert codec.record((1, 2), 2, "x") == (1, 2)
        for wrong in (b"", 1, None):
            with pytest.raises(NotCanonical):
                codec.array(wrong, 2, "x")
            with pytest.raises(NotCanonical):
                codec.record(wrong, 2, "x")
        with pytest.raises(LimitExceeded):
            codec.array((1, 2, 3), 2, "x")
        with pytest.raises(NotCanonical):
            codec.record((1, 2, 3), 2, "x")

    def test_text(self) -> None:
        assert codec.text("я".encode(), 2, "x") == "я"
        with pytest.raises(NotCanonical, match="UTF-8"):
            codec.text(b"\xff", 2, "x")
