"""Evidence files (SPEC 5.10): what they prove, and that one wrong byte shows where it stands."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.checkpoint import Anchor, certify_archive, make_anchor
from protocol.entry import CONTENT, EntryId, Place, Reference
from protocol.evidence import EvidenceRefused, Findings, check
from protocol.exhibit import FRAME, MAGIC, ControlPart, plan, write_evidence
from protocol.identity import AgencyId, verify_charter
from protocol.lane import Rule
from protocol.limits import COVER_ENTRIES_MAX
from protocol.message import Text, decode_message
from protocol.operation import Admit, Enroll, Remove
from protocol.policy import Role
from protocol.testing.cast import Person, archive_signer, credential, grant, person
from protocol.testing.chains import Step
from protocol.testing.exhibits import Record
from protocol.testing.histories import Dice

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mvd"), person("clara@fns")
PEOPLE = (ANNA, BORIS, CLARA)
CAST = ((ANNA, Role.OWNER), (BORIS, Role.MEMBER), (CLARA, Role.MEMBER))


def random_record(dice: Dice, messages: int) -> Record:
    """A chat in which each writes, starts epochs and makes checkpoints as the dice fall."""
    talk = Record.of(CAST)
    for number in range(messages):
        if dice.flip(6):
            talk.start_epoch(dice.pick(PEOPLE))
        if dice.flip(6):
            talk.checkpoint(dice.pick(PEOPLE))
        talk.write(dice.pick(PEOPLE), f"text number {number};")
    return talk


def texts(findings: Findings) -> set[str]:
    found = [decode_message(one.plaintext) for one in findings.statements]
    return {one.text for one in found if isinstance(one, Text)}


def starts(raw: bytes) -> list[int]:
    found = [0, len(MAGIC)]
    while found[-1] < len(raw):
        found.append(found[-1] + FRAME.size + FRAME.unpack_from(raw, found[-1])[1])
    return found


class TestRoundTrip:
    @settings(max_examples=25)
    @given(st.integers(0, 2**32), st.integers(1, 25), st.data())
    def test_what_is_disclosed_is_proved_and_nothing_else_is_told(
        self, seed: int, messages: int, data: st.DataObject
    ) -> None:
        talk = random_record(Dice(seed), messages)
        everything = sorted(talk.disclosed)
        wanted = data.draw(st.sets(st.sampled_from(everything)))
        raw = talk.file(wanted)
        found = check(raw)
        assert {one.id for one in found.statements} == wanted
        for entry in everything:
            assert (talk.disclosed[entry].plaintext in raw) == (entry in wanted)
            assert (talk.disclosed[entry].frank in raw) == (entry in wanted)

    @settings(max_examples=25)
    @given(st.integers(0, 2**32), st.integers(1, 25))
    def test_each_message_is_put_down_to_who_wrote_it(self, seed: int, messages: int) -> None:
        talk = random_record(Dice(seed), messages)
        for one in check(talk.file()).statements:
            who = next(who for who in PEOPLE if who.devices[0] == one.header.device)
            assert (one.author.user, one.author.name) == (who.user, who.name)
            assert one.author.agency == who.agency.root.public

    @settings(max_examples=25)
    @given(st.integers(0, 2**32), st.integers(1, 25))
    def test_a_checkpoint_covers_what_was_written_before_it(self, seed: int, messages: int) -> None:
        talk = random_record(Dice(seed), messages)
        before = set(talk.disclosed)
        talk.checkpoint(BORIS)
        talk.write(ANNA, "after it")
        for one in check(talk.file()).statements:
            assert bool(one.checkpoints) == (one.id in before)


class TestOneWrongByte:
    @settings(max_examples=60)
    @given(st.integers(0, 9), st.data())
    def test_it_is_named_at_the_element_that_holds_it(self, seed: int, data: st.DataObject) -> None:
        talk = random_record(Dice(seed), 6)
        raw = talk.file()
        at = data.draw(st.integers(0, len(raw) - 1))
        bit = data.draw(st.integers(0, 7))
        wrong = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
        with pytest.raises(EvidenceRefused) as caught:
            check(wrong)
        places = starts(raw)
        assert caught.value.offset == places[bisect_right(places, at) - 1]

    @settings(max_examples=40)
    @given(st.integers(0, 9), st.data())
    def test_a_file_cut_short(self, seed: int, data: st.DataObject) -> None:
        raw = random_record(Dice(seed), 6).file()
        end = data.draw(st.integers(0, len(raw) - 1))
        with pytest.raises(EvidenceRefused) as caught:
            check(raw[:end])
        places = starts(raw)
        assert caught.value.offset == places[bisect_right(places, end) - 1]

    @given(st.binary(max_size=200))
    def test_any_bytes(self, junk: bytes) -> None:
        for raw in (junk, MAGIC + junk):
            with pytest.raises(EvidenceRefused):
                check(raw)


class TestAuthors:
    def said(self, talk: Record, who: Person) -> Findings:
        talk.start_epoch(ANNA)
        talk.write(who, "hello")
        return check(talk.file())

    def test_brought_in_by_a_grant(self) -> None:
        talk = Record.of(CAST[:1])
        talk.tell(ANNA, talk.story.tell(ANNA, Admit((grant(BORIS, Role.MEMBER),))))
        assert self.said(talk, BORIS).statements[0].author.name == "boris@mvd"

    def test_brought_in_by_the_owners(self) -> None:
        talk = Record.of(CAST[:1])
        decision = talk.story.quorum(ANNA, (Admit((grant(BORIS, Role.OWNER),)),), ())
        talk.tell(ANNA, talk.story.tell(ANNA, decision))
        assert self.said(talk, BORIS).statements[0].author.name == "boris@mvd"

    def test_a_device_brought_in_by_its_user(self) -> None:
        talk = Record.of(CAST[:1])
        talk.tell(ANNA, talk.story.tell(ANNA, Enroll(credential(ANNA, (1,)))))
        assert self.said(talk, ANNA).statements[0].author.name == "anna@mz"

    def test_a_grant_that_the_author_had_not_seen_does_not_count(self) -> None:
        talk = Record.of(CAST[:1])
        seen = talk.story.heads()
        talk.tell(ANNA, talk.story.tell(ANNA, Admit((grant(BORIS, Role.MEMBER),))))
        chain = talk.chain(BORIS, CONTENT)
        talk.append(chain, Step(b"early", control=seen, epoch=talk.epochs[-1]))
        with pytest.raises(EvidenceRefused) as caught:
            check(talk.file())
        assert caught.value.rule is Rule.AUTHOR

    def test_a_removed_member_still_signed_what_they_signed(self) -> None:
        """Membership is a finding, not a rule of the file."""
        talk = Record.of(CAST)
        talk.write(BORIS, "before")
        talk.tell(ANNA, talk.story.tell(ANNA, Remove(BORIS.user, ())))
        assert texts(check(talk.file())) == {"before"}


def test_anchors_are_read_as_people_type_them() -> None:
    talk = Record.of(CAST)
    talk.write(ANNA, "one")
    talk.checkpoint(ANNA)
    shown = verify_charter(ANNA.agency.charter).fingerprint
    for typed in (shown, shown.lower(), shown.replace(" ", "")):
        assert len(check(talk.file(), {"mz": typed}).statements) == 1


def test_progress_tells_all_bytes() -> None:
    raw = random_record(Dice(1), 5).file()
    told: list[int] = []
    check(raw, None, told.append)
    assert sum(told) == len(raw) - len(MAGIC)


def test_a_certificate_of_a_colleague_vouches_for_nobody() -> None:
    """The agency's word is for a user's device: not for another user who has that device."""
    home, other = AgencyId(ANNA.agency.root.public), person("vera@mz")

    def misnamed(who: Person, place: Place, heads: Sequence[Reference]) -> Anchor:
        signer = archive_signer(who)
        certificate = certify_archive(
            who.agency.archive, home, other.user, who.devices[0], signer.public
        )
        return make_anchor(signer, certificate, place, heads)

    talk = Record.of(CAST, misnamed)
    talk.write(ANNA, "one")
    talk.checkpoint(ANNA)
    with pytest.raises(EvidenceRefused) as caught:
        check(talk.file())
    assert caught.value.rule is Rule.CHECKPOINT


def test_an_omitted_checkpoint_covers_nothing() -> None:
    talk = Record.of(CAST)
    talk.write(ANNA, "one")
    entry = talk.checkpoint(ANNA)
    lane = [
        ControlPart(one.raw, one.signature, None if one.id == entry else one.payload)
        for one in talk.story.told
    ]
    raw = b"".join(write_evidence(lane, talk.parts(talk.disclosed)))
    assert check(raw).statements[0].checkpoints == ()


class TestPlan:
    @given(
        st.integers(1, 300),
        st.sets(st.integers(0, 299)),
        st.sets(st.integers(0, 299)),
        st.sets(st.integers(0, 299), min_size=1),
    )
    def test_each_wanted_entry_is_covered(
        self, length: int, signed: set[int], heads: set[int], wanted: set[int]
    ) -> None:
        tips = sorted({seq for seq in signed if seq < length} | {length - 1})
        named = sorted(seq for seq in heads if seq < length)
        asked = {seq % length for seq in wanted}
        found = plan(asked, tips, [named])
        for seq in asked:
            first, last = next(part for part in found if part[0] <= seq <= part[1])
            head = next((one for one in named if one >= seq), seq)
            assert first <= seq <= head <= last
        assert all(last in tips for _, last in found)
        assert all(one[1] + 1 < other[0] for one, other in pairwise(found))

    def test_the_shortest_way(self) -> None:
        assert plan([3], [2, 5, 9], []) == [(3, 5)]
        assert plan([3], [2, 5, 9], [[6], [4, 8], []]) == [(3, 9)]
        assert plan([3], [2, 5, 9], [[4]]) == [(3, 5)]
        assert plan([3, 0, 6], [0, 5, 9], []) == [(0, 0), (3, 9)]


def test_a_run_is_covered_64_entries_long() -> None:
    talk = Record.of(CAST[:1])
    for number in range(COVER_ENTRIES_MAX + 1):
        talk.write(ANNA, str(number))
    talk.checkpoint(ANNA)
    entry = EntryId(talk.written_by(ANNA)[0])
    assert check(talk.file([entry])).content == COVER_ENTRIES_MAX + 1
