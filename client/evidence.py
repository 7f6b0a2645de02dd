"""Making an evidence file from what this device holds (SPEC 5.10). Reads only.

What goes in: the whole control lane, the headers that prove the chosen messages and that let a
checkpoint cover them, and of the chosen messages what they say. Of the others nothing but headers.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec import convert, structs

from client.device import Device
from client.mailbox import State
from client.sharing import SHARE_BEGINS
from node.errors import UserError
from node.store import Branch, StoredChat
from protocol.chat import Chat
from protocol.disclosure import Share
from protocol.entry import CONTENT, CONTROL, DeviceKey, EntryId, Reference, encode_header
from protocol.exhibit import (
    OMITTABLE,
    ContentPart,
    ControlPart,
    Disclosed,
    plan,
    write_evidence,
)
from protocol.identity import AgencyId
from protocol.limits import COVER_ENTRIES_MAX
from protocol.message import decode_message
from protocol.operation import Checkpoint, Kind
from protocol.run import Entry, rebuild

EVERYTHING_MS = 2**53


@dataclass(frozen=True, slots=True)
class Export:
    """A file in pieces, and what is in it. uncovered: messages that no checkpoint covers.

    besides: further messages, which a share among the chosen holds.
    """

    pieces: Iterator[bytes]
    messages: int
    content: int
    control: int
    checkpoints: int
    uncovered: int
    besides: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A range of one branch."""

    author: DeviceKey
    branch: Branch
    first: int
    last: int


def readable(device: Device, chat: Chat, start: int, end: int) -> list[Reference]:
    """Return the messages that can be read here and were written from start until before end.

    No shares: these hold other messages, which may be from another time.
    """
    rows = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE chat = ? AND state = ?"
        " AND time >= ? AND time < ? AND substr(plaintext, 1, 2) != ? ORDER BY depth, time, id",
        (chat.id, State.OPEN, start, min(end, EVERYTHING_MS), SHARE_BEGINS),
    ).fetchall()
    return convert(rows, list[Reference])


def export(
    device: Device, chat: Chat, wanted: Sequence[Reference], advance: Callable[[int], None]
) -> Export:
    """Make evidence of messages. advance: told how many more entries were gone through.

    Raises UserError for a message that cannot be read here.
    """
    disclosed = {one.id: _opened(device, one) for one in wanted}
    stored = device.replica.store.create_chat(chat.id)
    heads = _heads(device, chat, stored)
    parts = [
        part
        for place, places in _by_branch(device, stored, wanted).items()
        for part in _planned(device, stored, place, places, heads)
    ]
    named, covered = _covering(chat, parts, wanted)
    lane = _lane(device, chat, stored, named, advance)
    runs = (_run(device, stored, part, disclosed, advance) for part in parts)
    return Export(
        pieces=write_evidence(lane, runs),
        messages=len(disclosed),
        content=sum(part.last - part.first + 1 for part in parts),
        control=len(lane),
        checkpoints=len(named),
        uncovered=len(disclosed) - len(covered),
        besides=len(_shared(disclosed.values()) - disclosed.keys()),
    )


def _shared(disclosed: Iterable[Disclosed]) -> set[EntryId]:
    """Return which messages the shares among these hold."""
    found = [decode_message(one.plaintext) for one in disclosed]
    return {held.entry for one in found if isinstance(one, Share) for held in one.letters}


def _opened(device: Device, place: Reference) -> Disclosed:
    row = device.connection.execute(
        "SELECT frank, plaintext FROM mailbox WHERE id = ? AND state = ?", (place.id, State.OPEN)
    ).fetchone()
    if row is None:
        raise UserError(
            f"message {place.id.hex()[:8]} cannot be read on this device, so it cannot be disclosed"
        )
    return Disclosed(row[0], row[1])


def _by_branch(
    device: Device, stored: StoredChat, wanted: Sequence[Reference]
) -> dict[tuple[DeviceKey, int], list[int]]:
    found: dict[tuple[DeviceKey, int], list[int]] = {}
    for one in wanted:
        number = device.replica.store.branch_of(stored, one.device, CONTENT, one.seq, one.id)
        found.setdefault((one.device, number or 0), []).append(one.seq)
    return found


def _heads(
    device: Device, chat: Chat, stored: StoredChat
) -> dict[tuple[DeviceKey, int], dict[AgencyId, list[int]]]:
    """Return by branch and agency which seqs anchored checkpoints name."""
    found: dict[tuple[DeviceKey, int], dict[AgencyId, list[int]]] = {}
    for entry, checkpoint in _anchored(chat).items():
        for head in checkpoint.heads:
            number = device.replica.store.branch_of(stored, head.device, CONTENT, head.seq, head.id)
            if number is not None:
                agencies = found.setdefault((head.device, number), {})
                agencies.setdefault(chat.anchored[entry], []).append(head.seq)
    return found


