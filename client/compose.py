"""What a device's owner does: start a chat, change its members, write (SPEC 5.5).

Call each inside one transaction (`Device.transaction`, or `Link.write` while connected): entry,
keys and mailbox are stored together or not at all. `now` is milliseconds UTC. What a rule forbids
raises RefusedError, and the transaction leaves nothing behind.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import msgspec

from client import checkpoints, identities, mailbox, nacks
from client.attaching import SealedFile, keep_sealed
from client.chats import SHORT_CHARS
from client.device import Device
from client.epochs import NoKey, epoch_for, save_sender_chain, sender_chain, start_epoch
from client.motions import next_until, owners
from client.owing import owe_from_here
from client.people import enrolment_of, grant_of
from client.writing import append, append_control, content_header
from crypto import content, schedule
from node.errors import IdentityError, RefusedError, UserError
from protocol.attachment import Announcement, Attachment, encode_announcement
from protocol.chat import Chat
from protocol.entry import (
    ATTACHED,
    CONTENT,
    ChatId,
    DeviceKey,
    EntryId,
    Reference,
    header_before_commitment,
)
from protocol.grant import Grant
from protocol.identity import DEVICES_USER_MAX, UserId
from protocol.limits import HASH_BYTES
from protocol.message import Edit, Message, Text, Title, encode_message
from protocol.operation import (
    Admit,
    Enroll,
    Genesis,
    Inner,
    Leave,
    Operation,
    Quorum,
    Remove,
    SetRole,
    credentials,
)
from protocol.payload import QUORUM_LABEL, quorum_message
from protocol.policy import ChatKind, Policy, Role
from protocol.proposal import Consent, Proposal
from protocol.roster import Void

NONCE_BYTES = 16
ONLY_OWNER = (
    "you are the chat's only owner; make somebody else an owner first: "
    "'ivor chat role CHAT USER owner'"
)


def new_chat(
    device: Device,
    kind: ChatKind,
    title: str,
    policy: Policy,
    members: Sequence[tuple[UserId, Role]],
    now: int,
) -> ChatId:
    """Start a chat with us as owner. members: users that `people` knows, without ourselves."""
    require_zone(device, policy)
    owner = (device.profile.user.user, Role.OWNER)
    grants = _grants_of(device, [owner, *members])
    genesis = Genesis(kind, device.random(NONCE_BYTES), policy, grants)
    entry = append_control(device, None, genesis, now)
    chat = require(device, ChatId(entry.id))
    start_epoch(device, chat, now)
    if title:
        _write(device, chat, Title(title), now)
    return chat.id


def _grants_of(device: Device, members: Sequence[tuple[UserId, Role]]) -> tuple[Grant, ...]:
    """Return grants for known users. Raises IdentityError for one whose name means another now."""
    changed = identities.changed(device)
    for user, _ in members:
        if user in changed:
            raise IdentityError(identities.warning(changed[user]))
    listed = [grant_of(device, user, role) for user, role in members]
    return tuple(sorted(listed, key=lambda grant: grant.credential.user.user))


def require_zone(device: Device, policy: Policy) -> None:
    """Raise RefusedError for zones that our own node is in none of: nobody would get the chat."""
    zone = device.profile.charter.zone
    if not policy.allows(zone):
        raise RefusedError(
            f"your own agency, in {zone}, is in none of these zones: its node could not hold the "
            "chat; give a zone that contains it"
        )


def require(device: Device, chat: ChatId) -> Chat:
    """Return a chat that is stored here. Raises UserError."""
    found = device.replica.chat(chat)
    if found is None:
        raise UserError(f"no chat {chat.hex()[:16]} here; 'ivor chat list' shows which there are")
    return found


def send(device: Device, chat: ChatId, message: Message, now: int, once: str | None) -> Reference:
    """Write a message. once: a key under which it is written only once, however often called.

    Raises IdentityError while a member's identity has changed and nobody has decided.
    """

    def write() -> Reference:
        judge = require(device, chat)
        identities.check(device, judge)
        return _write(device, judge, message, now)

    return _once(device, chat, once, message, write)


def edit(device: Device, chat: ChatId, place: Reference, text: str, now: int) -> Reference:
    """Give a text of ours a new one. Raises RefusedError if it is another's, UserError, as `send`.

    Only what can still be read here: of what is redacted or gone nobody would see the new text.
    """
    judge = require(device, chat)
    if device.profile.user.user not in judge.history.users_of(place.device):
        raise RefusedError("only the author of a message can change it")
    if place in judge.redactions.of():
        raise UserError("that message is redacted: it gets no new text; send another message")
    if not isinstance(mailbox.read_letter(device, place.id), Text):
        raise UserError("that message is no text that can be read here: it gets no new one")
    return send(device, chat, Edit(place, text), now, None)


def used_in(device: Device, once: str | None) -> ChatId | None:
    """Return the chat in which this key was used, if it was."""
    used = _used(device, once)
    return None if used is None else used[0]


def _used(device: Device, once: str | None) -> tuple[ChatId, Reference] | None:
    row = device.connection.execute(
        "SELECT chat, seq, id FROM once WHERE key = ?", (once,)
    ).fetchone()
    if row is None:
        return None
    return ChatId(row[0]), Reference(device.key, row[1], EntryId(row[2]))


def written_once(
    device: Device, chat: ChatId, once: str | None, message: Message
) -> Reference | None:
    """Return what was written under this key before.

    Raises UserError if that was in another chat, or another message: else one would be lost.
    """
    if once is not None and not once:
        raise UserError("an empty idempotency key would fit every message: give another, or none")
    used = _used(device, once)
    if used is None:
        return None
    where, place = used
    if where != chat:
        raise UserError(f"the idempotency key {once!r} was used in another chat: give another one")
    before = mailbox.read_letter(device, place.id)
    if before is not None and _told(before) != _told(message):
        raise UserError(
            f"the idempotency key {once!r} was used for another message, "
            f"{place.id.hex()[:SHORT_CHARS]}: give another one"
        )
    return place


def _told(message: Message) -> Message:
    """Return a message without what of a file is known only once it is sealed."""
    return replace(message, digest=b"", key=b"") if isinstance(message, Attachment) else message


def _once(
    device: Device,
    chat: ChatId,
    once: str | None,
    message: Message,
    write: Callable[[], Reference],
) -> Reference:
    before = written_once(device, chat, once, message)
    if before is not None:
        return before
    written = write()
    if once is not None:
        device.connection.execute(
            "INSERT INTO once VALUES (?, ?, ?, ?)", (once, chat, written.seq, written.id)
        )
    return written


def consent(
    device: Device, chat: Chat, asked: Reference, proposal: Proposal, now: int
) -> Reference:
    """Tell a chat that we sign a proposal of its owners, which stands at `asked`.

    Raises IdentityError as `send`, unless it is to put those very members out.
    """
    identities.check_proposal(device, chat, proposal)
    message = quorum_message(chat.id, asked.device, proposal.until, proposal.operations)
    signature = device.secrets.device.sign(QUORUM_LABEL, message)
    return _write(device, chat, Consent(asked, signature), now)


def send_attached(
    device: Device, chat: ChatId, sealed: SealedFile, now: int, once: str | None
) -> Reference:
    """Write a message with a large file, whose sealed chunks are in the device's folder already."""

    def write() -> Reference:
        judge = require(device, chat)
        identities.check(device, judge)
        place = _write(device, judge, sealed.attachment, now, sealed.announced)
        keep_sealed(device, chat, place, sealed)
        return place

    return _once(device, chat, once, sealed.attachment, write)


