"""What the vectors of peers are checked by: frames, questions, answers, blobs, directories."""

from contextlib import closing

import apsw

from crypto.blob import BlobCipher, chunks_of, sealed_length
from node.schema import SCHEMA
from node.witness import Witness
from protocol import frame, identity
from protocol.attachment import Announcement, announcement
from protocol.blob import check_chunk
from protocol.entry import DeviceKey
from protocol.errors import Untrusted
from protocol.identity import AgencyId, UserId, verify_charter
from protocol.listing import Listing, check_listed, verify_head, verify_split
from protocol.question import decode_question, encode_question
from protocol.reconcile import Reconciliation, recon_key, tabulate
from protocol.reply import Refusal, decode_answer, encode_answer
from protocol.rings import neighbours
from tests.vector_inputs import Inputs, as_items, as_number, as_raw
from tests.vectors import Value
from tests.vectors_blobs import chunk_frame
from tests.vectors_log import attached


def check_frame(case: Inputs) -> Value:
    raw = case.raw("raw")
    length = frame.frame_length(raw[: frame.LENGTH_BYTES], case.number("max"))
    assert len(raw) == frame.LENGTH_BYTES + length
    found = frame.decode_frame(raw[frame.LENGTH_BYTES :])
    again = frame.encode_frame(found)
    told: dict[str, Value] = {"frame": type(found).__name__.lower()}
    return told if again == raw else told | {"again": again}


def check_reconciliation(case: Inputs) -> Value:
    if case.plain("do") == "key":
        one, other = case.raws("salts")
        return {"key": recon_key(one, other, case.number("number"))}
    ours = tabulate(case.raw("key"), heads_in(case, "heads"), 0)
    match case.plain("do"):
        case "table":
            items: Value = [ours.item(index) for index in range(len(ours))]
            ends = range(len(ours) + 1)
            return {"items": items, "fingerprints": [ours.fingerprint(0, end) for end in ends]}
        case "talk":
            theirs = tabulate(case.raw("key"), heads_in(case, "theirs"), 0)
            sides = Reconciliation(ours), Reconciliation(theirs)
            turns = [frame.encode_frame(sides[0].begin(0))]
            while (said := sides[len(turns) % 2].answer(turn_in(turns[-1]))) is not None:
                turns.append(frame.encode_frame(said))
            return {"turns": turns, "lacking": [list(side.found()) for side in sides]}
        case _:
            side = Reconciliation(ours)
            for _ in range(case.number("times")):
                side.answer(turn_in(case.raw("raw")))
            return None


def heads_in(case: Inputs, key: str) -> list[tuple[bytes, int]]:
    pairs = map(as_items, case.items(key))
    return [(as_raw(entry), as_number(number)) for entry, number in pairs]


def turn_in(raw: bytes) -> frame.Recon:
    found = frame.decode_frame(raw[frame.LENGTH_BYTES :])
    assert isinstance(found, frame.Recon)
    return found


def check_rings(case: Inputs) -> Value:
    others = frozenset(case.raws("others"))
    found = neighbours(case.raw("chat"), case.raw("own"), others, case.number("agencies"))
    return {"eager": sorted(found.eager), "lazy": sorted(found.lazy)}


def check_question(case: Inputs) -> Value:
    topic, body = case.number("topic"), case.raw("body")
    found = decode_question(topic, body)
    assert encode_question(found) == (topic, body)
    return {"question": type(found).__name__.lower()}


def check_answer(case: Inputs) -> Value:
    topic, body = case.number("topic"), case.raw("body")
    try:
        found = decode_answer(topic, case.number("code"), body)
    except Refusal as refusal:
        return {"refused": refusal.code, "text": str(refusal).encode()}
    assert encode_answer(found) == body
    return {"answer": type(found).__name__.lower()}


def check_blob(case: Inputs) -> Value:
    match case.plain("do"):
        case "length":
            sealed = sealed_length(case.number("size"))
            return {"sealed": sealed, "chunks": chunks_of(sealed)}
        case "chunk":
            cipher = BlobCipher(case.raw("key"))
            index, count = case.number("index"), case.number("count")
            plain = cipher.open(index, count, case.raw("chunk"))
            assert cipher.seal(index, count, plain) == case.raw("chunk")
            return plain
        case "announcement":
            found = announcement(attached(), case.raw("payload"))
            return None if found is None else {"root": found.root, "size": found.size}
        case _:
            chunk = chunk_frame(case.number("index"), case.raw("chunk"), case.raws("path"))
            check_chunk(Announcement(case.raw("root"), case.number("size")), chunk)
            return None


def check_directory(case: Inputs) -> Value:
    if case.plain("what") in {"before", "next", "counted"}:
        return _check_known(case)
    raw = case.raw("raw")
    match case.plain("what"):
        case "head":
            head = verify_head(raw)
            return {"number": head.serial, "count": head.count}
        case "proof":
            split = verify_split(raw)
            return {"agency": split.agency, "number": split.serial}
        case _:
            charter = verify_charter(case.raw("charter"))
            devices = tuple(DeviceKey(device) for device in case.raws("devices"))
            user = UserId(case.raw("user"))
            listed = identity.VerifiedUser(
                charter.agency,
                charter.name,
                charter.zone,
                user,
                case.plain("address"),
                devices,
                charter.archive,
            )
            path = tuple(case.raws("path"))
            check_listed(Listing(raw, case.number("index"), path), listed)
            return None


def _check_known(case: Inputs) -> Value:
    """Look at what becomes of heads of one agency that come one after the other."""
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(SCHEMA)
        witness = Witness(connection)
        for known in case.raws("known"):
            witness.agrees(known)
        match case.plain("what"):
            case "before":
                found = witness.before(verify_charter(case.raw("charter")))
                return None if found is None else {"number": found.serial, "id": found.id}
            case "next":
                if not witness.agrees(case.raw("raw")):
                    raise Untrusted("a head that does not count (SPEC 7.5)")
                return None
            case _:
                heads = witness.after(AgencyId(case.raw("agency")), 0)
                splits = [verify_split(raw) for raw in witness.proofs()]
                against = sorted(split.registrar for split in splits)
                return {"counted": [verify_head(raw).id for raw in heads], "against": against}
