"""One chat: admit an entry, or say what it waits for, or why never (SPEC 2.4, 3, 4).

The control lane is held here, as the history that membership is a function of; the content lane is
too long for that and is asked for through a `Ledger`. Admission of an entry depends on the entry
and its ancestors only, never on order of arrival or on a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from protocol.checkpoint import check_anchor
from protocol.entry import (
    CONTENT,
    CONTROL,
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Reference,
    place_of,
)
from protocol.epoch import author_prekey, check_departures, check_recipients, check_shareable, rank
from protocol.errors import Inadmissible, PeerError
from protocol.history import ControlEntry, History
from protocol.identity import AgencyId
from protocol.membership import Membership, may_append, may_enter, resolve
from protocol.operation import Checkpoint, EpochOperation, Genesis, Operation
from protocol.payload import decode_operation
from protocol.redaction import Redactions, allows
from protocol.roster import Member
from protocol.run import START, Context, Entry

Before = Context | ContentHeader  # what of its predecessor an entry is judged by


class Ledger(Protocol):
    """What is stored of one chat, as far as admission has to know."""

    def branch_of(self, device: DeviceKey, lane: int, seq: int, entry: EntryId) -> int | None:
        """Return the number of the branch that holds this very entry, None if none does."""

    def branches_at(self, device: DeviceKey, lane: int, seq: int) -> Sequence[int]:
        """Return the branches that begin at, or run through, this place."""

    def takes_branch(self, entries: Sequence[Entry]) -> bool:
        """Tell whether there is room for a further branch of a chain, beginning with these."""

    def goes_on(self, branch: int, entries: Sequence[Entry]) -> bool:
        """Tell whether these may stand after the head of a branch, which nothing else covers."""

    def length(self, device: DeviceKey, lane: int) -> int:
        """Return the number of entries in the longest branch."""

    def context_after(self, device: DeviceKey, lane: int, seq: int, branch: int) -> Context:
        """Return the context that the entry at `seq` of this branch leaves to its successor."""


class Missing(NamedTuple):
    """An entry that must come first. `have`: how long our own longest branch of that chain is."""

    device: DeviceKey
    lane: int
    seq: int
    id: EntryId
    have: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What to store, what to wait for, and what was refused.

    entries: to append, in order, after the one that precedes them. branch: the branch to go on
    with, None to begin a new one. known: how many were stored already. surplus: there is no room
    for their branch.
    """

    entries: Sequence[Entry] = ()
    branch: int | None = None
    missing: tuple[Missing, ...] = ()
    refusal: PeerError | None = None
    known: int = 0
    surplus: bool = False


@dataclass(slots=True)
class _View:
    """What the control heads that a content entry names amount to."""

    past: int
    membership: Membership
    epochs: set[EntryId] = field(default_factory=set)


VIEWS_MAX = 256


