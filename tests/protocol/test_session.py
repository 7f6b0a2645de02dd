"""SPEC 6: sessions, and the receiving half of them."""

from collections import Counter
from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import frame as frames
from protocol.chat import Missing
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Consult,
    Deliver,
    Effect,
    LoadChanges,
    LoadChunk,
    LoadHeads,
    LoadRun,
    LoadSeals,
    NoteHoldings,
    SaveCursor,
    Send,
    StoreFork,
    StoreSeals,
    Survey,
    TakeChunk,
    Wake,
)
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId
from protocol.errors import LimitExceeded, OutOfTurn, PeerError
from protocol.frame import Absent, ChatHeads, Head, Heads, Hello, Run, Seen, Want, encode_frame
from protocol.intake import NEVER, Intake, Outcome
from protocol.limits import (
    BLOB_CHUNKS_SERVED_MAX,
    HEADS_DELAY_SECONDS,
    HELD_ENTRIES_MAX,
    HELD_RUNS_MAX,
    HELD_TRIES_MAX,
    HELLO_TIMEOUT_SECONDS,
    IDLE_CLOSE_SECONDS,
    IDLE_PING_SECONDS,
    KEYFRAME_ENTRIES,
    LEAF_CLOSE_SECONDS,
    LEAF_PING_SECONDS,
    PAGES_OPEN_MAX,
    PAYLOAD_BYTES_MAX,
    RECON_AUDIT_SECONDS,
    REFUSALS_MAX,
    SEQ_MAX,
    WANT_TIMEOUT_SECONDS,
    WANT_TIMEOUTS_MAX,
    WANTS_OUTSTANDING_MAX,
    WANTS_SERVED_MAX,
)
from protocol.reconcile import Reconciliation, tabulate
from protocol.session import ALLOWED, WITH_LEAF, Greeting, PeerKind, Session, State
from protocol.testing.cast import seed
from protocol.testing.chains import CHAT, Chain, Step, signer
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.network import Network, Replica, Side

NUMBERS = st.integers(0, 2**32)
ALL = 1000  # heads on a page
SOME = settings(max_examples=30)
OURS, THEIRS = seed("ours")[:16], seed("theirs")[:16]
HELLO = Hello((1,), THEIRS, OURS, 0, bytes(16))
DEVICE = DeviceKey(seed("device"))


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


class TestCost:
    @given(NUMBERS, st.integers(0, 30))
    def test_nothing_new(self, number: int, messages: int) -> None:
        """One round trip and under 200 bytes each way."""
        talk = conversation(Dice(number), messages)
        replicas = [filled(name, talk, len(talk.runs)) for name in ("north", "south")]
        network = Network(Dice(number), replicas)
        network.connect(0, 1)
        network.settle()
        network.disconnect()
        for side in network.connect(0, 1):
            network.settle()
            assert side.bytes_sent < 200
            assert [type(frame) for frame in side.sent] == [Hello, Heads, Seen]

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


def session(peer: PeerKind = PeerKind.NODE) -> Session:
    return Session(peer, Greeting(OURS, None, 0, bytes(16)), 0.0)


def opened(peer: PeerKind = PeerKind.NODE) -> Session:
    made = session(peer)
    made.receive(HELLO, 0.0)
    return made


CHAIN = Chain(signer("anna"), CHAT, CONTENT)
CHAIN.extend([Step(b"x")] * 20)


def wanted(number: int = 0, start: int = 0, stop: int = 1) -> frames.WantBlob:
    return frames.WantBlob(CHAT, EntryId(bytes([number]) * 32), start, stop)


def brought(number: int = 0, index: int = 0) -> frames.Blob:
    return frames.Blob(CHAT, EntryId(bytes([number]) * 32), index, b"", ())


SAMPLES: dict[type, frames.Frame] = {
    type(frame): frame
    for frame in (
        HELLO,
        Heads(0, 1, ()),
        Want(CHAT, DEVICE, 0, bytes(8), 0, 1),
        CHAIN.run(0, 1),
        Absent(CHAT, DEVICE, 0, 0),
        frames.Have(()),
        frames.Forked(CHAT, b""),
        frames.WantSeals(CHAT, EntryId(bytes(32)), (DEVICE,)),
        frames.Seals(CHAT, EntryId(bytes(32)), ()),
        frames.Ask(0, 0, b""),
        frames.Answer(0, 0, b""),
        frames.Error(0, b""),
        frames.Bye(),
        frames.Ping(),
        frames.Pong(),
        Seen(0),
        frames.WantBlob(CHAT, EntryId(bytes(32)), 0, 1),
        frames.Blob(CHAT, EntryId(bytes(32)), 0, b"", ()),
        frames.Lacking(CHAT, EntryId(bytes(32)), 0, 1),
        frames.Recon(1, (), (), (), 0),
        frames.IHave(CHAT, (Head(DEVICE, 0, 0, bytes(8)),)),
        frames.Graft(CHAT, Head(DEVICE, 0, 0, bytes(8))),
        frames.Prune(CHAT),
    )
}


