"""SPEC 6.3: reconciliation, against a second model that is a set and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LimitExceeded, OutOfTurn, PeerError
from protocol.frame import Recon, Roll, Span, decode_frame, encode_frame
from protocol.limits import (
    RECON_ITEM_BYTES,
    RECON_ITEMS_MAX,
    RECON_PARTS_MAX,
    RECON_PENDING_MAX,
    RECON_ROLL_MAX,
    RECON_SPLIT_MAX,
    RECON_TURNS_MAX,
)
from protocol.reconcile import Reconciliation, Survey, Table, recon_key, tabulate
from protocol.testing.cast import seed

KEY = recon_key(seed("ours")[:16], seed("theirs")[:16], 0)
SETS = st.sets(st.integers(0, 400), max_size=200)
LENGTH = 4


def entry(number: int) -> bytes:
    return sha256(number.to_bytes(8, "big")).digest()


def table(numbers: Iterable[int], key: bytes = KEY) -> Table:
    """The table of a side whose every head has its own number as the number of its change."""
    return tabulate(key, ((entry(number), number) for number in numbers), 10**9)


def talk_of(one: Iterable[int], other: Iterable[int]) -> "Talk":
    return Talk(table(one), table(other))


class Talk:
    """A reconciliation over encoded frames; what each side has said, and how much that was."""

    def __init__(self, one: Table, other: Table) -> None:
        self.one, self.other = Reconciliation(one), Reconciliation(other)
        self.said: list[Recon] = []
        self.sizes: list[int] = []
        sides = self.one, self.other
        frame: Recon | None = self.one.begin(0)
        while frame is not None:
            raw = encode_frame(frame)
            self.said.append(frame)
            self.sizes.append(len(raw))
            heard = decode_frame(raw[LENGTH:])
            assert isinstance(heard, Recon)
            frame = sides[len(self.said) % 2].answer(heard)

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


def both_know(talk: Talk, one: set[int], other: set[int]) -> None:
    """The second model: what each lacks is a difference of sets."""
    assert list(talk.one.found()) == sorted(one - other)
    assert list(talk.other.found()) == sorted(other - one)
    assert talk.one.over
    assert talk.other.over


class TestAnyTwoSets:
    @given(SETS, SETS)
    def test_each_finds_what_the_other_lacks(self, one: set[int], other: set[int]) -> None:
        both_know(talk_of(one, other), one, other)

    @given(st.integers(0, 3000), SETS, SETS)
    def test_much_in_common(self, size: int, fewer: set[int], other_fewer: set[int]) -> None:
        everything = set(range(size))
        one, other = everything - fewer, everything - other_fewer
        both_know(talk_of(one, other), one, other)

    @given(SETS, SETS)
    def test_no_item_is_named_twice_by_one_side(self, one: set[int], other: set[int]) -> None:
        """An item is on a roll of its owner's once, and said to be lacking once."""
        talk = talk_of(one, other)
        for side in (talk.said[::2], talk.said[1::2]):
            rolls = [item for said in side for roll in said.rolls for item in roll.items]
            lacking = [item for said in side for item in said.lacking]
            assert len(set(rolls)) == len(rolls)
            assert len(set(lacking)) == len(lacking)

    @given(SETS)
    def test_nothing_different_costs_one_round_trip(self, numbers: set[int]) -> None:
        talk = talk_of(numbers, numbers)
        both_know(talk, numbers, numbers)
        assert len(talk.said) == 2
        assert talk.bytes < (340 if len(numbers) <= RECON_ROLL_MAX else 60)

    @given(SETS, SETS)
    def test_a_union_is_what_both_end_with(self, one: set[int], other: set[int]) -> None:
        """Once each has taken what it lacked, there is nothing to find."""
        talk = talk_of(one, other)
        one, other = one | set(talk.other.found()), other | set(talk.one.found())
        assert one == other
        assert len(talk_of(one, other).said) == 2


