"""SPEC 6.1, 6.2: frames."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from protocol import frame as frames
from protocol.entry import DeviceKey, EntryId
from protocol.errors import LimitExceeded, NotCanonical
from protocol.limits import (
    BLOB_CHUNKS_MAX,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    HEADS_CHAINS_MAX,
    RUN_ENTRIES_MAX,
    SEALS_FRAME_MAX,
    SEQ_MAX,
)
from protocol.testing.chains import CHAT, HASHES, chains

PREFIXES = st.binary(min_size=8, max_size=8)
INCARNATIONS = st.binary(min_size=16, max_size=16)
SALTS = INCARNATIONS
CURSORS = st.integers(0, 2**63 - 1)
SEQS = st.integers(0, SEQ_MAX)
SIDES = st.integers(0, 1)
DEVICES = HASHES.map(DeviceKey)
CHATS = st.just(CHAT)


def several(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=3).map(tuple)


HEAD = st.builds(frames.Head, DEVICES, SIDES, SEQS, PREFIXES)
SEALED = st.binary(max_size=9).map(lambda raw: raw.ljust(frames.SEALED_BYTES))
SEAL = st.builds(frames.Seal, st.integers(0, 2**16), SEALED, several(HASHES))
CHAT_HEADS = st.builds(frames.ChatHeads, CHATS, several(HEAD))
NUMBERS, CODES = st.integers(0, 2**32 - 1), st.integers(0, 255)
HOLDING = st.builds(frames.Holding, DEVICES, CHATS, DEVICES, SIDES, SEQS)
ITEMS, BOUNDS = st.binary(min_size=16, max_size=16), st.binary(max_size=16)
SPAN = st.builds(frames.Span, BOUNDS, BOUNDS, CURSORS, ITEMS)
ROLL = st.builds(frames.Roll, BOUNDS, BOUNDS, several(ITEMS))
CHUNKS = st.integers(0, BLOB_CHUNKS_MAX - 1)
FRAMES: st.SearchStrategy[frames.Frame] = st.one_of(
    st.builds(frames.Hello, st.just((1,)), INCARNATIONS, st.none() | INCARNATIONS, CURSORS, SALTS),
    st.builds(frames.Heads, CURSORS, SIDES, several(CHAT_HEADS)),
    st.builds(frames.Want, CHATS, DEVICES, SIDES, PREFIXES, SEQS, st.integers(1, 2**32)),
    chains().map(lambda chain: chain.run()),
    st.builds(frames.Absent, CHATS, DEVICES, SIDES, SEQS),
    st.builds(frames.Have, several(HOLDING)),
    st.builds(frames.Forked, CHATS, st.binary(max_size=99)),
    st.builds(frames.WantSeals, CHATS, HASHES, several(DEVICES)),
    st.builds(frames.Seals, CHATS, HASHES, several(SEAL)),
    st.builds(frames.Ask, NUMBERS, CODES, st.binary(max_size=99)),
    st.builds(frames.Answer, NUMBERS, CODES, st.binary(max_size=99)),
    st.builds(frames.Error, st.integers(0, 255), st.binary(max_size=99)),
    st.sampled_from([frames.Bye(), frames.Ping(), frames.Pong()]),
    st.builds(frames.Seen, CURSORS),
    st.builds(frames.WantBlob, CHATS, HASHES, CHUNKS, CHUNKS.map(lambda index: index + 1)),
    st.builds(frames.Blob, CHATS, HASHES, CHUNKS, st.binary(max_size=99), several(HASHES)),
    st.builds(frames.Lacking, CHATS, HASHES, CHUNKS, CHUNKS.map(lambda index: index + 1)),
    st.builds(frames.IHave, CHATS, st.lists(HEAD, min_size=1, max_size=3).map(tuple)),
    st.builds(frames.Graft, CHATS, HEAD),
    st.builds(frames.Prune, CHATS),
    st.builds(frames.Recon, NUMBERS, several(SPAN), several(ROLL), several(ITEMS), NUMBERS),
)


def body_of(frame: frames.Frame) -> bytes:
    return frames.encode_frame(frame)[frames.LENGTH_BYTES :]


class TestRoundTrip:
    @given(FRAMES)
    def test_any_frame(self, frame: frames.Frame) -> None:
        raw = frames.encode_frame(frame)
        length = frames.frame_length(raw[: frames.LENGTH_BYTES], FRAME_BYTES_MAX)
        assert length == len(raw) - frames.LENGTH_BYTES
        found = frames.decode_frame(raw[frames.LENGTH_BYTES :])
        assert type(found) is type(frame)
        assert frames.encode_frame(found) == raw

    def test_types_are_numbered(self) -> None:
        """The number of a type never changes."""
        tags = [kind.__struct_config__.tag for kind in get_args(frames.Frame)]
        assert tags == [*range(19), 24, 25, 26, 27]

    @given(FRAMES, st.data())
    def test_altered(self, frame: frames.Frame, data: st.DataObject) -> None:
        """Another frame, or refused; never anything else."""
        body = bytearray(body_of(frame))
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            frames.decode_frame(bytes(body))
        except NotCanonical:
            return

    @given(st.binary(max_size=60))
    def test_any_bytes(self, body: bytes) -> None:
        try:
            frames.decode_frame(body)
        except NotCanonical:
            return


class TestLength:
    """Checked before anything is read or allocated."""

    @pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
    def test_refused(self, length: int) -> None:
        """Cases 1 and 2."""
        with pytest.raises(LimitExceeded):
            frames.frame_length(length.to_bytes(4, "big"), FRAME_BYTES_MAX)

    def test_bounds(self) -> None:
        for length in (1, FRAME_BYTES_MAX_BEFORE_HELLO):
            prefix = length.to_bytes(4, "big")
            assert frames.frame_length(prefix, FRAME_BYTES_MAX_BEFORE_HELLO) == length
        prefix = (FRAME_BYTES_MAX_BEFORE_HELLO + 1).to_bytes(4, "big")
        with pytest.raises(LimitExceeded):
            frames.frame_length(prefix, FRAME_BYTES_MAX_BEFORE_HELLO)

    def test_as_many_seals_as_there_may_be_fit(self) -> None:
        seal = frames.Seal(2**16, bytes(frames.SEALED_BYTES), (bytes(32),) * 16)
        found = frames.Seals(CHAT, EntryId(bytes(32)), (seal,) * SEALS_FRAME_MAX)
        assert frames.decode_frame(body_of(found)) == found

    @pytest.mark.parametrize("size", [0, frames.SEALED_BYTES - 1, frames.SEALED_BYTES + 1])
    def test_a_seal_has_one_length(self, size: int) -> None:
        seal = frames.Seal(0, bytes(size), ())
        with pytest.raises(NotCanonical):
            frames.decode_frame(body_of(frames.Seals(CHAT, EntryId(bytes(32)), (seal,))))

    def test_we_send_none_that_is_too_long(self) -> None:
        with pytest.raises(LimitExceeded):
            frames.encode_frame(frames.Ask(0, 0, bytes(FRAME_BYTES_MAX)))


class TestMalformed:
    @pytest.mark.parametrize("kind", [16, 99, 2**32, -1, None, b"", "0", [], True, 1.0])
    def test_unknown_type(self, kind: object) -> None:
        """Case 11."""
        with pytest.raises(NotCanonical):
            frames.decode_frame(msgpack.encode([kind, 1]))

    @pytest.mark.parametrize("body", [b"", b"\xc0", b"\x00", b"\x90", b"\x80", b"\x81\x00\x01"])
    def test_no_array(self, body: bytes) -> None:
        with pytest.raises(NotCanonical):
            frames.decode_frame(body)

    @given(FRAMES, st.binary(min_size=1, max_size=4))
    def test_trailing_bytes(self, frame: frames.Frame, more: bytes) -> None:
        """Case 10."""
        with pytest.raises(NotCanonical):
            frames.decode_frame(body_of(frame) + more)

    @pytest.mark.parametrize("claim", ["dd", "df", "c6", "c9 ff", "db"])
    @pytest.mark.parametrize("before", ["", "91", "92 01", "92 05", "94 01 00 00"])
    def test_giant_claims(self, claim: str, before: str) -> None:
        """Case 4."""
        body = bytes.fromhex(before + claim[:2]) + b"\xff\xff\xff\xff" + bytes.fromhex(claim[2:])
        assert peak_bytes(lambda: refused(body)) < 1024 * 1024

    @pytest.mark.parametrize("depth", [17, 1000, FRAME_BYTES_MAX - 20])
    @pytest.mark.parametrize("before", ["", "92 05", "94 01 00 00", "92 0b"])
    def test_depth(self, depth: int, before: str) -> None:
        """Case 5."""
        refused(bytes.fromhex(before) + b"\x91" * depth + b"\x90")

    @given(FRAMES.filter(lambda frame: not isinstance(frame, frames.Run)))
    def test_further_fields_are_ignored(self, frame: frames.Frame) -> None:
        """A later version may add some at the end: what is not signed need not be canonical."""
        items = msgpack.decode(body_of(frame), type=list[object])
        assert frames.decode_frame(msgpack.encode([*items, b"more"])) == frame

    def test_deep_records(self) -> None:
        """Case 5, where nothing is decoded yet."""
        places = [3, CHAT, bytes(32), 0, 0, None, None]
        head = b"\x99" + b"".join(msgpack.encode(item) for item in places)
        refused(head + b"\x91" + b"\x91" * (FRAME_BYTES_MAX - 200) + b"\x90\x90")

    def test_empty_arrays(self) -> None:
        """Case 6: a frame full of them is refused at the limit of elements, undecoded."""
        count = FRAME_BYTES_MAX - 100
        for before in ([5], [1, 0, 0], [3, CHAT, bytes(32), 0, 0, None, None], [0]):
            head = bytes([0x90 + len(before) + 1]) + b"".join(map(msgpack.encode, before))
            body = head + b"\xdd" + count.to_bytes(4) + b"\x90" * count
            assert peak_bytes(partial(refused, body)) < 16 * 1024 * 1024

    @pytest.mark.parametrize(
        ("frame", "count"),
        [
            (frames.Heads(0, 1, ()), HEADS_CHAINS_MAX),
            (frames.WantSeals(CHAT, EntryId(bytes(32)), ()), SEALS_FRAME_MAX),
        ],
    )
    def test_element_limits(self, frame: frames.Frame, count: int) -> None:
        items = msgpack.decode(body_of(frame), type=list[object])
        element = [CHAT, []] if isinstance(frame, frames.Heads) else bytes(32)
        items[-1] = [element] * count
        assert type(frames.decode_frame(msgpack.encode(items))) is type(frame)
        items[-1] = [element] * (count + 1)
        refused(msgpack.encode(items))

    def test_the_largest_memory(self) -> None:
        """What one frame of a peer can make us allocate is bounded (I9)."""
        heads = [bytes(32), 0, 0, bytes(8)]
        one = msgpack.encode([1, 0, 1, [[CHAT, [heads] * HEADS_CHAINS_MAX]] * 4])
        record = [3, CHAT, bytes(32), 0, 0, None, None, [0] * RUN_ENTRIES_MAX, []]
        for body in (one, msgpack.encode(record)):
            assert len(body) <= FRAME_BYTES_MAX
            assert peak_bytes(partial(frames.decode_frame, body)) < 8 * 1024 * 1024


def refused(body: bytes) -> None:
    with pytest.raises(NotCanonical):
        frames.decode_frame(body)


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much was allocated at once, at most, while `work` ran."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