class TestAllowed:
    """SPEC 6.2: which frame may come when."""

    @pytest.mark.parametrize("kind", get_args(frames.Frame))
    @pytest.mark.parametrize("peer", PeerKind)
    @pytest.mark.parametrize("state", State)
    def test_table(self, state: State, peer: PeerKind, kind: type) -> None:
        """Every frame in every state from every kind of peer: taken or OutOfTurn, nothing else."""
        one = session(peer)
        one.state = state
        if kind in ALLOWED.get((state, peer), frozenset()):
            one.receive(SAMPLES[kind], 0.0)
        else:
            with pytest.raises(OutOfTurn):
                one.receive(SAMPLES[kind], 0.0)

    def test_every_frame_is_somewhere(self) -> None:
        assert frozenset().union(*ALLOWED.values()) == frozenset(get_args(frames.Frame))

    def test_hello_only_once(self) -> None:
        with pytest.raises(OutOfTurn, match="HELLO from a node while open"):
            opened().receive(HELLO, 0.0)

    def test_version(self) -> None:
        with pytest.raises(OutOfTurn, match="versions"):
            session().receive(msgspec.structs.replace(HELLO, versions=(2, 3)), 0.0)
        session().receive(msgspec.structs.replace(HELLO, versions=(1, 2)), 0.0)

    @pytest.mark.parametrize(
        ("frame", "effect"),
        [
            (frames.Have(()), NoteHoldings(())),
            (frames.Forked(CHAT, b"p"), StoreFork(frames.Forked(CHAT, b"p"))),
            (SAMPLES[frames.WantSeals], LoadSeals(CHAT, EntryId(bytes(32)), (DEVICE,))),
            (SAMPLES[frames.Seals], StoreSeals(CHAT, EntryId(bytes(32)), ())),
            (frames.Ask(1, 2, b""), Consult(frames.Ask(1, 2, b""))),
            (frames.Answer(1, 2, b""), Deliver(frames.Answer(1, 2, b""))),
            (SAMPLES[frames.WantBlob], LoadChunk(wanted())),
            (SAMPLES[frames.Blob], TakeChunk(brought())),
            (SAMPLES[frames.Lacking], TakeChunk(frames.Lacking(CHAT, EntryId(bytes(32)), 0, 1))),
            (frames.Ping(), Send(frames.Pong())),
            (frames.Bye(), Close(None)),
            (frames.Error(1, b""), Close(None)),
        ],
    )
    def test_what_is_handed_on(self, frame: frames.Frame, effect: Effect) -> None:
        one = opened()
        assert one.receive(frame, 0.0) + one.idle() == [effect]
        assert opened().receive(frames.Pong(), 0.0) == []

    def test_after_the_end(self) -> None:
        one = opened()
        one.receive(frames.Bye(), 0.0)
        assert one.state is State.CLOSED
        assert one.idle() == one.pushed(0.0) == one.expired(1e9) == []


class TestGreeting:
    def test_an_invitation_has_no_replica(self) -> None:
        one = session(PeerKind.INVITATION)
        assert one.start(5.0) == [Wake(5.0 + IDLE_CLOSE_SECONDS)]
        one.receive(frames.Ask(0, 0, b""), 50.0)
        assert one.expired(95.0) == [Wake(50.0 + IDLE_CLOSE_SECONDS)]
        with pytest.raises(OutOfTurn):
            one.expired(50.0 + IDLE_CLOSE_SECONDS)

    def test_what_is_told(self) -> None:
        """A cursor counts for the incarnation that gave it only; else the two reconcile first."""
        told = session().receive(Hello((1,), THEIRS, OURS, 7, bytes(16)), 0.0)
        assert LoadHeads(7) in told
        for other in (None, seed("old")[:16]):
            one = session()
            effects = one.receive(Hello((1,), THEIRS, other, 7, bytes(16)), 0.0)
            assert [type(effect) for effect in effects] == [Wake, Survey]
            one.pushed(0.0)
            one.expired(HEADS_DELAY_SECONDS)
            assert one.idle() == []

    def test_a_cursor_is_saved_once(self) -> None:
        """A reconnection with nothing new writes nothing."""
        for incarnation, saves in ((THEIRS, []), (OURS, [SaveCursor(THEIRS, 7)])):
            one = Session(PeerKind.NODE, Greeting(OURS, incarnation, 7, bytes(16)), 0.0)
            one.receive(HELLO, 0.0)
            one.receive(Heads(7, 1, ()), 0.0)
            assert one.compared((), 0.0) == [*saves, Send(Seen(7))]


