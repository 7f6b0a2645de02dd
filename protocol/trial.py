"""Which operations have effect (SPEC 3.3): a function of a set of control entries, never of order.

By levels, from the top; within a level in causal order:

    5  what carries its own proof: revocations by fork proof, by the user's identity key, by the
       device itself; then users who leave
    4  decisions of two thirds of the owners
    3  owners: first their checkpoints, which alone can vouch for a branch of a forked chain
    2, 1, 0  admins, members, readers

An operation's level is the role its author held in its causal past, lowered by what effective
operations of higher levels did to the author concurrently. It has effect if that level suffices.
So nothing of a lower level can change what a higher one decided, and there is no cycle.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from protocol.case import Case
from protocol.dag import Dag, bits
from protocol.entry import CONTROL, EntryId
from protocol.fork import Fork
from protocol.identity import UserId
from protocol.operation import Checkpoint
from protocol.policy import Role
from protocol.roster import OUT, PROVEN, QUORUM, Void
from protocol.standing import Effects, Register


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What was found about a set of entries that bear on membership.

    base: what this was found from, if anything is known of it; only the next one is remembered.
    changed: the users who may differ from it.
    """

    scope: int
    effects: Effects
    voids: dict[EntryId, Void]
    base: "Verdict | None"
    changed: frozenset[UserId]

    def without(self, operations: int, dag: Dag) -> "Verdict":
        """Return what is left if these operations are to be tried again."""
        effects = self.effects.without(operations)
        again = {dag.entries[index].id for index in bits(operations)} & self.voids.keys()
        voids = {entry: why for entry, why in self.voids.items() if entry not in again}
        return replace(
            self,
            scope=self.scope & ~operations,
            effects=effects,
            voids=voids if again else self.voids,
        )

    def knows(self, fork: Fork) -> bool:
        """Whether a fork's proof would add nothing."""
        if fork.lane != CONTROL:
            return self.effects.lost(fork.device, self.scope)
        return any(one.seq <= fork.seq for one in self.effects.branches.get(fork.device, ()))

    def forked(self, index: int, dag: Dag) -> bool:
        """Whether an entry counts for nothing because its chain is forked."""
        return self.effects.forked(index, dag.entries[index])


class Trial:
    """One pass over a window of operations, on top of what a base verdict found.

    What checkpoints in the base vouch for is set aside until those of the window are decided.
    """

    def __init__(self, dag: Dag, register: Register, base: Verdict) -> None:
        self.effects = base.effects.without(0)
        self._vouched = self.effects.vouched
        self.effects.vouched = {}
        self.voids: dict[EntryId, Void] = {}
        self._dag = dag
        self._register = register

    def run(self, window: Iterable[int]) -> None:
        """Decide each operation of the window, ascending."""
        pending = self._proven(list(window))
        pending = self._leaving(pending)
        for level in range(QUORUM, OUT, -1):
            if level == Role.OWNER:
                pending = self._vouching(pending)
            pending = [index for index in pending if not self._decided(index, level)]
        for index in pending:
            self._void(index, why(self._dag, self.effects, index, self._case(index).author))

    def _case(self, index: int) -> Case:
        return self._register.cases[index]

    def _void(self, index: int, reason: Void) -> None:
        self.voids[self._dag.entries[index].id] = reason
        if reason is Void.FORKED:
            self.effects.barred |= 1 << index

    def _proven(self, pending: Sequence[int]) -> list[int]:
        """Let proofs have effect, whoever brought them, and see which branches they make void."""
        for index in pending:
            if self._case(index).proven:
                self.effects.enter(index, PROVEN)
                self._fork(index)
        return [index for index in pending if not self._case(index).proven]

    def _fork(self, index: int) -> None:
        fork = self._case(index).fork
        if fork is not None and fork.lane == CONTROL:
            self.effects.expose(index, fork)

    def _forked(self, index: int) -> bool:
        return self.effects.forked(index, self._dag.entries[index])

    def _leaving(self, pending: Sequence[int]) -> list[int]:
        proofs = self.effects.levels[PROVEN]
        for index in pending:
            if not self._case(index).leave:
                continue
            if self._forked(index):
                self._void(index, Void.FORKED)
            elif self.effects.cut_off(index, self._dag.entries[index].device, proofs):
                self._void(index, Void.DEVICE)
            else:
                self.effects.enter(index, PROVEN)
        return [index for index in pending if not self._case(index).leave]

    def _vouching(self, pending: Sequence[int]) -> list[int]:
        """Let owners' checkpoints have effect, and with them the branches they vouch for."""
        checkpoints = 0
        for index in pending:
            if isinstance(self._dag.entries[index].operation, Checkpoint):
                checkpoints |= self._decided(index, Role.OWNER) << index
        self.effects.vouched = self._vouched
        self.effects.vouch(checkpoints)
        return [index for index in pending if not checkpoints >> index & 1]

    def _decided(self, index: int, level: int) -> bool:
        """Decide an operation if this is its level, and say whether it was."""
        case, entry = self._case(index), self._dag.entries[index]
        if self._forked(index) and (level < QUORUM or case.need == QUORUM):
            self._void(index, Void.FORKED)
            return True
        if level == QUORUM:
            if case.need < QUORUM:
                return False
        elif case.author is None or (
            self.effects.reach(index, case.author, entry.device, level) != level
        ):
            return False
        reason = self._refusal(index, case, level)
        if reason is None:
            self.effects.enter(index, level)
        else:
            self._void(index, reason)
        return True

    def _refusal(self, index: int, case: Case, level: int) -> Void | None:
        if level == QUORUM and not self._signed(index, case):
            return Void.UNSIGNED
        past = self._dag.pasts[index]
        lack = Void.RANK
        if case.author is not None and level < self.effects.role(case.author, past):
            lack = Void.OUTRANKED
        if level < case.need:
            return lack
        targets = [(user, act.role) for user, act in case.acts.items()]
        targets += [(user, OUT) for user in case.revoked.values() if user is not None]
        for user, role in targets:
            if max(self.effects.role(user, past), role) >= level:
                return lack
        return None

    def _signed(self, index: int, case: Case) -> bool:
        """Whether the author and enough others were owners, two thirds of them, rounded up."""
        past = self._dag.pasts[index]
        owners = {
            user for user in self._register.owners if self.effects.role(user, past) == Role.OWNER
        }
        proofs = self.effects.levels[PROVEN]
        signers = {
            user for device, user in case.signers if not self.effects.cut_off(index, device, proofs)
        }
        return case.author in signers & owners and 3 * len(signers & owners) >= 2 * len(owners)


def why(dag: Dag, effects: Effects, index: int, author: UserId | None) -> Void:
    """Say why an author has no rank at an entry, from what they had seen and had not."""
    if author is None or effects.role(author, dag.pasts[index]) == OUT:
        return Void.NOT_A_MEMBER
    if effects.cut_off(index, dag.entries[index].device, effects.total):
        return Void.DEVICE
    return Void.OUTRANKED