def repeat_title(device: Device, chat: Chat, title: str, now: int) -> None:
    """Write the title again: those who are new cannot read it where it was first written.

    All others know it, so that a changed identity among them does not hold it back.
    """
    if title:
        _write(device, chat, Title(title), now)


def _write(
    device: Device, chat: Chat, message: Message, now: int, announced: Announcement | None = None
) -> Reference:
    return _write_plaintext(device, chat, encode_message(message), now, announced)


def _write_plaintext(
    device: Device, chat: Chat, plaintext: bytes, now: int, announced: Announcement | None = None
) -> Reference:
    """Encrypt and append: seq, key and entry move on together. announced: of its blob."""
    if not chat.membership().may_write(device.key):
        raise RefusedError(
            "you may not write in this chat: you were removed, or you are a reader in it"
        )
    epoch = epoch_for(device, chat, now)
    while nacks.publish(device, now):  # it may rule out what was chosen
        epoch = epoch_for(device, chat, now)
    chain = sender_chain(device, chat.id, epoch, device.key)
    if isinstance(chain, NoKey):
        raise RefusedError("this device holds no key for the chat's epoch; run 'ivor sync' first")
    header = content_header(device, chat, epoch, chain.generation, now)
    if announced is not None:
        header = msgspec.structs.replace(header, kind=ATTACHED)
    seed, following = schedule.advance(chain.chain)
    frank = device.random(HASH_BYTES)
    pc, ciphertext = content.seal_content(seed, header_before_commitment(header), frank, plaintext)
    payload = ciphertext if announced is None else encode_announcement(announced) + ciphertext
    sealed = msgspec.structs.replace(
        header,
        pc=pc,
        payload_size=len(payload),
        payload_hash=sha256(payload).digest(),
    )
    entry = append(device, chat.id, sealed, payload)
    save_sender_chain(device, epoch, device.key, chain.generation + 1, following)
    mailbox.keep_own(device, chat.id, entry, plaintext, frank)
    checkpoints.add_due(device, chat, now)
    return Reference(device.key, header.seq, entry.id)


