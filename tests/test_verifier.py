"""The verifier of `verifiers/`, in JavaScript and from SPEC alone, against the one in `protocol`.

Each test starts one process of Node, whatever number of files it looks at.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from crypto.archival import ArchivalSigner
from crypto.errors import BadSignature
from crypto.labels import PREFIX
from crypto.signing import verify_raw
from protocol import codec
from protocol.entry import SIGNATURE_LABEL, decode_header, entry_id
from protocol.evidence import EvidenceRefused, check
from protocol.exhibit import MAGIC, Tag
from protocol.identity import verify_charter
from protocol.operation import Admit, Enroll
from protocol.policy import Role
from protocol.testing.cast import credential, grant, person, seed
from protocol.testing.exhibits import Record
from protocol.testing.histories import Dice
from tests import vectors_evidence as evidence
from tests import vectors_exhibits as exhibits
from tests.by_hand import FIELD, ORDER, ORDER_8, TORSION, sign_by_hand, times_base, with_torsion
from tests.signing import tool
from tests.vectors import Case, Json, as_json
from tests.vectors_exhibits import Element

ROOT = Path(__file__).parent.parent
VERIFIER = ROOT / "verifiers" / "evidence.mjs"

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mvd"), person("clara@fns")
PEOPLE = (ANNA, BORIS, CLARA)
FILES_RANDOM = 12
CHANGES_EACH = 12  # of each sort, to each random file


def node(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    command = [tool("node", "nodejs"), *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def judged_by_node(index: Path) -> list[Json]:
    """What the verifier says of each file of an index, in the words of the index."""
    done = node(str(VERIFIER), "--index", str(index))
    assert done.returncode == 0, done.stderr
    return [in_words_of_the_index(json.loads(line)) for line in done.stdout.splitlines()]


def in_words_of_the_index(said: dict[str, Json]) -> Json:
    if "rule" in said:
        return [said["offset"], said["rule"]]
    agencies, statements = said["agencies"], said["statements"]
    assert isinstance(agencies, list)
    assert isinstance(statements, list)
    for one in statements:
        assert isinstance(one, dict)
        del one["name"]
    named = {str(one["name"]): one["fingerprint"] for one in agencies if isinstance(one, dict)}
    return {"chat": said["chat"], "agencies": named, "statements": statements}


def judged_here(raw: bytes, anchors: Mapping[str, str]) -> Json:
    try:
        check(raw, anchors)
    except EvidenceRefused as refused:
        return [refused.offset, str(refused.rule)]
    return as_json(evidence.result(exhibits.Exhibit("", raw, anchors, None, None)))


def test_it_agrees_on_all_vectors() -> None:
    index = evidence.FILES / "index.json"
    cases: list[Case] = json.loads(index.read_text())["cases"]
    wanted = [
        case["result"] if "result" in case else [case["offset"], case["rule"]] for case in cases
    ]
    assert judged_by_node(index) == wanted


class Sample(NamedTuple):
    raw: bytes
    anchors: Mapping[str, str]


@cache
def random_records() -> list[Record]:
    """Chats in which people come in by grants, enrolments and decisions, write and checkpoint."""
    found = []
    for number in range(FILES_RANDOM):
        dice = Dice(number)
        talk = Record.of(((ANNA, Role.OWNER), (BORIS, Role.MEMBER)))
        talk.tell(ANNA, talk.story.tell(ANNA, Enroll(credential(ANNA, (1,)))))
        admission = Admit((grant(CLARA, Role.MEMBER),))
        decided = talk.story.quorum(ANNA, (admission,), ()) if dice.flip(2) else admission
        talk.tell(ANNA, talk.story.tell(ANNA, decided))
        talk.people.append(CLARA)
        talk.start_epoch(BORIS)
        for text in range(6):
            if dice.flip(3):
                talk.checkpoint(dice.pick(PEOPLE))
            talk.write(dice.pick(PEOPLE), f"text {text};")
        found.append(talk)
    return found


def signed_anew(header: bytes, device: bytes) -> bytes | None:
    """The signature of a header by the device that made it before it was changed."""
    for who in PEOPLE:
        for key, signer in zip(who.devices, who.signers, strict=False):
            if key == device:
                return signer.sign(SIGNATURE_LABEL, entry_id(header))
    return None


def with_other_payload(talk: Record, dice: Dice) -> bytes:
    """One bit of a payload changed, and its entry signed anew: what only its author can do."""
    parts = exhibits.elements(talk.file())
    number = dice.pick(range(len(talk.story.told)))
    told = talk.story.told[-1 - number]
    at = dice.pick(range(len(told.payload)))
    payload = exhibits.flipped(told.payload, at, dice.pick(range(8)))
    header = exhibits.replace_payload(told.header, payload)
    signature = signed_anew(header, told.header.device)
    return exhibits.joined(
        [*parts[:number], control(header, signature, payload), *parts[number + 1 :]]
    )


def with_other_header(talk: Record, dice: Dice) -> bytes:
    """One bit of a header changed, and the entry signed anew."""
    parts = exhibits.elements(talk.file())
    entries = [number for number, (tag, _) in enumerate(parts) if tag in {Tag.CONTROL, Tag.CONTENT}]
    number = dice.pick(entries)
    tag, _ = parts[number]
    fields = exhibits.bodies(parts, number)
    header = fields[0]
    assert header is not None
    device = decode_header(header).device
    other = exhibits.flipped(header, dice.pick(range(len(header))), dice.pick(range(8)))
    fields[:2] = [other, signed_anew(other, device)]
    return exhibits.joined([*parts[:number], (tag, codec.encode(fields)), *parts[number + 1 :]])


def control(header: bytes, signature: bytes | None, payload: bytes) -> Element:
    return (Tag.CONTROL, codec.encode((header, signature, payload)))


def with_elements_moved(raw: bytes, dice: Dice) -> bytes:
    """An element left out, put elsewhere, twice, or without its signature."""
    parts = exhibits.elements(raw)
    number, other = dice.pick(range(len(parts))), dice.pick(range(len(parts)))
    rest = [*parts[:number], *parts[number + 1 :]]
    unsigned = parts[number]
    if unsigned[0] in {Tag.CONTROL, Tag.CONTENT}:
        fields = exhibits.bodies(parts, number)
        fields[1] = None
        unsigned = (unsigned[0], codec.encode(fields))
    return exhibits.joined(
        dice.pick(
            (
                rest,
                [*rest[:other], parts[number], *rest[other:]],
                [*parts[:other], parts[number], *parts[other:]],
                [*parts[:number], unsigned, *parts[number + 1 :]],
            )
        )
    )


def random_samples() -> Iterator[Sample]:
    fingerprint = verify_charter(BORIS.agency.charter).fingerprint
    for number, talk in enumerate(random_records()):
        dice = Dice(number)
        raw = talk.file()
        yield Sample(raw, {})
        yield Sample(raw, {"mvd": fingerprint.lower()})
        yield Sample(raw, {"mz": fingerprint})
        for _ in range(CHANGES_EACH):
            at = dice.pick(range(len(raw)))
            yield Sample(raw[:at], {})
            yield Sample(exhibits.flipped(raw, at, dice.pick(range(8))), {})
            yield Sample(with_other_payload(talk, dice), {})
            yield Sample(with_other_header(talk, dice), {})
            yield Sample(with_elements_moved(raw, dice), {})


def test_it_agrees_on_random_files_and_what_is_made_of_them(tmp_path: Path) -> None:
    samples = [*random_samples(), Sample(b"", {}), Sample(MAGIC, {})]
    cases = []
    for number, (raw, anchors) in enumerate(samples):
        name = f"{number}.evidence"
        (tmp_path / name).write_bytes(raw)
        cases.append({"file": name, "anchors": anchors})
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"cases": cases}))
    wanted = [judged_here(*one) for one in samples]
    assert judged_by_node(index) == wanted
    rules = {str(one[1]) for one in wanted if isinstance(one, list)}
    assert rules >= {"encoding", "header", "cover", "credential", "checkpoint", "closed", "anchor"}


class Signed(NamedTuple):
    key: bytes
    message: bytes
    signature: bytes


def accepted_by_node(function: str, module: str, signed: Sequence[Signed]) -> list[bool]:
    script = f"""
        import {{ {function} as verify }} from './verifiers/{module}';
        import {{ readFileSync }} from 'node:fs';
        const bytes = (text) => Buffer.from(text, 'hex');
        const cases = JSON.parse(readFileSync(0)).map((one) => one.map(bytes));
        console.log(JSON.stringify(cases.map((one) => verify(...one))));
    """
    given = json.dumps([[part.hex() for part in one] for one in signed])
    done = node("--input-type=module", "-e", script, given=given)
    assert done.returncode == 0, done.stderr
    found: list[bool] = json.loads(done.stdout)
    return found


def test_ml_dsa_65() -> None:
    right, wrong = [], []
    dice = Dice(0)
    for number in range(8):
        signer = ArchivalSigner(seed("verifier", str(number)))
        message = bytes(number * 31)
        signature = signer.sign("checkpoint", message)
        one = Signed(signer.public, PREFIX + b"checkpoint" + message, signature)
        right.append(one)
        bit = dice.pick(range(8))
        for part in (range(48), range(48, 3248), range(3248, 3309)):
            changed = exhibits.flipped(signature, dice.pick(part), bit)
            wrong += [one._replace(signature=changed)]
        at = dice.pick(range(len(one.key)))
        wrong.append(one._replace(key=exhibits.flipped(one.key, at, bit)))
        wrong.append(one._replace(message=one.message + b"\0"))
        swapped = signature[:3248] + signature[3249:3247:-1] + signature[3250:]
        for other in (signature[:-1], signature + b"\0", swapped):
            wrong += [one._replace(signature=other)]
    found = accepted_by_node("verifyMlDsa65", "mldsa.mjs", [*right, *wrong])
    assert found == [True] * len(right) + [False] * len(wrong)


def signed_by_hand(secret: int, key: bytes, point: bytes, nonce: int, message: bytes) -> Signed:
    return Signed(key, message, sign_by_hand(secret, key, point, nonce, message))


def corner_cases() -> Iterator[Signed]:
    """Keys and points of small order, not canonical, or with a part of small order; S ≥ L."""
    secret, nonce = 2**200 + 5, 2**199 + 7
    key, point = times_base(secret), times_base(nonce)
    encodings = [
        y | sign << 255 for y in (0, 1, ORDER_8, FIELD - ORDER_8, FIELD - 1) for sign in (0, 1)
    ]
    encodings += [FIELD + y | sign << 255 for y in range(19) for sign in (0, 1)]
    for message in (b"", b"one", b"two"):
        plain = signed_by_hand(secret, key, point, nonce, message)
        total = int.from_bytes(plain.signature[32:], "little")
        yield plain
        for more in (ORDER, 2 * ORDER, 2**252):
            yield plain._replace(signature=point + (total + more).to_bytes(32, "little"))
        for encoding in encodings:
            odd = encoding.to_bytes(32, "little")
            yield signed_by_hand(0, odd, point, nonce, message)
            yield signed_by_hand(secret, key, odd, 0, message)
    mixed = with_torsion(key)
    yield signed_by_hand(secret, key, with_torsion(point), nonce, b"mixed R")
    for number in range(32):
        yield signed_by_hand(secret, mixed, point, nonce, f"mixed {number}".encode())
        yield signed_by_hand(0, TORSION, point, nonce, f"small {number}".encode())


def accepted_by_libsodium(signed: Signed) -> bool:
    try:
        verify_raw(*signed)
    except BadSignature:
        return False
    return True


def test_ed25519_is_libsodium_s_in_every_corner() -> None:
    cases = list(corner_cases())
    wanted = [accepted_by_libsodium(one) for one in cases]
    assert 4 <= sum(wanted) < len(wanted) / 2
    assert accepted_by_node("verifyEd25519", "evidence.mjs", cases) == wanted


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["three-messages.evidence"], 0, "Коллеги"),
        (["three-messages.evidence", "--json"], 0, '"statements":'),
        (["a-trailing-byte.evidence"], 7, "byte 4664: trailing"),
        (["a-trailing-byte.evidence", "--json"], 7, '{"v":1,"offset":4664,"rule":"trailing"}'),
        (["another-fingerprint.evidence", "--fingerprint", "mz=6KFH"], 7, "fingerprint"),
        (["three-messages.evidence", "--fingerprint", "mz"], 2, "usage"),
        (["nowhere.evidence"], 1, "nowhere.evidence"),
        ([], 2, "usage"),
    ],
)
def test_the_command(arguments: list[str], code: int, told: str) -> None:
    files = [str(evidence.FILES / one) for one in arguments[:1]]
    done = node(str(VERIFIER), *files, *arguments[1:])
    assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done
