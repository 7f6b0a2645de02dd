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
from node.words import lasting
from protocol.chat import Chat
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.grant import Grant
from protocol.identity import UserId
from protocol.membership import Membership, resolve
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
    """A proposal. signed: by owner, the author's own not among them. owners: who they are.

    membership: what it is judged by: that of now, or that of when it was published.
    """

    place: Reference
    proposal: Proposal
    signed: Mapping[UserId, CoSignature]
    author: UserId | None
    owners: frozenset[UserId]
    stand: Stand
    membership: Membership

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

    @property
    def words(self) -> list[str]:
        """What it would do, or did, line by line."""
        at = "then" if self.stand in {Stand.DECIDED, Stand.VOID} else "now"
        operations = self.proposal.operations
        return [line for one in operations for line in _said(self.membership, one, at)]


def owners(chat: Chat) -> frozenset[UserId]:
    """Return the owners of a chat as we know it."""
    return _owners(chat.membership())


def _owners(membership: Membership) -> frozenset[UserId]:
    users = membership.users
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
    decision = _decision(chat, place.device, proposal)
    stand = _stand(chat, place.device, proposal, decision)
    membership = chat.membership()
    if decision is not None:  # which may have changed who is in, and whose consent counts
        membership = resolve(chat.history, chat.history.past_of(decision.id))
        consents = [*decision.operation.signatures, *consents]
    author, entitled = membership.devices.get(place.device), _owners(membership)
    signed: dict[UserId, CoSignature] = {}
    for one in consents:
        user = membership.devices.get(one.device)
        if user is None or user not in entitled - {author}:
            continue
        if signs(chat.id, place.device, proposal, one.device, one.signature):
            signed.setdefault(user, one)
    return Asked(place, proposal, signed, author, entitled, stand, membership)


@dataclass(frozen=True, slots=True)
class _Decision:
    """The entry that published a proposal."""

    id: EntryId
    operation: Quorum


def _decision(chat: Chat, author: DeviceKey, proposal: Proposal) -> _Decision | None:
    """Return the entry that published a proposal, None if there is none."""
    for entry in chat.history.entries:
        operation = entry.operation
        if (
            isinstance(operation, Quorum)
            and entry.device == author
            and operation.until == proposal.until
        ):
            return _Decision(entry.id, operation)
    return None


def _stand(chat: Chat, author: DeviceKey, proposal: Proposal, decision: _Decision | None) -> Stand:
    if decision is None:
        return Stand.OVER if chat.history.length(author) > proposal.until else Stand.OPEN
    same = decision.operation.operations == proposal.operations
    void = chat.membership().void.get(decision.id)
    return Stand.DECIDED if void is None and same else Stand.VOID


def next_until(device: Device, chat: Chat) -> int:
    """Return the `until` of our next proposal: no two of one device have the same."""
    used = [one.proposal.until for one in motions(device, chat) if one.place.device == device.key]
    return max([chat.history.length(device.key) + UNTIL_ENTRIES, *(until + 1 for until in used)])


def _said(membership: Membership, operation: Inner, at: str) -> list[str]:
    """Return in words what an operation does. Names are what certificates say. at: now or then."""
    match operation:
        case Admit(grants):
            return [_granted(membership, one, at) for one in grants]
        case Remove(user):
            return [f"remove {_who(membership, user, at)}"]
        case SetRole(user, role):
            return [f"make {_who(membership, user, at)} {role.name.lower()}"]
        case Revoke(device):
            member = membership.member_of(device)
            whose = "nobody here" if member is None else _who(membership, member.user, at)
            return [f"put out device {device.hex()[:16]} of {whose}"]
        case SetPolicy(policy):
            kept = lasting(policy.retention) if policy.retention else "for ever"
            rule = policy.history.name.lower().replace("_", " ")
            return [f"set zones {', '.join(policy.zones)}, keep {kept}, history {rule}"]


def _granted(membership: Membership, grant: Grant, at: str) -> str:
    identity = grant.credential.user
    role = grant.role.name.lower()
    if identity.user in membership.users:
        return f"make {_who(membership, identity.user, at)} {role}"
    return f"take in {identity.name} (key {identity.user.hex()[:16]}) as {role}"


def _who(membership: Membership, user: UserId, at: str) -> str:
    member = membership.users.get(user)
    if member is None:
        return f"user {user.hex()[:16]}, who is not in the chat"
    return f"{member.name} ({at} {member.role.name.lower()})"
