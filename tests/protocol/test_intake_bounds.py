"""SPEC 6.6: what one peer can have kept, tried or asked for is bounded."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import frame as frames
from protocol.effect import (
    Admit,
    Compare,
    LoadSeals,
    Send,
)
from protocol.entry import CONTENT, CONTROL, EntryId
from protocol.errors import LimitExceeded, OutOfTurn, PeerError
from protocol.frame import Absent, ChatHeads, Head, Heads, Run, Seen
from protocol.intake import Intake, Outcome
from protocol.limits import (
    ANSWER_SECONDS_MAX,
    HELD_BYTES_MAX,
    HELD_ENTRIES_MAX,
    HELD_RUNS_MAX,
    HELD_TRIES_MAX,
    PAYLOAD_BYTES_MAX,
    WANTS_OUTSTANDING_MAX,
)
from protocol.testing.cast import seed
from protocol.testing.chains import CHAT, Chain, Step, signer
from tests.protocol.sessions import (
    DEVICE,
    intake,
    missing,
    opened,
    place,
    run_at,
    want,
)


class TestBounds:
    """I9: what is remembered of a peer is bounded, whatever it sends."""

    @pytest.mark.parametrize(("count", "size"), [(1, 1), (4096, 1), (1, 32 * 1024)])
    def test_held(self, count: int, size: int) -> None:
        """Case 21: entries whose ancestors never come."""
        one = Intake()
        for number in range(2 * HELD_RUNS_MAX):
            records = (msgspec.Raw(bytes(size)),) * count
            run = msgspec.structs.replace(run_at(number, 1, count), records=records)
            one.received(run, 0.0)
            one.judged(run, Outcome(1, missing(number + 10_000)))
            one.ask(0.0)
        assert len(one._held) <= HELD_RUNS_MAX
        assert one._held.entries <= HELD_ENTRIES_MAX
        works = one._held._works.values()
        assert one._held.entries == sum(len(work.run.records) for work in works)
        assert one._held.bytes == one._held.entries * size <= HELD_BYTES_MAX
        wanted = sum(len(waiting) for lane in one._queued.values() for waiting in lane.values())
        assert wanted <= HELD_RUNS_MAX, "nor is what a run waited for that is held no longer"
        assert len(one._asked) <= WANTS_OUTSTANDING_MAX
        assert not one._judging
        assert not one._busy
        for index in (one._held._at, one._held._waiters):
            assert {number for found in index.values() for number in found} == {*map(id, works)}

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
        assert not session._serving._seals
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
            one.expired(ANSWER_SECONDS_MAX)
