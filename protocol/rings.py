"""Who is whose neighbour in the spread of a large chat (SPEC 6.5).

The agencies of a chat stand on several rings, on each in another order, which follows from the chat
and the agency alone. Neighbours on a ring are neighbours in the chat, so both see it alike, nobody
has to agree on anything, and who joins or leaves changes nothing but its own surroundings. A few
rings in independent orders are connected even if many on them are down: it is a union of random
cycles.
"""

import math
from bisect import bisect_left
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

from crypto.labels import digest
from protocol.limits import EAGER_FEW, LAZY_SHARE, RINGS_MAX, SPREAD_FEW_MAX

PLACE_BYTES = 2  # of an agency on one ring; ties go by the agency's id

Ring = list[tuple[bytes, bytes]]


class Neighbours(NamedTuple):
    """To whom a node pushes at first, and to whom it only announces."""

    eager: frozenset[bytes]
    lazy: frozenset[bytes]


def eager_count(agencies: int) -> int:
    """Return how many neighbours a node pushes to."""
    return EAGER_FEW if agencies <= SPREAD_FEW_MAX else round(3 * math.log10(agencies))


def lazy_count(agencies: int) -> int:
    """Return how many more neighbours it announces to."""
    return round(LAZY_SHARE * eager_count(agencies))


def neighbours(chat: bytes, own: bytes, others: AbstractSet[bytes], agencies: int) -> Neighbours:
    """Return the neighbours of an agency among others, which it can reach now.

    agencies: how many are in the chat, reached or not; it says how many rings there are.
    """
    eager_rings = math.ceil(eager_count(agencies) / 2)
    count = math.ceil((eager_count(agencies) + lazy_count(agencies)) / 2)
    found: list[bytes] = []
    for number, ring in enumerate(_rings(chat, frozenset(others) | {own})[:count]):
        at = bisect_left(ring, (_place(chat, own, number), own))
        found += ring[at - 1][1], ring[(at + 1) % len(ring)][1]
    eager = frozenset(found[: 2 * eager_rings]) - {own}
    return Neighbours(eager, frozenset(found) - eager - {own})


@lru_cache(maxsize=16)
def _rings(chat: bytes, agencies: frozenset[bytes]) -> list[Ring]:
    places = {agency: _places(chat, agency) for agency in agencies}
    steps = range(0, RINGS_MAX * PLACE_BYTES, PLACE_BYTES)
    return [
        sorted((place[at : at + PLACE_BYTES], agency) for agency, place in places.items())
        for at in steps
    ]


def _places(chat: bytes, agency: bytes) -> bytes:
    return digest("ring", chat, agency)


def _place(chat: bytes, agency: bytes, number: int) -> bytes:
    at = number * PLACE_BYTES
    return _places(chat, agency)[at : at + PLACE_BYTES]
