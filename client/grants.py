"""Keys for the readers of channels, and for whom an epoch skipped: asked for, granted, and taken.

SPEC 4.6.

A publisher's device owes keys to readers' devices: of each epoch that it starts to all, of the
present one to whom it takes in, and of any to who asks. What it owes it makes and hands over a few
at a time, when it is connected. Whatever is done twice is done once.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from msgspec import convert

from client import debts
from client.device import Device
from client.entries import header_at
from client.epochs import (
    NoKey,
    SenderChain,
    advanced,
    chains_of,
    fitting,
    own_prekey,
    prekey_of,
    sender_chain,
)
from client.federated import reached
from client.owing import keep_opening, owe
from crypto.errors import SealRefused
from node.errors import IdentityError
from node.stored import Stored
from protocol import keygrant
from protocol.chat import Chat
from protocol.dag import EpochEntry, bits
from protocol.entry import CONTENT, CONTROL, ChatId, ContentHeader, DeviceKey, EntryId, Header
from protocol.epoch import BadSeal, rank
from protocol.history import History
from protocol.identity import verify_prekey
from protocol.keygrant import EPOCHS_ASKED_MAX, Asked, ChainKey, Granted
from protocol.operation import Kind
from protocol.policy import Role
from protocol.question import Forward

GRANTS_AT_ONCE = 64  # made in one transaction
ASKS_AT_ONCE = 64
ASK_AGAIN_MS = 60_000  # twice as long after each time
DOUBLINGS_MAX = 10
KEY_BYTES = 32
EPOCHS_OPEN_MAX = 4  # that members may write in at one time; guess
REFUSALS_MAX = 8  # of one grant; then its reader has to ask. Guess


@dataclass(frozen=True, slots=True)
class Errand:
    """A grant to hand over."""

    epoch: EntryId
    question: Forward


def wait_for(device: Device, chat: ChatId, header: ContentHeader) -> bool:
    """Note that a message lacks its key; return whether one may come.

    None comes of what its author wrote without knowing that we are in.
    """
    judge = device.replica.chat(chat)
    if judge is None or not _is_granted(device, judge, header.epoch):
        return True
    if not _is_for_us(device, judge, header):
        return False
    _ask(device, chat, header.epoch)
    return True


def wait_for_earlier(
    device: Device, chat: ChatId, header: ContentHeader, granter: DeviceKey
) -> bool:
    """Note that a granted chain begins behind a message; return whether another's may not.

    Each publisher of the epoch is asked until it has answered so: the granter may have come late
    to it itself, or have read on. Another device of ours is asked, too: it may have read it.
    """
    judge = device.replica.chat(chat)
    if judge is None or not _is_for_us(device, judge, header):
        return False
    _note_late(device, header.epoch, granter)
    waits = bool(_holders(device, judge, header.epoch) - _late(device, header.epoch))
    if waits or _ours(device, judge):
        _ask(device, chat, header.epoch)
    return waits


def _is_for_us(device: Device, judge: Chat, header: ContentHeader) -> bool:
    """Whether the author of a message knew that we are in, and we still are."""
    history = judge.history
    seen = history.past([head.id for head in header.control])
    known = history.authority.introductions(device.key) & seen
    return bool(known) and device.key in judge.membership().devices


def _ask(device: Device, chat: ChatId, epoch: EntryId) -> None:
    device.connection.execute(
        "INSERT INTO asked VALUES (?, ?, 0, 0) ON CONFLICT DO NOTHING", (epoch, chat)
    )


def ask_no_more(device: Device, epoch: EntryId) -> None:
    """Ask nobody for an epoch's keys, unless more waits for them. Call inside a transaction."""
    device.connection.execute("DELETE FROM asked WHERE epoch = ?", (epoch,))


def _note_late(device: Device, epoch: EntryId, granter: DeviceKey) -> None:
    device.connection.execute(
        "INSERT INTO late_grants VALUES (?, ?) ON CONFLICT DO NOTHING", (epoch, granter)
    )


