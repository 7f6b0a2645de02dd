"""SPEC 6: sessions, and the receiving half of them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import frame as frames
from protocol.effect import (
    LoadChanges,
    Send,
    Survey,
)
from protocol.entry import CONTENT, CONTROL, EntryId
from protocol.errors import OutOfTurn
from protocol.frame import Heads, Hello, Seen, authentic, encode_frame
from protocol.limits import (
    HEADS_DELAY_SECONDS,
    PAGES_OPEN_MAX,
    RECON_AUDIT_SECONDS,
)
from protocol.reconcile import Reconciliation, tabulate
from protocol.session import Greeting, PeerKind, Session
from protocol.testing.cast import seed
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.network import Network, Replica, Side
from tests.protocol.sessions import HELLO, OURS, THEIRS, session

NUMBERS = st.integers(0, 2**32)
ALL = 1000  # heads on a page
SOME = settings(max_examples=30)


def filled(name: str, talk: Conversation, count: int, page: int = 3) -> Replica:
    """Return a replica that has the first so many entries of a conversation."""
    replica = Replica(name, page)
    for run in talk.runs[:count]:
        assert replica.take(run)[0].reached == run.start + 1
    return replica


def repeated_by(side: Side) -> set[EntryId]:
    """Return what a side sent twice, heads that it listed left out.

    Those may come twice: once because something refers to them, once to show which branch it is.
    """
    found = Counter(side.entries_sent())
    assert not found or max(found.values()) <= 2
    pages = [frame for frame in side.sent if isinstance(frame, Heads)]
    heads = {head.prefix for page in pages for item in page.chats for head in item.heads}
    return {entry for entry, count in found.items() if count > 1 and entry[:8] not in heads}


class TestConvergence:
    """I2, I3: any two replicas end equal, whatever each had and whatever happens between.

    And while a session lives and nothing is pushed, no entry is sent twice but listed heads.
    """

    @SOME
    @given(NUMBERS, st.integers(0, 40), st.data())
    def test_any_two(self, number: int, messages: int, data: st.DataObject) -> None:
        talk = conversation(Dice(number), messages, epochs=8)
        sizes = st.integers(0, len(talk.runs))
        replicas = [filled(name, talk, data.draw(sizes)) for name in ("north", "south")]
        network = Network(Dice(number), replicas)
        network.connect(0, 1)
        network.settle()
        assert replicas[0].summary() == replicas[1].summary()
        assert all(side.session.caught_up for side in network.sides)
        assert not any(repeated_by(side) for side in network.sides)

    @SOME
    @given(NUMBERS, st.integers(1, 30), st.integers(1, 60))
    def test_connections_lost(self, number: int, messages: int, steps: int) -> None:
        """A lost connection loses time, never an entry: no cursor runs ahead (see `Side`)."""
        talk = conversation(Dice(number), messages, epochs=8)
        replicas = [filled("north", talk, len(talk.runs)), filled("south", talk, messages // 2)]
        network = Network(Dice(number), replicas)
        for _ in range(5):
            network.connect(0, 1)
            for _ in range(steps):
                network.step()
            network.disconnect()
        network.connect(0, 1)
        network.settle()
        assert replicas[0].summary() == replicas[1].summary()

    @SOME
    @given(NUMBERS, st.integers(1, 30))
    def test_pushes(self, number: int, messages: int) -> None:
        """What is written while peers are connected reaches all, in a line of three."""
        talk = conversation(Dice(number), messages, epochs=8)
        begun = len(talk.runs) // 2
        replicas = [filled(name, talk, begun) for name in ("north", "middle", "south")]
        network = Network(Dice(number), replicas)
        network.connect(0, 1)
        network.connect(1, 2)
        for run in talk.runs[begun:]:
            network.write(replicas[0], run)
            for _ in range(network.dice.pick(range(6))):
                network.step()
        network.settle()
        for side in network.sides:
            side.perform(side.session.pushed(network.now), network.now)
        for _ in range(3):
            network.tick(HEADS_DELAY_SECONDS)
            network.settle()
            for side in network.sides:
                side.perform(side.session.pushed(network.now), network.now)
        assert replicas[0].summary() == replicas[1].summary() == replicas[2].summary()

    @SOME
    @given(NUMBERS, st.integers(2, 30))
    def test_covers_whose_ancestors_come_later(self, number: int, messages: int) -> None:
        """What one has as covers only the other stores first, and tells it back (SPEC 6.3)."""
        dice = Dice(number)
        talk = conversation(dice, messages)
        one, other = Replica("one", ALL), Replica("other", ALL)
        content = [run for run in talk.runs if run.lane == CONTENT]
        for run in talk.runs:
            if run.lane == CONTROL:
                one.take(run)
                other.take(run)
        one.take(talk.chains[content[0].device, CONTENT].run())
        for run in content:
            if run.device != content[0].device:
                one.take(run)
        network = Network(dice, [one, other])
        network.connect(0, 1)
        network.settle()
        network.tick(HEADS_DELAY_SECONDS)
        network.settle()
        assert one.summary() == other.summary()

    def test_two_who_answer_each_other(self) -> None:
        """A chat in which each message links the one before comes in a few frames."""
        talk = conversation(Dice(1), 0)
        for number in range(300):
            talk.say(talk.people[number % 2], b"%d" % number)
        replicas = [filled("north", talk, len(talk.runs), page=99), Replica("south")]
        network = Network(Dice(1), replicas)
        ours, theirs = network.connect(0, 1)
        network.settle()
        assert replicas[0].summary() == replicas[1].summary()
        assert len(ours.sent) < 12
        assert len(theirs.sent) < 30

    def test_many_chains(self) -> None:
        """Pages of heads go on until the last."""
        talk = conversation(Dice(5), 60)
        replicas = [filled("north", talk, len(talk.runs), page=1), Replica("south")]
        network = Network(Dice(1), replicas)
        ours, _ = network.connect(0, 1)
        network.settle()
        assert replicas[0].summary() == replicas[1].summary()
        assert len([frame for frame in ours.sent if isinstance(frame, Heads)]) > PAGES_OPEN_MAX


def met(talk: Conversation) -> Network:
    """Return two that have all of a conversation, have met once, and parted."""
    replicas = [filled(name, talk, len(talk.runs)) for name in ("north", "south")]
    network = Network(Dice(len(talk.runs)), replicas)
    network.connect(0, 1)
    network.settle()
    network.disconnect()
    return network


class TestCost:
    @given(NUMBERS, st.integers(0, 30))
    def test_nothing_new(self, number: int, messages: int) -> None:
        """One round trip and under 200 bytes each way."""
        network = met(conversation(Dice(number), messages))
        for side in network.connect(0, 1):
            network.settle()
            assert side.bytes_sent < 200
            assert [type(frame) for frame in side.sent] == [Hello, Heads, Seen]

    @given(NUMBERS, st.integers(0, 30))
    def test_one_new_message(self, number: int, messages: int) -> None:
        """Under 1 kB each way, of which the text is 240; a link to a third author's is 66 more."""
        talk = conversation(Dice(number), messages)
        network = met(talk)
        talk.say(talk.people[0], bytes(240))
        (entry,) = authentic(talk.runs[-1])
        network.replicas[0].take(talk.runs[-1])
        network.connect(0, 1)
        network.settle()
        assert network.replicas[0].summary() == network.replicas[1].summary()
        most = 1000 + 66 * max(0, len(entry.header.links) - 2)
        assert all(side.bytes_sent < most for side in network.sides)

    def test_the_difference_not_the_history(self) -> None:
        talk = conversation(Dice(2), 200)
        replicas = [filled("north", talk, 200, 99), filled("south", talk, 190, 99)]
        network = Network(Dice(2), replicas)
        network.connect(0, 1)
        network.settle()
        assert sum(len(side.entries_sent()) for side in network.sides) == 10