MILLION = 1_000_000


def test_a_million() -> None:
    """Bytes and turns follow the difference, not the sets; they are printed (`pytest -s`)."""
    survey, whole = Survey(KEY), Table(0)
    survey.add((entry(number), number) for number in range(MILLION))
    rows = [row for piece in survey.pieces() for row in piece]
    whole.extend(rows)
    for difference in (1, 100, 1_000):
        part, step = Table(0), MILLION // difference
        part.extend([row for at, row in enumerate(rows) if at % step])
        talk = Talk(part, whole)
        assert not talk.one.found()
        assert list(talk.other.found()) == sorted(numbers(rows[::step]))
        print(f"\n{difference:,} of a million: {len(talk.said)} turns, {talk.bytes:,} bytes")
        assert len(talk.said) <= 12 + difference // 10
        assert talk.bytes <= 3_500 * difference


def numbers(rows: Sequence[bytes]) -> list[int]:
    return [int.from_bytes(row[RECON_ITEM_BYTES:], "big") for row in rows]


class TestTable:
    @given(st.lists(st.integers(0, 10**6), max_size=99, unique=True))
    def test_order_of_reading_does_not_matter(self, numbers: list[int]) -> None:
        whole, again = table(numbers), table(reversed(numbers))
        items = [whole.item(index) for index in range(len(whole))]
        assert items == sorted(items) == [again.item(index) for index in range(len(again))]
        for first in range(0, len(items), 7):
            assert whole.fingerprint(first, len(items)) == again.fingerprint(first, len(items))

    @given(st.sets(st.integers(0, 10**6), max_size=99), st.integers(0, 99), st.integers(0, 99))
    def test_fingerprints_are_sums(self, numbers: set[int], first: int, end: int) -> None:
        """Of a range, as a second model adds it up; so a range stands for its items only."""
        one = table(numbers)
        first, end = sorted((min(first, len(one)), min(end, len(one))))
        total = sum(int.from_bytes(one.item(index), "big") for index in range(first, end))
        whole = (total % 2**128).to_bytes(16, "big")
        expected = sha256(
            b"ivor/1 recon fingerprint" + (end - first).to_bytes(8, "big") + whole
        ).digest()[:RECON_ITEM_BYTES]
        assert one.fingerprint(first, end) == expected

    @given(st.sets(st.integers(0, 10**6), min_size=2, max_size=99), st.data())
    def test_bounds(self, numbers: set[int], data: st.DataObject) -> None:
        one = table(numbers)
        index = data.draw(st.integers(1, len(one) - 1))
        bound = one.between(index)
        assert one.item(index - 1) < bound <= one.item(index)
        assert one.bounds(b"", bound) == (0, index)
        assert one.bounds(bound, b"") == (index, len(one))

    def test_keys(self) -> None:
        """Both sides have one key, and each session and audit another."""
        ours, theirs = seed("ours")[:16], seed("theirs")[:16]
        assert recon_key(ours, theirs, 0) == recon_key(theirs, ours, 0) == KEY
        others = {recon_key(ours, theirs, 1), recon_key(ours, seed("other")[:16], 0)}
        assert KEY not in others
        assert len(others) == 2
        assert {table([1], key).item(0) for key in others}.isdisjoint({table([1]).item(0)})


ITEMS = st.binary(min_size=RECON_ITEM_BYTES, max_size=RECON_ITEM_BYTES)
BOUNDS = st.binary(max_size=RECON_ITEM_BYTES)
SPANS = st.builds(Span, BOUNDS, BOUNDS, st.integers(0, 2**63 - 1), ITEMS)
ROLLS = st.builds(Roll, BOUNDS, BOUNDS, st.lists(ITEMS, max_size=RECON_ROLL_MAX).map(tuple))
TURNS = st.builds(
    Recon,
    st.just(0),
    st.lists(SPANS, max_size=9).map(tuple),
    st.lists(ROLLS, max_size=9).map(tuple),
    st.lists(ITEMS, max_size=9).map(tuple),
    st.integers(0, 1),
)


