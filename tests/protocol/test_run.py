"""SPEC 6.4 and 2.4: records, runs, and the cover rule."""

from collections.abc import Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crypto.signing import verify
from protocol import run as runs
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId, Reference
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Unauthentic
from protocol.frame import Run, authentic
from protocol.limits import (
    COVER_ENTRIES_MAX,
    KEYFRAME_ENTRIES,
    PAYLOAD_BYTES_MAX,
    SEQ_MAX,
    TIME_MS_MAX,
)
from protocol.run import START, Context, Dropped, Entry
from protocol.testing.cast import seed
from protocol.testing.chains import CHAT, FOUNDED, REFERENCES, Chain, Step, chains, signer

BAD = bytes(64)
LONG = Chain(signer("anna"), CHAT, CONTENT)
LONG.extend([Step(b"%d" % number) for number in range(300)])
HEAD = Reference(DeviceKey(signer("boris").public), 3, EntryId(seed("head")))


def ids(entries: Iterable[Entry]) -> list[EntryId]:
    return [entry.id for entry in entries]


def with_signatures(run: Run, signatures: dict[int, bytes]) -> Run:
    return msgspec.structs.replace(run, signatures=tuple(sorted(signatures.items())))


def with_record(run: Run, index: int, record: bytes) -> Run:
    records = [*run.records]
    records[index] = msgspec.Raw(record)
    return msgspec.structs.replace(run, records=tuple(records))


class TestRoundTrip:
    @given(chains(), st.data())
    def test_any_chain_in_any_pieces(self, chain: Chain, data: st.DataObject) -> None:
        """Whatever a chain says and wherever it is cut, unpack(pack) gives it back."""
        size = len(chain.entries)
        cuts = data.draw(st.sets(st.integers(1, size), max_size=4)) | {0, size}
        places = sorted(cuts)
        found = [
            entry for start, stop in pairwise(places) for entry in authentic(chain.run(start, stop))
        ]
        assert [entry.header for entry in found] == [made.header for made in chain.entries]
        assert ids(found) == [made.id for made in chain.entries]
        assert [entry.payload for entry in found] == [made.payload for made in chain.entries]
        assert [entry.record for entry in found] == [chain.record(at) for at in range(size)]

    @given(chains(st.just(CONTENT)), st.data())
    def test_dropped_payloads(self, chain: Chain, data: st.DataObject) -> None:
        """An entry is authentic without its payload."""
        run = chain.run()
        dropped = data.draw(st.sets(st.integers(0, len(chain.entries) - 1), max_size=5))
        whole = authentic(run)
        for seq in dropped:
            ground = data.draw(REFERENCES)
            record = runs.pack(chain.entries[seq].header, ground, chain.context(seq))
            run = with_record(run, seq, record)
            bare = runs.without_payload(whole[seq], ground)
            assert (bare.record, bare.payload, bare.ground) == (record, None, ground)
            again = runs.with_payload(record, chain.entries[seq].payload)
            assert again == whole[seq].record
        found = authentic(run)
        assert ids(found) == [made.id for made in chain.entries]
        assert {entry.header.seq for entry in found if entry.payload is None} == dropped
        assert {entry.header.seq for entry in found if entry.ground is not None} == dropped

    @given(chains(st.just(CONTROL)), REFERENCES)
    def test_control_keeps_its_payload(self, chain: Chain, ground: Reference) -> None:
        run = chain.run()
        record = runs.pack(chain.entries[0].header, ground, chain.context(0))
        with pytest.raises(NotCanonical, match="does not fit"):
            authentic(with_record(run, 0, record))

    @given(chains())
    def test_fold(self, chain: Chain) -> None:
        """The context after an entry is what its records since the keyframe add up to."""
        size = len(chain.entries)
        keyframe = (size - 1) // KEYFRAME_ENTRIES * KEYFRAME_ENTRIES
        records = [chain.record(seq) for seq in range(keyframe, size)]
        assert runs.fold(chain.lane, records) == chain.before

    def test_keyframes_leave_nothing_out(self) -> None:
        """A run that begins at a multiple of 64 needs no context."""
        chain = Chain(signer("anna"), CHAT, CONTENT)
        chain.extend([Step(control=(HEAD,) if not number else None) for number in range(130)])
        for start in (64, 128):
            run = chain.run(start)
            assert run.context is None
            assert ids(authentic(run)) == [made.id for made in chain.entries[start:]]
        sizes = [len(chain.record(seq)) for seq in range(130)]
        assert {seq for seq, size in enumerate(sizes) if size > min(sizes) + 32} == {0, 64, 128}

    def test_overhead(self) -> None:
        """A message with nothing new costs under 60 bytes above its payload."""
        assert max(len(LONG.record(seq)) for seq in range(1, 60)) <= 60


