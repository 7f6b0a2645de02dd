"""SPEC 2.4, 3, 4: admission of an entry depends on the entry and its ancestors, nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chat import Admission, Chat
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId, Reference
from protocol.errors import Inadmissible, Untrusted
from protocol.frame import Run, authentic
from protocol.operation import Admit, SetPolicy, SetRole
from protocol.policy import HistoryRule, Policy, Role
from protocol.run import Entry
from protocol.testing.cast import Person, grant, person
from protocol.testing.chains import Chain, Made, Step
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.network import Replica

NUMBERS = st.integers(0, 2**32)
STRANGER = person("egor@mvd")


def taken(talk: Conversation) -> Replica:
    replica = Replica("here")
    for run in talk.runs:
        replica.take(run)
    return replica


def judge(replica: Replica, run: Run) -> Admission:
    """Say what a replica would do with a run, without keeping it."""
    kept = replica.chats[run.chat]
    return kept.chat.admit(authentic(run), kept)


@dataclass
class Next:
    """The next message of somebody, and what is wrong with it."""

    talk: Conversation
    who: Person
    links: tuple[Reference, ...] = ()
    control: tuple[Reference, ...] | None = None
    epoch: EntryId | None = None
    generation: int | None = None
    replica: Replica = field(init=False)

    def judged(self) -> Admission:
        chain = self.talk.chain(self.who, CONTENT)
        control = self.talk.story.heads() if self.control is None else self.control
        step = Step(
            b"next",
            links=self.links,
            control=control,
            epoch=self.epoch or self.talk.epochs[-1],
            generation=self.generation,
        )
        branch = chain.fork(len(chain.entries))
        branch.add(step)
        self.replica = taken(self.talk)
        return judge(self.replica, branch.run(len(chain.entries)))


@pytest.fixture
def talk() -> Conversation:
    """Two epochs; of the second, two messages by anna (generations 0 and 1) and one by boris."""
    made = conversation(Dice(0), 0)
    anna, boris = made.people[:2]
    made.say(anna, b"first")
    made.say(boris, b"first")
    made.start_epoch(anna)
    made.say(anna, b"second")
    made.say(anna, b"third")
    made.say(boris, b"second")
    return made


class TestOrder:
    """I2, I12."""

    @given(NUMBERS, st.integers(0, 25), st.randoms(use_true_random=False))
    def test_any_order_ends_the_same(self, number: int, messages: int, random: Random) -> None:
        """Entries in any order, each tried again until it is in, amount to the same."""
        talk = conversation(Dice(number), messages, epochs=6)
        waiting = random.sample(talk.runs, len(talk.runs))
        replica = Replica("there")
        while waiting:
            before = len(waiting)
            waiting = [run for run in waiting if replica.take(run)[0].reached == run.start]
            assert len(waiting) < before
        assert replica.summary() == taken(talk).summary()
        ours, theirs = (kept.chats[talk.chat].chat.membership() for kept in (replica, taken(talk)))
        assert ours == theirs

    @given(NUMBERS, st.integers(1, 25), st.data())
    def test_any_split(self, number: int, messages: int, data: st.DataObject) -> None:
        """Whole chains, taken together in any order and with any signatures, come in at once."""
        talk = conversation(Dice(number), messages, epochs=6)
        runs = []
        for chain in talk.chains.values():
            count = len(chain.entries)
            signed = data.draw(st.sets(st.integers(0, count - 1)), label="signed")
            runs.append(chain.run(signed=signed | {count - 1}))
        replica = Replica("there")
        outcomes = replica.take(*data.draw(st.permutations(runs)))
        assert not any(outcome.missing or outcome.refused for outcome in outcomes)
        assert replica.summary() == taken(talk).summary()

    @given(NUMBERS, st.integers(0, 25))
    def test_what_is_missing_is_named(self, number: int, messages: int) -> None:
        """A replica without some entry of the past says which, by its right place and id."""
        talk = conversation(Dice(number), messages, epochs=6)
        dice = Dice(number + 1)
        gone = dice.pick(range(len(talk.runs)))
        replica = Replica("there")
        absent = {authentic(talk.runs[gone])[0].id}
        for at, run in enumerate(talk.runs):
            if at == gone:
                continue
            (outcome,) = replica.take(run)
            assert not outcome.refused or gone == 0
            if outcome.missing:
                absent.add(authentic(run)[0].id)
            assert all(item.id in absent for item in outcome.missing)
            assert all(item.seq >= item.have for item in outcome.missing)

    def test_again(self, talk: Conversation) -> None:
        """Case 36: what is known changes nothing, in whatever pieces it comes."""
        replica = taken(talk)
        before = replica.changes
        for chain in talk.chains.values():
            for start in range(len(chain.entries)):
                admission = judge(replica, chain.run(start))
                assert admission == Admission(known=len(chain.entries) - start)
                replica.take(chain.run(start))
        assert replica.changes == before

    def test_restored(self, talk: Conversation) -> None:
        """A judge that is made anew from what is stored says the same."""
        replica = taken(talk)
        kept = replica.chats[talk.chat]
        again = Chat(talk.chat)
        for told in talk.story.told:
            again.restore(told.header, told.id, told.payload)
        assert again.membership() == kept.chat.membership()


class TestContent:
    def test_as_it_should_be(self, talk: Conversation) -> None:
        for who in talk.people:
            admission = Next(talk, who).judged()
            assert (len(admission.entries), admission.refusal) == (1, None)

    @pytest.mark.parametrize("generation", [0, 1, 3, 99])
    def test_generation(self, talk: Conversation, generation: int) -> None:
        """Case 44: none is used twice, none is left out."""
        admission = Next(talk, talk.people[0], generation=generation).judged()
        assert isinstance(admission.refusal, Inadmissible)
        assert "generation" in str(admission.refusal)
        assert not admission.entries

    def test_an_epoch_begins_with_0(self, talk: Conversation) -> None:
        assert Next(talk, talk.people[2], generation=0).judged().entries
        admission = Next(talk, talk.people[2], generation=1).judged()
        assert "begins with generation 1" in str(admission.refusal)

    def test_no_way_back(self, talk: Conversation) -> None:
        admission = Next(talk, talk.people[0], epoch=talk.epochs[0]).judged()
        assert "no better rank" in str(admission.refusal)

    def test_what_a_peer_says_of_the_predecessor_counts_for_nothing(
        self, talk: Conversation
    ) -> None:
        """Or a relay could have a used generation admitted by lying about the one before."""
        chain = talk.chain(talk.people[0], CONTENT)
        branch = chain.fork(len(chain.entries))
        branch.add(Step(b"again", control=talk.story.heads(), generation=1))
        run = branch.run(len(chain.entries))
        before = branch.context(len(chain.entries))
        lie = before._replace(generation=0)
        assert before.generation == 1
        elapsed, pc, payload = msgspec.msgpack.decode(bytes(run.records[0]))[:3]
        record = msgspec.Raw(msgspec.msgpack.encode([elapsed, pc, payload]))
        lied = msgspec.structs.replace(run, context=lie, records=(record,))
        assert authentic(lied)[0].id == branch.entries[-1].id
        assert judge(taken(talk), lied).refusal

    def test_epoch_unknown(self, talk: Conversation) -> None:
        for epoch in (EntryId(bytes(32)), EntryId(talk.story.genesis.id)):
            admission = Next(talk, talk.people[2], epoch=epoch).judged()
            assert "not in the entry's past" in str(admission.refusal)

    def test_epoch_not_seen(self, talk: Conversation) -> None:
        """The epoch must be in the past of the control heads that the entry names."""
        genesis = talk.story.genesis.reference
        admission = Next(talk, talk.people[2], control=(genesis,)).judged()
        assert "not in the entry's past" in str(admission.refusal)

    def test_epoch_for_other_members(self, talk: Conversation) -> None:
        """Case 43: whoever joined is not among the recipients: a new epoch first."""
        talk.tell(
            talk.people[0], talk.story.tell(talk.people[0], Admit((grant(STRANGER, Role.MEMBER),)))
        )
        admission = Next(talk, talk.people[2]).judged()
        assert isinstance(admission.refusal, Inadmissible)
        talk.start_epoch(talk.people[0])
        assert Next(talk, talk.people[2]).judged().entries

    def test_an_epoch_of_before_the_policy_turned(self, talk: Conversation) -> None:
        """SPEC 4.2, 4: what is shared from now on needs an epoch that says so."""
        anna, boris = talk.people[:2]
        policy = SetPolicy(Policy(("RU",), 0, HistoryRule.SHARED))
        talk.tell(anna, talk.story.tell(anna, policy))
        assert "what is shared" in str(Next(talk, boris).judged().refusal)

    def test_older_control_heads(self, talk: Conversation) -> None:
        """Whoever has seen something cannot unsee it."""
        first = talk.chain(talk.people[0], CONTROL).entries[1].reference
        admission = Next(talk, talk.people[0], control=(first,)).judged()
        assert "older than" in str(admission.refusal)

    def test_control_heads_unknown(self, talk: Conversation) -> None:
        """Case 21: what is not here is waited for, in either lane."""
        reference = Reference(DeviceKey(bytes(32)), 7, EntryId(b"x" * 32))
        for asked in (
            Next(talk, talk.people[2], control=(reference,)),
            Next(talk, talk.people[2], links=(reference,)),
        ):
            (item,) = asked.judged().missing
            assert (item.device, item.seq, item.id, item.have) == (*reference, 0)

    def test_a_reference_to_the_wrong_place(self, talk: Conversation) -> None:
        told = talk.story.genesis.reference
        admission = Next(talk, talk.people[2], control=(told._replace(seq=5),)).judged()
        assert isinstance(admission.refusal, Inadmissible)

    def test_strangers(self, talk: Conversation) -> None:
        """Case 39."""
        admission = Next(talk, STRANGER).judged()
        assert "may not write" in str(admission.refusal)

    def test_readers(self, talk: Conversation) -> None:
        clara = talk.people[2]
        talk.tell(
            talk.people[0], talk.story.tell(talk.people[0], SetRole(clara.user, Role.READER, ()))
        )
        admission = Next(talk, clara).judged()
        assert "may not write" in str(admission.refusal)

    def test_the_rest_of_a_run_waits_or_is_refused(self, talk: Conversation) -> None:
        """What stands before the bad entry is admitted, case 27."""
        chain = talk.chain(talk.people[2], CONTENT)
        control = talk.story.heads()
        chain.extend([Step(control=control, epoch=talk.epochs[-1]), Step(), Step(generation=9)])
        admission = judge(taken(talk), chain.run())
        assert (len(admission.entries), bool(admission.refusal)) == (2, True)

    def test_many_views(self, talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was worked out about control heads is kept, but not without bound."""
        monkeypatch.setattr("protocol.chat.VIEWS_MAX", 1)
        replica = taken(talk)
        assert len(replica.chats[talk.chat].chat._views) == 1


