"""The newest messages of a chat that is far behind: opened to be shown, never kept (SPEC 6.3).

What can be checked without the entries between is: signature, author, epoch, and what is inside.
Keys are read forward from where they stand and left there, for the sync that comes after.
"""

from collections.abc import Sequence

from client.device import Device
from client.epochs import NoKey, SenderChain, advanced, sender_chain
from client.mailbox import Letter, State
from client.reading import Line, Reader
from crypto import content, schedule
from crypto.errors import ContentRefused
from protocol.attachment import ciphertext_of
from protocol.chat import Chat
from protocol.entry import (
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    Reference,
    header_before_commitment,
)
from protocol.errors import PeerError
from protocol.limits import EPOCH_MESSAGES_MAX
from protocol.message import Message, decode_message
from protocol.run import Entry

Keys = dict[tuple[EntryId, DeviceKey], SenderChain | NoKey]


def preview(device: Device, chat: ChatId, entries: Sequence[Entry], now: int) -> list[Line]:
    """Return the messages to show of authentic entries, in the order for people as far as known.

    Call inside a transaction: an epoch may be opened for it. now: milliseconds.
    """
    judge = device.replica.chat(chat)
    if judge is None:
        return []
    keys: Keys = {}
    depths: dict[EntryId, int] = {}
    found = []
    for entry in device.replica.payloads.allowed(judge, _in_order(entries)):
        depths[entry.id] = 1 + max((depths.get(one, -1) for one in _parents(entry)), default=-1)
        header = _permitted(judge, entry)
        if header is None or _is_here(device, entry.id):
            continue
        state, message = _opened(device, chat, header, entry, keys)
        place = Reference(header.device, header.seq, entry.id)
        letter = Letter(0, chat, place, depths[entry.id], header.time, state, message)
        found.append((letter, header))
    found.sort(key=lambda one: (one[0].depth, one[0].time, one[0].reference.id))
    reader = Reader(device, judge, now)
    return [reader.ahead(letter, header) for letter, header in found]


def _in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries after what they name, where that is among them."""
    waiting = {entry.id: entry for entry in entries}
    ordered: dict[EntryId, Entry] = {}
    stack = list(reversed(entries))
    while stack:
        entry = stack[-1]
        first = [waiting[one] for one in _parents(entry) if one in waiting and one not in ordered]
        if first:
            stack += first
            continue
        ordered[entry.id] = stack.pop()
    return list(ordered.values())


def _parents(entry: Entry) -> list[EntryId]:
    prev = entry.header.prev
    links = [link.id for link in entry.header.links]
    return links if prev is None else [prev, *links]


def _permitted(judge: Chat, entry: Entry) -> ContentHeader | None:
    try:
        return judge.check_ahead(entry)
    except PeerError:
        return None  # the sync will say why, when it gets there


def _is_here(device: Device, entry: EntryId) -> bool:
    return bool(device.connection.execute("SELECT 1 FROM mailbox WHERE id = ?", (entry,)).get)


def _opened(
    device: Device, chat: ChatId, header: ContentHeader, entry: Entry, keys: Keys
) -> tuple[State, Message | None]:
    if entry.payload is None:
        return State.GONE, None
    place = header.epoch, header.device
    found = keys.get(place) or sender_chain(device, chat, header.epoch, header.device)
    if isinstance(found, NoKey):
        keys[place] = found
        return (State.SEALED if found is NoKey.NOT_YET else State.UNREADABLE), None
    if header.generation < EPOCH_MESSAGES_MAX:
        found = keys[place] = advanced(found, header.generation)
    if found.generation != header.generation:
        return State.UNREADABLE, None
    seed, _ = schedule.advance(found.chain)
    before = header_before_commitment(header)
    try:
        sealed = ciphertext_of(header, entry.payload)
        _, plaintext = content.open_content(seed, before, header.pc, sealed)
        return State.OPEN, decode_message(plaintext)
    except (ContentRefused, PeerError):
        return State.REFUSED, None
