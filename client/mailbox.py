"""The mailbox: content entries in the order for people, opened as their keys arrive (SPEC 5.5).

Order is by depth in the graph of links, then time, then id: a function of the entries alone, so
every device shows a chat in the same order. What is stored is opened in the same transaction; what
has no key yet stays sealed and is tried again when a seal comes.
"""

import hmac
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import apsw
from msgspec import convert

from client import debts, grants
from client.device import Device
from client.entries import read_entry
from client.epochs import (
    SECOND_MS,
    NoKey,
    SenderChain,
    advanced,
    save_sender_chain,
    sender_chain,
)
from crypto import content, schedule
from crypto.errors import ContentRefused
from node.stored import Stored
from protocol.attachment import ciphertext_of
from protocol.disclosure import Share
from protocol.entry import (
    CONTENT,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    Reference,
    header_before_commitment,
)
from protocol.errors import PeerError, UsageError
from protocol.limits import PREKEY_ERASE_SECONDS
from protocol.message import Message, decode_message
from protocol.run import Entry


class State(IntEnum):
    """How far a message is."""

    SEALED = 0  # its epoch's seal has not come yet
    OPEN = 1
    UNREADABLE = 2  # its epoch was not sealed to this device
    REFUSED = 3  # what is inside is not what the header promises
    GONE = 4  # its payload was dropped, by a redaction or by age (SPEC 2.6)
    LACKING = 5  # its payload is said to be gone, and should not be: somebody may have it


WAITING = frozenset({State.SEALED, State.LACKING})


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


class _Opened(NamedTuple):
    """What opening an entry gave; the last three are None unless the state is OPEN.

    frank: of one that is LACKING the key of its generation.
    """

    state: State
    message: Message | None = None
    plaintext: bytes | None = None
    frank: bytes | None = None


def deliver(device: Device, parts: Sequence[Stored]) -> list[Letter]:
    """Give newly stored content its rows and open it; return what is newly readable.

    Call inside the transaction that stores it. So no entry is ever stored without its row, its key
    moves on with it, and two processes of this device never open one entry twice.
    """
    found: list[Letter] = []
    for chat in dict.fromkeys(part.run.chat for part in parts if part.run.lane == CONTENT):
        waiting = [
            deque(_as_stored(device, part, parts))
            for part in parts
            if part.run.chat == chat and part.run.lane == CONTENT
        ]
        found += _place(device, chat, waiting)
    return found


def _as_stored(device: Device, part: Stored, parts: Sequence[Stored]) -> Sequence[Entry]:
    """Return the new entries of a run, without what a redaction beside it has dropped since."""
    if all(other.run.lane == CONTENT for other in parts):
        return part.entries
    return [read_entry(device, part.run.chat, entry.reference) for entry in part.entries]


def open_waiting(device: Device) -> list[Letter]:
    """Open what waited for a key that is here now; return what is newly readable.

    Call inside `Device.transaction`.
    """
    return _open_waiting(device, "", ())


def open_waiting_in(device: Device, chat: ChatId) -> list[Letter]:
    """The same in one chat: for the transaction that keeps a seal of it."""
    return _open_waiting(device, "AND chat = ?", (chat,))


def _place(device: Device, chat: ChatId, waiting: Sequence[deque[Entry]]) -> list[Letter]:
    """Give every entry its row and depth, ancestors first; return those that could be opened."""
    found = []
    while any(waiting):
        progress = False
        for queue in waiting:
            while queue and (depth := _depth(device, queue[0])) is not None:
                entry = queue.popleft()
                if _is_behind(device, chat, entry):
                    place = (chat, entry.header.device)
                    found += _open_waiting(device, "AND chat = ? AND device = ?", place)
                letter = _insert(device, chat, entry, depth, _open(device, chat, entry))
                found += [] if letter.state in WAITING else [letter]
                progress = True
        if not progress:
            raise UsageError("content was stored before its ancestors have a row (SPEC 10)")
    return found


def _is_behind(device: Device, chat: ChatId, entry: Entry) -> bool:
    """Whether the key of an epoch is here that earlier messages of the author may wait for.

    All that waits is not tried at each message: a member can withhold seals, and write on.
    """
    header = entry.header
    if not isinstance(header, ContentHeader):
        return False
    found = sender_chain(device, chat, header.epoch, header.device)
    return not isinstance(found, NoKey) and found.generation < header.generation


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


def _insert(device: Device, chat: ChatId, entry: Entry, depth: int, opened: _Opened) -> Letter:
    header = entry.header
    device.connection.execute(
        "INSERT INTO mailbox (chat, device, seq, id, depth, time, state, plaintext, frank)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            chat,
            header.device,
            header.seq,
            entry.id,
            depth,
            header.time,
            opened.state,
            opened.plaintext,
            opened.frank,
        ),
    )
    no = device.connection.last_insert_rowid()
    _note_open(device, chat, entry, opened.state)
    place = Reference(header.device, header.seq, entry.id)
    return Letter(no, chat, place, depth, header.time, opened.state, opened.message)


