"""SPEC 3.3 to 3.5 written down a second time, as they stand: sets, no caches of parts, no speed.

    found = Oracle(entries).resolve(past)         the same as protocol.membership.resolve
    Oracle(entries).content_void(device, seq, control)               the same as content_void there

What an operation asks for is taken from the code under test; the step *Alone* is read anew, in
`alone`. Sets hold numbers of entries, in causal order; every set that is judged holds the past of
each of its entries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from protocol.case import BEARING, Case, open_case, settle
from protocol.dag import ControlEntry
from protocol.entry import CONTROL, DeviceKey, EntryId
from protocol.fork import Fork
from protocol.identity import UserId
from protocol.operation import Checkpoint, Genesis
from protocol.policy import Role, combine, narrow
from protocol.roster import OUT, PROVEN, QUORUM, Member, Membership, Void
from tests.protocol.alone import alone

View = frozenset[int]


@dataclass(slots=True)
class Ruling:
    """What has effect in a set, and at which level; and what is void there."""

    levels: dict[int, int] = field(default_factory=dict)
    voids: dict[int, Void] = field(default_factory=dict)
    vouched: bool = False  # whether the owners' checkpoints were decided


class Oracle:
    """One history."""

    def __init__(self, entries: Sequence[ControlEntry]) -> None:
        self.entries = entries
        numbers = {entry.id: number for number, entry in enumerate(entries)}
        self.pasts: list[View] = []
        for number, entry in enumerate(entries):
            parents = [entry.prev] if entry.prev else []
            parents += [link.id for link in entry.links]
            seen = [self.pasts[numbers[one]] for one in parents]
            self.pasts.append(frozenset({number}).union(*seen))
        self._cases: dict[int, Case] = {}
        self._inert: dict[int, Void | None] = {}
        self._rulings: dict[View, Ruling] = {}

    def past(self, ids: Iterable[EntryId]) -> View:
        """Return these entries and their ancestors."""
        numbers = [number for number, one in enumerate(self.entries) if one.id in set(ids)]
        return frozenset().union(*(self.pasts[number] for number in numbers))

    def resolve(self, within: View) -> Membership:
        """Return the membership that a set amounts to (SPEC 3.4)."""
        ruling = self.ruling(within)
        genesis = self.entries[0].operation
        assert isinstance(genesis, Genesis)
        users = {user: self._member(ruling, user) for user in self._users(ruling)}
        members = {user: member for user, member in users.items() if member is not None}
        devices = {device: user for user, one in members.items() for device in one.devices}
        settings = [number for number in sorted(ruling.levels) if self.case(number).policies]
        zones = [one.zones for number in settings for one in self.case(number).policies]
        policy = combine(
            reduce(narrow, zones, zones[0]),
            [one for number in self._last(settings) for one in self.case(number).policies],
        )
        return Membership(genesis.chat_kind, policy, members, devices, self.void(within))

    def content_void(self, device: DeviceKey, seq: int, control: View) -> Void | None:
        """Return why a content entry counts for nothing by all entries (SPEC 3.5)."""
        ruling = self.ruling(frozenset(range(len(self.entries))))
        author = self.resolve(control).devices.get(device)
        if author is None or self._role(ruling, author, control) < Role.MEMBER:
            return Void.NOT_A_MEMBER
        if self._lost(ruling, device, control) or device not in self._named(
            ruling, author, control
        ):
            return Void.DEVICE
        for number in ruling.levels.keys() - control:
            act = self.case(number).acts.get(author)
            lowers = (
                act is not None and act.seen is not None and self._binds(ruling, number, author)
            )
            if lowers and seq > self._cut(ruling, number, author, device):
                return Void.REMOVED
        revoked = [n for n in ruling.levels.keys() - control if device in self.case(n).revoked]
        spoken = [n for n in revoked if ruling.levels[n] < PROVEN or self.case(n).by_user]
        revoked = [n for n in spoken if self.case(n).revoked[device] == author] or revoked
        beyond = any(seq > self._cut(ruling, number, author, device) for number in revoked)
        return Void.DEVICE if beyond else None

    def _cut(self, ruling: Ruling, number: int, user: UserId, device: DeviceKey) -> int:
        seen = {-1}
        for other in self.pasts[number] & ruling.levels.keys():
            case = self.case(other)
            if other != number and ruling.levels[other] == PROVEN:
                continue
            named = list(case.seen) if user in case.acts or device in case.revoked else []
            named += (case.acts[user].seen or ()) if user in case.acts else ()
            seen |= {one.seq for one in named if one.device == device}
        return max(seen)

    def void(self, within: View) -> Mapping[EntryId, Void]:
        """Return the operations on membership that have no effect in a set, checkpoints apart."""
        found = dict(self.ruling(within).voids)
        for number in within:
            inert = self.inert(number) if self._bears(number) else None
            if inert is not None:
                found[number] = inert
        return {
            self.entries[number].id: why
            for number, why in found.items()
            if not isinstance(self.entries[number].operation, Checkpoint)
        }

    def case(self, number: int) -> Case:
        """Return what an operation asks for: step 1."""
        if number not in self._cases:
            self._cases[number] = self._settled(number)
        return self._cases[number]

    def _settled(self, number: int) -> Case:
        entry = self.entries[number]
        if isinstance(entry.operation, Genesis):
            return open_case(entry.operation, entry.device)
        seen = self.pasts[number] - {number}
        chain = [self.entries[one] for one in seen if self.entries[one].device == entry.device]
        view = self.resolve(seen)
        case = settle(entry, view, chain, lambda device: self._holder(device, seen))
        assert case.fault is alone(entry, view, chain, lambda device: self._holder(device, seen))
        if case.fault is None and case.fork is not None and self._known(case.fork, seen):
            return Case(case.author, fault=Void.KNOWN)
        return case

    def _known(self, fork: Fork, seen: View) -> bool:
        ruling = self.ruling(seen)
        if fork.lane != CONTROL:
            return self._lost(ruling, fork.device, seen)
        forks = [self.case(number).fork for number in ruling.levels]
        return any(
            one and one.lane == CONTROL and one.device == fork.device and one.seq <= fork.seq
            for one in forks
        )

    def _holder(self, device: DeviceKey, seen: View) -> UserId | None:
        ruling = self.ruling(seen)
        named = [(user, self._named(ruling, user, seen)) for user in self._claimants(ruling)]
        return min((user for user, devices in named if device in devices), default=None)

    def _claimants(self, ruling: Ruling) -> set[UserId]:
        enrolled = [self.case(number).enrolled for number in ruling.levels]
        return self._users(ruling) | {one.user for one in enrolled if one is not None}

    def _named(self, ruling: Ruling, user: UserId, within: View) -> set[DeviceKey]:
        """Return the devices that what has effect in a set names for a user."""
        devices: set[DeviceKey] = set()
        for case in (self.case(number) for number in ruling.levels.keys() & within):
            act = case.acts.get(user)
            if act is not None and act.identity is not None:
                devices.update(act.identity.devices)
            if case.enrolled is not None and case.enrolled.user == user:
                devices.update(case.enrolled.devices)
        return devices

    def inert(self, number: int) -> Void | None:
        """Return why an operation is void in every set, None if it is not."""
        if number not in self._inert:
            fault = self.case(number).fault
            if fault is None and number:
                seen = [one for one in self.pasts[number] if one != number and self._counts(one)]
                fault = self._judge(frozenset({number, *seen})).voids.get(number)
            self._inert[number] = fault
        return self._inert[number]

    def _bears(self, number: int) -> bool:
        return isinstance(self.entries[number].operation, BEARING)

    def _counts(self, number: int) -> bool:
        return self._bears(number) and self.inert(number) is None

    def ruling(self, within: View) -> Ruling:
        """Judge a set."""
        if within not in self._rulings:
            counting = frozenset(number for number in within if self._counts(number))
            self._rulings[within] = self._judge(counting)
        return self._rulings[within]

    def _judge(self, window: View) -> Ruling:
        ruling = Ruling({0: QUORUM})
        pending = sorted(window - {0})
        for number in pending:
            if self.case(number).proven:
                ruling.levels[number] = PROVEN
        pending = [number for number in pending if number not in ruling.levels]
        self._let_leave(ruling, [one for one in pending if self.case(one).leave])
        for level in range(QUORUM, OUT, -1):
            pending = [number for number in pending if not self._ruled(ruling, number)]
            first = [one for one in pending if level == Role.OWNER and self._vouches(one)]
            for number in first:
                self._decide(ruling, number, level)
            ruling.vouched |= level == Role.OWNER
            for number in pending:
                if number not in first:
                    self._decide(ruling, number, level)
        for number in pending:
            if not self._ruled(ruling, number):
                ruling.voids[number] = self._leftover(ruling, number)
        return ruling

    def _let_leave(self, ruling: Ruling, leaving: Iterable[int]) -> None:
        for number in leaving:
            proofs = self._at(ruling, PROVEN)
            if self._forked(ruling, number):
                ruling.voids[number] = Void.FORKED
            elif self._cut_off(ruling, number, self.entries[number].device, proofs):
                ruling.voids[number] = Void.DEVICE
            else:
                ruling.levels[number] = PROVEN

    def _vouches(self, number: int) -> bool:
        return isinstance(self.entries[number].operation, Checkpoint)

    def _ruled(self, ruling: Ruling, number: int) -> bool:
        return number in ruling.levels or number in ruling.voids

    def _leftover(self, ruling: Ruling, number: int) -> Void:
        author = self.case(number).author
        if author is None or self._role(ruling, author, self.pasts[number]) == OUT:
            return Void.NOT_A_MEMBER
        device = self.entries[number].device
        return (
            Void.DEVICE
            if self._cut_off(ruling, number, device, ruling.levels.keys())
            else Void.OUTRANKED
        )

    def _decide(self, ruling: Ruling, number: int, level: int) -> None:
        case = self.case(number)
        if level == QUORUM:
            if case.need != QUORUM:
                return
        elif not self._forked(ruling, number) and (
            case.author is None or self._reach(ruling, number, case.author, level) != level
        ):
            return
        if self._forked(ruling, number):
            ruling.voids[number] = Void.FORKED
        elif level == QUORUM and not self._signed(ruling, number, case):
            ruling.voids[number] = Void.UNSIGNED
        else:
            void = self._lacking(ruling, number, case, level)
            if void is None:
                ruling.levels[number] = level
            else:
                ruling.voids[number] = void

    def _lacking(self, ruling: Ruling, number: int, case: Case, level: int) -> Void | None:
        seen = self.pasts[number]
        assert case.author is not None
        full = self._role(ruling, case.author, seen)
        lack = Void.OUTRANKED if level < full else Void.RANK
        targets = {user: act.role for user, act in case.acts.items()}
        targets |= {user: OUT for user in case.revoked.values() if user is not None}
        highest = max(
            (max(self._role(ruling, user, seen), role) for user, role in targets.items()),
            default=OUT,
        )
        return lack if level < case.need or highest >= level else None

    def _signed(self, ruling: Ruling, number: int, case: Case) -> bool:
        seen = self.pasts[number]
        owners = {u for u in self._users(ruling) if self._role(ruling, u, seen) == Role.OWNER}
        proofs = self._at(ruling, PROVEN)
        signed = {u for d, u in case.signers if not self._cut_off(ruling, number, d, proofs)}
        return case.author in owners & signed and 3 * len(owners & signed) >= 2 * len(owners)

    def _users(self, ruling: Ruling) -> set[UserId]:
        return {user for number in ruling.levels for user in self.case(number).acts}

    def _at(self, ruling: Ruling, least: int) -> set[int]:
        return {number for number, level in ruling.levels.items() if level >= least}

    def _concurrent(self, one: int, other: int) -> bool:
        return one not in self.pasts[other] and other not in self.pasts[one]

    def _standing(self, ruling: Ruling, user: UserId, within: Iterable[int]) -> set[int]:
        """From the highest rank down; equals do not bar each other."""
        acts = {n for n in within if n in ruling.levels and user in self.case(n).acts}
        ranks = {n: (ruling.levels[n], -self.case(n).acts[user].role) for n in acts}
        standing: set[int] = set()
        for number in sorted(acts, key=lambda one: ranks[one], reverse=True):
            if not any(ranks[o] > ranks[number] and self._concurrent(o, number) for o in standing):
                standing.add(number)
        return standing

    def _role(self, ruling: Ruling, user: UserId, within: Iterable[int]) -> int:
        last = self._last(self._standing(ruling, user, within))
        return next((self.case(number).acts[user].role for number in last), OUT)

    def _last(self, numbers: Iterable[int]) -> list[int]:
        held = sorted(numbers)
        return [n for n in held if not any(o != n and n in self.pasts[o] for o in held)]

    def _binds(self, ruling: Ruling, number: int, user: UserId) -> bool:
        level, role = ruling.levels[number], self.case(number).acts[user].role
        return not any(
            self._concurrent(number, other)
            and level < ruling.levels[other] < PROVEN
            and self.case(other).acts[user].role > role
            for other in self._standing(ruling, user, ruling.levels)
        )

    def _reach(self, ruling: Ruling, number: int, user: UserId, level: int) -> int:
        reach = self._role(ruling, user, self.pasts[number])
        above = self._at(ruling, level + 1)
        for other in above:
            act = self.case(other).acts.get(user)
            if (
                act is not None
                and ruling.levels[other] < PROVEN
                and self._concurrent(number, other)
                and self._binds(ruling, other, user)
            ):
                reach = min(reach, act.role)
        if self._cut_off(ruling, number, self.entries[number].device, above):
            return OUT
        return reach

    def _lost(self, ruling: Ruling, device: DeviceKey, within: Iterable[int]) -> bool:
        within = set(within) & ruling.levels.keys()
        revocations = {n for n in within if device in self.case(n).revoked}
        back = [
            number
            for number in within
            for act in self.case(number).acts.values()
            if act.identity is not None and device in act.identity.devices
        ]
        return any(
            ruling.levels[one] == PROVEN or not any(one in self.pasts[n] for n in back)
            for one in revocations
        )

    def _cut_off(self, ruling: Ruling, number: int, device: DeviceKey, by: Iterable[int]) -> bool:
        cuts = {n for n in by if n in ruling.levels and device in self.case(n).revoked}
        seen = self.pasts[number]
        if cuts & seen and self._lost(ruling, device, seen):
            return True
        return any(
            self._concurrent(number, one)
            and not (self._carries_fork(one) and self._vouched(ruling, one, number))
            for one in cuts
        )

    def _carries_fork(self, number: int) -> bool:
        fork = self.case(number).fork
        return fork is not None and fork.lane == CONTROL

    def _vouched(self, ruling: Ruling, proof: int, number: int) -> bool:
        return ruling.vouched and any(
            self._vouches(one)
            and level == Role.OWNER
            and proof in self.pasts[one]
            and number in self.pasts[one]
            for one, level in ruling.levels.items()
        )

    def _forked(self, ruling: Ruling, number: int) -> bool:
        entry = self.entries[number]
        for one in ruling.levels:
            fork = self.case(one).fork
            if fork is None or fork.lane != CONTROL:
                continue
            here = entry.device == fork.device and entry.seq >= fork.seq
            if here and not self._vouched(ruling, one, number):
                return True
        return False

    def _member(self, ruling: Ruling, user: UserId) -> Member | None:
        admissions = self._admissions(ruling, user)
        if not admissions:
            return None
        chosen = min(self._last(admissions), key=lambda one: self.entries[one].id)
        identity = self.case(chosen).acts[user].identity
        assert identity is not None
        devices = self._brought(ruling, user)
        for other in self._users(ruling):
            if other < user:
                devices -= self._brought(ruling, other)
        role = Role(self._role(ruling, user, ruling.levels))
        return Member(identity, role, frozenset(devices))

    def _admissions(self, ruling: Ruling, user: UserId) -> list[int]:
        standing = self._standing(ruling, user, ruling.levels)
        gone = [number for number in standing if self.case(number).acts[user].role == OUT]
        rest = standing - set(gone)
        return [n for n in sorted(rest) if not any(n in self.pasts[one] for one in gone)]

    def _brought(self, ruling: Ruling, user: UserId) -> set[DeviceKey]:
        admissions = self._admissions(ruling, user)
        devices: set[DeviceKey] = set()
        for number in admissions:
            identity = self.case(number).acts[user].identity
            assert identity is not None
            devices.update(identity.devices)
        for number in ruling.levels:
            enrolled = self.case(number).enrolled
            if enrolled is None or enrolled.user != user:
                continue
            if any(one in self.pasts[number] for one in admissions):
                devices.update(enrolled.devices)
        return {one for one in devices if not self._lost(ruling, one, ruling.levels)}
