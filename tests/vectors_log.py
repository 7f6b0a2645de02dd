"""Vectors of the log: encoding, entries, runs (SPEC 1, 2, 6.4)."""

from hashlib import sha256

from msgspec import msgpack
from msgspec.structs import replace

from crypto.labels import PREFIX
from crypto.signing import Signer
from protocol import codec
from protocol.entry import (
    ATTACHED,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Header,
    Reference,
    encode_header,
    entry_id,
    header_before_commitment,
)
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic
from protocol.limits import SEQ_MAX
from protocol.run import START, context_after, pack
from protocol.testing.cast import ISSUED_MS, seed
from tests.by_hand import COFACTOR, FIELD, challenge, sign_by_hand, times_base, with_torsion
from tests.vectors import Case, Value, invalid, valid

SIGNER = Signer(seed("log", "device"))
DEVICE = DeviceKey(SIGNER.public)
CHAT = ChatId(seed("log", "chat"))
OTHER = Reference(DeviceKey(bytes(31) + b"\x01"), 7, EntryId(seed("log", "head")))
LATER = Reference(DeviceKey(bytes(31) + b"\x02"), 0, EntryId(seed("log", "head", "2")))
EPOCH = EntryId(seed("log", "epoch"))
PAYLOAD = b"payload"


def encoding() -> list[Case]:
    """Canonical arrays, and what is not one."""
    accepted: list[tuple[str, codec.Value]] = [
        ("empty", ()),
        ("nil", (None,)),
        ("small integers", (0, 1, 127)),
        ("one byte", (128, 255)),
        ("two bytes", (256, 65535)),
        ("four bytes", (65536, 2**32 - 1)),
        ("eight bytes", (2**32, 2**53 - 1, 2**64 - 1)),
        ("binary", (b"", b"\x00", bytes(255), bytes(256))),
        ("arrays", ((), (1, (2, (3,))), tuple(range(16)))),
        ("16 arrays inside the outermost", _nested(16)),
    ]
    refused: list[tuple[str, str, type[PeerError]]] = [
        ("nothing", "", NotCanonical),
        ("no array", "01", NotCanonical),
        ("trailing byte", "9000", NotCanonical),
        ("cut off", "9201", NotCanonical),
        ("integer not shortest, uint 8", "91cc01", NotCanonical),
        ("integer not shortest, uint 16", "91cd0001", NotCanonical),
        ("integer not shortest, uint 32", "91ce00000001", NotCanonical),
        ("integer not shortest, uint 64", "91cf0000000000000001", NotCanonical),
        ("signed spelling of a positive integer", "91d001", NotCanonical),
        ("negative integer", "91ff", NotCanonical),
        ("binary with a long length", "91c5000101", NotCanonical),
        ("array with a long length", "dc000101", NotCanonical),
        ("array with a giant claim", "ddffffffff", NotCanonical),
        ("binary with a giant claim", "91c6ffffffff", NotCanonical),
        ("boolean", "91c3", NotCanonical),
        ("float", "91cb3ff0000000000000", NotCanonical),
        ("NaN", "91cb7ff8000000000000", NotCanonical),
        ("string", "91a161", NotCanonical),
        ("string that is not UTF-8", "91a1ff", NotCanonical),
        ("map", "9180", NotCanonical),
        ("map with a key twice", "918201010101", NotCanonical),
        ("extension", "91d40100", NotCanonical),
        ("timestamp", "91d6ff00000000", NotCanonical),
        ("never used byte", "91c1", NotCanonical),
        ("17 arrays inside the outermost", codec.encode(_nested(17)).hex(), LimitExceeded),
        ("depth 100,000", "91" * 100_000 + "90", LimitExceeded),
        ("too many elements", codec.encode((0,) * 16_385).hex(), LimitExceeded),
    ]
    cases = [valid(name, value, raw=codec.encode(value), max=2**20) for name, value in accepted]
    cases += [
        invalid(name, error, raw=bytes.fromhex(raw), max=2**20) for name, raw, error in refused
    ]
    return [*cases, invalid("longer than its limit", LimitExceeded, raw=b"\x91\x00", max=1)]


def _nested(depth: int) -> codec.Value:
    value: codec.Value = ()
    for _ in range(depth):
        value = (value,)
    return value


