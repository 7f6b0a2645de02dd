"""Real nodes and devices in one process, over TLS on loopback, and attackers that speak the wire.

`found` makes agencies, users and a chat once; each test works on a copy of their folders.

    north, south   two agencies that trust each other, each with a node
    rogue          a third agency that both trust; its keys are in the attacker's hands
    anna, boris    honest: a device each at north and south, and a chat of their own ("quiet")
    mallory        an enrolled device of north that its owner has turned against everyone; a member
                   of one chat with anna and boris ("open")
"""

import math
import os
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw
import structlog
import trio

from bench.federation import free_port
from client import compose, device, enrol, exchange, mailbox
from client.device import Device
from client.link import Link, linked
from node import agency as agencies
from node.agency import DATABASE_FILE, Agency, Founding
from node.config import Settings
from node.control import SOCKET_FILE
from node.database import connect
from node.directory import Directory
from node.driver import Connection
from node.service import Node
from node.tls import Credential, client_context, credential_from_der
from node.wire import FrameReader
from protocol.entry import ChatId
from protocol.frame import Answer, Ask, Error, Frame, Hello, Recon, Roll, encode_frame
from protocol.identity import UserId
from protocol.invitation import Purpose
from protocol.limits import FRAME_BYTES_MAX
from protocol.message import Text
from protocol.name import split_endpoint
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.session import VERSION

PASSPHRASE: Final = b"hostile tests"
ZONE: Final = "RU-UDM"
NODES: Final = ("north", "south")
AGENCIES: Final = (*NODES, "rogue")
USERS: Final = {"anna": "north", "boris": "south", "mallory": "north"}
PATIENCE_SECONDS: Final = 90.0  # until what should come is given up; a busy machine is slow
BREATH_SECONDS: Final = 0.01
LETTERS_LOOKED_AT: Final = 50  # attackers write beside
INVITATION_SECONDS: Final = 3600
INCARNATION: Final = b"\xaa" * 16
SMALLEST_SALT: Final = bytes(16)  # who sends the smaller one begins

Rows = frozenset[tuple[int, bytes, bytes]]


def now() -> int:
    """Milliseconds UTC."""
    return int(time.time() * 1000)


def free_endpoint() -> str:
    """A loopback address and port that nobody listens on; the address is this process's own."""
    host = f"127.{os.getpid() >> 16 & 0xFF}.{os.getpid() >> 8 & 0xFF}.{os.getpid() % 250 + 2}"
    return f"{host}:{free_port(host)}"


def say(device: Device, chat: ChatId, text: str) -> None:
    """Append a text, in a transaction of the caller's."""
    compose.send(device, chat, Text(text, None), now(), None)


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something holds. Fails the test if that takes too long."""
    end = trio.current_time() + PATIENCE_SECONDS
    while not await holds():
        assert trio.current_time() < end, f"not in {PATIENCE_SECONDS:.0f} s: {what}"
        await trio.sleep(BREATH_SECONDS)


@dataclass(frozen=True, slots=True)
class Founded:
    """What `found` has made: agencies with all their keys, and the chats."""

    agencies: Mapping[str, Agency]
    users: Mapping[str, UserId]
    quiet: ChatId
    open: ChatId


def settings(agency: Agency) -> Settings:
    """Settings for a node on loopback."""
    return Settings(listen=agency.card.nodes[0].endpoints[0], allow_local=True)


def _agency(base: Path, name: str) -> Agency:
    founding = Founding(name, ZONE, (free_endpoint(),), {})
    return agencies.create(base / name, founding, PASSPHRASE, PASSPHRASE, time.time(), os.urandom)


def trust_all(base: Path, founded: Mapping[str, Agency], names: Sequence[str] = NODES) -> None:
    """Have some agencies take all others' cards."""
    for name in names:
        connection = connect(base / name / DATABASE_FILE, None)
        directory = Directory(connection, founded[name], os.urandom)
        with connection:
            for other in founded.values():
                if other.id != founded[name].id:
                    directory.accept_card(other.card.raw, allow_local=True)
        connection.close()


def found(base: Path) -> Founded:
    """Make everything anew in a folder. Takes about 2 s, most of it argon2id."""
    made = {name: _agency(base, name) for name in AGENCIES}
    trust_all(base, made)
    return trio.run(_enrol_all, base, made)


