"""SPEC 6.3, 6.6: the receiving half of a session: what it asks for, holds and gives up."""

from collections.abc import Iterable

import pytest
from msgspec import structs

from protocol.entry import CONTROL, EntryId
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import Want
from protocol.held import Spot, Work
from protocol.intake import NEVER, Intake, Outcome
from protocol.limits import (
    ANSWER_SECONDS_MAX,
    BACKTRACKS_MAX,
    HASH_BYTES,
    HELD_RUNS_MAX,
    KEYFRAME_ENTRIES,
    PAGES_OPEN_MAX,
    PREFIX_BYTES,
    REFUSALS_MAX,
    WANTS_EARLY_MAX,
    WANTS_OUTSTANDING_MAX,
)
from tests.protocol.sessions import (
    entry_at,
    ids,
    intake,
    missing,
    place,
    run_at,
    want,
)


def denied(one: Intake) -> list[int]:
    """Say of all that is asked for that it is not here; return from where it was."""
    starts = []
    while asked := one.ask(0.0):
        for item in asked:
            starts.append(item.start)
            one.absent((item.chat, item.device, item.lane), item.start, 0.0)
    return starts


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
        assert one.deadline() == 10.0 + ANSWER_SECONDS_MAX
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
        assert one.deadline() == ANSWER_SECONDS_MAX
        one.judged(push, Outcome(7, missing(0, 6)))
        answer = run_at(0)
        one.received(answer, 1.0)
        assert one.judged(answer, Outcome(5)) == []
        assert one.finished() == [1]
        assert [item.stop for item in one.ask(1.0)] == [7]

    def test_a_push_of_another_branch_is_no_answer(self) -> None:
        """Though it begins, and ends, where the answer would."""
        branch = Want(*place(0), entry_at(0, 4)[:PREFIX_BYTES], 0, 5)
        one = intake(branch)
        assert one.ask(0.0) == [branch]
        push, answer = run_at(0), run_at(0)
        one.received(push, 0.0)
        assert one.judged(push, Outcome(5, ids=ids(3, 0, 5))) == []
        assert one.finished() == []
        one.received(answer, 0.0)
        one.judged(answer, Outcome(5, ids=ids(0, 0, 5)))
        assert one.finished() == [1]

    def test_timeouts(self) -> None:
        """Case 30: who answers nothing is given up. No want is: the cursor would move past it."""
        one = intake(*(want(number) for number in range(3)))
        one.ask(0.0)
        one.absent(place(0), 0, 50.0)
        run = run_at(1, 0, 2)
        one.received(run, 100.0)
        one.judged(run, Outcome(2))
        one.expired(100.0 + ANSWER_SECONDS_MAX - 1)
        assert one.finished() == []
        with pytest.raises(OutOfTurn, match="2 wants"):
            one.expired(100.0 + ANSWER_SECONDS_MAX)
        assert one.finished() == []

    def test_absent(self) -> None:
        one = intake(want(0))
        one.ask(0.0)
        one.absent(place(1), 0, 0.0)
        one.absent(place(0), 3, 0.0)
        assert one.finished() == []
        one.absent(place(0), 0, 0.0)
        assert one.finished() == []
        assert denied(one) == [3, 4]
        assert one.finished() == [1]

    def test_absent_from_afar(self) -> None:
        """A signature is at most 64 entries from what it covers, so nothing is sought farther."""
        one = intake(Want(*place(0), bytes(PREFIX_BYTES), 0, 5000))
        assert denied(one) == [0, 4936, 4968, 4984, 4992, 4996, 4998, 4999]
        assert one.finished() == [1]

    def test_no_place_yet(self) -> None:
        """Content is asked for again if control entries are on their way that may make room."""
        one = intake(want(0))
        one.ask(0.0)
        one.open_page(2)
        one.lacking([want(1, lane=CONTROL)])
        (control,) = one.ask(0.0)
        run = run_at(0)
        one.received(run, 0.0)
        one.judged(run, Outcome(0, surplus=True))
        assert one.ask(0.0) == []
        assert one.finished() == []
        answer = run_at(1, 0, control.stop, lane=CONTROL)
        one.received(answer, 0.0)
        one.judged(answer, Outcome(control.stop))
        assert one.ask(0.0) == [want(0)]
        again = run_at(0)
        one.received(again, 0.0)
        one.judged(again, Outcome(0, surplus=True))
        assert one.finished() == [1, 2]

    def test_the_control_entry_may_be_on_a_later_page(self) -> None:
        """No page waits for what has no place before one is let in, and no cursor passes it."""
        one = intake(want(0), want(1))
        one.ask(0.0)
        for number in (0, 1):
            run = run_at(number)
            one.received(run, 0.0)
            one.judged(run, Outcome(0, surplus=True, early=True))
        assert one.finished() == [1]
        assert one.behind
        one.open_page(2)
        one.lacking([want(2, lane=CONTROL)])
        (control,) = one.ask(0.0)
        answer = run_at(2, 0, control.stop, lane=CONTROL)
        one.received(answer, 0.0)
        one.judged(answer, Outcome(control.stop))
        one.let_in()
        assert one.ask(0.0) == [want(0), want(1)]
        for number, reached in ((0, 5), (1, 3)):
            assert one.behind
            run = run_at(number)
            one.received(run, 0.0)
            one.judged(run, Outcome(reached, refused=reached < 5))
        assert one.finished() == [2]
        assert not one.behind

    def test_too_much_without_a_place(self) -> None:
        """The oldest is forgotten, and another session has to tell of it again."""
        numbers = {want(number): number for number in range(WANTS_EARLY_MAX + 1)}
        one = intake(*numbers)
        for number in numbers.values():
            one.ask(0.0)
            run = run_at(number)
            one.received(run, 0.0)
            one.judged(run, Outcome(0, surplus=True, early=True))
        assert one.finished() == [1]
        assert not one.told_too_early, "nobody has let us in"
        one.let_in()
        left = []
        while asked := one.ask(0.0):
            assert not one.told_too_early, "the rest has to come first"
            left += asked
            for item in asked:
                run = run_at(numbers[item])
                one.received(run, 0.0)
                one.judged(run, Outcome(5))
        assert len(left) == WANTS_EARLY_MAX
        assert want(0) not in left
        assert one.behind
        assert one.told_too_early

    def test_many_ways_to_wait(self) -> None:
        """Each run waits for both of the layer before: 2^40 ways to the first, and 80 runs."""
        layers = 40
        one = intake(*(want(number) for number in range(2 * layers + 1)))
        one.ask(0.0)
        one.received(first := run_at(0), 0.0)
        for number in range(1, 2 * layers + 1):
            one.ask(0.0)
            one.received(run := run_at(number), 0.0)
            layer = (number - 1) // 2
            before = {max(0, 2 * layer - 1), 2 * layer}
            lacking = tuple(item for at in sorted(before) for item in missing(at))
            one.judged(run, Outcome(0, lacking, ids=ids(number, 0, 5)))
        assert len(one.judged(first, Outcome(5))) == 2 * layers

    def test_what_is_behind_the_head_that_was_listed(self) -> None:
        """The peer may have it as a cover only: what it waits for may never come."""
        one = intake(want(0))
        one.ask(0.0)
        run = run_at(0, 0, 9)
        one.received(run, 0.0)
        one.judged(run, Outcome(5, missing(1, 3)))
        assert one.finished() == [1]
        assert [asked.device for asked in one.ask(0.0)] == [place(1)[1]]

    def test_what_waits_for_what_is_not_shown(self) -> None:
        """It is given up with that, and so is what waits for it: no page waits for ever."""
        one = intake(*(Want(*place(at), entry_at(at, 4)[:PREFIX_BYTES], 0, 5) for at in (0, 2)))
        one.ask(0.0)
        for number, lacking in ((0, missing(1, 3)), (2, missing(0, 4))):
            run = run_at(number)
            one.received(run, 0.0)
            one.judged(run, Outcome(0, lacking, ids=ids(number, 0, 5)))
        assert one.finished() == []
        assert denied(one)
        assert one.finished() == [1]
        assert one.ask(0.0) == []

    @pytest.mark.parametrize("fate", ["refused", "surplus"])
    def test_what_waits_for_what_is_never_stored(self, fate: str) -> None:
        """A member may fork into more branches than there is room for: others do not notice."""
        one = intake(Want(*place(0), entry_at(0, 4)[:PREFIX_BYTES], 0, 5))
        one.ask(0.0)
        run = run_at(0)
        one.received(run, 0.0)
        one.judged(run, Outcome(0, missing(1, 3), ids=ids(0, 0, 5)))
        (asked,) = one.ask(0.0)
        assert one.finished() == []
        answer = run_at(1, asked.start, asked.stop - asked.start)
        one.received(answer, 0.0)
        judged = ids(1, asked.start, asked.stop)
        refused, surplus = fate == "refused", fate == "surplus"
        one.judged(answer, Outcome(asked.start, (), refused, surplus, asked.start, judged))
        assert one.finished() == [1]
        assert one.ask(0.0) == []

    def test_a_cover_that_no_rule_allows(self) -> None:
        """SPEC 2.4: the end of a cover need not be admissible, and whoever serves it has to."""
        heads = [structs.replace(want(number), stop=4) for number in range(REFUSALS_MAX + 1)]
        one = intake(*heads)
        assert one.ask(0.0) == heads
        for number in range(len(heads)):
            run = run_at(number)
            one.received(run, 0.0)
            one.judged(run, Outcome(4, refused=True))
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

    def test_control_without_a_place_is_asked_for_once(self) -> None:
        """One branch too many, or of a chat that the peer has left meanwhile."""
        heads = [want(0, lane=CONTROL), want(1, lane=CONTROL)]
        one = intake(*heads)
        assert one.ask(0.0) == heads
        for number in range(len(heads)):
            run = run_at(number, lane=CONTROL)
            one.received(run, 0.0)
            one.judged(run, Outcome(0, surplus=True))
            assert one.ask(0.0) == []
        assert one.finished() == [1]

    def test_many_that_wait_for_each_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each is found by the entry that it waits for, and not by looking at all of them."""
        one, count = intake(want(0)), 100
        one.ask(0.0)
        for number in range(count):
            run = run_at(0, 10 + number, 1)
            one.received(run, 0.0)
            waits = missing(0, 9 + number)
            own = ids(0, run.start, run.start + 1)
            one.judged(run, Outcome(run.start, waits, first=run.start, ids=own))
        looked: list[Spot] = []
        giving = Work.giving

        def counted(work: Work) -> Iterable[Spot]:
            looked.extend(giving(work))
            return giving(work)

        monkeypatch.setattr(Work, "giving", counted)
        gap = run_at(0, 5, 5)
        one.received(gap, 0.0)
        again = one.judged(gap, Outcome(10))
        assert len(again) == count
        assert len(looked) <= 2 * count

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

    def test_an_ancestor_goes_before_what_waits_for_it(self) -> None:
        """Also if it is listed itself, behind others that may wait for it as well."""
        last = 2 * WANTS_OUTSTANDING_MAX
        ancestor = Want(*place(last), entry_at(last, 0)[:8], 0, 1)
        one = intake(*map(want, range(last)), ancestor)
        one.ask(0.0)
        run = run_at(0)
        one.received(run, 0.0)
        one.judged(run, Outcome(0, missing(last)))
        assert one.ask(0.0) == [ancestor]

    def test_tried_together(self) -> None:
        """Runs that wait for each other's entries come out as one."""
        one = intake(want(0), want(1))
        one.ask(0.0)
        first, second = run_at(0), run_at(1)
        for run in (first, second):
            one.received(run, 0.0)
        assert one.judged(first, Outcome(1, missing(1, 0), ids=ids(0, 0, 5))) == []
        outcome = Outcome(1, missing(0, 1), ids=ids(1, 0, 5))
        assert one.judged(second, outcome) == [first, second]

    def test_another_branch_is_not_waited_for(self) -> None:
        """What a held run lacks is asked for, though a run of that chain's other branch is held."""
        forked = ids(3, 0, 5)
        one = intake(want(0), Want(*place(1), forked[4][:PREFIX_BYTES], 0, 5))
        one.ask(0.0)
        first, second = run_at(0), run_at(1)
        for run in (first, second):
            one.received(run, 0.0)
        assert one.judged(second, Outcome(1, missing(0, 4), ids=forked)) == []
        assert one.judged(first, Outcome(1, missing(1, 3), ids=ids(0, 0, 5))) == []
        assert one.ask(0.0) == [Want(*place(1), entry_at(1, 3)[:PREFIX_BYTES], 3, 4)]

    def test_what_begins_the_same_elsewhere_is_another_entry(self) -> None:
        """Whoever signs a chain can find ids for two places of it that begin the same."""
        lacked = entry_at(1, 7)
        alike = EntryId(lacked[:PREFIX_BYTES] + bytes(HASH_BYTES - PREFIX_BYTES))
        one = Intake()
        waits, other = run_at(0), run_at(1)
        for run in (waits, other):
            one.received(run, 0.0)
        one.judged(other, Outcome(0, missing(2), ids=[*ids(1, 0, 4), alike]))
        one.judged(waits, Outcome(0, missing(1, 7), ids=ids(0, 0, 5)))
        assert Want(*place(1), lacked[:PREFIX_BYTES], 5, 8) in one.ask(0.0)
        one.absent(place(2), 0, 0.0)  # what is alike is given up, and what waits for the other not
        rest = run_at(1, 5, 3)
        one.received(rest, 0.0)
        assert one.judged(rest, Outcome(8, first=5, ids=ids(1, 5, 8))) == [waits]

    def test_what_a_forgotten_run_covered_is_asked_for(self) -> None:
        """Though nobody lists it: another held run waits for it."""
        one = Intake()
        push, waits = run_at(0), run_at(1)
        one.received(push, 0.0)
        one.judged(push, Outcome(1, missing(2, 0), ids=ids(0, 0, 5)))
        one.received(waits, 0.0)
        one.judged(waits, Outcome(0, missing(0, 3), ids=ids(1, 0, 5)))
        (ancestor,) = one.ask(0.0)
        assert ancestor.device == place(2)[1]
        for number in range(10, 10 + HELD_RUNS_MAX):
            run = run_at(number)
            one.received(run, 0.0)
            one.judged(run, Outcome(0, missing(2, 0), ids=ids(number, 0, 5)))
            asked = one.ask(0.0)
            if asked:
                assert asked == [Want(*place(0), entry_at(0, 3)[:PREFIX_BYTES], 1, 4)]
                assert len(one._held) == HELD_RUNS_MAX
                return
        pytest.fail("it was not asked for")

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
            here = ids(0, found.start, found.stop)
            gap = missing(0, found.start - 1, have=9000)
            one.judged(answer, Outcome(found.start, gap, first=found.start, ids=here))
            at = found.start
        assert starts == [5000 - KEYFRAME_ENTRIES * (2**steps - 1) for steps in range(1, 7)] + [0]

    def test_backtracking_ends(self) -> None:
        one = Intake()
        for _ in range(60):
            run = run_at(0, 70, 1)
            one.received(run, 0.0)
            one.judged(run, Outcome(70, missing(0, 69, have=99)))
            denied(one)
        assert one.ask(0.0) == []

    def test_after_too_much_backtracking_no_page_waits(self) -> None:
        """The peer answers with what never is the entry that is sought."""
        one = intake(Want(*place(1), entry_at(1, 4)[:PREFIX_BYTES], 0, 5))
        one.ask(0.0)
        run = run_at(1)
        one.received(run, 0.0)
        one.judged(run, Outcome(0, missing(0, 69, have=99), ids=ids(1, 0, 5)))
        for _ in range(2 * BACKTRACKS_MAX):
            for asked in one.ask(0.0):
                answer = run_at(0, asked.start, asked.stop - asked.start)
                one.received(answer, 0.0)
                one.judged(answer, Outcome(asked.start, missing(2), first=asked.start))
        assert one.finished() == [1]