def control(seq: int = 0, prev: EntryId | None = None) -> ControlHeader:
    return ControlHeader(
        chat=CHAT,
        device=DEVICE,
        seq=seq,
        prev=prev,
        links=(OTHER,),
        time=ISSUED_MS + seq,
        kind=9,
        payload_hash=sha256(PAYLOAD).digest(),
        payload_size=len(PAYLOAD),
    )


def content(seq: int = 0, prev: EntryId | None = None) -> ContentHeader:
    return ContentHeader(
        chat=CHAT,
        device=DEVICE,
        seq=seq,
        prev=prev,
        links=(),
        control=(OTHER,),
        time=ISSUED_MS + seq,
        epoch=EPOCH,
        generation=seq,
        pc=seed("pc", str(seq)),
        payload_size=len(PAYLOAD),
        payload_hash=sha256(PAYLOAD).digest(),
    )


def signed(header: Header) -> tuple[bytes, EntryId, bytes]:
    raw = encode_header(header)
    entry = entry_id(raw)
    return raw, entry, SIGNER.sign(SIGNATURE_LABEL, entry)


def entries() -> list[Case]:
    """Headers with signature and payload."""
    headers: list[tuple[str, Header]] = [
        ("control, seq 0", control()),
        ("control, later", control(1, EntryId(seed("prev")))),
        ("control, a genesis: chat nil", replace(control(), chat=None, kind=0, links=())),
        ("control, two links", replace(control(), links=(OTHER, LATER))),
        ("content, seq 0", content()),
        ("content, later, with a link", replace(content(9, EntryId(seed("p"))), links=(LATER,))),
        ("the highest seq", control(SEQ_MAX, EntryId(seed("prev")))),
        ("time 0", replace(content(), time=0)),
        ("content with a blob", attached()),
        ("control of a kind that no operation has", replace(control(), kind=255)),
        ("content that names a control head of its own device", _own_head()),
    ]
    cases = [_accepted(name, header) for name, header in headers]
    cases += [_refused(*one) for one in _bad_headers()]
    return cases + _bad_signatures() + _signed_by_hand()


def _own_head() -> ContentHeader:
    return replace(content(), control=(Reference(DEVICE, 4, EntryId(seed("own"))),))


def attached() -> ContentHeader:
    """Return the header of a message with a blob."""
    return replace(content(), kind=ATTACHED)


def _accepted(name: str, header: Header) -> Case:
    raw, entry, signature = signed(header)
    pre = header_before_commitment(header) if isinstance(header, ContentHeader) else None
    result = {"id": entry, "lane": header.lane, "seq": header.seq, "pre": pre}
    return valid(name, result, header=raw, payload=PAYLOAD, signature=signature)


def _refused(name: str, raw: bytes, error: type[PeerError]) -> Case:
    signature = SIGNER.sign(SIGNATURE_LABEL, entry_id(raw))
    return invalid(name, error, header=raw, payload=PAYLOAD, signature=signature)


def _bad_headers() -> list[tuple[str, bytes, type[PeerError]]]:
    fields = list(msgpack.decode(encode_header(control()), type=list[object]))
    long = list(msgpack.decode(encode_header(content()), type=list[object]))
    link = [OTHER.device, OTHER.seq, OTHER.id]
    again = [LATER.device, LATER.seq, LATER.id]
    changed: list[tuple[str, list[object], int, object]] = [
        ("version 0", fields, 0, 0),
        ("version 2", fields, 0, 2),
        ("chat nil in an entry that is no genesis", fields, 1, None),
        ("a genesis that names a chat", fields, 8, 0),
        ("chat of 31 bytes", fields, 1, bytes(31)),
        ("device of 33 bytes", fields, 2, bytes(33)),
        ("lane 2", fields, 3, 2),
        ("lane 1 with the fields of lane 0", fields, 3, 1),
        ("seq over the limit", fields, 4, SEQ_MAX + 1),
        ("seq 0 with a prev", fields, 5, bytes(32)),
        ("seq 1 without a prev", fields, 4, 1),
        ("links out of order", fields, 6, [again, link]),
        ("a link twice", fields, 6, [link, link]),
        ("a link to the own chain", fields, 6, [[DEVICE, 0, bytes(32)]]),
        ("nine links", fields, 6, _heads(9)),
        ("links nil", fields, 6, None),
        ("time over the limit", fields, 7, 2**53),
        ("negative time", fields, 7, -1),
        ("time as a float", fields, 7, 1.5),
        ("kind 256", fields, 8, 256),
        ("payload hash of 31 bytes", fields, 9, bytes(31)),
        ("payload size over the limit", fields, 10, 196_609),
        ("content of kind 2", long, 9, 2),
        ("content without a chat", long, 1, None),
        ("content with control heads out of order", long, 7, [again, link]),
        ("content without control heads", long, 7, []),
        ("content with an epoch of 31 bytes", long, 10, bytes(31)),
        ("content with a payload size over the limit", long, 13, 65_537),
        ("content with a commitment of 31 bytes", long, 12, bytes(31)),
        ("content with a generation over the limit", long, 11, 2**32),
        ("content with a link to the own chain", long, 6, [[DEVICE, 0, bytes(32)]]),
        ("content that names a control head twice", long, 7, [link, link]),
        ("content that names nine control heads", long, 7, _heads(9)),
    ]
    found: list[tuple[str, bytes, type[PeerError]]] = []
    for name, base, place, value in changed:
        raw = msgpack.encode([*base[:place], value, *base[place + 1 :]])
        found.append((name, raw, NotCanonical))
    whole = encode_header(control())
    return [
        *found,
        ("one field too many", msgpack.encode([*fields, 0]), NotCanonical),
        ("one field too few", msgpack.encode(fields[:-1]), NotCanonical),
        ("trailing byte", whole + b"\x00", NotCanonical),
        (
            "seq not in its shortest form",
            whole.replace(b"\x00\x00\xc0", b"\x00\xcc\x00\xc0", 1),
            NotCanonical,
        ),
        ("empty", b"", NotCanonical),
        ("over 2,048 bytes", whole + bytes(2048), LimitExceeded),
    ]


