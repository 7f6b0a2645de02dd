"""From operations that have effect to members and devices (SPEC 3.4)."""

from collections.abc import Iterable

from protocol.dag import Dag, bits
from protocol.entry import DeviceKey
from protocol.identity import UserId
from protocol.operation import Genesis
from protocol.policy import ChatKind, Policy, Role, combine
from protocol.roster import Member, Membership
from protocol.standing import Register
from protocol.trial import Verdict


def assemble(
    dag: Dag,
    register: Register,
    verdict: Verdict,
    earlier: Membership | None,
    changed: Iterable[UserId],
) -> Membership:
    """Return the membership that a verdict amounts to.

    earlier: a membership that differs for the users in `changed` only; None if these are all.
    """
    users = {} if earlier is None else dict(earlier.users)
    devices = {} if earlier is None else dict(earlier.devices)
    desk = _Desk(dag, register, verdict)
    members = {user: desk.member(user) for user in changed}
    for user in members:
        known = users.pop(user, None)
        for device in known.devices if known is not None else ():
            del devices[device]
    for user, member in members.items():
        if member is not None:
            users[user] = member
            devices.update(dict.fromkeys(member.devices, user))
    return Membership(desk.kind(), desk.policy(), users, devices, verdict.voids)


class _Desk:
    def __init__(self, dag: Dag, register: Register, verdict: Verdict) -> None:
        self._dag = dag
        self._register = register
        self._effects = verdict.effects

    def kind(self) -> ChatKind:
        genesis = self._dag.entries[0].operation
        assert isinstance(genesis, Genesis)
        return genesis.chat_kind

    def policy(self) -> Policy:
        found = self._register.policies & self._effects.total
        cases = self._register.cases
        return combine(
            [setting for one in bits(found) for setting in cases[one].policies],
            [setting for one in self._last(found) for setting in cases[one].policies],
        )

    def member(self, user: UserId) -> Member | None:
        """Return a user as a member, None if they are out."""
        admissions = self._admissions(user)
        if not admissions:
            return None
        chosen = min(self._last(admissions), key=lambda one: self._dag.entries[one].id)
        identity = self._effects.act(chosen, user).identity
        assert identity is not None
        devices = {
            device
            for device in self._brought(user, admissions)
            if not any(
                device in self._brought(other, self._admissions(other))
                for other in self._register.claims[device]
                if other < user
            )
        }
        return Member(identity, Role(self._effects.role(user, -1)), frozenset(devices))

    def _admissions(self, user: UserId) -> int:
        """Return the standing operations that took the user in and that no removal has seen."""
        standing = self._effects.standing(user, -1)
        gone = standing & self._register.removals.get(user, 0)
        admissions = standing & ~gone
        while gone and admissions:
            seen = self._dag.pasts[gone.bit_length() - 1]
            admissions &= ~seen
            gone &= ~seen
        return admissions

    def _brought(self, user: UserId, admissions: int) -> set[DeviceKey]:
        """Return the devices that these admissions and the user's own enrolments bring in."""
        named = self._register.named.get(user, {})
        devices = {device for device, by in named.items() if by & admissions}
        pasts = self._dag.pasts
        for one in bits(self._register.enrolments.get(user, 0) & self._effects.total):
            enrolled = self._register.cases[one].enrolled
            if enrolled is not None and pasts[one] & admissions:
                devices.update(enrolled.devices)
        return {device for device in devices if not self._effects.lost(device, -1)}

    def _last(self, found: int) -> list[int]:
        """Return the entries that none of the others has seen."""
        last = []
        while found:
            last.append(found.bit_length() - 1)
            found &= ~self._dag.pasts[last[-1]]
        return last
