"""Membership: who is in a chat and what counts, a function of a set of control entries (SPEC 3).

    history.add(entry)
    now = resolve(history)
    seen = resolve(history, history.past(ids))
    may_append(history, device, past)      # the rule of admission, control lane

A set is what `History.past` returns: it holds the past of each entry in it. `trial` has the rule.
"""

from collections.abc import Iterator, Sequence

from protocol.case import entrant, least_role
from protocol.dag import ControlEntry, bits
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.errors import Inadmissible, UsageError
from protocol.history import History
from protocol.identity import UserId
from protocol.policy import Role
from protocol.roster import OUT, PROVEN, Member, Membership, Void
from protocol.trial import Verdict, why

__all__ = [
    "Member",
    "Membership",
    "Void",
    "content_void",
    "is_lost",
    "may_append",
    "may_enter",
    "may_write",
    "resolve",
    "void_reason",
]


def resolve(history: History, within: int | None = None) -> Membership:
    """Return the membership that a set of entries amounts to; of all that are held for None.

    `void` of the result has those operations on membership that have no effect; for entries of any
    kind ask `void_reason`. Raises UsageError for a set without the genesis.
    """
    return history.authority.membership(_scope(history, within))


def may_append(history: History, device: DeviceKey, past: int) -> Member:
    """Return the member whose device may append a control entry with this causal past.

    Whether the entry then has effect is another question. Raises Inadmissible.
    """
    member = history.authority.roster(past).member_of(device) if past else None
    if member is None:
        raise Inadmissible("the author is no device of a member, by what it has seen (SPEC 3.4)")
    return member


def may_enter(history: History, entry: ControlEntry, past: int) -> bool:
    """Whether an entry with this causal past is how a member's device comes in by itself."""
    return bool(past) and entrant(entry, history.authority.roster(past)) is not None


def may_write(history: History, device: DeviceKey, past: int) -> Member:
    """Return the member whose device may append content whose control heads have this past.

    Raises Inadmissible, also for readers.
    """
    member = may_append(history, device, past)
    if member.role < Role.MEMBER:
        raise Inadmissible("readers do not write (SPEC 3.4)")
    return member


def void_reason(history: History, entry: EntryId, within: int | None = None) -> Void | None:
    """Return why a control entry has no effect in a set that holds it, None if it has."""
    index = history.index(entry)
    operation = history.entries[index].operation
    authority = history.authority
    verdict = authority.verdict(_scope(history, within))
    case = authority.register.cases.get(index)
    if case is not None and (case.fault is not None or authority.bears(index)):
        return case.fault or verdict.voids.get(entry)
    view = authority.roster(history.past_of(entry))
    author = view.devices.get(history.entries[index].device)
    if author is None:
        return Void.NOT_A_MEMBER
    if verdict.forked(index, history):
        return Void.FORKED
    role = _author_role(history, verdict, index, author)
    if role >= least_role(operation, author, view):
        return None
    held = verdict.effects.role(author, history.pasts[index])
    return Void.RANK if role == held != OUT else why(history, verdict.effects, index, author)


def _author_role(history: History, verdict: Verdict, index: int, author: UserId) -> int:
    device = history.entries[index].device
    levels = range(Role.OWNER, OUT, -1)
    return next(
        (one for one in levels if verdict.effects.reach(index, author, device, one) == one), OUT
    )


def content_void(
    history: History, device: DeviceKey, seq: int, control: int, within: int | None = None
) -> Void | None:
    """Return why a content entry counts for nothing, None if it counts (SPEC 3.5).

    control: the past of the control heads that it names. It is void if its author could not write
    by then, or if a removal that it has not seen names earlier heads of that device as the last.
    """
    verdict = history.authority.verdict(_scope(history, within))
    effects = verdict.effects
    author = history.authority.roster(control).devices.get(device)
    if author is None or effects.role(author, control) < Role.MEMBER:
        return Void.NOT_A_MEMBER
    if effects.lost(device, control) or not effects.brings(device, author, control):
        return Void.DEVICE
    register = history.authority.register
    removals = [
        cut
        for cut in bits(register.acts[author] & effects.total & ~control)
        if register.cases[cut].acts[author].seen is not None and effects.counts(cut, author)
    ]
    for cut in _first(history, verdict, removals):
        if seq > _last_seen(history, verdict, cut, author, device):
            return Void.REMOVED
    for cut in _first(history, verdict, _heeded(history, verdict, author, device, control)):
        if seq > _last_seen(history, verdict, cut, author, device):
            return Void.DEVICE
    return None


def _heeded(
    history: History, verdict: Verdict, user: UserId, device: DeviceKey, control: int
) -> Sequence[int]:
    """Return the revocations of a user's device, of those not seen, that are asked.

    Anybody can bring a fork's proof, and who holds a device can give it up: either may name less
    than is due. So these are not asked where somebody of rank, or the user, has spoken.
    """
    cases, effects = history.authority.register.cases, verdict.effects
    revocations = history.authority.register.revocations.get(device, 0)
    found = list(bits(revocations & effects.total & ~control))
    ranked = [one for one in found if cases[one].by_user or not effects.levels[PROVEN] >> one & 1]
    return [one for one in ranked if cases[one].revoked[device] == user] or found


def _first(history: History, verdict: Verdict, cuts: Sequence[int]) -> Iterator[int]:
    """Yield those of ascending removals whose cut-off can be the smallest.

    What somebody of rank has named counts in all that has seen it, so those cut off no earlier.
    """
    ranked = 0
    for cut in cuts:
        if not history.pasts[cut] & ranked:
            yield cut
            ranked |= 1 << cut & ~verdict.effects.levels[PROVEN]


def _last_seen(
    history: History, verdict: Verdict, cut: int, user: UserId, device: DeviceKey
) -> int:
    """Return the last seq of a device that a removal, or one in its past, names; -1 for none.

    Of those in its past only what somebody of rank has said: what carries its own proof may be by
    whoever is put out, and name what is yet to be written.
    """
    register, effects = history.authority.register, verdict.effects
    bearing = register.acts.get(user, 0) | register.revocations.get(device, 0)
    ranked = effects.total & ~effects.levels[PROVEN] | 1 << cut
    seen: list[Reference] = []
    for index in bits(bearing & ranked & history.pasts[cut]):
        case = register.cases[index]
        seen += case.seen
        seen += (case.acts[user].seen or ()) if user in case.acts else ()
    return max((one.seq for one in seen if one.device == device), default=-1)


def is_lost(history: History, device: DeviceKey) -> bool:
    """Whether a device was put out, so that no enrolment brings it in (SPEC 3.3)."""
    return history.authority.verdict(history.everything).effects.lost(device, history.everything)


def _scope(history: History, within: int | None) -> int:
    scope = history.everything if within is None else within
    if not scope & 1:
        raise UsageError("a set of entries without the genesis has no membership")
    return scope