def _heads(count: int) -> list[object]:
    return [[bytes([n]) * 32, 0, bytes(32)] for n in range(1, count + 1)]


def _bad_signatures() -> list[Case]:
    raw, entry, signature = signed(control())
    scalar = (
        int.from_bytes(signature[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    )
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    small = replace(control(), device=DeviceKey(bytes([1]) + bytes(31)), links=())
    forged = [
        ("signature with one bit flipped", raw, bytes([signature[0] ^ 1]) + signature[1:], PAYLOAD),
        ("signature of 63 bytes", raw, signature[:63], PAYLOAD),
        ("empty signature", raw, b"", PAYLOAD),
        ("S + L", raw, malleable, PAYLOAD),
        ("small-order key", encode_header(small), bytes([1]) + bytes(63), PAYLOAD),
        ("signed under another label", raw, SIGNER.sign("entry", entry), PAYLOAD),
        ("signature over the header", raw, SIGNER.sign(SIGNATURE_LABEL, raw), PAYLOAD),
        ("another payload of that size", raw, signature, b"PAYLOAD"),
        ("a shorter payload", raw, signature, b"payloa"),
    ]
    return [
        invalid(name, Unauthentic, header=header, payload=payload, signature=given)
        for name, header, given, payload in forged
    ]


def _signed_by_hand() -> list[Case]:
    """Points of small order, or with a part of it: SPEC 2.1 says what becomes of each."""
    secret, nonce = 2**200 + 5, 2**199 + 7
    key, point, identity = times_base(secret), times_base(nonce), (1).to_bytes(32, "little")
    mixed = with_torsion(key)
    odd: list[tuple[str, int, bytes, bytes, int]] = [
        ("an R of small order", secret, key, identity, 0),
        ("a key that is not canonical", 0, (FIELD + 1).to_bytes(32, "little"), point, nonce),
    ]
    cases: list[Case] = []
    for name, scalar, device, r, number in odd:
        raw = encode_header(replace(control(), device=DeviceKey(device), links=()))
        signature = sign_by_hand(scalar, device, r, number, PREFIX + b"sig" + entry_id(raw))
        cases.append(invalid(name, Unauthentic, header=raw, payload=PAYLOAD, signature=signature))
    for name, fits in (
        ("a signature that holds only with the cofactor", False),
        ("a key with a part of small order, and a signature that holds", True),
    ):
        header = replace(control(), device=DeviceKey(mixed), links=())
        while _holds(header, mixed, point) != fits:
            header = replace(header, time=header.time + 1)
        raw = encode_header(header)
        message = PREFIX + b"sig" + entry_id(raw)
        inputs: dict[str, Value] = {
            "header": raw,
            "payload": PAYLOAD,
            "signature": sign_by_hand(secret, mixed, point, nonce, message),
        }
        result: Value = {"id": entry_id(raw), "lane": 0, "seq": 0, "pre": None}
        cases.append(
            valid(name, result, **inputs) if fits else invalid(name, Unauthentic, **inputs)
        )
    return cases


def _holds(header: Header, key: bytes, point: bytes) -> bool:
    """Whether the challenge takes the part of small order out of the equation."""
    message = PREFIX + b"sig" + entry_id(encode_header(header))
    return challenge(key, point, message)[0] % COFACTOR == 0


def chain(length: int) -> list[tuple[ContentHeader, EntryId, bytes]]:
    """Return a content chain with all its signatures."""
    made: list[tuple[ContentHeader, EntryId, bytes]] = []
    prev = None
    for seq in range(length):
        header = content(seq, prev)
        _, prev, signature = signed(header)
        made.append((header, prev, signature))
    return made


def _run(start: int, stop: int, signatures: dict[int, bytes]) -> dict[str, Value]:
    made = chain(stop)
    before = START if start == 0 else context_after(made[start - 1][0])
    records = []
    context = before
    for header, _, _ in made[start:stop]:
        records.append(pack(header, PAYLOAD, context))
        context = context_after(header)
    return {
        "chat": CHAT,
        "device": DEVICE,
        "lane": 1,
        "start": start,
        "prev": made[start - 1][1] if start else None,
        "context": tuple(before) if start % 64 else None,
        "records": records,
        "signatures": list(signatures.items()),
    }


def runs() -> list[Case]:
    """Records and covers: what is authentic of a run."""
    made = chain(140)
    ids = [entry for _, entry, _ in made]
    bad = bytes(64)

    def case(name: str, start: int, stop: int, chosen: dict[int, bytes], kept: list[int]) -> Case:
        covered = kept[-1] + 1
        return valid(
            name,
            {"ids": ids[start : start + covered], "signed": kept},
            **_run(start, stop, chosen),
        )

    def of(start: int, *indices: int) -> dict[int, bytes]:
        return {index: made[start + index][2] for index in indices}

    accepted = [
        case("one entry", 0, 1, of(0, 0), [0]),
        case("64 entries, the last signed", 0, 64, of(0, 63), [63]),
        case("130 entries, two signatures", 0, 130, of(0, 63, 127, 129), [63, 127, 129]),
        case("from a keyframe", 64, 70, of(64, 5), [5]),
        case("from the middle, with context", 70, 75, of(70, 4), [4]),
        case("a bad signature in the middle is ignored", 0, 10, of(0, 9) | {4: bad}, [9]),
        case("a bad tail leaves the covered part", 0, 10, of(0, 4) | {9: bad}, [4]),
        case("65 entries, the first and the last signed", 1, 66, of(1, 0, 64), [0, 64]),
    ]
    return [*accepted, _control_run(), _dropped_run(), _attached_run(), *_bad_runs()]


def _attached_run() -> Case:
    """One entry with a blob: its kind is the last field of the record."""
    header = attached()
    _, entry, signature = signed(header)
    whole = _run(0, 1, {0: signature})
    return valid(
        "an entry with a blob",
        {"ids": [entry], "signed": [0]},
        **whole | {"records": [pack(header, PAYLOAD, START)]},
    )


def _dropped_run() -> Case:
    """Two entries, the payload of the second gone."""
    made = chain(2)
    whole = _run(0, 2, {1: made[1][2]})
    records = whole["records"]
    assert isinstance(records, list)
    bare = pack(made[1][0], OTHER, context_after(made[0][0]))
    return valid(
        "a payload that was dropped",
        {"ids": [entry for _, entry, _ in made], "signed": [1]},
        **whole | {"records": [records[0], bare]},
    )


def _control_run() -> Case:
    first = replace(control(), chat=None, kind=0, links=())
    _, genesis, signature = signed(first)
    inputs: dict[str, Value] = {
        "chat": genesis,
        "device": DEVICE,
        "lane": 0,
        "start": 0,
        "prev": None,
        "context": None,
        "records": [pack(first, PAYLOAD, START)],
        "signatures": [(0, signature)],
    }
    return valid(
        "a genesis: chat is nil in its header", {"ids": [genesis], "signed": [0]}, **inputs
    )


def _bad_runs() -> list[Case]:
    made = chain(66)
    whole = _run(0, 2, {1: made[1][2]})
    records = whole["records"]
    assert isinstance(records, list)
    one, two = (msgpack.decode(record, type=list[object]) for record in records)
    head = [OTHER.device, OTHER.seq, OTHER.id]
    changed: list[tuple[str, list[object], list[object]]] = [
        ("a record of one field", one, [0]),
        ("a record that ends in nil", one, [*two, (), None]),
        ("a record that ends in empty links", one, [*two, ()]),
        ("a record that repeats the epoch", one, [*two, (), None, EPOCH, 1]),
        ("a record that repeats the control heads", one, [*two, (), [head]]),
        ("a record that repeats the next generation", one, [*two, (), None, None, 1]),
        ("an epoch without its generation", one, [*two, (), None, bytes(32)]),
        ("no epoch at a keyframe", two, two),
        ("no control heads at a keyframe", [*one[:4], None, *one[5:]], two),
        ("a time that goes below zero", one, [-(2**53), *two[1:]]),
        ("one field too many", one, [*two, (), None, bytes(32), 0, 1, 0]),
        ("a record of kind 0, which is left out", one, [*two, (), None, None, None, 0]),
        ("links nil before a later field", one, [*two, None, None, bytes(32), 0]),
        ("a record of kind 2", one, [*two, (), None, None, None, 2]),
        ("a commitment of 31 bytes", one, [two[0], bytes(31), two[2]]),
        ("an elapsed time that is no integer", one, [b"", *two[1:]]),
        ("a dropped payload without a ground", one, [*two[:2], [7, bytes(32)]]),
        ("a ground that is no reference", one, [*two[:2], [7, bytes(32), bytes(32)]]),
        ("a dropped payload of a size over the limit", one, [*two[:2], [65537, bytes(32), head]]),
    ]
    cases = [
        invalid(name, NotCanonical, **whole | {"records": [msgpack.encode(r) for r in pair]})
        for name, *pair in changed
    ]
    payload_hash = sha256(PAYLOAD).digest()
    huge = msgpack.encode([two[0], two[1], bytes(65537)])
    other = SIGNER.sign(SIGNATURE_LABEL, bytes(32))
    return [
        *cases,
        invalid(
            "a record in a longer spelling",
            NotCanonical,
            **whole | {"records": [records[0], b"\xdc\x00\x03" + records[1][1:]]},
        ),
        invalid(
            "a payload over the limit", LimitExceeded, **whole | {"records": [records[0], huge]}
        ),
        invalid("seq over the limit", LimitExceeded, **whole | {"start": SEQ_MAX}),
        *(
            invalid(name, Unauthentic, **whole | {"records": [records[0], msgpack.encode(record)]})
            for name, record in (
                ("another size of a dropped payload", [*two[:2], [6, payload_hash, head]]),
                ("another hash of a dropped payload", [*two[:2], [7, bytes(32), head]]),
            )
        ),
        invalid("no signature", Unauthentic, **whole | {"signatures": []}),
        invalid("only a wrong signature", Unauthentic, **whole | {"signatures": [(1, other)]}),
        invalid("another chat", Unauthentic, **whole | {"chat": bytes(32)}),
        invalid("another device", Unauthentic, **whole | {"device": bytes(31) + b"\x09"}),
        invalid(
            "a wrong prev", Unauthentic, **_run(64, 66, {1: made[65][2]}) | {"prev": bytes(32)}
        ),
        invalid("65 entries to the first signature", Unauthentic, **_run(0, 65, {64: made[64][2]})),
        *(
            invalid(name, error, **_run(1, 2, {0: made[1][2]}) | {"context": changed})
            for name, error, changed in _bad_contexts(made[0][0])
        ),
        invalid("65 bad signatures", Unauthentic, **_run(0, 66, _mostly_bad(made[0][2]))),
    ]


def _bad_contexts(before: ContentHeader) -> list[tuple[str, type[PeerError], Value]]:
    """What the entry before left, told wrongly: whatever it is, no signature fits any more."""
    time, heads, epoch, generation = context_after(before)
    return [
        ("a context of another time", Unauthentic, [time + 1, heads, epoch, generation]),
        ("a context of other control heads", Unauthentic, [time, [LATER], epoch, generation]),
        ("a context of another epoch", Unauthentic, [time, heads, bytes(32), generation]),
        ("a context of another generation", Unauthentic, [time, heads, epoch, generation + 1]),
        ("a context without an epoch", NotCanonical, [time, heads, b"", generation]),
    ]


def _mostly_bad(first: bytes) -> dict[int, bytes]:
    """A good signature of the first entry, and 65 others that are none."""
    return {0: first} | {index: bytes(64) for index in range(1, 66)}
