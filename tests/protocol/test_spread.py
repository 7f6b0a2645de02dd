"""SPEC 6.5, 6.6: Plumtree among the nodes of a large chat, and what bounds it."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.entry import ChatId, DeviceKey
from protocol.frame import Graft, Head, IHave, Prune
from protocol.limits import (
    ANNOUNCERS_MAX,
    DUPLICATES_MAX,
    EAGER_FEW,
    GRAFT_AGAIN_SECONDS,
    GRAFT_FIRST_SECONDS,
    GRAFTS_MAX,
    IHAVE_DELAY_SECONDS,
    IHAVE_HEADS_MAX,
    LAZY_QUEUE_MAX,
    MISSING_MAX,
    MISSING_PEER_MAX,
    RINGS_MAX,
    SPREAD_ALL_MAX,
    TREES_MAX,
)
from protocol.rings import eager_count, lazy_count, neighbours
from protocol.spread import NEVER, Spread, Told, is_large
from protocol.testing.cast import seed
from protocol.testing.histories import Dice
from protocol.testing.swarm import CHAT, Swarm

OWN = seed("own")
PEERS = tuple(sorted(seed("peer", str(number)) for number in range(40)))
AGENCIES = frozenset(PEERS) | {OWN}
NUMBERS = st.integers(0, 2**32)
SIZES = st.integers(SPREAD_ALL_MAX + 1, 120)
SOME = settings(max_examples=25)


def head(number: int, seq: int = 0) -> Head:
    return Head(DeviceKey(seed("device", str(number))), 1, seq, seed("entry", str(number))[:8])


def spread(peers: Sequence[bytes] = PEERS) -> Spread:
    made = Spread(OWN)
    made.up_all(frozenset(peers))
    return made


class TestRings:
    @pytest.mark.parametrize(
        ("agencies", "eager", "lazy"),
        [(17, 4, 6), (100, 4, 6), (101, 6, 9), (1000, 9, 14), (3000, 10, 15)],
    )
    def test_counts(self, agencies: int, eager: int, lazy: int) -> None:
        assert (eager_count(agencies), lazy_count(agencies)) == (eager, lazy)
        assert eager + lazy <= 2 * RINGS_MAX

    def test_when(self) -> None:
        assert [is_large(count) for count in (1, 16, 17, 3000)] == [False, False, True, True]

    @given(st.sets(st.sampled_from(PEERS), min_size=2))
    def test_both_see_it_alike(self, others: set[bytes]) -> None:
        """Whoever is my neighbour has me for one, of the same kind."""
        for peer in others:
            mine = neighbours(CHAT, peer, others - {peer}, len(others))
            assert peer not in mine.eager | mine.lazy
            assert not mine.eager & mine.lazy
            for other in mine.eager:
                assert peer in neighbours(CHAT, other, others - {other}, len(others)).eager
            for other in mine.lazy:
                assert peer in neighbours(CHAT, other, others - {other}, len(others)).lazy

    def test_alone(self) -> None:
        assert neighbours(CHAT, OWN, frozenset(), 20) == (frozenset(), frozenset())

    def test_chats_have_rings_of_their_own(self) -> None:
        other = ChatId(seed("another chat"))
        sets = {neighbours(chat, OWN, AGENCIES - {OWN}, 41) for chat in (CHAT, other)}
        assert len(sets) == 2

    @SOME
    @given(NUMBERS, SIZES, st.floats(0, 0.5))
    def test_connected_with_nodes_down(self, number: int, count: int, share: float) -> None:
        """Those who live are connected by the neighbours that they choose among themselves."""
        swarm = Swarm(Dice(number), count)
        down = swarm.names[1 : 1 + int(count * share)]
        swarm.kill(down)
        swarm.notice(down)
        assert swarm.connected(swarm.names[0]) == swarm.alive


class TestDelivery:
    """Every live node of a connected graph gets every message."""

    @SOME
    @given(NUMBERS, SIZES, st.floats(0, 0.4), st.sampled_from(["noticed", "unnoticed"]))
    def test_nodes_that_die(self, number: int, count: int, share: float, how: str) -> None:
        """Before anybody has noticed, too: as far as neighbours of neighbours are alive."""
        swarm = Swarm(Dice(number), count)
        for author in swarm.names[:3]:
            written = swarm.write(author)
            swarm.run(3)
            assert written.reached.keys() == swarm.alive
        down = swarm.names[1 : 1 + int(count * share)]
        swarm.kill(down)
        if how == "noticed":
            swarm.notice(down)
        reachable = swarm.connected(swarm.names[0])
        for _ in range(3):
            written = swarm.write(swarm.names[0])
            swarm.run(10)
            assert reachable <= written.reached.keys()

    @SOME
    @given(NUMBERS, SIZES)
    def test_the_author_dies_at_once(self, number: int, count: int) -> None:
        """Relays hand on what they have got, whatever became of the author."""
        swarm = Swarm(Dice(number), count)
        written = swarm.write(swarm.names[0])
        swarm.kill(swarm.names[:1])
        swarm.run(10)
        assert swarm.alive <= written.reached.keys()

    @SOME
    @given(NUMBERS, SIZES)
    def test_healed(self, number: int, count: int) -> None:
        """Nodes that were down and come back are in the tree again."""
        swarm = Swarm(Dice(number), count)
        down = swarm.names[1 : count // 3]
        swarm.kill(down)
        swarm.notice(down)
        swarm.write(swarm.names[0])
        swarm.run(5)
        swarm.revive(down)
        for author in (swarm.names[1], swarm.names[-1]):
            written = swarm.write(author)
            swarm.run(5)
            assert written.reached.keys() == set(swarm.names)


class TestRedundancy:
    @SOME
    @given(NUMBERS, SIZES)
    def test_a_tree_is_left(self, number: int, count: int) -> None:
        """After a few messages of one author each node gets a payload once, without asking."""
        swarm = Swarm(Dice(number), count)
        for _ in range(2 * DUPLICATES_MAX + 2):
            swarm.write(swarm.names[0])
            swarm.run(5)
        asked = swarm.frames[Graft]
        settled = swarm.write(swarm.names[0])
        swarm.run(5)
        assert settled.payloads == count - 1
        assert swarm.frames[Graft] == asked

    @SOME
    @given(NUMBERS, SIZES)
    def test_the_first_flood(self, number: int, count: int) -> None:
        """No node pushes one entry to more than its eager neighbours."""
        swarm = Swarm(Dice(number), count)
        written = swarm.write(swarm.names[0])
        swarm.run(5)
        rings = (eager_count(count) + 1) // 2
        assert written.payloads <= count * 2 * rings


class TestTree:
    def test_pushed_and_announced(self) -> None:
        one = spread()
        told = one.stored(CHAT, AGENCIES, head(1), OWN, 0.0)
        near = neighbours(CHAT, OWN, AGENCIES - {OWN}, len(AGENCIES))
        assert {peer for peer, frame in told if frame is None} == near.eager
        assert len(near.eager) <= EAGER_FEW
        assert one.due == IHAVE_DELAY_SECONDS
        assert one.expired(0.01) == []
        assert {peer for peer, _ in one.expired(IHAVE_DELAY_SECONDS)} == near.lazy
        assert one.due == NEVER
        assert one.near(CHAT, AGENCIES) == near.eager | near.lazy

    def test_in_one_order_whatever_the_hashes_are(self) -> None:
        """Regression: the simulator's seed 2422165338 gave another trace with other hashes."""
        one = spread()
        told = one.stored(CHAT, AGENCIES, head(1), OWN, 0.0)
        assert [peer for peer, _ in told] == sorted(peer for peer, _ in told)
        announced = [peer for peer, _ in one.expired(IHAVE_DELAY_SECONDS)]
        assert announced == sorted(announced)
        assert len(announced) > EAGER_FEW

    def test_not_back_to_who_brought_it(self) -> None:
        one = spread()
        source = min(neighbours(CHAT, OWN, AGENCIES - {OWN}, len(AGENCIES)).eager)
        told = one.stored(CHAT, AGENCIES, head(1), source, 0.0)
        assert source not in {peer for peer, _ in told}

    def test_pruned_at_the_second_duplicate(self) -> None:
        one = spread()
        source = min(neighbours(CHAT, OWN, AGENCIES - {OWN}, len(AGENCIES)).eager)
        one.stored(CHAT, AGENCIES, head(1), OWN, 0.0)
        assert one.repeated(CHAT, source) == []
        one.stored(CHAT, AGENCIES, head(2), source, 0.0)
        assert one.repeated(CHAT, source) == []
        assert one.repeated(CHAT, source) == [Told(source, Prune(CHAT))]
        told = one.stored(CHAT, AGENCIES, head(3), OWN, 0.0)
        assert source not in {peer for peer, _ in told}
        one.grafted(CHAT, AGENCIES, source)
        told = one.stored(CHAT, AGENCIES, head(4), OWN, 0.0)
        assert source in {peer for peer, _ in told}
        one.pruned(CHAT, source)
        told = one.stored(CHAT, AGENCIES, head(5), OWN, 0.0)
        assert source not in {peer for peer, _ in told}

    def test_what_was_learnt_stays_when_others_come_and_go(self) -> None:
        one = spread()
        near = neighbours(CHAT, OWN, AGENCIES - {OWN}, len(AGENCIES))
        stranger = next(peer for peer in PEERS if peer not in near.eager | near.lazy)
        pruned = min(near.eager)
        one.stored(CHAT, AGENCIES, head(1), OWN, 0.0)
        one.pruned(CHAT, pruned)
        one.down(stranger)
        told = one.stored(CHAT, AGENCIES, head(2), OWN, 0.0)
        assert {peer for peer, _ in told} == near.eager - {pruned}

    def test_a_chat_that_is_not_at_hand(self) -> None:
        one = spread()
        assert one.repeated(CHAT, PEERS[0]) == []
        one.pruned(CHAT, PEERS[0])
        one.announced(CHAT, [head(1)], PEERS[0], 0.0)
        assert one.expired(1.0) == [Told(PEERS[0], Graft(CHAT, head(1)))]

    def test_one_chain_is_announced_once(self) -> None:
        """Of several entries the newest says it all."""
        one = spread()
        for seq in range(9):
            one.stored(CHAT, AGENCIES, head(1, seq), OWN, 0.0)
        frames = {frame for _, frame in one.expired(1.0)}
        assert frames == {IHave(CHAT, (head(1, 8),))}