class TestWrongPlace:
    """What a peer claims about the predecessor needs no trust."""

    @given(chains(), st.data())
    def test_another_context(self, chain: Chain, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(chain.entries) - 1))
        context = data.draw(
            st.builds(
                Context,
                st.integers(0, TIME_MS_MAX),
                st.sampled_from([(), (HEAD,)]),
                st.sampled_from([b"", seed("epoch", "0"), seed("epoch", "9")]),
                st.integers(0, 9),
            )
        )
        run = msgspec.structs.replace(chain.run(start), context=context)
        try:
            found = authentic(run)
        except PeerError:
            return
        honest = [made.id for made in chain.entries[start:]]
        assert ids(found) == honest[: len(found)]

    @given(chains(), st.data())
    def test_another_place(self, chain: Chain, data: st.DataObject) -> None:
        """Cases 19 and 24: another chat, device, lane, start or prev is not authentic."""
        run = chain.run(data.draw(st.integers(0, len(chain.entries) - 1)))
        changes: dict[str, object] = {
            "chat": ChatId(seed("another chat")),
            "device": signer("dina").public,
            "lane": 1 - run.lane,
            "start": run.start + data.draw(st.sampled_from([1, 64])),
            "prev": None if run.prev else EntryId(seed("prev")),
        }
        field = data.draw(st.sampled_from(sorted(changes)))
        made = chain.entries[run.start].header
        assume(field != "chat" or made.chat is not None)
        with pytest.raises((Unauthentic, NotCanonical)):
            authentic(msgspec.structs.replace(run, **{field: changes[field]}))

    def test_past_the_last_seq(self) -> None:
        """Case 18."""
        run = msgspec.structs.replace(LONG.run(1, 3), start=SEQ_MAX)
        with pytest.raises(LimitExceeded):
            authentic(run)