async def _enrol_all(base: Path, made: Mapping[str, Agency]) -> Founded:
    async with trio.open_nursery() as nursery:
        nodes = {name: (await start_node(nursery, base, made[name]))[0] for name in NODES}
        for user, home in USERS.items():
            await _join(nodes[home], base / user)
        anna, boris, mallory = (open_device(base, user) for user in USERS)
        async with linked(anna) as link, linked(boris) as other, linked(mallory) as third:
            links = (link, other, third)
            for one in links:
                await one.greeted.wait()
                await one.refresh()
            await eventually(lambda: _both_know(nodes), "the nodes meet")
            known = await link.look_up(["boris@south", "mallory@north"])
            quiet = await _new_chat(link, anna, "quiet", [(known[0], Role.MEMBER)])
            both = [(user, Role.MEMBER) for user in known]
            opened = await _new_chat(link, anna, "open", both)
            for one, writer, chats in (
                (other, boris, (quiet, opened)),
                (third, mallory, (opened,)),
            ):
                for chat in chats:
                    await _write(one, writer, chat)
            for one in links:
                await eventually(one_settled(one), "all is stored")
        users = {}
        for owned in (anna, boris, mallory):
            users[owned.profile.user.name] = owned.profile.user.user
            owned.close()
        nursery.cancel_scope.cancel()
    return Founded(made, users, quiet, opened)


async def _join(node: Node, folder: Path) -> None:
    """Enrol a user, called as the folder, with a one-time invitation."""
    invitation = await node.journal.write(
        lambda: node.directory.registrar.invite(
            folder.name, Purpose.FIRST_DEVICE, time.time(), INVITATION_SECONDS
        )
    )
    await enrol.join(folder, invitation, "desk", PASSPHRASE, os.urandom)


async def _both_know(nodes: Mapping[str, Node]) -> bool:
    return all(nodes[a].hub.of(nodes[b].id) for a, b in (NODES, NODES[::-1]))


def one_settled(link: Link) -> Callable[[], Awaitable[bool]]:
    """Tell whether a device and its node have the same."""

    async def settled() -> bool:
        return await link.settle(1)

    return settled


async def _new_chat(
    link: Link, owner: Device, title: str, members: Sequence[tuple[UserId, Role]]
) -> ChatId:
    policy = Policy((ZONE,), 0, HistoryRule.FROM_JOIN)
    return await link.write(
        lambda: compose.new_chat(owner, ChatKind.GROUP, title, policy, members, now())
    )


async def _write(link: Link, device: Device, chat: ChatId) -> None:
    """Write the first message once the chat and its key have come, and its people are known."""

    async def ready() -> bool:
        await exchange.receive(device, link)
        letters = await link.journal.read(lambda: mailbox.letters(device, chat, 1))
        return [letter.state for letter in letters] == [mailbox.State.OPEN]

    await eventually(ready, "the chat has come")
    await link.refresh()
    await link.write(lambda: compose.send(device, chat, Text("here", None), now(), None))


def open_device(base: Path, user: str) -> Device:
    """Open a user's device; each test works on a copy of its folder, and takes that for its own."""
    opened = device.open_device(base / user, PASSPHRASE, os.urandom)
    opened.settle_here()
    return opened


