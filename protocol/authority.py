"""Judging any set of control entries of a history, at the cost of what is new in it (SPEC 3.3).

An operation that has no effect in the view of its own author is inert: void in every view, and at
no cost there. A set is judged from what one of its latest operations has seen; what is beside that,
and what this could shake, is tried again. So the cost is that of what is new and what it is about.
Only what owners vouch for of a forked chain reaches further, and there all is judged anew.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from protocol.assembly import Assembly
from protocol.case import BEARING, Case, open_case, settle
from protocol.dag import ControlEntry, Dag, bits
from protocol.entry import DeviceKey, EntryId
from protocol.errors import Inadmissible
from protocol.identity import UserId
from protocol.operation import Checkpoint, Genesis
from protocol.policy import Role
from protocol.roster import OUT, QUORUM, Membership, Void
from protocol.standing import Effects, Register, claimants
from protocol.trial import Trial, Verdict

VERDICTS_MAX = 1024
ROSTERS_MAX = 256
LISTED_MAX = 1 << 18  # devices in the rosters that are kept: about 30 MB
LATEST = 8  # guess
GENESIS = 0
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
        self._unsettling = 0
        self._after: dict[int, Verdict] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._rosters: dict[int, Membership] = {}
        self._listed = 0

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
            self._inert |= one
            return
        if isinstance(entry.operation, Checkpoint):
            if not self._may_vouch(index, case, base):
                return
            self._unsettling |= one
        shaken = 0 if case.fork is None else self._shaken(base, one)
        ground = self._ground(base, one, shaken)
        trial = self._tried(ground)
        if entry.id in trial.voids:
            self.register.cases[index] = replace(case, fault=trial.voids[entry.id])
            self._inert |= one
            return
        self.register.enter(index, case)
        self._bearing |= one
        self._after[index] = self._found(ground, trial)

    def _settled(self, entry: ControlEntry, index: int, base: Verdict) -> Case:
        chain = bits(self._dag.chain(entry.device) & self._dag.pasts[index] & ~(1 << index))
        earlier = (self._dag.entries[other] for other in chain)
        holder = partial(base.effects.holder, within=base.scope)
        case = settle(entry, self.roster(base.scope), earlier, holder)
        if case.fault is None and case.fork is not None and base.knows(case.fork):
            return replace(case, fault=Void.KNOWN)
        return case

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
        self._after[GENESIS] = Verdict(FIRST, effects, {}, None, frozenset())

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

    def introductions(self, device: DeviceKey) -> int:
        """Return the entries that brought a device in."""
        register = self.register
        found = register.listings.get(device, 0)
        for user in register.claims.get(device, ()):
            for index in bits(register.enrolments.get(user, 0)):
                enrolled = register.cases[index].enrolled
                if enrolled is not None and device in enrolled.devices:
                    found |= 1 << index
        return found

    def verdict(self, within: int) -> Verdict:
        """Judge a set of entries that holds the past of each; not empty."""
        scope = within & self._bearing
        whole = self._after.get(scope.bit_length() - 1)
        if whole is not None and whole.scope == scope:
            return whole
        found = self._verdicts.get(scope)
        if found is None:
            found = self._judge(scope)
            if len(self._verdicts) >= VERDICTS_MAX:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[scope] = found
        return found

    def _judge(self, scope: int) -> Verdict:
        base = self._nearest(scope)
        window = scope & ~base.scope
        if not window:
            return base
        ground = self._ground(base, window, self._shaken(base, window))
        return self._found(ground, self._tried(ground))

    def _ground(self, base: Verdict, window: int, shaken: int) -> _Ground:
        """Return what to try a window on; all anew, if what owners vouch for could change."""
        if (window | shaken) & self._unsettling:
            return self._start(base.scope | window)
        kept = base.without(shaken, self._dag) if shaken else base
        return _Ground(base, kept, window | shaken)

    def _nearest(self, scope: int) -> Verdict:
        """Return a verdict to start from, of what one of the latest operations has seen."""
        latest: list[int] = []
        rest = scope
        while rest and len(latest) < LATEST:
            latest.append(rest.bit_length() - 1)
            rest ^= 1 << latest[-1]
        found = max(latest, key=lambda index: self._after[index].scope.bit_count())
        return self._after[found]

    def _shaken(self, base: Verdict, window: int) -> int:
        """Return those operations of a base that a window beside it could possibly change.

        Whether an operation has effect depends on its own past, and on what is beside it about its
        author. So it is shaken if its author is whom an operation of the window, or a shaken one,
        is about; or if it comes after a shaken one and is about the same user. Decisions of a
        quorum depend on all who ever were owners. What carries its own proof depends on nothing.
        """
        register = self.register
        found, fresh = 0, window
        while fresh:
            concerned = 0
            for index in bits(fresh):
                touched = claimants(register, register.cases[index])
                for user in touched:
                    concerned |= register.authored.get(user, 0)
                    if not window >> index & 1:
                        concerned |= register.concerns.get(user, 0) >> index << index
                if touched & register.owners:
                    concerned |= register.quorums
            fresh = concerned & base.scope & ~FIRST & ~register.proven & ~found
            found |= fresh
        return found

    def _start(self, scope: int) -> _Ground:
        first = self._after[GENESIS]
        return _Ground(first, first, scope & ~FIRST)

    def _tried(self, ground: _Ground) -> Trial:
        trial = Trial(self._dag, self.register, ground.kept)
        trial.run(bits(ground.window))
        return trial

    def _found(self, ground: _Ground, trial: Trial) -> Verdict:
        changed: set[UserId] = set()
        for index in bits(ground.window):
            changed |= claimants(self.register, self.register.cases[index])
        kept = ground.kept
        return Verdict(
            kept.scope | ground.window,
            trial.effects,
            {**kept.voids, **trial.voids} if trial.voids else kept.voids,
            ground.base,
            frozenset(changed),
        )

    def membership(self, within: int) -> Membership:
        """Return what a set of entries amounts to; the set holds the past of each."""
        roster = self.roster(within)
        inert = within & self._inert
        return replace(roster, void=self._voids(roster, inert)) if inert else roster

    def _voids(self, roster: Membership, inert: int) -> Mapping[EntryId, Void]:
        found = dict(roster.void)
        for index in bits(inert):
            fault = self.register.cases[index].fault
            assert fault is not None
            found[self._dag.entries[index].id] = fault
        return found

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
