"""SPEC 2.5: forks and their proofs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from protocol import codec
from protocol.entry import CONTENT, CONTROL, ChatId, ControlHeader, DeviceKey, EntryId, Reference
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic
from protocol.fork import Cover, encode_proof, verify_fork
from protocol.frame import authentic
from protocol.identity import DEVICES_USER_MAX
from protocol.limits import (
    COVER_ENTRIES_MAX,
    FRAME_BYTES_MAX_BEFORE_HELLO,
    LINKS_MAX,
    OPERATION_BYTES_MAX,
    SEQ_MAX,
    TIME_MS_MAX,
)
from protocol.operation import Kind, Revoke
from protocol.payload import decode_operation, encode_operation
from protocol.testing.chains import CHAT, LANES, Chain, Step, signer


def branches(lane: int = CONTENT, at: int = 2, name: str = "anna") -> tuple[Chain, Chain]:
    """Two chains of one device that differ from seq `at` on, each three entries longer."""
    one = Chain(signer(name), CHAT, lane)
    one.extend([Step(b"same")] * at)
    other = one.fork(at)
    one.extend([Step(b"one")] * 3)
    other.extend([Step(b"other")] * 3)
    return one, other


class TestProof:
    @given(LANES, st.integers(0, 70), st.integers(1, 3), st.integers(1, 3))
    def test_offline(self, lane: int, at: int, first: int, second: int) -> None:
        """A proof needs nothing but itself, and is one whichever cover comes first."""
        one, other = branches(lane, at)
        covers = one.cover(at, at + first), other.cover(at, at + second)
        proof = encode_proof(*covers)
        assert proof == encode_proof(*covers[::-1])
        fork = verify_fork(proof)
        assert (fork.chat, fork.device, fork.lane, fork.seq) == (CHAT, one.device, lane, at)
        assert fork.ids == tuple(sorted((one.entries[at].id, other.entries[at].id)))
        assert fork.proof == proof

    def test_a_genesis_and_another_first_entry(self) -> None:
        """The genesis names no chat: the fork is in the chat that it made, and in no other."""
        chain = Chain(signer("anna"), CHAT, CONTROL)
        first = chain.add(b"genesis").header
        assert isinstance(first, ControlHeader)
        genesis = Chain(chain.key, CHAT, CONTROL)
        fields = {name: getattr(first, name) for name in first.__struct_fields__}
        made = genesis.append(ControlHeader(**(fields | {"chat": None, "kind": 0})), b"genesis")
        rival = Chain(chain.key, ChatId(made.id), CONTROL)
        rival.add(b"another first")
        fork = verify_fork(encode_proof(genesis.cover(0), rival.cover(0)))
        assert bytes(fork.chat) == made.id
        elsewhere = Chain(chain.key, CHAT, CONTROL)
        elsewhere.add(b"another first")
        with pytest.raises(Unauthentic):
            verify_fork(encode_proof(genesis.cover(0), elsewhere.cover(0)))

    def test_the_longest_fits_a_revocation(self) -> None:
        """Whoever forks chooses how long the proof is: it has to put them out all the same."""
        heads = references(DEVICES_USER_MAX)
        links = heads[:LINKS_MAX]
        one = Chain(signer("anna"), CHAT, CONTENT)
        one.append(replace(one.header(Step(links=links, control=links)), time=TIME_MS_MAX), b"")
        other = one.fork(1)
        for chain in (one, other):
            sizes = Step(b"one" if chain is one else b"other", 0, links, links, generation=SEQ_MAX)
            chain.extend([sizes] * COVER_ENTRIES_MAX)
        covers = [chain.cover(1, COVER_ENTRIES_MAX + 1) for chain in (one, other)]
        revoke = Revoke(one.device, verify_fork(encode_proof(*covers)), None, heads)
        payload = encode_operation(revoke)
        assert len(payload) > 0.9 * OPERATION_BYTES_MAX
        revoking = Chain(signer("boris"), CHAT, CONTROL)
        revoking.add(Step(payload, kind=Kind.REVOKE))
        (entry,) = authentic(revoking.run())
        assert entry.payload is not None
        assert decode_operation(Kind.REVOKE, entry.payload, CHAT) == revoke


def references(count: int) -> tuple[Reference, ...]:
    """References as long as they can be, ascending."""
    return tuple(
        Reference(DeviceKey(bytes([1 + n]) * 32), SEQ_MAX, EntryId(b"\xff" * 32))
        for n in range(count)
    )


class TestNoFork:
    def test_one_entry_twice(self) -> None:
        one, _ = branches()
        with pytest.raises(Unauthentic, match="one place"):
            verify_fork(encode_proof(one.cover(2), one.cover(2, 4)))

    def test_successors(self) -> None:
        one, _ = branches()
        with pytest.raises(Unauthentic, match="one place"):
            verify_fork(encode_proof(one.cover(2), one.cover(3)))

    def test_another_device_lane_or_chat(self) -> None:
        one, _ = branches()
        elsewhere = Chain(one.key, ChatId(bytes(32)), CONTENT)
        elsewhere.extend([Step()] * 3)
        for rival in (branches(name="boris")[0], branches(CONTROL)[0], elsewhere):
            with pytest.raises(Unauthentic, match="one place"):
                verify_fork(encode_proof(one.cover(2), rival.cover(2)))

    def test_covers_in_the_wrong_order(self) -> None:
        one, other = branches()
        covers = codec.decode(encode_proof(one.cover(2), other.cover(2)), 10_000)
        with pytest.raises(NotCanonical, match="smaller id"):
            verify_fork(msgpack.encode(covers[::-1]))


class TestBadCover:
    def test_path_with_a_gap(self) -> None:
        """Case 19: what stands in a cover is one chain."""
        one, other = branches()
        raws = [made.raw for made in one.entries]
        strange = [made.raw for made in branches(name="boris")[0].entries]
        for path in (
            (raws[2], raws[4]),
            (raws[2], other.entries[3].raw),
            (raws[2], strange[3]),
            (raws[2], raws[2]),
            (raws[3], raws[2]),
        ):
            cover = Cover(path, one.entries[4].signature)
            with pytest.raises(Unauthentic, match="does not follow"):
                verify_fork(encode_proof(cover, other.cover(2)))

    def test_path_that_goes_on_in_another_chat(self) -> None:
        one, other = branches()
        away = one.fork(3)
        away.append(replace(away.header(Step()), chat=ChatId(bytes(32))), b"")
        with pytest.raises(Unauthentic, match="does not follow"):
            verify_fork(encode_proof(away.cover(2, 4), other.cover(2)))

    def test_signature(self) -> None:
        one, other = branches()
        for wrong in (one.entries[3].signature, bytes(64), other.entries[2].signature):
            with pytest.raises(Unauthentic, match="bad signature"):
                verify_fork(encode_proof(Cover((one.entries[2].raw,), wrong), other.cover(2)))

    def test_length(self) -> None:
        one, other = branches()
        for count, signature in ((65, bytes(64)), (0, bytes(64)), (1, bytes(63))):
            cover = [[one.entries[2].raw] * count, signature]
            theirs = [list(other.cover(2).headers), other.cover(2).signature]
            with pytest.raises((NotCanonical, LimitExceeded)):
                verify_fork(msgpack.encode([cover, theirs]))

    @given(st.data())
    def test_any_byte(self, data: st.DataObject) -> None:
        one, other = branches()
        proof = bytearray(encode_proof(one.cover(2, 4), other.cover(2)))
        proof[data.draw(st.integers(0, len(proof) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(PeerError):
            verify_fork(bytes(proof))

    @given(st.binary(max_size=100))
    def test_any_bytes(self, proof: bytes) -> None:
        with pytest.raises(PeerError):
            verify_fork(proof)

    def test_too_long(self) -> None:
        with pytest.raises(LimitExceeded):
            verify_fork(bytes(FRAME_BYTES_MAX_BEFORE_HELLO + 1))