def _late(device: Device, epoch: EntryId) -> set[DeviceKey]:
    rows = device.connection.execute("SELECT granter FROM late_grants WHERE epoch = ?", (epoch,))
    return {one for (one,) in convert(rows.fetchall(), list[tuple[DeviceKey]])}


def _holders(device: Device, judge: Chat, epoch: EntryId) -> set[DeviceKey]:
    """Return the devices that an epoch is sealed to, and that are still in, without ours."""
    started = judge.history.epoch(epoch)
    sealed = set() if started is None else set(judge.history.recipients(started))
    return sealed & judge.membership().sealed - {device.key}


def _ours(device: Device, judge: Chat) -> set[DeviceKey]:
    """Return the other devices of our user that are in a chat: they owe what they have read."""
    return judge.membership().devices.keys() & set(device.others)


def is_granted(device: Device, chat: ChatId, header: Header) -> bool:
    """Whether the key of a message comes by grants, not by a seal of its author."""
    judge = device.replica.chat(chat)
    return (
        judge is not None
        and isinstance(header, ContentHeader)
        and _is_granted(device, judge, header.epoch)
    )


def _is_granted(device: Device, judge: Chat, epoch: EntryId) -> bool:
    found = judge.history.epoch(epoch)
    return found is not None and judge.history.is_granted(found, device.key)


def note_entered(device: Device, parts: Sequence[Stored], now: int) -> None:
    """Keep the chains as they stand where members bring devices into a channel: those will ask.

    Nobody owes those keys; whom an admin takes in, that one owes them.
    Call inside the transaction that stores it, before what else has come is opened. now:
    milliseconds.
    """
    for chat in dict.fromkeys(one.run.chat for one in parts if _enrols(one)):
        judge = device.chat(chat)
        if judge is None or not judge.history.is_channel:
            continue
        if not judge.membership().may_write(device.key):
            continue
        for epoch in islice(fitting(device, judge), EPOCHS_OPEN_MAX):
            if not isinstance(sender_chain(device, chat, epoch, device.key), NoKey):
                keep_opening(device, judge, epoch, now)


def _enrols(part: Stored) -> bool:
    return part.run.lane == CONTROL and any(one.header.kind == Kind.ENROLL for one in part.entries)


def distrust(device: Device, chat: ChatId, header: ContentHeader, granter: DeviceKey) -> bool:
    """Note that a granted key did not open a message; return whether another's grant might.

    It is the granter who lied, or the author: once a second user's grant fails, or the author's
    own, it is the author. Whoever of them is out by now counts as they were.
    """
    judge = device.replica.chat(chat)
    if judge is None:
        return False
    rows = device.connection.execute(
        "SELECT granter FROM bad_grants WHERE epoch = ? AND sender = ?",
        (header.epoch, header.device),
    ).fetchall()
    ours, users = judge.history.users_of(granter), judge.history.users_of
    others = [users(one) for (one,) in convert(rows, list[tuple[DeviceKey]])]
    if not ours.isdisjoint(users(header.device)) or any(map(ours.isdisjoint, others)):
        return False
    place = (header.epoch, granter, header.device)
    device.connection.execute(
        "INSERT INTO bad_grants VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (*place, chat)
    )
    device.connection.execute(
        "DELETE FROM senders WHERE epoch = ? AND granter = ? AND device = ?", place
    )
    _ask(device, chat, header.epoch)
    return True


def distrusted(device: Device, chat: ChatId) -> list[tuple[DeviceKey, EntryId]]:
    """Return who granted keys that did not open what they were for, and of which epoch."""
    rows = device.connection.execute(
        "SELECT DISTINCT granter, epoch FROM bad_grants WHERE chat = ? ORDER BY 1, 2", (chat,)
    ).fetchall()
    return convert(rows, list[tuple[DeviceKey, EntryId]])


