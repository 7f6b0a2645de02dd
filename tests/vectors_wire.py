"""Makes the vectors of frames and questions."""

from collections.abc import Mapping
from typing import Final

from msgspec import Raw, Struct, msgpack

from protocol import codec, frame
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Untrusted
from protocol.identity import AgencyId
from protocol.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_BEFORE_HELLO
from protocol.listing import HEAD_BYTES_MAX
from protocol.question import (
    Approve,
    BeginLink,
    CertifySigner,
    Enrol,
    Forward,
    GetBlobs,
    GetCard,
    GetCards,
    GetDirectory,
    GetLink,
    GetParcels,
    GetPending,
    GetReceipts,
    Lookup,
    PutLink,
    PutParcel,
    PutPrekey,
    Question,
    Rename,
    Renew,
    Revoke,
    Seen,
    Taken,
    Witness,
    encode_question,
)
from protocol.run import Context
from protocol.testing.cast import ISSUED_MS, prekey_record, seed
from tests.vectors import Case, invalid, valid
from tests.vectors_people import AGENCY, ANNA, BORIS

# Peers


CHAT: Final = ChatId(seed("chat"))
DEVICE: Final = DeviceKey(seed("device"))
EPOCH: Final = EntryId(seed("epoch"))


def frames() -> list[Case]:
    """One frame of each kind with its length before it, and what is no frame."""
    context = Context(ISSUED_MS, (), EPOCH, 3)
    record = Raw(msgpack.encode([5, bytes(32), b"payload"]))
    made: Mapping[str, frame.Frame] = {
        "hello": frame.Hello((1,), bytes(16), bytes(16), 2**40, bytes(16)),
        "hello of a newcomer": frame.Hello((1, 2), bytes(16), None, 0, bytes(16)),
        "heads": frame.Heads(9, 1, (frame.ChatHeads(CHAT, (frame.Head(DEVICE, 0, 3, bytes(8)),)),)),
        "want": frame.Want(CHAT, DEVICE, 1, bytes(8), 64, 128),
        "run": frame.Run(CHAT, DEVICE, 1, 65, EPOCH, context, (record,), ((0, bytes(64)),)),
        "absent": frame.Absent(CHAT, DEVICE, 1, 64),
        "have": frame.Have((frame.Holding(DeviceKey(AGENCY), CHAT, DEVICE, 1, 7),)),
        "fork": frame.Forked(CHAT, b"proof"),
        "wantseals": frame.WantSeals(CHAT, EPOCH, (DEVICE,)),
        "seals": frame.Seals(CHAT, EPOCH, (frame.Seal(0, bytes(1184), (bytes(32),)),)),
        "ask": frame.Ask(1, 1, b"\x92\x90\x90"),
        "answer": frame.Answer(1, 0, b"\x90"),
        "error": frame.Error(3, "слишком длинно".encode()),
        "bye": frame.Bye(),
        "ping": frame.Ping(),
        "pong": frame.Pong(),
        "seen": frame.Seen(9),
        "wantblob": frame.WantBlob(CHAT, EPOCH, 8, 16),
        "blob": frame.Blob(CHAT, EPOCH, 8, bytes(262_144), (bytes(32),)),
        "lacking": frame.Lacking(CHAT, EPOCH, 9, 16),
        "ihave": frame.IHave(CHAT, (frame.Head(DEVICE, 1, 7, bytes(8)),)),
        "graft": frame.Graft(CHAT, frame.Head(DEVICE, 1, 7, bytes(8))),
        "prune": frame.Prune(CHAT),
        "recon": frame.Recon(
            1,
            (frame.Span(b"", b"\x80", 17, bytes(16)),),
            (frame.Roll(b"\x80", b"", (bytes(16),)),),
            (b"\xff" * 16,),
            2,
        ),
    }
    cases = [
        valid(
            name,
            {"frame": type(one).__name__.lower()},
            raw=frame.encode_frame(one),
            max=FRAME_BYTES_MAX,
        )
        for name, one in made.items()
    ]
    return cases + _loose_frames(made) + _bad_frames(made["hello"], made["run"])


