"""SPEC 6.3, rule 5: the end of a chat that is far behind is asked for first, and admitted last."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import preview
from protocol.chat import Chat
from protocol.entry import CONTENT, CONTROL, DeviceKey, EntryId
from protocol.errors import Inadmissible, Unauthentic
from protocol.frame import Absent, Run, Want, authentic
from protocol.limits import (
    PREVIEW_BACKLOG_MIN,
    PREVIEW_BYTES_MAX,
    PREVIEW_CHAIN_ENTRIES_MIN,
    PREVIEW_ENTRIES_MAX,
    WANT_TIMEOUT_SECONDS,
    WANTS_OUTSTANDING_MAX,
)
from protocol.membership import resolve
from protocol.operation import Admit, Remove
from protocol.policy import Role
from protocol.preview import NEVER, Previews
from protocol.run import Entry
from protocol.testing.cast import grant, person, seed
from protocol.testing.chains import CHAT, Chain, Step, signer
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.network import Network, Replica, Side

NUMBERS = st.integers(0, 2**32)
FAR = PREVIEW_BACKLOG_MIN


def want(number: int, start: int, stop: int) -> Want:
    return Want(CHAT, DeviceKey(seed(str(number))), CONTENT, b"p" * 8, start, stop)


def answer(to: Want, count: int, size: int = 8) -> Run:
    records = tuple(msgspec.Raw(b"x" * size) for _ in range(count))
    return Run(to.chat, to.device, to.lane, to.start, None, None, records, ())


def asked(previews: Previews, lacking: list[Want]) -> list[Want]:
    return previews.ask(lambda chat: lacking if chat == CHAT else [], 0.0)


class TestAsking:
    """Only what is wished for, only from afar, and only a screenful."""

    def test_nobody_looks(self) -> None:
        assert asked(Previews(), [want(0, 0, 10 * FAR)]) == []

    def test_near_enough(self) -> None:
        previews = Previews()
        previews.wish(CHAT)
        assert asked(previews, [want(0, 7, 6 + FAR)]) == []
        assert asked(previews, [want(0, 7, 7 + FAR)]) != []

    @given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 9 * FAR)), min_size=1))
    def test_a_screenful_evenly(self, sizes: list[tuple[int, int]]) -> None:
        previews = Previews()
        previews.wish(CHAT)
        lacking = [want(at, start, start + size) for at, (start, size) in enumerate(sizes)]
        found = asked(previews, lacking)
        far = sum(size for _, size in sizes) >= FAR
        assert len(found) == (min(len(sizes), WANTS_OUTSTANDING_MAX) if far else 0)
        share = max(PREVIEW_CHAIN_ENTRIES_MIN, PREVIEW_ENTRIES_MAX // len(sizes))
        for ours, whole in zip(found, lacking, strict=False):
            assert (ours.device, ours.prefix, ours.stop) == (whole.device, whole.prefix, whole.stop)
            assert ours.start == max(whole.start, whole.stop - share)

    def test_many_branches_in_turn(self) -> None:
        previews = Previews()
        previews.wish(CHAT)
        lacking = [want(at, 0, FAR) for at in range(3 * WANTS_OUTSTANDING_MAX)]
        taken = 0
        while wants := asked(previews, lacking if not taken else []):
            assert len(wants) <= WANTS_OUTSTANDING_MAX
            for one in wants:
                assert previews.finished() == ()
                assert previews.takes(answer(one, one.stop - one.start))
                taken += 1
        assert taken == len(lacking)
        assert len(previews.finished()) == taken

    def test_too_many_bytes(self) -> None:
        """I9: what a peer may heap up here is bounded."""
        previews = Previews()
        previews.wish(CHAT)
        lacking = [want(at, 0, FAR) for at in range(2 * WANTS_OUTSTANDING_MAX)]
        for one in asked(previews, lacking):
            previews.takes(answer(one, one.stop - one.start, PREVIEW_BYTES_MAX // 64))
        assert asked(previews, []) == []
        assert len(previews.finished()) == WANTS_OUTSTANDING_MAX


class TestAnswers:
    def test_in_parts(self) -> None:
        previews = Previews()
        previews.wish(CHAT)
        (one,) = asked(previews, [want(0, 0, FAR)])
        parts = [answer(one, 100)]
        assert previews.takes(parts[0])
        assert previews.finished() == ()
        parts.append(answer(msgspec.structs.replace(one, start=one.start + 100), 156))
        assert previews.takes(parts[1])
        assert previews.finished() == tuple(parts)
        assert previews.deadline() == NEVER

    def test_what_was_not_asked_for(self) -> None:
        """Case 30: it goes the way of every other run."""
        previews = Previews()
        previews.wish(CHAT)
        (one,) = asked(previews, [want(0, 0, FAR)])
        for other in (
            msgspec.structs.replace(one, start=one.start - 1),
            msgspec.structs.replace(one, lane=CONTROL),
            msgspec.structs.replace(one, device=DeviceKey(seed("another"))),
        ):
            assert not previews.takes(answer(other, 1))
            assert not previews.absent(other.chat, other.device, other.lane, other.start)
        assert not Previews().takes(answer(one, 1))

    def test_nothing_there(self) -> None:
        previews = Previews()
        previews.wish(CHAT)
        (one,) = asked(previews, [want(0, 0, FAR)])
        assert previews.absent(one.chat, one.device, one.lane, one.start)
        assert previews.finished() == ()
        assert asked(previews, [want(0, 0, FAR)]) == []

    def test_silence(self) -> None:
        previews = Previews()
        previews.wish(CHAT)
        first, _ = asked(previews, [want(0, 0, FAR), want(1, 0, FAR)])
        previews.takes(answer(first, 128))
        previews.expired(WANT_TIMEOUT_SECONDS - 1)
        assert previews.finished() == ()
        previews.expired(WANT_TIMEOUT_SECONDS)
        assert len(previews.finished()) == 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of twenty is far, and three entries are a screenful."""
    monkeypatch.setattr(preview, "PREVIEW_BACKLOG_MIN", 20)
    monkeypatch.setattr(preview, "PREVIEW_ENTRIES_MAX", 12)
    monkeypatch.setattr(preview, "PREVIEW_CHAIN_ENTRIES_MIN", 1)


