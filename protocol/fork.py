"""Forks: two authentic entries of one device, lane and seq, and the proof of it (SPEC 2.5).

A proof is two covers. Each cover is a path of headers, the first being the forked entry, and the
signature of the last. Anyone can check it offline: it needs nothing but itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol import codec
from protocol.entry import (
    ChatId,
    DeviceKey,
    EntryId,
    Header,
    check_signature,
    decode_header,
    entry_id,
)
from protocol.errors import NotCanonical, Unauthentic
from protocol.limits import (
    COVER_ENTRIES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    HEADER_BYTES_MAX,
    SIGNATURE_BYTES,
)


@dataclass(frozen=True, slots=True)
class Cover:
    """The headers from an entry to a signed descendant of its own chain, and that signature."""

    headers: tuple[bytes, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class Fork:
    """A checked proof. Only `verify_fork` makes one."""

    chat: ChatId
    device: DeviceKey
    lane: int
    seq: int
    ids: tuple[EntryId, EntryId]
    proof: bytes


def encode_proof(one: Cover, other: Cover) -> bytes:
    """Return the proof, the cover of the smaller id first, so that one fork has one proof."""
    covers = sorted((one, other), key=lambda cover: entry_id(cover.headers[0]))
    return codec.encode([[list(cover.headers), cover.signature] for cover in covers])


def verify_fork(proof: bytes) -> Fork:
    """Check both covers and that they fork. Raises NotCanonical, LimitExceeded or Unauthentic."""
    covers = codec.record(codec.decode(proof, FRAME_BYTES_MAX_BEFORE_HELLO), 2, "fork proof")
    first, other = (_verify_cover(item) for item in covers)
    (one, one_id), (two, two_id) = first, other
    same_place = (one.device, one.lane, one.seq) == (two.device, two.lane, two.seq)
    if not same_place or one_id == two_id or _chat(one, one_id) != _chat(two, two_id):
        raise Unauthentic("the two covers do not begin at one place of one chain (SPEC 2.5)")
    if one_id > two_id:
        raise NotCanonical("the cover of the smaller id stands first (SPEC 2.5)")
    return Fork(_chat(one, one_id), one.device, one.lane, one.seq, (one_id, two_id), proof)


def _chat(header: Header, entry: EntryId) -> ChatId:
    return ChatId(entry) if header.chat is None else header.chat


def _verify_cover(value: object) -> tuple[Header, EntryId]:
    path, signature = codec.record(value, 2, "cover")
    raws = [
        codec.binary(raw, HEADER_BYTES_MAX, "header")
        for raw in codec.array(path, COVER_ENTRIES_MAX, "cover")
    ]
    if not raws:
        raise NotCanonical("an empty cover (SPEC 2.4)")
    headers = [decode_header(raw) for raw in raws]
    ids = [entry_id(raw) for raw in raws]
    check_path(headers, ids)
    check_signature(
        headers[-1].device, ids[-1], codec.fixed(signature, SIGNATURE_BYTES, "signature")
    )
    return headers[0], ids[0]


def check_path(headers: Sequence[Header], ids: Sequence[EntryId]) -> None:
    """Raise Unauthentic unless each header is the next of the same chain as the one before."""
    for index in range(1, len(headers)):
        before, header = headers[index - 1], headers[index]
        place = (header.device, header.lane, header.seq, header.prev)
        chat = before.chat if before.chat is not None else ids[index - 1]
        if place != (before.device, before.lane, before.seq + 1, ids[index - 1]) or (
            header.chat != chat
        ):
            raise Unauthentic(f"seq {header.seq} does not follow the one before it (SPEC 2.4)")
