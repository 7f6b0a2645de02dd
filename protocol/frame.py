"""Frames: what peers say to each other (SPEC 6.2).

A frame is 4 bytes of length, big-endian, then one msgpack array whose first element is its type.
Frames are not signed, so they need not be canonical; they are typed, and bounded before decoding.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from crypto.blob import CHUNK_BYTES
from crypto.sealing import PREKEY_ID_BYTES, SEAL_BYTES
from protocol.entry import Chat, Device, Hash, Id, Seq
from protocol.errors import LimitExceeded, NotCanonical
from protocol.limits import (
    BLOB_CHUNKS_MAX,
    BLOB_PATH_MAX,
    FRAME_BYTES_MAX,
    HEADS_CHAINS_MAX,
    IHAVE_HEADS_MAX,
    RECON_ITEM_BYTES,
    RECON_ITEMS_MAX,
    RECON_PARTS_MAX,
    RECON_ROLL_MAX,
    RUN_ENTRIES_MAX,
    SEALS_FRAME_MAX,
    SIGNATURE_BYTES,
)
from protocol.run import Context, Entry, unpack

LENGTH_BYTES = 4
SEALED_BYTES = PREKEY_ID_BYTES + SEAL_BYTES  # of one recipient (SPEC 4.2)

Lane = Annotated[int, Meta(ge=0, le=1)]
Cursor = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Incarnation = Annotated[bytes, Meta(min_length=16, max_length=16)]
Salt = Annotated[bytes, Meta(min_length=16, max_length=16)]
Prefix = Annotated[bytes, Meta(min_length=8, max_length=8)]
Index = Annotated[int, Meta(ge=0, le=RUN_ENTRIES_MAX - 1)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Number = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Item = Annotated[bytes, Meta(min_length=RECON_ITEM_BYTES, max_length=RECON_ITEM_BYTES)]
Bound = Annotated[bytes, Meta(max_length=RECON_ITEM_BYTES)]
ChunkIndex = Annotated[int, Meta(ge=0, le=BLOB_CHUNKS_MAX - 1)]
Code = Annotated[int, Meta(ge=0, le=255)]


class Hello(Struct, frozen=True, array_like=True, tag=0):
    """First frame of both sides. `seen`: how far into the peer's changes we are (SPEC 6.3).

    `salt` is drawn anew for each session: it keys what the two sides reconcile by.
    """

    versions: Annotated[tuple[int, ...], Meta(min_length=1, max_length=8)]
    incarnation: Incarnation
    seen_incarnation: Incarnation | None
    seen: Cursor
    salt: Salt


class Head(Struct, frozen=True, array_like=True, gc=False):
    """The newest entry of one branch of one chain."""

    device: Device
    lane: Lane
    seq: Seq
    prefix: Prefix


class ChatHeads(Struct, frozen=True, array_like=True):
    """Heads of one chat that changed."""

    chat: Chat
    heads: Annotated[tuple[Head, ...], Meta(max_length=HEADS_CHAINS_MAX)]


class Heads(Struct, frozen=True, array_like=True, tag=1):
    """All heads that changed between the last page's cursor and this one's."""

    cursor: Cursor
    last: Annotated[int, Meta(ge=0, le=1)]
    chats: Annotated[tuple[ChatHeads, ...], Meta(max_length=HEADS_CHAINS_MAX)]


class Want(Struct, frozen=True, array_like=True, tag=2):
    """Asks for the entries start to stop (exclusive) of the branch that ends in `prefix`."""

    chat: Chat
    device: Device
    lane: Lane
    prefix: Prefix
    start: Seq
    stop: Annotated[int, Meta(ge=1, le=2**32)]


class Run(Struct, frozen=True, array_like=True, tag=3):
    """Consecutive entries of one chain; asked for, or pushed. See `protocol.run`."""

    chat: Chat
    device: Device
    lane: Lane
    start: Seq
    prev: Id | None
    context: Context | None
    records: Annotated[tuple[msgspec.Raw, ...], Meta(min_length=1, max_length=RUN_ENTRIES_MAX)]
    signatures: Annotated[tuple[tuple[Index, Signature], ...], Meta(max_length=RUN_ENTRIES_MAX)]


class Absent(Struct, frozen=True, array_like=True, tag=4):
    """The answer to a WANT for what does not exist, or what the asker may not see: the same."""

    chat: Chat
    device: Device
    lane: Lane
    start: Seq


class Holding(Struct, frozen=True, array_like=True, gc=False):
    """`agency` stores this chain durably up to and including `seq`."""

    agency: Device
    chat: Chat
    device: Device
    lane: Lane
    seq: Seq


class Have(Struct, frozen=True, array_like=True, tag=5):
    """Acknowledges: sent only after what it names is durable."""

    holdings: Annotated[tuple[Holding, ...], Meta(max_length=HEADS_CHAINS_MAX)]


class Forked(Struct, frozen=True, array_like=True, tag=6):
    """A proof that a device equivocated (SPEC 2.5)."""

    chat: Chat
    proof: bytes


class WantSeals(Struct, frozen=True, array_like=True, tag=7):
    """Asks for the seals of these recipients of an epoch."""

    chat: Chat
    epoch: Id
    devices: Annotated[tuple[Device, ...], Meta(max_length=SEALS_FRAME_MAX)]


class Seal(Struct, frozen=True, array_like=True, gc=False):
    """One seal: its index among the recipients, the sealed secret, its Merkle path."""

    index: Annotated[int, Meta(ge=0, le=2**16)]
    seal: Annotated[bytes, Meta(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]
    path: Annotated[tuple[Hash, ...], Meta(max_length=16)]


class Seals(Struct, frozen=True, array_like=True, tag=8):
    """Seals of one epoch, asked for or handed on."""

    chat: Chat
    epoch: Id
    seals: Annotated[tuple[Seal, ...], Meta(max_length=SEALS_FRAME_MAX)]


class Ask(Struct, frozen=True, array_like=True, tag=9):
    """A question to the directory of the peer (SPEC 7); `body` is canonical msgpack."""

    number: Number
    topic: Code
    body: bytes


class Answer(Struct, frozen=True, array_like=True, tag=10):
    """The answer: code 0 and a body, or an error code and a text for people."""

    number: Number
    code: Code
    body: bytes


class Error(Struct, frozen=True, array_like=True, tag=11):
    """A refusal: code (SPEC 9), and a text that names the rule."""

    code: Code
    text: Annotated[bytes, Meta(max_length=512)]


class Bye(Struct, frozen=True, array_like=True, tag=12):
    """The end, on purpose."""


class Ping(Struct, frozen=True, array_like=True, tag=13):
    """Nothing to say for a while; answered with PONG."""


class Pong(Struct, frozen=True, array_like=True, tag=14):
    """The answer to PING."""


class Seen(Struct, frozen=True, array_like=True, tag=15):
    """All that the pages of heads up to this cursor listed is stored, or given up."""

    cursor: Cursor


class WantBlob(Struct, frozen=True, array_like=True, tag=16):
    """Asks for the chunks start to stop (exclusive) of the blob that goes with an entry."""

    chat: Chat
    entry: Id
    start: ChunkIndex
    stop: Annotated[int, Meta(ge=1, le=BLOB_CHUNKS_MAX)]


class Blob(Struct, frozen=True, array_like=True, tag=17, gc=False):
    """One sealed chunk of a blob, with its Merkle path."""

    chat: Chat
    entry: Id
    index: ChunkIndex
    chunk: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]
    path: Annotated[tuple[Hash, ...], Meta(max_length=BLOB_PATH_MAX)]


class Lacking(Struct, frozen=True, array_like=True, tag=18):
    """The answer to WANTBLOB for chunks that are not here, or are not for the asker: the same."""

    chat: Chat
    entry: Id
    start: ChunkIndex
    stop: Annotated[int, Meta(ge=1, le=BLOB_CHUNKS_MAX)]


class Span(Struct, frozen=True, array_like=True, gc=False):
    """How many items the sender has from start on and before stop, and their fingerprint.

    Bounds are beginnings of items; an empty `stop` is the end of everything.
    """

    start: Bound
    stop: Bound
    count: Cursor
    fingerprint: Item


class Roll(Struct, frozen=True, array_like=True):
    """All items that the sender has in a range."""

    start: Bound
    stop: Bound
    items: Annotated[tuple[Item, ...], Meta(max_length=RECON_ROLL_MAX)]


class Recon(Struct, frozen=True, array_like=True, tag=24):
    """A turn of a reconciliation (SPEC 6.3). `left`: of what is put off, the turn it came up in."""

    number: Number
    spans: Annotated[tuple[Span, ...], Meta(max_length=RECON_PARTS_MAX)]
    rolls: Annotated[tuple[Roll, ...], Meta(max_length=RECON_PARTS_MAX)]
    lacking: Annotated[tuple[Item, ...], Meta(max_length=RECON_ITEMS_MAX)]
    left: Number


class IHave(Struct, frozen=True, array_like=True, tag=25):
    """Announces entries that came in a large chat, and that the sender does not push (SPEC 6.5)."""

    chat: Chat
    heads: Annotated[tuple[Head, ...], Meta(min_length=1, max_length=IHAVE_HEADS_MAX)]


class Graft(Struct, frozen=True, array_like=True, tag=26):
    """Asks for an entry that was announced, and for what follows in this chat to be pushed."""

    chat: Chat
    head: Head


class Prune(Struct, frozen=True, array_like=True, tag=27):
    """What was pushed came from others before: the chat's entries shall be announced only."""

    chat: Chat