def met(talk: Conversation, dice: Dice, *, wished: bool) -> tuple[Side, Side]:
    """An empty replica meets one that has all; it looks at the chat, or not."""
    full, empty = Replica("north", 99), Replica("south", 99)
    for run in talk.runs:
        full.take(run)
    network = Network(dice, [full, empty])
    theirs, ours = network.connect(0, 1)
    if wished:
        ours.perform(ours.session.preview(talk.chat, 0.0), 0.0)
    network.settle()
    return theirs, ours


class TestSession:
    @settings(max_examples=6)
    @given(NUMBERS)
    @pytest.mark.usefixtures("small")
    def test_it_changes_nothing_else(self, number: int) -> None:
        """I2, I6: whoever looks ends with what everybody ends with, and asks for no less."""
        talk = conversation(Dice(number), 60, epochs=8)
        sides = [met(talk, Dice(number), wished=wished) for wished in (True, False)]
        (full, looking), (_, other) = sides
        assert looking.replica.summary() == other.replica.summary() == full.replica.summary()
        assert looking.session.caught_up
        assert not other.previews

    @settings(max_examples=6)
    @given(NUMBERS)
    @pytest.mark.usefixtures("small")
    def test_the_newest_come_before_the_rest(self, number: int) -> None:
        talk = conversation(Dice(number), 60, epochs=8)
        _, ours = met(talk, Dice(number), wished=True)
        (runs,) = ours.previews
        heads = {
            chain.entries[-1].id
            for (_, lane), chain in talk.chains.items()
            if lane == CONTENT and chain.entries
        }
        shown = [entry for run in runs for entry in authentic(run)]
        assert heads <= {EntryId(entry.id) for entry in shown}
        wants = [frame for frame in ours.sent if isinstance(frame, Want)]
        lanes = [one.lane for one in wants]
        assert lanes == sorted(lanes), "control first"
        ends = [one for one in wants if one.lane == CONTENT][: len(runs)]
        assert {one.start for one in ends} == {run.start for run in runs}

    @pytest.mark.usefixtures("small")
    def test_absent(self) -> None:
        """A peer that has nothing after all is asked for the rest, and that is all."""
        talk = conversation(Dice(3), 60, epochs=8)
        full, empty = Replica("north", 99), Replica("south", 99)
        for run in talk.runs:
            full.take(run)
        network = Network(Dice(3), [full, empty])
        theirs, ours = network.connect(0, 1)
        ours.perform(ours.session.preview(talk.chat, 0.0), 0.0)
        while not (ends := [one for one in ours.sent if isinstance(one, Want) and one.start]):
            assert network.step()
        for one in ends:
            frame = Absent(one.chat, one.device, one.lane, one.start)
            ours.perform(ours.session.receive(frame, 0.0), 0.0)
        network.settle()
        assert ours.replica.summary() == theirs.replica.summary()