async def start_node(
    nursery: trio.Nursery, base: Path, agency: Agency, changed: Settings | None = None
) -> tuple[Node, trio.CancelScope]:
    """Start the node of an agency; return it once it listens, and what stops it."""
    connection = connect(base / agency.card.charter.name / DATABASE_FILE, None)
    here = Agency(
        base / agency.card.charter.name,
        agency.card,
        agency.registrar,
        agency.node,
        agency.archive,
        agency.ca_key,
    )
    node = Node(here, changed or settings(agency), connection)
    ready = trio.Event()

    async def run(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        try:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                await node.run(lambda _host, _port: ready.set())
        finally:
            connection.close()

    scope: trio.CancelScope = await nursery.start(run)
    await ready.wait()
    return node, scope


# The attacker


class Gone(Exception):
    """The other side has closed the connection. error: what it said before."""

    def __init__(self, error: Error | None) -> None:
        super().__init__("closed" if error is None else error.text.decode())
        self.error = error


class Wire:
    """A TLS connection without a session: whatever bytes, in whatever order."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self._reader = FrameReader(stream, lambda: FRAME_BYTES_MAX)
        self.heard: list[Frame] = []

    async def ask(self, topic: int, body: bytes) -> Answer:
        """Put a question to the directory. Raises Gone."""
        await self.send(Ask(1, topic, body))
        answer = await self.hear(Answer)
        assert isinstance(answer, Answer)
        return answer

    async def send(self, *frames: Frame) -> None:
        """Send frames. One that the other side no longer takes is no failure of ours."""
        await self.send_raw(b"".join(map(encode_frame, frames)))

    async def send_raw(self, raw: bytes) -> None:
        """Send bytes."""
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await self.stream.send_all(raw)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def next(self) -> Frame:
        """Return the next frame. Raises Gone."""
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                frame = await self._reader.next()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            frame = None
        if frame is None:
            said = [one for one in self.heard if isinstance(one, Error)]
            raise Gone(said[-1] if said else None)
        self.heard.append(frame)
        return frame

    async def hear(self, kind: type[Frame]) -> Frame:
        """Return the next frame of this type. Raises Gone."""
        while not isinstance(frame := await self.next(), kind):
            pass
        return frame

    async def greet(self) -> None:
        """Exchange HELLO, and say that we have nothing: so all is listed that we may see."""
        nothing = Recon(0, (), (Roll(b"", b"", ()),), (), 0)
        await self.send(Hello((VERSION,), INCARNATION, None, 0, SMALLEST_SALT), nothing)
        await self.hear(Hello)

    async def end(self) -> Error | None:
        """Read until the other side has closed; return the error that it named."""
        while True:
            try:
                await self.next()
            except Gone as gone:
                return gone.error

    async def quiet(self, seconds: float) -> list[Frame]:
        """Return the frames of the next while, or until the other side has closed."""
        before = len(self.heard)
        with trio.move_on_after(seconds), suppress(Gone):
            while True:
                await self.next()
        return self.heard[before:]


@asynccontextmanager
async def wire(target: Agency, credential: Credential) -> AsyncIterator[Wire]:
    """Connect to an agency's node with whatever credential."""
    stream = await dial(target, client_context(credential, [target.card.ca]))
    try:
        yield Wire(stream)
    finally:
        await trio.aclose_forcefully(stream)


async def dial(target: Agency, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    """Connect and shake hands."""
    host, port = split_endpoint(target.card.nodes[0].endpoints[0])
    transport = await trio.open_tcp_stream(host, port)
    stream = trio.SSLStream(transport, context, https_compatible=True)
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


# The federation of one test


@dataclass(slots=True)
class Federation:
    """Running nodes, and a honest pair that goes on exchanging messages."""

    base: Path
    founded: Founded
    nursery: trio.Nursery
    events: Sequence[structlog.typing.EventDict]
    nodes: dict[str, Node] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    honest: dict[str, Device] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    _running: dict[str, trio.CancelScope] = field(default_factory=dict)
    _stop: trio.Event = field(default_factory=trio.Event)
    _ended: trio.Event = field(default_factory=trio.Event)

    def agency(self, name: str) -> Agency:
        """The agency with its keys."""
        return self.founded.agencies[name]

    def node(self, name: str = "north") -> Node:
        """The running node of an agency."""
        return self.nodes[name]

    def node_credential(self, name: str) -> Credential:
        """What a node of this agency shows."""
        return agencies.node_credential(self.agency(name), time.time(), os.urandom)

    def device(self, user: str) -> Device:
        """Open a user's device; the caller closes it."""
        return open_device(self.base, user)

    async def invitation(self) -> Credential:
        """What the holder of an invitation by north shows."""
        node = self.node()
        made = await node.journal.write(
            lambda: node.directory.registrar.invite(
                "eve", Purpose.FIRST_DEVICE, time.time(), INVITATION_SECONDS
            )
        )
        return credential_from_der(made.certificate, made.key)

    @asynccontextmanager
    async def as_node(self, target: str = "north") -> AsyncIterator[Wire]:
        """Speak to a node as the node of the agency rogue."""
        async with wire(self.agency(target), self.node_credential("rogue")) as opened:
            yield opened

    @asynccontextmanager
    async def as_device(self, user: str = "mallory") -> AsyncIterator[Wire]:
        """Speak to a user's node as that user's device."""
        device = self.device(user)
        try:
            async with wire(self.agency(USERS[user]), device.credential) as opened:
                yield opened
        finally:
            device.close()

    @asynccontextmanager
    async def as_invited(self) -> AsyncIterator[Wire]:
        """Speak to north as one who was invited."""
        async with wire(self.agency("north"), await self.invitation()) as opened:
            yield opened

    def reasons(self) -> list[str | None]:
        """Return why sessions have ended, as the nodes have logged it."""
        return [event["reason"] for event in self.events if event["event"] == "peer gone"]

    async def refused(self, wire: Wire, reason: str) -> None:
        """Wait until a session of the attacker's is over; the node's log must give the reason."""
        await wire.end()

        async def logged() -> bool:
            return any(reason in (found or "") for found in self.reasons())

        await eventually(logged, f"a session ends with {reason!r}, not {self.reasons()}")

    async def session_of(self, key: bytes) -> Connection:
        """Return north's session with a peer, once both have greeted."""

        async def greeted() -> bool:
            return bool(self.node().hub.of(key))

        await eventually(greeted, "north has taken up the session")
        return self.node().hub.of(key)[0]

    async def devices_in(self, chat: ChatId) -> frozenset[bytes]:
        """The devices of a chat, as north sees it."""

        def read() -> frozenset[bytes]:
            judge = self.node().replica.chat(chat)
            assert judge is not None
            return frozenset(judge.membership().devices)

        return await self.node().journal.read(read)

    async def start_node(self, name: str) -> None:
        """Start a node of ours."""
        agency = self.agency(name)
        self.nodes[name], self._running[name] = await start_node(self.nursery, self.base, agency)

    async def stop_node(self, name: str) -> None:
        """Stop a node, as with SIGTERM."""
        self._running[name].cancel()

        async def stopped() -> bool:
            return not (self.base / name / SOCKET_FILE).exists()

        await eventually(stopped, f"{name} stops")

    async def restart(self, name: str) -> None:
        """Stop a node, and start it again."""
        await self.stop_node(name)
        await self.start_node(name)

    # The honest pair

    async def chat_along(self) -> None:
        """Have anna and boris exchange messages through both nodes until `finish`."""
        anna, boris = self.device("anna"), self.device("boris")
        self.honest = {"anna": anna, "boris": boris}
        try:
            async with linked(anna) as first, linked(boris) as second:
                self.links = {"anna": first, "boris": second}
                await first.greeted.wait()
                await second.greeted.wait()
                await eventually(lambda: _both_know(self.nodes), "the nodes meet")
                pair = ((anna, first), (boris, second))
                while not self._stop.is_set():
                    await self._say(*pair[0], *pair[1])
                    pair = pair[::-1]
                    await trio.sleep(BREATH_SECONDS)
                for link in (first, second):
                    await eventually(one_settled(link), "all is stored")
        finally:
            anna.close()
            boris.close()
        self._ended.set()

    async def _say(self, device: Device, writer: Link, other: Device, reader: Link) -> None:
        text = f"message {len(self.said)}"
        begun = trio.current_time()
        chat = self.founded.quiet
        await writer.write(lambda: compose.send(device, chat, Text(text, None), now(), None))

        async def arrived() -> bool:
            await exchange.receive(other, reader)
            newest = mailbox.letters(other, chat, LETTERS_LOOKED_AT)
            return any(letter.message == Text(text, None) for letter in newest)

        await eventually(arrived, f"{text} of an honest member arrives")
        self.said.append(text)
        self.latencies.append(trio.current_time() - begun)

    async def more_messages(self, count: int = 4) -> None:
        """Wait until the honest pair has exchanged some more."""
        goal = len(self.said) + count

        async def reached() -> bool:
            return len(self.said) >= goal

        await eventually(reached, "the honest pair goes on")

    @property
    def finished(self) -> bool:
        """Whether the honest pair has ended its talk."""
        return self._ended.is_set()

    async def finish(self) -> None:
        """End the honest pair's talk; everything that they said must have arrived."""
        self._stop.set()
        with trio.fail_after(2 * PATIENCE_SECONDS):
            await self._ended.wait()

    async def serve_again(self) -> None:
        """Start north anew, and have anna write through it once more."""
        await self.start_node("north")
        anna = self.device("anna")
        try:
            async with linked(anna) as link:
                await link.greeted.wait()
                await link.write(lambda: say(anna, self.founded.quiet, "after the restart"))
                await eventually(one_settled(link), "north serves after its restart")
        finally:
            anna.close()

    def entries(self, name: str = "north", chat: ChatId | None = None) -> Rows:
        """Return what a node's file holds of a chat, by default of the honest pair's."""
        wanted = chat or self.founded.quiet
        file = self.base / name / DATABASE_FILE
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return frozenset(
                connection.execute(
                    "SELECT place, entries.id, record FROM entries"
                    " JOIN chains ON chains.no = place >> 32 JOIN chats ON chats.no = chat"
                    " WHERE chats.id = ?",
                    (wanted,),
                )
            )
        finally:
            connection.close()


async def start(
    base: Path,
    founded: Founded,
    nursery: trio.Nursery,
    events: Sequence[structlog.typing.EventDict] = (),
) -> Federation:
    """Start both nodes and the honest pair's talk. events: what the nodes log."""
    federation = Federation(base, founded, nursery, events)
    for name in NODES:
        await federation.start_node(name)
    nursery.start_soon(federation.chat_along)
    await federation.more_messages(1)
    return federation


def copied(template: Path, base: Path) -> Path:
    """Copy the folders that `found` has made."""
    shutil.copytree(template, base, dirs_exist_ok=True)
    return base


def p99(latencies: Sequence[float]) -> float:
    """The latency that one message in a hundred exceeds."""
    return sorted(latencies)[math.ceil(0.99 * len(latencies)) - 1]
