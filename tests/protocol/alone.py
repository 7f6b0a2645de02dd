"""SPEC 3.3, step *Alone*, written down a second time: why an operation is void by its own past.

`KNOWN` comes after all of this, and is the oracle's.
"""

from collections.abc import Callable, Iterable

from protocol.dag import ControlEntry
from protocol.entry import DeviceKey
from protocol.identity import UserId, VerifiedUser
from protocol.membership import Membership
from protocol.operation import (
    Admit,
    Enroll,
    Operation,
    Quorum,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, Role
from protocol.roster import Void

Holder = Callable[[DeviceKey], UserId | None]
Newcomer = tuple[VerifiedUser, Role]

DEVICES_USER_MAX = 32
DEVICES_CHAT_MAX = 1_000
DEVICES_CHANNEL_MAX = 32_768


def alone(
    entry: ControlEntry, view: Membership, chain: Iterable[ControlEntry], holder: Holder
) -> Void | None:
    """Return the first of the reasons that holds. chain: the earlier entries of its own."""
    author, operation = _author(entry, view), entry.operation
    if author is None:
        return Void.NOT_A_MEMBER
    if not isinstance(operation, Quorum):
        return _first(operation, author, view, holder)
    used = {one.operation.until for one in chain if isinstance(one.operation, Quorum)}
    if operation.author != entry.device or entry.seq > operation.until or operation.until in used:
        return Void.REPLAYED
    for one in operation.operations:
        found = _first(one, author, view, holder)
        if found is not None:
            return found
    return Void.LIMIT if _too_many(operation.operations, view) else None


def _author(entry: ControlEntry, view: Membership) -> UserId | None:
    for user, member in view.users.items():
        if entry.device in member.devices:
            return user
    operation = entry.operation
    if entry.seq == 0 and isinstance(operation, Enroll):
        user = operation.credential.user.user
        if operation.credential.user.devices == (entry.device,) and user in view.users:
            return user
    return None


def _first(operation: Operation, author: UserId, view: Membership, holder: Holder) -> Void | None:
    if view.kind is ChatKind.DIRECT and _is_by_force(operation):
        return Void.DIRECT
    if _is_about_a_stranger(operation, author, view, holder):
        return Void.STRANGER
    if _lowers(operation, view):
        return Void.LOWERS
    for identity, _ in _newcomers(operation, view):
        found = _unfit(identity, view, holder)
        if found is not None:
            return found
    return _too_much(operation, view)


def _too_much(operation: Operation, view: Membership) -> Void | None:
    if _too_many([operation], view):
        return Void.LIMIT
    if isinstance(operation, SetPolicy) and not _meet(operation.policy.zones, view.policy.zones):
        return Void.NOWHERE
    return None


def _is_by_force(operation: Operation) -> bool:
    return isinstance(operation, Admit | Remove | SetRole)


def _is_about_a_stranger(
    operation: Operation, author: UserId, view: Membership, holder: Holder
) -> bool:
    match operation:
        case SetRole(user):
            return user not in view.users
        case Enroll(credential):
            return credential.user.user != author
        case Revoke(device, fork, signed):
            owner = view.devices.get(device, holder(device))
            return (owner is None and fork is None) or (signed is not None and signed.user != owner)
        case _:
            return False


def _lowers(operation: Operation, view: Membership) -> bool:
    return isinstance(operation, Admit) and any(
        one.credential.user.user in view.users
        and one.role < view.users[one.credential.user.user].role
        for one in operation.grants
    )


def _newcomers(operation: Operation, view: Membership) -> list[Newcomer]:
    match operation:
        case Admit(grants):
            return [(one.credential.user, one.role) for one in grants]
        case Enroll(credential):
            return [(credential.user, view.users[credential.user.user].role)]
        case _:
            return []


def _held(user: UserId, view: Membership) -> frozenset[DeviceKey]:
    return view.users[user].devices if user in view.users else frozenset()


def _unfit(identity: VerifiedUser, view: Membership, holder: Holder) -> Void | None:
    user, named = identity.user, set(identity.devices)
    if user in view.users and view.users[user].agency != identity.agency:
        return Void.AGENCY
    if any(view.devices.get(one, holder(one)) not in (None, user) for one in named):
        return Void.TAKEN
    return Void.LIMIT if len(named | _held(user, view)) > DEVICES_USER_MAX else None


def _too_many(operations: Iterable[Operation], view: Membership) -> bool:
    """Whether the chat would have too many devices, or a channel too many of publishers."""
    channel = view.kind is ChatKind.CHANNEL
    everybody = {one: member.devices for one, member in view.users.items()}
    writers = {one for one, member in view.users.items() if member.role >= Role.MEMBER}
    before = _counted(everybody, writers)
    for operation in operations:
        for identity, role in _newcomers(operation, view):
            everybody[identity.user] = _held(identity.user, view) | set(identity.devices)
            writers |= {identity.user} if role >= Role.MEMBER else set()
        if isinstance(operation, SetRole) and operation.role >= Role.MEMBER:
            writers.add(operation.user)
    after = _counted(everybody, writers)
    most = DEVICES_CHANNEL_MAX if channel else DEVICES_CHAT_MAX
    grown = [now > then for now, then in zip(after, before, strict=True)]
    return (grown[0] and after[0] > most) or (channel and grown[1] and after[1] > DEVICES_CHAT_MAX)


def _counted(
    everybody: dict[UserId, frozenset[DeviceKey]], writers: set[UserId]
) -> tuple[int, int]:
    """Return how many devices there are, and how many of them may write."""
    written = sum(len(devices) for user, devices in everybody.items() if user in writers)
    return sum(map(len, everybody.values())), written


def _meet(zones: Iterable[str], others: Iterable[str]) -> bool:
    pairs = [(f"{one}-", f"{other}-") for one in zones for other in others]
    return any(one.startswith(other) or other.startswith(one) for one, other in pairs)
