"""SPEC 2.1 to 2.3: headers, ids, signatures, payloads."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import entry
from protocol.codec import decode
from protocol.entry import ChatId, ContentHeader, ControlHeader, DeviceKey, EntryId, Reference
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic
from protocol.limits import HEADER_BYTES_MAX, LINKS_MAX, PAYLOAD_BYTES_MAX, SEQ_MAX, TIME_MS_MAX
from protocol.testing.chains import CHAT, HASHES, HEADS, Chain, Made, Step, chains, signer

HEADERS = chains().map(lambda chain: chain.entries[-1].header)
SEEN = Reference(DeviceKey(b"c" * 32), 3, EntryId(b"i" * 32))
CONTENT = Chain(signer("anna"), CHAT, entry.CONTENT).add(Step(b"hello", control=(SEEN,)))
CONTROL = Chain(signer("anna"), CHAT, entry.CONTROL).add(Step(b"hello", kind=7))


def fields(header: entry.Header) -> list[object]:
    return list(decode(entry.encode_header(header), HEADER_BYTES_MAX))


class TestHeader:
    @given(HEADERS)
    def test_round_trip(self, header: entry.Header) -> None:
        """Decode ∘ encode is the identity, and `codec` takes the bytes as canonical."""
        raw = entry.encode_header(header)
        assert entry.decode_header(raw) == header
        assert len(decode(raw, HEADER_BYTES_MAX)) == (11, 15)[header.lane]

    @given(HEADERS, st.data())
    def test_any_bit_flipped(self, header: entry.Header, data: st.DataObject) -> None:
        """Case 14: another id, always; and a header of other fields, or a refusal."""
        raw = bytearray(entry.encode_header(header))
        place = data.draw(st.integers(0, 8 * len(raw) - 1))
        raw[place // 8] ^= 1 << place % 8
        assert entry.entry_id(bytes(raw)) != entry.entry_id(entry.encode_header(header))
        try:
            found = entry.decode_header(bytes(raw))
        except PeerError:
            return
        assert found != header
        assert entry.encode_header(found) == bytes(raw)

    @given(st.binary(max_size=80))
    def test_any_bytes(self, raw: bytes) -> None:
        with pytest.raises(PeerError):
            entry.decode_header(raw)

    @pytest.mark.parametrize("made", [CONTROL, CONTENT], ids=["control", "content"])
    def test_every_field_is_checked(self, made: Made) -> None:
        """No field takes a value of another type or out of range."""
        wrongs: list[object] = [b"short", 2**64 - 1, b"x" * 33, -1, "text", 1.5, {}, [[]], True]
        for place in range(len(fields(made.header))):
            for wrong in wrongs:
                changed = fields(made.header)
                changed[place] = wrong
                with pytest.raises(PeerError):
                    entry.decode_header(msgspec.msgpack.encode(changed))

    @pytest.mark.parametrize("made", [CONTROL, CONTENT], ids=["control", "content"])
    def test_fields_more_or_fewer(self, made: Made) -> None:
        """Case 10."""
        whole = fields(made.header)
        for wrong in (whole[:-1], [*whole, None], [*whole, 0, 0, 0, 0], []):
            with pytest.raises(PeerError):
                entry.decode_header(msgspec.msgpack.encode(wrong))
        with pytest.raises(NotCanonical):
            entry.decode_header(made.raw + b"\xc0")

    def test_longer_integers(self) -> None:
        """Case 7: msgspec reads them, SPEC 1 does not."""
        raw = CONTROL.raw
        assert raw[1] == 1
        with pytest.raises(NotCanonical, match="shortest"):
            entry.decode_header(raw[:1] + b"\xcc\x01" + raw[2:])

    def test_prev(self) -> None:
        for changed in (
            msgspec.structs.replace(CONTROL.header, prev=EntryId(bytes(32))),
            msgspec.structs.replace(CONTROL.header, seq=1),
        ):
            with pytest.raises(NotCanonical, match="prev is nil"):
                entry.decode_header(entry.encode_header(changed))

    @given(HEADS.filter(lambda heads: len(heads) > 1))
    def test_references_ascend(self, heads: tuple[Reference, ...]) -> None:
        for field in ("links", "control"):
            wrong = msgspec.structs.replace(CONTENT.header, **{field: heads[::-1]})
            with pytest.raises(NotCanonical, match="ascending"):
                entry.decode_header(entry.encode_header(wrong))
            twice = msgspec.structs.replace(CONTENT.header, **{field: (heads[0], heads[0])})
            with pytest.raises(NotCanonical, match="ascending"):
                entry.decode_header(entry.encode_header(twice))

    def test_link_to_the_own_chain(self) -> None:
        """Case 23: but a control head of one's own is named like others'."""
        own = Reference(CONTENT.header.device, 4, EntryId(bytes(32)))
        linked = msgspec.structs.replace(CONTENT.header, links=(own,))
        with pytest.raises(NotCanonical, match="own chain"):
            entry.decode_header(entry.encode_header(linked))
        named = msgspec.structs.replace(CONTENT.header, control=(own,))
        assert entry.decode_header(entry.encode_header(named)) == named

    def test_too_many_links(self) -> None:
        """Case 20."""
        heads = tuple(
            Reference(DeviceKey(n.to_bytes(32)), 0, EntryId(bytes(32)))
            for n in range(LINKS_MAX + 1)
        )
        with pytest.raises(NotCanonical):
            entry.decode_header(
                entry.encode_header(msgspec.structs.replace(CONTENT.header, links=heads))
            )
        many = entry.encode_header(msgspec.structs.replace(CONTENT.header, links=heads * 10_000))
        with pytest.raises(LimitExceeded):
            entry.decode_header(many)

    def test_the_longest_header_fits(self) -> None:
        heads = tuple(
            Reference(DeviceKey(bytes([255 - n]) * 32), SEQ_MAX, EntryId(b"\xff" * 32))
            for n in range(LINKS_MAX, 0, -1)
        )
        header = msgspec.structs.replace(
            CONTENT.header,
            links=heads,
            control=heads,
            seq=SEQ_MAX,
            prev=EntryId(bytes(32)),
            time=TIME_MS_MAX,
            generation=SEQ_MAX,
            payload_size=PAYLOAD_BYTES_MAX,
        )
        assert entry.decode_header(entry.encode_header(header)) == header

    @given(chains(lanes=st.just(entry.CONTENT)))
    def test_before_commitment(self, chain: Chain) -> None:
        """`pre` is the array's first byte and its first 12 fields."""
        header = chain.entries[-1].header
        assert isinstance(header, ContentHeader)
        pre = entry.header_before_commitment(header)
        rest = [header.pc, header.payload_size, header.payload_hash]
        assert pre + b"".join(msgspec.msgpack.encode(item) for item in rest) == entry.encode_header(
            header
        )


