"""SPEC 6.4, 10: judging and keeping runs in a database."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.replica import Replica
from node.runs import read_run
from node.stored import Stored
from protocol.entry import CONTENT, CONTROL, ChatId, ContentHeader, DeviceKey
from protocol.errors import Inadmissible, PeerError
from protocol.fork import encode_proof, verify_fork
from protocol.frame import ChatHeads, Forked, Head, Holding, Run, Want, authentic
from protocol.intake import Intake
from protocol.limits import BRANCHES_MAX, KEYFRAME_ENTRIES, RUN_BYTES_MAX
from protocol.operation import Admit
from protocol.policy import Role
from protocol.run import Entry, pack
from protocol.testing import network
from protocol.testing.cast import Person, agency, grant
from protocol.testing.chains import Chain, Step
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from tests.node.replicas import FYODOR, LATE, MZ, all_of, check_covers, entries, node, take

NUMBERS = st.integers(0, 2**32)


class TestAppend:
    @settings(max_examples=25)
    @given(NUMBERS, st.integers(0, 40), st.data())
    def test_like_in_memory(self, number: int, messages: int, data: st.DataObject) -> None:
        """Any pieces in any order, with few signatures: what is stored is what they amount to."""
        talk = conversation(Dice(number), messages, epochs=6)
        pieces = []
        for chain in talk.chains.values():
            count = len(chain.entries)
            cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=3)) | {0, count})
            pieces += [chain.run(a, b, signed=[b - 1]) for a, b in pairwise(cuts)]
        waiting = data.draw(st.permutations(pieces))
        replica = node()
        while waiting:
            size = data.draw(st.integers(1, len(waiting)))
            group, waiting = waiting[:size], waiting[size:]
            found = take(replica, *group)
            assert not any(one.outcome.refused for one in found)
            waiting += [one.run for one in found if one.outcome.missing or one.outcome.early]
            if replica.store.chat(talk.chat) is not None:
                check_covers(replica, talk.chat)
        assert entries(replica, talk.chat) == all_of(talk)

    def test_after_a_restart(self, tmp_path: Path) -> None:
        """The judge is made anew from the database, whatever the order of arrival was."""
        talk = conversation(Dice(4), 40, epochs=5)
        half = len(talk.runs) // 2
        first = node(path=tmp_path / "replica.db")
        for run in talk.runs[:half]:
            take(first, run)
        first.store.connection.close()
        again = node(path=tmp_path / "replica.db")
        for run in talk.runs[half:]:
            assert take(again, run)[0].appended == 1
            again.forget()
        chat = again.chat(talk.chat)
        assert chat is not None
        assert chat.membership() == network_of(talk).chats[talk.chat].chat.membership()
        assert entries(again, talk.chat) == all_of(talk)

    def test_long_chains(self) -> None:
        """Runs that begin at, before and after keyframes, each with its true predecessor."""
        talk = conversation(Dice(0), 0)
        for number in range(3 * KEYFRAME_ENTRIES):
            talk.say(talk.people[0], b"%d" % number)
        replica = node()
        for run in talk.runs:
            assert take(replica, run)[0].appended == 1
            replica.store.forget()
        check_covers(replica, talk.chat)

    @pytest.mark.parametrize("lane", [CONTROL, CONTENT])
    def test_a_context_that_is_a_lie(self, lane: int) -> None:
        """A record that makes up for a wrong context gives the right header; it is put right."""
        talk = conversation(Dice(0), 0)
        anna = talk.people[0]
        for number in range(3):
            talk.say(anna, b"%d" % number)
            talk.start_epoch(anna)
        chain = talk.chain(anna, lane)
        last = len(chain.entries) - 1
        made = chain.entries[last]
        true = chain.context(last)
        lie = true._replace(time=true.time + 1000)
        if isinstance(made.header, ContentHeader):
            lie = lie._replace(control=made.header.control)
        record = msgspec.Raw(pack(made.header, made.payload, lie))
        assert bytes(record) != chain.record(last)
        honest = chain.run(last)
        run = msgspec.structs.replace(honest, context=lie, records=(record,))
        replica = node()
        for one in talk.runs:
            take(replica, run if authentic(one)[0].id == made.id else one)
        check_covers(replica, talk.chat)
        want = Want(talk.chat, chain.device, lane, made.id[:8], 0, last + 1)
        served = read_run(replica.store, want)
        assert served is not None
        assert [entry.id for entry in authentic(served)] == [one.id for one in chain.entries]

    def test_a_cover_that_comes_again_without_its_signature(self) -> None:
        """What it covered is still authentic: else nobody could be shown it, ever."""
        talk, anna, boris = who_waits_for_another()
        chain = talk.chain(anna, CONTENT)
        replica = node()
        take(replica, *(run for run in talk.runs if run.lane == CONTROL))
        (waits,) = take(replica, chain.run(0, 64, signed=[63]))
        assert (waits.appended, len(waits.outcome.missing)) == (63, 1)
        take(replica, talk.chain(boris, CONTENT).run())
        (stored,) = take(replica, chain.run(63, signed=[126]))
        assert stored.appended == 64
        check_covers(replica, talk.chat)

    def test_a_part_of_a_cover_comes(self) -> None:
        """The rest of it covers on, though what comes would be covered by something farther."""
        talk, anna, boris = who_waits_for_another()
        chain = talk.chain(anna, CONTENT)
        replica = node()
        take(replica, *(run for run in talk.runs if run.lane == CONTROL))
        take(replica, chain.run(0, 64, signed=[63]))
        take(replica, chain.run(0, 20, signed=[19]), chain.run(20, 64, signed=[63]))
        check_covers(replica, talk.chat)
        take(replica, talk.chain(boris, CONTENT).run())
        take(replica, chain.run(63, 64, signed=[63]), chain.run(64, signed=[126]))
        check_covers(replica, talk.chat)

    def test_a_cover_that_another_branch_would_replace(self) -> None:
        """Each has a place: the peer of whoever serves them must not take that for a lie."""
        talk, anna, _ = who_waits_for_another()
        branch = talk.fork(anna, 63, 64)
        replica = node()
        take(replica, *(run for run in talk.runs if run.lane == CONTROL))
        take(replica, talk.chain(anna, CONTENT).run(0, 64, signed=[63]))
        (stored,) = take(replica, branch.run(63, signed=[126]))
        assert stored.appended == 64
        first, second = (chain.entries[at].id[:8] for chain, at in ((branch, 62), (branch, 126)))
        wants = [Want(talk.chat, branch.device, CONTENT, first, 0, 63)]
        wants.append(Want(talk.chat, branch.device, CONTENT, second, 63, 127))
        for want in wants:
            served = read_run(replica.store, want)
            assert served is not None
            assert len(authentic(served)) == len(served.records) >= want.stop - want.start
        uncovered = Want(talk.chat, branch.device, CONTENT, second, 0, 127)
        assert read_run(replica.store, uncovered) is None

    def test_what_only_covers_is_one_side_of_a_fork(self) -> None:
        """Two signed entries stand at one place, though one of them waits to be admitted."""
        talk, anna, boris = who_waits_for_another()
        chain, branch = talk.chain(anna, CONTENT), talk.fork(anna, 63, 64)
        replica = node()
        take(replica, *(run for run in talk.runs if run.lane == CONTROL))
        _, rival = take(replica, chain.run(0, 64, signed=[63]), branch.run(63, signed=[126]))
        assert rival.appended == 64
        assert rival.fork is not None
        assert verify_fork(rival.fork.proof).seq == 63
        take(replica, talk.chain(boris, CONTENT).run())
        rest = take(replica, chain.run(63, 64, signed=[63]), chain.run(64, signed=[126]))
        assert [(one.appended, one.fork) for one in rest] == [(1, None), (63, None)]

    def test_a_run_that_fits_by_a_lie(self) -> None:
        """A wrong context makes a record short; with the true one the run would be too long."""
        talk = conversation(Dice(0), 0)
        anna, *others = talk.people
        talk.say(anna, b"first")
        for who in (*others, anna):
            talk.start_epoch(who)
        for _ in range(4):
            talk.say(anna, bytes(50_000))
        chain = talk.chain(anna, CONTENT)
        header = chain.entries[1].header
        assert isinstance(header, ContentHeader)
        lie = chain.context(1)._replace(control=header.control)
        first = pack(header, chain.entries[1].payload, lie)
        so_far = len(first) + sum(len(chain.record(seq)) for seq in range(2, 5))
        talk.say(anna, bytes(RUN_BYTES_MAX - so_far - 100))
        true = chain.run(1, signed=[5])
        records = (msgspec.Raw(first), *true.records[1:])
        run = msgspec.structs.replace(true, context=lie, records=records)
        sizes = [sum(len(bytes(raw)) for raw in one.records) for one in (run, true)]
        assert sizes[0] <= RUN_BYTES_MAX < sizes[1]
        replica = node()
        take(replica, *(one for one in talk.runs if one.lane == CONTROL), chain.run(0, 1), run)
        check_covers(replica, talk.chat)
        assert entries(replica, talk.chat) == all_of(talk)

    def test_again(self) -> None:
        """Case 36: duplicates write nothing."""
        talk = conversation(Dice(4), 20)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        before = replica.store.connection.total_changes()
        for chain in talk.chains.values():
            (stored,) = take(replica, chain.run())
            assert (stored.appended, stored.outcome.reached) == (0, len(chain.entries))
        assert replica.store.connection.total_changes() == before

    def test_two_who_answer_each_other(self) -> None:
        """One transaction, and work that does not grow with the square."""
        talk = conversation(Dice(1), 0)
        for number in range(400):
            talk.say(talk.people[number % 2], b"%d" % number)
        replica = node()
        found = take(replica, *(chain.run(signed=None) for chain in talk.chains.values()))
        assert not any(one.outcome.missing for one in found)
        assert sum(one.appended for one in found) >= 400
        assert entries(replica, talk.chat) == all_of(talk)


def network_of(talk: Conversation) -> network.Replica:
    made = network.Replica("memory")
    for run in talk.runs:
        made.take(run)
    return made


def who_waits_for_another() -> tuple[Conversation, Person, Person]:
    """Return a chat in which anna's entry 63 answers boris, and hers before that do not."""
    talk = conversation(Dice(0), 0)
    anna, boris = talk.people[:2]
    for number in range(63):
        talk.say(anna, b"%d" % number)
    talk.say(boris, b"an answer")
    for number in range(64):
        talk.say(anna, b"%d" % number)
    return talk, anna, boris


