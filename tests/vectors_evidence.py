"""Evidence files, right ones and wrong ones, and where each wrong one is wrong (SPEC 5.10).

Each wrong file is made by one change. Where it shows is stated here by the number of the element,
not asked of the checker.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from crypto.archival import archive_digest
from protocol import codec
from protocol.checkpoint import Anchor
from protocol.entry import SIGNATURE_LABEL, Place, Reference, encode_header, entry_id
from protocol.evidence import check
from protocol.exhibit import FRAME, ControlPart, Tag, write_evidence
from protocol.identity import sign_charter
from protocol.lane import Rule
from protocol.message import Text, encode_message
from protocol.operation import Admit, Kind, SetPolicy
from protocol.policy import Role
from protocol.testing.cast import Person, grant
from protocol.testing.exhibits import Record
from protocol.testing.story import OPEN_POLICY
from tests.vectors import FOLDER, Case, Value, as_json, recorded_anchor
from tests.vectors_exhibits import (
    ANNA,
    BORIS,
    CAST,
    EGOR,
    THIEF,
    Anchors,
    Exhibit,
    anchored_exhibit,
    attached_exhibit,
    bodies,
    borrowed_anchor,
    changed,
    elements,
    fingerprints,
    flipped,
    forged_anchor,
    joined,
    long_exhibit,
    offset_of,
    other_exhibit,
    plain_exhibit,
    replace_payload,
    replayed_anchor,
)

FILES: Final = FOLDER / "evidence"


def right() -> list[Exhibit]:
    """Files that are right, the last ones with the anchors that somebody compared."""
    plain, anchored, long = plain_exhibit(), anchored_exhibit(), long_exhibit()
    ids = anchored.written_by(ANNA)
    covered = anchored.file(ids[:3])
    without = [
        ControlPart(one.header, one.signature, None if is_epoch else one.payload)
        for one, is_epoch in zip(
            plain.control(),
            [told.header.kind == Kind.EPOCH for told in plain.story.told],
            strict=True,
        )
    ]
    made = {
        "three messages": plain.file(),
        "one of three": plain.file(plain.written_by(ANNA)[:1]),
        "nothing disclosed": plain.file([]),
        "the payload of an epoch left out": b"".join(
            write_evidence(without, plain.parts(plain.disclosed))
        ),
        "a run of 66, one signature in 64": long.file(long.written_by(ANNA)[:1]),
        "a checkpoint over three messages": anchored.file(),
        "a message with a large file": attached_exhibit().file(),
        "all Ed25519 keys known, no anchors": anchored_exhibit(text="not paid").file(),
    }
    found = [Exhibit(name, raw, {}, None, None) for name, raw in made.items()]
    both = fingerprints(ANNA.agency, BORIS.agency)
    return [
        *found,
        Exhibit("anchored by both agencies", covered, both, None, None),
        Exhibit("anchored by one", covered, fingerprints(BORIS.agency), None, None),
    ]


def wrong() -> list[Exhibit]:
    """Files that are wrong."""
    return [*_cut(), *_flips(), *_mixed(), *_texts(), *_lanes(), *_rewritten()]


def _at(name: str, raw: bytes, offset: int, rule: Rule) -> Exhibit:
    return Exhibit(name, raw, {}, offset, rule)


def _cut() -> list[Exhibit]:
    raw = plain_exhibit().file()
    parts = elements(raw)
    last, message = len(parts) - 1, [tag for tag, _ in parts].index(Tag.MESSAGE)
    start = offset_of(parts, message)
    end = offset_of(parts, last)
    long = joined([*parts[:message], (Tag.MESSAGE, bytes(200_705)), *parts[message + 1 :]])
    unknown = joined([*parts[:message], (4, b""), *parts[message:]])
    return [
        _at("empty", b"", 0, Rule.MAGIC),
        _at("cut in the magic", raw[:7], 0, Rule.MAGIC),
        _at("only the magic", raw[:16], 16, Rule.TRUNCATED),
        _at("cut in a length", raw[: start + 3], start, Rule.TRUNCATED),
        _at("cut in a body", raw[: start + 9], start, Rule.TRUNCATED),
        _at("cut between elements", raw[:end], end, Rule.TRUNCATED),
        _at("a trailing byte", raw + b"\x00", len(raw), Rule.TRAILING),
        _at("two files in one", raw + raw, len(raw), Rule.TRAILING),
        _at("an element that is too long", long, start, Rule.ELEMENT),
        _at("an unknown element", unknown, start, Rule.ELEMENT),
        _at("an end with a body", raw[:-4] + b"\x00\x00\x00\x01\x00", end, Rule.ELEMENT),
        _at("no control entries", joined(parts[2:]), 16, Rule.ELEMENT),
        _at(
            "a message without its entry",
            joined([*parts[: message + 1], *parts[message:]]),
            offset_of(parts, message + 1),
            Rule.ELEMENT,
        ),
        _at(
            "a control entry after content",
            joined([*parts[:last], parts[0], parts[last]]),
            end,
            Rule.ELEMENT,
        ),
    ]


def _flips() -> list[Exhibit]:
    """One bit in each part of each kind of element."""
    raw = plain_exhibit().file()
    parts = elements(raw)
    first, genesis, content, message, end = 0, 1, 2, 3, len(parts) - 1
    control_header = len(bodies(parts, first)[0] or b"")

    def at(name: str, number: int, place: int, rule: Rule, bit: int = 0) -> Exhibit:
        start = offset_of(parts, number)
        return _at(f"a bit flipped: {name}", flipped(raw, start + place, bit), start, rule)

    size = len(parts[genesis][1]) + FRAME.size
    payload = len(parts[genesis][1]) - len(bodies(parts, genesis)[2] or b"") + FRAME.size
    header = len(bodies(parts, content)[0] or b"")
    return [
        _at("a bit flipped: magic", flipped(raw, 15), 0, Rule.MAGIC),
        at("tag", content, 0, Rule.ELEMENT, 3),
        at("length", first, 1, Rule.ELEMENT, 7),
        at("length, a little", content, 4, Rule.ENCODING, 1),
        at("array of an element", first, 5, Rule.ENCODING),
        at("chat of a control header", first, 20, Rule.SIGNATURE),
        at("device of a control header", first, 50, Rule.SIGNATURE),
        at("version of a control header", first, 9, Rule.HEADER),
        at("signature of a control entry", first, 9 + control_header + 9, Rule.SIGNATURE, 2),
        at("nonce of the genesis", genesis, payload + 6, Rule.PAYLOAD),
        at("a certificate in the genesis", genesis, payload + 400, Rule.PAYLOAD),
        at("the last byte of the genesis", genesis, size - 1, Rule.PAYLOAD),
        at("pc of a content header", content, 5 + 4 + header - 60, Rule.SIGNATURE),
        at("signature of a content entry", content, 5 + 4 + header + 40, Rule.SIGNATURE),
        at("kf", message, 10, Rule.MESSAGE),
        at("text", message, len(parts[message][1]) - 2, Rule.MESSAGE),
        at("end", end, 0, Rule.ELEMENT),
    ]


def _mixed() -> list[Exhibit]:
    parts = elements(plain_exhibit().file())
    other = elements(other_exhibit().file())
    last = len(parts) - 1
    content = [number for number, (tag, _) in enumerate(parts) if tag == Tag.CONTENT]
    foreign = next(part for part in other if part[0] == Tag.CONTENT)
    older = [parts[1], parts[0], *parts[2:]]
    return [
        _at(
            "content of another chat",
            joined([*parts[:last], foreign, parts[last]]),
            offset_of(parts, last),
            Rule.CHAT,
        ),
        _at(
            "a control entry of another chat",
            joined([parts[0], other[0], *parts[1:]]),
            offset_of(parts, 1),
            Rule.CHAT,
        ),
        _at("older before newer", joined(older), offset_of(older, 1), Rule.ORDER),
        _at(
            "a control entry twice",
            joined([parts[0], *parts]),
            offset_of(parts, 1),
            Rule.TWICE,
        ),
        _at(
            "a content entry twice",
            joined([*parts[:last], parts[content[0]], parts[last]]),
            offset_of(parts, last),
            Rule.TWICE,
        ),
        _at(
            "a content header among control entries",
            joined([parts[0], (Tag.CONTROL, codec.encode((*bodies(parts, 2), None)))]),
            offset_of(parts, 1),
            Rule.HEADER,
        ),
        _at("without the genesis", joined([parts[0], *parts[2:]]), 16, Rule.CLOSED),
        _at(
            "content that names what is not there",
            joined(parts[1:]),
            offset_of(parts[1:], 1),
            Rule.CLOSED,
        ),
    ]


def _texts() -> list[Exhibit]:
    parts = elements(plain_exhibit().file())
    places = [number for number, (tag, _) in enumerate(parts) if tag == Tag.MESSAGE]
    first, second = places[:2]
    said = encode_message(Text("До четверга.", None))
    swapped = list(parts)
    swapped[first], swapped[second] = parts[second], parts[first]
    fields = bodies(parts, first)
    unsigned = changed(parts, first - 1, 1, None)
    long = elements(long_exhibit().file(long_exhibit().written_by(ANNA)[:1]))
    signed = [n for n, (tag, _) in enumerate(long) if tag == Tag.CONTENT and bodies(long, n)[1]]
    start = offset_of(parts, first)
    return [
        _at("another text", changed(parts, first, 1, said), start, Rule.MESSAGE),
        _at("another kf", changed(parts, first, 0, bytes(32)), start, Rule.MESSAGE),
        _at("a kf of 31 bytes", changed(parts, first, 0, bytes(31)), start, Rule.ENCODING),
        _at("two texts swapped", joined(swapped), start, Rule.MESSAGE),
        _at(
            "a text that is not canonical",
            joined([*parts[:first], (3, codec.encode(fields) + b"\x00"), *parts[first + 1 :]]),
            start,
            Rule.ENCODING,
        ),
        _at("the newest entry unsigned", unsigned, offset_of(parts, first - 1), Rule.COVER),
        _at(
            "65 entries under one signature",
            changed(long, signed[1], 1, None),
            offset_of(long, signed[1]),
            Rule.COVER,
        ),
    ]


def _lanes() -> list[Exhibit]:
    """A lane that its authors have signed, and that names nobody rightly."""
    good = elements(plain_exhibit().file())
    charter, certificate, device = BORIS.agency.charter, BORIS.certificate, BORIS.certificates[0]
    listed = (1, ANNA.agency.charter, certificate, (device,))
    twice = (1, charter, certificate, (device, device))
    found = []
    for name, field in (("another agency's", listed), ("a repeated", twice)):
        raw = _resigned(_granting(codec.encode(([field],))))
        found.append(_at(f"{name} device certificate", raw, 16, Rule.CREDENTIAL))
    stranger = Record.of(CAST, recorded_anchor)
    stranger.tell(EGOR, stranger.story.tell(EGOR, SetPolicy(OPEN_POLICY)))
    intruder = Record.of(CAST, recorded_anchor)
    intruder.people.append(EGOR)
    intruder.write(EGOR, "I was never here")
    late = Record.of(CAST, recorded_anchor)
    late.write(ANNA, "first")
    told = late.story.tell(ANNA, Admit((grant(EGOR, Role.MEMBER),)))
    late.tell(ANNA, told)
    raw = late.file()
    parts = elements(raw)
    unseen = Record.of(CAST, recorded_anchor)
    unseen.story.tell(ANNA, Admit((grant(EGOR, Role.MEMBER),)))
    del unseen.story.told[1]
    dropped = changed(good, 1, 2, None)
    return [
        *found,
        _at("an author nobody brought in", stranger.file(), 16, Rule.AUTHOR),
        _at(
            "a message by somebody nobody brought in",
            intruder.file(),
            offset_of(elements(intruder.file()), 2),
            Rule.AUTHOR,
        ),
        _at("the genesis without its payload", dropped, offset_of(good, 1), Rule.PAYLOAD),
        _at(
            "a grant without its payload",
            changed(parts, 0, 2, None),
            offset_of(parts, 0),
            Rule.PAYLOAD,
        ),
        _at("a link that is not there", unseen.file(), 16, Rule.CLOSED),
        _at("a kind that does not exist", _resigned(_of_kind(len(Kind))), 16, Rule.HEADER),
        _at("a prev of another device", _resigned(_borrowed_prev()), 16, Rule.CLOSED),
    ]


def _of_kind(kind: int) -> list[ControlPart]:
    """Return a lane whose newest entry is of this kind, rightly signed."""
    story = Record.of(CAST, recorded_anchor).story
    told = story.tell(ANNA, SetPolicy(OPEN_POLICY))
    header = encode_header(msgspec.structs.replace(told.header, kind=kind))
    signature = ANNA.signers[0].sign(SIGNATURE_LABEL, entry_id(header))
    lane = [ControlPart(one.raw, one.signature, one.payload) for one in story.told[:-1]]
    return [*lane, ControlPart(header, signature, told.payload)]


def _borrowed_prev() -> list[ControlPart]:
    """Return a lane in which boris names anna's entry as his prev; only her own covers it."""
    story = Record.of(CAST, recorded_anchor).story
    told = story.tell(ANNA, SetPolicy(OPEN_POLICY))
    device = BORIS.devices[0]
    header = encode_header(msgspec.structs.replace(told.header, device=device))
    signature = BORIS.signers[0].sign(SIGNATURE_LABEL, entry_id(header))
    lane = [ControlPart(one.raw, one.signature, one.payload) for one in story.told]
    covered = lane[-2]._replace(signature=None)
    return [*lane[:-2], covered, lane[-1], ControlPart(header, signature, told.payload)]


