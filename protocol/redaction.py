"""Which payloads are to be dropped, by what, and who keeps them all the same (SPEC 2.6).

    redactions = Redactions(history)
    redactions.of()                              # {place of a content entry: the redaction}
    allows(history, ground, place)               # may a record come without its payload?
    retention(history)                           # (seconds, the setting that says so), or None
    custodians(history)                          # members whose agencies keep what ages

All but `allows` speak of what has effect by all that is known. `allows` asks what the author of the
ground had seen, so its answer never changes: what one node admits, every other admits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from protocol.dag import bits
from protocol.entry import CONTENT, DeviceKey, EntryId, Reference
from protocol.history import History
from protocol.identity import UserId
from protocol.membership import resolve, void_reason
from protocol.operation import Hold, Redact
from protocol.roster import Member
from protocol.standing import Effects


@dataclass(frozen=True, slots=True)
class Redaction:
    """An effective redaction. by: its author as they were then. reason: others wrote this."""

    ground: Reference
    by: Member
    reason: str


class Retention(NamedTuple):
    """How long payloads are kept, and the setting that says so."""

    seconds: int
    ground: Reference


@dataclass(frozen=True, slots=True)
class _Case:
    """A redaction by a member, which counts or not."""

    target: Reference
    redaction: Redaction


class Redactions:
    """The effective redactions of one history, kept up at the cost of what changes in it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._bearing = 0
        self._taken = 0
        self._effects: Effects | None = None
        self._authors: dict[tuple[UserId, DeviceKey], list[_Case]] = {}
        self._counting: dict[Reference, dict[EntryId, Redaction]] = {}
        self._found: dict[Reference, Redaction] = {}

    def of(self) -> Mapping[Reference, Redaction]:
        """Return what is redacted, by place; of several redactions that of the smallest id."""
        history = self._history
        if history.authority.bearing != self._bearing:
            self._bearing = history.authority.bearing
            self._try_again()
        for index in bits(history.redactions & ~self._taken):
            self._take(index)
        self._taken = history.redactions
        return self._found

    def _try_again(self) -> None:
        """Judge again what is by those for whom something has effect now that had not, or no more.

        A redaction hangs on its author's role, and on what puts out their device or its branch.
        """
        before = self._effects
        self._effects = self._history.authority.verdict(self._history.everything).effects
        if before is None:
            return
        for (user, device), cases in self._authors.items():
            if self._effects.differ(before, user, device):
                for case in cases:
                    self._judge(case)

    def _take(self, index: int) -> None:
        entry = self._history.entries[index]
        operation = entry.operation
        if not isinstance(operation, Redact) or operation.lane != CONTENT:
            return
        past = self._history.past_of(entry.id)
        by = self._history.authority.roster(past).member_of(entry.device)
        if by is None:
            return
        redaction = Redaction(_place(self._history, index), by, operation.reason)
        case = _Case(_named(operation), redaction)
        self._authors.setdefault((by.user, entry.device), []).append(case)
        self._judge(case)

    def _judge(self, case: _Case) -> None:
        counting = self._counting.setdefault(case.target, {})
        entry = case.redaction.ground.id
        counting.pop(entry, None)
        if void_reason(self._history, entry) is None:
            counting[entry] = case.redaction
        if counting:
            self._found[case.target] = counting[min(counting)]
        else:
            self._found.pop(case.target, None)


def allows(history: History, ground: Reference, target: Reference) -> bool:
    """Tell whether a content entry may come without its payload, by the ground that is named.

    ground: held in the history. It must be a redaction of this very entry, or a setting with a
    retention, and have effect by what its author had seen.
    """
    index = history.index(ground.id)
    operation = history.entries[index].operation
    if isinstance(operation, Redact):
        fits = operation.lane == CONTENT and _named(operation) == target
    else:
        case = history.authority.register.cases.get(index)
        fits = case is not None and any(one.retention for one in case.policies)
    return fits and void_reason(history, ground.id, history.pasts[index]) is None


def _named(operation: Redact) -> Reference:
    return Reference(operation.device, operation.seq, operation.id)


def retention(history: History) -> Retention | None:
    """Return the retention in force, None for ever. Of equal settings that of the smallest id."""
    seconds = resolve(history).policy.retention
    if not seconds:
        return None
    authority = history.authority
    effects = authority.verdict(history.everything).effects
    cases = authority.register.cases
    settings = [
        index
        for index in bits(authority.register.policies & effects.total)
        if any(one.retention == seconds for one in cases[index].policies)
    ]
    grounds = [_place(history, index) for index in settings]
    return Retention(seconds, min(grounds, key=lambda one: one.id))


def custodians(history: History) -> frozenset[UserId]:
    """Return the members for whom a hold stands.

    The last word on each counts; of two that have not seen each other, the hold.
    """
    said: dict[UserId, int] = {}
    for index in bits(history.custody):
        operation = history.entries[index].operation
        if isinstance(operation, Hold) and void_reason(history, history.entries[index].id) is None:
            said[operation.user] = said.get(operation.user, 0) | 1 << index
    users = resolve(history).users
    return frozenset(
        user for user, found in said.items() if user in users and _stands(history, found)
    )


def _stands(history: History, found: int) -> bool:
    """Whether one that no other of these has seen does not end a hold."""
    while found:
        last = found.bit_length() - 1
        if not _ends(history, last):
            return True
        found &= ~history.pasts[last]
    return False


def _ends(history: History, index: int) -> bool:
    operation = history.entries[index].operation
    return isinstance(operation, Hold) and operation.ends


def _place(history: History, index: int) -> Reference:
    entry = history.entries[index]
    return Reference(entry.device, entry.seq, EntryId(entry.id))