def _loose_frames(made: Mapping[str, frame.Frame]) -> list[Case]:
    """Frames that are taken, though we write them otherwise: `again` is how."""
    body = frame.encode_frame(made["have"])[frame.LENGTH_BYTES :]
    later = msgpack.decode(body, type=list[object])
    holding = msgpack.decode(body, type=tuple[int, list[list[object]]])[1][0]
    odd: list[tuple[str, str, bytes]] = [
        ("an element more than is known", "have", msgpack.encode([*later, [1], None])),
        ("an element more in a holding", "have", msgpack.encode([5, [[*holding, b"more"]]])),
        ("a number in a long spelling", "seen", b"\x92\x0f\xcd\x00\x09"),
    ]
    return [
        valid(
            name,
            {"frame": what, "again": frame.encode_frame(made[what])},
            raw=len(raw).to_bytes(4, "big") + raw,
            max=FRAME_BYTES_MAX,
        )
        for name, what, raw in odd
    ]


def _bad_frames(hello: Struct, run: Struct) -> list[Case]:
    greeting = msgpack.decode(msgpack.encode(hello), type=list[object])
    sent = msgpack.decode(msgpack.encode(run), type=list[object])
    item = bytes(16)
    early = FRAME_BYTES_MAX_BEFORE_HELLO
    blob = (CHAT, EPOCH, 0)
    lengths: list[tuple[str, bytes, int]] = [
        ("length 0", bytes(4), early),
        ("length 2^32 - 1", b"\xff" * 4, FRAME_BYTES_MAX),
        ("256 KiB + 1 before HELLO", (early + 1).to_bytes(4, "big"), early),
        ("1 MiB + 1", (FRAME_BYTES_MAX + 1).to_bytes(4, "big"), FRAME_BYTES_MAX),
    ]
    bodies: list[tuple[str, bytes]] = [
        ("no array", b"\x01"),
        ("an empty array", b"\x90"),
        ("an unknown tag", msgpack.encode([19])),
        ("a trailing byte", msgpack.encode([12]) + b"\x00"),
        ("no versions", msgpack.encode([0, [], *greeting[2:]])),
        ("nine versions", msgpack.encode([0, [1] * 9, *greeting[2:]])),
        ("an incarnation of 15 bytes", msgpack.encode([0, [1], bytes(15), None, 0])),
        ("a negative cursor", msgpack.encode([15, -1])),
        ("a cursor of 2^63", msgpack.encode([15, 2**63])),
        ("a run of no records", msgpack.encode([*sent[:7], [], []])),
        ("a signature of 63 bytes", msgpack.encode([*sent[:8], [[0, bytes(63)]]])),
        ("a chunk of 256 KiB + 1", msgpack.encode([17, *blob, bytes(262_145), []])),
        ("a seal of 1,185 bytes", msgpack.encode([8, CHAT, EPOCH, [[0, bytes(1185), []]]])),
        ("a path of 17 steps", msgpack.encode([17, *blob, b"", [bytes(32)] * 17])),
        ("chunk 65,536", msgpack.encode([16, *blob[:2], 65_536, 65_537])),
        ("a hello without a salt", msgpack.encode(greeting[:5])),
        (
            "a bound of 17 bytes",
            msgpack.encode([24, 0, [[b"", bytes(17), 1, bytes(16)]], [], [], 0]),
        ),
        ("a roll of 17 items", msgpack.encode([24, 0, [], [[b"", b"", [item] * 17]], [], 0])),
        ("an item of 15 bytes", msgpack.encode([24, 0, [], [], [bytes(15)], 0])),
        ("513 spans", msgpack.encode([24, 0, [[b"", b"", 1, item]] * 513, [], [], 0])),
        ("an announcement of nothing", msgpack.encode([25, CHAT, []])),
        ("101 announcements", msgpack.encode([25, CHAT, [[DEVICE, 1, 7, bytes(8)]] * 101])),
        ("a graft of nothing", msgpack.encode([26, CHAT])),
        ("a prune of no chat", msgpack.encode([27, bytes(31)])),
        ("a map", b"\x80"),
        ("an array with a giant claim", b"\xdd\xff\xff\xff\xff"),
        ("depth 100,000", b"\x91" * 100_000 + b"\x90"),
    ]
    cases = [invalid(name, LimitExceeded, raw=raw, max=most) for name, raw, most in lengths]
    return cases + [
        invalid(name, NotCanonical, raw=len(body).to_bytes(4, "big") + body, max=FRAME_BYTES_MAX)
        for name, body in bodies
    ]


def _seen(agency: int) -> codec.Value:
    return (bytes([agency]) * 32, 1, bytes(32))