def _note_open(device: Device, chat: ChatId, entry: Entry, state: State) -> None:
    if state is State.OPEN and isinstance(entry.header, ContentHeader):
        debts.owe(device, chat, entry.header, entry.id)
    if state is State.UNREADABLE:
        debts.owe_rivals(device, chat, entry.reference)


def keep_own(device: Device, chat: ChatId, entry: Entry, plaintext: bytes, frank: bytes) -> None:
    """Put a message of our own into the mailbox: its key is erased, so it is never opened."""
    depth = _depth(device, entry)
    if depth is None:
        raise UsageError("an ancestor of our own entry has no row in the mailbox (SPEC 10)")
    _insert(device, chat, entry, depth, _Opened(State.OPEN, None, plaintext, frank))


def _open_waiting(device: Device, which: str, values: Sequence[bytes]) -> list[Letter]:
    """Open what can be opened of the entries that wait. which: a further condition."""
    found, is_whole = [], cache(device.replica.is_readable)
    rows = device.connection.execute(
        "SELECT no, chat, device, seq, id, depth, time, state, frank FROM mailbox"  # noqa: S608
        f" WHERE state IN (0, 5) {which} ORDER BY chat, device, seq",
        tuple(values),
    ).fetchall()
    for no, chat, reference, depth, time, state, seed in convert(
        [(row[0], row[1], row[2:5], *row[5:]) for row in rows],
        list[tuple[int, ChatId, Reference, int, int, State, bytes | None]],
    ):
        if not is_whole(chat):
            continue
        try:
            entry = read_entry(device, chat, reference)
        except apsw.CorruptError:  # it holds up no other; whoever reads it is told
            continue
        if state is State.LACKING and seed is not None:
            opened = _unseal_late(device, chat, entry, seed)
        else:
            opened = _open(device, chat, entry)
        if opened.state is not state:
            device.connection.execute(
                "UPDATE mailbox SET state = ?, plaintext = ?, frank = ? WHERE no = ?",
                (opened.state, opened.plaintext, opened.frank, no),
            )
            _note_open(device, chat, entry, opened.state)
        if opened.state not in WAITING:
            found.append(Letter(no, chat, reference, depth, time, opened.state, opened.message))
    _pass_over(device, which, values)
    return found


def _pass_over(device: Device, which: str, values: Sequence[bytes]) -> None:
    """Erase the keys of messages that were handed over before the keys came.

    After all that waited was opened: then no earlier key of these chains is wanted.
    """
    rows = device.connection.execute(
        "SELECT chat, epoch, device, passed.generation, senders.generation, chain FROM passed"  # noqa: S608
        f" JOIN senders USING (epoch, device) WHERE senders.generation < passed.generation {which}",
        tuple(values),
    ).fetchall()
    for chat, epoch, sender, generation, at, chain in convert(
        rows, list[tuple[ChatId, EntryId, DeviceKey, int, int, bytes]]
    ):
        if device.replica.is_readable(chat):
            moved = advanced(SenderChain(at, chain), generation)
            save_sender_chain(device, epoch, sender, moved.generation, moved.chain)


def _open(device: Device, chat: ChatId, entry: Entry) -> _Opened:
    header = entry.header
    gone = entry.payload is None and not _is_wanted(device, entry.id)
    closed = State.GONE if gone else State.UNREADABLE
    if not isinstance(header, ContentHeader):
        return _Opened(closed)
    found = sender_chain(device, chat, header.epoch, header.device)
    if isinstance(found, NoKey):
        waits = found is NoKey.NOT_YET and grants.wait_for(device, chat, header)
        return _Opened(State.SEALED if waits else closed)
    found = advanced(found, header.generation)  # past what we were told
    if found.generation != header.generation:
        waits = found.granter is not None and grants.wait_for_earlier(
            device, chat, header, found.granter
        )
        return _Opened(State.SEALED if waits else closed)
    seed, following = schedule.advance(found.chain)
    save_sender_chain(device, header.epoch, header.device, header.generation + 1, following)
    opened = _unseal(device, entry, seed)
    if found.granter is None or opened.state is State.OPEN:
        return opened
    if entry.payload is None:  # whether the key is right shows when the payload comes
        return opened
    lied = grants.distrust(device, chat, header, found.granter)
    return _Opened(State.SEALED) if lied else opened


def _unseal(device: Device, entry: Entry, seed: bytes) -> _Opened:
    """Open an entry with the key of its generation, or keep that for a payload that is wanted."""
    header = entry.header
    if entry.payload is None or not isinstance(header, ContentHeader):
        wanted = _is_wanted(device, entry.id)
        return _Opened(State.LACKING, frank=seed) if wanted else _Opened(State.GONE)
    before = header_before_commitment(header)
    try:
        sealed = ciphertext_of(header, entry.payload)
        frank, plaintext = content.open_content(seed, before, header.pc, sealed)
        return _Opened(State.OPEN, decode_message(plaintext), plaintext, frank)
    except (ContentRefused, PeerError):
        return _Opened(State.REFUSED)


def _unseal_late(device: Device, chat: ChatId, entry: Entry, seed: bytes) -> _Opened:
    """Open an entry whose payload came late. If its key was granted nobody knows who lied."""
    opened = _unseal(device, entry, seed)
    if opened.state is State.REFUSED and grants.is_granted(device, chat, entry.header):
        return _Opened(State.UNREADABLE)
    return opened


