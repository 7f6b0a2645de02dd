"""Names that mean another identity than they did: until a person decides, nothing goes there.

An agency that gives a known name to another identity has begun the user anew, or is lying. Nobody
but the two people can tell which, so the change is kept, shown by every command, and closes the
chats of the identity that was known for what this device's owner writes (SPEC 5.4).
"""

from collections.abc import Callable

from client.chats import KEY_CHARS, SHORT_CHARS
from client.device import Device
from node.errors import IdentityError
from protocol.chat import Chat
from protocol.identity import UserId, VerifiedUser
from protocol.operation import Remove
from protocol.policy import ChatKind
from protocol.proposal import Proposal


def note(device: Device, user: VerifiedUser, tell: Callable[[str], object] = bool) -> bool:
    """Keep it if a user's name meant another identity here; return whether it did.

    tell: gets what to say once if it meant another in between, and means the known one again.
    In a transaction of its own: `people.keep_person` raises for such a user, and must not undo it.
    """
    known = device.connection.execute("SELECT id FROM users WHERE name = ?", (user.name,)).get
    if known == user.user:
        forget(device, user.name)
        if device.connection.changes():
            tell(returned(user.name))
    if known in (None, user.user):
        return False
    device.connection.execute(
        "INSERT INTO changed_identities VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET user = excluded.user",
        (user.name, user.user),
    )
    return True


def forget(device: Device, name: str) -> None:
    """Keep no change of a name: its owner has taken it, or it is taken back."""
    device.connection.execute("DELETE FROM changed_identities WHERE name = ?", (name,))


def changed(device: Device) -> dict[UserId, str]:
    """Return whose names mean others now: the identity known here, and the name."""
    rows = device.connection.execute(
        "SELECT users.id, name FROM changed_identities JOIN users USING (name) ORDER BY name"
    )
    return {UserId(user): name for user, name in rows}


def check(device: Device, chat: Chat) -> None:
    """Raise IdentityError if it is open whom one writes to in a chat.

    In a channel readers do not count: of thousands somebody is always beginning anew.
    """
    membership = chat.membership()
    for user, name in changed(device).items():
        member = membership.users.get(user)
        if member is not None and not membership.sealed.isdisjoint(member.devices):
            raise IdentityError(warning(name))


def check_proposal(device: Device, chat: Chat, proposal: Proposal) -> None:
    """As `check`, for a proposal or its consent: that such members be put out closes nothing."""
    known = changed(device)
    if not all(isinstance(one, Remove) and one.user in known for one in proposal.operations):
        check(device, chat)


def left_behind(device: Device, chat: Chat) -> dict[UserId, str]:
    """Return who reads a chat with a name that means another identity here, which was taken.

    Of a channel, as in `check`, only those who may write count.
    """
    open_still = changed(device).values()
    taken = {
        name: user
        for user, name in device.connection.execute("SELECT id, name FROM users")
        if name not in open_still
    }
    membership = chat.membership()
    return {
        user: one.name
        for user, one in membership.users.items()
        if taken.get(one.name, user) != user and not membership.sealed.isdisjoint(one.devices)
    }


def careful(chat: Chat, user: UserId, name: str) -> str:
    """Say that an identity that a name meant before reads a chat, and what to do."""
    short, key = chat.id.hex()[:SHORT_CHARS], user.hex()[:KEY_CHARS]
    if chat.membership().kind is ChatKind.DIRECT:
        return (
            f"careful: the chat {short} is with the identity that {name} had before; "
            f"'ivor send {name}' writes to the present one"
        )
    return (
        f"careful: the identity that {name} had before is still in the chat {short}, and reads "
        f"what is written there; an admin puts it out: 'ivor chat remove {short} {key}'"
    )


def returned(name: str) -> str:
    """Say that a name means whom it meant before the change that was told."""
    return (
        f"{name} has the identity again that you knew: what had changed is taken back, and its "
        f"chats are open. Ask {name}, in person, whether they know why there was another"
    )


def warning(name: str) -> str:
    """Say that an identity has changed, and what to do."""
    return (
        f"WARNING: {name} has another identity than before: its safety number has changed. Either "
        f"{name} has begun anew, or somebody poses as {name}. Ask {name} in person, then run "
        f"'ivor verify {name} --accept-change'"
    )
