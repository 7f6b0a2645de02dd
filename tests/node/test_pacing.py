"""SPEC 6.5: what is stored is told in batches, and no batch takes back what another has told."""

import trio
import trio.testing

from node.pacing import PAUSE_SECONDS
from protocol.entry import CONTENT
from protocol.frame import Have, Holding, Ping, Pong
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.homes import MZ, Home, Peer


async def test_what_comes_again_takes_no_acknowledgement_back(
    homes: tuple[Home, Home], nursery: trio.Nursery
) -> None:
    """Regression: of two of one chain that wait, the later was told and not the farther."""
    talk = conversation(Dice(5), 0)
    home, written = homes[1], len(talk.runs)
    home.take(talk)
    for number in range(3):
        talk.say(talk.people[0], b"%d" % number)
    peer = Peer(home, nursery, key=MZ)
    await peer.greet()
    async with home.journal._lock:
        await peer.say(*talk.runs[written:], talk.runs[written])
        await trio.testing.wait_all_tasks_blocked(0.01)
    await trio.testing.wait_all_tasks_blocked(2 * PAUSE_SECONDS)
    await peer.say(Ping())
    told: list[Holding] = []
    while not isinstance(frame := await peer.hear(), Pong):
        told += frame.holdings if isinstance(frame, Have) else ()
    assert max(one.seq for one in told if one.lane == CONTENT) == 2