def _granting(payload: bytes) -> list[ControlPart]:
    """Return a lane whose newest entry is a grant with this payload, rightly signed."""
    story = Record.of(CAST, recorded_anchor).story
    told = story.tell(ANNA, Admit((grant(EGOR, Role.MEMBER),)))
    header = replace_payload(told.header, payload)
    signature = ANNA.signers[0].sign(SIGNATURE_LABEL, entry_id(header))
    lane = [ControlPart(one.raw, one.signature, one.payload) for one in story.told[:-1]]
    return [*lane, ControlPart(header, signature, payload)]


def _resigned(lane: Sequence[ControlPart]) -> bytes:
    return b"".join(write_evidence(lane, []))


def _rewritten() -> list[Exhibit]:
    """What somebody with every Ed25519 key, and no archive key of an agency, can make."""
    both = fingerprints(ANNA.agency, BORIS.agency)
    real = anchored_exhibit()
    ids = real.written_by(ANNA)
    raw = real.file(ids[:3])
    forged = anchored_exhibit(forged_anchor, "not paid")
    told = forged.file(forged.written_by(ANNA)[:3])
    none = Record.of(CAST, recorded_anchor)
    for text in ("one", "not paid", "three"):
        none.write(ANNA, text)
    unanchored = none.file()
    late = real.file(ids)
    moved = elements(late)
    checkpoint = 0
    return [
        Exhibit("rewritten, no checkpoint", unanchored, both, _first(unanchored), Rule.ANCHOR),
        _at("rewritten, an archive key of their own", told, 16, Rule.CHECKPOINT),
        _at(
            "rewritten, a checkpoint of another chat",
            anchored_exhibit(replayed_anchor, "not paid").file(),
            16,
            Rule.CHECKPOINT,
        ),
        _at(
            "rewritten, a checkpoint of another device",
            anchored_exhibit(borrowed_anchor, "not paid").file(),
            16,
            Rule.CHECKPOINT,
        ),
        _at(
            "rewritten, a checkpoint of the real history",
            _old_checkpoint(),
            16,
            Rule.CHECKPOINT,
        ),
        *_other_charter(both),
        Exhibit("after the checkpoint", late, both, _first(late), Rule.ANCHOR),
        _beside(both),
        Exhibit(
            "another fingerprint",
            raw,
            {"mz": fingerprints(BORIS.agency)["mvd"]},
            offset_of(elements(raw), 2),
            Rule.FINGERPRINT,
        ),
        Exhibit(
            "anchored by an agency without a checkpoint",
            raw,
            fingerprints(ANNA.agency),
            _first(raw),
            Rule.ANCHOR,
        ),
        _at(
            "a bit flipped: the ML-DSA signature",
            flipped(late, 16 + FRAME.size + len(moved[checkpoint][1]) - 100),
            16,
            Rule.PAYLOAD,
        ),
    ]


