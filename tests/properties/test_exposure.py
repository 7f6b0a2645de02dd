"""Fork exposure: a cloned device, and a node that shows each peer another view."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.entry import CONTENT, DeviceKey
from protocol.fork import verify_fork
from protocol.frame import Run
from protocol.limits import HEADS_DELAY_SECONDS
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.network import Network, Replica
from tests.properties.attack import attack

NODES = range(3)
NODE = st.sampled_from(NODES)
STEPS = 6
CLONES_MAX = 3


class Exposure(RuleBasedStateMachine):
    """Honest nodes, of which each is shown what a clone and a malicious node want it to see."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = Dice(0)
        self.network = Network(self.dice, [])
        self.talk: Conversation = conversation(self.dice, 0)
        self.branches: list[list[Run]] = []

    @initialize(number=st.integers(0, 2**32), messages=st.integers(1, 12))
    def start(self, number: int, messages: int) -> None:
        self.dice = Dice(number)
        self.talk = conversation(self.dice, messages, epochs=10**9)
        self.network = Network(self.dice, [Replica(f"node {one}") for one in NODES])
        for replica in self.network.replicas:
            for run in self.talk.runs:
                if run.lane != CONTENT:
                    replica.take(run)
        self.branches.append([run for run in self.talk.runs if run.lane == CONTENT])

    @rule(node=NODE)
    def show_all(self, node: int) -> None:
        """Two at one place are at one node before it can have the proof from another."""
        for runs in self.branches:
            for run in runs:
                self.network.replicas[node].take(run)

    @rule(data=st.data(), count=st.integers(1, 3))
    def clone(self, data: st.DataObject, count: int) -> None:
        """Somebody with a copy of a device goes on from an earlier place."""
        if len(self.branches) > CLONES_MAX:
            return
        writers = [who for who in self.talk.people if (who.devices[0], CONTENT) in self.talk.chains]
        who = data.draw(st.sampled_from(writers))
        at = data.draw(st.integers(0, len(self.talk.chain(who, CONTENT).entries)))
        branch = self.talk.fork(who, at, count)
        self.branches.append([branch.run(seq) for seq in range(len(branch.entries))])

    @rule(node=NODE, data=st.data())
    def show(self, node: int, data: st.DataObject) -> None:
        """The malicious node passes on one branch, as far as it likes, and withholds the others."""
        runs = data.draw(st.sampled_from(self.branches[::-1]))
        withheld = data.draw(st.integers(0, len(runs) - 1))
        for run in runs[: len(runs) - withheld]:
            self.network.replicas[node].take(run)

    @rule(one=NODE, other=NODE, steps=st.integers(1, STEPS))
    def connect(self, one: int, other: int, steps: int) -> None:
        if one != other:
            self.network.connect(one, other)
            for _ in range(steps):
                self.network.step()

    @rule()
    def lose_all_connections(self) -> None:
        self.network.disconnect()

    @rule()
    def heal(self) -> None:
        """Honest nodes that can reach each other end with all branches, and with the proofs.

        What was shown as a cover only may be stored first by who gets it from another.
        """
        self.network.disconnect()
        forked = self._forked(self.network.replicas)
        for one, other in ((0, 1), (1, 2), (0, 1)):
            self.network.connect(one, other)
            self.network.settle()
            self.network.tick(HEADS_DELAY_SECONDS)
            self.network.settle()
            self.network.disconnect()
        for replica in self.network.replicas:
            assert self._exposed(replica) == forked
        summaries = [replica.summary() for replica in self.network.replicas]
        assert summaries[0] == summaries[1] == summaries[2]

    @invariant()
    def a_proof_proves(self) -> None:
        """Nobody is put down as forked who did not fork, and who holds two branches has a proof."""
        for replica in self.network.replicas:
            kept = replica.chats.get(self.talk.chat)
            for (device, _, _), proof in ({} if kept is None else kept.proofs).items():
                assert verify_fork(proof).device == device
            assert self._forked([replica]) <= self._exposed(replica)

    def _exposed(self, replica: Replica) -> set[DeviceKey]:
        kept = replica.chats.get(self.talk.chat)
        return {device for device, _, _ in ({} if kept is None else kept.proofs)}

    def _forked(self, replicas: Sequence[Replica]) -> set[DeviceKey]:
        """Return the devices of which these hold, together, two entries at one place."""
        held: dict[tuple[DeviceKey, int, int], set[bytes]] = {}
        for replica in replicas:
            kept = replica.chats.get(self.talk.chat)
            for (device, lane), lines in ({} if kept is None else kept.lines).items():
                for line in lines:
                    for entry in line.entries:
                        place = device, lane, entry.header.seq
                        held.setdefault(place, set()).add(entry.id)
        return {place[0] for place, ids in held.items() if len(ids) > 1}


def test_exposure() -> None:
    attack(Exposure)
