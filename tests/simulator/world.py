"""A whole federation in one process: parties, the network between them, and the script.

    with world(draw(seed=7, minutes=3), Trace()) as there:
        there.run()                # raises Violation

First safety: the script is done, and invariants are checked after each event. Then liveness: a
random core of honest agencies is healed, everybody else is dead, and the core must converge.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from unittest import mock

import structlog

from client import grants, link, people
from node import abroad
from node.dealing import greeting_for
from node.stored import Stored
from protocol.entry import DeviceKey
from protocol.frame import Frame
from protocol.person import Person
from protocol.session import PeerKind
from tests.simulator import deeds, invariants
from tests.simulator.cast import Cast, Role, cast
from tests.simulator.checks import Checks, Violation
from tests.simulator.clockwork import Clockwork
from tests.simulator.devices import DeviceParty
from tests.simulator.hostile import HostileNode, Thief
from tests.simulator.limits import limited
from tests.simulator.parties import NodeParty, Party
from tests.simulator.rest import Rest
from tests.simulator.running import Trio
from tests.simulator.script import Act, Script
from tests.simulator.stand_ins import Registry, seals_standing_in, standing_in
from tests.simulator.trace import Trace
from tests.simulator.wire import Line, Wire

BACK_OFF_SECONDS = (0.25, 30.0)
VISIT_SECONDS = (5.0, 20.0)
ONLINE_SHARE = 0.7  # of the devices, at the beginning
LATE_SHARE = 0.5  # of the seeds: there, a second device is certified when that deed is done
CROSSING_SECONDS = (0.0, 1.0)  # until a call that crosses another one comes through
ROUND_SECONDS = 10.0
ROUNDS_MIN = 2  # until a world may count as converged
ROUNDS_MAX = 60
AGE_SECONDS = 2.0  # until that is durable
ASK_AGAIN_MS = 3000  # for keys of a channel: a simulation is over before an hour is
SEEK_AGAIN_MS = 20_000  # for who is not known


class World:
    """One simulation. What it is to a wire is `wire.Weather`, what to a party `parties.Place`."""

    def __init__(self, script: Script, trace: Trace) -> None:
        self.script = script
        self.trace = trace
        self.clock = Clockwork(script.seed)
        self.dirty: list[Line] = []
        self.cast: Cast = cast(real=script.real)
        self.checks = Checks(self)
        self.healed = False
        self.converged: float | None = None
        self._parted: dict[tuple[str, str], int] = {}
        self._pause: dict[tuple[str, str], float] = {}
        self._dialling: set[tuple[str, str]] = set()
        self.core: list[Party] = []
        self._chance = self.clock.stream("network")
        self.nodes: dict[str, NodeParty] = {}
        self.devices: list[DeviceParty] = []
        self.thieves: list[DeviceParty] = []
        self._enrolled: set[str] = set()
        self._people()
        self._uncertified: list[DeviceParty] = []
        if self.clock.stream("late").random() < LATE_SHARE:
            self._hide_further_devices()
        self.cheats = [self.devices[at % len(self.devices)] for at in script.cheats]
        for cheat in self.cheats:
            cheat.honest = False
            self.checks.compromised.add(cheat.key)

    def _people(self) -> None:
        for name in self.script.agencies:
            kind = HostileNode if name in self.script.liars else NodeParty
            node = kind(self, name, self.cast.agencies[name], self.cast.nodes[name])
            incarnation = self.clock.stream("incarnation", name).randbytes(16)
            node.connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'incarnation'", (incarnation,)
            )
            self.nodes[name] = node
            if not node.honest:
                self.checks.liars.add(node.agency)
        for role in self.cast.roles:
            if role.agency in self.nodes:
                self._enter(role)

    def _enter(self, role: Role) -> None:
        home = self.nodes[role.agency]
        party = DeviceParty(self, role.name, role, home)
        party.honest = home.honest
        party.online = self.clock.stream("online").random() < ONLINE_SHARE
        self.devices.append(party)
        if self.script.strangers:
            party.forget_people()

    def _hide_further_devices(self) -> None:
        """Let nobody have heard of the second devices: their users have yet to certify them."""
        self._uncertified = [one for one in self.devices if one.is_further]
        self.devices = [one for one in self.devices if not one.is_further]
        parties: list[NodeParty | DeviceParty] = [*self.nodes.values(), *self.devices]
        for party in parties:
            party.connection.executemany(
                "DELETE FROM devices WHERE id = ?",
                [(one.key,) for one in self._uncertified],
            )

    # What wires ask

    def blocked(self, source: str, target: str) -> bool:
        """Whether nothing passes in this direction."""
        return bool(self._parted) and self._parted.get((source, target), 0) > 0

    def delay(self, source: str, target: str) -> float:
        """How long the next frame takes."""
        chance = self.clock.stream("delay", source, target)
        one = self.script.delay
        return one + (chance.random() * one * self.script.jitter if self.script.jitter else 0.0)

    def drops(self, source: str, target: str) -> bool:
        """Whether the connection is lost with the next frame."""
        loss = 0.0 if self.healed else self.script.loss
        return bool(loss) and self.clock.stream("loss", source, target).random() < loss

    def crossing(self, source: Line, raw: bytes) -> None:
        """Look at what an honest party sends."""
        self.checks.crossing(source, raw)

    def arriving(self, target: Line, frame: Frame) -> None:
        """Look at what arrives at a party."""
        self.checks.arriving(target, frame)

    def bug(self, where: str, error: Exception) -> None:
        """An exception that no peer, and no rule, may cause."""
        if isinstance(error, Violation):
            raise error
        violation = Violation("bug", f"at {where}, {type(error).__name__}: {error}")
        self.checks.violation = self.checks.violation or violation
        raise violation from error

    # What parties tell

    def storing(self, party: Party, parts: Sequence[Stored], source: Line | None) -> None:
        """A party judges and stores."""
        self.checks.storing(party, parts, source)

    def durable(self, party: Party) -> None:
        """A transaction of a party is durable."""
        self.checks.durable(party)

    def aged(self, party: Party, before: AbstractSet[int]) -> None:
        """A party has dropped what has aged."""
        self.checks.i4_only_what_has_aged_goes(party, before)

    def beside(self, party: Party) -> bool:
        """Whether another process of a device does the next thing."""
        share = self.script.beside
        return share > 0 and self.clock.stream("beside", party.name).random() < share

    def certify(self, first: DeviceParty, then: Callable[[DeviceKey, Person], None]) -> None:
        """Have the node certify the further device of a first one's user, if there is any.

        then: gets it, and its user with all devices.
        """
        for device in (*self.devices, *self._uncertified):
            if device.is_further and device.user == first.user and not device.given_up:
                self._register(device, partial(self._certified, device, then))

    def _certified(self, device: DeviceParty, then: Callable[[DeviceKey, Person], None]) -> None:
        if device in self._uncertified:
            self._uncertified.remove(device)
            self._welcome(device)
        device.home.look_up(device.user, partial(then, device.key))

    def _register(self, device: DeviceParty, then: Callable[[], None]) -> None:
        """Have the node take in a device that was not there from the beginning."""
        if device.role.person is not None:
            device.home.enrol(device.role.person, device.key, then)
            return
        take = device.home.recover if device.is_recovered else device.home.register
        take(device.user, device.key, self.cast.listed[device.role.certificate], then)

    def _welcome(self, device: DeviceParty) -> None:
        self.devices.append(device)
        self._retry(device, device.home)
        self._keep_visiting(device)

    def recover(self, lost: DeviceParty, then: Callable[[DeviceParty, Person], None]) -> None:
        """Let a first device be gone, and its user enrol another one by the recovery words.

        then: gets that, and its user with all devices.
        """
        self._lose(lost)
        role = self.cast.substitutes[lost.role.name]
        fresh = DeviceParty(self, role.name, role, lost.home)
        fresh.honest, fresh.online = lost.honest, True
        if self.script.strangers:
            fresh.forget_people()
        self.checks.entering[fresh.key] = fresh.user

        def certified() -> None:
            self._welcome(fresh)
            fresh.home.look_up(fresh.user, partial(then, fresh))

        self._register(fresh, certified)

    def enrol(self, number: int) -> None:
        """Enrol one of the newcomers that are left, if there are any."""
        left = [name for name in self.nodes if name not in self._enrolled]
        if left:
            agency = left[number % len(left)]
            self._enrolled.add(agency)
            role = self.cast.newcomers[agency]
            fresh = DeviceParty(self, role.name, role, self.nodes[agency])
            fresh.honest, fresh.online = fresh.home.honest, True
            fresh.forget_people()
            self._register(fresh, partial(self._welcome, fresh))

    def dismiss(self, device: DeviceParty) -> None:
        """Have the node refuse a device; then it is gone."""
        device.home.dismiss(device.key, partial(self.parted, device.key))

    def parted(self, key: DeviceKey) -> None:
        """A node takes a device no longer: it is gone, and so are its copies."""
        for one in (*self.devices, *self.thieves):
            if one.key == key:
                self._lose(one)

    def _lose(self, device: DeviceParty) -> None:
        device.given_up = True
        if device.up:
            device.crash()
        self.core = [one for one in self.core if one is not device]

    # Who is connected

    def party(self, name: str) -> Party:
        """Return the party of this name."""
        return next(one for one in self.parties if one.name == name)

    @property
    def parties(self) -> list[Party]:
        """Everybody."""
        return [*self.nodes.values(), *self.devices, *self.thieves]

    def _keep_connected(self) -> None:
        names = list(self.nodes)
        for at, one in enumerate(names):
            for other in names[at + 1 :]:
                self._retry(self.nodes[one], self.nodes[other])
        for device in self.devices:
            self._retry(device, device.home)
            self._keep_visiting(device)

    def _keep_visiting(self, device: DeviceParty) -> None:
        device.visit()
        pause = self.clock.stream("visits", device.name).uniform(*VISIT_SECONDS)
        self.clock.after(pause, lambda: self._keep_visiting(device))

    def retry(self, one: Party, other: Party) -> None:
        """Try anew, soon."""
        self._pause[one.name, other.name] = BACK_OFF_SECONDS[0]
        self.clock.after(BACK_OFF_SECONDS[0], lambda: self._retry(one, other))

    def ended(self, line: Line) -> None:
        """A connection is over at one end: whoever dialled does so again, as at the other end."""
        if line.wire is None:
            return
        one, other = (end.owner for end in line.wire.ends)
        if isinstance(one, Party) and isinstance(other, Party):
            self._dial(one, other)

    def _dial(self, one: Party, other: Party) -> None:
        """Try to connect two parties after their pause, unless that is to come already."""
        pair = one.name, other.name
        if pair in self._dialling:
            return
        self._dialling.add(pair)
        jitter = self.clock.stream("dialling", *pair).uniform(0.5, 1.0)
        pause = 2.0 if self.healed else self._pause.get(pair, BACK_OFF_SECONDS[0]) * jitter

        def due() -> None:
            self._dialling.discard(pair)
            self._retry(one, other)

        self.clock.after(pause, due)

    def _retry(self, one: Party, other: Party) -> None:
        """Connect two parties, now or when it can be."""
        pair = one.name, other.name
        if self._linked(one, other) or (self.healed and not {one, other} <= set(self.core)):
            return
        if self._can_connect(one, other):
            self._pause[pair] = BACK_OFF_SECONDS[0]
            self.connect(one, other)
            if self._crosses():
                delay = self.clock.stream("crossing").uniform(*CROSSING_SECONDS)
                again = (other, one) if isinstance(one, NodeParty) else (one, other)
                self.clock.after(delay, partial(self._cross, *again))
        else:
            before = self._pause.get(pair, BACK_OFF_SECONDS[0])
            self._pause[pair] = min(before * 2, BACK_OFF_SECONDS[1])
            self._dial(one, other)

    def _crosses(self) -> bool:
        return self.clock.stream("crossing").random() < self.script.crossing

    def _cross(self, one: Party, other: Party) -> None:
        """Connect two that are connected already: each has dialled the other (SPEC 6.1).

        Or two commands of one device have dialled its node.
        """
        if self._can_connect(one, other):
            one.note("crosses")
            self.connect(one, other)

    def _linked(self, one: Party, other: Party) -> bool:
        return any(
            end.owner.name == other.name
            for line in one.lines
            for end in (line.wire.ends if line.wire else ())
        )

    def _can_connect(self, one: Party, other: Party) -> bool:
        here = one.up and other.up
        if here and isinstance(one, DeviceParty):
            here = one.online and self._is_taken(one)
        return here and not any(
            self.blocked(*way) for way in ((one.name, other.name), (other.name, one.name))
        )

    def _is_taken(self, device: DeviceParty) -> bool:
        return not device.given_up and device.home.directory.device_allowed(device.key)

    def connect(self, one: Party, other: Party) -> None:
        """Join two parties by a new connection, TLS done."""
        assert isinstance(other, NodeParty)
        kind = PeerKind.DEVICE if isinstance(one, DeviceParty) else PeerKind.NODE
        key = one.key if isinstance(one, DeviceParty | NodeParty) else b""
        near = self._line(one, PeerKind.NODE, other.agency)
        far = self._line(other, kind, key)
        if isinstance(one, DeviceParty):
            one.linked(near)
        self.trace.note(self.clock.now, one.name, "connects", other.name)
        Wire(self, near, far).begin()

    def _line(self, owner: Party, kind: PeerKind, key: bytes) -> Line:
        assert isinstance(owner, DeviceParty | NodeParty)
        salt = self.clock.stream("salt", owner.name).randbytes
        greeting = greeting_for(owner.replica, key, salt)
        line = Line(self, owner, kind, key, greeting, owner)
        owner.lines.append(line)
        return line

    # What is done to the network

    def part(self, one: Sequence[str], other: Sequence[str], seconds: float, *, both: bool) -> None:
        """Let nothing pass from one side to the other for a while, or both ways."""
        ways = [(a, b) for a in one for b in other]
        if both:
            ways += [(b, a) for a, b in ways]
        for way in ways:
            self._parted[way] = self._parted.get(way, 0) + 1
        self.clock.after(seconds, lambda: self._join(ways))

    def _join(self, ways: Sequence[tuple[str, str]]) -> None:
        for way in ways:
            left = self._parted.get(way, 0) - 1
            if left > 0:
                self._parted[way] = left
            else:
                self._parted.pop(way, None)
        for line in self._lines():
            if line.wire is not None and line is line.wire.ends[0]:
                line.wire.cleared()

    def _lines(self) -> list[Line]:
        return [line for party in self.parties for line in party.lines]

    def crash(self, party: Party, seconds: float) -> None:
        """Take a party down; it is back after a while."""
        if not party.up:
            return
        party.note("crash")
        party.crash()
        self.clock.after(seconds, lambda: self._restart(party))

    def _restart(self, party: Party) -> None:
        gone = party.given_up or (self.healed and party not in self.core)
        if not party.up and not gone:
            assert isinstance(party, DeviceParty | NodeParty)
            party.start()
            party.note("start")
            self.checks.started(party)

    def restore(self, party: Party) -> None:
        """Bring a party back from its last backup."""
        if party.backup is None or not party.up:
            return
        party.note("restore")
        party.crash()
        party.disturbed = True
        assert isinstance(party, DeviceParty | NodeParty)
        party.restore()
        party.start()
        self.checks.restored(party)
        for device in self.devices:  # whom an older database may not know
            late = device.is_further or device.is_recovered or device.is_newcomer
            if device.home is party and late and not device.given_up:
                self._register(device, lambda: None)

    def steal(self, victim: DeviceParty) -> None:
        """Somebody copies a device and its keys, to write elsewhere."""
        if victim.backup is None or victim.key in self.checks.compromised:
            return
        thief = Thief(self, victim, len(self.thieves) + 1)
        self.thieves.append(thief)
        self.checks.compromised.add(victim.key)
        thief.note("stolen")
        self._retry(thief, thief.home)

    # The run

    def run(self) -> None:
        """Do it all. Raises Violation."""
        self._keep_connected()
        for act in self.script.acts:
            self.clock.at(act.at, partial(self._act, act))
        self.clock.run(self.script.seconds, self._each)
        self.heal()
        self._converge(ROUNDS_MIN)
        for device in self.core:
            if isinstance(device, DeviceParty):
                deeds.say_last_words(device)
        self._converge(ROUNDS_MIN)
        self.converged = self.clock.now - self.script.seconds
        self._let_age()
        self._converge(0)  # somebody may have written meanwhile
        chance = self.clock.stream("witness")
        invariants.check(Rest(self.core, self.checks, chance))

    def _converge(self, rounds_min: int) -> None:
        for number in range(ROUNDS_MAX):
            if number >= rounds_min and self._settled():
                break
            for line in self._lines():
                line.ask_for_payloads()
            self.clock.run(self.clock.now + ROUND_SECONDS, self._each)

    def _let_age(self) -> None:
        """Have all living drop what has aged, as a node does every hour."""
        for party in self.core:
            party.aged_at = None
            party.age()
        self.clock.run(self.clock.now + AGE_SECONDS, self._each)

    def _settled(self) -> bool:
        """Whether the core has converged; if not, that may still come."""
        chance = self.clock.stream("settled")
        try:
            invariants.check_what_may_come(Rest(self.core, Checks(self), chance))
        except Violation:
            return False
        return True

    def _act(self, act: Act) -> None:
        self.trace.note(self.clock.now, "script", act.deed)
        deeds.do(self, act)

    def _each(self) -> None:
        while self.dirty:
            self.dirty.pop(0).pump()
        self.checks.after_event()

    def _connect_core(self) -> None:
        nodes = [one for one in self.core if isinstance(one, NodeParty)]
        for at, one in enumerate(nodes):
            for other in nodes[at + 1 :]:
                self._dial(one, other)
        for device in self.core:
            if isinstance(device, DeviceParty):
                self._dial(device, device.home)

    def heal(self) -> None:
        """Let a random core live, with all its network and disks, and the rest be dead."""
        chance = self.clock.stream("core")
        honest = [node for node in self.nodes.values() if node.honest]
        count = chance.randint(min(2, len(honest)), len(honest))
        chosen = chance.sample(honest, count)
        devices = [one for one in self.devices if one.honest and self._is_taken(one)]
        self.core = [*chosen, *(one for one in devices if one.home in chosen)]
        self.healed = True
        self._parted.clear()
        for party in self.parties:
            if party not in self.core and party.up:
                party.crash()
        self.trace.note(self.clock.now, "script", "heal", ", ".join(one.name for one in self.core))
        for party in self.core:
            assert isinstance(party, DeviceParty | NodeParty)
            party.disk.faults.full, party.disk.faults.failing = False, 0.0
            if isinstance(party, DeviceParty):
                party.online = True
            if not party.up:
                self._restart(party)
            if isinstance(party, NodeParty):
                party.resume()
        self._connect_core()
        for line in self._lines():
            if line.wire is not None and line is line.wire.ends[0]:
                line.wire.cleared()


@contextmanager
def world(script: Script, trace: Trace) -> Iterator[World]:
    """Make the world of a script, and let it have the stand-ins that it is made with."""
    known = cast(real=script.real).registry
    registry = Registry(dict(known.signatures), dict(known.seals))
    stand = seals_standing_in if script.real else standing_in
    with (
        stand(registry),
        limited(script.limits),
        mock.patch.object(abroad, "trio", Trio),
        mock.patch.object(link, "trio", Trio),
        mock.patch.multiple(grants, ASK_AGAIN_MS=ASK_AGAIN_MS, DOUBLINGS_MAX=0),
        mock.patch.object(people, "SEEK_AGAIN_MS", SEEK_AGAIN_MS),
        structlog.testing.capture_logs(),
    ):
        made = World(script, trace)
        yield made
        for party in made.parties:  # nothing else gives back what their databases hold
            party.connection.close(force=True)
