"""Who is in a chat, and why an entry counts for nothing (SPEC 3.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

from protocol.entry import DeviceKey, EntryId
from protocol.identity import AgencyId, UserId, VerifiedUser
from protocol.policy import ChatKind, Policy, Role

OUT: Final = -1  # the role of whoever is not in the chat
QUORUM: Final = 4  # the level above owners
PROVEN: Final = 5  # the level of what carries its own proof: no rank is asked for


class Void(Enum):
    """Why an entry has no effect, in words for people."""

    NOT_A_MEMBER = "its author was no member"
    RANK = "its author's role does not suffice"
    OUTRANKED = "its author was removed or demoted by a higher role that had not seen it"
    DEVICE = "its device was revoked"
    FORKED = "its device's chain is forked here, and no owner vouched for this branch"
    REMOVED = "its author was removed, and whoever did so had not seen it"
    DIRECT = "nobody joins, leaves by force or changes role in a direct chat"
    STRANGER = "it is about someone who was no member"
    TAKEN = "it names a device of another user"
    AGENCY = "it names a member under another agency"
    LOWERS = "a grant does not lower a role"
    LIMIT = "it would bring in more devices than allowed"
    NOWHERE = "it would leave no zone that may hold the chat"
    REPLAYED = "this decision of the owners was used already, or is past its end"
    KNOWN = "it proves a fork that was known already"
    UNSIGNED = "fewer than two thirds of the owners signed"


@dataclass(frozen=True, slots=True)
class Member:
    """A user in the chat. devices: those that receive and may write."""

    identity: VerifiedUser
    role: Role
    devices: frozenset[DeviceKey]

    @property
    def user(self) -> UserId:
        """The user's id."""
        return self.identity.user

    @property
    def name(self) -> str:
        """The stable name, anna@minzdrav."""
        return self.identity.name

    @property
    def agency(self) -> AgencyId:
        """The agency that vouches for the user."""
        return self.identity.agency

    @property
    def zone(self) -> str:
        """The zone of that agency."""
        return self.identity.zone


@dataclass(frozen=True)
class Membership:
    """What a set of control entries amounts to. Equal sets give equal memberships."""

    kind: ChatKind
    policy: Policy
    users: Mapping[UserId, Member]
    devices: Mapping[DeviceKey, UserId]
    void: Mapping[EntryId, Void]

    @cached_property
    def agencies(self) -> frozenset[AgencyId]:
        """The agencies whose nodes may hold the chat: with a member inside the zones of the policy.

        Members of one agency can have charters of different zones.
        """
        homes = {(member.agency, member.zone) for member in self.users.values()}
        return frozenset(agency for agency, zone in homes if self.policy.allows(zone))

    @cached_property
    def sealed(self) -> frozenset[DeviceKey]:
        """The devices that epochs are sealed for: in a channel those of who may write (4.6)."""
        if self.kind is not ChatKind.CHANNEL:
            return frozenset(self.devices)
        writers = (one for one in self.users.values() if one.role >= Role.MEMBER)
        return frozenset(device for one in writers for device in one.devices)

    def member_of(self, device: DeviceKey) -> Member | None:
        """Return the member whose device this is."""
        user = self.devices.get(device)
        return None if user is None else self.users[user]

    def may_write(self, device: DeviceKey) -> bool:
        """Whether this device may write content: it is one of a member above reader."""
        member = self.member_of(device)
        return member is not None and member.role >= Role.MEMBER
