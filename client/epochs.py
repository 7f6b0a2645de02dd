"""Epochs on a device: start one, open one, and keep only what the next message needs (SPEC 4).

Of an epoch's secret a device keeps one key chain a sender, and of each chain only its newest key.
The secret itself is never stored.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from msgspec import convert

from client import nacks
from client.device import Device
from client.owing import owe_all
from client.writing import append_control, control_heads, next_place
from crypto import merkle, schedule
from crypto.errors import SealRefused
from crypto.sealing import PREKEY_PRIVATE_BYTES, takes_seals
from crypto.sealing import Prekey as PrekeyPair
from node.errors import RefusedError
from protocol import epoch as rules
from protocol.chat import Chat
from protocol.dag import bits
from protocol.entry import ChatId, DeviceKey, EntryId, place_of
from protocol.errors import PeerError
from protocol.frame import Seal
from protocol.identity import Prekey, sign_prekey, verify_prekey
from protocol.limits import (
    EPOCH_MESSAGES_MAX,
    EPOCH_RENEW_SECONDS,
    PREKEY_ERASE_SECONDS,
    PREKEY_RENEW_SECONDS,
    SEALS_SPREAD_MAX,
)
from protocol.nack import shunned
from protocol.operation import EpochOperation
from protocol.policy import HistoryRule

SECRET_BYTES = 32
SECOND_MS = 1000
PASSED_OVER_MAX = 64 * 1024  # generations; guess


class SenderChain(NamedTuple):
    """Where a sender's key chain stands: the generation of the next message, and its key."""

    generation: int
    chain: bytes
    granter: DeviceKey | None = None


class NoKey(Enum):
    """Why there is no chain."""

    NOT_YET = "its seal has not come yet"
    NEVER = "it was not sealed to this device, or its key is erased"


def sender_chain(
    device: Device, chat: ChatId, epoch: EntryId, sender: DeviceKey
) -> SenderChain | NoKey:
    """Return a sender's chain, opening the epoch if its seal is here."""
    row = device.connection.execute(
        "SELECT generation, chain, granter FROM senders WHERE epoch = ? AND device = ?",
        (epoch, sender),
    ).fetchone()
    if row is not None:
        return convert(row, SenderChain)
    judge = device.replica.chat(chat)
    entry = None if judge is None else judge.history.epoch(epoch)
    if judge is None or entry is None:
        return NoKey.NEVER
    listed = judge.history.recipients(entry)
    if judge.history.is_granted(entry, device.key):
        return NoKey.NOT_YET if sender in listed else NoKey.NEVER
    if device.key not in listed or sender not in listed:
        return NoKey.NEVER
    if _is_open(device, epoch) or nacks.is_bad(device, epoch):
        return NoKey.NEVER
    return _open_epoch(device, chat, epoch, sender)


def _is_open(device: Device, epoch: EntryId) -> bool:
    found = device.connection.execute("SELECT 1 FROM senders WHERE epoch = ?", (epoch,)).get
    return found is not None


def _open_epoch(
    device: Device, chat: ChatId, epoch: EntryId, sender: DeviceKey
) -> SenderChain | NoKey:
    """Open our seal of an epoch, if it is here, and keep a key chain for each recipient."""
    try:
        chains = chains_of(device, chat, epoch)
    except rules.BadSeal as error:
        nacks.note_bad_seal(device, chat, epoch, error.reason)
        return NoKey.NEVER
    if isinstance(chains, NoKey):
        return chains
    _keep_chains(device, chains, epoch)
    return sender_chain(device, chat, epoch, sender)