class TestAltered:
    @given(chains(), st.data())
    def test_any_byte_of_any_record(self, chain: Chain, data: st.DataObject) -> None:
        """Refused, or cut short before the altered record: nothing else comes through."""
        start = max(0, len(chain.entries) - 4)
        run = chain.run(start)
        index = data.draw(st.integers(0, len(run.records) - 1))
        record = bytearray(bytes(run.records[index]))
        place = data.draw(st.integers(0, len(record) - 1))
        record[place] ^= data.draw(st.integers(1, 255))
        try:
            found = authentic(with_record(run, index, bytes(record)))
        except PeerError:
            return
        assert len(found) <= index
        assert ids(found) == [made.id for made in chain.entries[start : start + len(found)]]

    @pytest.mark.parametrize("lane", [CONTROL, CONTENT])
    def test_a_second_spelling(self, lane: int) -> None:
        """One entry has one record: else a relay could store junk with others under one id."""
        chain = Chain(signer("anna"), CHAT, lane)
        chain.extend([Step(b"x", links=(HEAD,)), Step(b"y"), Step(b"z")])
        for seq in range(3):
            raw = chain.record(seq)
            count = raw[0] & 0x0F
            spellings = [
                b"\xdc\x00" + bytes([count]) + raw[1:],
                bytes([raw[0] + 1]) + raw[1:] + (b"\x90" if count == 3 else b"\xc0"),
                raw[:1] + b"\xd1" + (msgspec.msgpack.decode(raw)[0]).to_bytes(2, "big") + raw[2:],
                bytes([0x98]) + raw[1:] + b"\xc0" * (8 - count),
                bytes([0x9F]) + raw[1:] + b"\xc0" * (15 - count),
                raw + b"\xc0",
            ]
            for spelling in spellings:
                with pytest.raises(NotCanonical):
                    authentic(with_record(chain.run(), seq, spelling))

    def test_repeating_the_predecessor(self) -> None:
        chain = Chain(signer("anna"), CHAT, CONTENT)
        chain.extend([Step(control=(HEAD,)), Step()])
        elapsed, pc, payload = msgspec.msgpack.decode(chain.record(1))
        epoch = chain.before.epoch
        repeats: list[list[object]] = [
            [[], [HEAD]],
            [[], None, epoch, 1],
            [[], None, None, 1],
            [[], None, seed("e")],
        ]
        for more in repeats:
            record = msgspec.msgpack.encode([elapsed, pc, payload, *more])
            with pytest.raises(NotCanonical):
                authentic(with_record(chain.run(), 1, record))

    @pytest.mark.parametrize(
        "record",
        ["", "c0", "90", "93 01 02 03", "91" * 100_000, "dd ff ff ff ff", "a1 ff"],
    )
    @pytest.mark.parametrize("lane", [CONTROL, CONTENT])
    def test_junk(self, record: str, lane: int) -> None:
        chain = Chain(signer("anna"), CHAT, lane)
        chain.extend([Step(), Step()])
        for index in (0, 1):
            with pytest.raises(NotCanonical):
                authentic(with_record(chain.run(), index, bytes.fromhex(record)))

    def test_out_of_range(self) -> None:
        """Fields that only a record can bring out of range: time, payload size, generation."""
        pc, epoch = bytes(32), seed("epoch")
        for fields in (
            [-1, pc, b"", [], [FOUNDED], epoch, 0],
            [TIME_MS_MAX + 1, pc, b"", [], [FOUNDED], epoch, 0],
            [1, pc, b""],
            [1, pc, b"", [], None, epoch, 0],
            [1, pc, b"", [], [], epoch, 0],
            [1, pc, b"", [], [FOUNDED], epoch, SEQ_MAX + 1],
            [1, pc, [PAYLOAD_BYTES_MAX + 1, bytes(32)], [], [FOUNDED], epoch, 0],
            [1, pc, [1, bytes(31)], [], [FOUNDED], epoch, 0],
        ):
            run = with_record(LONG.run(0, 1), 0, msgspec.msgpack.encode(fields))
            with pytest.raises(NotCanonical):
                authentic(run)
        long = msgspec.msgpack.encode(
            [1, pc, bytes(PAYLOAD_BYTES_MAX + 1), [], [FOUNDED], epoch, 0]
        )
        with pytest.raises(LimitExceeded):
            authentic(with_record(LONG.run(0, 1), 0, long))

    def test_a_keyframe_says_all(self) -> None:
        """Also in the middle of a run nothing is taken over from the entry before."""
        for control, epoch in ((None, seed("epoch")), ([FOUNDED], None)):
            record = msgspec.msgpack.encode([1, bytes(32), b"", [], control, epoch, 0])
            run = LONG.run(KEYFRAME_ENTRIES - 1, KEYFRAME_ENTRIES + 1)
            with pytest.raises(NotCanonical, match="lacks its epoch, control heads"):
                authentic(with_record(run, 1, record))

    @pytest.mark.parametrize(
        "context",
        [
            Context(0, (FOUNDED,), seed("epoch"), SEQ_MAX),
            Context(0, (FOUNDED,), seed("epoch"), -2),
            Context(0, (FOUNDED,), b"epoch", 0),
        ],
    )
    def test_a_context_out_of_range(self, context: Context) -> None:
        run = msgspec.structs.replace(LONG.run(1, 2), context=context)
        with pytest.raises(NotCanonical):
            authentic(run)

    @pytest.mark.parametrize("kind", [-1, 256, 2**64 - 1])
    def test_a_header_that_nobody_decodes_covers_nothing(self, kind: int) -> None:
        """SPEC 2.4: every header of a cover is canonical, or a fork's proof could not be read."""
        chain = Chain(signer("anna"), CHAT, CONTROL)
        chain.extend([Step(), Step(kind=kind)])
        with pytest.raises(NotCanonical):
            authentic(chain.run(0, 2, signed=[1]))