def repeat(one: Reconciliation, turn: Recon, times: int) -> None:
    for _ in range(times):
        one.answer(turn)
        assert len(one._pending) <= RECON_PENDING_MAX


class TestHostile:
    """I9, I10: a typed error or a bounded answer; nothing is believed of items not ours."""

    @given(SETS, st.lists(TURNS, max_size=9))
    def test_any_turns(self, numbers: set[int], turns: list[Recon]) -> None:
        one = Reconciliation(table(numbers))
        try:
            for turn in turns:
                reply = one.answer(turn)
                if reply is None:
                    break
                assert len(reply.spans) + len(reply.rolls) <= RECON_PARTS_MAX
                encode_frame(reply)
        except PeerError:
            pass
        assert set(one.found()) <= numbers

    def test_turns_without_end(self) -> None:
        one = Reconciliation(table(range(100)))
        asks = Recon(0, (Span(b"", b"", 5, bytes(16)),), (), (), 1)
        with pytest.raises(LimitExceeded, match="turns"):
            repeat(one, asks, RECON_TURNS_MAX + 2)

    def test_ranges_without_end(self) -> None:
        """The same range in question again and again: what waits is bounded."""
        one = Reconciliation(table(range(1_000)))
        asks = Recon(0, (Span(b"", b"", 5, bytes(16)),) * RECON_PARTS_MAX, (), (), 1)
        with pytest.raises(LimitExceeded, match="ranges"):
            repeat(one, asks, RECON_PENDING_MAX // RECON_PARTS_MAX)

    @pytest.mark.parametrize(
        "turn",
        [
            Recon(0, (Span(b"\x05", b"\x05", 1, bytes(16)),), (), (), 0),
            Recon(0, (Span(b"\x05", b"\x04", 1, bytes(16)),), (), (), 0),
            Recon(0, (), (Roll(b"\x05", b"\x04", ()),), (), 0),
        ],
    )
    def test_no_range(self, turn: Recon) -> None:
        with pytest.raises(OutOfTurn, match="ends before it begins"):
            Reconciliation(table([1])).answer(turn)

    def test_items_twice(self) -> None:
        one = table(range(50))
        twice = Roll(b"", b"", (one.item(3), one.item(3)))
        outside = Roll(one.between(10), b"", (one.item(3),))
        for roll in (twice, outside):
            with pytest.raises(OutOfTurn, match="outside"):
                Reconciliation(one).answer(Recon(0, (), (roll,), (), 0))

    def test_lacking_what_we_do_not_have(self) -> None:
        one = Reconciliation(table([1, 2, 3]))
        one.answer(Recon(0, (), (), (bytes(16), b"\xff" * 16), 0))
        assert list(one.found()) == []

    def test_the_work_of_a_turn(self) -> None:
        """An empty roll over everything marks a million items at once, and is no work."""
        one = Reconciliation(table(range(20_000)))
        reply = one.answer(Recon(0, (), (Roll(b"", b"", ()),), (), 0))
        assert reply == Recon(0, (), (), (), 0)
        assert one.lacks_all


def test_limits_fit() -> None:
    assert RECON_PARTS_MAX * RECON_ROLL_MAX >= RECON_ITEMS_MAX
    assert RECON_SPLIT_MAX > 1


def fitted(costs: Mapping[int, int]) -> float:
    """How much faster bytes grow than the difference, over the whole of it."""
    least, most = min(costs), max(costs)
    return costs[most] / costs[least] / (most / least)


def test_bytes_grow_no_faster_than_the_difference() -> None:
    everything = set(range(20_000))
    costs = {count: talk_of(everything, range(count, 20_000)).bytes for count in (8, 64, 512)}
    assert fitted(costs) <= 1
