"""What a device's owner decides about keeping: redact a message, set the policy, name a custodian.

Call each inside one transaction, as those of `compose`. What would have no effect is refused before
anything is kept of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec import convert

from client.compose import refusal, require, require_zone
from client.device import Device
from client.epochs import start_epoch
from client.mailbox import State
from client.writing import append_control
from node.errors import RefusedError, UserError
from protocol.chat import Chat
from protocol.entry import CONTENT, ChatId, EntryId, Reference
from protocol.errors import PeerError, Untrusted
from protocol.identity import AgencyId, NodeId, UserId, verify_card
from protocol.membership import resolve, void_reason
from protocol.message import Edit, decode_message
from protocol.operation import Hold, Operation, Redact, SetPolicy
from protocol.policy import Policy
from protocol.receipt import Receipt, verify_receipt
from protocol.redaction import custodians

_EDIT_BEGINS = b"\x93\x03"  # an array of three, the first of which is Edit's number


def redact(device: Device, chat: ChatId, place: Reference, reason: str, now: int) -> list[EntryId]:
    """Redact a message, and its author's later texts for it; return the ids of what is redacted.

    now: milliseconds. Raises RefusedError if we may not.
    """
    judge = require(device, chat)
    if place in judge.redactions.of():
        raise UserError("that message is redacted already; 'ivor log show --redactions' tells more")
    targets = [place, *_edits(device, judge, place)]
    for target in targets:
        _append(device, judge, Redact(target.device, CONTENT, target.seq, target.id, reason), now)
    return [target.id for target in targets]


def _edits(device: Device, judge: Chat, place: Reference) -> Iterator[Reference]:
    """Yield the readable edits of a message that are not redacted yet."""
    rows = device.connection.execute(
        "SELECT device, seq, id, plaintext FROM mailbox WHERE chat = ? AND state = ?"
        " AND substr(plaintext, 1, 2) = ? ORDER BY no",
        (judge.id, State.OPEN, _EDIT_BEGINS),
    ).fetchall()
    author = judge.history.users_of(place.device)
    for reference, plaintext in convert(
        [(row[:3], row[3]) for row in rows], list[tuple[Reference, bytes]]
    ):
        message = decode_message(plaintext)
        same = not author.isdisjoint(judge.history.users_of(reference.device))
        if isinstance(message, Edit) and message.target == place and same:
            yield reference


def set_policy(device: Device, chat: ChatId, policy: Policy, now: int) -> None:
    """Set zones, retention and history; what joiners get is told apart by an epoch.

    Raises RefusedError if we may not.
    """
    judge = require(device, chat)
    require_zone(device, policy)
    before = judge.membership().policy
    _append(device, judge, SetPolicy(policy), now)
    after = judge.membership().policy
    if before.history != after.history or before.zones != after.zones:
        start_epoch(device, judge, now)


def older_than(device: Device, chat: ChatId, seconds: int, now: int) -> int:
    """Return how many messages of a chat, which can be read here, were older than this."""
    query = "SELECT count(*) FROM mailbox WHERE chat = ? AND state = ? AND time < ?"
    found = device.connection.execute(query, (chat, State.OPEN, now - seconds * 1000)).get
    return convert(found, int)


def hold(device: Device, chat: ChatId, user: UserId, now: int, *, ends: bool) -> None:
    """Name a member as custodian, or end that. Raises RefusedError if we may not.

    Raises UserError if there is nothing to begin or to end.
    """
    judge = require(device, chat)
    member = judge.membership().users.get(user)
    if member is None:
        raise UserError("that user is not in the chat; 'ivor chat show' lists who is")
    if (user in custodians(judge.history)) is not ends:
        standing = "is no custodian of this chat" if ends else "is a custodian of it already"
        raise UserError(f"{member.name} {standing}; 'ivor chat show' lists who is")
    _append(device, judge, Hold(user, ends), now)


def _append(device: Device, judge: Chat, operation: Operation, now: int) -> None:
    entry = append_control(device, judge, operation, now)
    void = void_reason(judge.history, entry.id)
    if void is not None:
        raise RefusedError(refusal(device, judge, void))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What is known of one node and one redacted entry. dropped: None if it has not confirmed."""

    target: Reference
    agency: str
    node: NodeId | None
    dropped: int | None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Who has confirmed what. findings: receipts that do not hold, in words for people."""

    nodes: tuple[Confirmation, ...]
    findings: tuple[str, ...]


def confirmations(device: Device, judge: Chat, receipts: Sequence[bytes]) -> Confirmed:
    """Compare receipts with the redactions of a chat and the nodes of its agencies (SPEC 2.6).

    Those count that are in now, and those that were when the redaction was written: what they have
    signed holds, though they are out now. An agency whose card is not known here has a line of its
    own, with no node.
    """
    listed = redactions(judge)
    keepers = {one.target.id: _keepers(judge, one.ground) for one in listed}
    names = {agency: name for one in keepers.values() for agency, name in one.items()}
    nodes = {agency: _nodes(device, agency) for agency in names}
    told: dict[tuple[EntryId, NodeId], int] = {}
    findings: list[str] = []
    for raw in receipts:
        try:
            receipt = verify_receipt(raw)
            _check(judge, receipt, nodes)
        except PeerError as error:
            findings.append(f"a receipt does not hold: {error}")
            continue
        told[receipt.entry, receipt.node] = receipt.dropped
    lines = [
        Confirmation(
            one.target, names[agency], node, told.get((one.target.id, node)) if node else None
        )
        for one in listed
        for agency in sorted(keepers[one.target.id], key=lambda agency: names[agency])
        for node in nodes[agency] or (None,)
    ]
    return Confirmed(tuple(lines), tuple(findings))


def _keepers(judge: Chat, ground: Reference) -> Mapping[AgencyId, str]:
    """Return the agencies that have, or had, to drop what an operation redacts, with names."""
    then = resolve(judge.history, judge.history.past_of(ground.id))
    return {
        one.agency: one.identity.agency_name
        for view in (then, judge.membership())
        for one in view.users.values()
        if one.agency in view.agencies
    }


def _nodes(device: Device, agency: AgencyId) -> Sequence[NodeId]:
    """Return the nodes of an agency's card, none if it is not known here."""
    own = device.profile.card
    raw = device.connection.execute("SELECT card FROM agencies WHERE id = ?", (agency,)).get
    if raw is None and agency != own.charter.agency:
        return ()
    card = own if raw is None else verify_card(raw)
    return [one.node for one in card.nodes]


def _check(judge: Chat, receipt: Receipt, nodes: Mapping[AgencyId, Sequence[NodeId]]) -> None:
    if receipt.chat != judge.id:
        raise Untrusted("it is about another chat")
    if receipt.node not in nodes.get(receipt.agency, ()):
        raise Untrusted(f"no agency of this chat has the node {receipt.node.hex()[:16]}")
    if receipt.ground not in judge.history:
        raise Untrusted(f"its ground {receipt.ground.hex()[:16]} is not in this chat")


@dataclass(frozen=True, slots=True)
class Redacted:
    """One redaction of a chat, for people. reason, by: others wrote this."""

    target: Reference
    ground: Reference
    by: str
    reason: str


def redactions(judge: Chat) -> list[Redacted]:
    """Return what is redacted in a chat, in the order of the redactions' arrival."""
    found = [
        Redacted(place, one.ground, one.by.name, one.reason)
        for place, one in judge.redactions.of().items()
    ]
    return sorted(found, key=lambda one: judge.history.index(one.ground.id))
