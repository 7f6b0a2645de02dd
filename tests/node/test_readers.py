"""SPEC 6.3: who may see a chat, what whoever is out is still shown, and what a return brings."""

import pytest

from node.seals import OLDEST
from protocol.entry import CONTROL, ChatId
from protocol.frame import Want
from protocol.history import History
from protocol.membership import Membership, resolve
from protocol.operation import Admit, Checkpoint, Leave, Remove
from protocol.policy import Role
from protocol.testing.cast import grant
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.replicas import FYODOR, LATE, node, take


class TestReaders:
    def test_readers(self) -> None:
        """Case 42: agencies of members and own devices; whoever is removed is no reader."""
        talk = conversation(Dice(6), 0)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        anna, boris, clara, dina = talk.people
        agencies = {who.agency.root.public for who in talk.people}
        own = {anna.devices[0], clara.devices[0]}
        assert replica.readers_of(talk.chat) == agencies | own
        talk.tell(anna, talk.story.tell(anna, Remove(dina.user, ())))
        take(replica, talk.runs[-1])
        assert replica.readers_of(talk.chat) == agencies - {dina.agency.root.public} | own
        assert replica.readers_of(ChatId(bytes(32))) == frozenset()
        assert boris.agency.root.public in replica.readers_of(talk.chat)

    def test_who_leaves_is_shown_it(self) -> None:
        """Also if somebody has written meanwhile who had never seen them in."""
        talk = conversation(Dice(6), 0)
        anna, boris = talk.people[:2]
        before = talk.story.told[-1]
        late = grant(FYODOR, Role.MEMBER)
        talk.tell(anna, talk.story.tell(anna, Admit((late,))))
        admitted = talk.story.told[-1]
        talk.tell(boris, talk.story.tell(boris, Checkpoint(), [before]))
        talk.tell(FYODOR, talk.story.tell(FYODOR, Leave(), [admitted]))
        replica = node(LATE)
        for run in talk.runs:
            take(replica, run)
        assert LATE not in replica.readers_of(talk.chat)
        left = talk.runs[-1]
        head = bytes(talk.story.told[-1].id[:8])
        want = Want(talk.chat, FYODOR.devices[0], CONTROL, head, 0, 1)
        shown = replica.serve(want, LATE)
        assert shown is not None
        assert shown.records == left.records
        talk.tell(anna, talk.story.tell(anna, Checkpoint()))
        take(replica, talk.runs[-1])
        later = talk.story.told[-1]
        want = Want(
            talk.chat, anna.devices[0], CONTROL, bytes(later.id[:8]), 0, later.entry.seq + 1
        )
        assert replica.serve(want, LATE) is None, "what came after is not shown"

    def test_a_removal_with_much_behind_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is found in one run, for all who are out, without asking of each entry who was in."""
        talk = conversation(Dice(6), 0)
        anna = talk.people[0]
        talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER, (0, 1, 2)),))))
        replica = node(LATE)
        for run in talk.runs:
            take(replica, run)
        out = len(talk.chain(anna, CONTROL).entries)
        talk.tell(anna, talk.story.tell(anna, Remove(FYODOR.user, ())))
        for _ in range(100):
            talk.tell(anna, talk.story.tell(anna, Checkpoint()))
        asked: list[int | None] = []

        def resolved(history: History, within: int | None = None) -> Membership:
            asked.append(within)
            return resolve(history, within)

        monkeypatch.setattr("node.replica.resolve", resolved)
        (stored,) = take(replica, talk.chain(anna, CONTROL).run(out))
        assert stored.left == {LATE, *FYODOR.devices}
        assert len(asked) < 10
        rows = replica.store.connection.execute("SELECT DISTINCT length FROM departures").get
        assert rows == out + 1

    def test_who_was_brought_back_and_leaves_is_shown_it(self) -> None:
        """Also if somebody who had seen them leave, and not come back, has written last."""
        talk = conversation(Dice(6), 0)
        anna, boris, clara = talk.people[:3]
        late = Admit((grant(FYODOR, Role.MEMBER),))
        talk.tell(anna, talk.story.tell(anna, late))
        came = talk.story.told[-1]
        talk.tell(FYODOR, talk.story.tell(FYODOR, Leave()))
        left = talk.story.told[-1]
        talk.tell(anna, talk.story.tell(anna, late))
        back = talk.story.told[-1]
        talk.tell(boris, talk.story.tell(boris, Checkpoint(), [came]))
        talk.tell(clara, talk.story.tell(clara, Checkpoint(), [left, talk.story.told[-1]]))
        talk.tell(FYODOR, talk.story.tell(FYODOR, Leave(), [back]))
        replica = node(LATE)
        for run in talk.runs:
            take(replica, run)
        assert LATE not in replica.readers_of(talk.chat)
        head = bytes(talk.story.told[-1].id[:8])
        want = Want(talk.chat, FYODOR.devices[0], CONTROL, head, 0, 2)
        assert replica.serve(want, LATE) is not None

    def test_who_comes_back_asks_for_seals(self) -> None:
        """Of the epochs of before, too: while one is out of a chat nobody is asked."""
        talk = conversation(Dice(6), 0)
        anna = talk.people[0]
        late = Admit((grant(FYODOR, Role.MEMBER),))
        talk.tell(anna, talk.story.tell(anna, late))
        talk.start_epoch(anna)
        talk.tell(anna, talk.story.tell(anna, Remove(FYODOR.user, ())))
        talk.tell(anna, talk.story.tell(anna, late))
        talk.start_epoch(anna)
        replica = node(LATE)
        *before, back, epoch = talk.runs
        for run in before:
            take(replica, run)
        assert replica.sealless(LATE) == ([], OLDEST)
        take(replica, back)
        assert {one.epoch for one in replica.sealless(LATE)[0]} == {*talk.epochs[:-1]}
        (stored,) = take(replica, epoch)
        assert [one.epoch for one in stored.sealless] == talk.epochs[-1:]

    def test_of_many_recipients_the_authors_node_keeps_all_seals(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Regression: nobody else had those for devices of other agencies."""
        monkeypatch.setattr("node.seals.SEALS_SPREAD_MAX", 1)
        talk = conversation(Dice(6), 0)
        anna, boris, clara, dina = (who.devices[0] for who in talk.people)
        replica = node()
        for run in talk.runs:
            take(replica, run)
        for author, kept in zip(talk.people, ({boris, clara, dina}, {anna, clara}), strict=False):
            talk.start_epoch(author)
            (stored,) = take(replica, talk.runs[-1])
            assert [set(lacking.devices) for lacking in stored.sealless] == [kept]

    def test_who_is_let_go_together_costs_rows_for_one(self) -> None:
        """Regression: a row for each device and control chain, millions by one entry."""
        talk = conversation(Dice(6), 0)
        anna = talk.people[0]
        late = grant(FYODOR, Role.MEMBER, (0, 1, 2))
        talk.tell(anna, talk.story.tell(anna, Admit((late,))))
        for one in talk.people:
            talk.tell(one, talk.story.tell(one, Checkpoint()))
        talk.tell(anna, talk.story.tell(anna, Remove(FYODOR.user, ())))
        replica = node(LATE)
        for run in talk.runs:
            take(replica, run)
        connection = replica.store.connection
        assert connection.execute("SELECT count(*) FROM departures").get == len(talk.people)
        gone = {row[0] for row in connection.execute("SELECT peer FROM former")}
        assert gone == {LATE, *FYODOR.devices}
        for peer in gone:
            assert len(replica.sharing.heads_since(peer, 0).chats[0].heads) == len(talk.people)