def ahead_of(talk: Conversation, entry: Entry) -> Chat:
    """A chat whose control lane alone is here."""
    chat = Replica("ahead")
    for run in talk.runs:
        if run.lane == CONTROL:
            chat.take(run)
    kept = chat.chats[talk.chat].chat
    kept.check_ahead(entry)
    return kept


class TestForgedEnds:
    """A node shows the end of a chat as it likes: what is shown all the same was written so."""

    @pytest.fixture
    def talk(self) -> Conversation:
        return conversation(Dice(5), 40, epochs=8)

    def last(self, talk: Conversation) -> tuple[Chain, Run]:
        chain = talk.chain(talk.people[0], CONTENT)
        return chain, chain.run(len(chain.entries) - 3)

    def test_what_was_written_passes(self, talk: Conversation) -> None:
        _, run = self.last(talk)
        for entry in authentic(run):
            assert ahead_of(talk, entry).id == talk.chat

    def test_a_signature_that_is_none(self, talk: Conversation) -> None:
        _, run = self.last(talk)
        forged = tuple((at, bytes(64)) for at, _ in run.signatures)
        with pytest.raises(Unauthentic):
            authentic(msgspec.structs.replace(run, signatures=forged))

    def test_another_text(self, talk: Conversation) -> None:
        _, run = self.last(talk)
        record = msgspec.msgpack.decode(run.records[-1])
        record[2] = b"never said"
        forged = (*run.records[:-1], msgspec.Raw(msgspec.msgpack.encode(record)))
        signatures = tuple(one for one in run.signatures if one[0] == len(run.records) - 1)
        with pytest.raises(Unauthentic):
            authentic(msgspec.structs.replace(run, records=forged, signatures=signatures))

    def test_a_stranger(self, talk: Conversation) -> None:
        """The node invents an author: no member, by the control lane that they name."""
        chain = Chain(signer("ghost"), talk.chat, CONTENT)
        chain.add(Step(b"hello", control=talk.story.heads(), epoch=talk.epochs[-1]))
        with pytest.raises(Inadmissible, match=r"may not write"):
            ahead_of(talk, authentic(chain.run(0))[0])

    def test_who_has_seen_that_they_are_out(self, talk: Conversation) -> None:
        removed = talk.people[3]
        talk.tell(talk.people[0], talk.story.tell(talk.people[0], Remove(removed.user, ())))
        assert removed.user not in resolve(talk.story.history()).users
        chain = talk.chain(removed, CONTENT)
        chain.add(Step(b"still here", control=talk.story.heads(), epoch=talk.epochs[-1]))
        with pytest.raises(Inadmissible, match=r"may not write"):
            ahead_of(talk, authentic(chain.run(len(chain.entries) - 1))[0])

    def test_an_epoch_that_a_member_is_missing_from(self, talk: Conversation) -> None:
        """Whoever was let in after an epoch began is not written past (SPEC 4.2)."""
        added = Admit((grant(person("elena@mz"), Role.MEMBER),))
        talk.tell(talk.people[0], talk.story.tell(talk.people[0], added))
        chain = talk.chain(talk.people[0], CONTENT)
        chain.add(Step(b"behind her back", control=talk.story.heads(), epoch=talk.epochs[-1]))
        with pytest.raises(Inadmissible):
            ahead_of(talk, authentic(chain.run(len(chain.entries) - 1))[0])

    def test_control_entries_that_are_kept_from_us(self, talk: Conversation) -> None:
        _, run = self.last(talk)
        with pytest.raises(Inadmissible, match="not here yet"):
            Chat(talk.chat).check_ahead(authentic(run)[0])

    def test_a_control_entry_among_content(self, talk: Conversation) -> None:
        with pytest.raises(Inadmissible, match="control entry"):
            ahead_of(talk, authentic(talk.runs[0])[0])