def take(device: Device, parcel: bytes) -> None:
    """Take a grant or a question for one. Call inside a transaction.

    Raises PeerError or IdentityError if it is not to be believed.
    """
    found = keygrant.read(parcel)
    judge = device.replica.chat(found.chat)
    if found.receiver != device.key:
        raise IdentityError("a parcel of keys for another device; it was thrown away")
    if judge is None:
        raise IdentityError("a parcel of keys of a chat that is not here; it was thrown away")
    if isinstance(found, Granted):
        _take_grant(device, judge, found)
    else:
        _take_question(device, judge, found)


def _take_question(device: Device, judge: Chat, asked: Asked) -> None:
    if judge.membership().member_of(asked.sender) is None:
        raise IdentityError("somebody outside a chat asks for its keys; nothing was given")
    for epoch in asked.epochs:
        started = judge.history.epoch(epoch)
        if started is None or not judge.history.is_granted(started, asked.sender):
            continue
        owe(device, judge, epoch, [asked.sender], asked.record)
        if asked.sender in device.others:
            debts.owe_epoch(device, judge, epoch, asked.sender)


def _take_grant(device: Device, judge: Chat, grant: Granted) -> None:
    epoch = judge.history.epoch(grant.epoch)
    granter = judge.membership().member_of(grant.sender)
    if epoch is None or granter is None or granter.role < Role.MEMBER:
        raise IdentityError("keys of a chat from nobody who may grant them; thrown away")
    private = device.connection.execute(
        "SELECT private FROM prekeys WHERE id = ?", (grant.prekey,)
    ).get
    if private is None:
        raise IdentityError("keys of a chat for a prekey that this device no longer has")
    chains = keygrant.open_grant(grant, private)
    if not judge.history.is_granted(epoch, device.key):
        return
    senders = judge.history.named(epoch) - {device.key} - _bad_for(device, grant)
    late = bool(_late(device, grant.epoch))
    device.connection.executemany(
        "INSERT INTO senders VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " generation = excluded.generation, chain = excluded.chain, granter = excluded.granter"
        " WHERE ? AND granter IS NOT NULL AND excluded.generation < generation",
        [
            (grant.epoch, sender, one.generation, one.chain, grant.sender, late)
            for sender, one in chains.items()
            if sender in senders
        ],
    )
    if late:
        _note_late(device, grant.epoch, grant.sender)
    ask_no_more(device, grant.epoch)


def _bad_for(device: Device, grant: Granted) -> set[DeviceKey]:
    rows = device.connection.execute(
        "SELECT sender FROM bad_grants WHERE epoch = ? AND granter = ?", (grant.epoch, grant.sender)
    ).fetchall()
    return {sender for (sender,) in convert(rows, list[tuple[DeviceKey]])}


def asks(device: Device, now: int) -> list[Forward]:
    """Return the questions that are due for keys that we lack. Call inside a transaction.

    now: milliseconds. Each epoch is asked of one publisher's device, its author first, then of the
    next, then of our own others, ever more rarely, those first that have waited longest; what one
    device is asked for goes in one question.
    """
    rows = convert(
        device.connection.execute(
            "SELECT epoch, chat, tries, time FROM asked ORDER BY time, epoch"
        ).fetchall(),
        list[tuple[EntryId, ChatId, int, int]],
    )
    found: dict[tuple[ChatId, DeviceKey], list[EntryId]] = {}
    for epoch, chat, tries, time in rows:
        pause = ASK_AGAIN_MS << min(tries - 1, DOUBLINGS_MAX) if tries else 0
        if abs(now - time) < pause:
            continue
        publisher = _whom_to_ask(device, chat, epoch, tries)
        if publisher is None:
            ask_no_more(device, epoch)
            continue
        epochs = found.get((chat, publisher), [])
        if len(epochs) < EPOCHS_ASKED_MAX and (epochs or len(found) < ASKS_AT_ONCE):
            device.connection.execute(
                "UPDATE asked SET tries = tries + 1, time = ? WHERE epoch = ?", (now, epoch)
            )
            found[chat, publisher] = [*epochs, epoch]
    return [
        _question(device, chat, publisher, epochs, now)
        for (chat, publisher), epochs in found.items()
    ]