def _is_wanted(device: Device, entry: EntryId) -> bool:
    """Whether somebody's word that a payload is gone is not ours, for as long as a prekey lives."""
    since = device.replica.payloads.clock() - PREKEY_ERASE_SECONDS * SECOND_MS
    found = device.connection.execute(
        "SELECT 1 FROM dropped WHERE id = ? AND wanted = 1 AND at > ?", (entry, since)
    ).get
    return found is not None


def accept_disclosed(device: Device, entry: bytes, plaintext: bytes, frank: bytes) -> bool:
    """Take a plaintext that another device of ours hands over, if it is what was signed.

    The commitment in the signed header says so, with no key (SPEC 4.4). Returns whether it fits.
    What was dropped stays so, though it may be sealed yet.
    """
    row = device.connection.execute(
        "SELECT chat, device, seq, state FROM mailbox WHERE id = ? AND state NOT IN (?, ?)"
        " AND NOT EXISTS (SELECT 1 FROM dropped WHERE dropped.id = mailbox.id AND wanted = 0)",
        (entry, State.OPEN, State.GONE),
    ).fetchone()
    if row is None:
        return False
    chat, author, seq, state = convert(row, tuple[ChatId, DeviceKey, int, State])
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
    if state is State.SEALED:
        device.connection.execute(
            "INSERT INTO passed VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET generation = max(generation, excluded.generation)",
            (header.epoch, author, chat, header.generation + 1),
        )
    grants.ask_no_more(device, header.epoch)
    return True


def speaks_of_dropped(device: Device, chat: ChatId, message: Message | None) -> bool:
    """Whether a share holds a message of its chat that was dropped here: it has to go too."""
    letters = message.letters if isinstance(message, Share) else ()
    return any(
        device.connection.execute(
            "SELECT 1 FROM dropped JOIN chats ON no = dropped.chat"
            " WHERE dropped.id = ? AND wanted = 0 AND chats.id = ?",
            (one.entry, chat),
        ).get
        for one in letters
    )


def forget(device: Device, entry: EntryId) -> None:
    """Keep nothing of what a message says. Call inside a transaction."""
    device.connection.execute(
        "UPDATE mailbox SET state = ?, plaintext = NULL, frank = NULL WHERE id = ?",
        (State.GONE, entry),
    )


def _read(plaintext: bytes | None) -> Message | None:
    return None if plaintext is None else decode_message(plaintext)


def read_letter(device: Device, entry: EntryId) -> Message | None:
    """Return what one message says; None if it cannot be read here."""
    row = device.connection.execute(
        "SELECT plaintext FROM mailbox WHERE id = ? AND state = ?", (entry, State.OPEN)
    ).fetchone()
    return None if row is None else _read(row[0])


def latest(device: Device) -> int:
    """Return the number of the newest message here, 0 for none: see `written_since`."""
    return int(device.connection.execute("SELECT coalesce(max(no), 0) FROM mailbox").get)


def written_since(device: Device, number: int) -> EntryId | None:
    """Return the first message that this very device wrote after one of that number, if any."""
    row = device.connection.execute(
        "SELECT id FROM mailbox WHERE no > ? AND device = ? ORDER BY no LIMIT 1",
        (number, device.key),
    ).fetchone()
    return None if row is None else EntryId(row[0])


def stirred_since(device: Device, number: int) -> Sequence[ChatId]:
    """Return the chats in which others' messages came after one of that number."""
    rows = device.connection.execute(
        "SELECT DISTINCT chat FROM mailbox WHERE no > ? AND device != ?", (number, device.key)
    ).fetchall()
    return [chat for (chat,) in convert(rows, list[tuple[ChatId]])]


def select(
    device: Device, where: str, values: Sequence[int | bytes | str | None]
) -> Iterator[Letter]:
    """Yield the letters that meet a condition, read one by one. where: a caller's own words."""
    columns = "no, chat, device, seq, id, depth, time, state, plaintext"
    rows = device.connection.execute(
        f"SELECT {columns} FROM mailbox WHERE {where}",  # noqa: S608 - no word of it is a peer's
        tuple(values),
    )
    for row in rows:
        no, chat, place, depth, time, state, plaintext = convert(
            (row[0], row[1], row[2:5], *row[5:]),
            tuple[int, ChatId, Reference, int, int, State, bytes | None],
        )
        yield Letter(no, chat, place, depth, time, state, _read(plaintext))


def letters(device: Device, chat: ChatId, limit: int, after: int = 0) -> list[Letter]:
    """Return the last `limit` letters of a chat in their order; of those with no > `after`."""
    found = select(
        device,
        "chat = ? AND no > ? ORDER BY depth DESC, time DESC, id DESC LIMIT ?",
        (chat, after, limit),
    )
    return list(found)[::-1]


def readable(device: Device) -> int:
    """Return how many messages this device can read."""
    return int(
        device.connection.execute("SELECT count(*) FROM mailbox WHERE state = ?", (State.OPEN,)).get
    )