def chains_of(device: Device, chat: ChatId, epoch: EntryId) -> Mapping[DeviceKey, bytes] | NoKey:
    """Return the chains of an epoch as they begin, by its seal for us. Raises BadSeal.

    Possible for as long as the prekey lives that it is sealed to.
    """
    judge = device.replica.chat(chat)
    entry = None if judge is None else judge.history.epoch(epoch)
    seals = device.replica.seals_for(chat, epoch, [device.key])
    header = device.replica.control_header(chat, epoch)
    if judge is None or entry is None or header is None or not seals:
        return NoKey.NOT_YET
    seal = seals[0]
    prekey = rules.prekey_of(seal.seal)
    private = device.connection.execute("SELECT private FROM prekeys WHERE id = ?", (prekey,)).get
    if private is None:
        if not _was_ours(device, prekey):
            raise rules.BadSeal(rules.NackReason.DOES_NOT_OPEN, "sealed to no prekey of ours")
        return NoKey.NEVER
    secret = rules.open_seal(
        place_of(header),
        entry.operation,
        judge.history.recipients(entry),
        device.key,
        private,
        seal.seal,
        seal.path,
    )
    return rules.sender_chains(epoch, secret, judge.history.named(entry))


def _was_ours(device: Device, prekey: bytes) -> bool:
    row = device.connection.execute("SELECT 1 FROM erased_prekeys WHERE id = ?", (prekey,)).get
    return row is not None


def _keep_chains(device: Device, chains: Mapping[DeviceKey, bytes], epoch: EntryId) -> None:
    device.connection.executemany(
        "INSERT INTO senders VALUES (?, ?, 0, ?, NULL) ON CONFLICT DO NOTHING",
        [(epoch, sender, chain) for sender, chain in chains.items()],
    )


def advanced(found: SenderChain, generation: int) -> SenderChain:
    """Pass over the keys before a generation; a chain that is past it, or far off, stays."""
    chain, at = found.chain, found.generation
    if generation - at > PASSED_OVER_MAX:
        return found
    while at < generation:
        _, chain = schedule.advance(chain)
        at += 1
    return found._replace(generation=at, chain=chain)


def save_sender_chain(
    device: Device, epoch: EntryId, sender: DeviceKey, generation: int, chain: bytes
) -> None:
    """Put the next key of a chain in the place of the last, which is gone (secure_delete)."""
    device.connection.execute(
        "UPDATE senders SET generation = ?, chain = ? WHERE epoch = ? AND device = ?",
        (generation, chain, epoch, sender),
    )


def epoch_for(device: Device, chat: Chat, now: int) -> EntryId:
    """Return the epoch to write with: the best one that fits and is not shunned, or a new one.

    now: milliseconds. Call inside `Device.transaction`.
    """
    for found in fitting(device, chat):
        if _usable(device, chat, found, now) and not _could_reach_more(device, chat, found, now):
            return found
    return start_epoch(device, chat, now)


def fitting(device: Device, chat: Chat) -> Iterator[EntryId]:
    """Yield the epochs that fit who is in, the best ones first, but for shunned ones."""
    past = chat.history.everything
    current = device.replica.last_epoch(chat.id, device.key)
    ruled_out = shunned(chat.history, past, device.key)
    yield from rules.choices(chat.history, past, chat.membership(), current, ruled_out)


def _usable(device: Device, chat: Chat, epoch: EntryId, now: int) -> bool:
    chain = sender_chain(device, chat.id, epoch, device.key)
    if isinstance(chain, NoKey) or chain.generation >= EPOCH_MESSAGES_MAX:
        return False
    begun = device.epoch_times.get(epoch)
    if begun is None:
        header = device.replica.control_header(chat.id, epoch)
        if header is None:
            return False
        begun = device.epoch_times[epoch] = header.time
    # Its author says when it began: a time far ahead must not keep it in use.
    return abs(now - begun) < EPOCH_RENEW_SECONDS * SECOND_MS


def _could_reach_more(device: Device, chat: Chat, epoch: EntryId, now: int) -> bool:
    """Whether an epoch skips devices that a new one of ours would not, and reaches no other.

    So each that is started for that reason skips fewer: nobody starts them for ever.
    """
    skipped = _skipped(chat, epoch)
    found = [prekey for one in skipped if (prekey := prekey_of(device, chat, one, now))]
    if not found or not _prekeys(device, chat, now)[1] <= skipped:
        return False
    return any(takes_seals(prekey.public) for prekey in found)


