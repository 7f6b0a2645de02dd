"""The receiving half of a session: what we lack, what we asked for, what waits for an ancestor.

A page of heads opens wants; a want is answered by runs; a run that refers to entries we do not have
is held while we ask for those. A page is finished when all that it listed is stored or given up,
and only then may the cursor move on, so a session that ends early loses nothing (SPEC 6.3).

One want a chain is under way at a time, and it stays so until its last run is judged. So it is
known which branch a run answers, and content is not asked for while control entries are on the way.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from protocol.chat import Missing
from protocol.entry import CONTENT, CONTROL, ChatId, EntryId
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import Run, Want
from protocol.held import Branch, Held, Place, Work, branch_of
from protocol.limits import (
    ANSWER_SECONDS_MAX,
    BACKTRACKS_MAX,
    COVER_ENTRIES_MAX,
    HELD_TRIES_MAX,
    KEYFRAME_ENTRIES,
    PAGES_OPEN_MAX,
    PREFIX_BYTES,
    REFUSALS_MAX,
    WANTS_EARLY_MAX,
    WANTS_OUTSTANDING_MAX,
)

NEVER = float("inf")


class Outcome(NamedTuple):
    """What became of a run, once it is durable.

    reached: the run is stored up to this seq, exclusive; its start for nothing of it.
    missing: what the rest waits for. refused: the rest breaks a rule and never will be stored.
    surplus: it has no place here, which is no fault of the peer: one branch too many of a forked
    chain, or of a chat that we are not known to be in. ids: of the entries that were judged, from
    seq `first` on. early: the chat is one that we are not known to be in.
    """

    reached: int
    missing: tuple[Missing, ...] = ()
    refused: bool = False
    surplus: bool = False
    first: int = 0
    ids: Sequence[EntryId] = ()
    early: bool = False

    def id_at(self, seq: int) -> bytes | None:
        """Return the id of the entry at a seq, None for one that was not judged."""
        at = seq - self.first
        return self.ids[at] if 0 <= at < len(self.ids) else None

    @property
    def waiting(self) -> bytes:
        """How the id of each entry begins that was not stored."""
        rest = self.ids[max(0, self.reached - self.first) :]
        return b"".join(entry[:PREFIX_BYTES] for entry in rest)


@dataclass(slots=True)
class _Page:
    cursor: int
    open: set[Branch] = field(default_factory=set)
    compared: bool = False


@dataclass(slots=True)
class _Asked:
    """A want under way. at: where its next run begins. answered: its last one came."""

    want: Want
    at: int
    answered: bool = False


class Intake:
    """Bookkeeping of one session; every collection in it is bounded by `limits`."""

    def __init__(self) -> None:
        self._pages: deque[_Page] = deque()
        self._queued: dict[int, OrderedDict[Place, OrderedDict[bytes, Want]]] = {
            CONTROL: OrderedDict(),
            CONTENT: OrderedDict(),
        }
        self._asked: dict[Place, _Asked] = {}
        self._judging: dict[int, Work] = {}
        self._busy: Counter[Place] = Counter()
        self._held = Held()
        self._backtracks: dict[Place, int] = {}
        self._early: OrderedDict[Branch, Want] = OrderedDict()
        self._forgot = self._missed = False
        self._answer_due = NEVER
        self._refusals = 0

    # Pages

    def open_page(self, cursor: int) -> None:
        """Begin a page; `lacking` will say what it needs. Raises LimitExceeded for too many."""
        if len(self._pages) >= PAGES_OPEN_MAX:
            raise LimitExceeded(f"more than {PAGES_OPEN_MAX} pages of heads before SEEN (SPEC 6.3)")
        self._pages.append(_Page(cursor))

    def lacking(self, wants: Sequence[Want]) -> None:
        """Fill the oldest page that was not compared yet."""
        page = next(page for page in self._pages if not page.compared)
        page.compared = True
        page.open.update(branch_of(want) for want in wants)
        self.recalled(wants)

    def recalled(self, wants: Sequence[Want]) -> None:
        """Take up wants that are on no page: whoever calls this again has lost none of them."""
        for want in wants:
            if not self._under_way(branch_of(want)):
                self._queue(want)

    def finished(self) -> list[int]:
        """Return the cursors of the pages that were finished, in their order; forget those."""
        cursors = []
        while self._pages and self._pages[0].compared and not self._pages[0].open:
            cursors.append(self._pages.popleft().cursor)
        return cursors

    @property
    def behind(self) -> bool:
        """Whether no cursor may be saved: something of a finished page has no place here yet."""
        return bool(self._early) or self._forgot

    @property
    def told_too_early(self) -> bool:
        """Whether what was forgotten may have a place now, and nothing else is to be done."""
        queued = any(self._queued.values())
        return self._missed and not (self._pages or self._asked or self._judging or queued)

    def let_in(self) -> None:
        """Ask again for what had no place: we are in a chat now, perhaps in that one."""
        self._missed = self._forgot
        self.recalled(list(self._early.values()))

    def _put_off(self, want: Want) -> None:
        """Remember content that came before the control entry that lets us into its chat.

        That may stand on a later page, so its own does not wait.
        """
        known = self._early.get(branch_of(want), want)
        self._early[branch_of(want)] = min(known, want, key=lambda one: one.start)
        if len(self._early) > WANTS_EARLY_MAX:
            self._early.popitem(last=False)
            self._forgot = True

    def _under_way(self, branch: Branch) -> bool:
        """Whether this branch is asked for, queued to be, or held or judged in part."""
        place, prefix = branch
        asked = self._asked.get(place)
        if asked is not None and asked.want.prefix == prefix:
            return True
        works = (*self._judging.values(), *self._held.of(place))
        return prefix in self._waiting(place) or any(work.answers(branch) for work in works)

    def _conclude(self, branch: Branch) -> None:
        """Strike a branch off the pages, unless more of it is to come."""
        if not self._under_way(branch):
            self._early.pop(branch, None)
            self._strike(branch)

    def _listed(self, branch: Branch) -> bool:
        """Whether a page still needs this branch, or needed it before it had a place."""
        return branch in self._early or any(branch in page.open for page in self._pages)

    def _strike(self, branch: Branch) -> None:
        for page in self._pages:
            page.open.discard(branch)

    # Wants

    def ask(self, now: float) -> list[Want]:
        """Return the wants to send now: control first, one a chain, a bounded number."""
        wants: list[Want] = []
        for lane in (CONTROL, CONTENT):
            free = WANTS_OUTSTANDING_MAX - len(self._asked)
            for place in list(islice(self._ready(lane), free)):
                want = self._dequeue(place)
                self._asked[place] = _Asked(want, want.start)
                wants.append(want)
        if wants:
            self._answer_due = now + ANSWER_SECONDS_MAX
        return wants

    def _ready(self, lane: int) -> Iterator[Place]:
        early = self._control_under_way() if lane == CONTENT else frozenset()
        for place in self._queued[lane]:
            under_way = place in self._asked or place in self._busy
            if not under_way and place[0] not in early:
                yield place

    def _control_under_way(self) -> frozenset[ChatId]:
        """Return the chats whose content has to wait: it would only be held."""
        under_way = (*self._queued[CONTROL], *self._asked, *self._busy)
        return frozenset(chat for chat, _, lane in under_way if lane == CONTROL)

    def _awaits_control(self, want: Want) -> bool:
        return want.lane == CONTENT and want.chat in self._control_under_way()

    def backlog(self, chat: ChatId) -> list[Want]:
        """Return what is yet to come of a chat's content, once its control lane is here."""
        if chat in self._control_under_way():
            return []
        asked = [_from(asked.want, asked.at) for asked in self._asked.values()]
        queued = [want for wants in self._queued[CONTENT].values() for want in wants.values()]
        return [
            want
            for want in (*asked, *queued)
            if (want.chat, want.lane) == (chat, CONTENT) and want.start < want.stop
        ]

    def _waiting(self, place: Place) -> OrderedDict[bytes, Want]:
        return self._queued[place[2]].get(place) or OrderedDict()

    def _queue(self, want: Want) -> None:
        place = want.chat, want.device, want.lane
        self._queued[want.lane].setdefault(place, OrderedDict())[want.prefix] = want

    def _queue_first(self, want: Want) -> None:
        place = want.chat, want.device, want.lane
        self._queue(want)
        self._queued[want.lane].move_to_end(place, last=False)
        self._queued[want.lane][place].move_to_end(want.prefix, last=False)

    def _dequeue(self, place: Place) -> Want:
        waiting = self._queued[place[2]][place]
        _, want = waiting.popitem(last=False)
        if not waiting:
            del self._queued[place[2]][place]
        start = want.start
        for work in sorted(self._held.of(place), key=lambda work: work.run.start):
            if work.run.start <= start < work.stop:
                start = work.stop
        return _from(want, min(start, want.stop - 1))

    def _advance(self, work: Work, reached: int) -> None:
        """Ask for no more than is lacking now; the last entry shows whether it is our branch.

        What no page lists was wanted for a held run, which asks again if it was another branch.
        """
        place = work.place
        held = work.stop if work.missing else 0
        waiting = self._waiting(place)
        for prefix, want in list(waiting.items()):
            at_hand = want.stop <= reached or work.run.start < want.stop <= held
            if at_hand and not self._listed((place, prefix)):
                del waiting[prefix]
            elif want.start < reached:
                waiting[prefix] = _from(want, min(reached, want.stop - 1))
        if not waiting:
            self._queued[place[2]].pop(place, None)

    def absent(self, place: Place, start: int, now: float) -> None:
        """Note that the peer has not, or does not show, what we asked for.

        It has listed what waits for that, so it has this, too; but we may have left the chat since.
        Or what comes before the fork of a branch is covered by the other branch alone. Then there
        is something to show from the fork on: it is asked for from ever nearer.
        """
        asked = self._asked.get(place)
        if asked is None or asked.at != start:
            return
        self._answer_due = now + ANSWER_SECONDS_MAX
        want, nearer = asked.want, min((asked.want.stop - start) // 2, COVER_ENTRIES_MAX)
        if nearer:
            del self._asked[place]
            self._queue_first(_from(want, want.stop - nearer))
            return
        self._give_up(place)
        self._never_comes(branch_of(want))

    def _never_comes(self, branch: Branch) -> None:
        self._abandon([one for one in self._held.waiting_on(branch[0]) if one.lacks(branch)])

    def _abandon(self, given_up: Sequence[Work]) -> None:
        """Give up held runs that wait for what will never be here, and what waits for those."""
        lost = [*given_up]
        while lost:
            work = lost.pop()
            if work not in self._held:
                continue
            self._held.remove(work)
            self._need_no_more(work)
            lost += self._held.waiting_for(work)
            if work.want is not None:
                self._conclude(branch_of(work.want))

    def _give_up(self, place: Place) -> None:
        branch = branch_of(self._asked.pop(place).want)
        self._conclude(branch)

    def expired(self, now: float) -> None:
        """Raise OutOfTurn if no want was answered for too long.

        None is given up for that: then the cursor would move past it, though the line may just be
        slow. Where the session ends, the next one is told again.
        """
        if self.deadline() <= now:
            late = sum(not asked.answered for asked in self._asked.values())
            raise OutOfTurn(f"{late} wants without an answer (SPEC 6.6)")

    @property
    def settled(self) -> bool:
        """Whether no page is open and nothing is being judged."""
        return not self._pages and not self._judging

    def deadline(self) -> float:
        """Return when `expired` has something to do next, NEVER for nothing."""
        waiting = any(not asked.answered for asked in self._asked.values())
        return self._answer_due if waiting else NEVER

    # Runs

    def received(self, run: Run, now: float) -> bool:
        """Note that a run came, before it is judged, and whether its want is answered with it.

        Return whether nobody asked for it.
        """
        work = Work(run, (run.chat, run.device, run.lane), None, run.start)
        asked = self._asked.get(work.place)
        if asked is not None and asked.at == run.start and not asked.answered:
            work.want = asked.want
            asked.at = work.stop
            asked.answered = work.stop >= asked.want.stop
            self._answer_due = now + ANSWER_SECONDS_MAX
        self._begin(work)
        return work.want is None

    def _begin(self, work: Work) -> None:
        self._judging[id(work.run)] = work
        self._busy[work.place] += 1

    def judged(self, run: Run, outcome: Outcome) -> list[Run]:
        """Take the outcome of a run; return held runs to try again, together.

        Raises OutOfTurn for a peer that sends too much of what no rule allows.
        """
        work = self._judging.pop(id(run))
        self._busy[work.place] -= 1
        if not self._busy[work.place]:
            del self._busy[work.place]
        work.reached = outcome.reached
        self._check_branch(work, outcome)
        self._settle(work, outcome)
        if outcome.surplus and work.want is not None and self._awaits_control(work.want):
            self._queue(work.want)  # the chat may yet turn out to be ours
        if self._is_over(work.place):
            self._give_up(work.place)
        if not outcome.refused and not outcome.surplus:
            self._seek_on(work)
        elif not outcome.early:
            self._abandon(self._held.waiting_for(work))
        if work.want is not None:
            self._conclude(branch_of(work.want))
            if outcome.early and not self._under_way(branch_of(work.want)):
                self._put_off(work.want)
        ready = self._held.ready(work.place, work.stored)
        for one in ready:
            self._begin(one)
        return [one.run for one in ready]

    def _check_branch(self, work: Work, outcome: Outcome) -> None:
        """Take a run of another branch for a push, though it begins where an answer would."""
        want = work.want
        found = None if want is None else outcome.id_at(want.stop - 1)
        if want is None or found is None or found.startswith(want.prefix):
            return
        work.want = None
        asked = self._asked.get(work.place)
        if asked is not None and asked.want is want:
            asked.at, asked.answered = work.run.start, False

    def wanted(self, run: Run) -> Want | None:
        """Return what a run answers, None for a push. Call before `judged`."""
        return self._judging[id(run)].want

    def outdoes(self, run: Run, outcome: Outcome) -> bool:
        """Whether more is stored of an answer than was asked for. Call before `judged`.

        What follows the head that a peer listed may be there as its cover only (SPEC 2.4), because
        the peer lacked an ancestor.
        """
        want = self._judging[id(run)].want
        return want is not None and outcome.reached > want.stop

    def _is_over(self, place: Place) -> bool:
        """Whether the last run of a want has been judged."""
        asked = self._asked.get(place)
        return asked is not None and asked.answered and place not in self._busy

    def _seek_on(self, work: Work) -> None:
        """Ask for what held runs still miss of a chain, if this run does not bring it."""
        if work.place in self._asked or work.place in self._busy:
            return
        reached = work.stored
        for waiter in self._held.waiting_on(work.place):
            for item in waiter.missing:
                if (item.device, item.lane) == work.place[1:] and item.seq >= reached:
                    self._need(work.run.chat, item._replace(have=max(item.have, reached)))

    def _settle(self, work: Work, outcome: Outcome) -> None:
        work.missing = outcome.missing
        work.waiting = outcome.waiting
        self._advance(work, work.stored)
        if outcome.missing:
            self._hold(work)
        elif outcome.reached >= work.stop:
            self._backtracks.pop(work.place, None)
        elif not (outcome.surplus or work.has_answered):
            self._refusals += 1
            if self._refusals > REFUSALS_MAX:
                raise OutOfTurn(f"over {REFUSALS_MAX} runs that no rule allows (SPEC 6.6)")

    def _hold(self, work: Work) -> None:
        work.tries += 1
        if work.tries > HELD_TRIES_MAX:
            self._ask_again(work)
            return
        self._held.add(work)
        for item in work.missing:
            self._need(work.run.chat, item)
        while (oldest := self._held.too_much()) is not None:
            self._ask_again(oldest)

    def _ask_again(self, work: Work) -> None:
        """Forget a held run; what a page, or another held run, still needs of it is asked for."""
        self._need_no_more(work)
        want = work.want
        if want is not None and self._listed(branch_of(want)):
            queued = self._waiting(work.place).get(want.prefix)
            start = min(work.reached, want.stop - 1)
            self._queue(_from(want, start if queued is None else min(start, queued.start)))
        self._seek_on(work)

    def _need_no_more(self, work: Work) -> None:
        """Ask no more for what only a run has waited for that is held no longer."""
        for item in work.missing:
            place, prefix = (work.run.chat, item.device, item.lane), item.id[:PREFIX_BYTES]
            waiting = self._waiting(place)
            if self._held.lacks(work.run.chat, item) or self._listed((place, prefix)):
                continue
            if waiting.pop(prefix, None) is not None and not waiting:
                del self._queued[item.lane][place]

    def _need(self, chat: ChatId, item: Missing) -> None:
        """Ask for a missing entry before what waits for it, unless it is on its way."""
        place = chat, item.device, item.lane
        prefix = item.id[:PREFIX_BYTES]
        if place in self._asked or place in self._busy:
            return
        queued = self._waiting(place).get(prefix)
        if queued is not None:
            self._queue_first(queued)
            return
        if self._held.gives(chat, item):
            return
        start = item.have
        if item.seq < item.have:  # ours is another branch: seek where it began, ever farther back
            steps = self._backtracks.get(place, 0)
            if steps > BACKTRACKS_MAX:
                self._never_comes((place, prefix))
                return
            self._backtracks[place] = steps + 1
            start = max(0, item.seq + 1 - (KEYFRAME_ENTRIES << steps))
        self._queue_first(Want(*place, prefix, start, item.seq + 1))


def _from(want: Want, start: int) -> Want:
    return Want(want.chat, want.device, want.lane, want.prefix, start, want.stop)