def _beside(both: Anchors) -> Exhibit:
    """Return two runs, of which the checkpoint covers the first."""
    first, second = sorted((ANNA, BORIS), key=lambda who: who.devices[0])
    talk = Record.of(CAST, recorded_anchor)
    talk.write(first, "covered")
    talk.checkpoint(BORIS)
    talk.write(second, "not covered")
    raw = talk.file()
    parts = elements(raw)
    last = max(number for number, (tag, _) in enumerate(parts) if tag == Tag.MESSAGE)
    return Exhibit("one run covered, the next not", raw, both, offset_of(parts, last), Rule.ANCHOR)


def _old_checkpoint() -> bytes:
    """Return a rewritten history with the real one's checkpoint, byte for byte but the place."""
    kept: dict[str, Anchor] = {}

    def keep(who: Person, place: Place, heads: Sequence[Reference]) -> Anchor:
        return kept.setdefault("first", recorded_anchor(who, place, heads))

    anchored_exhibit(keep)
    return anchored_exhibit(keep, "not paid").file()


def _other_charter(both: Anchors) -> list[Exhibit]:
    """Return a history under charters that name the thief's archive key."""
    digest = archive_digest(THIEF.public)

    def under(who: Person) -> Person:
        at = who.agency
        charter = sign_charter(at.root, 1, at.name, at.zone, at.registrar.public, digest)
        return replace(who, agency=replace(at, charter=charter))

    anna, boris = under(ANNA), under(BORIS)
    talk = Record.of(((anna, Role.OWNER), (boris, Role.MEMBER)), forged_anchor)
    talk.write(anna, "not paid")
    talk.checkpoint(boris)
    raw = talk.file()
    genesis = offset_of(elements(raw), 2)
    return [
        Exhibit("rewritten, under other charters", raw, both, genesis, Rule.FINGERPRINT),
        Exhibit("the same, and nobody compared", raw, {}, None, None),
    ]