def skipping(device: Device) -> list[ChatId]:
    """Return the chats in which the last epoch that we have started skips somebody."""
    found = []
    for judge in device.chats():
        ours = judge.history.epochs & judge.history.chain(device.key)
        last = judge.history.entries[ours.bit_length() - 1].operation if ours else None
        if isinstance(last, EpochOperation) and last.skipped:
            found.append(judge.id)
    return found


def let_all_read(device: Device, chats: Iterable[ChatId], now: int) -> int:
    """Start an epoch in each of these chats whose best one skips whom we could reach.

    Its author may never know a key of theirs, as where the two agencies do not trust each other.
    Among many, who let them in does, and all others who know one wait until they write. Return in
    how many. Call inside a transaction.
    """
    count = 0
    for judge in filter(None, map(device.chat, chats)):
        best = next(fitting(device, judge), None)
        if best is None or not judge.membership().may_write(device.key):
            continue
        if _answers_for_one(device, judge, best) and _could_reach_more(device, judge, best, now):
            with suppress(RefusedError, PeerError), device.attempt():  # ours may be forked there
                start_epoch(device, judge, now)
                count += 1
    return count


def _answers_for_one(device: Device, chat: Chat, epoch: EntryId) -> bool:
    """Whether we are among few, or have let in a user of whom an epoch skips a device."""
    membership = chat.membership()
    if len(membership.sealed) <= SEALS_SPREAD_MAX:
        return True
    ours = membership.users[device.profile.user.user].devices
    users = {membership.devices[one] for one in _skipped(chat, epoch) & membership.devices.keys()}
    return any(ours & chat.history.authority.introducers(user) for user in users)


def closed_to(device: Device, chat: Chat) -> list[str]:
    """Return the names of the members for whom what we wrote last is closed, on every device.

    No key of a device of theirs was known.
    """
    current = device.replica.last_epoch(chat.id, device.key)
    skipped = _skipped(chat, current) if current else frozenset()
    sealed = chat.membership().sealed
    members = chat.membership().users.values()
    return [one.name for one in members if one.devices & sealed and one.devices & sealed <= skipped]


def _skipped(chat: Chat, epoch: EntryId) -> AbstractSet[DeviceKey]:
    found = chat.history.epoch(epoch)
    return frozenset(() if found is None else found.operation.skipped)


def start_epoch(device: Device, chat: Chat, now: int) -> EntryId:
    """Start an epoch for the members as we know them; return its id.

    A device of which no valid prekey is known is skipped: it reads from the next epoch on.
    """
    control_heads(device, chat, now)  # an entry links eight: it is for whom all of them bring in
    prekeys, skipped = _prekeys(device, chat, now)
    secret = device.random(SECRET_BYTES)
    try:
        operation, seals = _build(device, chat, secret, prekeys, skipped, now)
    except SealRefused:
        malformed = {one for one, public in prekeys.items() if not takes_seals(public)}
        prekeys = {one: public for one, public in prekeys.items() if one not in malformed}
        skipped |= malformed
        operation, seals = _build(device, chat, secret, prekeys, skipped, now)
    entry = append_control(device, chat, operation, now)
    kept = [
        Seal(at, seal, tuple(path))
        for at, (seal, path) in enumerate(zip(seals, merkle.paths(seals), strict=True))
    ]
    device.replica.keep_seals(chat.id, entry.id, kept, device.key)
    _keep_chains(device, rules.sender_chains(entry.id, secret, {*prekeys, *skipped}), entry.id)
    if chat.history.is_channel:
        owe_all(device, chat, entry.id, now)
    return entry.id


def _build(
    device: Device,
    chat: Chat,
    secret: bytes,
    prekeys: Mapping[DeviceKey, bytes],
    skipped: AbstractSet[DeviceKey],
    now: int,
) -> tuple[EpochOperation, list[bytes]]:
    place = next_place(device, chat)
    shareable = chat.membership().policy.history is HistoryRule.SHARED
    own = own_prekey(device, now)
    return rules.build(place, secret, prekeys, skipped, own, shareable=shareable)


