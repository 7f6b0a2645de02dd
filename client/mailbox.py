"""The mailbox: content entries in the order for people, opened as their keys arrive (SPEC 5.5).

Order is by depth in the graph of links, then time, then id: a function of the entries alone, so
every device shows a chat in the same order. `receive` is called whenever something new is stored;
what has no key yet stays sealed and is tried again when a seal comes.
"""

import hmac
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from msgspec import convert

from client.device import Device
from client.epochs import NoKey, save_sender_chain, sender_chain
from crypto import content, schedule
from crypto.errors import ContentRefused
from node.store import Branch, StoredChat
from protocol.entry import (
    CONTENT,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    Reference,
    header_before_commitment,
)
from protocol.errors import PeerError
from protocol.message import Message, decode_message
from protocol.run import Entry, rebuild


class State(IntEnum):
    """How far a message is."""

    SEALED = 0  # its epoch's seal has not come yet
    OPEN = 1
    UNREADABLE = 2  # its epoch was not sealed to this device
    REFUSED = 3  # what is inside is not what the header promises
    GONE = 4  # its payload was dropped, by a redaction or by age (SPEC 2.6)


@dataclass(frozen=True, slots=True)
class Letter:
    """One row of the mailbox. `message` is None unless the state is OPEN."""

    no: int
    chat: ChatId
    reference: Reference
    depth: int
    time: int
    state: State
    message: Message | None


def receive(device: Device) -> list[Letter]:
    """Place what is newly stored and open what can be opened; return what is newly readable.

    Call inside `Device.transaction`.
    """
    placed: dict[EntryId, Entry] = {}
    for chat in unplaced(device):
        stored = device.replica.store.chat(chat)
        if stored is not None:
            placed |= _place(device, stored)
    return _open_sealed(device, placed)


def unplaced(device: Device) -> list[ChatId]:
    """Return the chats with stored content that is not in the mailbox yet.

    Another process of this device may have stored it, and ended before it placed it.
    """
    rows = device.connection.execute(
        "SELECT DISTINCT chats.id FROM chains JOIN chats ON chats.no = chains.chat"
        " LEFT JOIN placed ON placed.chain = chains.no"
        " WHERE lane = ? AND chains.length > ifnull(placed.length, base)",
        (CONTENT,),
    ).fetchall()
    return [chat for (chat,) in convert(rows, list[tuple[ChatId]])]


def _place(device: Device, stored: StoredChat) -> dict[EntryId, Entry]:
    """Give every new content entry of a chat its row and depth, ancestors first; return them."""
    placed: dict[EntryId, Entry] = {}
    waiting = [
        deque(entries)
        for (_, lane), chain in stored.chains.items()
        if lane == CONTENT
        for branch in chain
        if (entries := _unplaced(device, stored, chain, branch))
    ]
    while any(waiting):
        progress = False
        for queue in waiting:
            while queue and (depth := _depth(device, queue[0])) is not None:
                entry = queue.popleft()
                placed[entry.id] = entry
                _insert(device, stored.id, entry, depth)
                progress = True
        if not progress:
            break
    for (_, lane), chain in stored.chains.items():
        if lane == CONTENT:
            _note_placed(device, chain)
    return placed


def _note_placed(device: Device, chain: Sequence[Branch]) -> None:
    device.connection.executemany(
        "INSERT INTO placed VALUES (?, ?) ON CONFLICT (chain) DO UPDATE SET length = ?",
        [(branch.no, branch.length, branch.length) for branch in chain],
    )


def _unplaced(
    device: Device, stored: StoredChat, chain: Sequence[Branch], branch: Branch
) -> Sequence[Entry]:
    start = device.connection.execute("SELECT length FROM placed WHERE chain = ?", (branch.no,)).get
    start = branch.base if start is None else int(start)
    if start >= branch.length:
        return ()
    return entries_of(device, stored, chain, branch, start, branch.length)


def entries_of(
    device: Device,
    stored: StoredChat,
    chain: Sequence[Branch],
    branch: Branch,
    start: int,
    stop: int,
) -> list[Entry]:
    """Read stored content entries of one branch, start to stop (exclusive)."""
    store = device.replica.store
    author = next(key for key, value in stored.chains.items() if value is chain)[0]
    prev, context = store.context_before(chain, branch, CONTENT, start)
    records = [row[2] for row in store.rows(chain, branch, start, stop)]
    return rebuild(stored.id, DeviceKey(author), CONTENT, start, prev, context, records)


def _depth(device: Device, entry: Entry) -> int | None:
    """Return 1 + the depth of the deepest parent; None while a parent has no row."""
    header = entry.header
    parents = [link.id for link in header.links]
    if header.prev is not None:
        parents.append(header.prev)
    depth = 0
    for parent in parents:
        found = device.connection.execute("SELECT depth FROM mailbox WHERE id = ?", (parent,)).get
        if found is None:
            return None
        depth = max(depth, int(found) + 1)
    return depth


def _insert(device: Device, chat: ChatId, entry: Entry, depth: int) -> None:
    header = entry.header
    device.connection.execute(
        "INSERT INTO mailbox (chat, device, seq, id, depth, time, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (chat, header.device, header.seq, entry.id, depth, header.time, State.SEALED),
    )


