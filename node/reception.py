"""The runs that a peer brings: whether they are heard, and what is stored of them (SPEC 6.4, 6.5).

What they leave for the session, and for others, comes only once it is durable.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import apsw
import structlog

from node.outgoing import Outgoing
from node.replica import Replica
from node.step import After, Keep, Kept, Look, Steps, Store
from node.stored import Stored
from node.surroundings import Surroundings
from protocol.entry import ChatId
from protocol.frame import Holding, Run, authentic
from protocol.intake import Outcome
from protocol.run import Entry
from protocol.session import Greeting, PeerKind

log = structlog.get_logger()

CHATS_WELCOME_MAX = 4096


class Reception(Outgoing):
    """A session that takes runs into its replica. See `Outgoing` for the arguments."""

    def __init__(
        self,
        peer: PeerKind,
        key: bytes,
        greeting: Greeting,
        replica: Replica,
        surroundings: Surroundings,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(peer, key, greeting, clock)
        self._replica = replica
        self._told = surroundings
        self._welcome: set[ChatId] = set()
        self._times_let_in = 0

    @abstractmethod
    def _judged(self, judged: Sequence[tuple[Run, Outcome]], holdings: Sequence[Holding]) -> Steps:
        """Tell the session what became of runs. holdings: to acknowledge."""

    @abstractmethod
    def _stored(
        self, parts: Sequence[Stored], holdings: Sequence[Holding], noted: int, let_in: int
    ) -> Steps:
        """Say what follows once runs are durable.

        noted: the number of the first epoch that was noted with them, as lacking seals. let_in: how
        many times `let_in` had been called when they were judged.
        """

    def _admit(self, runs: Sequence[Run], *, live: bool) -> Steps:
        """Verify runs here, and let the disk work on them meanwhile.

        They are queued before the next frame is read: what comes first is judged first. The runs of
        a stranger are not worth hashing; one who was welcome before is asked for again only in the
        transaction, because a look at the database waits for the commit that is on its way.
        """
        chat = runs[0].chat
        if chat in self._welcome:
            return [self._storing(runs, live=live)]

        def look() -> After:
            if not self._replica.may_bring(self.key, chat):
                return partial(self._turn_away, runs, live=live)
            return partial(self._welcomed, runs, live=live)

        return [Look(look)]

    def _turn_away(self, runs: Sequence[Run], *, live: bool) -> Steps:
        asked = self._session.listed(runs)
        if not asked:
            return self._refused(runs)
        return [Keep(partial(self._turned_away, runs, live=live))]

    def _turned_away(self, runs: Sequence[Run], *, live: bool) -> Kept:
        """Put runs by, or hear them if the peer was let in since it was looked whether it is."""
        if self._replica.may_bring(self.key, runs[0].chat):
            return Kept(then=partial(self._welcomed, runs, live=live))
        return self._put_by(runs)

    def _put_by(self, runs: Sequence[Run]) -> Kept:
        """Keep in mind what was asked for, for when the peer is let in again."""
        self._replica.set_aside(self._session.listed(runs), self.key)
        return Kept(then=partial(self._refused, runs))

    def _refused(self, runs: Sequence[Run]) -> Steps:
        return self._judged([(run, _unwelcome(run)) for run in runs], ())

    def _welcomed(self, runs: Sequence[Run], *, live: bool) -> Steps:
        if len(self._welcome) >= CHATS_WELCOME_MAX:
            self._welcome.clear()
        self._welcome.add(runs[0].chat)
        return [self._storing(runs, live=live)]

    def _storing(self, runs: Sequence[Run], *, live: bool) -> Store:
        parts = [(run, authentic(run)) for run in runs]
        return Store(partial(self._append, parts, live=live))

    def _append(self, parts: Sequence[tuple[Run, Sequence[Entry]]], *, live: bool) -> Kept:
        chat = parts[0][0].chat
        if not (self._replica.may_bring(self.key, chat) and self._replica.is_readable(chat)):
            self._welcome.discard(chat)
            return self._put_by([run for run, _ in parts])
        try:
            with self._replica.store.connection:  # a savepoint: all of it or nothing
                kept = self._appended(parts, live=live)
        except apsw.CorruptError as error:
            log.warning("a chat is left alone", chat=chat.hex()[:16], reason=str(error))
            self._replica.forget()
            return Kept(then=partial(self._refused, [run for run, _ in parts]))
        return kept

    def _appended(self, parts: Sequence[tuple[Run, Sequence[Entry]]], *, live: bool) -> Kept:
        chat = parts[0][0].chat
        noted, let_in = self._replica.sharing.next_sealless(), self._times_let_in
        stored = self._replica.append_together(parts, self.key)
        holdings = [self._replica.holding(one) for one in stored]
        known = [holding for holding in holdings if holding is not None]
        # A device learns what its own node has from that node's runs, too.
        self._replica.note_holdings(known, self.key)
        new = [replace(one, live=live) for one in stored if one.appended]
        if live and any(one.repeated for one in stored):
            self._told.repeated(chat, self)
        lacked = self._replica.makers(chain(*(one.sealless for one in stored)))
        durable = self._told.storing(new, self) if new else bool

        def tell() -> None:
            durable()
            for seals, home in lacked:
                if home != self.key or not self.open:  # else this session asks, by `_stored`
                    self._told.seals_lacked(seals, home)
            for one in stored:
                if one.fork is not None:
                    self._told.fork_kept(one.fork, sorted(one.readers))

        return Kept(tell, partial(self._stored, stored, known, noted, let_in))


def _unwelcome(run: Run) -> Outcome:
    """It is no fault of a node that has not heard yet that its agency left the chat."""
    return Outcome(run.start, surplus=True)
