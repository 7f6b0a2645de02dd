"""SPEC 6.1, 6.5: a connection, from bytes to a database and back; and what hostile peers can do."""

from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import pytest
import trio
import trio.lowlevel

from node.candidates import CANDIDATE_BYTES
from node.driver import Connection
from node.errors import NetworkError
from node.hub import Hub
from node.outgoing import Outgoing
from node.seals import Sealless
from node.step import Steps
from node.stored import Stored
from protocol.effect import Preview
from protocol.entry import CONTENT, ChatId, DeviceKey, EntryId
from protocol.errors import OutOfTurn
from protocol.fork import encode_proof
from protocol.frame import (
    Absent,
    Answer,
    Ask,
    Forked,
    Frame,
    Graft,
    Have,
    Head,
    Heads,
    IHave,
    Ping,
    Pong,
    Prune,
    Recon,
    Run,
    Seen,
    Want,
    WantSeals,
    authentic,
    encode_frame,
)
from protocol.limits import WANTS_SERVED_MAX
from protocol.operation import Admit, Remove, Revoke
from protocol.policy import Role
from protocol.run import Entry
from protocol.session import PeerKind
from protocol.testing import conversations
from protocol.testing.cast import grant
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.homes import LATE, MVD, MZ, Home, Peer, all_of, join, until
from tests.node.replicas import FYODOR