class TestTime:
    def test_silence_before_hello(self) -> None:
        """Case 3."""
        one = session()
        assert Wake(HELLO_TIMEOUT_SECONDS) in one.start(0.0)
        assert one.expired(1.0) == [Wake(HELLO_TIMEOUT_SECONDS)]
        with pytest.raises(OutOfTurn, match="no word for 10 s"):
            one.expired(HELLO_TIMEOUT_SECONDS)

    def test_silence_later(self) -> None:
        one = opened()
        assert Send(frames.Ping()) not in one.expired(IDLE_PING_SECONDS - 1)
        assert Send(frames.Ping()) in one.expired(IDLE_PING_SECONDS)
        one.receive(frames.Pong(), 60.0)
        one.expired(60.0 + IDLE_CLOSE_SECONDS - 1)
        with pytest.raises(OutOfTurn, match="nothing heard"):
            one.expired(60.0 + IDLE_CLOSE_SECONDS)

    @pytest.mark.parametrize("kind", [PeerKind.DEVICE, PeerKind.NODE])
    def test_a_device_and_its_node_rest(self, kind: PeerKind) -> None:
        """Thousands rest at one node: it is woken once in ten minutes for each, not every 15 s."""
        one = Session(kind, Greeting(OURS, None, 0, bytes(16), WITH_LEAF), 0.0)
        one.start(0.0)
        assert Wake(LEAF_PING_SECONDS) in one.receive(HELLO, 0.0)
        assert one.expired(LEAF_PING_SECONDS - 1) == [Wake(LEAF_PING_SECONDS)]
        assert Send(frames.Ping()) in one.expired(LEAF_PING_SECONDS)
        with pytest.raises(OutOfTurn, match="nothing heard"):
            one.expired(LEAF_CLOSE_SECONDS)

    def test_late_answers_are_noticed_in_time(self) -> None:
        """Even by a session that is patient with silence."""
        one = opened(PeerKind.DEVICE)
        one.receive(Heads(1, 1, ()), 100.0)
        effects = one.compared([want(0, 10)], 100.0)
        assert Wake(100.0 + WANT_TIMEOUT_SECONDS) in effects

    def test_heads_after_pushes(self) -> None:
        """Pushes are followed by one page of heads, however many they were."""
        one = opened()
        assert one.pushed(1.0) == [Wake(1.0 + HEADS_DELAY_SECONDS)]
        assert one.pushed(2.0) == []
        assert one.idle() == []
        one.expired(1.0 + HEADS_DELAY_SECONDS)
        assert one.idle() == [LoadHeads(0)]
        assert one.idle() == []

    def test_nothing_is_said_when_nothing_changed(self) -> None:
        """But the first page always is: it tells the peer that we are at our end."""
        one = opened()
        page = Heads(7, 1, ())
        assert one.heads(page) == [Send(page)]
        assert one.heads(page) == []


