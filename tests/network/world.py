"""A federation on hosts of its own: a node on each of the first, an official's device on the rest.

    with world(Plan.short(), seed, folder) as here:
        here.say("anna", "…")
        here.everyone_reads("…")

All but the last agency share the zone of the chat; the last is trusted by all, and outside of it.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import apsw
import msgspec
from msgspec import convert

from bench.processes import Child
from node import agency as agencies
from node.agency import DATABASE_FILE, Agency, Founding
from node.database import connect
from node.directory import Directory
from protocol.identity import AgencyId
from protocol.invitation import Purpose, encode_invitation
from tests.network.capture import PORT
from tests.network.hosts import ROOT, Hosts, _ended, address, hosts
from tests.network.person import PASSPHRASE

WIRE_FILE = "wire.pcap"
HOME_ZONE = "RU-UDM"
OUTSIDE_ZONE = "RU-MOW"
INVITED_SECONDS = 3600
READY_SECONDS_MAX = 60.0
CONVERGED_SECONDS_MAX = 180.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Plan:
    """Who takes part. users: by the agency that they are of."""

    agencies: Sequence[str]
    users: Sequence[tuple[str, str]]


SHORT = Plan(("north", "south", "abroad"), (("anna", "north"), ("boris", "south")))
LONG = Plan(
    ("north", "south", "west", "abroad"),
    (("anna", "north"), ("boris", "south"), ("vera", "west")),
)


@dataclass
class World:
    """Running nodes and devices, and the chat that all officials are in."""

    plan: Plan
    folder: Path
    network: Hosts
    running: ExitStack
    ids: Mapping[str, AgencyId]
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    people: dict[str, Child] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    chat: str = ""

    @property
    def keys(self) -> Path:
        """Where nodes write down their TLS keys."""
        return self.folder / "tls.keys"

    @property
    def wire(self) -> Path:
        """Where every frame on every wire is written down."""
        return self.folder / WIRE_FILE

    def inside(self) -> Sequence[str]:
        """The agencies that may hold the chat."""
        return self.plan.agencies[:-1]

    def host(self, agency: str) -> int:
        """The host of a node."""
        return self.plan.agencies.index(agency)

    def log(self, agency: str) -> str:
        """What a node has said so far."""
        return (self.folder / f"{agency}.log").read_text()

    def tell(self, user: str, what: str, **more: object) -> None:
        """Give an order to an official."""
        order = {"what": what} | more
        self.people[user].say(msgspec.json.encode(order).decode())

    def say(self, user: str, text: str) -> None:
        """Have an official write a text; it is stored on their device at once."""
        self.tell(user, "say", chat=self.chat, text=text)
        self.people[user].event("said")
        self.written.append(text)

    def everyone_reads(self, texts: Sequence[str], users: Sequence[str] = ()) -> None:
        """Wait until officials, or all, have read these texts. Raises ChildFailed."""
        readers = users or tuple(self.people)
        for user in readers:
            self.tell(user, "await", chat=self.chat, texts=list(texts))
        for user in readers:
            self.people[user].event("read", CONVERGED_SECONDS_MAX)

    def start_node(self, agency: str) -> None:
        """Start the node of an agency, and wait until it listens."""
        log = self.running.enter_context((self.folder / f"{agency}.log").open("ab"))
        self.nodes[agency] = self._started(
            self.host(agency), log, "tests.network.keyed_node", "node", "run",
            "--dir", str(self.folder / agency),
        )  # fmt: skip

    def kill_node(self, agency: str) -> None:
        """End a node as a power cut does."""
        self.nodes[agency].send_signal(signal.SIGKILL)
        self.nodes[agency].wait()

    def until_ready(self, agency: str) -> None:
        """Wait until a node that was started listens."""
        out = self.nodes[agency].stdout
        assert out is not None
        assert out.readline().startswith(b"ready"), self.log(agency)

    def _started(
        self, host: int, log: BinaryIO, module: str, *words: str
    ) -> subprocess.Popen[bytes]:
        passphrase = self.folder / "passphrase"
        process = subprocess.Popen(
            self.network.command(host, sys.executable, "-m", module, *words),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ
            | {"IVOR_TEST_KEYS": str(self.keys), "IVOR_PASSPHRASE_FILE": str(passphrase)},
        )
        self.running.enter_context(_ended(process))
        return process

    def start_person(self, host: int, user: str, invitation: str) -> None:
        """Start an official's device and have it join."""
        log = self.running.enter_context((self.folder / f"{user}.log").open("ab"))
        process = self._started(
            host, log, "tests.network.person", str(self.folder / f"{user}-device")
        )
        self.people[user] = Child(process, user)
        self.tell(user, "join", text=invitation)

    def stored(self, agency: str) -> frozenset[bytes]:
        """Return the ids of the chat's entries at a node."""
        file = self.folder / agency / DATABASE_FILE
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            rows = connection.execute(
                "SELECT entries.id FROM entries JOIN chains ON chains.no = place >> 32"
                " JOIN chats ON chats.no = chat WHERE chats.id = ?",
                (bytes.fromhex(self.chat),),
            ).fetchall()
        finally:
            connection.close()
        return frozenset(entry for (entry,) in convert(rows, list[tuple[bytes]]))

    def sessions(self) -> Counter[tuple[str, str]]:
        """Count the sessions that each node of the chat has had with each other one."""
        return Counter(
            (name, other)
            for name in self.inside()
            for line in self.log(name).splitlines()
            for other in self.inside()
            if '"peer connected"' in line and self.ids[other].hex()[:16] in line
        )

    def converged(self) -> float:
        """Wait until the chat is the same at all its nodes; return the seconds that it took."""
        begun = time.monotonic()
        while len({self.stored(name) for name in self.inside()}) > 1:
            assert time.monotonic() - begun < CONVERGED_SECONDS_MAX, "the nodes differ for ever"
            time.sleep(LOOK_SECONDS)
        return round(time.monotonic() - begun, 2)


