"""Whoever is the only bridge between two agencies of a chat: what is said before they are gone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from client.device import Device
    from client.motions import Asked
    from protocol.chat import Chat
    from protocol.identity import UserId

OWN: Final = (
    "careful: nobody else of your agency is in this chat. Those of its other agencies that are not "
    "federated with each other hear from each other here by your node alone, and no more once you "
    "have left; ask for somebody of yours to be brought in first, if there are such"
)
OTHERS: Final = (
    "careful: nobody else of the agency of {user} is in this chat. Yours is not federated with "
    "{agencies}: the two may hear from each other here by that node alone, and no more once {user} "
    "is out"
)


def without_us(device: "Device", judge: "Chat") -> str | None:
    """Say what ends if we leave; None if nothing does."""
    from client.federated import is_bridge

    return OWN if is_bridge(device, judge) else None


def without(device: "Device", judge: "Chat", user: "UserId", name: str) -> str | None:
    """Say what ends if a member is put out; None if nothing does. name: as people know them."""
    from client.federated import behind

    if user == device.profile.user.user:
        return without_us(device, judge)
    agencies = ", ".join(behind(device, judge, user))
    return OTHERS.format(user=name, agencies=agencies) if agencies else None


def once_decided(device: "Device", judge: "Chat", asked: "Asked") -> Iterator[str]:
    """Say what ends with a decision of the owners."""
    from protocol.operation import Remove

    for one in asked.proposal.operations:
        member = judge.membership().users.get(one.user) if isinstance(one, Remove) else None
        careful = member and without(device, judge, member.user, member.name)
        if careful:
            yield careful
