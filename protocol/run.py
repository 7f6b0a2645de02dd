"""Runs: consecutive entries of one chain, sent, verified and stored together (SPEC 6.4).

A *record* is an entry without what its place already says: chat, device, lane, seq and prev are the
run's, hash and size are the payload's, and control heads, epoch and generation are left out while
they follow the predecessor's. A record whose seq is a multiple of 64 is a keyframe: it leaves
nothing out. The record is also what a store keeps, so serving a run re-encodes nothing.

`unpack` rebuilds every header, hashes it, and keeps the longest prefix that valid signatures cover
(SPEC 2.4). What comes out is authentic; whether it is admissible is for `chat`.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from crypto.errors import BadSignature
from crypto.signing import verify
from protocol.entry import (
    CONTROL,
    GENESIS,
    SEALED,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Hash,
    Header,
    Id,
    KindCode,
    Reference,
    References,
    Seq,
    Size,
    Time,
    check_order,
    encode_header,
    entry_id,
)
from protocol.errors import LimitExceeded, NotCanonical, Unauthentic
from protocol.limits import (
    COVER_ENTRIES_MAX,
    HASH_BYTES,
    HEADER_BYTES_MAX,
    KEYFRAME_ENTRIES,
    OPERATION_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SEQ_MAX,
    TIME_MS_MAX,
)

LINKS_PLACE = 3  # in the records of both lanes
CONTENT_PAYLOAD_PLACE = 2
FIELDS_MASK = 0x0F  # of the first byte of a short array in msgpack: how many fields follow
BAD_SIGNATURES_MAX = 64  # in one run: more is an attack on our time, not a mistake


class Dropped(NamedTuple):
    """What stands in a content record for a payload that was dropped: its size and hash.

    ground: the control entry that allows it, a redaction or a setting of retention (SPEC 2.6).
    """

    size: Size
    hash: Hash
    ground: Reference


class ControlRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Lane 0: milliseconds since the predecessor, kind, payload, links."""

    elapsed: int
    kind: KindCode
    payload: bytes
    links: References = ()


class ContentRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Lane 1: as lane 0, and what changed of control heads, epoch and generation.

    kind: None if the header's is 0.
    """

    elapsed: int
    pc: Hash
    payload: bytes | Dropped
    links: References = ()
    control: References | None = None
    epoch: Id | None = None
    generation: Seq | None = None
    kind: Literal[1] | None = None


class Context(NamedTuple):
    """What a record leaves out: the predecessor's fields."""

    time: Time
    control: References
    epoch: bytes
    generation: int


START = Context(0, (), b"", 0)


class Entry(Struct, frozen=True, gc=False):
    """One authentic entry. `payload` is None when it was dropped; `signature` when not kept.

    ground: what a dropped payload was dropped by, as whoever sent or stored the record says.
    """

    header: Header
    id: EntryId
    record: bytes
    payload: bytes | None
    signature: bytes | None
    ground: Reference | None = None

    @property
    def reference(self) -> Reference:
        """Where it stands, and its id."""
        return Reference(self.header.device, self.header.seq, self.id)


_encode = msgspec.msgpack.Encoder().encode
_control = msgspec.msgpack.Decoder(ControlRecord).decode
_content = msgspec.msgpack.Decoder(ContentRecord).decode


def context_after(header: Header) -> Context:
    """Return the context that the successor of `header` is relative to."""
    if isinstance(header, ControlHeader):
        return Context(header.time, (), b"", 0)
    return Context(header.time, header.control, header.epoch, header.generation)


def pack(header: Header, payload: bytes | Reference, before: Context) -> bytes:
    """Return the record of an entry whose predecessor left the context `before`.

    payload: for content that was dropped, the ground of that.
    """
    body: bytes | Dropped
    if isinstance(payload, Reference):
        body = Dropped(header.payload_size, header.payload_hash, payload)
    else:
        body = payload
    if header.seq % KEYFRAME_ENTRIES == 0:
        before = START
    elapsed = header.time - before.time
    if isinstance(header, ControlHeader):
        return _trim([elapsed, header.kind, body, header.links or None])
    changed = header.epoch != before.epoch
    return _trim(
        [
            elapsed,
            header.pc,
            body,
            header.links or None,
            header.control if header.control != before.control else None,
            header.epoch if changed else None,
            header.generation if changed or header.generation != before.generation + 1 else None,
            header.kind or None,
        ]
    )


def drop_payload(record: bytes, ground: Reference) -> bytes:
    """Return a content record with the ground in the place of its payload (SPEC 2.6)."""
    size, digest, _, _ = _payload(_content(record).payload)
    return _with_body(record, Dropped(size, digest, ground))


