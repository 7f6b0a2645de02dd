"""SPEC 6.3: what a peer brings that is out of the chat just now, and is let in again."""

from collections.abc import Sequence

import pytest
import trio

from node.replica import Replica
from protocol.entry import CONTENT
from protocol.frame import ChatHeads, Head, Heads, Run, Seen, Want, authentic
from protocol.operation import Admit, Operation, Remove
from protocol.policy import Role
from protocol.testing.cast import grant
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from tests.node.homes import Home, Peer


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
