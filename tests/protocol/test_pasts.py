"""Pasts that are put together again are those that were there (protocol.pasts)."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import pasts
from protocol.dag import bits
from protocol.pasts import Pasts


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Few are early or recent, and few may lie between those that are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pasts, "EARLY", 3)
        patch.setattr(pasts, "RECENT_MAX", 2)
        patch.setattr(pasts, "BETWEEN_MAX", 5)
        yield


def graph(choices: st.DataObject, size: int) -> list[list[int]]:
    """Draw the parents of each entry; most name what is recent, some what is old."""
    parents: list[list[int]] = [[]]
    for index in range(1, size):
        near = st.integers(max(0, index - 3), index - 1)
        drawn = st.lists(near | st.integers(0, index - 1), max_size=3, unique=True)
        parents.append(choices.draw(drawn, label=f"parents of {index}"))
    return parents


def walked(parents: Sequence[Sequence[int]], index: int) -> set[int]:
    found = {index}
    for one in sorted(range(index + 1), reverse=True):
        if one in found:
            found.update(parents[one])
    return found


@given(st.data(), st.integers(1, 40))
def test_each_is_found_whenever_it_is_asked_for(choices: st.DataObject, size: int) -> None:
    parents = graph(choices, size)
    held = Pasts()
    for index in range(size):
        held.append(parents[index])
        for asked in choices.draw(st.lists(st.integers(0, index), max_size=2)):
            assert set(bits(held[asked])) == walked(parents, asked)
    for index in choices.draw(st.permutations(range(size))):
        assert set(bits(held[index])) == walked(parents, index)


def test_of_a_long_chain_few_are_kept() -> None:
    held = Pasts()
    for index in range(1000):
        held.append([index - 1] if index else [])
    assert sum(1 for past in held._kept if past) < 3 + 1000 / 5
    assert len(held._recent) == 2
    assert held[777] == (1 << 778) - 1
