"""Vectors of reconciliation and of the neighbours in large chats (SPEC 6.3, 6.5)."""

from collections.abc import Sequence
from typing import Final

from protocol import frame
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import Recon, Roll, Span, encode_frame
from protocol.limits import RECON_PENDING_MAX, RECON_SPLIT_MAX
from protocol.reconcile import Reconciliation, Table, recon_key, tabulate
from protocol.rings import neighbours
from protocol.testing.cast import seed
from tests.vectors import Case, Value, invalid, valid

SALTS: Final = (seed("salt", "ours")[:16], seed("salt", "theirs")[:16])
KEY: Final = recon_key(*SALTS, 0)


def heads(*numbers: int) -> list[tuple[bytes, int]]:
    """Return heads whose change has the number that names them."""
    return [(seed("head", str(number)), number) for number in numbers]


def table(known: Sequence[tuple[bytes, int]]) -> Table:
    """Return the table of a side."""
    return tabulate(KEY, known, len(known))


def reconciliations() -> list[Case]:
    """Keys, items and fingerprints, whole talks, and turns that are refused."""
    some = table(heads(*range(1, 6)))
    items = [some.item(index) for index in range(len(some))]
    cases = [
        valid(
            f"key {number}",
            {"key": recon_key(*SALTS, number)},
            do="key",
            salts=SALTS,
            number=number,
        )
        for number in (0, 1)
    ]
    cases.append(
        valid(
            "five heads",
            {"items": items, "fingerprints": [some.fingerprint(0, end) for end in range(6)]},
            do="table",
            key=KEY,
            heads=heads(*range(1, 6)),
        )
    )
    everything = range(1, 41)
    sides: list[tuple[str, Sequence[int], Sequence[int]]] = [
        ("both have nothing", (), ()),
        ("one has nothing", (), (1, 2, 3)),
        ("the other has nothing", everything, ()),
        ("nothing differs", everything, everything),
        ("a few heads of few", (1, 2, 3), (2, 3, 4)),
        ("one of forty lacking", everything, range(2, 41)),
        ("each lacks some", [n for n in everything if n % 9], [n for n in everything if n % 11]),
    ]
    cases += [_talk(name, heads(*ours), heads(*theirs)) for name, ours, theirs in sides]
    return cases + _refused(heads(*everything))


def _talk(name: str, ours: list[tuple[bytes, int]], theirs: list[tuple[bytes, int]]) -> Case:
    sides = Reconciliation(table(ours)), Reconciliation(table(theirs))
    turns: list[bytes] = []
    said: Recon | None = sides[0].begin(0)
    while said is not None:
        turns.append(encode_frame(said))
        said = sides[len(turns) % 2].answer(said)
    result: Value = {"turns": turns, "lacking": [list(side.found()) for side in sides]}
    return valid(name, result, do="talk", key=KEY, heads=ours, theirs=theirs)


def _refused(known: list[tuple[bytes, int]]) -> list[Case]:
    one = table(known)
    other = Span(b"", b"", 5, bytes(16))
    turns: list[tuple[str, type[Exception], Recon, int]] = [
        ("an empty range", OutOfTurn, _turn(spans=(Span(b"\x05", b"\x05", 1, bytes(16)),)), 1),
        ("a range turned round", OutOfTurn, _turn(rolls=(Roll(b"\x05", b"\x04", ()),)), 1),
        ("an item twice", OutOfTurn, _turn(rolls=(Roll(b"", b"", (one.item(3),) * 2),)), 1),
        (
            "an item outside of its range",
            OutOfTurn,
            _turn(rolls=(Roll(one.between(10), b"", (one.item(3),)),)),
            1,
        ),
        ("turns without end", LimitExceeded, _turn(spans=(other,)), 40),
        (
            "ranges without end",
            LimitExceeded,
            _turn(spans=(other,) * 512),
            RECON_PENDING_MAX // (512 * RECON_SPLIT_MAX) + 2,
        ),
    ]
    return [
        invalid(name, error, do="turn", key=KEY, heads=known, raw=frame.encode_frame(turn), times=n)
        for name, error, turn, n in turns
    ]


def _turn(spans: tuple[Span, ...] = (), rolls: tuple[Roll, ...] = ()) -> Recon:
    return Recon(0, spans, rolls, (), 1)


def rings() -> list[Case]:
    """The neighbours of an agency among others, of all of whom there are so many in the chat."""
    chat = seed("large chat")
    agencies = sorted(seed("agency", str(number)) for number in range(24))
    cases = []
    for name, count, others in (
        ("seventeen agencies", 17, agencies[1:17]),
        ("three of them connected", 17, agencies[1:4]),
        ("nobody connected", 17, ()),
        ("three thousand, of whom twenty-three are connected", 3000, agencies[1:]),
    ):
        found = neighbours(chat, agencies[0], frozenset(others), count)
        result: Value = {"eager": sorted(found.eager), "lazy": sorted(found.lazy)}
        cases.append(
            valid(name, result, chat=chat, own=agencies[0], others=list(others), agencies=count)
        )
    return cases
