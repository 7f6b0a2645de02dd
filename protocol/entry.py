"""Entries: a signed header and a payload that can be dropped later (SPEC 2.1 to 2.3).

Two lanes a device and chat: lane 0 (control) is readable by nodes, lane 1 (content) is
ciphertext. A header is a positional canonical array; its hash is the entry's id, and the signature
covers the id.

    header = ControlHeader(chat=..., device=..., seq=..., ...)
    raw = encode_header(header)
    signature = signer.sign(SIGNATURE_LABEL, entry_id(raw))

Headers are msgspec structs, not dataclasses: a catch-up makes one an entry, and the field tables of
SPEC 2.2 are their types, checked in C.
"""

from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple, NewType

import msgspec
from msgspec import Meta, Struct

from crypto.errors import BadSignature
from crypto.signing import verify
from protocol.errors import LimitExceeded, NotCanonical, Unauthentic, UsageError
from protocol.limits import (
    HASH_BYTES,
    HEADER_BYTES_MAX,
    LINKS_MAX,
    OPERATION_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SEQ_MAX,
    TIME_MS_MAX,
)

ChatId = NewType("ChatId", bytes)
EntryId = NewType("EntryId", bytes)
DeviceKey = NewType("DeviceKey", bytes)

CONTROL = 0
CONTENT = 1
GENESIS: Final = 0  # the kind of control entry that, at seq 0, makes a chat
SEALED: Final = 0  # a content entry; what it says is inside the ciphertext
ATTACHED: Final = 1  # the same, and before the ciphertext stands which blob goes with it
SIGNATURE_LABEL = "sig"

_THIRTY_TWO = Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)
Hash = Annotated[bytes, _THIRTY_TWO]
Chat = Annotated[ChatId, _THIRTY_TWO]
Id = Annotated[EntryId, _THIRTY_TWO]
Device = Annotated[DeviceKey, _THIRTY_TWO]
Seq = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
Time = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
Size = Annotated[int, Meta(ge=0, le=PAYLOAD_BYTES_MAX)]
ControlSize = Annotated[int, Meta(ge=0, le=OPERATION_BYTES_MAX)]
KindCode = Annotated[int, Meta(ge=0, le=255)]


class Reference(NamedTuple):
    """Names an entry by its place and its id; the lane is told by the field that holds it."""

    device: Device
    seq: Seq
    id: Id


class Place(NamedTuple):
    """Where a control entry stands and what its author had seen; signed more than once (SPEC 4.2).

    prev: None at seq 0. links: control heads, ascending.
    """

    chat: ChatId
    device: DeviceKey
    seq: int
    prev: EntryId | None
    links: tuple[Reference, ...]


References = Annotated[tuple[Reference, ...], Meta(max_length=LINKS_MAX)]


class ControlHeader(
    Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True, gc=False
):
    """Lane 0. `chat` is None in the genesis, `prev` at seq 0; `links` are control heads seen."""

    version: Literal[1] = 1
    chat: Chat | None
    device: Device
    lane: Literal[0] = 0
    seq: Seq
    prev: Id | None
    links: References
    time: Time
    kind: KindCode
    payload_hash: Hash
    payload_size: ControlSize


class ContentHeader(
    Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True, gc=False
):
    """Lane 1. `links`: content heads seen; `control`: control heads; `pc`: see SPEC 4.3."""

    version: Literal[1] = 1
    chat: Chat
    device: Device
    lane: Literal[1] = 1
    seq: Seq
    prev: Id | None
    links: References
    control: References
    time: Time
    kind: Literal[0, 1] = SEALED
    epoch: Id
    generation: Seq
    pc: Hash
    payload_size: Size
    payload_hash: Hash


Header = ControlHeader | ContentHeader

_encode = msgspec.msgpack.Encoder().encode
_decode_control = msgspec.msgpack.Decoder(ControlHeader).decode
_decode_content = msgspec.msgpack.Decoder(ContentHeader).decode
_PC_AND_HASH_BYTES = 2 * (2 + HASH_BYTES)


def encode_header(header: Header) -> bytes:
    """Return the canonical header: 11 fields in lane 0, 15 in lane 1."""
    return _encode(header)


def place_of(header: ControlHeader) -> Place:
    """Return the place of a control entry. Raises UsageError for a genesis, which has no chat."""
    if header.chat is None:
        raise UsageError("a genesis has no place in a chat")
    return Place(header.chat, header.device, header.seq, header.prev, header.links)


def header_before_commitment(header: ContentHeader) -> bytes:
    """Return `pre`: a content header's bytes up to and including the generation (SPEC 4.3)."""
    size = len(_encode(header.payload_size))
    return _encode(header)[: -_PC_AND_HASH_BYTES - size]


def entry_id(header: bytes) -> EntryId:
    """Return SHA-256("ivor/1 entry" || header), 32 bytes."""
    return EntryId(sha256(b"ivor/1 entry" + header).digest())


def check_signature(device: bytes, entry: EntryId, signature: bytes) -> None:
    """Raise Unauthentic unless libsodium accepts the signature of the id under the device key."""
    try:
        verify(device, SIGNATURE_LABEL, entry, signature)
    except BadSignature:
        raise Unauthentic(f"entry {entry.hex()[:16]} has a bad signature (SPEC 2.4)") from None


def check_payload(header: Header, payload: bytes) -> None:
    """Raise Unauthentic unless the payload is the one that the header names."""
    if len(payload) != header.payload_size or sha256(payload).digest() != header.payload_hash:
        raise Unauthentic("the payload is not the one that the header names (SPEC 2.3)")


def decode_header(raw: bytes) -> Header:
    """Decode a header of either lane. Raises NotCanonical or LimitExceeded."""
    if len(raw) > HEADER_BYTES_MAX:
        raise LimitExceeded(f"header of {len(raw)} bytes, at most {HEADER_BYTES_MAX} (SPEC 2.2)")
    lane = CONTENT if raw[:1] == b"\x9f" else CONTROL
    try:
        header: Header = _decode_content(raw) if lane == CONTENT else _decode_control(raw)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise NotCanonical(f"not a header of lane {lane}: {error} (SPEC 2.2)") from None
    if _encode(header) != raw:
        raise NotCanonical("a header that is not in its shortest encoding (SPEC 1)")
    check_order(header)
    return header


def check_order(header: Header) -> None:
    """Check what types cannot say: where prev and chat are nil, and that references ascend."""
    if (header.prev is None) != (header.seq == 0):
        raise NotCanonical("prev is nil at seq 0 and nowhere else (SPEC 2.2)")
    check_references(header.links, header.device)
    if isinstance(header, ContentHeader):
        check_references(header.control, None)
        if not header.control:
            raise NotCanonical("content that names no control head (SPEC 2.2)")
    elif (header.chat is None) != (header.seq == 0 and header.kind == GENESIS):
        raise NotCanonical("chat is nil in a genesis and nowhere else (SPEC 2.2)")


def check_references(found: tuple[Reference, ...], author: DeviceKey | None) -> None:
    """Refuse references out of order, twice, or to the author's own chain of the same lane."""
    if any(a >= b for a, b in pairwise(found)):
        raise NotCanonical("references are not in ascending order (SPEC 2.2)")
    if author is not None and any(item.device == author for item in found):
        raise NotCanonical("a link to the author's own chain (SPEC 2.2)")