def with_payload(record: bytes, payload: bytes) -> bytes:
    """Return a content record with a payload, which must be the one that its header names."""
    return _with_body(record, payload)


def without_payload(entry: Entry, ground: Reference) -> Entry:
    """Return a content entry as it is once its payload was dropped."""
    record = drop_payload(entry.record, ground)
    return replace(entry, record=record, payload=None, ground=ground)


def _with_body(record: bytes, body: bytes | Dropped) -> bytes:
    fields = list(astuple(_content(record)))
    fields[CONTENT_PAYLOAD_PLACE] = body
    fields[LINKS_PLACE] = fields[LINKS_PLACE] or None
    return _trim(fields)


def _trim(fields: list[object]) -> bytes:
    while fields[-1] is None:
        fields.pop()
    if len(fields) > LINKS_PLACE and fields[LINKS_PLACE] is None:
        fields[LINKS_PLACE] = ()
    return _encode(fields)


def unpack(
    chat: ChatId,
    device: DeviceKey,
    lane: int,
    start: int,
    prev: EntryId | None,
    context: Context | None,
    records: Sequence[bytes],
    signatures: Mapping[int, bytes],
) -> list[Entry]:
    """Return the authentic prefix of a run, in order.

    start: seq of the first record; prev: id of its predecessor; context: the predecessor's, None at
    a keyframe. signatures: by index into `records`.
    Raises NotCanonical or LimitExceeded for malformed records, Unauthentic when not even the first
    entry is covered. What the peer claims of `prev` and `context` needs no trust: if either is
    wrong, every id is, and no signature fits.
    """
    if start + len(records) - 1 > SEQ_MAX:
        raise LimitExceeded(f"seq {start + len(records) - 1}, at most {SEQ_MAX} (SPEC 2.2)")
    entries = rebuild(chat, device, lane, start, prev, context, records)
    every = signatures if lane == CONTROL else ()
    count, kept = _covered(device, [entry.id for entry in entries], signatures, every)
    if count == 0:
        raise Unauthentic(f"no signature covers seq {start} (SPEC 2.4)")
    del entries[count:]
    for index, signature in kept.items():
        entries[index] = replace(entries[index], signature=signature)
    return entries


def rebuild(
    chat: ChatId,
    device: DeviceKey,
    lane: int,
    start: int,
    prev: EntryId | None,
    context: Context | None,
    records: Sequence[bytes],
) -> list[Entry]:
    """Return the entries of a run without asking for signatures: for records already verified."""
    rebuild_lane = _rebuild_control if lane == CONTROL else _rebuild_content
    raws = [bytes(record) for record in records]
    try:
        return rebuild_lane(chat, device, start, prev, context or START, raws)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotCanonical(f"a record that does not fit: {error} (SPEC 6.4)") from None


def fold(lane: int, records: Sequence[bytes]) -> Context:
    """Return the context after records that begin with a keyframe."""
    if lane == CONTROL:
        return Context(sum(_control(raw).elapsed for raw in records), (), b"", 0)
    time, control, epoch, generation = START
    for raw in records:
        record = _content(raw)
        time += record.elapsed
        control = control if record.control is None else record.control
        epoch = epoch if record.epoch is None else record.epoch
        generation = generation + 1 if record.generation is None else record.generation
    return Context(time, control, epoch, generation)


def _rebuild_control(
    chat: ChatId,
    device: DeviceKey,
    start: int,
    prev: EntryId | None,
    before: Context,
    records: Sequence[bytes],
) -> list[Entry]:
    entries = []
    time = before.time
    for seq, raw in enumerate(records, start):
        record = _control(raw)
        _check_shortest(record, raw)
        time = record.elapsed + (0 if seq % KEYFRAME_ENTRIES == 0 else time)
        _check_size(record.payload, OPERATION_BYTES_MAX)
        header = ControlHeader(
            chat=None if record.kind == GENESIS and seq == 0 else chat,
            device=device,
            seq=seq,
            prev=prev,
            links=record.links,
            time=time,
            kind=record.kind,
            payload_hash=sha256(record.payload).digest(),
            payload_size=len(record.payload),
        )
        check_order(header)
        prev = _identify(header)
        entries.append(Entry(header, prev, raw, record.payload, None))
    return entries