def unheard(device: Device, asked: Forward) -> None:
    """Note that a question found no node: the next one is asked, as soon as if this were not.

    Call inside a transaction.
    """
    found = keygrant.read(asked.body)
    judge = device.chat(found.chat)
    if judge is None or not isinstance(found, Asked):
        return
    for epoch in found.epochs:
        others = _holders(device, judge, epoch) | _ours(device, judge)
        device.connection.execute(
            "UPDATE asked SET tries = tries % ? WHERE epoch = ?", (max(len(others), 1), epoch)
        )


def ask_at_once(device: Device) -> None:
    """Put each question again now: others can be reached. Call inside a transaction."""
    device.connection.execute("UPDATE asked SET tries = 0")


def _whom_to_ask(device: Device, chat: ChatId, epoch: EntryId, tries: int) -> DeviceKey | None:
    judge = device.chat(chat)
    started = None if judge is None else judge.history.epoch(epoch)
    if judge is None or started is None or device.key not in judge.membership().devices:
        return None
    author = judge.history.entries[started.index].device
    rows = device.connection.execute("SELECT granter FROM bad_grants WHERE epoch = ?", (epoch,))
    bad = {one for (one,) in convert(rows.fetchall(), list[tuple[DeviceKey]])}
    late = _late(device, epoch)
    holders, ours = _holders(device, judge, epoch), _ours(device, judge)
    near = reached(device, judge.membership()) | ours
    ranked = sorted(
        holders | ours,
        key=lambda one: (
            *(one not in near, one in late, one in bad),
            *(one in ours - holders, one != author, one),
        ),
    )
    return ranked[tries % len(ranked)] if ranked else None


def _question(
    device: Device, chat: ChatId, publisher: DeviceKey, epochs: Sequence[EntryId], now: int
) -> Forward:
    judge = device.chat(chat)
    member = None if judge is None else judge.membership().member_of(publisher)
    assert member is not None
    record = own_prekey(device, now)
    body = keygrant.sign_ask(device.secrets.device, chat, epochs, publisher, record)
    return Forward(chat, member.agency, publisher, body)


def due(device: Device, now: int) -> list[Errand]:
    """Make some of the grants that we owe. Call inside a transaction; then `done` for each.

    It begins with another reader each time, as the nodes of the first may be away. Owed no more
    are those to devices that are out, or of which no prekey is known: they ask.
    """
    rows = convert(
        device.connection.execute(
            "SELECT chat, epoch, device, prekey FROM owed"
            " ORDER BY device < ?, device, epoch LIMIT ?",
            (device.random(KEY_BYTES), GRANTS_AT_ONCE),
        ).fetchall(),
        list[tuple[ChatId, EntryId, DeviceKey, bytes | None]],
    )
    found = []
    for chat, epoch, reader, record in rows:
        question = _grant(device, chat, epoch, reader, record, now)
        if question is None:
            _settle(device, epoch, reader)
        else:
            found.append(Errand(epoch, question))
    return found


def done(device: Device, errand: Errand) -> None:
    """A grant is handed over: it is owed no more. Call inside a transaction."""
    _settle(device, errand.epoch, errand.question.device)


def refused(device: Device, errand: Errand) -> None:
    """A node would not keep a grant: it may not know the reader yet, or never will.

    Call inside a transaction.
    """
    place = (errand.epoch, errand.question.device)
    device.connection.execute(
        "UPDATE owed SET refused = refused + 1 WHERE epoch = ? AND device = ?", place
    )
    device.connection.execute("DELETE FROM owed WHERE refused >= ?", (REFUSALS_MAX,))


def _settle(device: Device, epoch: EntryId, reader: DeviceKey) -> None:
    device.connection.execute("DELETE FROM owed WHERE epoch = ? AND device = ?", (epoch, reader))