class TestServing:
    def test_pages_wait_for_seen(self) -> None:
        one = opened()
        for cursor in range(1, PAGES_OPEN_MAX + 1):
            one.heads(Heads(cursor, 0, ()))
        assert one.idle() == []
        one.receive(Seen(0), 0.0)
        assert one.idle() == []
        one.receive(Seen(1), 0.0)
        assert one.idle() == [LoadHeads(PAGES_OPEN_MAX)]

    def test_wants(self) -> None:
        one = opened()
        want = Want(CHAT, CHAIN.device, CONTENT, bytes(8), 3, 9)
        assert one.receive(want, 0.0) == []
        assert one.idle() == [LoadRun(want)]
        run = CHAIN.run(3, 5)
        assert one.loaded(want, run) == [Send(run)]
        rest = msgspec.structs.replace(want, start=5)
        assert one.idle() == [LoadRun(rest)]
        assert one.loaded(rest, CHAIN.run(5, 10)) == [Send(CHAIN.run(5, 10))]
        assert one.idle() == []

    def test_absent(self) -> None:
        """Case 48: one answer for what does not exist and for what may not be seen."""
        want = Want(CHAT, DEVICE, CONTENT, bytes(8), 3, 9)
        assert opened().loaded(want, None) == [Send(Absent(CHAT, DEVICE, CONTENT, 3))]

    def test_too_many_wants(self) -> None:
        """Case 32: and none that asks for nothing."""
        one = opened()
        for start in range(WANTS_SERVED_MAX):
            one.receive(Want(CHAT, DEVICE, CONTENT, bytes(8), start, SEQ_MAX), 0.0)
        with pytest.raises(LimitExceeded):
            one.receive(Want(CHAT, DEVICE, CONTENT, bytes(8), 0, 1), 0.0)
        for start, stop in ((3, 3), (4, 3)):
            with pytest.raises(OutOfTurn):
                opened().receive(Want(CHAT, DEVICE, CONTENT, bytes(8), start, stop), 0.0)

    def test_chunks_go_one_at_a_time_and_last(self) -> None:
        """SPEC 6.7: blobs take turns, and whatever else there is comes between."""
        one = opened()
        for number in (1, 2):
            one.receive(wanted(number, 0, 2), 0.0)
        assert one.idle() == [LoadChunk(wanted(1, 0, 2))]
        assert one.chunk_loaded(wanted(1, 0, 2), brought(1)) == [Send(brought(1))]
        want = Want(CHAT, DEVICE, CONTENT, bytes(8), 3, 9)
        one.receive(want, 0.0)
        one.receive(frames.WantSeals(CHAT, EntryId(bytes(32)), (DEVICE,)), 0.0)
        assert isinstance(one.idle()[0], LoadSeals)
        assert one.idle() == [LoadRun(want)]
        assert one.idle() == [LoadChunk(wanted(2, 0, 2))]
        assert one.chunk_loaded(wanted(2, 0, 2), None) == [
            Send(frames.Lacking(CHAT, wanted(2).entry, 0, 2))
        ]
        assert one.idle() == [LoadChunk(wanted(1, 1, 2))]
        assert one.chunk_loaded(wanted(1, 1, 2), brought(1, 1)) == [Send(brought(1, 1))]
        assert one.idle() == []

    def test_too_many_chunks(self) -> None:
        """Case 32: what was served makes room, what is lacking too."""
        one = opened()
        half = BLOB_CHUNKS_SERVED_MAX // 2
        for number in (1, 2):
            one.receive(wanted(number, 0, half), 0.0)
        one.idle()
        one.chunk_loaded(wanted(1, 0, half), brought(1))
        one.receive(wanted(3, 0, 1), 0.0)
        with pytest.raises(LimitExceeded):
            one.receive(wanted(3, 1, 2), 0.0)
        one = opened()
        one.receive(wanted(1, 0, 2 * half), 0.0)
        one.idle()
        one.chunk_loaded(wanted(1, 0, 2 * half), None)
        one.receive(wanted(2, 0, 2 * half), 0.0)
        for start, stop in ((3, 3), (4, 3)):
            with pytest.raises(OutOfTurn):
                opened().receive(wanted(1, start, stop), 0.0)


def place(number: int, lane: int = CONTENT, chat: ChatId = CHAT) -> tuple[ChatId, DeviceKey, int]:
    return chat, DeviceKey(seed("device", str(number))), lane


def want(number: int, stop: int = 5, lane: int = CONTENT, start: int = 0) -> Want:
    return Want(*place(number, lane), bytes(8), start, stop)


def run_at(number: int, start: int = 0, count: int = 5, lane: int = CONTENT) -> Run:
    """Return a run that an intake can count, though nobody could verify it."""
    return Run(*place(number, lane), start, None, None, (msgspec.Raw(b"\x00"),) * count, ())


def missing(number: int, seq: int = 0, have: int = 0) -> tuple[Missing, ...]:
    chat, device, lane = place(number)
    del chat
    return (Missing(device, lane, seq, EntryId(seed("entry", str(number), str(seq))), have),)


