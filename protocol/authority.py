"""Judging any set of control entries of a history, at the cost of what is new in it (SPEC 3.3).

Sets are cut where all entries of a part have seen all of another: what lies before such a cut is
taken from the verdict found then. So the cost is that of the part that is really concurrent.
"""

from protocol.assembly import assemble
from protocol.case import BEARING, Case, open_case, settle
from protocol.dag import ControlEntry, Dag, bits
from protocol.entry import CONTROL
from protocol.errors import Inadmissible
from protocol.identity import UserId
from protocol.operation import Checkpoint, Genesis
from protocol.roster import QUORUM, Membership
from protocol.standing import Effects, Register, claimants
from protocol.trial import Trial, Verdict

VERDICTS_MAX = 1024
MEMBERSHIPS_MAX = 256
GENESIS = 0
FIRST = 1 << GENESIS


class Authority:
    """Judges the entries of one history. All that is kept here is a cache of what follows."""

    def __init__(self, dag: Dag) -> None:
        self._dag = dag
        self.register = Register(dag.pasts)
        self._bearing = 0
        self._checkpoints = 0
        self._forks = 0
        self._after: dict[int, Verdict] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._memberships: dict[int, Membership] = {}

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
        seen = self._dag.pasts[index] & ~one
        base = self.verdict(seen)
        own = bits(self._dag.chain(entry.device) & seen)
        case = settle(entry, self.membership(seen), (self._dag.entries[other] for other in own))
        self.register.cases[index] = case
        if case.fault is None:
            self.register.enter(index, case)
            if case.fork is not None and case.fork.lane == CONTROL:
                self._forks |= one
        if isinstance(entry.operation, Checkpoint):
            self._checkpoints |= one
        self._bearing |= one
        anew = self._unsettling(one)
        start, window = (self._after[GENESIS], base.scope & ~FIRST | one) if anew else (base, one)
        self._after[index] = self._extend(start, window, keep=not anew)

    def _open(self, case: Case) -> None:
        self.register.cases[GENESIS] = case
        self.register.enter(GENESIS, case)
        self._bearing = FIRST
        effects = Effects(self.register)
        effects.enter(GENESIS, QUORUM)
        self._after[GENESIS] = Verdict(FIRST, effects, {}, (), None, frozenset())

    def _unsettling(self, scope: int) -> int:
        """Return the entries that can change what was found of their own past: forks' proofs."""
        return scope & (self._forks | (self._checkpoints if self._forks else 0))

    def verdict(self, within: int) -> Verdict:
        """Judge a set of entries that holds the past of each; not empty."""
        scope = within & self._bearing
        found = self._verdicts.get(scope)
        if found is None:
            found = self._judge(scope)
            if len(self._verdicts) >= VERDICTS_MAX:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[scope] = found
        return found

    def _judge(self, scope: int) -> Verdict:
        pasts = self._dag.pasts
        unsettling = self._unsettling(scope)
        rest, seen_by_later = scope, -1
        while True:
            last = rest.bit_length() - 1
            if seen_by_later >> last & 1 and not rest & ~pasts[last]:
                base = self._after[last]
                window = scope & ~base.scope
                return self._extend(base, window, keep=True) if window else base
            if unsettling >> last & 1:
                return self._extend(self._after[GENESIS], scope & ~FIRST, keep=False)
            seen_by_later &= pasts[last]
            rest ^= 1 << last

    def _extend(self, base: Verdict, window: int, *, keep: bool) -> Verdict:
        """Judge a window of entries that have all seen what the base is about."""
        trial = Trial(self._dag, self.register, base)
        trial.run(bits(window))
        changed: set[UserId] = set()
        for index in bits(window) if keep else ():
            changed |= claimants(self.register, self.register.cases[index])
        return Verdict(
            base.scope | window,
            trial.effects,
            {**base.voids, **trial.voids} if trial.voids else base.voids,
            tuple(trial.branches),
            base if keep else None,
            frozenset(changed),
        )

    def membership(self, within: int) -> Membership:
        """Return what a set of entries amounts to; the set holds the past of each."""
        verdict = self.verdict(within)
        found = self._memberships.get(verdict.scope)
        if found is None:
            found = self._amount(verdict)
            if len(self._memberships) >= MEMBERSHIPS_MAX:
                del self._memberships[next(iter(self._memberships))]
            self._memberships[verdict.scope] = found
        return found

    def _amount(self, verdict: Verdict) -> Membership:
        base, changed = verdict.base, set(verdict.changed)
        while base is not None and base.scope not in self._memberships:
            changed |= base.changed
            base = base.base
        if base is None:
            return assemble(self._dag, self.register, verdict, None, self.register.acts)
        earlier = self._memberships[base.scope]
        return assemble(self._dag, self.register, verdict, earlier, changed)