def _rebuild_content(
    chat: ChatId,
    device: DeviceKey,
    start: int,
    prev: EntryId | None,
    before: Context,
    records: Sequence[bytes],
) -> list[Entry]:
    entries = []
    time, control, epoch, generation = before
    for seq, raw in enumerate(records, start):
        if seq % KEYFRAME_ENTRIES == 0:
            time, control, epoch, generation = START
        record = _content(raw)
        _check_shortest(record, raw)
        time += record.elapsed
        generation += 1
        if record.generation is not None or record.control is not None or record.epoch is not None:
            _check_changed(record, control, epoch, generation)
            generation = generation if record.generation is None else record.generation
            control = control if record.control is None else record.control
            epoch = epoch if record.epoch is None else record.epoch
        fresh = record.control is not None or bool(record.links) or seq == start
        if len(epoch) != HASH_BYTES or not control or not 0 <= generation <= SEQ_MAX:
            raise NotCanonical(f"seq {seq} lacks its epoch, control heads or generation (SPEC 6.4)")
        size, digest, payload, ground = _payload(record.payload)
        header = ContentHeader(
            chat=chat,
            device=device,
            seq=seq,
            prev=prev,
            links=record.links,
            control=control,
            time=time,
            kind=record.kind or SEALED,
            epoch=EntryId(epoch),
            generation=generation,
            pc=record.pc,
            payload_size=size,
            payload_hash=digest,
        )
        if fresh:
            check_order(header)
        prev = _identify(header)
        entries.append(Entry(header, prev, raw, payload, None, ground))
    return entries


def _check_shortest(record: ControlRecord | ContentRecord, raw: bytes) -> None:
    """Refuse a second spelling of a record: it would be stored and served under the same id.

    A record ends with its last field that is not nil, empty links counting as nil.
    """
    fields = astuple(record)[: raw[0] & FIELDS_MASK]
    if _encode(fields) != raw:
        raise NotCanonical("a record that is not in its shortest encoding (SPEC 6.4)")
    if fields[-1] is None or (len(fields) - 1 == LINKS_PLACE and not fields[-1]):
        raise NotCanonical("a record that does not end with its last field (SPEC 6.4)")


def _check_changed(
    record: ContentRecord, control: References, epoch: bytes, generation: int
) -> None:
    """Refuse a record that repeats what it should leave out. generation: that comes next."""
    again = record.control == control or record.epoch == epoch
    if record.epoch is None:
        again = again or record.generation == generation
    elif record.generation is None:
        raise NotCanonical("an epoch without its generation (SPEC 6.4)")
    if again:
        raise NotCanonical("a record that repeats its predecessor's fields (SPEC 6.4)")


def _payload(payload: bytes | Dropped) -> tuple[int, bytes, bytes | None, Reference | None]:
    if isinstance(payload, Dropped):
        return payload.size, payload.hash, None, payload.ground
    _check_size(payload, PAYLOAD_BYTES_MAX)
    return len(payload), sha256(payload).digest(), payload, None


def _check_size(payload: bytes, size_max: int) -> None:
    if len(payload) > size_max:
        raise LimitExceeded(f"payload of {len(payload)} bytes, at most {size_max} (SPEC 2.2)")


def _identify(header: Header) -> EntryId:
    if not 0 <= header.time <= TIME_MS_MAX:
        raise NotCanonical("a time out of range (SPEC 2.2)")
    raw = encode_header(header)
    if len(raw) > HEADER_BYTES_MAX:
        raise LimitExceeded(f"header of {len(raw)} bytes, at most {HEADER_BYTES_MAX} (SPEC 2.2)")
    return entry_id(raw)


def _covered(
    device: DeviceKey,
    ids: Sequence[EntryId],
    signatures: Mapping[int, bytes],
    also: Iterable[int],
) -> tuple[int, dict[int, bytes]]:
    """Return how many entries are covered, and the signatures that cover them.

    The tail is tried first: a run whose tail is bad is probably junk. After that each step takes
    the farthest signature within 64 entries, so an honest run costs one check in 64.
    also: those that are kept beside, if they are good.
    """
    kept: dict[int, bytes] = {}
    refused: set[int] = set()

    def accepted(index: int) -> bool:
        if index in kept:
            return True
        if index in refused or index not in signatures:
            return False
        try:
            verify(device, SIGNATURE_LABEL, ids[index], signatures[index])
        except BadSignature:
            refused.add(index)
            if len(refused) > BAD_SIGNATURES_MAX:
                raise Unauthentic(f"over {BAD_SIGNATURES_MAX} bad signatures in a run") from None
            return False
        kept[index] = signatures[index]
        return True

    tail = len(ids) - 1
    accepted(tail)
    done = 0
    while done <= tail:
        reach = range(min(done + COVER_ENTRIES_MAX - 1, tail), done - 1, -1)
        farthest = next((index for index in reach if accepted(index)), None)
        if farthest is None:
            break
        done = farthest + 1
    for index in also:
        if index < done:
            accepted(index)
    return done, {index: kept[index] for index in sorted(kept) if index < done}
