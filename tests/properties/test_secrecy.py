"""Who can read what: the node, thieves, and members before, during and after their time."""

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.entry import ChatId, EntryId
from protocol.limits import PREKEY_ERASE_SECONDS
from protocol.message import Text
from protocol.testing.attacker import Attacker
from tests.properties.attack import attack
from tests.properties.world import DAY_MS, NAMES, Said, Theft, World

OWNER = "anna"
WRITERS = st.sampled_from(NAMES)
GUESTS = NAMES[1:]
ERASE_MS = PREKEY_ERASE_SECONDS * 1000
THEFTS_MAX = 3


class Secrecy(RuleBasedStateMachine):
    """An owner with guests who come and go, one node that sees all, and thieves."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.chat = ChatId(b"")
        self.node = Attacker(self.world.seen)
        self.curious = {name: Attacker(self.world.seen) for name in NAMES}
        self.thefts: list[Theft] = []

    @initialize(guests=st.frozensets(st.sampled_from(GUESTS), min_size=1))
    def start(self, guests: frozenset[str]) -> None:
        self.chat = self.world.found(OWNER, *sorted(guests))
        for guest in guests:
            self.world.carry(OWNER, guest)

    @rule(name=WRITERS, count=st.integers(1, 2))
    def say(self, name: str, count: int) -> None:
        if self.world.devices[name].replica.chat(self.chat) is not None:
            for _ in range(count):
                self.world.say(name, self.chat, f"{name} {len(self.world.said)}")

    @rule(source=WRITERS, to=WRITERS)
    def carry(self, source: str, to: str) -> None:
        if source != to:
            self.world.carry(source, to)

    @rule()
    def meet(self) -> None:
        for name in GUESTS:
            self.world.carry(name, OWNER)
        for name in GUESTS:
            self.world.carry(OWNER, name)

    @rule(members=st.frozensets(st.sampled_from(GUESTS)))
    def change(self, members: frozenset[str]) -> None:
        self.world.change(OWNER, self.chat, members | {OWNER})

    @rule(name=st.sampled_from(GUESTS), inside=st.booleans())
    def talk_behind_a_back(self, name: str, *, inside: bool) -> None:
        """Somebody goes, or comes, and the owner writes before and after."""
        self.say(OWNER, 1)
        present = self.world.changes[-1][1]
        self.change(present | {name} if inside else present - {name})
        self.say(OWNER, 1)

    @rule(days=st.sampled_from([1, 6, 8, 15]))
    def age(self, days: int) -> None:
        self.world.age(days)

    @rule(days=st.sampled_from([3, 8, 13, 14]), name=WRITERS)
    def one_visits(self, days: int, name: str) -> None:
        """The others' devices are off: their prekeys are neither renewed nor erased."""
        self.world.clock += days * DAY_MS
        self.world.visit(name)

    @rule(name=WRITERS)
    def steal(self, name: str) -> None:
        if len(self.thefts) < THEFTS_MAX:
            self.thefts.append(self.world.steal(name))

    @rule(name=WRITERS)
    def read_then_steal_much_later(self, name: str) -> None:
        self.world.carry(OWNER, name)
        self.world.age(15)
        self.steal(name)

    @rule(name=WRITERS)
    def steal_then_talk_after_a_renewal(self, name: str) -> None:
        """Healing: nobody does anything but what devices do by themselves."""
        self.meet()
        self.steal(name)
        self.age(8)
        for writer in NAMES:
            self.say(writer, 1)

    @invariant()
    def the_node_reads_nothing(self) -> None:
        """Secrecy from nodes: not with any value that is public, nor in the clear."""
        self.node.learn(*self.world.seen.public, *self.world.common)
        assert self.node.opened() == {}
        clear = {payload for _, payload in self.world.seen.content.values()}
        assert not [one for one in self.world.said.values() if _shows(one, clear)]

    @invariant()
    def members_read_what_their_time_gives(self) -> None:
        """Exclusion: who keeps all that their device ever held reads no more than members may."""
        for name, attacker in self.curious.items():
            attacker.learn(*self.world.held(name))
            for said in self._read_by(attacker):
                assert name in said.readers

    @invariant()
    def thieves_read_neither_long_before_nor_after(self) -> None:
        for theft in self.thefts:
            for said in self._read_by(theft.attacker):
                assert not self._is_forward_secret(theft, said.epoch, said.id)
                assert self._prekey_was_made(theft, said.epoch)
                started = self.world.started[said.epoch]
                assert not self.world.renewed_between(theft.time, started)

    @invariant()
    def thieves_are_no_straw_men(self) -> None:
        """A theft gives what it must give, or the other invariants would say nothing."""
        for theft in self.thefts:
            found = theft.attacker.opened()
            for said in self.world.said.values():
                if self._prekey_is_held(theft, said.epoch):
                    assert found[said.id] == said.plaintext

    def _read_by(self, attacker: Attacker) -> Iterator[Said]:
        return (said for entry in attacker.opened() if (said := self.world.said.get(entry)))

    def _is_forward_secret(self, theft: Theft, epoch: EntryId, entry: EntryId) -> bool:
        """Per message and per epoch: chain key used, and the device came by after two weeks."""
        over = theft.visited - self.world.started[epoch] >= ERASE_MS
        return over and entry in theft.processed

    def _prekey_was_made(self, theft: Theft, epoch: EntryId) -> bool:
        """Healing: epochs for a prekey made since then are closed to the thief."""
        return self.world.prekey_for(theft.name, epoch) in theft.prekeys_ever

    def _prekey_is_held(self, theft: Theft, epoch: EntryId) -> bool:
        return self.world.prekey_for(theft.name, epoch) in theft.prekeys_held

    def teardown(self) -> None:
        self.world.close()


