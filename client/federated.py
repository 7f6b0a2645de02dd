"""With whose agencies ours is federated: whom our node reaches, and who can never tell us anything.

What a device knows of it are the cards that its node has handed on.
"""

from collections.abc import Set as AbstractSet

from client.device import Device
from protocol.chat import Chat
from protocol.entry import DeviceKey
from protocol.identity import AgencyId, UserId
from protocol.name import parse_address
from protocol.policy import Role
from protocol.roster import Membership


def trusted(device: Device, agency: AgencyId) -> bool:
    """Whether our node trusts this agency, so that its names mean what they say."""
    return (
        device.connection.execute("SELECT 1 FROM agencies WHERE id = ?", (agency,)).get is not None
    )


def strange(device: Device, chat: Chat) -> AbstractSet[AgencyId]:
    """Return the agencies of a chat that ours is not federated with."""
    return {one for one in chat.membership().agencies if not trusted(device, one)}


def is_alone(device: Device, chat: Chat) -> bool:
    """Whether nothing of a chat gets from our node to another agency of it, or back."""
    others = chat.membership().agencies - {device.profile.charter.agency}
    return bool(others) and others == strange(device, chat)


def is_bridge(device: Device, chat: Chat) -> bool:
    """Whether two other agencies hear of each other in a chat by our node, if by nobody else.

    And that ends once our owner has left: nobody else of our agency is in it. Whether they are
    federated with each other nobody here can know.
    """
    membership, ours = chat.membership(), device.profile.charter.agency
    if [user for user, one in membership.users.items() if one.agency == ours] != [
        device.profile.user.user
    ]:
        return False
    return len(membership.agencies - strange(device, chat) - {ours}) > 1


def behind(device: Device, chat: Chat, user: UserId) -> list[str]:
    """Return the agencies, not federated with ours, to which this user's may be the only bridge.

    And that ends once they are out: nobody else of their agency is in the chat.
    """
    members = chat.membership().users
    staying = [one for other, one in members.items() if other != user]
    if user not in members or members[user].agency in {one.agency for one in staying}:
        return []
    strangers = strange(device, chat)
    return sorted({parse_address(one.name).agency for one in staying if one.agency in strangers})


def reached(device: Device, membership: Membership) -> AbstractSet[DeviceKey]:
    """Return those that can open epochs, and to whose node ours can hand parcels."""
    agencies = {_agency(membership, one) for one in membership.sealed}
    near = {one for one in agencies if trusted(device, one)}
    return {one for one in membership.sealed if _agency(membership, one) in near}


def out_of_reach(device: Device, chat: Chat) -> list[str]:
    """Return the agencies at which a channel has readers to whom nobody of ours can grant keys.

    Who publishes at one of them, or is federated with it, can (SPEC 4.6).
    """
    if not chat.history.is_channel:
        return []
    membership = chat.membership()
    publishing = {_agency(membership, one) for one in membership.sealed}
    names = {
        parse_address(one.name).agency
        for one in membership.users.values()
        if one.role == Role.READER and one.agency not in publishing
        if not trusted(device, one.agency)
    }
    return sorted(names)


def _agency(membership: Membership, device: DeviceKey) -> AgencyId:
    return membership.users[membership.devices[device]].agency