def heads_listed(side: Side) -> int:
    pages = [frame for frame in side.sent if isinstance(frame, Heads)]
    return sum(len(item.heads) for page in pages for item in page.chats)


class TestReconciliation:
    """SPEC 6.3: two that do not know how far they are find what each lacks, and tell no more."""

    @SOME
    @given(NUMBERS, st.integers(0, 40), st.data())
    def test_a_lost_state(self, number: int, messages: int, data: st.DataObject) -> None:
        """A replica of a new incarnation, with less than it had, and without its cursors."""
        talk = conversation(Dice(number), messages, epochs=8)
        north = filled("north", talk, len(talk.runs), 99)
        restored = filled("restored", talk, data.draw(st.integers(0, len(talk.runs))), 99)
        behind = north.summary() != restored.summary()
        network = Network(Dice(number), [north, restored])
        ours, _ = network.connect(0, 1)
        network.settle()
        assert north.summary() == restored.summary()
        assert all(side.session.caught_up for side in network.sides)
        assert bool(heads_listed(ours)) == behind
        cursors = (north.incarnation, north.changes)
        assert restored.cursors[north.incarnation] == cursors
        network.disconnect()
        for side in network.connect(0, 1):
            network.settle()
            assert [type(frame) for frame in side.sent] == [Hello, Heads, Seen]

    def test_the_difference_not_the_whole(self) -> None:
        """Of many chains that both have only the two that differ are listed."""
        talk = conversation(Dice(7), 400, epochs=3)
        north = filled("north", talk, len(talk.runs), 99)
        south = filled("south", talk, len(talk.runs) - 2, 99)
        network = Network(Dice(7), [north, south])
        ours, theirs = network.connect(0, 1)
        network.settle()
        assert north.summary() == south.summary()
        assert heads_listed(ours) <= 2
        assert heads_listed(theirs) <= 2

    @SOME
    @given(NUMBERS, st.integers(1, 30), st.integers(1, 40))
    def test_cut_off_in_the_middle(self, number: int, messages: int, steps: int) -> None:
        """A page of what was found saves its cursor, and none runs ahead (see `Side`)."""
        talk = conversation(Dice(number), messages, epochs=8)
        replicas = [filled("north", talk, len(talk.runs), 1), filled("south", talk, 3, 1)]
        network = Network(Dice(number), replicas)
        for _ in range(4):
            network.connect(0, 1)
            for _ in range(steps):
                network.step()
            network.disconnect()
        network.connect(0, 1)
        network.settle()
        assert replicas[0].summary() == replicas[1].summary()

    @SOME
    @given(NUMBERS, st.integers(1, 30), st.data())
    def test_an_audit_finds_what_no_cursor_does(
        self, number: int, messages: int, data: st.DataObject
    ) -> None:
        """What a replica has lost behind its cursors it gets again within a day."""
        talk = conversation(Dice(number), messages, epochs=8)
        left = data.draw(st.integers(0, len(talk.runs)))
        north, south = (filled(name, talk, len(talk.runs)) for name in ("north", "south"))
        network = Network(Dice(number), [north, south])
        network.connect(0, 1)
        network.settle()
        south.chats = filled("south", talk, left).chats
        sent = [len(side.sent) for side in network.sides]
        for side in network.sides:
            side.session._heard = RECON_AUDIT_SECONDS
        network.tick(RECON_AUDIT_SECONDS)
        network.settle()
        assert north.summary() == south.summary()
        assert [side.session.caught_up for side in network.sides] == [True, True]
        if left == len(talk.runs):
            news = [side.sent[at:] for side, at in zip(network.sides, sent, strict=True)]
            assert [[type(frame) for frame in new] for new in news] == [[frames.Recon]] * 2
            assert sum(len(encode_frame(frame)) for new in news for frame in new) < 350

    def test_who_begins(self) -> None:
        """Who drew the smaller salt; and a first audit comes within a day, others a day later."""
        for salt, theirs, begins in ((b"\x01", b"\x02", True), (b"\x02", b"\x01", False)):
            one = Session(PeerKind.NODE, Greeting(OURS, THEIRS, 0, salt * 16), 0.0)
            one.receive(Hello((1,), THEIRS, OURS, 0, theirs * 16), 0.0)
            one.receive(frames.Ping(), RECON_AUDIT_SECONDS)
            effects = one.expired(RECON_AUDIT_SECONDS)
            assert any(isinstance(effect, Survey) for effect in effects) == begins

    def test_out_of_turn(self) -> None:
        nothing = frames.Recon(0, (), (), (), 0)
        known = Session(PeerKind.NODE, Greeting(OURS, THEIRS, 0, bytes(16)), 0.0)
        known.receive(HELLO, 0.0)
        with pytest.raises(OutOfTurn, match="not on"):
            known.receive(nothing, 0.0)
        one = session()
        one.receive(Hello((1,), THEIRS, None, 0, b"\xff" * 16), 0.0)
        with pytest.raises(OutOfTurn, match="not on"):
            one.receive(nothing, 0.0)
        waits = Session(PeerKind.NODE, Greeting(OURS, None, 0, b"\xff" * 16), 0.0)
        waits.receive(Hello((1,), THEIRS, None, 0, bytes(16)), 0.0)
        assert waits.receive(nothing, 0.0) == []
        with pytest.raises(OutOfTurn, match="not on"):
            waits.receive(nothing, 0.0)
        with pytest.raises(OutOfTurn, match="not on"):
            waits.receive(frames.Recon(2, (), (), (), 0), 0.0)

    def test_an_audit_that_the_peer_asks_for(self) -> None:
        one = Session(PeerKind.NODE, Greeting(OURS, THEIRS, 7, b"\xff" * 16), 0.0)
        one.receive(Hello((1,), THEIRS, OURS, 7, bytes(16)), 0.0)
        asked = Reconciliation(tabulate(b"", (), 7)).begin(1)
        (survey,) = one.receive(asked, 0.0)
        assert isinstance(survey, Survey)
        heads = [(seed("entry", str(number)), number) for number in range(1, 10)]
        table = tabulate(survey.key, heads, 9)
        assert one.surveyed(table, 0.0) == [Send(frames.Recon(1, (), (), (), 0))]
        assert one.idle() == [LoadChanges(tuple(range(1, 8)))]
        page = Heads(7, 0, ())
        assert one.changes(page) == [Send(page)]

    def test_after_the_end(self) -> None:
        one = session()
        one.receive(Hello((1,), THEIRS, None, 0, bytes(16)), 0.0)
        one.receive(frames.Bye(), 0.0)
        assert one.surveyed(tabulate(b"", (), 7), 0.0) == []


