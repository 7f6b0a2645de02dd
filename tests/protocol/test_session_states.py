"""SPEC 6.2: which frame may come when, deadlines, and what is served in which order."""

from typing import get_args

import msgspec
import pytest

from protocol import frame as frames
from protocol.effect import (
    Close,
    Consult,
    Deliver,
    Effect,
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
from protocol.entry import CONTENT, ChatId, EntryId
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import Absent, ChatHeads, Head, Heads, Hello, Seen, Want
from protocol.intake import Outcome
from protocol.limits import (
    ANSWER_SECONDS_MAX,
    BLOB_CHUNKS_SERVED_MAX,
    HEADS_CHAINS_MAX,
    HEADS_DELAY_SECONDS,
    HELLO_TIMEOUT_SECONDS,
    IDLE_CLOSE_SECONDS,
    IDLE_PING_SECONDS,
    LEAF_CLOSE_SECONDS,
    LEAF_PING_SECONDS,
    PAGES_OPEN_MAX,
    SEALS_FRAME_MAX,
    SEALS_SERVED_MAX,
    SEQ_MAX,
    WANTS_SERVED_MAX,
)
from protocol.session import ALLOWED, WITH_LEAF, Greeting, PeerKind, Session, State
from protocol.testing.cast import seed
from protocol.testing.chains import CHAT
from tests.protocol.sessions import (
    CHAIN,
    DEVICE,
    HELLO,
    OURS,
    THEIRS,
    brought,
    opened,
    run_at,
    session,
    want,
    wanted,
)

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

    def test_no_cursor_passes_what_has_no_place_yet(self) -> None:
        """SPEC 6.3, 4: the page is seen, but a session that ends now is told of it again."""
        one = opened()
        one.receive(Heads(7, 1, ()), 0.0)
        assert one.compared((want(0),), 0.0)[0] == Send(want(0))
        for early, saves in ((True, []), (False, [SaveCursor(THEIRS, 7)])):
            run = run_at(0)
            one.receive(run, 0.0)
            outcome = Outcome(0 if early else 5, surplus=early, early=early)
            found = one.admitted([(run, outcome)], (), 0.0)
            assert found == [*saves, *([Send(Seen(7))] if early else [])]
            assert early == (Send(want(0)) in one.let_in(0.0))

    def test_what_was_forgotten_is_told_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """SPEC 6.3, 4: the session ends once all that it can bring is here, and no sooner."""
        monkeypatch.setattr("protocol.intake.WANTS_EARLY_MAX", 1)
        one = opened()
        for cursor, last, number in ((7, 0, 0), (8, 1, 1)):
            one.receive(Heads(cursor, last, ()), 0.0)
            one.compared((want(number),), 0.0)
            run, early = run_at(number), Outcome(0, surplus=True, early=True)
            one.receive(run, 0.0)
            assert Close(None) not in one.admitted([(run, early)], (), 0.0)
        assert Send(want(1)) in one.let_in(0.0)
        one.receive(run := run_at(1), 0.0)
        assert one.admitted([(run, Outcome(5))], (), 0.0) == [Close(None)]


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
        assert Wake(100.0 + ANSWER_SECONDS_MAX) in effects

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


class TestBounds:
    """SPEC 8 and 6.6: what one peer may list, ask for and send at once."""

    def test_a_page(self) -> None:
        head = Head(DEVICE, CONTENT, 0, bytes(8))
        half = HEADS_CHAINS_MAX // 2
        for more in (0, 1):
            chats = tuple(
                ChatHeads(ChatId(bytes([number]) * 32), (head,) * (half + number * more))
                for number in (0, 1)
            )
            if more:
                with pytest.raises(LimitExceeded, match="heads in a page"):
                    opened().receive(Heads(1, 1, chats), 0.0)
            else:
                opened().receive(Heads(1, 1, chats), 0.0)

    def test_seals(self) -> None:
        """What is beyond is asked for again by who still lacks it."""
        one, devices = opened(), (DEVICE,) * SEALS_FRAME_MAX
        for _ in range(SEALS_SERVED_MAX // SEALS_FRAME_MAX + 1):
            one.receive(frames.WantSeals(CHAT, EntryId(bytes(32)), devices), 0.0)
        served = 0
        while (found := one.idle()) and isinstance(found[0], LoadSeals):
            served += len(found[0].devices)
        assert served == SEALS_SERVED_MAX

    def test_signatures(self) -> None:
        run = msgspec.structs.replace(run_at(0, count=1), signatures=((0, bytes(64)),) * 2)
        with pytest.raises(LimitExceeded, match="more signatures"):
            opened().receive(run, 0.0)
