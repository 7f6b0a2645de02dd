"""A malicious node, agency and directory: it drops, reorders, replays, alters and invents."""

from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import convert, structs

from client import people
from crypto.errors import SealRefused
from node.errors import IdentityError
from protocol.entry import CONTROL, ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import Run, Seal
from protocol.identity import sign_prekey, verify_prekey
from protocol.operation import Admit, Enroll
from protocol.person import Person, PersonDevice
from protocol.policy import Role
from protocol.testing.attacker import Attacker
from protocol.testing.cast import grant, person
from protocol.testing.chains import Chain
from protocol.testing.histories import Dice
from protocol.testing.interference import (
    GHOST,
    GHOST_PREKEY,
    ghost_certificates,
    interfere,
)
from tests.properties.attack import attack
from tests.properties.mallory import control_after
from tests.properties.world import ADDRESSES, World, ghost_credential

HONEST = ("anna", "boris", "vera")
OWNER = HONEST[0]
NAMES = st.sampled_from(HONEST)
STRANGER = person("ghost@nowhere")


class Nodes(RuleBasedStateMachine):
    """Three members whose every word passes a node that is against them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.chat = ChatId(b"")
        self.ghost = Attacker(self.world.seen)
        self.ghost.learn(GHOST_PREKEY.private)

    @initialize()
    def start(self) -> None:
        self.chat = self.world.found(OWNER, "boris")
        self.world.carry(OWNER, "boris")

    @rule(name=NAMES)
    def say(self, name: str) -> None:
        if self.world.devices[name].replica.chat(self.chat) is not None:
            self.world.say(name, self.chat, f"{name} {len(self.world.said)}")

    @rule(inside=st.booleans())
    def change(self, *, inside: bool) -> None:
        """A member who is taken in comes with all devices that the owner knows of."""
        members = frozenset((OWNER, "vera", "boris") if inside else (OWNER, "boris"))
        self.world.change(OWNER, self.chat, members)

    @rule(source=NAMES, to=NAMES)
    def carry(self, source: str, to: str) -> None:
        if source != to:
            self.world.carry(source, to)

    @rule(number=st.integers(0, 2**32), source=NAMES, to=NAMES)
    def interfere(self, number: int, source: str, to: str) -> None:
        for run in interfere(Dice(number), self.world.runs_of(source, self.chat)):
            with suppress(PeerError):
                self.world.take(to, run)
        self.world.receive(to)

    @rule(to=NAMES, of=NAMES, which=st.integers(0, 3))
    def invent_a_device(self, to: str, of: str, which: int) -> None:
        """The directory lists a further device, certified as well as the agency can alone."""
        listed = self.world.persons[of]
        user = self.world.devices[of].profile.user
        registrar = self.world.agencies[ADDRESSES[of].partition("@")[2]].registrar
        ghost = ghost_certificates(registrar, user.user, user.agency)[which]
        record = sign_prekey(GHOST, GHOST_PREKEY.public, self.world.tick())
        devices = (*listed.devices, PersonDevice(ghost, record))
        self._tell(to, Person(listed.charter, listed.certificate, devices))

    @rule(to=NAMES, of=NAMES)
    def swap_a_prekey(self, to: str, of: str) -> None:
        """The directory gives a prekey of the ghost's for a true device."""
        listed = self.world.persons[of]
        record = sign_prekey(GHOST, GHOST_PREKEY.public, self.world.tick())
        swapped = PersonDevice(listed.devices[0].certificate, record)
        self._tell(to, Person(listed.charter, listed.certificate, (swapped,)))

    def _tell(self, to: str, told: Person) -> None:
        device = self.world.devices[to]
        with suppress(PeerError, IdentityError), device.transaction():
            people.keep_person(device, told)

    @rule(to=NAMES, of=NAMES, enrol=st.booleans())
    def invent_a_control_entry(self, to: str, of: str, *, enrol: bool) -> None:
        """The ghost signs for itself, and for the member that it says it is."""
        judge = self.world.devices[to].replica.chat(self.chat)
        if judge is None:
            return
        operation = Admit((grant(STRANGER, Role.OWNER),))
        chosen = Enroll(ghost_credential(self.world, of)) if enrol else operation
        chain = control_after(Chain(GHOST, self.chat, CONTROL), judge.history.heads(), chosen)
        run = chain.run(0)
        for forged in (run, _signed_for(run, self.world.devices[of].key)):
            with suppress(PeerError):
                self.world.take(to, forged)

    @rule(to=NAMES, at=st.integers(0, 2))
    def invent_a_seal(self, to: str, at: int) -> None:
        device = self.world.devices[to]
        for epoch in self.world.seen.epochs:
            junk = Seal(at, bytes(1184), ())
            with suppress(PeerError, SealRefused), device.transaction():
                agency = device.profile.charter.agency
                device.replica.keep_seals(self.chat, epoch, [junk], agency)

    @invariant()
    def every_entry_is_its_authors(self) -> None:
        """Authenticity: what is stored was signed, as it is, by the device that it names."""
        for name in HONEST:
            judge = self.world.devices[name].replica.chat(self.chat)
            held = [] if judge is None else [entry.id for entry in judge.history.entries]
            rows = self.world.devices[name].connection.execute("SELECT id FROM mailbox")
            assert {*held, *(row[0] for row in rows)} <= self.world.made

    @invariant()
    def what_is_read_was_said(self) -> None:
        for name in HONEST:
            rows = self.world.devices[name].connection.execute(
                "SELECT id, plaintext FROM mailbox WHERE plaintext IS NOT NULL"
            )
            for entry, plaintext in convert(rows.fetchall(), list[tuple[EntryId, bytes]]):
                assert self.world.plaintexts[entry] == plaintext

    @invariant()
    def the_directory_adds_nobody(self) -> None:
        """No ghost device: known devices are the users' own, and so are their prekeys."""
        genuine = {device.key for device in self.world.devices.values()}
        for name in HONEST:
            device = self.world.devices[name]
            for key, record in device.connection.execute("SELECT id, prekey FROM devices"):
                assert key in genuine
                assert record is None or verify_prekey(record).device == key
            judge = device.replica.chat(self.chat)
            assert judge is None or judge.membership().devices.keys() <= genuine

    @invariant()
    def seals_are_those_that_were_made(self) -> None:
        for name in HONEST:
            rows = (
                self.world.devices[name]
                .connection.execute("SELECT epoch, position, seal FROM seals")
                .fetchall()
            )
            for epoch, at, seal in convert(rows, list[tuple[EntryId, int, bytes]]):
                assert self.world.seen.epochs[epoch].seals[at] == seal

    @invariant()
    def the_ghost_reads_nothing(self) -> None:
        assert self.ghost.opened() == {}

    def teardown(self) -> None:
        self.world.close()


def _signed_for(run: Run, device: DeviceKey) -> Run:
    return structs.replace(run, device=device)


def test_nodes() -> None:
    attack(Nodes)
