"""What a session asks for, as steps for whoever does the waiting (SPEC 6.5). No I/O, no clock.

A `Dealing` is one session with the replica behind it. It turns the effects of the session into
steps (`node.step`).

`node.driver` takes them over a trio stream; the simulator (tests/simulator) in simulated time.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import apsw
import structlog

from node.reception import Reception
from node.replica import Replica
from node.seals import NEWEST, OLDEST, Sealless
from node.step import Acknowledge, After, Keep, Kept, Look, Note, Step, Steps, Try
from node.stored import Stored
from node.surroundings import Surroundings
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Consult,
    Deliver,
    Effect,
    Gossip,
    LoadChanges,
    LoadChunk,
    LoadHeads,
    LoadRun,
    LoadSeals,
    NoteHoldings,
    NoteShared,
    Preview,
    SaveCursor,
    Send,
    StoreFork,
    StoreSeals,
    Survey,
    TakeChunk,
    Wake,
)
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import (
    Blob,
    ChatHeads,
    Forked,
    Frame,
    Have,
    Holding,
    Rumour,
    Run,
    Seal,
    Seals,
    Want,
    WantBlob,
    WantSeals,
)
from protocol.intake import Outcome
from protocol.limits import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    SEALS_FRAME_MAX,
)
from protocol.reconcile import Table
from protocol.session import BETWEEN_NODES, WITH_LEAF, Greeting, PeerKind

log = structlog.get_logger()

SEALS_AWAITED_MAX = 4096  # that a peer has asked for and that are not here yet
SEALS_ASKED_SECOND = 4096  # recipients a second, so that a peer has served them by then; guess
SEALS_RELAYED_MAX = 4096  # that a peer was asked for on behalf of others, and is not again; guess
SEALS_PUT_OFF_MAX = 64  # questions for seals of chats that a peer is not known to be in; guess
SALT_BYTES = 16

_Loads = LoadRun | LoadHeads | LoadChanges | LoadSeals
_Keeps = StoreSeals | StoreFork | SaveCursor


class Dealing(Reception):
    """A session, its replica, and what becomes of what it asks for. See `Reception`."""

    def __init__(
        self,
        peer: PeerKind,
        key: bytes,
        greeting: Greeting,
        replica: Replica,
        surroundings: Surroundings,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(peer, key, greeting, replica, surroundings, clock)
        self._candidates_lost = replica.candidates.lost(key)
        self._seals_awaited: dict[EntryId, set[DeviceKey]] = {}
        self._seals_elsewhere: dict[EntryId, tuple[Sealless, bytes]] = {}
        self._seals_relayed: set[tuple[EntryId, DeviceKey]] = set()
        self._put_off: deque[LoadSeals] = deque(maxlen=SEALS_PUT_OFF_MAX)
        self._payloads_wanted: Sequence[Want] = ()
        self._let_in = True
        self._seals_before: int = NEWEST  # where the next page begins of those to be asked for
        self._seals_at = clock()  # when that may be asked for

    @property
    def caught_up(self) -> bool:
        """Whether all that the peer has listed is stored here."""
        return self._session.caught_up

    @property
    def frame_limit(self) -> int:
        """How long the peer's next frame may be."""
        return FRAME_BYTES_MAX if self.open else FRAME_BYTES_MAX_BEFORE_HELLO

    # What a driver brings

    def start(self) -> Steps:
        """Greet."""
        return self._turned(self._session.start(self._now()))

    def receive(self, frame: Frame) -> Steps:
        """Take one frame. Raises PeerError when the peer broke SPEC."""
        return self._turned(self._session.receive(frame, self._now()))

    def greeted(self) -> Steps:
        """Ask for what was missing before this session. Call once, after the peer's HELLO."""
        return self.want_payloads()

    def idle(self) -> Steps:
        """Return the next piece of serving. Call when nothing waits to be sent."""
        if self._let_in and self.open:
            self._let_in = False
            return [Look(self._look_aside)]
        if self._seals_before > OLDEST and self.open and self._now() >= self._seals_at:
            before, self._seals_before = self._seals_before, OLDEST
            return [Look(partial(self._look_for_seals, before))]
        return self._turned(self._session.idle())

    def let_in(self) -> None:
        """Take up what the peer listed, and asked for, of a chat before it, or we, were let in.

        It is told what is here, too: of a chat that is new here, others may have brought more.
        """
        self._let_in = True
        self._times_let_in += 1
        self.changed()
        self.worked()

    def _look_aside(self) -> After:
        listed = [Keep(self._take_up)] if self._replica.sharing.unheard(self.key) else []
        asked = [self._job(one) for one in self._put_off]
        self._put_off.clear()
        return lambda: [*listed, *asked, *self._turned(self._session.let_in(self._now()))]

    def _take_up(self) -> Kept:
        wants = self._replica.take_up(self.key)
        return Kept(then=lambda: self._turned(self._session.recalled(wants, self._now())))

    def expired(self) -> Steps:
        """Look at the deadlines, when a Wake is due."""
        return [*self._turned(self._session.expired(self._now())), *self._seals_due()]

    def ask_for_seals(self) -> None:
        """Ask again for the seals that have yet to come: some may have been asked for in vain."""
        self._seals_relayed.clear()
        self._seals_before = NEWEST
        for due in self._seals_due():
            self.wake(due.at)
        self.worked()

    def _look_for_seals(self, before: int) -> After:
        """Ask for a page of the seals that have yet to come; in time comes the next."""
        lacking, rest = self._replica.sealless(self.key, before)

        def then() -> Steps:
            self._seals_before = max(self._seals_before, rest)
            recipients = sum(len(one.devices) for one in lacking)
            self._seals_at = self._now() + recipients / SEALS_ASKED_SECOND
            return [*_want_seals(lacking), *self._seals_due()]

        return then

    def _seals_due(self) -> Sequence[Wake]:
        waits = self._seals_before > OLDEST and self._seals_at > self._now()
        return [Wake(self._seals_at)] if waits else []

    def look_ahead(self, chat: ChatId) -> Steps:
        """Ask for the end of a chat, if it is far from what is here; it comes as a Preview."""
        return self._turned(self._session.preview(chat, self._now()))

    def surveyed(self, table: Table) -> Steps:
        """Take the answer to a Survey."""
        return self._turned(self._session.surveyed(table, self._now()))

    def chunk_loaded(self, want: WantBlob, chunk: Blob | None) -> Steps:
        """Take the answer to a LoadChunk."""
        return self._turned(self._session.chunk_loaded(want, chunk))

    def want_payloads(self) -> Steps:
        """Ask for payloads that came dropped, though nothing that we know asks to drop them."""

        def look() -> After:
            self._payloads_wanted = wants = self._replica.payloads.wanted(self.key)
            return lambda: [Send(want) for want in wants]

        return [Look(look)] if self.open and self.peer is not PeerKind.INVITATION else []

    def _turned(self, effects: Sequence[Effect]) -> Steps:
        return [step for effect in effects for step in self._turn(effect)]

    def _turn(self, effect: Effect) -> Steps:
        match effect:
            case Send(Have(holdings)):
                return [Acknowledge(holdings)]
            case Send() | Wake() | Consult() | Deliver() | Preview() | Survey() | Close():
                return [effect]
            case LoadChunk() | TakeChunk():
                return [effect]
            case Admit(runs, live):
                return self._admit(runs, live=live and not self._brings_payload(runs[0]))
            case NoteHoldings(holdings):  # a device stores for nobody else
                return [] if self.peer is PeerKind.DEVICE else [Note(holdings)]
            case _:
                return [self._job(effect)]

    def _job(self, effect: _Loads | _Keeps | Gossip | Compare | NoteShared) -> Step:
        match effect:
            case NoteShared(numbers):
                return Look(partial(self._look_at_shared, numbers))
            case Gossip(rumour):
                return Look(partial(self._look_at_rumour, rumour))
            case Compare(chats):
                return Look(partial(self._compare, chats))
            case SaveCursor():  # what is not kept we are told again
                return Try(partial(self._keep, effect))
            case StoreSeals() | StoreFork():
                return Keep(partial(self._keep, effect))
            case _:
                return Look(partial(self._load, effect))

    def _load(self, effect: _Loads) -> After:
        sharing = self._replica.sharing
        match effect:
            case LoadHeads(cursor):
                page = sharing.heads_since(self.key, cursor)
                return lambda: self._turned(self._session.heads(page))
            case LoadChanges(numbers):
                page = sharing.heads_at(self.key, numbers)
                return lambda: self._turned(self._session.changes(page))
            case LoadRun(want):
                run = self._serve(want)
                return lambda: self._turned(self._session.loaded(want, run))
            case LoadSeals(chat, epoch, devices):
                mine = devices if self.peer is PeerKind.NODE else (DeviceKey(self.key),)
                if not sharing.may_read(self.key, chat):
                    self._put_off.append(effect)
                    return list
                if not self._replica.is_readable(chat):
                    return list
                seals_for = partial(self._replica.seals_for, chat, epoch)
                found = seals_for(mine)
                whole = len(found) == len(mine)
                lacking = [] if whole else [one for one in mine if not seals_for((one,))]
                relayed = self._replica.made_elsewhere(chat, epoch, lacking, self.key)

                def then() -> Steps:
                    steps = self._loaded_seals(chat, epoch, lacking, found)
                    if relayed is not None:
                        self._ask_elsewhere(*relayed)
                    return steps

                return then

    def _serve(self, want: Want) -> Run | None:
        """Read a run; what is damaged is not here."""
        try:
            return self._replica.serve(want, self.key)
        except apsw.CorruptError as error:
            log.warning("a chat is left alone", chat=want.chat.hex()[:16], reason=str(error))
            return None

    def _compare(self, chats: Sequence[ChatHeads]) -> After:
        heard = self._replica.heard(chats, self.key)
        if len(heard) < len(chats):
            return lambda: [Keep(partial(self._set_aside, chats))]
        return self._compared(heard)

    def _compared(self, heard: Sequence[ChatHeads]) -> After:
        wants = self._replica.compare(heard)
        noted = self._stored_there(heard)
        return lambda: [*noted, *self._turned(self._session.compared(wants, self._now()))]

    def _look_at_shared(self, numbers: Sequence[int]) -> After:
        noted = self._stored_there(self._replica.sharing.heads_at(self.key, numbers).chats)
        return lambda: noted

    def _stored_there(self, chats: Sequence[ChatHeads]) -> Steps:
        """Note what a node has of our devices' chains, as these heads show it."""
        among_nodes = self.peer is PeerKind.NODE and self._replica.owner == self._replica.agency
        told = self._replica.stored_there(chats, self.key) if among_nodes else ()
        return [Note(told)] if told else []

    def _set_aside(self, chats: Sequence[ChatHeads]) -> Kept:
        """Keep what is not heard of a page, before that is seen."""
        self._replica.set_aside(chats, self.key)
        return Kept(then=self._compared(self._replica.heard(chats, self.key)))

    def _look_at_rumour(self, rumour: Rumour) -> After:
        readers, news = self._replica.hear(rumour, self.key)
        if news is None:
            return list

        def then() -> Steps:
            self._told.gossiped(news, readers, self)
            return ()

        return then

    def _loaded_seals(
        self, chat: ChatId, epoch: EntryId, lacking: Sequence[DeviceKey], found: Sequence[Seal]
    ) -> Steps:
        """Send what is here; of the rest, what was asked for last is sent when it comes."""
        awaited = self._seals_awaited
        if lacking:
            awaited[epoch] = awaited.pop(epoch, set()) | set(lacking)
        while sum(map(len, awaited.values())) > SEALS_AWAITED_MAX:
            del awaited[next(iter(awaited))]
        return [
            Send(Seals(chat, epoch, tuple(found[at : at + SEALS_FRAME_MAX])))
            for at in range(0, len(found), SEALS_FRAME_MAX)
        ]

    def _keep(self, effect: _Keeps) -> Kept:
        match effect:
            case StoreSeals(chat) | StoreFork(Forked(chat)) if not self._replica.is_readable(chat):
                return Kept()
            case StoreSeals(chat, epoch, seals):
                kept = self._replica.keep_seals(chat, epoch, seals, self.key)
                return Kept(self._told.keeping_seals(chat, epoch, kept))
            case StoreFork(forked):
                new, readers = self._take_fork(forked)
                return Kept() if new is None else Kept(partial(self._told.fork_kept, new, readers))
            case SaveCursor(incarnation, cursor):
                self._save_cursor(incarnation, cursor)
                return Kept()

    def _save_cursor(self, incarnation: bytes, cursor: int) -> None:
        """Keep how far we are, unless we have forgotten what we were told in this session."""
        if self._replica.candidates.lost(self.key) == self._candidates_lost:
            self._replica.sharing.save_cursor(self.key, incarnation, cursor)

    def note(self, holdings: Sequence[Holding]) -> Kept:
        """Keep what the peer says that it stores: the work of a Keep."""
        told = self._replica.note_holdings(holdings, self.key)
        return Kept(partial(self._told.holdings_noted, told, self))

    def _take_fork(self, forked: Forked) -> tuple[Forked | None, list[bytes]]:
        known = self._replica.store.chat(forked.chat) is not None
        if not known or not self._replica.may_bring(self.key, forked.chat):
            return None, []
        new = self._replica.keep_fork(forked)
        return new, [] if new is None else sorted(self._replica.readers_of(new.chat))

    # What the peer brought

    def _brings_payload(self, run: Run) -> bool:
        """Whether it was asked for, beside the session: then it was not pushed (SPEC 6.5)."""
        chain = run.chat, run.device, run.lane
        return any(
            (want.chat, want.device, want.lane) == chain and want.start <= run.start < want.stop
            for want in self._payloads_wanted
        )

    def _judged(self, judged: Sequence[tuple[Run, Outcome]], holdings: Sequence[Holding]) -> Steps:
        return self._turned(self._session.admitted(judged, holdings, self._now()))

    def _stored(
        self, parts: Sequence[Stored], holdings: Sequence[Holding], noted: int, let_in: int
    ) -> Steps:
        if self._times_let_in > let_in and any(stored.outcome.early for stored in parts):
            self.let_in()  # since these were judged: what has no place by that may have one
        # Of what was noted before, too, if this let us in.
        if any(self._replica.owner in stored.entered for stored in parts):
            self.let_in()
            self._seals_before = max(self._seals_before, noted)
        judged = [(stored.run, stored.outcome) for stored in parts]
        seals = [step for stored in parts for step in _want_seals(stored.sealless)]
        return [*seals, *self._judged(judged, holdings)]

    # Seals

    def _ask_elsewhere(self, lacked: Sealless, home: bytes) -> None:
        """Have seals asked for that the peer waits for. home: of who made them, if it is here."""
        known = self._seals_elsewhere.pop(lacked.epoch, (lacked, home))[0].devices
        devices = tuple(dict.fromkeys((*known, *lacked.devices)))
        self._seals_elsewhere[lacked.epoch] = lacked._replace(devices=devices), home
        for epoch in self._seals_elsewhere.keys() - self._seals_awaited.keys():
            del self._seals_elsewhere[epoch]
        self._told.seals_lacked(lacked, home)

    def awaited_of(self, home: bytes) -> list[Sealless]:
        """Return the seals that the peer waits for and that the node of this agency has."""
        return [
            lacked
            for epoch, (lacked, maker) in self._seals_elsewhere.items()
            if maker == home and epoch in self._seals_awaited
        ]

    def want_seals(self, lacking: Sequence[Sealless]) -> None:
        """Ask for the seals of epochs that came through another peer."""
        for step in _want_seals(lacking) if self.open else ():
            self.send(step.frame)

    def relay_seals(self, lacked: Sealless) -> None:
        """Ask for seals that another peer lacks, once until `ask_for_seals`."""
        asked = self._seals_relayed
        new = tuple(one for one in lacked.devices if (lacked.epoch, one) not in asked)
        if len(asked) + len(new) > SEALS_RELAYED_MAX:
            asked.clear()
        if self.open and new:
            asked.update((lacked.epoch, one) for one in new)
            self.want_seals([lacked._replace(devices=new)])

    def seals_kept(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> None:
        """Send the seals that the peer has asked for before they were here."""
        awaited = self._seals_awaited.get(epoch, set())
        found = tuple(seal for device, seal in owners if device in awaited)
        if found and self.open:
            self.send(Seals(chat, epoch, found))
            awaited.difference_update(device for device, _ in owners)
        if not awaited:
            self._seals_awaited.pop(epoch, None)


def greeting_for(
    replica: Replica, key: bytes, random: Callable[[int], bytes] = os.urandom
) -> Greeting:
    """Read what a session with this peer begins with, and draw its salt."""
    seen_incarnation, seen = replica.sharing.cursor(key)
    patience = BETWEEN_NODES if replica.owner == replica.agency else WITH_LEAF
    salt = random(SALT_BYTES)
    return Greeting(replica.store.incarnation, seen_incarnation, seen, salt, patience)


def _want_seals(lacking: Sequence[Sealless]) -> Sequence[Send]:
    return [
        Send(WantSeals(chat, epoch, devices[at : at + SEALS_FRAME_MAX]))
        for chat, epoch, devices in lacking
        for at in range(0, len(devices), SEALS_FRAME_MAX)
    ]
