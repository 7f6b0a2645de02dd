"""The end of a chat that is far behind: asked for before its beginning, to be shown (SPEC 6.3).

A chain is admitted from its start, so who joins late, or was long away, admits the newest last.
Whoever looks at the chat meanwhile is shown its end. That is asked for once the control lane is
here, apart from the sync, which goes on as if nobody had asked. Nothing of it is admitted.

    previews = Previews()
    previews.wish(chat)                          # somebody looks at it
    wants = previews.ask(intake.backlog, now)    # to send; one chat at a time
    previews.takes(run)                          # whether a run is an answer
    runs = previews.finished()                   # once all answers are here
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from protocol.entry import ChatId, DeviceKey
from protocol.frame import Run, Want
from protocol.limits import (
    PREVIEW_BACKLOG_MIN,
    PREVIEW_BYTES_MAX,
    PREVIEW_CHAIN_ENTRIES_MIN,
    PREVIEW_ENTRIES_MAX,
    WANT_TIMEOUT_SECONDS,
    WANTS_OUTSTANDING_MAX,
)

NEVER = float("inf")


@dataclass(slots=True)
class _Preview:
    """One chat's. asked: by chain, what is still to come of it."""

    queued: deque[Want]
    deadline: float
    asked: dict[tuple[ChatId, DeviceKey], Want] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    size: int = 0


class Previews:
    """The previews of one session; see the module's docstring."""

    def __init__(self) -> None:
        self._wished: dict[ChatId, None] = {}
        self._current: _Preview | None = None

    def wish(self, chat: ChatId) -> None:
        """Have the end of this chat fetched as soon as it is known to be far away."""
        self._wished[chat] = None

    def ask(self, backlog: Callable[[ChatId], Sequence[Want]], now: float) -> list[Want]:
        """Return the wants to send now. backlog: what is yet to come of a chat's content."""
        if self._current is None:
            self._begin(backlog, now)
        preview = self._current
        wants: list[Want] = []
        while preview and preview.queued and len(preview.asked) < WANTS_OUTSTANDING_MAX:
            want = preview.queued.popleft()
            preview.asked[want.chat, want.device] = want
            wants.append(want)
        return wants

    def _begin(self, backlog: Callable[[ChatId], Sequence[Want]], now: float) -> None:
        for chat in self._wished:
            lacking = backlog(chat)
            if sum(want.stop - want.start for want in lacking) >= PREVIEW_BACKLOG_MIN:
                del self._wished[chat]
                self._current = _Preview(_ends(lacking), now + WANT_TIMEOUT_SECONDS)
                return

    def takes(self, run: Run) -> bool:
        """Take a run if it goes on with what was asked for here; tell whether it does."""
        preview = self._current
        want = preview and preview.asked.get((run.chat, run.device))
        if not preview or not want or (run.lane, run.start) != (want.lane, want.start):
            return False
        preview.runs.append(run)
        preview.size += sum(len(memoryview(record)) for record in run.records)
        reached = run.start + len(run.records)
        if reached < want.stop:
            preview.asked[run.chat, run.device] = structs.replace(want, start=reached)
        else:
            del preview.asked[run.chat, run.device]
        if preview.size > PREVIEW_BYTES_MAX:
            preview.queued.clear()
        return True

    def absent(self, chat: ChatId, device: DeviceKey, lane: int, start: int) -> bool:
        """Give up what the peer does not have; tell whether that was asked for here."""
        preview = self._current
        want = preview and preview.asked.get((chat, device))
        if not preview or not want or (lane, start) != (want.lane, want.start):
            return False
        del preview.asked[chat, device]
        return True

    def finished(self) -> tuple[Run, ...]:
        """Return the runs of a preview whose answers are all here, and forget it."""
        preview = self._current
        if preview is None or preview.asked or preview.queued:
            return ()
        self._current = None
        return tuple(preview.runs)

    def expired(self, now: float) -> None:
        """Do with what has come if the rest is too late."""
        preview = self._current
        if preview is not None and preview.deadline <= now:
            preview.queued.clear()
            preview.asked.clear()

    def deadline(self) -> float:
        """Return when `expired` has something to do next, NEVER for nothing."""
        return NEVER if self._current is None else self._current.deadline


def _ends(lacking: Sequence[Want]) -> deque[Want]:
    """Return wants for the last entries of each branch: a screenful, evenly."""
    share = max(PREVIEW_CHAIN_ENTRIES_MIN, PREVIEW_ENTRIES_MAX // len(lacking))
    one_each = {(want.chat, want.device): want for want in lacking}
    return deque(
        structs.replace(want, start=max(want.start, want.stop - share))
        for want in one_each.values()
    )