class TestForks:
    """I5: two branches of equal length at two replicas (case 17)."""

    @SOME
    @given(NUMBERS, st.integers(1, 40), st.data())
    def test_both_end_with_both_and_the_proof(
        self, number: int, messages: int, data: st.DataObject
    ) -> None:
        talk = conversation(Dice(number), messages, epochs=10**9)
        writers = [who for who in talk.people if (who.devices[0], CONTENT) in talk.chains]
        who = data.draw(st.sampled_from(writers))
        chain = talk.chain(who, CONTENT)
        at = data.draw(st.integers(0, len(chain.entries) - 1))
        count = data.draw(st.integers(1, len(chain.entries) - at))
        branch = talk.fork(who, at, count)
        north = filled("north", talk, len(talk.runs))
        south = Replica("south")
        first = next(
            place
            for place, run in enumerate(talk.runs)
            if (run.device, run.lane, run.start) == (chain.device, CONTENT, at)
        )
        for run in talk.runs[:first]:
            south.take(run)
        outcome = south.take(branch.run(at))[0]
        assert outcome.reached == at + count
        network = Network(Dice(number), [north, south])
        network.connect(0, 1)
        network.settle()
        assert north.summary() == south.summary()
        entries, forked = north.summary()[talk.chat]
        assert forked == {(chain.device, CONTENT)}
        assert {made.id for made in (*chain.entries, *branch.entries)} <= entries