def pull(here: Replica, there: Replica, chat: ChatId, heads: Sequence[Head]) -> None:
    """Ask for these heads as a session does, until nothing is asked for any more."""
    stored = here.store.create_chat(chat)
    have = {key: max(one.length for one in chain) for key, chain in stored.chains.items()}
    intake = Intake()
    intake.open_page(1)
    starts = [have.get((one.device, one.lane), 0) for one in heads]
    intake.lacking(
        [
            Want(chat, one.device, one.lane, one.prefix, min(start, one.seq), one.seq + 1)
            for one, start in zip(heads, starts, strict=True)
        ]
    )
    while wants := intake.ask(0.0):
        for want in wants:
            run = read_run(there.store, want)
            if run is None:
                intake.absent((chat, want.device, want.lane), want.start, 0.0)
                continue
            intake.received(run, 0.0)
            judged = [run]
            while judged:
                ready = []
                for one, found in zip(judged, take(here, *judged), strict=True):
                    ready += intake.judged(one, found.outcome)
                judged = ready


class TestForks:
    @pytest.mark.parametrize("first", [0, 1])
    @pytest.mark.parametrize("at", [1, 40, 63])
    def test_a_branch_that_is_covered_from_the_fork_on_only(
        self, tmp_path: Path, first: int, at: int
    ) -> None:
        """Whoever signs rarely on both branches keeps neither from anybody."""
        talk, anna, boris = who_waits_for_another()
        branch = talk.fork(anna, at, 64)
        there, here = node(), node(path=tmp_path / "replica.db")
        lane = [run for run in talk.runs if run.lane == CONTROL]
        for replica in (there, here):
            take(replica, *lane, talk.chain(boris, CONTENT).run())
        take(there, talk.chain(anna, CONTENT).run(0, 64, signed=[63]))
        (stored,) = take(there, branch.run(at, at + 64, signed=[at + 63]))
        assert stored.appended == 64
        chain = there.store.create_chat(talk.chat).chains[branch.device, CONTENT]
        heads = [Head(branch.device, CONTENT, one.length - 1, one.head[:8]) for one in chain]
        pull(here, there, talk.chat, heads if first else heads[::-1])
        assert entries(here, talk.chat) == entries(there, talk.chat)

    def test_a_proof_for_each_branch(self) -> None:
        """Case 17; and none for each entry that goes on with a branch."""
        talk = conversation(Dice(3), 30, epochs=10**9)
        who = talk.people[0]
        chain = talk.chain(who, CONTENT)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        branch = talk.fork(who, 1, 3)
        (first,) = take(replica, branch.run(1, 2))
        assert first.fork is not None
        assert verify_fork(first.fork.proof).seq == 1
        (second,) = take(replica, branch.run(2))
        assert (second.appended, second.fork) == (2, None)
        expected = all_of(talk) | {made.id for made in branch.entries}
        assert entries(replica, talk.chat) == expected
        assert len(chain.entries) > 2
        check_covers(replica, talk.chat)

    def test_a_fork_of_what_waited_together(self) -> None:
        """I5: of two held runs one ends unsigned where it waits again, the other forks it."""
        talk = conversation(Dice(5), 20)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        late = []
        for who in talk.people[:2]:
            chain = talk.chain(who, CONTENT)
            step = Step(b"late", control=talk.story.heads(), epoch=talk.epochs[-1])
            late.append((chain.add(step).reference, chain.run(len(chain.entries) - 1)))
        chain = talk.chain(talk.people[2], CONTENT)
        at = len(chain.entries)
        one = chain.fork(at)
        links = {0: (late[0][0],), 3: (late[1][0],)}
        for number in range(6):
            control, epoch = talk.story.heads(), talk.epochs[-1]
            one.add(Step(b"one", control=control, epoch=epoch, links=links.get(number, ())))
        other = one.fork(at + 1)
        other.add(Step(b"other", control=talk.story.heads(), epoch=talk.epochs[-1]))
        *_, fork = take(replica, late[0][1], one.run(at, at + 6, [at + 5]), other.run(at + 1))
        assert fork.fork is not None
        assert verify_fork(fork.fork.proof).seq == at + 1

    def test_what_waits_is_judged_again_when_that_is_here(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """I10: not when another branch of it has come as far; each is judged twice at most."""
        talk = conversation(Dice(5), 20)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        chain = talk.chain(talk.people[0], CONTENT)
        step = Step(b"late", control=talk.story.heads(), epoch=talk.epochs[-1])
        before = late = chain.add(step).reference
        runs = []
        for number in range(40):
            made = Chain(talk.people[1 + number % 2].signers[0], talk.chat, CONTENT)
            links = tuple(sorted({late, before}))
            step = Step(b"%d" % number, control=talk.story.heads(), epoch=talk.epochs[-1])
            before = made.add(step._replace(links=links)).reference
            runs.append(made.run(0))
        judged: list[object] = []
        inner = replica._append

        def counted(run: Run, entries: Sequence[Entry], peer: bytes) -> Stored:
            judged.append(run)
            return inner(run, entries, peer)

        monkeypatch.setattr(replica, "_append", counted)
        found = take(replica, *runs[::-1], chain.run(len(chain.entries) - 1))
        (left,) = [one for one in found if not one.appended]
        assert left.outcome.surplus, "nothing refers to it: one branch too many"
        assert len(judged) <= 2 * len(found)

    def test_proofs_of_others(self) -> None:
        talk = conversation(Dice(3), 30, epochs=10**9)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        who = talk.people[0]
        chain, branch = talk.chain(who, CONTENT), talk.fork(who, 1, 1)
        forked = Forked(talk.chat, encode_proof(chain.cover(1), branch.cover(1)))
        assert replica.keep_fork(forked) == forked
        assert replica.keep_fork(forked) is None
        with pytest.raises(PeerError):
            replica.keep_fork(Forked(talk.chat, b"junk"))
        elsewhere = Forked(ChatId(bytes(32)), forked.proof)
        with pytest.raises(Inadmissible):
            replica.keep_fork(elsewhere)

    def test_one_branch_too_many(self) -> None:
        """It is left out without blame, and without harm, unless something refers to it."""
        talk = conversation(Dice(3), 0)
        anna, boris = talk.people[:2]
        talk.say(anna, b"0")
        replica = node()
        for run in talk.runs:
            take(replica, run)
        branches = []
        for number in range(1, BRANCHES_MAX + 2):
            branch = Chain(anna.signers[0], talk.chat, CONTENT)
            branch.add(Step(b"%d" % number, control=talk.story.heads(), epoch=talk.epochs[-1]))
            branches.append(branch)
        outcomes = [take(replica, branch.run())[0].outcome for branch in branches]
        assert [outcome.surplus for outcome in outcomes] == [False] * (BRANCHES_MAX - 1) + [
            True
        ] * 2
        assert not any(outcome.refused for outcome in outcomes)
        answer = Chain(boris.signers[0], talk.chat, CONTENT)
        link = branches[-1].entries[0].reference
        answer.add(Step(links=(link,), control=talk.story.heads(), epoch=talk.epochs[-1]))
        assert take(replica, answer.run())[0].outcome.missing[0].id == link.id
        assert take(replica, branches[-1].run())[0].appended == 1
        assert take(replica, answer.run())[0].appended == 1
        assert take(replica, branches[-2].run())[0].outcome.surplus

    def test_an_inadmissible_entry_covers(self) -> None:
        """What its author signed only with an entry that no rule allows is served nonetheless."""
        talk = conversation(Dice(3), 0)
        anna = talk.people[0]
        chain = Chain(anna.signers[0], talk.chat, CONTENT)
        control = talk.story.heads()
        chain.extend([Step(control=control, epoch=talk.epochs[-1])] + [Step()] * 4)
        chain.extend([Step(generation=99)])
        replica = node()
        for run in talk.runs:
            take(replica, run)
        (stored,) = take(replica, chain.run(signed=[5]))
        assert (stored.appended, stored.outcome.refused) == (5, True)
        check_covers(replica, talk.chat)
        head = chain.entries[4]
        served = read_run(replica.store, Want(talk.chat, chain.device, CONTENT, head.id[:8], 0, 5))
        assert served is not None
        assert network_of(talk).take(served)[0].reached == 5


class TestCompare:
    def test_what_is_lacking(self) -> None:
        talk = conversation(Dice(6), 20, epochs=10**9)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        chain = talk.chain(talk.people[0], CONTENT)
        count = len(chain.entries)

        def wants(head: Head) -> list[tuple[int, int]]:
            found = replica.compare([ChatHeads(talk.chat, (head,))])
            return [(item.start, item.stop) for item in found]

        def head(seq: int, prefix: bytes | None = None) -> Head:
            return Head(chain.device, CONTENT, seq, prefix or chain.entries[seq].id[:8])

        assert wants(head(count - 1)) == wants(head(0)) == []
        assert wants(head(count + 4, bytes(8))) == [(count, count + 5)]
        assert wants(head(0, bytes(8))) == [(0, 1)]
        unknown = ChatHeads(ChatId(bytes(32)), (head(3),))
        assert [item.start for item in replica.compare([unknown])] == [0]

    def test_whom_is_listened_to(self) -> None:
        """Members' agencies; anybody of a chat that is not stored here."""
        talk = conversation(Dice(6), 0)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        news = [ChatHeads(talk.chat, ()), ChatHeads(ChatId(bytes(32)), ())]
        assert replica.heard(news, agency("mvd").root.public) == news
        assert replica.heard(news, LATE) == news[1:]

    def test_heard_before_one_was_let_in(self) -> None:
        """What a stranger listed is taken up once it is in, until it is here.

        Regression: of two branches of a chain only the one listed last was.
        """
        talk = conversation(Dice(6), 0)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        anna = talk.people[0]
        chain = [Head(FYODOR.devices[0], CONTENT, seq, bytes([seq]) * 8) for seq in (3, 4)]
        known = Head(anna.devices[0], CONTROL, 0, bytes(talk.chat[:8]))
        for head in chain:
            replica.set_aside([ChatHeads(talk.chat, (head, known))], LATE)
        assert replica.take_up(LATE) == []
        talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),))))
        (stored,) = take(replica, talk.runs[-1])
        assert stored.entered == {LATE}
        wanted = [
            Want(talk.chat, FYODOR.devices[0], CONTENT, head.prefix, 0, head.seq + 1)
            for head in chain
        ]
        assert replica.take_up(LATE) == wanted
        assert replica.take_up(LATE) == wanted, "it is not here yet"
        assert [head for item in replica.sharing.unheard(LATE) for head in item.heads] == chain

    def test_unheard_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """I9: of what a stranger lists the newest is kept."""
        monkeypatch.setattr("node.sharing.UNHEARD_MAX", 3)
        talk = conversation(Dice(6), 0)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        heads = tuple(Head(DeviceKey(bytes([n]) * 32), CONTENT, 0, bytes(8)) for n in range(5))
        replica.set_aside([ChatHeads(talk.chat, heads)], LATE)
        replica.set_aside([ChatHeads(talk.chat, heads)], agency("mvd").root.public)
        rows = replica.store.connection.execute("SELECT peer, device FROM unheard ORDER BY device")
        assert rows.fetchall() == [(LATE, head.device) for head in heads[2:]]

    def test_of_a_chain_as_many_as_it_may_have_branches(self) -> None:
        talk = conversation(Dice(6), 0)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        device = FYODOR.devices[0]
        heads = tuple(Head(device, CONTENT, seq, bytes(8)) for seq in range(BRANCHES_MAX + 2))
        for head in heads:
            replica.set_aside([ChatHeads(talk.chat, (head,))], LATE)
        rows = replica.store.connection.execute("SELECT seq FROM unheard ORDER BY seq").fetchall()
        assert rows == [(head.seq,) for head in heads[2:]]

    def test_a_page_of_many_chats_is_bounded_at_once(self) -> None:
        """Whoever was in thousands of chats lists one head of each, as often as they like."""
        replica = node()
        chats = [ChatId(number.to_bytes(32)) for number in range(20)]
        for chat in chats:
            replica.store.create_chat(chat)
        head = Head(DeviceKey(bytes(32)), CONTENT, 0, bytes(8))
        removing: list[str] = []

        def trace(_: object, statement: str, __: object) -> bool:
            removing.extend([statement] if statement.startswith("DELETE") else [])
            return True

        replica.store.connection.exec_trace = trace
        replica.set_aside([ChatHeads(chat, (head,)) for chat in chats], LATE)
        assert len(removing) == 1