class TestControl:
    def test_a_genesis_comes_first(self, talk: Conversation) -> None:
        """Whatever else comes first waits for what it has seen, or is refused."""
        boris = talk.people[1]
        told = talk.story.tell(boris, SetRole(talk.people[2].user, Role.READER, ()))
        talk.tell(boris, told)
        empty = Replica("there")
        (outcome,) = empty.take(talk.runs[-1])
        assert [item.id for item in outcome.missing] == [link.id for link in told.header.links]
        blind = Chain(boris.signers[0], talk.chat, CONTROL)
        blind.add(Step(told.payload, kind=told.header.kind))
        assert empty.take(blind.run())[0].refused

    def test_a_genesis_has_seen_nothing(self, talk: Conversation) -> None:
        """What it names cannot come before it, so there is nothing to wait for."""
        first = talk.story.genesis
        link = Reference(DeviceKey(bytes(32)), 0, EntryId(bytes(32)))
        chain = Chain(talk.people[0].signers[0], talk.chat, CONTROL)
        header = msgspec.structs.replace(first.header, links=(link,))
        chain.chat = ChatId(chain.append(header, first.payload).id)
        (outcome,) = Replica("there").take(chain.run())
        assert (outcome.refused, outcome.missing) == (True, ())

    def test_no_second_genesis(self, talk: Conversation) -> None:
        """Case 24: a genesis makes its own chat, and is nothing in another."""
        other = conversation(Dice(1), 0).story.genesis
        anna = talk.people[0]
        chain = Chain(anna.signers[0], ChatId(bytes(32)), CONTROL)
        chain.entries.append(
            Made(other.header, other.raw, other.id, other.payload, other.signature)
        )
        run = msgspec.structs.replace(chain.run(), chat=talk.chat)
        assert other.id == talk.story.genesis.id
        assert judge(taken(talk), run) == Admission(known=1)
        elsewhere = Replica("there")
        assert elsewhere.take(chain.run())[0].refused
        second = talk.chain(anna, CONTROL)
        second.add(Step(other.payload, kind=0, links=()))
        admission = judge(taken(talk), second.run(len(second.entries) - 1))
        assert "genesis" in str(admission.refusal)

    def test_without_its_payload(self, talk: Conversation) -> None:
        chain = talk.chain(talk.people[0], CONTROL)
        entries = authentic(chain.run())
        kept = Replica("there")
        kept.take(talk.runs[0])
        ledger = kept.chats[talk.chat]
        bare: Sequence[Entry] = [entries[0], msgspec.structs.replace(entries[1], payload=None)]
        admission = ledger.chat.admit(bare, ledger)
        assert "without its payload" in str(admission.refusal)
        assert admission.known == 1

    def test_strangers(self, talk: Conversation) -> None:
        told = talk.story.tell(STRANGER, SetRole(talk.people[2].user, Role.OWNER, ()))
        talk.tell(STRANGER, told)
        assert "no device of a member" in str(judge(taken(talk), talk.runs[-1]).refusal)

    def test_an_epoch_for_the_wrong_devices(self, talk: Conversation) -> None:
        """Case 43."""
        boris = talk.people[1]
        devices = [who.devices[0] for who in talk.people[:-1]]
        talk.tell(boris, talk.story.tell(boris, talk.story.epoch(boris, devices)))
        assert isinstance(judge(taken(talk), talk.runs[-1]).refusal, Inadmissible)

    def test_an_epoch_with_the_prekey_of_another(self, talk: Conversation) -> None:
        """Whoever seals an epoch later would stop at it: nobody could begin one any more."""
        anna, boris = talk.people[:2]
        operation = replace(
            talk.story.epoch(boris, [who.devices[0] for who in talk.people]),
            prekey=talk.story.epoch(anna, ()).prekey,
        )
        talk.tell(boris, talk.story.tell(boris, operation))
        assert isinstance(judge(taken(talk), talk.runs[-1]).refusal, Untrusted)

    def test_junk(self, talk: Conversation) -> None:
        chain = talk.chain(talk.people[0], CONTROL)
        for payload in (b"", b"\x90", b"\xc1", b"\x91" * 40):
            branch = chain.fork(len(chain.entries))
            branch.add(Step(payload, kind=3))
            assert judge(taken(talk), branch.run(len(chain.entries))).refusal