class TestTwoNodes:
    async def test_they_end_equal(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        talk = conversation(Dice(5), 60)
        one, other = homes
        one.take(talk)
        other.take(talk, 20)
        pair = await join(nursery, one, other)
        await until(lambda: all(connection.caught_up for connection in pair))
        await until(lambda: other.entries(talk.chat) == all_of(talk))
        assert all(connection.failure is None for connection in pair)
        await until(lambda: len(one.noted) > 0)
        assert all(holding.agency == MVD for holding in one.noted)
        pair[0].close()
        await until(lambda: not any(connection.open for connection in pair))
        assert pair[1].failure is None

    async def test_from_nothing(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """A chat that is new to a node, whole conversations that answer each other."""
        talk = conversation(Dice(1), 0)
        for number in range(200):
            talk.say(talk.people[number % 2], b"%d" % number)
        homes[0].take(talk)
        pair = await join(nursery, *homes)
        await until(lambda: homes[1].entries(talk.chat) == all_of(talk))
        assert not any(connection.failure for connection in pair)

    async def test_restored(
        self, homes: tuple[Home, Home], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One has lost its cursors: they reconcile, a few heads are listed, cursors are kept."""
        talk = conversation(Dice(5), 60)
        homes[0].take(talk)
        homes[1].take(talk, len(talk.runs) - 3)
        sent: list[Frame] = []
        send = Connection.send

        def sending(connection: Connection, frame: Frame) -> None:
            sent.append(frame)
            send(connection, frame)

        monkeypatch.setattr(Connection, "send", sending)
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        assert homes[1].entries(talk.chat) == all_of(talk)
        assert any(isinstance(frame, Recon) for frame in sent)
        pages = [frame for frame in sent if isinstance(frame, Heads)]
        assert 1 <= sum(len(item.heads) for page in pages for item in page.chats) <= 6
        pair[0].close()
        await until(lambda: not any(connection.open for connection in pair))
        sent.clear()
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        assert not any(isinstance(frame, Recon) for frame in sent)
        assert {
            homes[0].replica.sharing.cursor(MVD)[0],
            homes[1].replica.sharing.cursor(MZ)[0],
        } == {home.replica.store.incarnation for home in homes}

    async def test_many_payloads_that_are_wanted(
        self, homes: tuple[Home, Home], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who asks for many is no attacker, and who answers does not push what is here already."""
        answers: list[Frame] = []
        receive = Connection.receive

        def receiving(connection: Connection, frame: Frame) -> Steps:
            if isinstance(frame, Run):
                answers.append(frame)
            return receive(connection, frame)

        monkeypatch.setattr(Connection, "receive", receiving)
        talk = conversation(Dice(1), 0)
        for number in range(4 * WANTS_SERVED_MAX + 8):
            talk.say(talk.people[number % 2], b"%d" % number)
        for home in homes:
            home.take(talk)
        homes[1].replica.store.connection.execute(
            "INSERT INTO dropped SELECT place, chat, entries.id, zeroblob(32), 0, 1"
            " FROM entries JOIN chains ON no = place >> 32 WHERE lane = 1 AND place % 2 = 0"
        )
        assert len(homes[1].replica.payloads.wanted(MZ)) <= WANTS_SERVED_MAX
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        await until(lambda: len(answers) > 2)
        connection = pair[1]
        await until(lambda: connection._share.runs.borrowed_tokens == 0)
        assert homes[1].repeats == []
        assert not any(connection.failure for connection in pair)

    async def test_a_damaged_chat_is_left_alone(
        self, homes: tuple[Home, Home], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is no fault of the peer, which goes on with the other chats, whatever comes of it."""
        damaged = conversation(Dice(5), 3)
        monkeypatch.setattr(conversations, "NAMES", conversations.NAMES[::-1])
        whole = conversation(Dice(6), 3)
        for talk in (damaged, whole):
            homes[0].take(talk)
        homes[1].take(damaged, 2)
        homes[1].replica.store.connection.execute("UPDATE entries SET record = x'c1'")
        homes[1].replica.forget()
        pair = await join(nursery, *homes)
        await until(lambda: homes[1].entries(whole.chat) == all_of(whole))
        await until(lambda: all(connection.caught_up for connection in pair))
        assert not any(connection.failure for connection in pair)

    async def test_so_is_one_with_a_damaged_page(
        self, homes: tuple[Home, Home], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A database that is encrypted does not give back any of the page."""
        damaged = conversation(Dice(5), 3)
        monkeypatch.setattr(conversations, "NAMES", conversations.NAMES[::-1])
        whole = conversation(Dice(6), 3)
        homes[0].take(damaged)
        homes[0].take(whole)
        replica = homes[1].replica
        take, serve = replica.append_together, replica.serve

        def taken(parts: Sequence[tuple[Run, Sequence[Entry]]], peer: bytes) -> list[Stored]:
            fail(parts[0][0].chat)
            return take(parts, peer)

        def served(want: Want, peer: bytes) -> Run | None:
            fail(want.chat)
            return serve(want, peer)

        def fail(chat: ChatId) -> None:
            if chat == damaged.chat:
                raise apsw.CorruptError("database disk image is malformed")

        homes[1].take(damaged, 2)
        monkeypatch.setattr(replica, "append_together", taken)
        monkeypatch.setattr(replica, "serve", served)
        pair = await join(nursery, *homes)
        await until(lambda: homes[1].entries(whole.chat) == all_of(whole))
        await until(lambda: all(connection.caught_up for connection in pair))
        assert not any(connection.failure for connection in pair)

    async def test_two_look_at_the_end_of_one_chat(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Both are shown it once; that it comes again ends no session."""
        talk = conversation(Dice(5), 30)
        pair = await join(nursery, *homes)
        shown: list[Sequence[Entry]] = []

        async def show(entries: Sequence[Entry]) -> None:
            await trio.lowlevel.checkpoint()
            shown.append(entries)

        for _ in range(2):
            await pair[0].preview(talk.chat, show)
        for _ in range(2):
            await pair[0]._carry_out([Preview((talk.runs[-1],))])
        assert shown == [authentic(talk.runs[-1])] * 2

    async def test_push(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """What is pushed is stored, handed on and acknowledged, in the order of pushing."""
        talk = conversation(Dice(5), 30)
        for home in homes:
            home.take(talk, 10)
        pair = await join(nursery, *homes)
        await until(lambda: all(connection.caught_up for connection in pair))
        homes[0].take(talk)
        for run in talk.runs[10:]:
            pair[0].push(encode_frame(run))
        await until(lambda: len(homes[1].runs) == len(talk.runs) - 10)
        assert homes[1].entries(talk.chat) == all_of(talk)
        assert [one.run.start for one in homes[1].runs] == [run.start for run in talk.runs[10:]]
        newest = {(run.device, run.lane): run.start for run in talk.runs[10:]}
        await until(
            lambda: {(h.device, h.lane): h.seq for h in homes[0].noted}.items() >= newest.items()
        )

    async def test_who_is_let_in_again_asks_for_seals_of_before(
        self, tmp_path: Path, nursery: trio.Nursery
    ) -> None:
        """A device asked its node for none while it was out, and that lists nothing anew."""
        talk = conversation(Dice(6), 0)
        anna = talk.people[0]
        late = Admit((grant(FYODOR, Role.MEMBER),))
        talk.tell(anna, talk.story.tell(anna, late))
        talk.start_epoch(anna)
        talk.tell(anna, talk.story.tell(anna, Remove(FYODOR.user, ())))
        talk.tell(anna, talk.story.tell(anna, late))
        home = Home(tmp_path / "device.db", LATE, FYODOR.devices[0])
        nursery.start_soon(home.journal.run)
        home.take(talk, len(talk.runs) - 1)
        peer = Peer(home, nursery, key=LATE)
        await peer.greet()
        await peer.say(Ping())
        assert isinstance(await peer.until(Pong), Pong)
        await peer.say(talk.runs[-1])
        with trio.fail_after(60):
            asked = await peer.until(WantSeals)
        assert isinstance(asked, WantSeals)
        assert asked.epoch == talk.epochs[-1]

    async def test_on_behalf_of_others_seals_are_asked_for_once(
        self,
        homes: tuple[Home, Home],
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """For an hour; what is forgotten of too many is asked for again."""
        monkeypatch.setattr("node.dealing.SEALS_RELAYED_MAX", 2)
        talk = conversation(Dice(5), 0)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        one, two, three = (DeviceKey(bytes([number]) * 32) for number in range(3))
        epoch = talk.epochs[0]
        for devices in ((one, two), (two, one), (two, three), (one,)):
            peer.connection.relay_seals(Sealless(talk.chat, epoch, devices))
        for asked in ((one, two), (three,), (one,)):
            assert await peer.until(WantSeals) == WantSeals(talk.chat, epoch, asked)

    async def test_what_others_ask_for_again_is_asked_for_again_after_an_hour(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Regression: what the author's node had forgotten was never asked for in that session."""
        talk = conversation(Dice(5), 0)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        lacked = Sealless(talk.chat, talk.epochs[0], (DeviceKey(bytes(32)),))
        peer.connection.relay_seals(lacked)
        peer.connection.ask_for_seals()
        peer.connection.relay_seals(lacked)
        with trio.fail_after(60):
            assert await peer.until(WantSeals) == WantSeals(*lacked)
            assert await peer.until(WantSeals) == WantSeals(*lacked)

    async def test_who_made_the_seals_is_asked_whoever_brings_the_chat(
        self, tmp_path: Path, nursery: trio.Nursery
    ) -> None:
        """Regression: only the home of the run's author was, for up to an hour (6200000195)."""
        talk = conversation(Dice(6), 0)
        anna, boris = talk.people[:2]
        talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),))))
        for author in (anna, boris, anna):
            talk.start_epoch(author)
        home = Home(tmp_path / "node.db", LATE)
        nursery.start_soon(home.journal.run)
        peer = Peer(home, nursery)
        await peer.greet()
        await peer.say(*talk.runs)
        await until(lambda: len(home.lacked) == 3)
        assert [one.epoch for one, _ in home.lacked] == [talk.epochs[at] for at in (0, 1, 3)]
        assert {maker for _, maker in home.lacked} == {MZ}

    async def test_a_device_of_ours_is_asked_for_what_others_bring_back(
        self, tmp_path: Path, nursery: trio.Nursery
    ) -> None:
        """Regression: a node that was brought back asked it within the hour alone (7400512)."""
        talk = conversation(Dice(6), 0)
        home = Home(tmp_path / "node.db", MZ)
        nursery.start_soon(home.journal.run)
        peer = Peer(home, nursery)
        await peer.greet()
        await peer.say(*talk.runs)
        await until(lambda: bool(home.lacked))
        (lacked,) = home.lacked
        assert lacked[0].epoch == talk.epochs[0]
        assert lacked[1] == talk.people[0].devices[0]

    async def test_what_ends_as_it_stores_leaves_its_questions_to_others(
        self, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of two sessions whose calls crossed one ends, maybe before it could ask."""
        talk = conversation(Dice(6), 0)
        anna = talk.people[0]
        talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),))))
        home = Home(tmp_path / "node.db", LATE)
        nursery.start_soon(home.journal.run)
        peer = Peer(home, nursery, key=MZ)
        await peer.greet()
        storing = home.storing

        def ending(parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
            peer.connection.close()
            return storing(parts, source)

        monkeypatch.setattr(home, "storing", ending)
        await peer.say(*talk.runs)
        await until(lambda: bool(home.lacked))
        assert [(one.epoch, maker) for one, maker in home.lacked] == [(talk.epochs[0], MZ)]

    async def test_whose_seals_are_asked_for_elsewhere(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Those of an agency's own devices, unless one of them has made them."""
        talk = conversation(Dice(5), 0)
        anna, boris = talk.people[:2]
        talk.start_epoch(boris)
        homes[0].take(talk)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        devices = tuple(one.devices[0] for one in talk.people)
        for epoch in (EntryId(bytes(32)), talk.epochs[-1], talk.epochs[0]):
            await peer.say(WantSeals(talk.chat, epoch, devices))
        await until(lambda: bool(homes[0].lacked))
        lacked = Sealless(talk.chat, talk.epochs[0], boris.devices[:1])
        assert homes[0].lacked == [(lacked, anna.agency.root.public)]

    async def test_seals_by_a_device_that_is_out_are_asked_for_of_its_agency(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Regression: they were asked for nowhere, though the agency still keeps them."""
        talk = conversation(Dice(5), 0)
        anna, boris = talk.people[:2]
        talk.tell(anna, talk.story.tell(anna, Revoke(anna.devices[0], None, None, ())))
        homes[0].take(talk)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(WantSeals(talk.chat, talk.epochs[0], boris.devices[:1]))
        await until(lambda: bool(homes[0].lacked))
        lacked = Sealless(talk.chat, talk.epochs[0], boris.devices[:1])
        assert homes[0].lacked == [(lacked, anna.agency.root.public)]

    async def test_who_made_seals_that_others_wait_for_is_asked_as_it_comes(
        self, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Regression: who cannot reach it, and asked before, waited for them for up to an hour."""
        monkeypatch.setattr("node.seals.SEALS_SPREAD_MAX", 0)  # so that we want none of them
        talk = conversation(Dice(6), 0)
        anna, boris = talk.people[:2]
        talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),))))
        home, hub = Home(tmp_path / "node.db", LATE), Hub[Connection](LATE, trio.current_time)
        nursery.start_soon(home.journal.run)
        home.take(talk)
        asker, maker = Peer(home, nursery), Peer(home, nursery, key=MZ)
        await asker.greet()
        hub.add(asker.connection)
        await asker.say(WantSeals(talk.chat, talk.epochs[0], boris.devices[:1]))
        await until(lambda: len(home.lacked) == 1)
        await maker.greet()
        hub.add(maker.connection)
        with trio.fail_after(60):
            asked = await maker.until(WantSeals)
        assert asked == WantSeals(talk.chat, talk.epochs[0], boris.devices[:1])

    async def test_one_commit_for_many(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """Runs that become durable at once are handed on in the order in which they came."""
        talk = conversation(Dice(5), 30, epochs=10**9)
        homes[1].take(talk, 10)
        peer = Peer(homes[1], nursery, key=MZ)
        await peer.greet()
        await peer.say(talk.runs[10])
        await until(lambda: len(homes[1].runs) == 1)
        async with homes[1].journal._lock:
            await peer.say(*talk.runs[11:])
            await trio.testing.wait_all_tasks_blocked(0.01)
        await until(lambda: len(homes[1].runs) == len(talk.runs) - 10)
        assert homes[1].entries(talk.chat) == all_of(talk)
        starts = [(one.run.device, one.run.start) for one in homes[1].runs]
        assert starts == [(run.device, run.start) for run in talk.runs[10:]]

    async def test_pushed_on_before_it_is_durable_but_acknowledged_after(
        self, homes: tuple[Home, Home], nursery: trio.Nursery
    ) -> None:
        """SPEC 6.5: what the disk still works on is handed on; what it refuses is never told of."""
        talk = conversation(Dice(5), 12, epochs=10**9)
        home = homes[1]
        home.take(talk, 10)
        peer = Peer(home, nursery, key=MZ)
        await peer.greet()
        seen: list[tuple[int, int]] = []

        def commit() -> bool:
            seen.append((len(home.pushed), len(home.runs)))
            return len(seen) == 1  # the disk refuses the first

        home.replica.store.connection.set_commit_hook(commit)
        await peer.say(talk.runs[10])
        while (frame := await peer.hear()) is not None:
            assert not isinstance(frame, Have)
        await peer.ended.wait()
        assert (seen, home.runs) == ([(1, 0)], [])
        assert len(home.entries(talk.chat)) == 10
        again = Peer(home, nursery, key=MZ)
        await again.greet()
        await again.say(*talk.runs[10:])
        while not isinstance(frame, Have):
            frame = await again.hear()
        assert seen[1][1] == 0 < len(home.runs)
        assert frame.holdings[0].seq == talk.runs[10].start

    async def test_forks(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """I5: the proof reaches whoever hands it on, at both ends."""
        talk = conversation(Dice(3), 30, epochs=10**9)
        who = talk.people[0]
        branch = talk.fork(who, 1, 2)
        for home in homes:
            home.take(talk)
        with homes[1].replica.store.connection:
            homes[1].replica.append(branch.run(), authentic(branch.run()))
        pair = await join(nursery, *homes)
        await until(lambda: len(homes[0].entries(talk.chat)) == len(talk.runs) + 2)
        await until(lambda: len(homes[0].forks) == 1)
        chain = talk.chain(who, CONTENT)
        proof = encode_proof(chain.cover(1), branch.cover(1))
        pair[0].send(Forked(talk.chat, proof))
        pair[0].send(Ping())
        await until(lambda: homes[1].entries(talk.chat) == homes[0].entries(talk.chat))
        assert not any(connection.failure for connection in pair)

    async def test_questions(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """Many at once, answered in any order, each to whom it belongs."""

        async def slowly(ask: Ask) -> Answer:
            await trio.sleep(0.001 * (ask.body[0] % 3))
            return Answer(ask.number, 0, ask.body)

        homes[1].answer = slowly
        pair = await join(nursery, *homes)
        answers: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answers[number] = (await pair[0].ask(1, bytes([number]))).body

        async with trio.open_nursery() as askers:
            for number in range(40):
                askers.start_soon(ask, number)
        assert answers == {number: bytes([number]) for number in range(40)}

    async def test_no_answer(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """I20: whoever asked is told when the connection ends."""

        async def never(_ask: Ask) -> Answer:
            return await trio.sleep_forever()

        homes[1].answer = never
        pair = await join(nursery, *homes)
        ended = trio.Event()

        async def ask() -> None:
            with pytest.raises(NetworkError):
                await pair[0].ask(1, b"")
            ended.set()

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.01)
        pair[1].close()
        with trio.fail_after(60):
            await ended.wait()


class TestGossip:
    """SPEC 6.5: what a node says about the spread of a chat."""

    async def test_announcements(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """Only what is lacking is news."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk, len(talk.runs) - 1)
        heads = tuple(head_of(run) for run in talk.runs[-3:])
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(IHave(talk.chat, heads), Prune(talk.chat))
        await until(lambda: len(homes[0].gossip) == 2)
        assert homes[0].gossip == [IHave(talk.chat, heads[-1:]), Prune(talk.chat)]
        await peer.say(IHave(talk.chat, heads[:2]), Ping())
        assert isinstance(await peer.until(Pong), Pong)
        assert len(homes[0].gossip) == 2

    async def test_a_graft_is_served(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        graft = Graft(talk.chat, head_of(talk.runs[-1]))
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(graft)
        run = await peer.until(Run)
        assert isinstance(run, Run)
        assert (run.device, run.start) == (graft.head.device, graft.head.seq)
        assert homes[0].gossip == [graft]

    async def test_strangers(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """Case 48: they hear nothing, and what they say is nothing."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        head = head_of(talk.runs[-1])
        peer = Peer(homes[0], nursery, key=LATE)
        await peer.greet()
        await peer.say(Graft(talk.chat, head), IHave(talk.chat, (head,)), Prune(talk.chat))
        await peer.until(Absent)
        await peer.say(Ping())
        await peer.until(Pong)
        assert not homes[0].gossip

    async def test_not_of_devices(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        peer = Peer(homes[0], nursery, PeerKind.DEVICE, b"d" * 32)
        await peer.greet()
        await peer.say(Prune(ChatId(bytes(32))))
        assert isinstance(await peer.end(), OutOfTurn)

    async def test_what_was_here(self, homes: tuple[Home, Home], nursery: trio.Nursery) -> None:
        """A push that brings nothing new is told of, what was asked for is not."""
        talk = conversation(Dice(5), 20)
        homes[0].take(talk)
        peer = Peer(homes[0], nursery)
        await peer.greet()
        await peer.say(talk.runs[-1])
        await until(lambda: homes[0].repeats == [talk.chat])
        assert not homes[0].runs


def head_of(run: Run) -> Head:
    return Head(run.device, run.lane, run.start, authentic(run)[0].id[:8])


class TestForgotten:
    @pytest.mark.parametrize(("forgotten", "reached"), [(None, 7), (MVD, 0), (MZ, 7)])
    async def test_no_cursor_passes_what_was_forgotten(
        self,
        tmp_path: Path,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
        forgotten: bytes | None,
        reached: int,
    ) -> None:
        """Chats not stored yet that made room must be told again, by whoever had told of them."""
        talk = conversation(Dice(5), 5)
        home = Home(tmp_path / "late.db", LATE)
        nursery.start_soon(home.journal.run)
        peer = Peer(home, nursery)
        await peer.greet()
        await peer.say(talk.runs[0], Ping())
        while not isinstance(await peer.hear(), Pong):
            pass
        await until(lambda: len(home.replica.candidates) > 0)
        candidates = home.replica.candidates
        if forgotten is not None:
            for number in range(10):
                candidates.of(forgotten, ChatId(number.to_bytes(32)))
            monkeypatch.setattr("node.candidates.CANDIDATES_BYTES_MAX", 10 * CANDIDATE_BYTES)
            candidates.make_room()
            assert candidates.lost(forgotten) > 0
        await peer.say(Heads(7, 1, ()))
        while not isinstance(await peer.hear(), Seen):
            pass
        _, cursor = home.replica.sharing.cursor(MVD)
        assert cursor == reached
