"""SPEC 5.5: signature requests, signatures and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.approval import (
    FILE_SIZE_MAX,
    Document,
    FileSignature,
    Revision,
    SignatureRefusal,
    SignatureRequest,
    Version,
)
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.errors import LimitExceeded, NotCanonical, PeerError
from protocol.identity import UserId
from protocol.message import Message, decode_message, encode_message

DIGESTS = st.binary(min_size=32, max_size=32)
TARGET = Reference(DeviceKey(bytes(32)), 7, EntryId(bytes(32)))
NAMES = st.from_regex(r"[a-zа-я][a-zа-я0-9 .,()-]{1,40}_[a-z]", fullmatch=True)
SIZES = st.integers(0, FILE_SIZE_MAX - 1)
DOCUMENTS = st.builds(
    Document, DIGESTS, SIZES, NAMES, st.sampled_from(["application/pdf", "text/x-a.b+c"])
)
REVISIONS = st.builds(
    lambda digest, size, more: Revision(
        Version(digest, size), Version(digest[::-1], min(size + more, FILE_SIZE_MAX))
    ),
    DIGESTS,
    SIZES,
    st.integers(1, 10**6),
)
ACTS: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        SignatureRequest,
        DOCUMENTS,
        st.sets(DIGESTS.map(UserId), max_size=4).map(lambda found: tuple(sorted(found))),
        st.text(max_size=40),
    ),
    st.builds(
        FileSignature,
        st.just(TARGET),
        DIGESTS,
        st.binary(max_size=80),
        st.none() | REVISIONS,
    ),
    st.builds(SignatureRefusal, st.just(TARGET), DIGESTS, st.text(max_size=40)),
)


@given(ACTS)
def test_reads_back(message: Message) -> None:
    raw = encode_message(message)
    assert decode_message(raw) == message


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (SignatureRequest(Document(bytes(32), 1, "a/b", "text/plain"), (), ""), NotCanonical),
        (SignatureRequest(Document(bytes(32), 1, "a", "text"), (), ""), NotCanonical),
        (SignatureRequest(Document(bytes(31), 1, "a", "text/plain"), (), ""), NotCanonical),
        (SignatureRequest(Document(bytes(32), 1, "\ud800", "text/plain"), (), ""), NotCanonical),
        (SignatureRequest(Document(bytes(32), 1, "a", "text/plain"), (), "\ud800"), NotCanonical),
        (FileSignature(TARGET, bytes(32), bytes(16_385), None), LimitExceeded),
        (SignatureRefusal(TARGET, bytes(32), "я" * 513), LimitExceeded),
    ],
)
def test_what_may_not_be_sent_is_not_encoded(message: Message, error: type[PeerError]) -> None:
    with pytest.raises(error):
        encode_message(message)