class TestGrafts:
    def test_the_next_who_told(self) -> None:
        one = spread()
        for peer in PEERS[:3]:
            one.announced(CHAT, [head(1)], peer, 0.0)
        first = GRAFT_FIRST_SECONDS
        assert one.due == first
        told = []
        for at in (first, first + GRAFT_AGAIN_SECONDS, first + 2 * GRAFT_AGAIN_SECONDS):
            told += one.expired(at)
        assert told == [Told(peer, Graft(CHAT, head(1))) for peer in PEERS[:3]]
        assert one.expired(9.0) == []
        assert one.due == NEVER

    def test_it_has_come(self) -> None:
        """And who has told of it is not pushed to."""
        one = spread()
        near = neighbours(CHAT, OWN, AGENCIES - {OWN}, len(AGENCIES))
        teller = min(near.eager)
        one.announced(CHAT, [head(1)], teller, 0.0)
        told = one.stored(CHAT, AGENCIES, head(1), PEERS[9], 0.1)
        assert teller not in {peer for peer, _ in told}
        assert [frame for _, frame in one.expired(1.0) if isinstance(frame, Graft)] == []

    def test_later_entries_of_the_chain_say_it_too(self) -> None:
        one = spread()
        one.announced(CHAT, [head(1, 4)], PEERS[0], 0.0)
        one.stored(CHAT, AGENCIES, head(1, 5), PEERS[9], 0.1)
        assert [frame for _, frame in one.expired(1.0) if isinstance(frame, Graft)] == []

    def test_who_is_down_is_not_asked(self) -> None:
        one = spread()
        one.announced(CHAT, [head(1)], PEERS[0], 0.0)
        one.announced(CHAT, [head(1)], PEERS[1], 0.0)
        one.down(PEERS[0])
        assert one.expired(1.0) == [Told(PEERS[1], Graft(CHAT, head(1)))]


