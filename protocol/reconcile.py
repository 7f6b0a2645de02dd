"""Range-based reconciliation of two sets of heads (SPEC 6.3).

Each side has a table of the heads that the other may see: for each an item, which is a keyed hash
of the entry, and the number of its change. A side says how many items it has in a range and a
fingerprint of them; where the other's differ it answers with the parts of that range, or, where it
has few, with the items. So both find what the other lacks, for a number of turns that grows with
the logarithm of the sets, and for bytes that grow with the difference.

    table = tabulate(recon_key(salt, their_salt, 0), heads, cursor)
    ours = Reconciliation(table)
    frame = ours.begin(0)               # one side begins
    frame = ours.answer(frame)          # for each frame that comes; None when it is over
    ours.found()                        # the numbers of the changes that the peer lacks
    ours.shared()                       # and of those that it has, too

Source: A. Meyer, Range-Based Set Reconciliation, SRDS 2023; the fingerprints are made as those of
Negentropy (D. Hoyte), of a sum of hashes and the count.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from struct import Struct

from crypto.labels import digest
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import Recon, Roll, Span
from protocol.limits import (
    RECON_ITEM_BYTES,
    RECON_ITEMS_MAX,
    RECON_PARTS_MAX,
    RECON_PENDING_MAX,
    RECON_ROLL_MAX,
    RECON_SPLIT_MAX,
    RECON_TURNS_MAX,
)

NUMBER_BYTES = 8
ROW = Struct(">QQQ")  # an item, in halves, and the number of its change
ROW_BYTES = ROW.size
PIECE_ROWS = 1024
SUM_EVERY = 16  # items between two sums that are kept: no fingerprint adds more than twice that
_INVERTED = bytes.maketrans(b"\x00\x01", b"\x01\x00")
MODULUS = 1 << 8 * RECON_ITEM_BYTES


def recon_key(one: bytes, other: bytes, number: int) -> bytes:
    """Return the key of a reconciliation from the salts of both sides, in either order."""
    return digest("recon", min(one, other), max(one, other), number.to_bytes(4, "big"))


class Survey:
    """Heads as they are read, in any order; `pieces` gives them back in the order of a table."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._buckets: defaultdict[int, list[bytes]] = defaultdict(list)

    def add(self, heads: Iterable[tuple[bytes, int]]) -> None:
        """Take more heads. heads: (entry id, number of the change)."""
        key, buckets = self._key, self._buckets
        for entry, changed in heads:
            item = hashlib.sha256(key + entry).digest()[:RECON_ITEM_BYTES]
            buckets[item[0]].append(item + changed.to_bytes(NUMBER_BYTES, "big"))

    def pieces(self) -> Iterator[Sequence[bytes]]:
        """Yield all rows, sorted, a small piece at a time: nobody has to wait for all of it."""
        piece: list[bytes] = []
        for at in sorted(self._buckets):
            piece += sorted(self._buckets.pop(at))
            if len(piece) >= PIECE_ROWS:
                yield piece
                piece = []
        yield piece