Rumour = IHave | Graft | Prune

Frame = (
    Hello
    | Heads
    | Want
    | Run
    | Absent
    | Have
    | Forked
    | WantSeals
    | Seals
    | Ask
    | Answer
    | Error
    | Bye
    | Ping
    | Pong
    | Seen
    | WantBlob
    | Blob
    | Lacking
    | Recon
    | IHave
    | Graft
    | Prune
)

_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(Frame).decode


def encode_frame(frame: Frame) -> bytes:
    """Return the frame with its length before it."""
    body = _encoder.encode(frame)
    if len(body) > FRAME_BYTES_MAX:
        raise LimitExceeded(f"frame of {len(body)} bytes, at most {FRAME_BYTES_MAX} (SPEC 6.1)")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def frame_length(prefix: bytes, most: int) -> int:
    """Read the 4 bytes before a frame. Raises LimitExceeded before anything is allocated."""
    length = int.from_bytes(prefix, "big")
    if not 0 < length <= most:
        raise LimitExceeded(f"frame of {length} bytes, 1 to {most} allowed (SPEC 6.1)")
    return length


def decode_frame(body: bytes) -> Frame:
    """Decode what stands after the length. Raises NotCanonical for anything that is no frame."""
    try:
        frame: Frame = _decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise NotCanonical(f"not a frame: {error} (SPEC 6.2)") from None
    return frame


def authentic(run: Run) -> list[Entry]:
    """Return the entries of a run that its signatures cover. Raises as `run.unpack` does."""
    return unpack(
        run.chat,
        run.device,
        run.lane,
        run.start,
        run.prev,
        run.context,
        run.records,
        dict(run.signatures),
    )