@contextmanager
def world(plan: Plan, seed: int, folder: Path) -> Iterator[World]:
    """Run a federation for the length of a block, its officials enrolled."""
    ids, invitations = _founded(plan, folder)
    with ExitStack() as running:
        count = len(plan.agencies) + len(plan.users)
        network = running.enter_context(hosts(count, seed, folder / WIRE_FILE))
        here = World(plan, folder, network, running, ids)
        here.keys.touch()
        for name in plan.agencies:
            here.start_node(name)
        for name in plan.agencies:
            here.until_ready(name)
        for number, (user, _) in enumerate(plan.users, len(plan.agencies)):
            here.start_person(number, user, invitations[user])
        for user in here.people:
            here.people[user].event("joined", READY_SECONDS_MAX)
        yield here


def begin(here: World, title: str) -> None:
    """Have all officials meet, and the first begin a chat, in which its title is said, too."""
    addresses = [f"{user}@{agency}" for user, agency in here.plan.users]
    for user in here.people:
        here.tell(user, "meet", texts=addresses)
    for user in here.people:
        here.people[user].event("met", READY_SECONDS_MAX)
    first = here.plan.users[0][0]
    here.tell(first, "start", text=title, texts=addresses[1:], zones=[HOME_ZONE])
    here.chat = str(here.people[first].event("started", READY_SECONDS_MAX)["chat"])
    here.say(first, title)
    here.everyone_reads([title])


def _founded(plan: Plan, folder: Path) -> tuple[dict[str, AgencyId], dict[str, str]]:
    """Make the agencies, which trust each other; return their ids, and invitations of users."""
    (folder / "passphrase").write_bytes(PASSPHRASE)
    made: dict[str, Agency] = {}
    for host, name in enumerate(plan.agencies):
        zone = OUTSIDE_ZONE if name == plan.agencies[-1] else HOME_ZONE
        endpoint = f"{address(host)}:{PORT}"
        founding = Founding(name, zone, (endpoint,), {"listen": endpoint})
        made[name] = agencies.create(
            folder / name, founding, PASSPHRASE, PASSPHRASE, time.time(), os.urandom
        )
    invitations = {}
    for name, own in made.items():
        connection = connect(folder / name / DATABASE_FILE, None)
        with connection:
            directory = Directory(connection, own, os.urandom)
            for other in made.values():
                if other.id != own.id:
                    directory.accept_card(other.card.raw, allow_local=True)
            for user, home in plan.users:
                if home == name:
                    found = directory.registrar.invite(
                        user, Purpose.FIRST_DEVICE, time.time(), INVITED_SECONDS
                    )
                    invitations[user] = encode_invitation(found)
        connection.close()
    return {name: own.id for name, own in made.items()}, invitations