def questions() -> list[Case]:
    """Bodies of ASK."""
    record = prekey_record(ANNA.signers[0])
    good: list[tuple[str, Question]] = [
        ("enrol", Enrol(b"user", b"device", b"pem", record, bytes(1952))),
        ("look-up", Lookup(("anna@mz",), (BORIS.user,))),
        ("prekey", PutPrekey(record)),
        ("parcel", PutParcel(DEVICE, b"sealed")),
        ("forward", Forward(ChatId(seed("chat")), AgencyId(seed("agency")), DEVICE, b"sealed")),
        ("taken", Taken((1, 2**40))),
        ("renew", Renew(b"pem")),
        ("rename", Rename(b"device")),
        ("signatory", CertifySigner(b"pem", b"proof")),
        ("receipts", GetReceipts(ChatId(seed("chat")), (EntryId(seed("entry")),))),
        ("blobs", GetBlobs(ChatId(seed("chat")), (EntryId(seed("entry")),))),
        ("parcels", GetParcels()),
        ("link", BeginLink()),
        ("link request", PutLink(b"device", b"pem", record, bytes(1952))),
        ("link result", GetLink()),
        ("link pending", GetPending()),
        ("link approve", Approve(bytes(16), b"device")),
        ("cards", GetCards(bytes(16), 7)),
        ("card", GetCard(0)),
        ("revoke", Revoke(DEVICE, bytes(64))),
        ("witness", Witness((Seen(AGENCY, 3, seed("head")),), (b"proof",), b"head")),
        ("witness of nothing", Witness((), (), None)),
        ("directory", GetDirectory(AGENCY, 3)),
    ]
    cases: list[Case] = []
    for name, one in good:
        topic, body = encode_question(one)
        cases.append(
            valid(name, {"question": type(one).__name__.lower()}, topic=int(topic), body=body)
        )
    refused: list[tuple[str, int, codec.Value, type[PeerError]]] = [
        ("a question of another size", 5, (), NotCanonical),
        ("a name in capitals", 1, ((b"Anna@mz",), ()), NotCanonical),
        ("a name of two scripts", 1, (("аnna@mz".encode(),), ()), Untrusted),
        ("65 users", 1, ((), [bytes(32)] * 65), LimitExceeded),
        ("a user of 31 bytes", 1, ((), [bytes(31)]), NotCanonical),
        ("a parcel over 900 KiB", 3, (bytes(32), bytes(900 * 1024 + 1)), LimitExceeded),
        ("forward over 900 KiB", 18, (*[bytes(32)] * 3, bytes(900 * 1024 + 1)), LimitExceeded),
        ("forward without an agency", 18, (bytes(32), bytes(32), b""), NotCanonical),
        ("a proof of 81 bytes", 14, (b"pem", bytes(81)), LimitExceeded),
        ("receipts for no entry", 17, (bytes(32), ()), NotCanonical),
        ("receipts for 65 entries", 17, (bytes(32), [bytes(32)] * 65), LimitExceeded),
        ("blobs of no entry", 20, (bytes(32), ()), NotCanonical),
        ("blobs of 65 entries", 20, (bytes(32), [bytes(32)] * 65), LimitExceeded),
        ("a device request over 1,024 bytes", 19, (bytes(1025),), LimitExceeded),
        ("a ticket of 15 bytes", 10, (bytes(15), b""), NotCanonical),
        ("64 names and a user", 1, ([b"anna@mz"] * 64, [bytes(32)]), LimitExceeded),
        ("1,025 parcels taken", 5, (tuple(range(1025)),), LimitExceeded),
        ("a number of 2^63", 5, ((2**63,),), LimitExceeded),
        ("an incarnation of 15 bytes", 11, (bytes(15), 0), NotCanonical),
        ("a signature of 63 bytes", 12, (bytes(32), bytes(63)), NotCanonical),
        ("an ML-DSA key of 1,951 bytes", 7, (b"", b"", b"", bytes(1951)), NotCanonical),
        ("agencies out of order", 15, ([_seen(2), _seen(1)], (), None), NotCanonical),
        ("an agency twice", 15, ([_seen(1), _seen(1)], (), None), NotCanonical),
        ("65 proofs", 15, ((), [b""] * 65, None), LimitExceeded),
        ("a directory head over 768 bytes", 15, ((), (), bytes(HEAD_BYTES_MAX + 1)), LimitExceeded),
    ]
    return cases + [
        invalid(name, error, topic=topic, body=codec.encode(value))
        for name, topic, value, error in refused
    ]