def add_members(
    device: Device, chat: ChatId, members: Sequence[tuple[UserId, Role]], now: int
) -> Reference | None:
    """Take users in, and start an epoch that they can read.

    As the two below: returns a proposal if other owners have to agree first, else None.
    """
    return _change(device, require(device, chat), Admit(_grants_of(device, members)), now)


def remove_member(device: Device, chat: ChatId, user: UserId, now: int) -> Reference | None:
    """Put a user out, and start an epoch that they can not read.

    Also one who has left: they may have named content that they had yet to write (SPEC 3.5).
    """
    judge = require(device, chat)
    if user == device.profile.user.user:
        raise UserError("that is you: 'ivor chat leave CHAT' leaves it")
    if user not in judge.membership().users and user not in leavers(judge):
        raise UserError("that user is not in the chat; 'ivor chat show' lists who is")
    operation = Remove(user, last_words(device, judge, user))
    return _change(device, judge, operation, now)


def set_role(device: Device, chat: ChatId, user: UserId, role: Role, now: int) -> Reference | None:
    """Give a member another role. The last owner stays one, as in `leave`."""
    judge = require(device, chat)
    member = judge.membership().users.get(user)
    if member is None:
        raise UserError("that user is not in the chat; 'ivor chat show' lists who is")
    if role < Role.OWNER and owners(judge) == {user}:
        raise RefusedError(ONLY_OWNER)
    operation = SetRole(user, role, last_words(device, judge, user))
    return _change(device, judge, operation, now)


def leave(device: Device, chat: ChatId, now: int) -> None:
    """Leave a chat. Its last owner can not: nobody could change its members any more."""
    judge = require(device, chat)
    users = judge.membership().users
    ours = device.profile.user.user
    if owners(judge) == {ours} and len(users) > 1:
        raise RefusedError(ONLY_OWNER)
    append_control(device, judge, Leave(), now)


def leavers(chat: Chat) -> dict[UserId, str]:
    """Return the names of those who left by themselves and are not back."""
    history, members = chat.history, chat.membership().users
    left = {one.device for one in history.entries if isinstance(one.operation, Leave)}
    named = (
        credential.user
        for entry in (history.entries if left else ())
        for credential in credentials(entry.operation)
    )
    return {
        one.user: one.name for one in named if left & {*one.devices} and one.user not in members
    }


def enroll(device: Device, chat: ChatId, certificate: bytes, now: int) -> None:
    """Bring another device of ours into a chat."""
    operation = Enroll(enrolment_of(device, certificate))
    _change(device, require(device, chat), operation, now)


def last_words(device: Device, judge: Chat, user: UserId) -> tuple[Reference, ...]:
    """Return the newest content that we have of all devices that a user ever had in a chat.

    As many as an operation may name, present devices first.
    """
    member = judge.membership().users.get(user)
    present = frozenset[DeviceKey]() if member is None else member.devices
    earlier = judge.history.devices_of(user) - present
    found = content_heads(device, judge.id, present) + content_heads(device, judge.id, earlier)
    return tuple(sorted(found[:DEVICES_USER_MAX]))


