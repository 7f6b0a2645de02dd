"""What an operation asks for, and whether it could, by what its author had seen (SPEC 3.3).

A case depends on the entry and its causal past alone, so it is settled once, when the entry
arrives. What entries that the author had not seen make of it is for `standing` and `authority`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from protocol.dag import ControlEntry
from protocol.entry import DeviceKey, Reference
from protocol.errors import Inadmissible
from protocol.fork import Fork
from protocol.grant import Grant
from protocol.identity import DEVICES_USER_MAX, UserId, VerifiedUser
from protocol.limits import DEVICES_CHANNEL_MAX, DEVICES_CHAT_MAX
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    EpochOperation,
    Genesis,
    Hold,
    Inner,
    Leave,
    Nack,
    Operation,
    Quorum,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, Policy, Role, narrow
from protocol.roster import OUT, QUORUM, Membership, Void


@dataclass(frozen=True, slots=True)
class Act:
    """What an operation makes of one user.

    role: `OUT` for a removal. identity: with the devices it brings in, None if it takes nobody in.
    seen: the heads of the user's content that stay valid, None if it is not about content.
    """

    role: int
    identity: VerifiedUser | None
    seen: tuple[Reference, ...] | None


@dataclass(frozen=True, slots=True)
class Case:
    """One operation on membership. fault: why it is void in every view, None if it is not.

    need: the least level of its author. proven: it carries its own proof. by_user: that is the
    signature of the device's user. signers: the devices of a quorum's entry and whose they are.
    """

    author: UserId | None
    fault: Void | None = None
    need: int = Role.READER
    proven: bool = False
    by_user: bool = False
    leave: bool = False
    acts: Mapping[UserId, Act] = field(default_factory=dict)
    revoked: Mapping[DeviceKey, UserId | None] = field(default_factory=dict)
    seen: tuple[Reference, ...] = ()
    fork: Fork | None = None
    enrolled: VerifiedUser | None = None
    policies: tuple[Policy, ...] = ()
    signers: tuple[tuple[DeviceKey, UserId], ...] = ()


Holder = Callable[[DeviceKey], UserId | None]

BEARING: Final = (
    Genesis,
    Admit,
    Remove,
    SetRole,
    Enroll,
    Revoke,
    SetPolicy,
    Leave,
    Quorum,
    Checkpoint,
)  # the operations that membership depends on


def open_case(genesis: Genesis, device: DeviceKey) -> Case:
    """Settle a genesis. Raises Inadmissible unless a device of an owner made it."""
    owners = [grant.credential.user for grant in genesis.grants if grant.role == Role.OWNER]
    author = next((one.user for one in owners if device in one.devices), None)
    if author is None:
        raise Inadmissible("a genesis is made by a device of one of its owners (SPEC 3.2)")
    return Case(author, acts=_granted(genesis.grants), policies=(genesis.policy,))


def settle(
    entry: ControlEntry, view: Membership, past: Iterable[ControlEntry], holder: Holder
) -> Case:
    """Settle any other operation that bears on membership.

    view: the membership of the entry's causal past. past: of its own chain what could be the same
    decision.
    holder: for whom something with effect in the causal past names a device, present or not.
    """
    author = view.devices.get(entry.device, entrant(entry, view))
    if author is None:
        return Case(None, fault=Void.NOT_A_MEMBER)
    case = _asked(entry, author, view, holder)
    if isinstance(entry.operation, Quorum) and _used(entry, entry.operation, past):
        return replace(case, fault=Void.REPLAYED)
    return case


def entrant(entry: ControlEntry, view: Membership) -> UserId | None:
    """Return the member whose device brings itself in by this entry, None if it does not.

    So a user all of whose devices are lost comes back: the first entry of a device that no member
    has is an enrolment of that device, which user, registrar and device have signed (SPEC 3.4).
    """
    if entry.seq or not isinstance(entry.operation, Enroll) or entry.device in view.devices:
        return None
    identity = entry.operation.credential.user
    enters = identity.devices == (entry.device,) and identity.user in view.users
    return identity.user if enters else None


def least_role(operation: Operation, author: UserId, view: Membership) -> Role:
    """Return the least role that an operation without bearing on membership needs."""
    if isinstance(operation, Hold):
        return Role.ADMIN
    if isinstance(operation, Redact) and view.devices.get(operation.device) != author:
        return Role.ADMIN
    return Role.READER if isinstance(operation, Nack) else Role.MEMBER


def _asked(entry: ControlEntry, author: UserId, view: Membership, holder: Holder) -> Case:
    match entry.operation:
        case Leave():
            return Case(author, leave=True, acts={author: Act(OUT, None, None)})
        case Enroll(credential):
            identity = credential.user
            fault: Void | None = Void.STRANGER
            if identity.user == author:
                fault = _unfit([(identity, view.users[author].role)], view, holder)
            return Case(author, fault=fault, enrolled=identity)
        case Quorum():
            return _quorum(entry.operation, author, view, holder)
        case Checkpoint():
            return Case(author, need=Role.MEMBER)
        case Admit() | Remove() | SetRole() | Revoke() | SetPolicy():
            return _ranked(entry.operation, entry.device, author, view, holder)
        case Genesis() | EpochOperation() | Redact() | Nack() | Hold():
            raise Inadmissible("a genesis stands first in its chat and nowhere else (SPEC 3.2)")


def _ranked(
    operation: Inner, device: DeviceKey, author: UserId, view: Membership, holder: Holder
) -> Case:
    """Settle what the author's rank has to allow, here or as a part of a quorum's decision."""
    direct = Void.DIRECT if view.kind == ChatKind.DIRECT else None
    match operation:
        case Admit(grants):
            fault = direct or _ill_granted(grants, view, holder)
            return Case(author, fault=fault, need=Role.ADMIN, acts=_granted(grants))
        case Remove(user, seen):
            return Case(author, fault=direct, need=Role.ADMIN, acts={user: Act(OUT, None, seen)})
        case SetRole(user, role, seen):
            member = view.users.get(user)
            if member is None:
                return Case(author, fault=direct or Void.STRANGER)
            identity = replace(member.identity, devices=tuple(sorted(member.devices)))
            acts = {user: Act(role, identity, seen if role < Role.MEMBER else None)}
            fault = direct or _crowded(view, 0, _writing(view, user, role, 0))
            return Case(author, fault=fault, need=Role.ADMIN, acts=acts)
        case Revoke():
            return _revoked(operation, device, author, _user_of(operation.device, view, holder))
        case SetPolicy(policy):
            met = narrow(view.policy.zones, policy.zones)
            fault = None if met else Void.NOWHERE
            need = Role.ADMIN if met == view.policy.zones else Role.OWNER
            return Case(author, fault=fault, need=need, policies=(policy,))


def _user_of(device: DeviceKey, view: Membership, holder: Holder) -> UserId | None:
    return view.devices.get(device) or holder(device)


def _revoked(operation: Revoke, device: DeviceKey, author: UserId, user: UserId | None) -> Case:
    """Settle a revocation of a user's device, also of one that was put out before.

    Whoever holds a device can give it up and name content that it has yet to write.
    """
    signed = operation.by_user
    fault = None
    if user is None and operation.fork is None:
        fault = Void.STRANGER
    if signed is not None and signed.user != user:
        fault = Void.STRANGER
    proven = operation.fork is not None or signed is not None or operation.device == device
    return Case(
        author,
        fault=fault,
        need=Role.READER if proven else Role.ADMIN,
        proven=proven,
        by_user=signed is not None,
        revoked={operation.device: user},
        seen=operation.seen,
        fork=operation.fork,
    )


def _quorum(quorum: Quorum, author: UserId, view: Membership, holder: Holder) -> Case:
    cases = [_ranked(one, quorum.author, author, view, holder) for one in quorum.operations]
    acts: dict[UserId, Act] = {}
    revoked: dict[DeviceKey, UserId | None] = {}
    for case in cases:
        acts.update(case.acts)
        revoked.update(case.revoked)
    devices = [quorum.author, *(one.device for one in quorum.signatures)]
    alone = next((case.fault for case in cases if case.fault is not None), None)
    return Case(
        author,
        fault=alone or _crowded_by(quorum.operations, view, holder),
        need=QUORUM,
        acts=acts,
        revoked=revoked,
        seen=tuple(reference for case in cases for reference in case.seen),
        policies=tuple(policy for case in cases for policy in case.policies),
        signers=tuple((one, view.devices[one]) for one in devices if one in view.devices),
    )


def _used(entry: ControlEntry, quorum: Quorum, past: Iterable[ControlEntry]) -> bool:
    """Whether the decision is not this entry's to publish, has run out, or was published before."""
    if quorum.author != entry.device or entry.seq > quorum.until:
        return True
    return any(
        isinstance(one.operation, Quorum) and one.operation.until == quorum.until for one in past
    )


