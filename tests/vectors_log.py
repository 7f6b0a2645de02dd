"""Vectors of the log: encoding, entries, runs, covers, forks (SPEC 1, 2, 6.4)."""

from hashlib import sha256

from msgspec import msgpack
from msgspec.structs import replace

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
from protocol.fork import Cover, encode_proof
from protocol.limits import SEQ_MAX
from protocol.run import START, context_after, pack
from protocol.testing.cast import ISSUED_MS, seed
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
    ]
    cases = [_accepted(name, header) for name, header in headers]
    return cases + [_refused(*one) for one in _bad_headers()] + _bad_signatures()


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
        ("nine links", fields, 6, [[bytes([n]) * 32, 0, bytes(32)] for n in range(1, 10)]),
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
    ]


def covers() -> list[Case]:
    """Paths of headers to a signed one."""
    made = chain(66)
    raws = [encode_header(header) for header, _, _ in made]

    def cover(start: int, stop: int, signature: bytes | None = None) -> dict[str, Value]:
        signed_by = made[stop - 1][2] if signature is None else signature
        return {"headers": raws[start:stop], "signature": signed_by}

    other = signed(control(1, made[0][1]))
    gap: dict[str, Value] = {"headers": [raws[0], raws[2]], "signature": made[2][2]}
    lane: dict[str, Value] = {"headers": [raws[0], other[0]], "signature": other[2]}
    foreign = encode_header(replace(made[1][0], chat=ChatId(bytes(32))))
    away: dict[str, Value] = {"headers": [raws[0], foreign], "signature": made[1][2]}
    return [
        valid("one header", {"id": made[0][1]}, **cover(0, 1)),
        valid("64 headers", {"id": made[2][1]}, **cover(2, 66)),
        invalid("no header", NotCanonical, headers=[], signature=made[0][2]),
        invalid("65 headers", LimitExceeded, **cover(0, 65)),
        invalid("a malformed header", NotCanonical, headers=[b"\x90"], signature=made[0][2]),
        invalid("a signature of 63 bytes", NotCanonical, **cover(0, 2, made[1][2][:63])),
        invalid("the signature of another entry", Unauthentic, **cover(0, 2, made[0][2])),
        invalid("a gap", Unauthentic, **gap),
        invalid("another lane", Unauthentic, **lane),
        invalid("another chat", Unauthentic, **away),
    ]


def forks() -> list[Case]:
    """Proofs that a device signed two entries at one seq."""
    made = chain(3)
    rival = replace(made[1][0], time=1)
    rival_raw, rival_id, rival_signature = signed(rival)
    later = content(2, rival_id)
    later_raw, _, later_signature = signed(later)
    honest = Cover((encode_header(made[1][0]),), made[1][2])
    covered = Cover((encode_header(made[1][0]), encode_header(made[2][0])), made[2][2])
    caught = Cover((rival_raw,), rival_signature)
    path = Cover((rival_raw, later_raw), later_signature)
    low, high = sorted((made[1][1], rival_id))
    result: Value = {"chat": CHAT, "device": DEVICE, "lane": 1, "seq": 1, "ids": [low, high]}
    proof = encode_proof(honest, caught)
    pair = codec.decode(proof, 2**18)
    first = pair[0]
    assert isinstance(first, tuple)
    elsewhere = Cover((encode_header(made[0][0]),), made[0][2])
    unsigned = encode_proof(honest, Cover((rival_raw,), bytes(64)))
    twins: list[Case] = []
    for name, one in (("the same entry twice", honest), ("two places", elsewhere)):
        twins.append(invalid(name, Unauthentic, proof=encode_proof(honest, one)))
    return [
        valid("two signed entries", result, proof=proof),
        valid("covers of two headers", result, proof=encode_proof(covered, path)),
        *twins,
        invalid("a bad signature", Unauthentic, proof=unsigned),
        invalid("the larger id first", NotCanonical, proof=codec.encode(_values(pair[::-1]))),
        invalid("one cover", NotCanonical, proof=codec.encode(_values(pair[:1]))),
        invalid("an empty cover", NotCanonical, proof=codec.encode([[[], bytes(64)]] * 2)),
        invalid("not canonical", NotCanonical, proof=proof + b"\x00"),
        invalid("over 256 KiB", LimitExceeded, proof=bytes(256 * 1024 + 1)),
    ]


def _values(items: tuple[object, ...]) -> codec.Value:
    """Give decoded fields their type back."""
    found: list[codec.Value] = []
    for item in items:
        if isinstance(item, tuple):
            found.append(_values(item))
        elif item is None or isinstance(item, (int, bytes)):
            found.append(item)
    return found
