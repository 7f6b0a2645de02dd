"""SPEC 5.3: one line of text that lets a device in."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.labels import digest
from crypto.signing import Signer
from protocol.armour import armour, dearmour
from protocol.codec import Value, encode
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Untrusted
from protocol.identity import CardNode, NodeId, sign_card, sign_charter, verify_card
from protocol.invitation import (
    INVITATION_CHARS_MAX,
    PREFIX,
    Invitation,
    Purpose,
    decode_invitation,
    encode_invitation,
)

ROOT = Signer(bytes(32))
CHARTER = sign_charter(ROOT, 1, "minzdrav", "RU-UDM", ROOT.public, bytes(32))
NODES = (CardNode(NodeId(b"n" * 32), ("node.example:7340",)),)
CARD = verify_card(sign_card(ROOT, CHARTER, b"ca", NODES, 1))
INVITATION = Invitation(
    CARD, b"t" * 16, Purpose.FIRST_DEVICE, "anna", 5000, b"certificate", b"private"
)
TEXT = encode_invitation(INVITATION)


def line(*fields: Value) -> str:
    """Write an invitation with a correct sum and whatever fields."""
    body = encode(fields)
    return PREFIX + base64.urlsafe_b64encode(body + digest("invitation", body)[:4]).decode()


@given(
    st.binary(min_size=16, max_size=16),
    st.sampled_from(Purpose),
    st.sampled_from(("anna", "анна")),
    st.integers(0, 2**53 - 1),
    st.binary(max_size=300),
)
def test_an_invitation_reads_back(
    ticket: bytes, purpose: Purpose, name: str, expires: int, blob: bytes
) -> None:
    made = Invitation(CARD, ticket, purpose, name, expires, blob, blob)
    assert decode_invitation(encode_invitation(made)) == made


def test_it_is_one_word_that_hides_nothing_in_a_log() -> None:
    assert TEXT.startswith("ivor1.")
    assert TEXT.isascii()
    assert not set(TEXT) & set(" =+/\n")
    assert b"private".hex() not in repr(INVITATION)
    assert "private" not in repr(INVITATION)
    assert "tttt" not in repr(INVITATION)


def test_copying_may_add_space() -> None:
    broken = "\r\n  ".join(TEXT[at : at + 40] for at in range(0, len(TEXT), 40))
    assert decode_invitation(f"  {broken}\n") == INVITATION


@given(st.integers(len(PREFIX), len(TEXT) - 1), st.sampled_from("abcXYZ019-_!"))
def test_one_wrong_character_is_found(at: int, character: str) -> None:
    damaged = TEXT[:at] + character + TEXT[at + 1 :]
    try:
        assert decode_invitation(damaged) == INVITATION
        # base64 leaves bits of its last character unused.
        assert damaged == TEXT or at == len(TEXT) - 1
    except NotCanonical as error:
        assert "damaged" in str(error)  # noqa: PT017 - some changes change nothing


@given(st.integers(0, len(TEXT) - 1))
def test_a_cut_invitation_is_found(size: int) -> None:
    with pytest.raises(NotCanonical):
        decode_invitation(TEXT[:size])


def test_another_version_says_so() -> None:
    with pytest.raises(NotCanonical, match=r"begins with ivor1\."):
        decode_invitation("ivor2." + TEXT[6:])
    with pytest.raises(NotCanonical, match="version 2"):
        decode_invitation(line(2, CARD.raw, b"t" * 16, 0, b"anna", 1, b"", b""))


def test_an_altered_card_says_so() -> None:
    altered = CARD.raw.replace(b"node.example", b"evil.example")
    with pytest.raises(Untrusted, match="card is not signed"):
        decode_invitation(line(1, altered, b"t" * 16, 0, b"anna", 1, b"", b""))


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (1, CARD.raw, b"t" * 15, 0, b"anna", 1, b"", b""),
        (1, CARD.raw, b"t" * 16, 3, b"anna", 1, b"", b""),
        (1, CARD.raw, b"t" * 16, 0, b"Anna", 1, b"", b""),
        (1, CARD.raw, b"t" * 16, 0, b"anna", None, b"", b""),
        (1, CARD.raw, b"t" * 16, 0, b"anna", 1, b"", bytes(600)),
        (1, CARD.raw, b"t" * 16, 0, b"anna", 1, b""),
    ],
)
def test_fields_out_of_form_are_refused(fields: tuple[Value, ...]) -> None:
    with pytest.raises(PeerError):
        decode_invitation(line(*fields))


def test_length_is_limited() -> None:
    with pytest.raises(LimitExceeded):
        decode_invitation("ivor1." + "a" * INVITATION_CHARS_MAX)


class TestArmour:
    @given(st.binary(max_size=300))
    def test_a_block_reads_back_from_within_a_letter(self, body: bytes) -> None:
        text = armour("CARD", body)
        letter = "Our card:\r\n" + text.replace("\n", "\r\n") + "Regards"
        assert dearmour("CARD", text, 300) == dearmour("CARD", letter, 300) == body

    @pytest.mark.parametrize(
        "text", ["", armour("KEY", b"x"), armour("CARD", b"x")[:-20], armour("CARD", b"x")[3:]]
    )
    def test_another_kind_or_a_cut_block(self, text: str) -> None:
        with pytest.raises(NotCanonical, match="no block"):
            dearmour("CARD", text, 300)

    def test_damage_and_length(self) -> None:
        with pytest.raises(NotCanonical, match="damaged"):
            dearmour("CARD", armour("CARD", b"abcd").replace("YW", "Y*"), 300)
        with pytest.raises(LimitExceeded):
            dearmour("CARD", armour("CARD", bytes(5000)), 300)