def _anchored(chat: Chat) -> dict[EntryId, Checkpoint]:
    return {
        entry.id: entry.operation
        for entry in chat.history.entries
        if isinstance(entry.operation, Checkpoint) and entry.id in chat.anchored
    }


def _planned(
    device: Device,
    stored: StoredChat,
    place: tuple[DeviceKey, int],
    seqs: Sequence[int],
    heads: Mapping[tuple[DeviceKey, int], Mapping[AgencyId, Sequence[int]]],
) -> Iterator[_Part]:
    author, number = place
    chain = stored.chains[author, CONTENT]
    branch = chain[number]
    stop = branch.length + COVER_ENTRIES_MAX
    rows = device.replica.store.rows(chain, branch, min(seqs), stop)
    signed = [row[0] for row in rows if row[3] is not None]
    named = [sorted(one) for one in heads.get(place, {}).values()]
    for first, last in plan(seqs, signed, named):
        yield _Part(author, branch, first, last)


def _covering(
    chat: Chat, parts: Sequence[_Part], wanted: Sequence[Reference]
) -> tuple[set[EntryId], set[EntryId]]:
    """Return which checkpoints cover something wanted, and what of it is covered."""
    ranges = {(part.author, part.first): part for part in parts}
    firsts: dict[DeviceKey, list[int]] = {}
    for author, first in sorted(ranges):
        firsts.setdefault(author, []).append(first)
    seqs: dict[tuple[DeviceKey, int], list[Reference]] = {}
    for one in sorted(wanted):
        seqs.setdefault(_range(firsts, one), []).append(one)
    named: set[EntryId] = set()
    covered: set[EntryId] = set()
    for entry, checkpoint in _anchored(chat).items():
        for head in checkpoint.heads:
            place = _range(firsts, head)
            part = ranges.get(place)
            if part is None or head.seq > part.last:
                continue
            below = [one.id for one in seqs.get(place, ()) if one.seq <= head.seq]
            named |= {entry} if below else set()
            covered |= set(below)
    return named, covered


def _range(firsts: Mapping[DeviceKey, Sequence[int]], place: Reference) -> tuple[DeviceKey, int]:
    """Return the key of the range that a place would be in."""
    listed = firsts.get(place.device, ())
    at = bisect_right(listed, place.seq) - 1
    return place.device, listed[at] if at >= 0 else -1


def _lane(
    device: Device,
    chat: Chat,
    stored: StoredChat,
    named: set[EntryId],
    advance: Callable[[int], None],
) -> list[ControlPart]:
    """Return the control entries in the order of admission; without payloads that tell nothing."""
    found: dict[EntryId, ControlPart] = {}
    for (author, lane), chain in stored.chains.items():
        if lane != CONTROL:
            continue
        for branch in chain:
            for entry in _entries(device, stored, chain, branch, lane, branch.base, branch.length):
                found[entry.id] = _control_part(entry, named)
            advance(branch.length - branch.base)
        del author
    return [found[entry.id] for entry in chat.history.entries]


def _control_part(entry: Entry, named: set[EntryId]) -> ControlPart:
    kind = entry.header.kind
    told = kind not in OMITTABLE or (kind == Kind.CHECKPOINT and entry.id in named)
    return ControlPart(
        encode_header(entry.header), entry.signature, entry.payload if told else None
    )


def _entries(
    device: Device,
    stored: StoredChat,
    chain: Sequence[Branch],
    branch: Branch,
    lane: int,
    start: int,
    stop: int,
) -> list[Entry]:
    """Read stored entries of a branch, each with its signature if that is kept."""
    store = device.replica.store
    author = next(key for key, value in stored.chains.items() if value is chain)[0]
    prev, context = store.context_before(chain, branch, lane, start)
    rows = list(store.rows(chain, branch, start, stop))
    records = [row[2] for row in rows]
    entries = rebuild(stored.id, DeviceKey(author), lane, start, prev, context, records)
    return [
        structs.replace(entry, signature=row[3]) for entry, row in zip(entries, rows, strict=True)
    ]


def _run(
    device: Device,
    stored: StoredChat,
    part: _Part,
    disclosed: Mapping[EntryId, Disclosed],
    advance: Callable[[int], None],
) -> list[ContentPart]:
    chain = stored.chains[part.author, CONTENT]
    entries = _entries(device, stored, chain, part.branch, CONTENT, part.first, part.last + 1)
    kept = _fewest([at for at, entry in enumerate(entries) if entry.signature is not None])
    advance(len(entries))
    return [
        ContentPart(
            encode_header(entry.header),
            entry.signature if at in kept else None,
            disclosed.get(entry.id),
        )
        for at, entry in enumerate(entries)
    ]


def _fewest(signed: Sequence[int]) -> set[int]:
    """Return which of these ascending places suffice to cover all up to the last."""
    kept = {signed[-1]}
    at = signed[-1]
    while (farthest := bisect_left(signed, at - COVER_ENTRIES_MAX)) < len(signed):
        if signed[farthest] >= at:
            break
        at = signed[farthest]
        kept.add(at)
    return kept