def intake(*wants: Want, cursor: int = 1) -> Intake:
    made = Intake()
    made.open_page(cursor)
    made.lacking(wants)
    return made


class TestIntake:
    def test_control_first(self) -> None:
        """Content of a chat waits until no control entry of it is asked for or being judged."""
        one = intake(want(0), want(1, lane=CONTROL))
        assert one.ask(0.0) == [want(1, lane=CONTROL)]
        run = run_at(1, lane=CONTROL)
        one.received(run, 0.0)
        assert one.ask(0.0) == []
        one.judged(run, Outcome(5))
        assert one.ask(0.0) == [want(0)]

    def test_bounded_wants(self) -> None:
        one = intake(*(want(number) for number in range(100)))
        assert len(one.ask(0.0)) == WANTS_OUTSTANDING_MAX
        assert one.ask(0.0) == []
        run = run_at(0)
        one.received(run, 0.0)
        assert one.ask(0.0) == []
        one.judged(run, Outcome(5))
        assert one.ask(0.0) == [want(WANTS_OUTSTANDING_MAX)]

    def test_one_want_a_chain(self) -> None:
        """Of two branches the second is asked for when the first is stored, and both are kept."""
        branch = Want(*place(0), b"another.", 3, 5)
        one = intake(want(0), branch)
        assert one.ask(0.0) == [want(0)]
        run = run_at(0)
        one.received(run, 0.0)
        one.judged(run, Outcome(5))
        assert one.finished() == []
        assert one.ask(0.0) == [Want(*place(0), b"another.", 4, 5)]

    def test_finished(self) -> None:
        """A page is finished when all that it listed is stored; pages finish in order."""
        one = intake(want(0))
        one.open_page(2)
        one.lacking([])
        one.ask(0.0)
        assert one.finished() == []
        run = run_at(0)
        one.received(run, 0.0)
        assert not one.settled
        assert one.finished() == []
        one.judged(run, Outcome(5))
        assert one.finished() == [1, 2]
        assert one.settled

    def test_endless_pages(self) -> None:
        one = Intake()
        for cursor in range(PAGES_OPEN_MAX):
            one.open_page(cursor)
        with pytest.raises(LimitExceeded):
            one.open_page(9)

    def test_the_same_head_on_two_pages(self) -> None:
        """It is asked for once, and closes both."""
        one = intake(want(0))
        one.open_page(2)
        one.lacking([want(0)])
        assert one.ask(0.0) == [want(0)]
        run = run_at(0)
        one.received(run, 0.0)
        one.judged(run, Outcome(5))
        assert one.ask(0.0) == []
        assert one.finished() == [1, 2]

    def test_in_two_runs(self) -> None:
        one = intake(want(0))
        one.ask(0.0)
        first, second = run_at(0, 0, 2), run_at(0, 2, 3)
        one.received(first, 10.0)
        assert one.deadline() == 10.0 + WANT_TIMEOUT_SECONDS
        one.judged(first, Outcome(2))
        assert one.finished() == []
        one.received(second, 10.0)
        assert one.deadline() == NEVER
        one.judged(second, Outcome(5))
        assert one.finished() == [1]

    def test_a_push_is_no_answer(self) -> None:
        one = intake(want(0))
        one.ask(0.0)
        push = run_at(0, 7, 1)
        one.received(push, 1.0)
        assert one.deadline() == WANT_TIMEOUT_SECONDS
        one.judged(push, Outcome(7, missing(0, 6)))
        answer = run_at(0)
        one.received(answer, 1.0)
        assert one.judged(answer, Outcome(5)) == []
        assert one.finished() == [1]
        assert [item.stop for item in one.ask(1.0)] == [7]

    def test_timeouts(self) -> None:
        """Case 30: what does not exist is given up, and a peer that does so often is, too."""
        one = intake(*(want(number) for number in range(WANT_TIMEOUTS_MAX + 1)))
        one.ask(0.0)
        one.expired(WANT_TIMEOUT_SECONDS - 1)
        assert one.finished() == []
        with pytest.raises(OutOfTurn):
            one.expired(WANT_TIMEOUT_SECONDS)
        few = intake(want(0))
        few.ask(0.0)
        few.expired(WANT_TIMEOUT_SECONDS)
        assert few.finished() == [1]

    def test_absent(self) -> None:
        one = intake(want(0))
        one.ask(0.0)
        one.absent(place(1), 0)
        one.absent(place(0), 3)
        assert one.finished() == []
        one.absent(place(0), 0)
        assert one.finished() == [1]

    def test_refusals(self) -> None:
        """A run that no rule allows closes its want; too many of them the session."""
        one = intake(want(0))
        one.ask(0.0)
        for count in range(REFUSALS_MAX):
            run = run_at(0) if not count else run_at(0, 9)
            one.received(run, 0.0)
            one.judged(run, Outcome(run.start, refused=True))
        assert one.finished() == [1]
        last = run_at(1)
        one.received(last, 0.0)
        with pytest.raises(OutOfTurn):
            one.judged(last, Outcome(0, refused=True))

    def test_surplus_branches_are_no_fault(self) -> None:
        one = intake(want(0))
        one.ask(0.0)
        for count in range(REFUSALS_MAX + 1):
            run = run_at(0) if not count else run_at(0, 9)
            one.received(run, 0.0)
            one.judged(run, Outcome(run.start, surplus=True))
        assert one.finished() == [1]

    def test_held_until_the_ancestor_comes(self) -> None:
        one = intake(want(0))
        one.ask(0.0)
        run = run_at(0)
        one.received(run, 0.0)
        assert one.judged(run, Outcome(2, missing(1, 3))) == []
        assert one.finished() == []
        asked = one.ask(0.0)
        assert [(item.device, item.start, item.stop) for item in asked] == [(place(1)[1], 0, 4)]
        ancestor = run_at(1, 0, 4)
        one.received(ancestor, 0.0)
        (again,) = one.judged(ancestor, Outcome(4))
        assert again == run
        one.judged(again, Outcome(5))
        assert one.finished() == [1]

    def test_tried_together(self) -> None:
        """Runs that wait for each other's entries come out as one."""
        one = intake(want(0), want(1))
        one.ask(0.0)
        first, second = run_at(0), run_at(1)
        for run in (first, second):
            one.received(run, 0.0)
        assert one.judged(first, Outcome(1, missing(1, 0))) == []
        assert one.judged(second, Outcome(1, missing(0, 1))) == [first, second]

    def test_another_branch_is_sought_ever_farther_back(self) -> None:
        """Where a run does not fit on what is stored, its beginning is 64, 128, … entries back."""
        one = Intake()
        starts = []
        at = 5000
        push = run_at(0, at, 1)
        one.received(push, 0.0)
        one.judged(push, Outcome(at, missing(0, at - 1, have=9000)))
        for _ in range(8):
            (found,) = one.ask(0.0)
            starts.append(found.start)
            assert found.stop == at
            if not found.start:
                break
            answer = run_at(0, found.start, found.stop - found.start)
            one.received(answer, 0.0)
            one.judged(answer, Outcome(found.start, missing(0, found.start - 1, have=9000)))
            at = found.start
        assert starts == [5000 - KEYFRAME_ENTRIES * (2**steps - 1) for steps in range(1, 7)] + [0]

    def test_backtracking_ends(self) -> None:
        one = Intake()
        for _ in range(60):
            run = run_at(0, 70, 1)
            one.received(run, 0.0)
            one.judged(run, Outcome(70, missing(0, 69, have=99)))
            for item in one.ask(0.0):
                one.absent(place(0), item.start)
        assert one.ask(0.0) == []