class Counting:
    """Counts signature checks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checks = 0

        def counted(public: bytes, label: str, message: bytes, signature: bytes) -> None:
            self.checks += 1
            verify(public, label, message, signature)

        monkeypatch.setattr(runs, "verify", counted)


class TestCover:
    """SPEC 2.4: an entry is authentic if a signed descendant within 63 steps covers it."""

    @pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 128, 129, 300])
    def test_checks(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run of n entries costs ⌈n/64⌉ checks, and one more where the tail is no multiple."""
        counting = Counting(monkeypatch)
        found = authentic(LONG.run(0, count))
        assert len(found) == count
        least = -(-count // COVER_ENTRIES_MAX)
        assert least <= counting.checks <= least + 1

    @pytest.mark.parametrize("count", [1, 64, 65, 300])
    def test_what_is_kept_covers_all(self, count: int) -> None:
        """The kept signatures alone are enough to send the run on."""
        found = authentic(LONG.run(0, count))
        kept = {at: entry.signature for at, entry in enumerate(found) if entry.signature}
        assert count - 1 in kept
        assert len(authentic(LONG.run(0, count, signed=kept))) == count

    def test_64_steps_and_not_65(self) -> None:
        assert len(authentic(LONG.run(0, 64, signed=[63]))) == 64
        with pytest.raises(Unauthentic):
            authentic(LONG.run(0, 65, signed=[64]))
        assert len(authentic(LONG.run(0, 128, signed=[0, 64, 127]))) == 128

    @given(st.integers(1, 200), st.sets(st.integers(0, 199)), st.sets(st.integers(0, 199)))
    def test_the_longest_covered_prefix(self, count: int, good: set[int], bad: set[int]) -> None:
        """Exactly that comes out, whatever signatures are there, good or bad."""
        run = LONG.run(0, count)
        signatures = {at: BAD for at in bad if at < count}
        signatures |= {at: LONG.entries[at].signature for at in good if at < count}
        covered = 0
        for at in sorted(at for at in good if at < count):
            if at - covered < COVER_ENTRIES_MAX:
                covered = at + 1
        wrong = len([at for at in signatures.values() if at == BAD])
        if not covered or wrong > runs.BAD_SIGNATURES_MAX:
            try:
                found = authentic(with_signatures(run, signatures))
            except Unauthentic:
                return
        else:
            found = authentic(with_signatures(run, signatures))
        assert len(found) == covered
        assert all(entry.signature != BAD for entry in found)
        assert found[-1].signature is not None

    def test_middle_signatures_invalid(self) -> None:
        """Case 29: admitted by cover, the bad ones discarded."""
        signatures = dict.fromkeys(range(50), BAD) | {50: LONG.entries[50].signature}
        found = authentic(with_signatures(LONG.run(0, 51), signatures))
        assert [at for at, entry in enumerate(found) if entry.signature] == [50]

    def test_of_control_entries_each_good_one_is_kept(self) -> None:
        """What covers a removal later on need not be shown to the removed (SPEC 2.4)."""
        chain = Chain(signer("anna"), CHAT, CONTROL)
        chain.extend([Step()] * 70)
        signatures = {at: chain.entries[at].signature for at in (0, 3, 40, 69)} | {5: BAD}
        found = authentic(with_signatures(chain.run(), signatures))
        assert [at for at, entry in enumerate(found) if entry.signature] == [0, 3, 40, 69]

    def test_last_signatures_invalid(self) -> None:
        signatures = {9: LONG.entries[9].signature} | dict.fromkeys(range(10, 60), BAD)
        found = authentic(with_signatures(LONG.run(0, 60), signatures))
        assert len(found) == 10

    def test_too_many_bad_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """More than 64 end the work: it is bounded."""
        counting = Counting(monkeypatch)
        with pytest.raises(Unauthentic, match="over 64"):
            authentic(with_signatures(LONG.run(), dict.fromkeys(range(300), BAD)))
        assert counting.checks == runs.BAD_SIGNATURES_MAX + 1

    def test_none(self) -> None:
        with pytest.raises(Unauthentic, match="no signature covers seq 0"):
            authentic(LONG.run(0, 5, signed=[]))

    def test_start(self) -> None:
        assert runs.START == START == Context(0, (), b"", 0)
        assert Dropped(1, b"h", Reference(DeviceKey(b"d"), 0, EntryId(b"e"))).size == 1