def _granted(grants: Iterable[Grant]) -> dict[UserId, Act]:
    return {
        grant.credential.user.user: Act(grant.role, grant.credential.user, None) for grant in grants
    }


def _ill_granted(grants: Iterable[Grant], view: Membership, holder: Holder) -> Void | None:
    for grant in grants:
        member = view.users.get(grant.credential.user.user)
        if member is not None and grant.role < member.role:
            return Void.LOWERS
    return _unfit([(grant.credential.user, grant.role) for grant in grants], view, holder)


def _unfit(
    identities: Iterable[tuple[VerifiedUser, Role]],
    view: Membership,
    holder: Holder,
    writing: int = 0,
) -> Void | None:
    """Return why these users and devices cannot be brought in, None if they can.

    writing: how many devices more may write by what is decided beside it.
    """
    fresh = 0
    for identity, role in identities:
        member = view.users.get(identity.user)
        held: frozenset[DeviceKey] = frozenset()
        if member is not None:
            held = member.devices
            if member.identity.agency != identity.agency:
                return Void.AGENCY
        added = [device for device in identity.devices if device not in held]
        if any(_user_of(device, view, holder) not in (None, identity.user) for device in added):
            return Void.TAKEN
        if len(held) + len(added) > DEVICES_USER_MAX:
            return Void.LIMIT
        fresh += len(added)
        writing += _writing(view, identity.user, role, len(added))
    return _crowded(view, fresh, writing)


