"""Appending to our own chains: header, signature, and the same judge that peers' entries meet.

Everything here runs inside `Device.transaction`; what the judge refuses is undone with it.
"""

from hashlib import sha256

import msgspec

from client.device import Device
from client.residency import is_ours
from node.errors import EvidenceError, NetworkError, RefusedError
from node.store import Branch
from node.stored import Stored
from protocol.chat import Chat
from protocol.entry import (
    CONTENT,
    CONTROL,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Header,
    Place,
    Reference,
    encode_header,
    entry_id,
)
from protocol.frame import Run
from protocol.limits import LINKS_MAX
from protocol.operation import Checkpoint, Operation, kind_of
from protocol.payload import encode_operation
from protocol.run import START, Context, Entry, pack


def own_branch(device: Device, chat: ChatId, lane: int) -> Branch | None:
    """Return our own chain in a chat, None before its first entry; RefusedError if forked."""
    stored = device.replica.store.chat(chat)
    chain = [] if stored is None else stored.chains.get((device.key, lane), [])
    if len(chain) > 1:
        raise RefusedError(
            "this device's chain is forked: somebody else has used its key, or an old copy of its "
            "folder was brought back; revoke it and join with a new device"
        )
    return chain[0] if chain else None


def append(device: Device, chat: ChatId, header: Header, payload: bytes) -> Entry:
    """Sign an entry and append it. Raises RefusedError when the rules of the chat forbid it.

    Raises EvidenceError and NetworkError if this is, or may be, an old copy of the device.
    """
    _check_copy(device)
    _check_held(device, chat)
    raw = encode_header(header)
    entry = entry_id(raw)
    signature = device.secrets.device.sign(SIGNATURE_LABEL, entry)
    before, context = _before(device, chat, header)
    record = pack(header, payload, before)
    made = Entry(header, entry, record, payload, signature)
    run = Run(
        chat if header.chat is not None else ChatId(entry),
        device.key,
        header.lane,
        header.seq,
        header.prev,
        context,
        (msgspec.Raw(record),),
        ((0, signature),),
    )
    stored: Stored = device.replica.append(run, [made])
    if not stored.appended:
        raise RefusedError(f"not appended: {stored.refusal or 'an ancestor is missing'}")
    return made


def may_sign(device: Device) -> bool:
    """Whether this is no old copy of the device, and cannot be one: what is due is left else."""
    return not (device.replica.sharing.outrun() or device.displaced)


def _check_copy(device: Device) -> None:
    """Refuse to sign a place of the log that this very device may have signed before (I16)."""
    if device.replica.sharing.outrun():
        raise EvidenceError(
            "this folder is an old copy of a device that wrote on: its node holds entries of this "
            "very device that it did not have. It reads, and never writes again. Take a new device "
            "in its place: by 'ivor device link', or by 'ivor node invite --recover' and your "
            "recovery words"
        )
    if device.displaced:
        raise NetworkError(
            "this folder, or the database in it, was copied or brought back since it was last in "
            "use: before it writes it must ask its node whether the device wrote more meanwhile; "
            "run 'ivor sync'"
        )


def _check_held(device: Device, chat: ChatId) -> None:
    """Refuse what our own node would not take, as its agency may not hold the chat (SPEC 3.4)."""
    judge, ours = device.replica.chat(chat), device.profile
    membership = None if judge is None else judge.membership()
    if membership is None or ours.user.user not in membership.users:
        return
    if not is_ours(device, membership):
        raise RefusedError(
            f"your agency, in {ours.charter.zone}, may hold this chat no longer: it stays in "
            f"{', '.join(membership.policy.zones)}; nobody would get what you write"
        )


def _before(device: Device, chat: ChatId, header: Header) -> tuple[Context, Context | None]:
    branch = own_branch(device, chat, header.lane) if header.seq else None
    stored = device.replica.store.chat(chat)
    if branch is None or stored is None:
        return START, None
    chain = stored.chains[device.key, header.lane]
    store = device.replica.store
    _, context = store.context_before(chain, branch, header.lane, header.seq)
    return context or START, context


def append_control(device: Device, chat: Chat | None, operation: Operation, now: int) -> Entry:
    """Append a control entry; `chat` is None for a genesis. now: milliseconds."""
    header = control_header(device, chat, operation, now)
    chat_id = ChatId(b"") if chat is None else chat.id
    return append(device, chat_id, header, encode_operation(operation))


def control_header(
    device: Device, chat: Chat | None, operation: Operation, now: int
) -> ControlHeader:
    """Return the header that the next control entry of ours has."""
    payload = encode_operation(operation)
    place = None if chat is None else next_place(device, chat)
    return ControlHeader(
        chat=None if place is None else place.chat,
        device=device.key,
        seq=0 if place is None else place.seq,
        prev=None if place is None else place.prev,
        links=() if place is None else place.links,
        time=now,
        kind=int(kind_of(operation)),
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
    )


def next_place(device: Device, chat: Chat) -> Place:
    """Return where our next control entry in a chat will stand."""
    branch = own_branch(device, chat.id, CONTROL)
    links = tuple(head for head in chat.history.heads() if head.device != device.key)
    return Place(
        chat.id,
        device.key,
        0 if branch is None else branch.length,
        None if branch is None else branch.head,
        links[:LINKS_MAX],
    )


def control_heads(device: Device, chat: Chat, now: int) -> tuple[Reference, ...]:
    """Return the control heads for a content entry, at most 8: more are first joined by one."""
    while len(heads := chat.history.heads()) > LINKS_MAX:
        append_control(device, chat, Checkpoint(), now)
    return heads


def content_links(device: Device, chat: ChatId) -> tuple[Reference, ...]:
    """Return others' newest content that our entries do not link to yet: at most 8, and note it."""
    stored = device.replica.store.chat(chat)
    if stored is None:
        return ()
    found = []
    for (author, lane), chain in stored.chains.items():
        if lane != CONTENT or author == device.key:
            continue
        newest = max(chain, key=lambda branch: branch.length)
        linked = device.connection.execute(
            "SELECT seq FROM linked WHERE chat = ? AND device = ?", (chat, author)
        ).get
        if linked is None or linked < newest.length - 1:
            found.append(Reference(DeviceKey(author), newest.length - 1, newest.head))
    links = tuple(sorted(found[:LINKS_MAX]))
    device.connection.executemany(
        "INSERT INTO linked VALUES (?, ?, ?) ON CONFLICT (chat, device)"
        " DO UPDATE SET seq = excluded.seq",
        [(chat, link.device, link.seq) for link in links],
    )
    return links


def content_header(
    device: Device, chat: Chat, epoch: EntryId, generation: int, now: int
) -> ContentHeader:
    """Return the header of our next content entry, with commitment and payload left empty."""
    branch = own_branch(device, chat.id, CONTENT)
    return ContentHeader(
        chat=chat.id,
        device=device.key,
        seq=0 if branch is None else branch.length,
        prev=None if branch is None else branch.head,
        links=content_links(device, chat.id),
        control=control_heads(device, chat, now),
        time=now,
        epoch=epoch,
        generation=generation,
        pc=bytes(32),
        payload_size=0,
        payload_hash=bytes(32),
    )