class Chat:
    """The control state of one chat, and the judge of what may be appended to it.

    anchored: of each checkpoint with an ML-DSA signature, the agency whose archive key vouches for
    it. The signature was checked, and is not kept here: with its keys it takes 12 KB.
    """

    def __init__(self, chat: ChatId) -> None:
        self.id = chat
        self.history = History()
        self.redactions = Redactions(self.history)
        self.anchored: dict[EntryId, AgencyId] = {}
        self._views: dict[tuple[Reference, ...], _View] = {}

    def membership(self) -> Membership:
        """Return the membership that all entries known so far amount to."""
        return resolve(self.history, None)

    def restore(self, header: ControlHeader, entry: EntryId, payload: bytes) -> None:
        """Take back a control entry that was admitted before; in the order of admission."""
        self._hold(_control_entry(header, entry, payload, self.id))

    def _hold(self, entry: ControlEntry) -> None:
        operation = entry.operation
        if isinstance(operation, Checkpoint) and operation.anchor is not None:
            self.history.add(replace(entry, operation=Checkpoint(operation.heads)))
            self.anchored[entry.id] = operation.anchor.certificate.agency
        else:
            self.history.add(entry)

    def admit(self, entries: Sequence[Entry], ledger: Ledger) -> Admission:
        """Judge authentic consecutive entries of one chain."""
        known = self._known(entries, ledger)
        fresh = entries[known:]
        if not fresh:
            return Admission(known=known)
        first = fresh[0].header
        branch: int | None = 0
        before = START
        parts = False
        if first.prev is not None:
            branch = ledger.branch_of(first.device, first.lane, first.seq - 1, first.prev)
            if branch is None:
                have = ledger.length(first.device, first.lane)
                gap = Missing(first.device, first.lane, first.seq - 1, first.prev, have)
                return Admission(missing=(gap,), known=known)
            before = ledger.context_after(first.device, first.lane, first.seq - 1, branch)
            parts = not ledger.goes_on(branch, fresh)
        rivals = ledger.branches_at(first.device, first.lane, first.seq)
        begins = parts or branch in rivals or (first.seq == 0 and bool(rivals))
        if begins and not ledger.takes_branch(fresh):
            return Admission(known=known, surplus=True)
        judged = self._judge(fresh, before, ledger)
        return Admission(
            entries=judged.entries,
            branch=None if begins else branch,
            missing=judged.missing,
            refusal=judged.refusal,
            known=known,
        )

    def check_ahead(self, entry: Entry) -> ContentHeader:
        """Check what can be checked of content whose ancestors are yet to come (SPEC 6.3).

        Raises PeerError. It is not admitted: generation, predecessor and links say nothing yet.
        """
        header = entry.header
        if not isinstance(header, ContentHeader):
            raise Inadmissible("a control entry among content (SPEC 6.3)")
        if self._unknown_control(header.control) or self._unknown_ground(entry):
            raise Inadmissible("control entries that are not here yet (SPEC 6.3)")
        self._check_view(header, START)
        return header

    def _known(self, entries: Sequence[Entry], ledger: Ledger) -> int:
        """Return how many entries are stored already: an id names its past, so all before it."""
        if not entries:
            return 0
        first = entries[0].header
        known = 0
        unknown = min(len(entries), ledger.length(first.device, first.lane) - first.seq) + 1
        while unknown - known > 1:
            middle = (known + unknown) // 2
            seq, entry = first.seq + middle - 1, entries[middle - 1].id
            if ledger.branch_of(first.device, first.lane, seq, entry) is None:
                unknown = middle
            else:
                known = middle
        return known

    def _judge(self, entries: Sequence[Entry], before: Before, ledger: Ledger) -> Admission:
        missing: tuple[Missing, ...] = ()
        refusal = None
        count = 0
        for entry in entries:
            header = entry.header
            try:
                if isinstance(header, ControlHeader):
                    missing = self._admit_control(header, entry)
                else:
                    missing = self._unknown_ground(entry) or self._admit_content(
                        header, before, ledger
                    )
                    before = header
            except PeerError as error:
                refusal = error
            if missing or refusal:
                break
            count += 1
        return Admission(entries=entries[:count], missing=missing, refusal=refusal)

    def _admit_control(self, header: ControlHeader, entry: Entry) -> tuple[Missing, ...]:
        opens = bytes(entry.id) == self.id
        if opens and header.links:
            raise Inadmissible("a genesis that has seen something (SPEC 3.1)")
        missing = self._unknown_control(header.links)
        if missing:
            return missing
        if entry.payload is None:
            raise Inadmissible("a control entry without its payload (SPEC 2.6)")
        control = _control_entry(header, entry.id, entry.payload, self.id)
        if isinstance(control.operation, Genesis) != opens:
            raise Inadmissible("a genesis stands first in its chat and nowhere else (SPEC 3.1)")
        parents = [ref.id for ref in header.links] + ([header.prev] if header.prev else [])
        past = self.history.past(parents)
        if not opens and not may_enter(self.history, control, past):
            author = may_append(self.history, header.device, past)
            _check_checkpoint(control.operation, header, author)
        if isinstance(control.operation, EpochOperation):
            author_prekey(control.operation, header.device)
            membership = self.history.authority.roster(past)
            check_recipients(control.operation, membership.sealed)
            check_shareable(control.operation, membership.policy.history)
        self._hold(control)
        return ()

    def _unknown_control(self, references: Sequence[Reference]) -> tuple[Missing, ...]:
        return tuple(
            Missing(ref.device, CONTROL, ref.seq, ref.id, self.history.length(ref.device))
            for ref in references
            if not self.history.holds(ref)
        )

    def _unknown_ground(self, entry: Entry) -> tuple[Missing, ...]:
        """Check the ground of a dropped payload (SPEC 2.6); return it if it is unknown."""
        if entry.ground is None:
            return ()
        missing = self._unknown_control((entry.ground,))
        if not missing and not allows(self.history, entry.ground, entry.reference):
            raise Inadmissible("a payload dropped without a ground (SPEC 2.6)")
        return missing

    def _admit_content(
        self, header: ContentHeader, before: Before, ledger: Ledger
    ) -> tuple[Missing, ...]:
        missing = _unknown_links(header.links, ledger) if header.links else ()
        if missing:
            return missing
        if header.control != before.control or header.epoch != before.epoch:
            missing = self._unknown_control(header.control)
            if missing:
                return missing
            self._check_view(header, before)
        self._check_generation(header, before)
        return ()

    def _check_view(self, header: ContentHeader, before: Before) -> None:
        """Check author and epoch against the membership that the author says they have seen."""
        view = self._view(header.control)
        if before.control and self._view(before.control).past & ~view.past:
            raise Inadmissible("control heads older than the entry before named (SPEC 2.2)")
        if not view.membership.may_write(header.device):
            raise Inadmissible("the author may not write, by what they have seen (SPEC 3.4)")
        if header.epoch in view.epochs:
            return
        epoch = self.history.epoch(header.epoch)
        if epoch is None or not view.past >> epoch.index & 1:
            raise Inadmissible("an epoch that is not in the entry's past (SPEC 4.2)")
        check_recipients(epoch.operation, view.membership.sealed)
        check_shareable(epoch.operation, view.membership.policy.history)
        check_departures(self.history, epoch, view.past)
        view.epochs.add(header.epoch)

    def _check_generation(self, header: ContentHeader, before: Before) -> None:
        if header.epoch == before.epoch:
            if header.generation != before.generation + 1:
                raise Inadmissible(
                    f"generation {header.generation} after {before.generation} (SPEC 4.3)"
                )
            return
        if header.generation != 0:
            raise Inadmissible(f"an epoch begins with generation {header.generation} (SPEC 4.3)")
        if before.epoch:
            ours, theirs = EntryId(before.epoch), header.epoch
            if rank(self.history, theirs) <= rank(self.history, ours):
                raise Inadmissible("back to an epoch of no better rank (SPEC 4.2)")

    def _view(self, heads: tuple[Reference, ...]) -> _View:
        view = self._views.get(heads)
        if view is None:
            past = self.history.past([ref.id for ref in heads])
            if len(self._views) >= VIEWS_MAX:
                self._views.clear()
            view = self._views[heads] = _View(past, self.history.authority.roster(past))
        return view


def _unknown_links(links: Sequence[Reference], ledger: Ledger) -> tuple[Missing, ...]:
    return tuple(
        Missing(ref.device, CONTENT, ref.seq, ref.id, ledger.length(ref.device, CONTENT))
        for ref in links
        if ledger.branch_of(ref.device, CONTENT, ref.seq, ref.id) is None
    )


def _check_checkpoint(operation: Operation, header: ControlHeader, author: Member) -> None:
    """Check the ML-DSA signature of a checkpoint that has one."""
    if isinstance(operation, Checkpoint) and operation.anchor is not None:
        check_anchor(operation.anchor, place_of(header), operation.heads, author.identity)


def _control_entry(
    header: ControlHeader, entry: EntryId, payload: bytes, chat: ChatId
) -> ControlEntry:
    operation = decode_operation(header.kind, payload, chat)
    return ControlEntry(entry, header.device, header.seq, header.prev, header.links, operation)