def _prekeys(device: Device, chat: Chat, now: int) -> tuple[dict[DeviceKey, bytes], set[DeviceKey]]:
    """Return the newest valid prekey of each member device, and the devices without one."""
    prekeys: dict[DeviceKey, bytes] = {}
    skipped: set[DeviceKey] = set()
    for member in sorted(chat.membership().sealed):
        prekey = prekey_of(device, chat, member, now)
        if prekey is None:
            skipped.add(member)
        else:
            prekeys[member] = prekey.public
    return prekeys, skipped


def prekey_of(device: Device, chat: Chat, member: DeviceKey, now: int) -> Prekey | None:
    """Return the newest prekey of a device that is known, if it is not too old.

    The directory tells it, or the last epoch that this device itself has started here: so a
    member is not left out by somebody who has not asked the directory yet.
    """
    if member == device.key:
        return verify_prekey(own_prekey(device, now))
    raw = device.connection.execute("SELECT prekey FROM devices WHERE id = ?", (member,)).get
    known = [] if raw is None else [verify_prekey(raw)]
    started = [
        chat.history.entries[index]
        for index in bits(chat.history.epochs & chat.history.chain(member))
    ]
    if started and isinstance(started[-1].operation, EpochOperation):
        known.append(rules.author_prekey(started[-1].operation, member))
    # One dated far ahead by a clock that was wrong must not go before those that follow it.
    ahead = now + PREKEY_RENEW_SECONDS * SECOND_MS
    newest = max(known, key=lambda one: (one.issued <= ahead, one.issued), default=None)
    return None if newest is None or is_too_old(newest.issued, now) else newest


def is_too_old(issued: int, now: int) -> bool:
    """Whether nobody seals any more to a prekey of that time: its device erases it by then."""
    return now - issued >= PREKEY_ERASE_SECONDS * SECOND_MS


def own_prekey(device: Device, now: int) -> bytes:
    """Return our prekey record, making a new one when the last is a week old, or dated ahead."""
    row = device.connection.execute(
        "SELECT record, issued FROM prekeys WHERE issued <= ? ORDER BY issued DESC LIMIT 1", (now,)
    ).fetchone()
    if row is not None and now - row[1] < PREKEY_RENEW_SECONDS * SECOND_MS:
        return bytes(row[0])
    return make_prekey(device, now)


def make_prekey(device: Device, now: int) -> bytes:
    """Make and keep a prekey; erase those that are over 14 days old.

    The 14 days of one that a wrong clock has dated ahead begin now.
    """
    device.connection.execute("UPDATE prekeys SET issued = ? WHERE issued >= ?", (now - 1, now))
    prekey = PrekeyPair(device.random(PREKEY_PRIVATE_BYTES))
    record = sign_prekey(device.secrets.device, prekey.public, now)
    device.connection.execute(
        "INSERT INTO prekeys (id, private, record, issued) VALUES (?, ?, ?, ?)",
        (verify_prekey(record).id, prekey.private, record, now),
    )
    erase_old_prekeys(device, now)
    return record


def erase_old_prekeys(device: Device, now: int) -> int:
    """Erase private prekeys of 14 days and more; return how many. Call inside a transaction.

    One that was dated anew while the clock was behind has its own date again.
    """
    last = now - PREKEY_ERASE_SECONDS * SECOND_MS
    rows = device.connection.execute("SELECT record, id FROM prekeys WHERE issued <= ?", (last,))
    dated = [
        (verify_prekey(record).issued, prekey)
        for record, prekey in convert(rows.fetchall(), list[tuple[bytes, bytes]])
    ]
    device.connection.executemany(
        "UPDATE prekeys SET issued = ? WHERE id = ?", [one for one in dated if last < one[0] <= now]
    )
    device.connection.execute("DELETE FROM prekeys WHERE issued <= ?", (last,))
    return device.connection.changes()
