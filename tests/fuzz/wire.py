"""What comes over the wire: frames, headers, runs, operations, messages, questions, answers."""

from collections.abc import Iterator
from typing import Final

import msgspec

from crypto.signing import Signer
from protocol.entry import (
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    Header,
    decode_header,
    encode_header,
    header_before_commitment,
)
from protocol.errors import Inadmissible, LimitExceeded, NotCanonical, Unauthentic, Untrusted
from protocol.frame import LENGTH_BYTES, Frame, Run, decode_frame, encode_frame
from protocol.limits import COVER_ENTRIES_MAX, SEQ_MAX
from protocol.message import Message, decode_message, encode_message
from protocol.operation import Operation, kind_of
from protocol.payload import decode_operation, encode_operation
from protocol.question import Question, decode_question, encode_question
from protocol.reply import Reply, decode_answer, encode_answer
from protocol.run import START, Entry, context_after, pack, rebuild, unpack
from protocol.testing.cast import person, seed
from protocol.testing.chains import signer
from protocol.topic import Topic
from tests.fuzz.mutation import after, tree
from tests.fuzz.seeds import SEED_BYTES_MAX, cases, number, plain, raw, raws
from tests.fuzz.target import target

_MALFORMED = (NotCanonical, LimitExceeded)
_KEYS = {
    one.public: one
    for one in (signer("anna"), signer("boris"), *person("anna@mz").signers, Signer(seed("device")))
}
_CHAT = ChatId(seed("chat"))
RUN = 3  # the tag of the frame
_TOPICS = list(Topic)


# Frames


def _frame_law(_: bytes, frame: Frame) -> None:
    """Frames need not be canonical, so only what we write ourselves comes back as it was."""
    ours = encode_frame(frame)
    assert encode_frame(decode_frame(ours[LENGTH_BYTES:])) == ours


def _frames() -> Iterator[bytes]:
    for whole in raws("frames", "raw"):
        yield whole[LENGTH_BYTES:]


# Headers


def _header_law(data: bytes, header: Header) -> None:
    assert encode_header(header) == data
    if isinstance(header, ContentHeader):
        assert data.startswith(header_before_commitment(header))


# Runs


def _read_run(data: bytes) -> tuple[Run, list[Entry]] | None:
    """Rebuild what a run claims, and verify it; what is not signed by anybody we sign ourselves."""
    run = decode_frame(data)
    if not isinstance(run, Run) or run.start + len(run.records) - 1 > SEQ_MAX:
        return None
    place = run.chat, run.device, run.lane, run.start, run.prev, run.context, run.records
    try:
        return run, unpack(*place, dict(run.signatures))
    except Unauthentic:
        key = _KEYS.get(run.device)
        if key is None:
            raise
        entries = rebuild(*place)
        marks = range(min(COVER_ENTRIES_MAX, len(entries)) - 1, len(entries), COVER_ENTRIES_MAX)
        signed = {
            at: key.sign(SIGNATURE_LABEL, entries[at].id) for at in (*marks, len(entries) - 1)
        }
        opened = unpack(*place, signed)
        assert len(opened) == len(entries), "a signature in each 64 entries covers them all"
        return run, opened


def _run_law(_: bytes, found: tuple[Run, list[Entry]] | None) -> None:
    """What a record says is said in one way: packing its entry again gives the same bytes."""
    if found is None:
        return
    run, entries = found
    before = run.context or START
    prev = run.prev
    for seq, entry in enumerate(entries, run.start):
        header = entry.header
        assert (header.seq, header.prev, header.device) == (seq, prev, run.device)
        assert decode_header(encode_header(header)) == header
        payload = entry.payload if entry.ground is None else entry.ground
        assert payload is not None
        assert pack(header, payload, before) == entry.record
        before, prev = context_after(header), entry.id
    assert entries[-1].signature is not None


def _runs() -> Iterator[bytes]:
    names = ("chat", "device", "lane", "start", "prev", "context", "records", "signatures")
    for case in cases("runs"):
        *fields, records, signatures = [plain(case[name]) for name in names]
        assert isinstance(records, list)
        body = [RUN, *fields, [msgspec.Raw(record) for record in records], signatures]
        yield msgspec.msgpack.encode(body)


# Operations, messages, questions, answers: what decodes is canonical, so encodes to the same bytes


def _read_operation(data: bytes) -> Operation:
    return decode_operation(data[0] if data else 0, data[1:], _CHAT)


def _operation_law(data: bytes, operation: Operation) -> None:
    assert bytes([kind_of(operation)]) + encode_operation(operation) == data


def _operations() -> Iterator[bytes]:
    for case in cases("operations"):
        kind = number(case["kind"])
        if kind < 256:
            yield bytes([kind]) + raw(case["payload"])


def _message_law(data: bytes, message: Message) -> None:
    assert encode_message(message) == data


def _topic(data: bytes) -> Topic:
    return _TOPICS[(data[0] if data else 0) % len(_TOPICS)]


def _read_question(data: bytes) -> Question:
    return decode_question(_topic(data), data[1:])


def _question_law(data: bytes, question: Question) -> None:
    assert encode_question(question) == (_topic(data), data[1:])


def _questions() -> Iterator[bytes]:
    for case in cases("questions"):
        yield bytes([number(case["topic"])]) + raw(case["body"])


def _read_answer(data: bytes) -> Reply:
    return decode_answer(_topic(data), 0, data[1:])


def _answer_law(data: bytes, reply: Reply) -> None:
    assert encode_answer(reply) == data[1:]


def _answers() -> Iterator[bytes]:
    for case in cases("answers"):
        body = raw(case["body"])
        if not number(case["code"]) and len(body) <= SEED_BYTES_MAX:
            yield bytes([number(case["topic"])]) + body


TARGETS: Final = {
    "frames": target(decode_frame, _frame_law, (NotCanonical,), _frames, tree),
    "headers": target(
        decode_header, _header_law, _MALFORMED, lambda: raws("entries", "header"), tree
    ),
    "runs": target(_read_run, _run_law, (*_MALFORMED, Unauthentic), _runs, tree),
    "operations": target(
        _read_operation,
        _operation_law,
        (*_MALFORMED, Unauthentic, Untrusted, Inadmissible),
        _operations,
        after(1, tree),
    ),
    "messages": target(
        decode_message, _message_law, _MALFORMED, lambda: raws("messages", "m"), tree
    ),
    "questions": target(
        _read_question, _question_law, (*_MALFORMED, Untrusted), _questions, after(1, tree)
    ),
    "answers": target(_read_answer, _answer_law, _MALFORMED, _answers, after(1, tree)),
}
