"""SPEC 6.3: what a peer brings of a chat that it, or we, are let into meanwhile."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from node.replica import Replica
from node.step import Steps
from node.stored import Stored
from protocol.entry import CONTENT
from protocol.frame import ChatHeads, Head, Heads, Holding, Run, Seen, Want, authentic
from protocol.operation import Admit, Operation, Remove
from protocol.policy import Role
from protocol.testing.cast import grant
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from tests.node.homes import LATE, Home, Peer, until
from tests.node.replicas import FYODOR


def decide(replica: Replica, talk: Conversation, operation: Operation) -> None:
    """Have anna decide something, and store it."""
    anna = talk.people[0]
    talk.tell(anna, talk.story.tell(anna, operation))
    with replica.store.connection:
        replica.append(talk.runs[-1], authentic(talk.runs[-1]))


async def asked(home: Home, nursery: trio.Nursery) -> tuple[Peer, Conversation, Want]:
    """Have boris' node list what he said, the last run, and be asked for it."""
    talk = conversation(Dice(5), 0)
    home.take(talk)
    talk.say(talk.people[1], b"still in")
    said = talk.runs[-1]
    peer = Peer(home, nursery)
    await peer.greet()
    head = Head(said.device, CONTENT, 0, authentic(said)[0].id[:8])
    await peer.say(Heads(1, 1, (ChatHeads(talk.chat, (head,)),)))
    want = await peer.until(Want)
    assert isinstance(want, Want)
    return peer, talk, want


async def test_what_was_asked_for_before_a_removal(
    homes: tuple[Home, Home], nursery: trio.Nursery
) -> None:
    """Who is let in again has listed it, and lists it no more."""
    peer, talk, want = await asked(homes[0], nursery)
    said, boris = talk.runs[-1], talk.people[1]
    decide(homes[0].replica, talk, Remove(boris.user, ()))
    await peer.say(said)
    assert await peer.until(Seen) == Seen(1)
    decide(homes[0].replica, talk, Admit((grant(boris, Role.MEMBER),)))
    peer.connection.let_in()
    with trio.fail_after(60):
        assert await peer.until(Want) == want


async def test_who_is_let_in_again_as_it_is_turned_away(
    homes: tuple[Home, Home], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: what it brought was given up, and not kept in mind as it was in again."""
    peer, talk, _ = await asked(homes[0], nursery)
    said, boris = talk.runs[-1], talk.people[1]
    decide(homes[0].replica, talk, Remove(boris.user, ()))
    session = peer.connection._session
    listed = session.listed

    def meanwhile(runs: Sequence[Run]) -> Sequence[ChatHeads]:
        decide(homes[0].replica, talk, Admit((grant(boris, Role.MEMBER),)))
        peer.connection.let_in()
        return listed(runs)

    monkeypatch.setattr(session, "listed", meanwhile)
    await peer.say(said)
    with trio.fail_after(60):
        assert await peer.until(Seen) == Seen(1)
    assert authentic(said)[0].id in homes[0].entries(talk.chat)


async def test_who_is_let_in_before_it_is_known_that_something_came_too_early(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: if another peer had brought what let us in, it was not asked for again."""
    talk = conversation(Dice(6), 0)
    anna, boris = talk.people[:2]
    control = list(talk.runs)
    talk.say(boris, b"too early")
    said = talk.runs[-1]
    talk.tell(anna, talk.story.tell(anna, Admit((grant(FYODOR, Role.MEMBER),))))
    home = Home(tmp_path / "node.db", LATE)
    nursery.start_soon(home.journal.run)
    peer = Peer(home, nursery)
    await peer.greet()
    await peer.say(*control)
    head = Head(said.device, CONTENT, 0, authentic(said)[0].id[:8])
    await peer.say(Heads(1, 1, (ChatHeads(talk.chat, (head,)),)))
    asked = await peer.until(Want)
    connection = peer.connection
    heard = connection._stored

    def meanwhile(
        parts: Sequence[Stored], holdings: Sequence[Holding], noted: int, let_in: int
    ) -> Steps:
        monkeypatch.undo()
        with home.replica.store.connection:
            for run in (*control, talk.runs[-1]):
                home.replica.append(run, authentic(run))
        connection.let_in()
        connection._let_in = False
        assert not connection._session.let_in(0)
        return heard(parts, holdings, noted, let_in)

    monkeypatch.setattr(connection, "_stored", meanwhile)
    await peer.say(said)
    with trio.fail_after(60):
        assert await peer.until(Want) == asked
    await peer.say(said)
    await until(lambda: authentic(said)[0].id in home.entries(talk.chat))
