"""From operations that have effect to members and devices (SPEC 3.4)."""

from collections.abc import Iterable
from functools import reduce

from protocol.dag import Dag, bits
from protocol.entry import DeviceKey
from protocol.identity import UserId
from protocol.operation import Genesis
from protocol.policy import ChatKind, Policy, Role, combine, fewest, narrow
from protocol.roster import Member, Membership
from protocol.standing import Register
from protocol.trial import Verdict

SETTINGS_KEPT = 64  # sets of settings of which it is known where they meet; guess


class Zones:
    """The zones in which settings meet, found at the cost of those that are new in a set."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._known: dict[int, tuple[str, ...]] = {}

    def of(self, settings: int) -> tuple[str, ...]:
        """Return where all settings of a set meet; the genesis is one of them."""
        found = self._known.get(settings)
        if found is None:
            found = self._found(settings)
            if len(self._known) >= SETTINGS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[settings] = found
        return found

    def _found(self, settings: int) -> tuple[str, ...]:
        within = [one for one in self._known if not one & ~settings]
        nearest = max(within, key=int.bit_count, default=0)
        added = [
            setting.zones
            for one in bits(settings & ~nearest)
            for setting in self._register.cases[one].policies
        ]
        if not nearest:
            return reduce(narrow, added[1:], fewest(added[0]))
        return reduce(narrow, added, self._known[nearest])


class Assembly:
    """Makes memberships of what was found about the sets of one history."""

    def __init__(self, dag: Dag, register: Register) -> None:
        self._dag = dag
        self._register = register
        self._zones = Zones(register)

    def of(
        self, verdict: Verdict, earlier: Membership | None, changed: Iterable[UserId]
    ) -> Membership:
        """Return the membership that a verdict amounts to.

        earlier: a membership that differs for the users in `changed` only; None if these are all.
        """
        users = {} if earlier is None else dict(earlier.users)
        devices = {} if earlier is None else dict(earlier.devices)
        desk = _Desk(self._dag, self._register, verdict)
        members = {user: desk.member(user) for user in changed}
        for user in members:
            known = users.pop(user, None)
            for device in known.devices if known is not None else ():
                del devices[device]
        for user, member in members.items():
            if member is not None:
                users[user] = member
                devices.update(dict.fromkeys(member.devices, user))
        policy = desk.policy(self._zones)
        return Membership(desk.kind(), policy, users, devices, verdict.voids)


class _Desk:
    def __init__(self, dag: Dag, register: Register, verdict: Verdict) -> None:
        self._dag = dag
        self._register = register
        self._effects = verdict.effects

    def kind(self) -> ChatKind:
        genesis = self._dag.entries[0].operation
        assert isinstance(genesis, Genesis)
        return genesis.chat_kind

    def policy(self, zones: Zones) -> Policy:
        found = self._register.policies & self._effects.total
        cases = self._register.cases
        latest = [setting for one in self._last(found) for setting in cases[one].policies]
        return combine(zones.of(found), latest)

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
        standing = self._effects.standing(user)
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
        pasts, effective = self._dag.pasts, self._effects.total
        for device, by in self._register.enrolments.get(user, {}).items():
            if any(pasts[one] & admissions for one in bits(by & effective)):
                devices.add(device)
        return {device for device in devices if not self._effects.lost(device, -1)}

    def _last(self, found: int) -> list[int]:
        """Return the entries that none of the others has seen."""
        last = []
        while found:
            last.append(found.bit_length() - 1)
            found &= ~self._dag.pasts[last[-1]]
        return last
