"""SPEC 6.5: a chat of eighteen agencies, spread by eighteen real nodes over TLS on loopback.

The nodes run in one process; the author's device speaks to its own through memory.
"""

import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from client import compose
from client.device import Device
from client.link import Link, over
from crypto import keyfile
from node import agency as agencies
from node import dialler, service
from node.agency import DATABASE_FILE, Agency, Founding
from node.database import connect
from node.directory import Directory
from node.driver import Connection
from node.service import Node
from protocol.entry import CONTENT, ChatId
from protocol.frame import LENGTH_BYTES, Run, decode_frame
from protocol.limits import SPREAD_ALL_MAX
from protocol.message import Text
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.session import PeerKind
from tests.federation import Federation, now
from tests.hostile.federation import eventually, free_endpoint, start_node

COUNT = SPREAD_ALL_MAX + 2
NAMES = tuple(f"agency{number}" for number in range(COUNT))


async def nobody_dials(node: Node) -> None:
    """Let the test dial: each pair meets once, and no two calls cross."""
    del node


async def keep_meeting(one: Node, other: Node) -> None:
    """Dial, and again if a busy machine let it take too long."""
    while True:
        await dialler._dial(one, one.cards[other.id])
        await trio.sleep(0.1)


@pytest.fixture
def founded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Agency]:
    """Eighteen agencies that trust each other, with key files that cost next to nothing."""
    monkeypatch.setattr(keyfile, "PASSES", 1)
    monkeypatch.setattr(keyfile, "MEMORY_KIB", keyfile.MEMORY_KIB_MIN)
    monkeypatch.setattr(service, "keep_dialling", nobody_dials)
    monkeypatch.setattr(dialler, "TLS_SECONDS_MAX", 60.0)
    monkeypatch.setattr(service, "SLOT_SECONDS_MAX", 60.0)
    monkeypatch.setattr(service, "HANDSHAKE_SECONDS_MAX", 60.0)
    monkeypatch.setattr("tests.hostile.federation.PATIENCE_SECONDS", 90.0)
    made = []
    for name in NAMES:
        founding = Founding(name, "RU-UDM", (free_endpoint(),), {})
        folder = tmp_path / name
        made.append(agencies.create(folder, founding, b"p", b"r", now() / 1000, os.urandom))
    for name, agency in zip(NAMES, made, strict=True):
        connection = connect(tmp_path / name / DATABASE_FILE, None)
        directory = Directory(connection, agency, os.urandom)
        with connection:
            for other in made:
                if other.id != agency.id:
                    directory.accept_card(other.card.raw, allow_local=True)
        connection.close()
    return made


@dataclass(slots=True)
class Large:
    """The running nodes, the first of which is the author's, and the author's device."""

    nodes: list[Node]
    stops: list[trio.CancelScope]
    device: Device
    link: Link
    chat: ChatId

    async def say(self, text: str) -> int:
        """Write, and return the seq of what was written."""
        message = Text(text, None)
        sent = await self.link.write(
            lambda: compose.send(self.device, self.chat, message, now(), None)
        )
        return sent.seq

    async def everywhere(self, seq: int, nodes: list[Node]) -> None:
        """Wait until these nodes have it."""

        async def arrived() -> bool:
            return all(self.length(node) > seq for node in nodes)

        await eventually(arrived, "all nodes have it")

    def length(self, node: Node) -> int:
        """How many texts of the author a node has."""
        stored = node.replica.store.chat(self.chat)
        chain = [] if stored is None else stored.chains.get((self.device.key, CONTENT), [])
        return max((branch.length for branch in chain), default=0)

    def holders(self, seq: int) -> set[bytes]:
        """Who the author's device knows to store a text."""
        holdings = self.device.replica.sharing.holdings(self.device.key)
        return {one.agency for one in holdings if one.lane == CONTENT and one.seq >= seq}


@asynccontextmanager
async def running(folder: Path, founded: list[Agency]) -> AsyncIterator[Large]:
    """Start all nodes; once they are connected, the author opens a chat with a user of each."""
    federation = Federation(folder)
    federation.agencies.update(zip(NAMES, founded, strict=True))
    author = federation.official(f"anna@{NAMES[0]}")
    members = []
    for name in NAMES[1:]:
        member = federation.official(f"anna@{name}")
        members.append((member.profile.user.user, Role.MEMBER))
        federation.devices.remove(member)
        member.close()
    policy = Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)
    async with trio.open_nursery() as nursery:
        started = [await start_node(nursery, folder, agency) for agency in founded]
        nodes = [node for node, _ in started]
        for one, other in itertools.combinations(nodes, 2):
            nursery.start_soon(keep_meeting, one, other)

        async def met() -> bool:
            return all(len({one.key for one in node.hub.all()}) >= COUNT - 1 for node in nodes)

        await eventually(met, "all nodes have met")
        register(nodes[0], author)
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(nodes[0].hold, ours, PeerKind.DEVICE, author.key)
        async with over(author, theirs) as link:
            await link.greeted.wait()
            chat = await link.write(
                lambda: compose.new_chat(author, ChatKind.GROUP, "all", policy, members, now())
            )
            yield Large(nodes, [stop for _, stop in started], author, link, chat)
        nursery.cancel_scope.cancel()
    federation.close()


def register(node: Node, device: Device) -> None:
    """Have a device in the directory of its node."""
    profile, people = device.profile, node.directory.people
    user, address, charter = profile.user, profile.name, profile.charter.raw
    with node.replica.store.connection:
        people.keep_user(user.user, user.agency, address, charter, user.raw)
        people.keep_device(device.key, user.user, profile.device_certificate, None)


@pytest.fixture
def pushes(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How many runs of content were pushed to nodes, by the receiver."""
    counted: Counter[bytes] = Counter()
    push = Connection.push

    def pushing(connection: Connection, raw: bytes) -> None:
        frame = decode_frame(raw[LENGTH_BYTES:])
        if isinstance(frame, Run) and frame.lane == CONTENT and connection.peer is PeerKind.NODE:
            counted[connection.key] += 1
        push(connection, raw)

    monkeypatch.setattr(Connection, "push", pushing)
    return counted


async def test_eighteen_nodes(
    tmp_path: Path, founded: list[Agency], pushes: Counter[bytes]
) -> None:
    """All get all; who wrote hears so from each; a tree is left; relays do without the author."""
    async with running(tmp_path, founded) as large:
        for number in range(4):
            seq = await large.say(f"{number}")
            await large.everywhere(seq, large.nodes)
        everybody = {agency.id for agency in founded}

        async def told() -> bool:
            return large.holders(seq) == everybody

        await eventually(told, "the author hears that each agency stores it")
        pushes.clear()
        seq = await large.say("through the tree")
        await large.everywhere(seq, large.nodes)
        assert sum(pushes.values()) < 2 * COUNT
        seq = await large.say("the last")
        relays = large.nodes[1:]

        async def left() -> bool:
            return any(large.length(node) > seq for node in relays)

        await eventually(left, "it has left the author's node")
        large.stops[0].cancel()
        await large.everywhere(seq, relays)