class Table:
    """The items of one side in ascending order. cursor: its change counter before it was read."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self._rows = bytearray()
        self._sums = [0]  # of all items before each SUM_EVERYth

    def extend(self, rows: Sequence[bytes]) -> None:
        """Append the next piece of a survey."""
        added = len(self._rows) % (SUM_EVERY * ROW_BYTES)
        begin = len(self._rows) - added
        self._rows += b"".join(rows)
        for at in range(begin, len(self._rows) - SUM_EVERY * ROW_BYTES + 1, SUM_EVERY * ROW_BYTES):
            first = at // ROW_BYTES
            self._sums.append(self._sums[-1] + self._added(first, first + SUM_EVERY))

    def __len__(self) -> int:
        return len(self._rows) // ROW_BYTES

    def item(self, index: int) -> bytes:
        """Return an item by its rank."""
        at = index * ROW_BYTES
        return bytes(self._rows[at : at + RECON_ITEM_BYTES])

    def numbers(self, chosen: bytes | bytearray) -> Sequence[int]:
        """Return the numbers of the chosen items, ascending. chosen: a byte an item, 0 for no."""
        rows = compress(ROW.iter_unpack(self._rows), chosen)
        return array("Q", sorted(number for _, _, number in rows))

    def bounds(self, start: bytes, stop: bytes) -> tuple[int, int]:
        """Return the ranks of the first item of a range and of the first one after it."""
        ranks = range(len(self))
        first = bisect_left(ranks, start, key=self.item)
        return first, bisect_left(ranks, stop, lo=first, key=self.item) if stop else len(self)

    def fingerprint(self, first: int, end: int) -> bytes:
        """Return the fingerprint of the items first to end, exclusive."""
        total = self._sum(end) - self._sum(first)
        count = (end - first).to_bytes(NUMBER_BYTES, "big")
        whole = (total % MODULUS).to_bytes(RECON_ITEM_BYTES, "big")
        return digest("recon fingerprint", count, whole)[:RECON_ITEM_BYTES]

    def _sum(self, end: int) -> int:
        kept = end // SUM_EVERY
        return self._sums[kept] + self._added(kept * SUM_EVERY, end)

    def _added(self, first: int, end: int) -> int:
        high = low = 0
        for upper, lower, _ in ROW.iter_unpack(self._rows[first * ROW_BYTES : end * ROW_BYTES]):
            high += upper
            low += lower
        return (high << 64) + low

    def between(self, index: int) -> bytes:
        """Return the shortest bound that parts an item from the one before."""
        before, item = self.item(index - 1), self.item(index)
        same = next((at for at in range(len(item)) if before[at] != item[at]), len(item) - 1)
        return item[: same + 1]


def tabulate(key: bytes, heads: Iterable[tuple[bytes, int]], cursor: int) -> Table:
    """Make a table in one go."""
    survey, table = Survey(key), Table(cursor)
    survey.add(heads)
    for piece in survey.pieces():
        table.extend(piece)
    return table


class Reconciliation:
    """One side of it. Its memory is bounded by its own table and by `limits`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._lacking = bytearray(len(table))
        self._pending: list[tuple[int, Span | Roll]] = []  # and the turn in which it came up
        self._wanted: deque[bytes] = deque()
        self._turn = 0
        self.over = False

    @property
    def cursor(self) -> int:
        """Our change counter before the table was read."""
        return self._table.cursor

    @property
    def lacks_all(self) -> bool:
        """Whether the peer has nothing of what we have."""
        return 0 not in self._lacking

    def found(self) -> Sequence[int]:
        """Return the numbers of the changes whose heads the peer lacks, ascending."""
        return self._table.numbers(self._lacking)

    def shared(self) -> Sequence[int]:
        """Return the numbers of the changes whose heads the peer has, too, ascending."""
        return self._table.numbers(self._lacking.translate(_INVERTED))

    def begin(self, number: int) -> Recon:
        """Say the first word. number: of this reconciliation in its session."""
        self._turn = 1
        end = len(self._table)
        self._put((self._roll if end <= RECON_ROLL_MAX else self._span)(b"", b"", 0, end))
        return self._next(number, 0)

    def answer(self, said: Recon) -> Recon | None:
        """Take a frame of the peer's; return ours, None if that was the last.

        Raises LimitExceeded or OutOfTurn for a peer that asks more than any honest one would.
        """
        self._turn += 2
        if self._turn > RECON_TURNS_MAX + len(self._table) // RECON_ROLL_MAX:
            raise LimitExceeded(f"{self._turn} turns of a reconciliation (SPEC 6.3)")
        if _is_empty(said) and not self._pending and not self._wanted:
            self.over = True
            return None
        self._compare(said)
        if max(len(self._pending), len(self._wanted)) > RECON_PENDING_MAX:
            raise LimitExceeded(f"over {RECON_PENDING_MAX} ranges in question (SPEC 6.3)")
        reply = self._next(said.number, said.left)
        self.over = _is_empty(reply) and not said.left
        return reply

    def _compare(self, said: Recon) -> None:
        for span in said.spans:
            self._compare_span(span)
        for roll in said.rolls:
            self._compare_roll(roll)
        for item in said.lacking:
            self._note(*self._table.bounds(item, _after(item)))

    def _compare_span(self, span: Span) -> None:
        first, end = self._range(span.start, span.stop)
        if (span.count, span.fingerprint) == (end - first, self._table.fingerprint(first, end)):
            return
        if end - first <= RECON_ROLL_MAX:
            self._put(self._roll(span.start, span.stop, first, end))
        else:
            self._split(span, first, end)

    def _compare_roll(self, roll: Roll) -> None:
        at, end = self._range(roll.start, roll.stop)
        table = self._table
        for item in sorted(roll.items):
            first, after = table.bounds(item, _after(item))
            if not at <= first <= end:
                raise OutOfTurn("an item twice, or outside of its range (SPEC 6.3)")
            self._note(at, first)
            if first == after:
                self._wanted.append(item)
            at = after
        self._note(at, end)

    def _range(self, start: bytes, stop: bytes) -> tuple[int, int]:
        if stop and start >= stop:
            raise OutOfTurn("a range that ends before it begins (SPEC 6.3)")
        return self._table.bounds(start, stop)

    def _note(self, first: int, end: int) -> None:
        """The peer lacks these."""
        self._lacking[first:end] = b"\x01" * (end - first)

    def _split(self, span: Span, first: int, end: int) -> None:
        parts = min(RECON_SPLIT_MAX, end - first)
        ranks = [first + (end - first) * part // parts for part in range(parts + 1)]
        inner = [self._table.between(rank) for rank in ranks[1:-1]]
        bounds = [span.start, *inner, span.stop]
        for part in range(parts):
            place = bounds[part], bounds[part + 1], ranks[part], ranks[part + 1]
            few = ranks[part + 1] - ranks[part] == 1  # then its fingerprint is no shorter
            self._put(self._roll(*place) if few else self._span(*place))

    def _put(self, part: Span | Roll) -> None:
        self._pending.append((self._turn, part))

    def _span(self, start: bytes, stop: bytes, first: int, end: int) -> Span:
        return Span(start, stop, end - first, self._table.fingerprint(first, end))

    def _roll(self, start: bytes, stop: bytes, first: int, end: int) -> Roll:
        return Roll(start, stop, tuple(map(self._table.item, range(first, end))))

    def _next(self, number: int, theirs: int) -> Recon:
        """Say what came up last, nothing that came up before what the peer has put off.

        So the two go into the depth together, and never put off much. theirs: the turn of that.
        """
        parts: list[Span | Roll] = []
        while self._pending and len(parts) < RECON_PARTS_MAX and self._left > theirs:
            parts.append(self._pending.pop()[1])
        count = min(len(self._wanted), RECON_ITEMS_MAX)
        lacking = tuple(self._wanted.popleft() for _ in range(count))
        spans = tuple(part for part in parts if isinstance(part, Span))
        rolls = tuple(part for part in parts if isinstance(part, Roll))
        return Recon(number, spans, rolls, lacking, self._left)

    @property
    def _left(self) -> int:
        """The turn in which the newest came up of what is put off, 0 if nothing is."""
        if self._pending:
            return self._pending[-1][0]
        return self._turn if self._wanted else 0


def _is_empty(said: Recon) -> bool:
    return not (said.spans or said.rolls or said.lacking)


def _after(item: bytes) -> bytes:
    """Return the bound after an item, empty for the end of everything."""
    follower = int.from_bytes(item, "big") + 1
    return b"" if follower == MODULUS else follower.to_bytes(len(item), "big")
