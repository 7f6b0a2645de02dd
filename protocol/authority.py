"""Judging any set of control entries of a history, at the cost of what is new in it (SPEC 3.3).

An operation that has no effect in the view of its own author is inert: void in every view, and at
no cost there. A set is judged from what one of its latest operations has seen; what is beside that,
and what this could shake, is tried again. So the cost is that of what is new and what it is about.
What owners vouch for of a forked chain, or no longer do, counts as new: their checkpoints depend on
none of that, so a first trial finds which of them count, and if that changes anything a second one
what follows.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from protocol.assembly import Assembly
from protocol.case import BEARING, Case, open_case, settle
from protocol.dag import ControlEntry, Dag, bits
from protocol.entry import CONTROL, DeviceKey, EntryId
from protocol.errors import Inadmissible
from protocol.fork import Fork
from protocol.identity import UserId
from protocol.operation import Checkpoint, Genesis, Quorum
from protocol.policy import Role
from protocol.roster import OUT, PROVEN, QUORUM, Membership, Void
from protocol.standing import Effects, Register, claimants
from protocol.trial import Trial, Verdict
from protocol.verdicts import GENESIS, Verdicts

ROSTERS_MAX = 256
LISTED_MAX = 1 << 18  # devices in the rosters that are kept: about 30 MB
FIRST = 1 << GENESIS


class _Ground(NamedTuple):
    """What a window of operations is tried on: what is kept of a base."""

    base: Verdict
    kept: Verdict
    window: int


class Authority:
    """Judges the entries of one history. All that is kept here is a cache of what follows."""

    def __init__(self, dag: Dag) -> None:
        self._dag = dag
        self.register = Register(dag.pasts)
        self._assembly = Assembly(dag, self.register)
        self._bearing = 0
        self._inert = 0
        self._faults: dict[EntryId, Void] = {}
        self._decided: dict[tuple[DeviceKey, int], int] = {}
        self._verdicts = Verdicts()
        self._rosters: dict[int, Membership] = {}
        self._listed = 0
        self._answer: tuple[int, Membership] | None = None

    def check(self, entry: ControlEntry) -> None:
        """Raise Inadmissible unless a genesis stands first, made by an owner, and nowhere else."""
        first = isinstance(entry.operation, Genesis)
        if first != (not self._dag.entries) or (first and (entry.prev or entry.links or entry.seq)):
            raise Inadmissible("a genesis stands first in its chat and nowhere else (SPEC 3.2)")
        if isinstance(entry.operation, Genesis):
            open_case(entry.operation, entry.device)

    def admit(self, index: int) -> None:
        """Take up the entry that the history got last."""
        entry = self._dag.entries[index]
        if not isinstance(entry.operation, BEARING):
            return
        one = 1 << index
        if isinstance(entry.operation, Genesis):
            self._open(open_case(entry.operation, entry.device))
            return
        base = self.verdict(self._dag.pasts[index] & ~one)
        case = self._settled(entry, index, base)
        self.register.cases[index] = case
        if case.fault is not None:
            self._be_inert(index, case.fault)
            return
        if isinstance(entry.operation, Checkpoint):
            if not self._may_vouch(index, case, base):
                return
            self.register.checkpoints |= one
        shaken = 0 if case.fork is None else self._shaken(base, one)
        ground, trial = self._tried(base, one, shaken)
        if entry.id in trial.voids:
            self.register.cases[index] = replace(case, fault=trial.voids[entry.id])
            self._be_inert(index, trial.voids[entry.id])
            return
        self.register.enter(index, case)
        self._bearing |= one
        self._verdicts.keep(index, self._found(ground, trial))

    def _be_inert(self, index: int, fault: Void) -> None:
        self._inert |= 1 << index
        self._faults[self._dag.entries[index].id] = fault

    def _settled(self, entry: ControlEntry, index: int, base: Verdict) -> Case:
        earlier = (self._dag.entries[other] for other in self._decided_before(entry, index))
        holder = partial(base.effects.holder, within=base.scope)
        case = settle(entry, self.roster(base.scope), earlier, holder)
        if case.fault is None and case.fork is not None and base.knows(case.fork):
            return replace(case, fault=Void.KNOWN)
        return case

    def _decided_before(self, entry: ControlEntry, index: int) -> Iterator[int]:
        """Return the decisions with the `until` of this one, earlier in its chain; note it."""
        if not isinstance(entry.operation, Quorum):
            return bits(0)
        place = entry.device, entry.operation.until
        known = self._decided.get(place, 0)
        self._decided[place] = known | 1 << index
        return bits(known & self._dag.pasts[index])

    def _may_vouch(self, index: int, case: Case, base: Verdict) -> bool:
        """Whether a checkpoint bears on membership: an owner's who knows of a forked chain."""
        role = OUT if case.author is None else base.effects.role(case.author, base.scope)
        return (
            bool(base.effects.branches) and role == Role.OWNER and not base.forked(index, self._dag)
        )

    def _open(self, case: Case) -> None:
        self.register.cases[GENESIS] = case
        self.register.enter(GENESIS, case)
        self._bearing = FIRST
        effects = Effects(self.register)
        effects.enter(GENESIS, QUORUM)
        self._verdicts.keep(GENESIS, Verdict(FIRST, effects, {}, None, frozenset()))

    @property
    def bearing(self) -> int:
        """The entries that membership depends on in some view: equal sets, equal verdicts."""
        return self._bearing

    def bears(self, index: int) -> bool:
        """Whether membership depends on an entry in any view that holds it."""
        return bool(self._bearing >> index & 1)

    def departures(self, within: int) -> int:
        """Return the effective operations of a set that put out a user or a device."""
        return self.register.departures & self.verdict(within).effects.total

    def entrances(self, device: DeviceKey, within: int) -> int:
        """Return the effective operations of a set that brought a device in."""
        return self.introductions(device) & self.verdict(within).effects.total

    def introductions(self, device: DeviceKey) -> int:
        """Return the entries that name a device to bring it in, with or without effect."""
        register = self.register
        found = register.listings.get(device, 0)
        for user in register.claims.get(device, ()):
            found |= register.enrolments.get(user, {}).get(device, 0)
        return found

    def introducers(self, user: UserId) -> AbstractSet[DeviceKey]:
        """Return the devices that wrote of a user's membership, with or without effect."""
        return {self._dag.entries[one].device for one in bits(self.register.acts.get(user, 0))}

    def verdict(self, within: int) -> Verdict:
        """Judge a set of entries that holds the past of each; not empty."""
        scope = within & self._bearing
        found = self._verdicts.get(scope)
        if found is None:
            found = self._judge(scope)
            self._verdicts.remember(found)
        return found

    def _judge(self, scope: int) -> Verdict:
        base = self._verdicts.nearest(scope)
        window = scope & ~base.scope
        if not window:
            return base
        return self._found(*self._tried(base, window, self._shaken(base, window)))

    def _tried(self, base: Verdict, window: int, shaken: int) -> tuple[_Ground, Trial]:
        """Try a window, and what it shakes; then also what other checkpoints vouch for now."""
        ground = self._ground(base, window, shaken)
        trial = self._run(ground)
        vouched = self._vouched_otherwise(base, ground, trial.effects)
        if vouched:
            ground = self._ground(base, window, self._shaken(base, window, vouched))
            trial = self._run(ground)
        return ground, trial

    def _ground(self, base: Verdict, window: int, shaken: int) -> _Ground:
        kept = base.without(shaken, self._dag) if shaken else base
        return _Ground(base, kept, window | shaken)

    def _vouched_otherwise(self, base: Verdict, ground: _Ground, found: Effects) -> int:
        """Return what a trial left alone, and other checkpoints vouch for than in its base.

        No checkpoint is among it: they are decided before any vouches.
        """
        if not ground.window & self.register.checkpoints:
            return 0
        changed = 0
        for device, branches in base.effects.branches.items():
            differs = 0
            for one in branches:
                before = base.effects.vouched.get(one.proof, 0)
                differs |= before ^ found.vouched.get(one.proof, 0)
            changed |= differs & self._dag.chain(device)
        fixed = FIRST | self.register.proven | self.register.checkpoints
        return changed & base.scope & ~fixed & ~ground.window

    def _shaken(self, base: Verdict, window: int, vouched: int = 0) -> int:
        """Return those operations of a base that a window beside it could possibly change.

        vouched: those of a forked chain that are vouched for otherwise, which count as if new.

        Whether an operation has effect depends on its own past, and on what is beside it about its
        author or their device. So it is shaken by an operation of the window, or by a shaken one,
        that acts on its author or puts out its device; or if it comes after a shaken one and is
        about the same user. Decisions of a quorum depend on the devices of owners, and on who were
        owners in their past. What carries its own proof depends on nothing.
        """
        found, fresh = vouched, window | vouched
        while fresh:
            concerned = 0
            for index in bits(fresh):
                concerned |= self._reached(index)
                if (window | vouched) >> index & 1:
                    concerned |= self._cut_short(base, index)
                if not window >> index & 1:
                    concerned |= self._following(index)
            fresh = concerned & base.scope & ~FIRST & ~self.register.proven & ~found
            found |= fresh
        return found

    def _reached(self, index: int) -> int:
        """Return what is by those whom an operation acts on, as far as that can reach.

        Beside nothing else about a user it only lowers, and what it has not seen. A quorum does not
        ask for reach.
        """
        found = 0
        for user, act in self.register.cases[index].acts.items():
            authored = self.register.authored.get(user, 0)
            if index not in self.register.beside.get(user, {}):
                authored = 0 if act.role == Role.OWNER else authored & ~self._dag.pasts[index]
            found |= authored
        return found & ~self.register.quorums

    def _cut_short(self, base: Verdict, index: int) -> int:
        """Return what is by the devices that a new operation puts out, or was decided with them.

        What another proof has cut off already stays so, whoever brings more of them.
        """
        register, case = self.register, self.register.cases[index]
        found = 0
        for device in case.revoked:
            cut = chain = self._dag.chain(device)
            if case.proven and register.claims.get(device, set()) & register.owners:
                cut |= register.quorums
            cut &= ~self._dag.pasts[index]
            for other in bits(register.revocations.get(device, 0) & base.effects.levels[PROVEN]):
                cut &= self._dag.pasts[other] | base.effects.vouched.get(other, 0) & chain
            found |= cut
            if case.fork is not None and case.fork.lane == CONTROL:
                found |= self._exposed(base, chain, case.fork)
        return found

    def _exposed(self, base: Verdict, chain: int, fork: Fork) -> int:
        """Return what a fork's proof makes void of a chain, and no other one has."""
        left = chain & base.scope & ~base.effects.barred
        return sum(1 << one for one in bits(left) if self._dag.entries[one].seq >= fork.seq)

    def _following(self, index: int) -> int:
        """Return what may have built on a shaken operation."""
        register, case = self.register, self.register.cases[index]
        if not (case.acts or case.revoked):
            return 0
        touched = claimants(register, case)
        later = register.quorums if touched & register.owners else 0
        for user in touched:
            later |= register.concerns.get(user, 0) | register.authored.get(user, 0)
        found = later >> index << index
        for device in case.revoked:
            found |= self._dag.chain(device)
        return found

    def _run(self, ground: _Ground) -> Trial:
        trial = Trial(self._dag, self.register, ground.kept)
        trial.run(bits(ground.window))
        return trial

    def _found(self, ground: _Ground, trial: Trial) -> Verdict:
        changed: set[UserId] = set()
        for index in bits(ground.window):
            changed |= claimants(self.register, self.register.cases[index])
        kept, base = ground.kept, ground.base
        if base.scope in self._rosters:
            origin: Verdict | None = replace(base, base=None)
        else:
            origin = base.base
            changed |= base.changed
        return Verdict(
            kept.scope | ground.window,
            trial.effects,
            {**kept.voids, **trial.voids} if trial.voids else kept.voids,
            origin,
            frozenset(changed),
        )

    def membership(self, within: int) -> Membership:
        """Return what a set of entries amounts to; the set holds the past of each."""
        roster = self.roster(within)
        if not within & self._inert:
            return roster
        if self._answer is None or self._answer[0] != within:
            self._answer = within, replace(roster, void=self._voids(roster, within & self._inert))
        return self._answer[1]

    def _voids(self, roster: Membership, inert: int) -> Mapping[EntryId, Void]:
        if inert == self._inert:
            return {**roster.void, **self._faults}
        held = (self._dag.entries[index].id for index in bits(inert))
        return {**roster.void, **{entry: self._faults[entry] for entry in held}}

    def roster(self, within: int) -> Membership:
        """Return the same, but `void` lacks what is void in every view."""
        verdict = self.verdict(within)
        found = self._rosters.get(verdict.scope)
        if found is None:
            found = self._amount(verdict)
            self._keep(verdict.scope, found)
        return found

    def _keep(self, scope: int, roster: Membership) -> None:
        """Hold a roster; the oldest go, by number, and by the members in all of them."""
        self._rosters[scope] = roster
        self._listed += len(roster.devices)
        while len(self._rosters) > 1 and (
            len(self._rosters) > ROSTERS_MAX or self._listed > LISTED_MAX
        ):
            oldest = self._rosters.pop(next(iter(self._rosters)))
            self._listed -= len(oldest.devices)

    def _amount(self, verdict: Verdict) -> Membership:
        base, changed = verdict.base, set(verdict.changed)
        while base is not None and base.scope not in self._rosters:
            changed |= base.changed
            base = base.base
        if base is None:
            return self._assembly.of(verdict, None, self.register.acts)
        earlier = self._rosters[base.scope]
        return self._assembly.of(verdict, earlier, changed)