class TestBounds:
    """I9: what is remembered of a peer is bounded, whatever it sends."""

    @pytest.mark.parametrize("count", [1, 4096])
    def test_held(self, count: int) -> None:
        """Case 21: entries whose ancestors never come."""
        one = Intake()
        for number in range(2 * HELD_RUNS_MAX):
            run = run_at(number, 1, count)
            one.received(run, 0.0)
            one.judged(run, Outcome(1, missing(number + 10_000)))
            one.ask(0.0)
        assert len(one._held) <= HELD_RUNS_MAX
        assert one._held_entries <= HELD_ENTRIES_MAX
        assert one._held_entries == sum(len(w.run.records) for w in one._held.values())
        assert len(one._asked) <= WANTS_OUTSTANDING_MAX
        assert not one._judging
        assert not one._busy
        for index in (one._held_at, one._waiters):
            assert {number for works in index.values() for number in works} == set(one._held)

    def test_what_was_dropped_is_asked_for_again(self) -> None:
        """Case 21, of honest peers: the page still needs it."""
        wants = [want(number, 4096) for number in range(WANTS_OUTSTANDING_MAX)]
        one = intake(*wants)
        asked = one.ask(0.0)
        for item, number in zip(asked, range(WANTS_OUTSTANDING_MAX), strict=True):
            run = run_at(number, 0, 4096)
            one.received(run, 0.0)
            one.judged(run, Outcome(100, missing(number + 100)))
            assert item.stop == 4096
        assert one.finished() == []
        again = [item for item in one.ask(0.0) if item.start]
        assert all(item.start == 100 for item in again)

    def test_tries(self) -> None:
        """A run that waits for one entry after the other is not verified again for each."""
        one = intake(want(0, 4096))
        one.ask(0.0)
        run = run_at(0, 0, 4096)
        one.received(run, 0.0)
        one.judged(run, Outcome(1, missing(1, 0)))
        tries = 0
        for seq in range(100):
            push = run_at(1, seq, 1)
            one.received(push, 0.0)
            for again in one.judged(push, Outcome(seq + 1)):
                tries += 1
                one.judged(again, Outcome(seq + 2, missing(1, seq + 1)))
        assert tries == HELD_TRIES_MAX
        assert [(item.start, item.stop) for item in one.ask(0.0) if item.stop == 4096]

    def test_seals_for_nobody(self) -> None:
        """Case 32: a question that counts for nothing is not kept."""
        session = opened()
        for _ in range(100):
            session.receive(frames.WantSeals(CHAT, EntryId(seed("epoch")), ()), 0.0)
        assert not session._sealing
        session.receive(frames.WantSeals(CHAT, EntryId(seed("epoch")), (DEVICE,)), 0.0)
        assert [type(effect) for effect in session.idle()] == [LoadSeals]

    def test_long_runs(self) -> None:
        """Signed at the end only, they could not be served on."""
        long = Chain(signer("anna"), CHAT, CONTENT)
        long.extend([Step(bytes(PAYLOAD_BYTES_MAX))] * 5)
        opened().receive(long.run(0, 1), 0.0)
        with pytest.raises(LimitExceeded):
            opened().receive(long.run(), 0.0)

    @given(st.data())
    def test_any_frames(self, data: st.DataObject) -> None:
        """A hostile peer gets a typed error or an answer; what is kept of it stays bounded."""
        one = opened()
        makers: list[Callable[[], frames.Frame]] = [
            lambda: Heads(data.draw(st.integers(0, 9)), 1, (ChatHeads(CHAT, ()),)),
            lambda: Seen(data.draw(st.integers(0, 9))),
            lambda: run_at(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 9)), 2),
            lambda: Absent(*place(data.draw(st.integers(0, 3))), data.draw(st.integers(0, 9))),
            lambda: want(data.draw(st.integers(0, 3))),
        ]
        waiting: list[Run] = []
        try:
            for _ in range(data.draw(st.integers(1, 30))):
                frame = data.draw(st.sampled_from(makers))()
                effects = one.receive(frame, 0.0)
                for effect in effects:
                    if isinstance(effect, Compare):
                        number = data.draw(st.integers(0, 3))
                        one.compared([want(number), want(number, lane=CONTROL)], 0.0)
                    elif isinstance(effect, Admit):
                        waiting += effect.runs
                ready = data.draw(st.booleans())
                if waiting and ready:
                    run = waiting.pop(0)
                    outcome = data.draw(
                        st.sampled_from(
                            [
                                Outcome(run.start + 2),
                                Outcome(run.start, missing(3, 8)),
                                Outcome(run.start + 1, missing(run.start % 4, 9, have=10)),
                                Outcome(run.start + 1, refused=True),
                            ]
                        )
                    )
                    for effect in one.admitted([(run, outcome)], (), 0.0):
                        waiting += effect.runs if isinstance(effect, Admit) else ()
                one.idle()
        except PeerError:
            return

    def test_hostile_heads(self) -> None:
        """A page that lists what does not exist costs a want each, 32 at a time."""
        one = opened()
        heads = tuple(Head(place(number)[1], 1, 9, bytes(8)) for number in range(4096))
        (compare,) = one.receive(Heads(1, 1, (ChatHeads(CHAT, heads),)), 0.0)
        assert isinstance(compare, Compare)
        effects = one.compared([want(number, 10) for number in range(4096)], 0.0)
        assert sum(isinstance(effect, Send) for effect in effects) == WANTS_OUTSTANDING_MAX
        with pytest.raises(OutOfTurn):
            one.expired(WANT_TIMEOUT_SECONDS)