def _grant(
    device: Device,
    chat: ChatId,
    epoch: EntryId,
    reader: DeviceKey,
    record: bytes | None,
    now: int,
) -> Forward | None:
    judge = device.chat(chat)
    member = None if judge is None else judge.membership().member_of(reader)
    if judge is None or member is None or not judge.membership().may_write(device.key):
        return None
    chains = _chains(device, judge, epoch, reader)
    prekey = prekey_of(device, judge, reader, now) if record is None else verify_prekey(record)
    if not chains or prekey is None:
        return None
    key = device.random(KEY_BYTES)
    try:
        body = keygrant.seal_grant(device.secrets.device, chat, epoch, prekey, chains, key)
    except SealRefused:  # a prekey that is none: its reader has to ask with another
        return None
    return Forward(chat, member.agency, reader, body)


def _chains(
    device: Device, judge: Chat, epoch: EntryId, reader: DeviceKey
) -> dict[DeviceKey, ChainKey]:
    """Return an epoch's chains as they stood when a reader came in, or as they stand here.

    As long as its seal for us can be opened, each begins with the first message for the reader.
    """
    started = judge.history.epoch(epoch)
    if started is None or not judge.history.is_granted(started, reader):
        return {}
    since = _entered(judge.history, started, reader)
    rows = _read(
        device,
        "SELECT device, generation, chain FROM openings WHERE epoch = ? AND mark ="
        " (SELECT min(mark) FROM openings WHERE epoch = ? AND mark >= ?)",
        (epoch, epoch, since),
    ) or _read(device, "SELECT device, generation, chain FROM senders WHERE epoch = ?", (epoch,))
    found = {sender: ChainKey(generation, chain) for sender, generation, chain in rows}
    moved = [sender for sender, one in found.items() if one.generation]
    begun = _begun(device, judge.id, epoch) if moved else {}
    for sender in begun.keys() & moved:
        first = 0 if since == started.index else _first_for(device, judge, epoch, sender, since)
        if first is not None and first < found[sender].generation:
            earlier = advanced(SenderChain(0, begun[sender]), first)
            found[sender] = ChainKey(earlier.generation, earlier.chain)
    return found


def _begun(device: Device, chat: ChatId, epoch: EntryId) -> Mapping[DeviceKey, bytes]:
    try:
        found = chains_of(device, chat, epoch)
    except BadSeal:
        return {}
    return {} if isinstance(found, NoKey) else found


def _first_for(
    device: Device, judge: Chat, epoch: EntryId, sender: DeviceKey, since: int
) -> int | None:
    """Return the generation of a sender's first message in an epoch that had seen an entry.

    None if there is none here. Along a chain what its author had seen never grows less, nor does
    the rank of its epochs.
    """
    history, stored = judge.history, device.replica.store.create_chat(judge.id)
    least = rank(history, epoch)

    def is_for_reader(header: Header) -> bool:
        if not isinstance(header, ContentHeader) or rank(history, header.epoch) < least:
            return False
        return bool(history.past([head.id for head in header.control]) >> since & 1)

    firsts = [
        _first(partial(header_at, device, stored, sender, branch), branch.length, is_for_reader)
        for branch in stored.chains.get((sender, CONTENT), ())
    ]
    return min(
        (one.generation for one in firsts if isinstance(one, ContentHeader) and one.epoch == epoch),
        default=None,
    )


def _first(
    header: Callable[[int], Header], count: int, fits: Callable[[Header], bool]
) -> Header | None:
    first = bisect_left(range(count), x=True, key=lambda seq: fits(header(seq)))
    return None if first == count else header(first)


def _entered(history: History, epoch: EpochEntry, reader: DeviceKey) -> int:
    """Return the entry with which an epoch began for a reader: itself, or what let them in since.

    Of several the earliest: what was said from then on is for the reader, whatever came later.
    """
    if reader in history.members(epoch):
        return epoch.index
    entrances = history.authority.entrances(reader, history.everything)
    return next(bits(entrances & ~history.pasts[epoch.index]), len(history))


def _read(
    device: Device, query: str, values: tuple[EntryId | int, ...]
) -> list[tuple[DeviceKey, int, bytes]]:
    rows = device.connection.execute(query, values).fetchall()
    return convert(rows, list[tuple[DeviceKey, int, bytes]])
