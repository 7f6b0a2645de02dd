"""How the vectors of admission are checked: entries one by one, as a node judges them."""

from protocol.chat import Admission, Chat
from protocol.entry import (
    ChatId,
    check_payload,
    check_signature,
    decode_header,
    entry_id,
)
from protocol.run import Entry
from protocol.testing.network import Kept, Line
from tests.vector_inputs import Inputs, as_reference
from tests.vectors import Value


def check_admission(case: Inputs) -> Value:
    """Admit all entries but the last, then say what becomes of that. Raises its refusal."""
    kept = Kept(Chat(ChatId(case.raw("chat"))))
    *before, last = map(as_entry, case.each("entries"))
    for entry in before:
        judged = _judged(kept, entry)
        assert not judged.missing
        assert judged.refusal is None
    judged = _judged(kept, last)
    if judged.refusal is not None:
        raise judged.refusal
    if judged.missing:
        return {"missing": [[i.device, i.lane, i.seq, i.id] for i in judged.missing]}
    return {"admitted": len(judged.entries)}


def as_entry(one: Inputs) -> Entry:
    """Read an entry; content may come without its payload, with a ground."""
    raw, signature = one.raw("header"), one.raw("signature")
    header, entry = decode_header(raw), entry_id(raw)
    assert entry == one.raw("id")
    check_signature(header.device, entry, signature)
    payload = one.maybe("payload")
    if payload is None:
        return Entry(header, entry, b"", None, signature, as_reference(one.items("ground")))
    check_payload(header, payload)
    return Entry(header, entry, b"", payload, signature)


def _judged(kept: Kept, entry: Entry) -> Admission:
    judged = kept.chat.admit([entry], kept)
    if judged.entries:
        place = entry.header.device, entry.header.lane
        kept.lines.setdefault(place, [Line([])])[0].entries.append(entry)
    return judged