def _crowded_by(operations: Iterable[Inner], view: Membership, holder: Holder) -> Void | None:
    """Return `LIMIT` if decisions that are each in order bring in too many devices together."""
    granted, writing = [], 0
    for operation in operations:
        match operation:
            case Admit(grants):
                granted += [(grant.credential.user, grant.role) for grant in grants]
            case SetRole(member, role):
                writing += _writing(view, member, role, 0)
            case _:
                pass
    return _unfit(granted, view, holder, writing)


def _writing(view: Membership, user: UserId, role: Role, added: int) -> int:
    """Return how many devices more may write, if a user comes in with this role."""
    if role < Role.MEMBER:
        return 0
    member = view.users.get(user)
    if member is None or member.role >= Role.MEMBER:
        return added
    return len(member.devices) + added


def _crowded(view: Membership, fresh: int, writing: int) -> Void | None:
    """Return `LIMIT` if the chat is too full for that many devices, and writing ones, more."""
    most = DEVICES_CHANNEL_MAX if view.kind is ChatKind.CHANNEL else DEVICES_CHAT_MAX
    if fresh and len(view.devices) + fresh > most:
        return Void.LIMIT
    if writing and view.kind is ChatKind.CHANNEL and len(view.sealed) + writing > DEVICES_CHAT_MAX:
        return Void.LIMIT
    return None