def keep_own(device: Device, entry: Entry, plaintext: bytes, frank: bytes) -> None:
    """Put a message of our own into the mailbox: its key is erased, so it is never opened."""
    header = entry.header
    stored = device.replica.store.chat(header.chat or entry.id)
    if stored is None:
        return
    _place(device, stored)
    device.connection.execute(
        "UPDATE mailbox SET state = ?, plaintext = ?, frank = ? WHERE id = ?",
        (State.OPEN, plaintext, frank, entry.id),
    )


def _open_sealed(device: Device, placed: Mapping[EntryId, Entry]) -> list[Letter]:
    """Open what can be opened. placed: entries that need not be read again."""
    opened = []
    rows = device.connection.execute(
        "SELECT no, chat, device, seq, id, depth, time FROM mailbox WHERE state = ?"
        " ORDER BY chat, device, seq",
        (State.SEALED,),
    ).fetchall()
    for no, chat, reference, depth, time in convert(
        [(row[0], row[1], row[2:5], *row[5:]) for row in rows],
        list[tuple[int, ChatId, Reference, int, int]],
    ):
        entry = placed.get(reference.id) or read_entry(device, chat, reference)
        state, message = _open(device, chat, entry)
        if state is not State.SEALED:
            device.connection.execute("UPDATE mailbox SET state = ? WHERE no = ?", (state, no))
            opened.append(Letter(no, chat, reference, depth, time, state, message))
    return opened


def read_entry(device: Device, chat: ChatId, place: Reference) -> Entry:
    """Read one stored content entry."""
    stored = device.replica.store.create_chat(chat)
    chain = stored.chains[place.device, CONTENT]
    number = device.replica.store.branch_of(stored, place.device, CONTENT, place.seq, place.id)
    branch = chain[number or 0]
    return entries_of(device, stored, chain, branch, place.seq, place.seq + 1)[0]


def _open(device: Device, chat: ChatId, entry: Entry) -> tuple[State, Message | None]:
    header = entry.header
    closed = State.GONE if entry.payload is None else State.UNREADABLE
    if not isinstance(header, ContentHeader):
        return closed, None
    found = sender_chain(device, chat, header.epoch, header.device)
    if isinstance(found, NoKey):
        return (State.SEALED if found is NoKey.NOT_YET else closed), None
    if found.generation != header.generation:
        return closed, None
    seed, following = schedule.advance(found.chain)
    before = header_before_commitment(header)
    save_sender_chain(device, header.epoch, header.device, header.generation + 1, following)
    if entry.payload is None:
        return State.GONE, None
    try:
        frank, plaintext = content.open_content(seed, before, header.pc, entry.payload)
        message = decode_message(plaintext)
    except (ContentRefused, PeerError):
        return State.REFUSED, None
    device.connection.execute(
        "UPDATE mailbox SET plaintext = ?, frank = ? WHERE id = ?", (plaintext, frank, entry.id)
    )
    return State.OPEN, message


def accept_disclosed(device: Device, entry: bytes, plaintext: bytes, frank: bytes) -> bool:
    """Take a plaintext that another device of ours hands over, if it is what was signed.

    The commitment in the signed header says so, with no key (SPEC 4.4). Returns whether it fits.
    """
    row = device.connection.execute(
        "SELECT chat, device, seq FROM mailbox WHERE id = ? AND state NOT IN (?, ?)",
        (entry, State.OPEN, State.GONE),
    ).fetchone()
    if row is None:
        return False
    chat, author, seq = convert(row, tuple[ChatId, DeviceKey, int])
    header = read_entry(device, chat, Reference(author, seq, EntryId(entry))).header
    if not isinstance(header, ContentHeader):
        return False
    before = header_before_commitment(header)
    if not hmac.compare_digest(content.franking_commitment(frank, before, plaintext), header.pc):
        return False
    try:
        decode_message(plaintext)
    except PeerError:
        return False
    device.connection.execute(
        "UPDATE mailbox SET state = ?, plaintext = ?, frank = ? WHERE id = ?",
        (State.OPEN, plaintext, frank, entry),
    )
    return True


def _read(plaintext: bytes | None) -> Message | None:
    return None if plaintext is None else decode_message(plaintext)


def read_letter(device: Device, entry: EntryId) -> Message | None:
    """Return what one message says; None if it cannot be read here."""
    row = device.connection.execute(
        "SELECT plaintext FROM mailbox WHERE id = ? AND state = ?", (entry, State.OPEN)
    ).fetchone()
    return None if row is None else _read(row[0])


def letters(device: Device, chat: ChatId, limit: int, after: int = 0) -> list[Letter]:
    """Return the last `limit` letters of a chat in their order; of those with no > `after`."""
    rows = device.connection.execute(
        "SELECT no, chat, device, seq, id, depth, time, state, plaintext FROM mailbox"
        " WHERE chat = ? AND no > ? ORDER BY depth DESC, time DESC, id DESC LIMIT ?",
        (chat, after, limit),
    ).fetchall()
    typed = convert(
        [(row[0], row[1], row[2:5], *row[5:]) for row in reversed(rows)],
        list[tuple[int, ChatId, Reference, int, int, State, bytes | None]],
    )
    return [
        Letter(no, chat_id, place, depth, time, state, _read(plaintext))
        for no, chat_id, place, depth, time, state, plaintext in typed
    ]


def readable(device: Device) -> int:
    """Return how many messages this device can read."""
    return int(
        device.connection.execute("SELECT count(*) FROM mailbox WHERE state = ?", (State.OPEN,)).get
    )