class TestBranches:
    def test_forks(self, talk: Conversation) -> None:
        """Case 17: both are admitted, each as a branch of its own, and again as known."""
        anna = talk.people[0]
        branch = talk.fork(anna, 1, 2)
        replica = taken(talk)
        admission = judge(replica, branch.run(1))
        assert (len(admission.entries), admission.branch) == (2, None)
        replica.take(branch.run())
        assert judge(replica, branch.run(0)) == Admission(known=3)
        branch.add(Step(control=talk.story.heads(), epoch=talk.epochs[-1]))
        more = judge(replica, branch.run(3))
        assert (len(more.entries), more.branch) == (1, 1)

    def test_from_the_first_entry_on(self, talk: Conversation) -> None:
        branch = talk.fork(talk.people[1], 0, 1)
        admission = judge(taken(talk), branch.run())
        assert (len(admission.entries), admission.branch) == (1, None)

    def test_no_room(self, talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> bool:
            return False

        monkeypatch.setattr("protocol.testing.network.Kept.takes_branch", full)
        branch = talk.fork(talk.people[1], 0, 1)
        assert judge(taken(talk), branch.run()) == Admission(surplus=True)

    def test_a_chain_that_does_not_fit(self, talk: Conversation) -> None:
        """Cases 18 and 28: the entry before is waited for by its id, never by its seq."""
        chain = talk.chain(talk.people[0], CONTENT)
        other = talk.fork(talk.people[0], 0, 9)
        (item,) = judge(taken(talk), other.run(5)).missing
        assert (item.seq, item.id, item.have) == (4, other.entries[4].id, len(chain.entries))
