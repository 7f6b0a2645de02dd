"""SPEC 5.5: what a message says."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import Value, encode
from protocol.disclosure import Disclosed, Share
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.errors import LimitExceeded, NotCanonical, PeerError
from protocol.identity import UserId
from protocol.limits import SEQ_MAX, TEXT_BYTES_MAX
from protocol.message import (
    REACTION_BYTES_MAX,
    TITLE_BYTES_MAX,
    Edit,
    Message,
    Reaction,
    Text,
    Title,
    decode_message,
    encode_message,
)
from protocol.operation import Leave, Remove, Revoke, UserSignature
from protocol.payload import encode_operation
from protocol.proposal import Consent, Proposal

REFERENCES = st.builds(
    Reference,
    st.binary(min_size=32, max_size=32).map(DeviceKey),
    st.integers(0, SEQ_MAX),
    st.binary(min_size=32, max_size=32).map(EntryId),
)
WORDS = st.text(min_size=1, max_size=60)
KEYS = st.binary(min_size=32, max_size=32)
OPERATIONS = st.lists(KEYS, min_size=1, max_size=4, unique=True).map(
    lambda users: tuple(Remove(UserId(user), ()) for user in users)
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Proposal, st.integers(0, SEQ_MAX), OPERATIONS),
    st.builds(Consent, REFERENCES, st.binary(min_size=64, max_size=64)),
    st.builds(Text, WORDS, st.none() | REFERENCES),
    st.builds(Title, WORDS),
    st.builds(Reaction, REFERENCES, st.text(max_size=8)),
    st.builds(Edit, REFERENCES, WORDS),
)
TARGET = Reference(DeviceKey(bytes(32)), 7, EntryId(bytes(32)))


def test_what_nobody_may_decide_is_no_proposal() -> None:
    """A leave, a decision twice, none at all, a user's own proof: as in a quorum."""
    twice = ((2, encode_operation(Remove(UserId(bytes(32)), ()))),) * 2
    proof = UserSignature(UserId(bytes(32)), bytes(64))
    revoke = encode_operation(Revoke(DeviceKey(bytes(32)), None, proof, ()))
    for decisions in ((), twice, ((9, encode_operation(Leave())),), ((5, revoke),)):
        with pytest.raises(PeerError):
            decode_message(encode((4, 1, decisions)))


@given(MESSAGES)
def test_a_message_reads_back(message: Message) -> None:
    """decode(encode(m)) = m, and the encoding is canonical."""
    raw = encode_message(message)
    assert decode_message(raw) == message
    assert encode_message(decode_message(raw)) == raw


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused_with_a_typed_error(raw: bytes) -> None:
    with suppress(PeerError):
        assert encode_message(decode_message(raw)) == raw


@pytest.mark.parametrize(
    "message",
    [
        Text("a" * (TEXT_BYTES_MAX + 1), None),
        Text("я" * (TEXT_BYTES_MAX // 2 + 1), None),
        Title("a" * (TITLE_BYTES_MAX + 1)),
        Reaction(TARGET, "a" * (REACTION_BYTES_MAX + 1)),
        Edit(TARGET, "a" * (TEXT_BYTES_MAX + 1)),
    ],
)
def test_length_is_limited_in_bytes(message: Message) -> None:
    with pytest.raises(LimitExceeded):
        encode_message(message)


def test_the_longest_text_fits() -> None:
    longest = Text("a" * TEXT_BYTES_MAX, TARGET)
    assert decode_message(encode_message(longest)) == longest


@pytest.mark.parametrize("message", [Text("", None), Title(""), Edit(TARGET, ""), Title("\ud800")])
def test_empty_and_unencodable_texts_are_refused(message: Message) -> None:
    with pytest.raises(NotCanonical):
        encode_message(message)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (10, b"x"),
        (0, b"x"),
        (0, b"x", None, None),
        (1, b""),
        (1, b"\xff"),
        (1, 5),
        (b"\x00", b"x"),
        (2, None, b"x"),
        (2, (bytes(32), 1), b"x"),
        (3, (bytes(31), 1, bytes(32)), b"x"),
        (0, b"x", (bytes(32), None, bytes(32))),
    ],
)
def test_what_is_no_message_is_refused(fields: tuple[Value, ...]) -> None:
    with pytest.raises(NotCanonical):
        decode_message(encode(fields))


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        decode_message(encode((1, bytes(TITLE_BYTES_MAX + 1))))
    with pytest.raises(LimitExceeded):
        decode_message(encode((2, (bytes(32), SEQ_MAX + 1, bytes(32)), b"x")))


def test_what_a_share_may_weigh() -> None:
    """Each message counts with 80 bytes more (SPEC 5.5)."""
    small = Disclosed(EntryId(bytes(32)), b"", bytes(32))
    full = Share((small, Disclosed(EntryId(bytes(32)), bytes(TEXT_BYTES_MAX - 160), bytes(32))))
    assert decode_message(encode_message(full)) == full
    letters = [(one.entry, one.plaintext, one.frank) for one in (*full.letters, small)]
    for wrong, error in ((letters, LimitExceeded), ([], NotCanonical)):
        with pytest.raises(error):
            decode_message(encode((10, wrong)))
