"""A chat with many messages: every entry really encrypted, chained and signed, in bulk.

The same steps as `client.compose` takes for one message, with one transaction an epoch instead of
one a message, so that a million entries are a matter of minutes.
"""

import os
from collections.abc import Callable, Sequence
from hashlib import sha256

import msgspec

from bench.federation import POLICY, milliseconds, transact
from client import compose
from client.device import Device
from client.epochs import NoKey, epoch_for, save_sender_chain, sender_chain
from client.writing import content_header
from crypto import content, schedule
from node.replica import Replica
from node.runs import read_run
from node.stored import Stored
from protocol.entry import (
    CONTENT,
    CONTROL,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    encode_header,
    entry_id,
    header_before_commitment,
)
from protocol.errors import UsageError
from protocol.frame import Run, Want, authentic
from protocol.identity import UserId
from protocol.limits import EPOCH_MESSAGES_MAX, PREFIX_BYTES
from protocol.message import Text, encode_message
from protocol.policy import ChatKind, Role
from protocol.run import Context, Entry, context_after, pack

TEXT_BYTES = 240
WORDS = "отчёт о закупках передан в казначейство; the annex follows by Friday. "
INTERVAL_MS = 5  # as at 200 messages a second


def text_of(number: int) -> str:
    """Return a text of 240 bytes, half Russian, half English, with its number in it."""
    raw = f"{number:08d} {WORDS * 4}".encode()[:TEXT_BYTES]
    text = raw.decode(errors="ignore")  # a letter may be cut in two
    return text + " " * (TEXT_BYTES - len(text.encode()))


def new_chat(device: Device, others: Sequence[UserId]) -> ChatId:
    """Start a chat with users whom the device knows."""
    with device.transaction():
        members = [(user, Role.MEMBER) for user in others]
        return compose.new_chat(device, ChatKind.GROUP, "", POLICY, members, milliseconds())


def write(device: Device, chat: ChatId, count: int) -> None:
    """Append this many messages to the device's own chain."""
    while count > 0:
        with device.transaction():
            count -= _write_epoch(device, chat, count)


def _write_epoch(device: Device, chat: ChatId, most: int) -> int:
    """Append messages until the epoch is used up; return how many."""
    now = milliseconds()
    judge = compose.require(device, chat)
    epoch = epoch_for(device, judge, now)
    chain = sender_chain(device, chat, epoch, device.key)
    if isinstance(chain, NoKey):
        raise UsageError("our own epoch has no key")
    first = content_header(device, judge, epoch, chain.generation, now)
    before, context = _context(device, chat, first.seq)
    count = min(most, EPOCH_MESSAGES_MAX - chain.generation)
    entries, key = _entries(device, first, chain.chain, count, before)
    last = entries[-1].signature or b""
    records = tuple(msgspec.Raw(entry.record) for entry in entries)
    signed = ((count - 1, last),)
    run = Run(chat, device.key, CONTENT, first.seq, first.prev, context, records, signed)
    if device.replica.append(run, entries).appended != count:
        raise UsageError("our own entries were not admitted")
    save_sender_chain(device, epoch, device.key, chain.generation + count, key)
    return count


def _context(device: Device, chat: ChatId, seq: int) -> tuple[Context, Context | None]:
    stored = device.replica.store.chat(chat)
    chains = None if stored is None else stored.chains.get((device.key, CONTENT))
    if not chains:
        return Context(0, (), b"", 0), None
    store = device.replica.store
    _, context = store.context_before(chains, chains[0], CONTENT, seq)
    return context or Context(0, (), b"", 0), context


def _entries(
    device: Device, first: ContentHeader, key: bytes, count: int, before: Context
) -> tuple[list[Entry], bytes]:
    entries: list[Entry] = []
    prev = first.prev
    for number in range(count):
        header = msgspec.structs.replace(
            first,
            seq=first.seq + number,
            prev=prev,
            links=first.links if number == 0 else (),
            time=first.time + number * INTERVAL_MS,
            generation=first.generation + number,
        )
        seed, key = schedule.advance(key)
        plaintext = encode_message(Text(text_of(header.seq), None))
        pc, ciphertext = content.seal_content(
            seed, header_before_commitment(header), os.urandom(32), plaintext
        )
        sealed = msgspec.structs.replace(
            header,
            pc=pc,
            payload_size=len(ciphertext),
            payload_hash=sha256(ciphertext).digest(),
        )
        prev = entry_id(encode_header(sealed))
        signature = device.secrets.device.sign(SIGNATURE_LABEL, prev)
        record = pack(sealed, ciphertext, before)
        before = context_after(sealed)
        entries.append(Entry(sealed, prev, record, ciphertext, signature))
    return entries, key


def hand_over(
    device: Device,
    chat: ChatId,
    replica: Replica,
    storing: Callable[[Stored], object] = bool,
) -> int:
    """Bring what a device has of a chat into another database; return how many entries.

    storing: called in the transaction of each run; a reading device delivers it there.
    """
    stored = device.replica.store.chat(chat)
    if stored is None:
        return 0
    held = replica.store.chat(chat)
    count = 0
    for lane in (CONTROL, CONTENT):
        for (author, at), chain in stored.chains.items():
            if at == lane:
                known = [] if held is None else held.chains.get((author, lane), [])
                start = known[0].length if known else 0
                place = (chat, DeviceKey(author), lane, chain[0].head[:PREFIX_BYTES])
                while start < chain[0].length:
                    run = read_run(device.replica.store, Want(*place, start, chain[0].length))
                    if run is None:
                        raise UsageError("our own chain is not there")
                    start += _append(replica, run, storing)
                count += chain[0].length
        _hand_over_seals(device, replica)
    return count


def _append(replica: Replica, run: Run, storing: Callable[[Stored], object]) -> int:
    entries = authentic(run)
    found: list[int] = []

    def store() -> None:
        stored = replica.append(run, entries)
        storing(stored)
        found.append(stored.appended)

    transact(replica, store)
    if found != [len(entries)]:
        raise UsageError("the node did not admit our own entries")
    return len(entries)


def _hand_over_seals(device: Device, replica: Replica) -> None:
    while lacking := replica.sealless(replica.agency)[0]:
        for chat, epoch, devices in lacking:
            seals = device.replica.seals_for(chat, EntryId(epoch), devices)

            def keep(chat: ChatId = chat, epoch: EntryId = epoch) -> None:
                replica.keep_seals(chat, epoch, seals, replica.agency)  # noqa: B023 - run at once

            transact(replica, keep)
