"""SPEC 6.7: fetching a blob, from whoever has it, whatever they do."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.blob import NEVER, Fetch
from protocol.limits import (
    BLOB_CHUNKS_MAX,
    BLOB_RANGE_CHUNKS_MAX,
    BLOB_WINDOW_CHUNKS_MAX,
    WANT_TIMEOUT_SECONDS,
)

STEPS = 120


@dataclass
class Peer:
    """A source. has: chunks. lies: sends wrong ones. loses: of a hundred answers."""

    has: frozenset[int]
    lies: bool
    loses: int
    asked: list[int] = field(default_factory=list)
    present: bool = True


@dataclass
class Run:
    """A fetch among peers, and what must hold at each step."""

    count: int
    peers: list[Peer]
    random: Random
    kept: set[int]
    now: float = 0.0
    caught: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.fetch: Fetch[int] = Fetch(self.count, self.kept)
        for name in range(len(self.peers)):
            self.fetch.joined(name)

    def step(self) -> None:
        """Ask; then one thing happens."""
        self.ask()
        waiting = [name for name, peer in enumerate(self.peers) if peer.asked]
        chance = self.random.random()
        if chance < 0.05:
            self.come_or_go(self.random.randrange(len(self.peers)))
        elif waiting and chance < 0.95:
            self.answer(self.random.choice(waiting))
        else:
            self.pass_time()

    def ask(self) -> None:
        for name, start, stop in self.fetch.ask(self.now):
            assert name not in self.caught
            assert self.peers[name].present
            assert 0 <= start < stop <= self.count
            assert stop - start <= BLOB_RANGE_CHUNKS_MAX
            fresh = set(range(start, stop))
            assert not fresh & self.kept
            self.peers[name].asked += sorted(fresh)
        asked = [state.asked for state in self.fetch._sources.values()]
        under_way = self.fetch._under_way()
        assert len(set().union(*asked, self.fetch._storing)) == under_way  # none of two at once
        assert under_way <= BLOB_WINDOW_CHUNKS_MAX
        assert self.fetch.idle == (under_way == 0)

    def answer(self, name: int) -> None:
        peer = self.peers[name]
        index = peer.asked.pop(0)
        if self.random.randrange(100) < peer.loses:
            return
        if peer.lies:
            if self.fetch.arrived(name, index, self.now):
                assert self.fetch.refused(index) == name
                self.caught.add(name)
                peer.asked.clear()
        elif index in peer.has:
            if self.fetch.arrived(name, index, self.now):
                self.fetch.kept(index)
                assert index not in self.kept
                self.kept.add(index)
        else:
            self.fetch.lacking(name, index, index + 1, self.now)

    def come_or_go(self, name: int) -> None:
        peer = self.peers[name]
        peer.present = not peer.present
        peer.asked.clear()
        if peer.present:
            self.fetch.joined(name)
        else:
            self.fetch.left(name)

    def pass_time(self) -> None:
        due = self.fetch.deadline(self.now)
        self.now = due if due != NEVER else self.now + 1
        self.fetch.expired(self.now)

    def check(self) -> None:
        """It is whole, or goes on, or there is nobody left to ask."""
        self.ask()
        hopeful = [
            name for name, peer in enumerate(self.peers) if peer.present and name not in self.caught
        ]
        goes_on = not self.fetch.idle or self.fetch.deadline(self.now) != NEVER
        assert self.fetch.complete == (self.kept == set(range(self.count)))
        assert self.fetch.complete or goes_on or not hopeful


@st.composite
def runs(draw: st.DrawFn) -> Run:
    count = draw(st.integers(1, 90))
    chunks = st.frozensets(st.integers(0, count - 1)) | st.just(frozenset(range(count)))
    peers = st.builds(Peer, chunks, st.booleans(), st.sampled_from((0, 0, 30, 100)))
    kept = draw(st.sets(st.integers(0, count - 1), max_size=count // 2))
    return Run(
        count,
        draw(st.lists(peers, min_size=1, max_size=4)),
        Random(draw(st.integers(0, 2**32))),
        kept,
    )


@given(runs())
def test_it_is_whole_and_right_or_goes_on(run: Run) -> None:
    """Whatever sources have, lose, or lie; and a liar is asked nothing more."""
    for _ in range(STEPS):
        run.step()
        run.check()
    run.peers.append(Peer(frozenset(range(run.count)), lies=False, loses=0))
    run.fetch.joined(len(run.peers) - 1)
    for _ in range(100 * STEPS):
        if run.fetch.complete:
            break
        run.ask()
        waiting = [name for name, peer in enumerate(run.peers) if peer.asked]
        if waiting:
            run.answer(waiting[-1])
        else:
            run.pass_time()
    assert run.fetch.complete
    assert run.kept == set(range(run.count))


def test_two_sources_share_the_work() -> None:
    fetch: Fetch[str] = Fetch(64, ())
    fetch.joined("a")
    fetch.joined("b")
    asked = {"a": 0, "b": 0}
    for source, start, stop in fetch.ask(0):
        asked[source] += stop - start
    assert asked == dict.fromkeys("ab", BLOB_WINDOW_CHUNKS_MAX // 2)


def test_it_goes_on_where_it_was() -> None:
    fetch: Fetch[str] = Fetch(20, {*range(5), 7, 19})
    fetch.joined("a")
    assert [(one.start, one.stop) for one in fetch.ask(0)] == [(5, 7), (8, 16), (16, 19)]


def test_what_nobody_asked_for_is_not_looked_at() -> None:
    fetch: Fetch[str] = Fetch(20, ())
    fetch.joined("a")
    assert not fetch.arrived("a", 3, 0)
    assert not fetch.arrived("b", 3, 0)
    (first, *_) = fetch.ask(0)
    assert not fetch.arrived("b", first.start, 0)
    assert fetch.arrived("a", first.start, 0)
    assert not fetch.arrived("a", first.start, 0)


def test_who_is_silent_is_asked_no_more_for_a_while() -> None:
    fetch: Fetch[str] = Fetch(4, ())
    fetch.joined("silent")
    assert fetch.ask(0)
    fetch.joined("honest")
    fetch.expired(WANT_TIMEOUT_SECONDS)
    assert [one.source for one in fetch.ask(WANT_TIMEOUT_SECONDS)] == ["honest"]


def test_a_liar_does_not_come_back() -> None:
    fetch: Fetch[str] = Fetch(4, ())
    fetch.joined("liar")
    assert fetch.ask(0)
    assert fetch.arrived("liar", 2, 0)
    assert fetch.refused(2) == "liar"
    fetch.joined("liar")
    assert not fetch.ask(1)
    assert fetch.idle


@pytest.mark.parametrize("count", [1, BLOB_CHUNKS_MAX])
def test_a_blob_of_any_size_ends(count: int) -> None:
    fetch: Fetch[str] = Fetch(count, range(count - 1))
    fetch.joined("a")
    ((_, start, stop),) = fetch.ask(0)
    assert (start, stop) == (count - 1, count)
    assert fetch.arrived("a", start, 0)
    fetch.kept(start)
    assert fetch.complete
    assert fetch.deadline(0) == NEVER


def test_what_a_source_lacks_costs_what_it_was_asked_for() -> None:
    fetch: Fetch[str] = Fetch(40, ())
    fetch.joined("liar")
    (ask, *_) = fetch.ask(0.0)
    fetch.lacking("liar", ask.start, 2**62, 0.0)
    assert fetch.idle