class TestBounds:
    """I9: cases 30 and 31, and storms of the rest."""

    def test_announcements_without_end(self) -> None:
        """Case 31: of what does not exist so much is remembered of one peer, and so much in all."""
        one = spread()
        for number in range(2 * MISSING_PEER_MAX):
            one.announced(CHAT, [head(number)], PEERS[0], 0.0)
        assert one._count == MISSING_PEER_MAX
        for peer in PEERS:
            start = 10_000 + 2000 * PEERS.index(peer)
            one.announced(CHAT, [head(start + at) for at in range(600)], peer, 0.0)
        assert one._count == MISSING_MAX
        assert sum(one._missing_of.values()) == MISSING_MAX
        assert len(one._timers) == MISSING_MAX

    def test_they_are_given_up(self) -> None:
        """Case 30: each is asked for once of each who told, a few at a time, and then forgotten."""
        one = spread()
        one.announced(CHAT, [head(number) for number in range(100)], PEERS[0], 0.0)
        now, asked = GRAFT_FIRST_SECONDS, 0
        while one.due != NEVER:
            told = one.expired(now)
            assert len(told) <= GRAFTS_MAX
            asked += len(told)
            now = one.due
        assert asked == 100
        assert not one._missing
        assert not one._missing_of
        assert one._count == 0

    def test_one_entry_announced_by_all(self) -> None:
        one = spread()
        for peer in PEERS * 2:
            one.announced(CHAT, [head(1)], peer, 0.0)
        (only,) = one._missing[CHAT, head(1).device, 1].values()
        assert list(only.announcers) == list(PEERS[:ANNOUNCERS_MAX])

    def test_a_storm_of_grafts(self) -> None:
        """All want to be pushed to: there is an end to how many are."""
        one = spread()
        for peer in PEERS:
            one.grafted(CHAT, AGENCIES, peer)
        told = one.stored(CHAT, AGENCIES, head(1), OWN, 0.0)
        assert len(told) <= 2 * (eager_count(41) + lazy_count(41))
        one.grafted(CHAT, AGENCIES, seed("stranger"))
        assert seed("stranger") not in one.near(CHAT, AGENCIES)

    def test_a_storm_of_prunes(self) -> None:
        """Nobody is pushed to, and all hear of it."""
        one = spread()
        near = one.near(CHAT, AGENCIES)
        for peer in PEERS * 2:
            one.pruned(CHAT, peer)
        assert one.stored(CHAT, AGENCIES, head(1), OWN, 0.0) == []
        assert {peer for peer, _ in one.expired(1.0)} == near

    def test_queues(self) -> None:
        one = spread()
        for number in range(2 * LAZY_QUEUE_MAX):
            one.stored(CHAT, AGENCIES, head(number), OWN, 0.0)
        told = one.expired(1.0)
        sizes = [len(frame.heads) for _, frame in told if isinstance(frame, IHave)]
        assert max(sizes) == IHAVE_HEADS_MAX
        peers = {peer for peer, _ in told}
        assert sum(sizes) == LAZY_QUEUE_MAX * len(peers)

    def test_trees(self) -> None:
        one = spread(PEERS[:3])
        for number in range(TREES_MAX + 5):
            one.near(ChatId(seed("chat", str(number))), frozenset(PEERS[:3]))
        assert len(one._trees) == TREES_MAX
