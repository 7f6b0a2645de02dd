"""What owners have been asked to decide, and who has signed (SPEC 5.9). Reads only.

`compose` makes a proposal, `deciding` signs one and publishes what is decided.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from msgspec import convert

from client.chats import void_of
from client.device import Device
from client.mailbox import State
from protocol.chat import Chat
from protocol.entry import DeviceKey, Reference
from protocol.grant import Grant
from protocol.identity import UserId
from protocol.message import decode_message
from protocol.operation import Admit, CoSignature, Inner, Quorum, Remove, Revoke, SetPolicy, SetRole
from protocol.policy import Role
from protocol.proposal import Consent, Proposal, needed, signs

UNTIL_ENTRIES_MAX = 1024  # what an owner signs is over some day
UNTIL_ENTRIES = 64  # control entries of the proposer's, epochs above all, while it is open; guess
_BEGINS = (b"\x93\x04", b"\x93\x05")  # arrays of three: a proposal, a consent


class Stand(Enum):
    """How far a proposal is, in words for people."""

    OPEN = "open"
    DECIDED = "decided"
    VOID = "decided, without effect"
    OVER = "over: it was not signed in time"


@dataclass(frozen=True, slots=True)
class Asked:
    """A proposal. signed: by owner, the author's own not among them. owners: who they are now."""

    place: Reference
    proposal: Proposal
    signed: Mapping[UserId, CoSignature]
    author: UserId | None
    owners: frozenset[UserId]
    stand: Stand

    @property
    def agreed(self) -> int:
        """How many owners have signed, the author included."""
        return len(self.signed) + (self.author in self.owners)

    @property
    def needed(self) -> int:
        """How many it takes."""
        return needed(len(self.owners))

    @property
    def ready(self) -> bool:
        """Whether its author can publish it."""
        enough = self.author in self.owners and self.agreed >= self.needed
        return self.stand is Stand.OPEN and enough


def owners(chat: Chat) -> frozenset[UserId]:
    """Return the owners of a chat as we know it."""
    users = chat.membership().users
    return frozenset(user for user, member in users.items() if member.role is Role.OWNER)


def motions(device: Device, chat: Chat) -> list[Asked]:
    """Return the proposals of a chat, in its order."""
    consents: dict[Reference, list[CoSignature]] = {}
    proposals: list[tuple[Reference, Proposal]] = []
    for place, message in _read(device, chat):
        if isinstance(message, Proposal):
            proposals.append((place, message))
        else:
            found = CoSignature(place.device, message.signature)
            consents.setdefault(message.proposal, []).append(found)
    return [_asked(chat, place, one, consents.get(place, [])) for place, one in proposals]


def _read(device: Device, chat: Chat) -> Iterator[tuple[Reference, Proposal | Consent]]:
    rows = device.connection.execute(
        "SELECT device, seq, id, plaintext FROM mailbox WHERE chat = ? AND state = ?"
        " AND substr(plaintext, 1, 2) IN (?, ?) ORDER BY depth, time, id",
        (chat.id, State.OPEN, *_BEGINS),
    ).fetchall()
    for place, plaintext in convert(
        [(row[:3], row[3]) for row in rows], list[tuple[Reference, bytes]]
    ):
        message = decode_message(plaintext)
        if isinstance(message, Proposal | Consent) and void_of(device, chat, place) is None:
            yield place, message


def _asked(
    chat: Chat, place: Reference, proposal: Proposal, consents: Sequence[CoSignature]
) -> Asked:
    membership, entitled = chat.membership(), owners(chat)
    author = membership.devices.get(place.device)
    signed: dict[UserId, CoSignature] = {}
    for one in consents:
        user = membership.devices.get(one.device)
        if user is None or user not in entitled - {author}:
            continue
        if signs(chat.id, place.device, proposal, one.device, one.signature):
            signed.setdefault(user, one)
    return Asked(place, proposal, signed, author, entitled, _stand(chat, place.device, proposal))


def _stand(chat: Chat, author: DeviceKey, proposal: Proposal) -> Stand:
    for entry in chat.history.entries:
        operation = entry.operation
        if (
            isinstance(operation, Quorum)
            and entry.device == author
            and operation.until == proposal.until
        ):
            void = chat.membership().void.get(entry.id)
            same = operation.operations == proposal.operations
            return Stand.DECIDED if void is None and same else Stand.VOID
    return Stand.OVER if chat.history.length(author) > proposal.until else Stand.OPEN


def next_until(device: Device, chat: Chat) -> int:
    """Return the `until` of our next proposal: no two of one device have the same."""
    used = [one.proposal.until for one in motions(device, chat) if one.place.device == device.key]
    return max([chat.history.length(device.key) + UNTIL_ENTRIES, *(until + 1 for until in used)])


def describe(chat: Chat, operation: Inner) -> list[str]:
    """Return in words what an operation would do now. Names are what certificates say."""
    match operation:
        case Admit(grants):
            return [_granted(chat, one) for one in grants]
        case Remove(user):
            return [f"remove {_who(chat, user)}"]
        case SetRole(user, role):
            return [f"make {_who(chat, user)} {role.name.lower()}"]
        case Revoke(device):
            member = chat.membership().member_of(device)
            whose = "nobody here" if member is None else _who(chat, member.user)
            return [f"put out device {device.hex()[:16]} of {whose}"]
        case SetPolicy(policy):
            kept = f"{policy.retention} s" if policy.retention else "for ever"
            rule = policy.history.name.lower().replace("_", " ")
            return [f"set zones {', '.join(policy.zones)}, keep {kept}, history {rule}"]


def _granted(chat: Chat, grant: Grant) -> str:
    identity = grant.credential.user
    role = grant.role.name.lower()
    if identity.user in chat.membership().users:
        return f"make {_who(chat, identity.user)} {role}"
    return f"take in {identity.name} (key {identity.user.hex()[:16]}) as {role}"


def _who(chat: Chat, user: UserId) -> str:
    member = chat.membership().users.get(user)
    if member is None:
        return f"user {user.hex()[:16]}, who is not in the chat"
    return f"{member.name} (now {member.role.name.lower()})"