def content_heads(
    device: Device, chat: ChatId, devices: Collection[DeviceKey]
) -> tuple[Reference, ...]:
    """Return the newest content that we have of these devices: where a removal cuts."""
    stored = device.replica.store.chat(chat)
    chains = {} if stored is None else stored.chains
    found = []
    for member in sorted(devices):
        branches = chains.get((member, CONTENT))
        if branches:
            newest = max(branches, key=lambda branch: branch.length)
            found.append(Reference(member, newest.length - 1, newest.head))
    return tuple(found)


def _change(device: Device, chat: Chat, operation: Inner | Enroll, now: int) -> Reference | None:
    """Append what changes the members, check that it counts, and start an epoch for them.

    Where several owners have to agree it is only proposed: returns the proposal then.
    """
    decided: Operation = operation
    if isinstance(operation, Inner) and _concerns_owner(chat, operation):
        entitled = owners(chat)
        if device.profile.user.user not in entitled:
            raise RefusedError("only the owners together can change who is an owner")
        if len(entitled) > 1:
            return _propose(device, chat, operation, now)
        decided = Quorum(device.key, chat.history.length(device.key), (operation,), ())
    entry = append_control(device, chat, decided, now)
    void = chat.membership().void.get(entry.id)
    if void is not None:
        raise RefusedError(refusal(device, chat, void))
    if not chat.history.is_channel:
        start_epoch(device, chat, now)
    elif chat.membership().may_write(device.key):
        _grant_to(device, chat, _brought(chat, decided), now)
    return None


def refusal(device: Device, chat: Chat, void: Void) -> str:
    """Say why something of ours has no effect."""
    if void is Void.RANK:
        member = chat.membership().users.get(device.profile.user.user)
        is_admin = member is not None and member.role >= Role.ADMIN
        who = "an owner" if is_admin else "an admin or an owner"
        return f"your role in this chat does not allow that: {who} can; 'ivor chat show' lists them"
    return f"this has no effect: {void.value}"


def _brought(chat: Chat, operation: Operation) -> Iterator[DeviceKey]:
    """Yield the devices that an operation may have brought into a channel as readers' ones."""
    membership = chat.membership()
    inner = operation.operations if isinstance(operation, Quorum) else (operation,)
    users = {grant.credential.user.user for one in inner for grant in _grants(one)}
    users |= {one.user for one in inner if isinstance(one, SetRole)}
    users |= {one.credential.user.user for one in inner if isinstance(one, Enroll)}
    for user in users & membership.users.keys():
        yield from membership.users[user].devices - membership.sealed


def _grants(operation: Operation) -> Sequence[Grant]:
    return operation.grants if isinstance(operation, Admit) else ()


def _grant_to(device: Device, chat: Chat, readers: Iterator[DeviceKey], now: int) -> None:
    """Owe readers the keys of the present epoch; a new one starts only if that has to end."""
    owe_from_here(device, chat, epoch_for(device, chat, now), readers, now)


def _propose(device: Device, chat: Chat, operation: Inner, now: int) -> Reference:
    """Ask the other owners; `deciding.settle` publishes when enough of them have signed."""
    proposal = Proposal(next_until(device, chat), (operation,))
    identities.check_proposal(device, chat, proposal)
    place = _write(device, chat, proposal, now)
    device.connection.execute("INSERT INTO proposed VALUES (?, ?)", (place.id, chat.id))
    return place


def _concerns_owner(chat: Chat, operation: Inner) -> bool:
    """Whether only the owners together may do it. In a direct chat nobody may."""
    users = chat.membership().users
    if chat.membership().kind is ChatKind.DIRECT:
        return False
    match operation:
        case SetRole(user, role):
            return role is Role.OWNER or users[user].role is Role.OWNER
        case Remove(user):
            return user in users and users[user].role is Role.OWNER
        case Admit(grants):
            return any(grant.role is Role.OWNER for grant in grants)
        case _:
            return False