class TestHoldings:
    def test_in_ones_own_name(self) -> None:
        """A node speaks for its agency, of chains that exist, in chats that it is in."""
        talk = conversation(Dice(6), 4)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        chain = next(chain for chain in talk.chains.values() if chain.lane == CONTENT)
        mvd = DeviceKey(agency("mvd").root.public)
        good = Holding(mvd, talk.chat, chain.device, CONTENT, 0)
        for holding, peer, kept in (
            (good, mvd, True),
            (good, LATE, False),
            (good, agency("fns").root.public, False),
            (msgspec.structs.replace(good, chat=ChatId(bytes(32))), mvd, False),
            (msgspec.structs.replace(good, device=DeviceKey(bytes(32))), mvd, False),
        ):
            assert replica.note_holdings([holding], peer) == ([holding] if kept else [])

    def test_acknowledged(self) -> None:
        """A node acknowledges what it stores, up to where it stores it."""
        talk = conversation(Dice(6), 4)
        replica = node()
        for run in talk.runs:
            (stored,) = take(replica, run)
            holding = replica.holding(stored)
            assert holding is not None
            assert (holding.agency, holding.seq) == (MZ, run.start)
        missing = talk.fork(talk.people[0], 0, 9).run(5)
        assert replica.holding(take(replica, missing)[0]) is None