def _first(raw: bytes) -> int:
    """Return where the first message begins."""
    parts = elements(raw)
    return offset_of(parts, [tag for tag, _ in parts].index(Tag.MESSAGE))


def exhibits() -> list[Exhibit]:
    """All files, in the order of the index."""
    return [*right(), *wrong()]


def file_name(exhibit: Exhibit) -> str:
    """Return under which name it is kept."""
    return re.sub(r"[^a-z0-9]+", "-", exhibit.name.lower()).strip("-") + ".evidence"


def case(exhibit: Exhibit) -> Case:
    """Return its line in the index."""
    told: dict[str, Value] = {
        "name": exhibit.name,
        "file": file_name(exhibit),
        "anchors": dict(exhibit.anchors),
    }
    if exhibit.rule is not None:
        told |= {"offset": exhibit.offset, "rule": str(exhibit.rule)}
    else:
        told["result"] = result(exhibit)
    return {name: as_json(one) for name, one in told.items()}


def result(exhibit: Exhibit) -> Value:
    """Return what a right file shows."""
    found = check(exhibit.raw, exhibit.anchors)
    return {
        "chat": found.chat,
        "agencies": {one.name: one.fingerprint for one in found.charters},
        "statements": [
            {
                "id": one.id,
                "device": one.header.device,
                "seq": one.header.seq,
                "user": one.author.user,
                "agency": one.author.agency,
                "m": one.plaintext,
                "checkpoints": one.checkpoints,
            }
            for one in found.statements
        ],
    }


def index() -> str:
    """Return the whole index."""
    lines = ",\n".join(json.dumps(case(one), ensure_ascii=False) for one in exhibits())
    return f'{{"spec": "5.10", "cases": [\n{lines}\n]}}\n'


def write() -> None:
    """Write all files and their index, and remove what is no longer made."""
    made = {file_name(one): one.raw for one in exhibits()}
    FILES.mkdir(exist_ok=True)
    for path in FILES.iterdir():
        if path.name not in made:
            path.unlink()
    for name, raw in made.items():
        (FILES / name).write_bytes(raw)
    (FILES / "index.json").write_text(index())