def _shows(said: Said, payloads: set[bytes]) -> bool:
    return any(said.text.encode() in payload for payload in payloads)


def test_secrecy() -> None:
    attack(Secrecy, share=2)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


class TestAttacker:
    """The deduction finds what must be found: each way in is taken when it is open."""

    def test_by_the_prekey(self, world: World) -> None:
        chat = world.found("anna", "boris")
        said = world.say("anna", chat, "secret")
        assert said is not None
        thief = world.steal("boris").attacker
        assert thief.opened()[said.id] == said.plaintext
        assert Attacker(world.seen).opened() == {}

    def test_by_a_chain_key_of_messages_to_come(self, world: World) -> None:
        chat = world.found("anna", "boris")
        world.say("anna", chat, "first")
        world.carry("anna", "boris")
        world.age(15)
        before = world.steal("boris").attacker
        assert before.opened() == {}
        device = world.devices["boris"]
        chains = [row[0] for row in device.connection.execute("SELECT chain FROM senders")]
        assert set(chains) <= before.values.keys()

    def test_by_the_seed_of_one_message(self, world: World) -> None:
        chat = world.found("anna", "boris")
        device = world.devices["anna"]
        chain = device.connection.execute(
            "SELECT chain FROM senders WHERE device = ?", (device.key,)
        ).get
        said = world.say("anna", chat, "one")
        also = world.say("anna", chat, "two")
        assert said is not None
        assert also is not None
        thief = Attacker(world.seen)
        thief.learn(chain)
        assert thief.opened().keys() == {said.id, also.id}

    def test_a_date_far_ahead_keeps_no_epoch_in_use(self, world: World) -> None:
        """Who starts an epoch says when: that must not spare the others' renewing it."""
        world.clock += 300 * DAY_MS
        chat = world.found("anna", "boris")
        world.clock -= 300 * DAY_MS
        world.carry("anna", "boris")
        said = world.say("boris", chat, "in an epoch of mine")
        assert said is not None
        assert world.started[said.epoch] == world.clock

    def test_a_week_is_as_long_as_an_epoch_is_used(self, world: World) -> None:
        chat = world.found("anna", "boris")
        epochs = set()
        for days in (0, 6, 1):
            world.age(days)
            said = world.say("anna", chat, f"after {days} days more")
            assert said is not None
            epochs.add(said.epoch)
        assert len(epochs) == 2

    def test_plaintext_is_what_was_said(self, world: World) -> None:
        chat = world.found("anna", "boris")
        said = world.say("anna", chat, "what was said")
        assert said is not None
        assert Text("what was said", None).text.encode() in said.plaintext
