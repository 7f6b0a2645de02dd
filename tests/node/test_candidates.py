"""I8, I9: chats that are not known to be ours: in memory, each peer's apart, until they are."""

from collections.abc import Sequence

import msgspec
import pytest

from node.candidates import CANDIDATE_BYTES, ENTRY_BYTES, Candidates
from node.ledger import AWAITED_MAX, Awaited
from node.replica import Replica
from protocol.chat import Missing
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId
from protocol.frame import authentic
from protocol.limits import BRANCHES_MAX
from protocol.operation import Admit, Checkpoint
from protocol.policy import Role
from protocol.testing.cast import grant
from protocol.testing.chains import Chain
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from tests.node.replicas import FYODOR, LATE, MVD, MZ, all_of, check_covers, entries, node, take


class TestRoom:
    def test_what_turned_out_to_be_ours_takes_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("node.candidates.CANDIDATES_BYTES_MAX", CANDIDATE_BYTES)
        candidates = Candidates()
        for number in range(3):
            chat = ChatId(bytes([number]) * 32)
            candidates.of(MZ, chat)
            candidates.make_room()
            assert len(candidates) == len(candidates.take(chat)) == 1
        assert candidates.lost(MZ) == 0


class TestCandidates:
    """I8: nothing of a chat reaches the disk before it concerns us."""

    def test_not_ours(self) -> None:
        talk = conversation(Dice(2), 5)
        replica = node(LATE)
        for run in talk.runs:
            (stored,) = take(replica, run)
            assert stored.appended == 0
            assert replica.holding(stored) is None
            outcome = stored.outcome
            assert (outcome.surplus or bool(outcome.missing)) == (run.lane == CONTENT)
            assert not outcome.refused, "whoever sends it may know more of the chat than we do"
        assert replica.store.chats() == []
        assert replica.store.connection.execute("SELECT count(*) FROM entries").get == 0

    def test_adopted(self) -> None:
        """Once a control entry takes our agency in, all that came before is there."""
        talk = conversation(Dice(2), 5)
        replica = node(LATE)
        controls = [run for run in talk.runs if run.lane == CONTROL]
        for run in controls:
            take(replica, run)
        talk.tell(
            talk.people[0], talk.story.tell(talk.people[0], Admit((grant(FYODOR, Role.MEMBER),)))
        )
        (stored,) = take(replica, talk.runs[-1])
        assert stored.appended == 1
        assert LATE in stored.readers
        assert FYODOR.devices[0] in stored.readers
        assert replica.holding(stored) is not None
        check_covers(replica, talk.chat)
        for run in talk.runs:
            take(replica, run)
        assert entries(replica, talk.chat) == all_of(talk)

    def test_content_waits_for_control(self) -> None:
        """It is held by whoever brought it, not refused: the rest is on its way."""
        talk = conversation(Dice(2), 3)
        replica = node()
        content = next(run for run in talk.runs if run.lane == CONTENT)
        (stored,) = take(replica, content)
        assert stored.outcome.missing
        assert not stored.outcome.refused
        found = take(replica, content, *(r for r in talk.runs if r.lane == CONTROL))
        assert found[0].appended == 1

    def test_content_never_waits_for_what_waits_for_it(self) -> None:
        """Nothing of it is stored yet, so none of it is worth waiting for."""
        talk = conversation(Dice(2), 0)
        anna, boris = talk.people[:2]
        for who in (anna, boris, anna):
            talk.say(who, b"an answer")
        replica = node(LATE)
        take(replica, *(run for run in talk.runs if run.lane == CONTROL))
        (hers,) = take(replica, talk.chain(anna, CONTENT).run())
        (his,) = take(replica, talk.chain(boris, CONTENT).run())
        for one in (hers, his):
            assert (one.outcome.missing, one.outcome.early) == ((), True)
            assert one.outcome.reached == 0

    def test_content_waits_for_control_entries(self) -> None:
        """They may be what lets us in."""
        talk = conversation(Dice(2), 0)
        anna = talk.people[0]
        talk.say(anna, b"an answer")
        (hers,) = take(node(LATE), talk.chain(anna, CONTENT).run())
        assert {item.lane for item in hers.outcome.missing} == {CONTROL}
        assert not hers.outcome.early

    def test_a_part_that_waits(self) -> None:
        """What was admitted before a gap counts when the chat is adopted."""
        talk = conversation(Dice(2), 0)
        anna, boris = talk.people[:2]
        talk.start_epoch(boris)
        talk.start_epoch(anna)
        talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),))))
        replica = node(LATE)
        chain = talk.chain(anna, CONTROL)
        (stored,) = take(replica, chain.run())
        assert stored.outcome.missing
        assert stored.outcome.reached == 2
        take(replica, talk.chain(boris, CONTROL).run())
        (rest,) = take(replica, chain.run())
        assert rest.outcome.reached == len(chain.entries)
        assert entries(replica, talk.chat) == all_of(talk)

    def test_forked(self) -> None:
        """Branches of a chain that forked before the chat was ours keep apart, and are proved."""
        talk = conversation(Dice(2), 0)
        chain, branch, other = forked_before_ours(talk)
        replica = node(LATE)
        for run in (chain.run(0, 1), chain.run(1, 2), branch.run(1, 2), branch.run(2, 3)):
            take(replica, run)
        take(replica, other.run())
        check_forked(replica, talk, (chain, branch, other))

    def test_forked_from_what_only_covers(self) -> None:
        """What covers the end of a part waits for its ancestor; the rival came, and goes apart."""
        talk = conversation(Dice(2), 0)
        anna, boris, clara = talk.people[:3]
        chain = talk.chain(anna, CONTROL)
        branch, seen = chain.fork(2), talk.story.told[:2]
        lacked = talk.story.tell(clara, Checkpoint(), seen)
        talk.tell(anna, talk.story.tell(anna, Checkpoint(), [*seen, lacked]))
        covering = chain.entries[2]
        rival = talk.story.retell(
            anna, Checkpoint((covering.reference,)), talk.story.told[-1], seen
        )
        branch.append(rival.header, rival.payload)
        joined = talk.story.tell(boris, Admit((grant(FYODOR, Role.MEMBER),)), seen)
        other = Chain(boris.signers[0], talk.chat, CONTROL)
        other.append(joined.header, joined.payload)
        replica = node(LATE)
        (waits,) = take(replica, chain.run(0, 3, signed=[2]))
        assert waits.outcome.reached == 2
        _, stored = take(replica, branch.run(2), other.run())
        assert stored.fork is not None
        check_covers(replica, talk.chat)

    def test_forked_many_ways(self) -> None:
        """As where a chat is stored: of many branches no more is kept than others refer to."""
        talk = conversation(Dice(2), 0)
        anna, boris = talk.people[:2]
        chain = talk.chain(anna, CONTROL)
        told = talk.story.tell(anna, Checkpoint(), seen=[])
        branches = []
        for number in range(3 * BRANCHES_MAX):
            branch = chain.fork(2)
            header = msgspec.structs.replace(told.header, time=told.header.time + number)
            branch.append(header, told.payload)
            branches.append(branch)
        last = branches[-1].entries[-1]
        joined = talk.story.tell(boris, Admit((grant(FYODOR, Role.MEMBER),)), seen=[])
        other = Chain(boris.signers[0], talk.chat, CONTROL)
        links = tuple(sorted((*joined.header.links, last.reference)))
        other.append(msgspec.structs.replace(joined.header, links=links), joined.payload)
        replica = node(LATE)
        brought = take(replica, chain.run(), *(branch.run(2) for branch in branches))
        assert sum(one.outcome.surplus for one in brought) == 2 * BRANCHES_MAX
        (waits,) = take(replica, other.run())
        assert [item.id for item in waits.outcome.missing] == [last.id]
        take(replica, branches[-1].run(2), other.run())
        stored = replica.store.chat(talk.chat)
        assert stored is not None
        assert len(stored.chains[chain.device, CONTROL]) == BRANCHES_MAX + 1
        check_covers(replica, talk.chat)

    def test_brought_by_two(self) -> None:
        """What each has brought counts when the chat is adopted, though neither has all."""
        talk = conversation(Dice(2), 0)
        anna, boris = talk.people[:2]
        talk.start_epoch(boris)
        admission = talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),)), seen=[])
        talk.tell(anna, admission)
        replica = node(LATE)
        his = talk.chain(boris, CONTROL).run()
        before = talk.chain(anna, CONTROL).run(0, 2)
        take(replica, before, his, peer=MZ)
        (stored,) = take(replica, talk.chain(anna, CONTROL).run(), peer=MVD)
        assert stored.appended == len(talk.chain(anna, CONTROL).entries)
        assert entries(replica, talk.chat) == all_of(talk)
        check_covers(replica, talk.chat)
        assert len(replica.candidates) == 0

    def test_brought_by_two_and_forked(self) -> None:
        """Each has brought another branch of a chain."""
        talk = conversation(Dice(2), 0)
        chain, branch, other = forked_before_ours(talk)
        replica = node(LATE)
        take(replica, branch.run(0, 1), branch.run(1), peer=MZ)
        (_, stored) = take(replica, chain.run(), other.run(), peer=MVD)
        assert stored.fork is not None
        check_forked(replica, talk, (chain, branch, other))

    @pytest.mark.parametrize("lane", [CONTROL, CONTENT])
    def test_bounded(self, lane: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """I9: whoever brings most loses theirs, and nobody else does."""
        room = 40 * CANDIDATE_BYTES
        monkeypatch.setattr("node.candidates.CANDIDATES_BYTES_MAX", room)
        replica = node(LATE)
        first = conversation(Dice(1), 0).runs[0]
        take(replica, first, peer=MZ)
        run = next(run for run in conversation(Dice(2), 3).runs if run.lane == lane)
        for number in range(100):
            elsewhere = msgspec.structs.replace(run, chat=ChatId(number.to_bytes(32)))
            with replica.store.connection:
                replica.append_together([(elsewhere, authentic(run))], MVD)
        assert 30 < len(replica.candidates) <= 40
        assert replica.candidates.lost(MVD) > 50
        assert replica.candidates.lost(MZ) == 0
        assert first.chat in replica.candidates._brought[MZ]
        replica.forget()
        assert (len(replica.candidates), replica.candidates.lost(MZ)) == (0, 1)

    def test_bounded_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("node.candidates.CANDIDATES_BYTES_MAX", 1)
        replica = node(LATE)
        take(replica, conversation(Dice(1), 0).runs[0])
        assert len(replica.candidates) == 0

    def test_what_each_has_seen_counts(self) -> None:
        """I9: of each entry it is known which came before it; of many that is most of it."""
        talk = conversation(Dice(1), 0)
        anna = talk.people[0]
        replica = node(LATE)
        for _ in range(256):
            talk.tell(anna, talk.story.tell(anna, Checkpoint()))
        for run in talk.runs[:-1]:
            take(replica, run)
        before = replica.candidates._sizes.total()
        take(replica, talk.runs[-1])
        grown = replica.candidates._sizes.total() - before
        assert grown == ENTRY_BYTES + len(bytes(talk.runs[-1].records[0])) + len(talk.runs) // 8

    def test_nobody_is_made_to_forget_what_is_awaited(self) -> None:
        """A peer whose entries wait for much takes no room from what others wait for."""
        awaited = Awaited()
        mine = [Missing(DeviceKey(MZ), CONTENT, 1, EntryId(bytes(32)), 0)]
        awaited.note(MZ, mine)
        for number in range(1, AWAITED_MAX + 10):
            entry = EntryId(number.to_bytes(32))
            awaited.note(MVD, [Missing(DeviceKey(MVD), CONTENT, 1, entry, 0)])
        assert mine[0].id in awaited
        assert EntryId((1).to_bytes(32)) not in awaited
        assert EntryId((AWAITED_MAX + 9).to_bytes(32)) in awaited


def forked_before_ours(talk: Conversation) -> tuple[Chain, Chain, Chain]:
    """Return two branches of a chain, and the chain that lets us in after that."""
    anna, boris = talk.people[:2]
    genesis, epoch = talk.story.told
    chain = talk.chain(anna, CONTROL)
    devices = epoch_devices(talk)
    rival = talk.story.retell(anna, talk.story.epoch(anna, devices), epoch, [genesis])
    branch = chain.fork(1)
    branch.append(rival.header, rival.payload)
    more = talk.story.tell(anna, talk.story.epoch(anna, devices), seen=[])
    branch.append(more.header, more.payload)
    joined = talk.story.tell(boris, Admit((grant(FYODOR, Role.MEMBER),)), seen=[epoch])
    other = Chain(boris.signers[0], talk.chat, CONTROL)
    other.append(joined.header, joined.payload)
    return chain, branch, other


def check_forked(replica: Replica, talk: Conversation, chains: Sequence[Chain]) -> None:
    expected = {made.id for part in chains for made in part.entries}
    assert entries(replica, talk.chat) == expected
    check_covers(replica, talk.chat)
    stored = replica.store.chat(talk.chat)
    assert stored is not None
    assert len(replica.sharing.forks(stored)) == 1, "who joins late can prove it, too"


def epoch_devices(talk: Conversation) -> Sequence[DeviceKey]:
    return [who.devices[0] for who in talk.people]
