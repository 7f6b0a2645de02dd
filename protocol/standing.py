"""Which of the operations on a user decides, where they did not know of each other (SPEC 3.3).

An operation on a user *stands* unless another standing one, concurrent with it, outranks it: by
the higher level of its author, at one level by the lower role that it leaves. Rank is a strict
order, so this is well founded. The user's role is what the last standing operation says; several
last ones have one rank and so say the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from protocol.case import Act, Case
from protocol.dag import ControlEntry, bits
from protocol.entry import DeviceKey
from protocol.fork import Fork
from protocol.identity import UserId
from protocol.pasts import Pasts
from protocol.policy import Role
from protocol.roster import OUT, PROVEN

LEVELS = PROVEN + 1


@dataclass(slots=True)
class Register:
    """Which entries bear on whom. A set of entries is an int with a bit for each, as in `Dag`.

    listings: the entries that bring a device in by name. claims: the users a device was named for.
    authored: the entries by a user. concerns: those about a user. owners: whoever was made one by
    any entry. disputes: for a user the others who were named a device of theirs.
    named, enrolments: for a user the devices that entries on them, or by them, name, and which.
    removals: of a user.
    departures: all that put out a user or a device. proven: revocations that carry their own proof.
    checkpoints: those that could vouch for a branch of a forked chain.
    beside: for an entry on a user those on the same user that are concurrent with it, if there are
    any. contested: all such entries. Only they can fail to stand, so an undisputed history of any
    length costs nothing. giving: for a user the entries that give each role.
    """

    pasts: Pasts
    cases: dict[int, Case] = field(default_factory=dict)
    acts: dict[UserId, int] = field(default_factory=dict)
    enrolments: dict[UserId, dict[DeviceKey, int]] = field(default_factory=dict)
    revocations: dict[DeviceKey, int] = field(default_factory=dict)
    listings: dict[DeviceKey, int] = field(default_factory=dict)
    claims: dict[DeviceKey, set[UserId]] = field(default_factory=dict)
    named: dict[UserId, dict[DeviceKey, int]] = field(default_factory=dict)
    removals: dict[UserId, int] = field(default_factory=dict)
    beside: dict[UserId, dict[int, int]] = field(default_factory=dict)
    contested: dict[UserId, int] = field(default_factory=dict)
    giving: dict[UserId, dict[int, int]] = field(default_factory=dict)
    owners: set[UserId] = field(default_factory=set)
    authored: dict[UserId, int] = field(default_factory=dict)
    concerns: dict[UserId, int] = field(default_factory=dict)
    disputes: dict[UserId, set[UserId]] = field(default_factory=dict)
    departures: int = 0
    proven: int = 0
    checkpoints: int = 0
    policies: int = 0
    quorums: int = 0

    def enter(self, index: int, case: Case) -> None:
        """Take up a case that was not settled as void. Cases come in ascending order."""
        one = 1 << index
        for user, act in case.acts.items():
            self._act(index, user, act)
        if case.revoked or any(act.role == OUT for act in case.acts.values()):
            self.departures |= one
        if case.proven:
            self.proven |= one
        for device in case.revoked:
            self.revocations[device] = self.revocations.get(device, 0) | one
        if case.enrolled is not None:
            user, device = case.enrolled.user, case.enrolled.devices[0]
            enrolments = self.enrolments.setdefault(user, {})
            enrolments[device] = enrolments.get(device, 0) | one
            self._claim(device, user)
        if case.policies:
            self.policies |= one
        if case.signers:
            self.quorums |= one
        if case.author is not None:
            self.authored[case.author] = self.authored.get(case.author, 0) | one
        for user in claimants(self, case):
            self.concerns[user] = self.concerns.get(user, 0) | one

    def _act(self, index: int, user: UserId, act: Act) -> None:
        one = 1 << index
        self._compare(index, user)
        self.acts[user] = self.acts.get(user, 0) | one
        giving = self.giving.setdefault(user, {})
        giving[act.role] = giving.get(act.role, 0) | one
        if act.role == OUT:
            self.removals[user] = self.removals.get(user, 0) | one
        if act.role == Role.OWNER:
            self.owners.add(user)
        for device in act.identity.devices if act.identity else ():
            self.listings[device] = self.listings.get(device, 0) | one
            self._claim(device, user)
            named = self.named.setdefault(user, {})
            named[device] = named.get(device, 0) | one

    def _claim(self, device: DeviceKey, user: UserId) -> None:
        claims = self.claims.setdefault(device, set())
        for other in claims - {user}:
            self.disputes.setdefault(user, set()).add(other)
            self.disputes.setdefault(other, set()).add(user)
        claims.add(user)

    def _compare(self, index: int, user: UserId) -> None:
        """Note which earlier entries on a user this one has not seen; they cannot have seen it."""
        unseen = self.acts.get(user, 0) & ~self.pasts[index]
        if not unseen:
            return
        beside = self.beside.setdefault(user, {})
        beside[index] = unseen
        for other in bits(unseen):
            beside[other] = beside.get(other, 0) | 1 << index
        self.contested[user] = self.contested.get(user, 0) | unseen | 1 << index

    def concurrent(self, one: int, other: int) -> bool:
        """Whether neither entry has seen the other."""
        return not (self.pasts[one] >> other & 1 or self.pasts[other] >> one & 1)


class Branch(NamedTuple):
    """What a proof makes void: control entries of a device from a seq on, unless vouched for."""

    seq: int
    proof: int


Branches = Mapping[DeviceKey, Sequence[Branch]]


class Effects:
    """The operations that have effect, by the level of their author; and what follows from them.

    branches: what the proofs of forks among them make void, by device, ascending. vouched: for each
    of these proofs the entries that owners vouch for. barred: the operations that they make void.
    """

    __slots__ = ("_register", "_stands", "barred", "branches", "levels", "total", "vouched")

    def __init__(
        self,
        register: Register,
        levels: Sequence[int] = (0,) * LEVELS,
        branches: Branches = MappingProxyType({}),
        vouched: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._register = register
        self.branches = branches
        self.vouched = vouched
        self.barred = 0
        self.levels = list(levels)
        self._stands: dict[UserId, tuple[int, int]] = {}
        self.total = 0
        for level in levels:
            self.total |= level

    def without(self, operations: int) -> "Effects":
        """Return the effects that are left without these operations, no proof among them."""
        kept = (level & ~operations if level & operations else level for level in self.levels)
        found = Effects(self._register, tuple(kept), self.branches, self.vouched)
        found.barred = self.barred & ~operations
        if operations & self.total & self._register.checkpoints:
            found.vouched = {}
            found.vouch(self._register.checkpoints)
        return found

    def vouch(self, checkpoints: int) -> None:
        """Let those of these checkpoints that have effect vouch for what their owners had seen."""
        rest = checkpoints & self.total
        if not rest:
            return
        vouched = dict(self.vouched)
        proofs = [one.proof for branches in self.branches.values() for one in branches]
        while rest:
            past = self._register.pasts[rest.bit_length() - 1]
            rest &= ~past
            for proof in proofs:
                if past >> proof & 1:
                    known = vouched.get(proof, 0)
                    vouched[proof] = known | past if known & ~past else past
        self.vouched = vouched

    def expose(self, proof: int, fork: Fork) -> None:
        """Make void what follows on a fork of control entries."""
        known = self.branches.get(fork.device, ())
        found = tuple(sorted((*known, Branch(fork.seq, proof))))
        self.branches = {**self.branches, fork.device: found}

    def forked(self, index: int, entry: ControlEntry) -> bool:
        """Whether an entry counts for nothing because its chain is forked."""
        return any(
            one.seq <= entry.seq and not self.vouched.get(one.proof, 0) >> index & 1
            for one in self.branches.get(entry.device, ())
        )

    def enter(self, index: int, level: int) -> None:
        """Let an operation have effect."""
        self.levels[level] |= 1 << index
        self.total |= 1 << index

    def level(self, index: int) -> int:
        """Return the level at which an operation has effect."""
        return next(level for level in range(LEVELS) if self.levels[level] >> index & 1)

    def above(self, level: int) -> int:
        """Return the operations of higher levels."""
        found = 0
        for higher in self.levels[level + 1 :]:
            found |= higher
        return found

    def act(self, index: int, user: UserId) -> Act:
        """Return what an operation makes of a user that it is about."""
        return self._register.cases[index].acts[user]

    def role(self, user: UserId, within: int) -> int:
        """Return a user's role by the effective operations within a set, `OUT` for none."""
        acts = self._register.acts.get(user, 0) & self.total & within
        if not acts:
            return OUT
        last = acts.bit_length() - 1
        if acts & ~self._register.pasts[last]:
            last = self._stand(user, acts).bit_length() - 1
        return self.act(last, user).role

    def standing(self, user: UserId) -> int:
        """Return the operations on a user that stand; found anew when there are others."""
        acts = self._register.acts.get(user, 0) & self.total
        if not acts & self._register.contested.get(user, 0):
            return acts
        known = self._stands.get(user)
        if known is None or known[0] != acts:
            known = self._stands[user] = acts, self._stand(user, acts)
        return known[1]

    def _stand(self, user: UserId, acts: int) -> int:
        register = self._register
        contested = acts & register.contested.get(user, 0)
        if not contested & (contested - 1):
            return acts
        standing = acts & ~contested
        beside, giving = register.beside[user], register.giving[user]
        for level in reversed(self.levels):
            for role in sorted(giving) if level & contested else ():
                rank = contested & level & giving[role]
                higher = standing & contested
                standing |= rank
                for index in bits(rank) if higher else ():
                    if beside[index] & higher:
                        standing ^= 1 << index
        return standing

    def counts(self, index: int, user: UserId) -> bool:
        """Whether a removal or demotion binds what had not seen it.

        It does not where a higher rank, concurrently, left the user more: then nothing was lost. A
        user who leaves does not thereby escape what others decided.
        """
        beside = self._register.beside.get(user, {}).get(index, 0) & self.total
        if not beside:
            return True
        level, role = self.level(index), self.act(index, user).role
        outranking = self.above(level) & ~self.levels[PROVEN]
        more = 0
        for given, acts in self._register.giving[user].items():
            more |= acts if given > role else 0
        return not beside & outranking & more & self.standing(user)

    def lost(self, device: DeviceKey, within: int) -> bool:
        """Whether a device is out: for good by proof, else until a grant that knows of it."""
        effective = self.total & within
        revoked = self._register.revocations.get(device, 0) & effective
        if revoked & self.levels[PROVEN]:
            return True
        back = self._register.listings.get(device, 0) & effective
        while revoked and back:
            seen = self._register.pasts[back.bit_length() - 1]
            revoked &= ~seen
            back &= ~seen
        return bool(revoked)

    def brings(self, device: DeviceKey, user: UserId, within: int) -> bool:
        """Whether an effective operation within a set names a device for a user."""
        register = self._register
        named = register.named.get(user, {}).get(device, 0)
        enrolled = register.enrolments.get(user, {}).get(device, 0)
        return bool((named | enrolled) & self.total & within)

    def differ(self, other: "Effects", user: UserId, device: DeviceKey) -> bool:
        """Whether `reach` or `forked` may find otherwise of this author's entries than by these."""
        register = self._register
        about = register.acts.get(user, 0) | register.revocations.get(device, 0)
        about |= register.listings.get(device, 0)
        if any(
            about & (ours ^ theirs) for ours, theirs in zip(self.levels, other.levels, strict=True)
        ):
            return True
        return self.exposed(device) != other.exposed(device)

    def exposed(self, device: DeviceKey) -> Sequence[tuple[Branch, int]]:
        """Return the branches of a device that proofs make void, each with what is vouched for."""
        branches = self.branches.get(device, ())
        return [(one, self.vouched.get(one.proof, 0)) for one in branches]

    def holder(self, device: DeviceKey, within: int) -> UserId | None:
        """Return the user for whom `brings` holds, of several the one with the smaller id."""
        claims = self._register.claims.get(device, ())
        return min((user for user in claims if self.brings(device, user, within)), default=None)

    def reach(self, index: int, user: UserId, device: DeviceKey, level: int) -> int:
        """Return the role that an entry's author can make use of, as far as levels above decide.

        That is the role in the entry's causal past, lowered by what higher levels did to the author
        concurrently. `OUT` if they revoked the device.
        """
        past = self._register.pasts[index]
        role = self.role(user, past)
        if role < level:
            return role
        above = self.above(level)
        unseen = self._register.acts.get(user, 0) & above & ~past
        for cut, acts in sorted(self._register.giving[user].items()) if unseen else ():
            if cut < role and any(self._binds(index, one, user) for one in bits(acts & unseen)):
                role = cut
        return OUT if self.cut_off(index, device, above) else role

    def _binds(self, index: int, other: int, user: UserId) -> bool:
        return (
            not self.levels[PROVEN] >> other & 1
            and self._register.concurrent(index, other)
            and self.counts(other, user)
        )

    def cut_off(self, index: int, device: DeviceKey, by: int) -> bool:
        """Whether one of these revocations puts the device out at an entry, or beside it."""
        past = self._register.pasts[index]
        revocations = self._register.revocations.get(device, 0) & self.total & by
        if revocations & past and self.lost(device, past):
            return True
        for branch in self.branches.get(device, ()):
            if self.vouched.get(branch.proof, 0) >> index & 1:
                revocations &= ~(1 << branch.proof)
        return any(self._register.concurrent(index, one) for one in bits(revocations & ~past))


def claimants(register: Register, case: Case) -> set[UserId]:
    """Return the users whose membership or devices a case may change."""
    users = set(case.acts)
    devices = set(case.revoked)
    for act in case.acts.values():
        devices.update(act.identity.devices if act.identity else ())
    if case.enrolled is not None:
        devices.update(case.enrolled.devices)
    for device in devices:
        users |= register.claims.get(device, set())
    for user in case.acts:
        users |= register.disputes.get(user, set())
    return users