class TestIdAndSignature:
    def test_id(self) -> None:
        assert entry.entry_id(b"header") == sha256(b"ivor/1 entryheader").digest()

    @given(chains(entries_max=1), st.integers(0, 511))
    def test_signature(self, chain: Chain, bit: int) -> None:
        """The author's, over this id, unaltered (cases 14 and 15)."""
        made = chain.entries[-1]
        device = made.header.device
        entry.check_signature(device, made.id, made.signature)
        altered = bytearray(made.signature)
        altered[bit // 8] ^= 1 << bit % 8
        for wrong in (bytes(altered), b"", made.signature[:63], made.signature + b"\0"):
            with pytest.raises(Unauthentic):
                entry.check_signature(device, made.id, wrong)
        with pytest.raises(Unauthentic):
            entry.check_signature(signer("someone else").public, made.id, made.signature)
        with pytest.raises(Unauthentic):
            entry.check_signature(device, EntryId(sha256(made.id).digest()), made.signature)

    @given(HASHES)
    def test_small_order_key(self, message: bytes) -> None:
        """Case 16."""
        with pytest.raises(Unauthentic):
            entry.check_signature(bytes(32), EntryId(message), bytes(64))

    def test_payload(self) -> None:
        entry.check_payload(CONTENT.header, b"hello")
        for wrong in (b"hellp", b"hello ", b""):
            with pytest.raises(Unauthentic, match="payload"):
                entry.check_payload(CONTENT.header, wrong)


def test_the_genesis_names_no_chat() -> None:
    """And nothing else does: a chat's id is its genesis."""
    header = CONTROL.header
    assert isinstance(header, ControlHeader)
    genesis = msgspec.structs.replace(header, chat=None, kind=entry.GENESIS)
    assert entry.decode_header(entry.encode_header(genesis)) == genesis
    later = msgspec.structs.replace(header, kind=0, seq=1, prev=EntryId(bytes(32)))
    assert entry.decode_header(entry.encode_header(later)) == later
    for wrong in (
        msgspec.structs.replace(header, chat=None),
        msgspec.structs.replace(header, kind=entry.GENESIS),
        msgspec.structs.replace(later, chat=None),
        msgspec.structs.replace(CONTENT.header, chat=ChatId(b"")),
    ):
        with pytest.raises(NotCanonical):
            entry.decode_header(entry.encode_header(wrong))
