"""One node: listens, dials the agencies it trusts, serves its devices and its operator (SPEC 6, 7).

accept or dial -> TLS -> who is it -> Connection -> Session, Replica, Journal
what became durable -> Hub -> the connections that it concerns
"""

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import structlog
import trio

from node import abroad, operations, tls
from node.agency import DATABASE_FILE, Agency, node_credential, open_agency
from node.capacity import allow_files, collect_rarely, keep_small
from node.config import Loaded, Settings, parse_listen
from node.control import CONNECTIONS_MAX, FolderLock, serve_control
from node.database import connect
from node.dealing import greeting_for
from node.dialler import keep_dialling
from node.directory import Directory
from node.driver import Connection
from node.errors import IvorError, NetworkError
from node.hub import Hub, One
from node.journal import Journal
from node.larder import Larder
from node.metrics import Metrics
from node.outgoing import Outgoing
from node.payloads import now_ms
from node.replica import Replica
from node.seals import Sealless
from node.share import Share, Shares
from node.stored import Stored
from node.sweep import Sweep
from node.wire import keep_alive
from protocol.entry import ATTACHED, CONTENT, ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import Answer, Ask, Blob, Forked, Holding, Lacking, Rumour, Seal, WantBlob
from protocol.identity import AgencyId, Card
from protocol.limits import HEADS_CHAINS_MAX
from protocol.question import Revoke, decode_question
from protocol.session import Greeting, PeerKind
from protocol.topic import Topic

log = structlog.get_logger()

Result = TypeVar("Result")

HANDSHAKE_SECONDS_MAX = 10.0
SLOT_SECONDS_MAX = 15.0  # to wait for one to shake hands in: as long as who dials does
CREDENTIAL_RENEW_SECONDS = 24 * 3600.0
CREDENTIAL_LOOK_SECONDS = 60.0
COMPARE_SECONDS = 3600.0
SHOW_SECONDS = 5.0  # from one round to all peers to the next; guess
FAREWELL_SECONDS = 0.5
PEER_CONNECTIONS_MAX = 16  # of one device, agency or invitation at a time; guess


async def serve(
    folder: Path, loaded: Loaded, passphrase: bytes, ready: Callable[[str, int], None]
) -> None:
    """Run the node of an agency folder until SIGTERM or SIGINT.

    ready: called once with the host and port that it listens on.
    Raises IvorError when the folder, the keys or the port are not to be had.
    """
    collect_rarely()
    agency = open_agency(folder, passphrase)
    lacking = allow_files(loaded.settings)
    if lacking:
        log.warning("too few open files are allowed; raise LimitNOFILE", lacking=lacking)
    with FolderLock(folder):
        connection = connect(folder / DATABASE_FILE, None)
        try:
            await Node(agency, loaded.settings, connection).run(ready)
        finally:
            connection.close()


class Node:
    """What a running node consists of; the connections call it back as their surroundings."""

    def __init__(
        self,
        agency: Agency,
        settings: Settings,
        connection: apsw.Connection,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """clock: milliseconds UTC, for what ages."""
        self.agency = agency
        self.settings = settings
        self.hub: Hub[Connection] = Hub(agency.id, trio.current_time)
        self.shares = Shares()
        self.metrics = Metrics()
        self.replica = Replica(connection, agency.id, agency.id, clock)
        self.journal = Journal(connection, self.replica.forget)
        self.directory = Directory(connection, agency, os.urandom)
        self.larder = Larder(self.replica, self.journal, settings, agency.folder, self.hub)
        self.sweep = Sweep(self.replica, self.journal, self.larder, self.hub)
        self._handshakes = trio.CapacityLimiter(settings.handshakes_max)
        self._connections = trio.CapacityLimiter(settings.connections_max)
        self._held: Counter[bytes] = Counter()
        self._conversing: set[Connection] = set()  # those that have not greeted yet, too
        self._threads = trio.CapacityLimiter(CONNECTIONS_MAX)  # for operators; others: see Journal
        self._backing_up = trio.Lock()  # two into one file would take each other's draft
        self._signed = trio.Event()
        self.pages: Counter[AgencyId] = Counter()
        with connection:
            renewed = self.directory.registrar.take_over()
        if renewed:
            log.info("users certified under another registrar key", users=renewed)
        self._trust(self.directory.cards())

    @property
    def id(self) -> AgencyId:
        """Our own agency."""
        return self.agency.id

    def _trust(self, cards: Mapping[AgencyId, Card]) -> None:
        """Take up the cards of the directory: whom TLS lets in, and whom we dial."""
        self.cards = cards
        self.hub.agencies = frozenset(cards)
        authorities = [card.ca for card in self.cards.values()]
        now = time.time()
        credential = node_credential(self.agency, now, os.urandom)
        self._server_context = tls.server_context(credential, authorities)
        self.client_context = tls.client_context(credential, authorities)
        self._certified = now

    async def run(self, ready: Callable[[str, int], None]) -> None:
        """Serve until a signal says to stop; then say goodbye to every peer."""
        host, port = parse_listen(self.settings.listen)
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {self.settings.listen}: {error.strerror}; "
                "is another node running? choose another with --listen"
            ) from error
        with (
            self.metrics.served(self.settings.metrics),
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        ):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self.journal.run)
                nursery.start_soon(trio.serve_listeners, self._accept, listeners)
                await nursery.start(serve_control, self.agency.folder, self._operate)
                nursery.start_soon(self._renew_credential)
                nursery.start_soon(self.hub.keep_spreading)
                nursery.start_soon(self.sweep.run)
                nursery.start_soon(self.larder.run)
                nursery.start_soon(self._keep_comparing)
                nursery.start_soon(self._keep_showing)
                nursery.start_soon(keep_small)
                nursery.start_soon(keep_dialling, self)
                bound = listeners[0].socket.getsockname()
                ready(bound[0], bound[1])
                _notify_service_manager()
                async for _ in signals:
                    break
                log.info("stopping")
                nursery.cancel_scope.cancel()

    async def _renew_credential(self) -> None:
        """Make our certificate anew in time, also where the clock was wrong when it was made."""
        while True:
            await trio.sleep(CREDENTIAL_LOOK_SECONDS)
            if not 0 <= time.time() - self._certified < CREDENTIAL_RENEW_SECONDS:
                await self._guard("renewing the certificate", self._renew)

    async def _renew(self) -> None:
        self._trust(self.cards)

    # Connections

    async def _accept(self, transport: trio.SocketStream) -> None:
        """Take one incoming connection. Slots for strangers are few, and time is short.

        Those who come while the slots are taken wait for one: after a restart all devices come at
        once, and whoever is turned away comes again and costs more.
        """
        if self._handshakes.statistics().tasks_waiting >= self.settings.connections_max:
            log.warning("too many strangers wait")
            await trio.aclose_forcefully(transport)
            return
        keep_alive(transport)
        stream = trio.SSLStream(
            transport, self._server_context, server_side=True, https_compatible=True
        )
        try:
            with trio.fail_after(SLOT_SECONDS_MAX) as time_left:
                async with self._handshakes:
                    time_left.deadline = trio.current_time() + HANDSHAKE_SECONDS_MAX
                    peer = await self.identify(stream)
                    kind, key = await self._admit(peer)
        except (PeerError, IvorError, tls.HandshakeFailed, trio.TooSlowError) as error:
            log.info("connection refused", reason=str(error) or "no handshake in time")
            await trio.aclose_forcefully(stream)
            return
        except Exception:  # our bug, met by one stranger: the others go on
            log.exception("a bug ended a handshake")
            await trio.aclose_forcefully(stream)
            return
        await self.hold(stream, kind, key)

    async def identify(self, stream: trio.SSLStream[trio.SocketStream]) -> tls.Peer:
        """Shake hands and return who is there. Raises Untrusted or HandshakeFailed."""
        certificate = await tls.handshake(stream)
        return tls.peer_identity(certificate, self.cards, self.agency.id, time.time())

    async def _admit(self, peer: tls.Peer) -> tuple[PeerKind, bytes]:
        match peer:
            case tls.NodePeer(agency, _):
                return PeerKind.NODE, agency
            case tls.InvitationPeer(ticket):
                return PeerKind.INVITATION, ticket
            case tls.DevicePeer(device):
                if not await self.journal.read(lambda: self.directory.device_allowed(device)):
                    raise NetworkError("the device is revoked or was never registered here")
                return PeerKind.DEVICE, device

    async def hold(self, stream: trio.abc.Stream, kind: PeerKind, key: bytes) -> Exception | None:
        """Run a session over an authenticated stream to its end; return what ended it."""
        if self._held[key] >= PEER_CONNECTIONS_MAX or not self._connections.available_tokens:
            log.warning("connection slots are full", kind=kind.value, peer=key.hex()[:16])
            await trio.aclose_forcefully(stream)
            return None
        self._connections.acquire_on_behalf_of_nowait(stream)
        self._held[key] += 1
        try:
            return await self._converse(stream, kind, key)
        finally:
            self._connections.release_on_behalf_of(stream)
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    async def _converse(
        self, stream: trio.abc.Stream, kind: PeerKind, key: bytes
    ) -> Exception | None:
        try:
            greeting = await self.journal.read(partial(self._greeting, kind, key))
        except IvorError as error:
            log.exception("no session: the database cannot be read")
            await trio.aclose_forcefully(stream)
            return error
        if greeting is None:
            await trio.aclose_forcefully(stream)
            return None
        connection = Connection(stream, kind, key, greeting, self.replica, self.journal, self)
        peer = key.hex()[:16]
        log.info("peer connected", kind=kind.value, peer=peer)
        self._conversing.add(connection)
        try:
            with self.metrics.connections.labels(kind.value).track_inprogress():
                await connection.run()
        finally:
            self._conversing.discard(connection)
            self._closed(connection)
        if isinstance(connection.failure, PeerError):
            self.metrics.breaches.labels(kind.value, type(connection.failure).__name__).inc()
        reason = None if connection.failure is None else str(connection.failure)
        log.info("peer gone", kind=kind.value, peer=peer, reason=reason)
        return connection.failure

    def _greeting(self, kind: PeerKind, key: bytes) -> Greeting | None:
        """Read what a session begins with; None for who was shut out just now."""
        return greeting_for(self.replica, key) if self._is_let_in(kind, key) else None

    def _is_let_in(self, kind: PeerKind, key: bytes) -> bool:
        """Whether a peer that has shown its certificate may have a session, or go on with it."""
        match kind:
            case PeerKind.NODE:
                return key in self.cards
            case PeerKind.DEVICE:
                return self.directory.device_allowed(DeviceKey(key))
            case PeerKind.INVITATION:
                return True

    # What connections tell

    def share(self, key: bytes) -> Share:
        """All sessions of a peer have one share of our time."""
        return self.shares.of(key)

    def opened(self, connection: Connection) -> None:
        """A peer has greeted."""
        if connection.peer is PeerKind.NODE:
            self._begin("taking up a card", partial(self._meet, connection))
        self.hub.add(connection)
        self.larder.opened(connection)
        if connection.peer is PeerKind.DEVICE:
            self._begin("telling holdings", partial(self._tell_holdings, connection))

    def _closed(self, connection: Connection) -> None:
        """A session is over. What it was yet to tell a device, another one of that device tells."""
        self.hub.remove(connection)
        self.larder.closed(connection)
        if connection.peer is PeerKind.DEVICE:
            for other in self.hub.of(connection.key):
                self._begin("telling holdings", partial(self._tell_holdings, other))

    def _begin(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._guard, what, work)

    async def _guard(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something beside the sessions; if it fails, whatever it met, the node goes on."""
        try:
            await work()
        except (PeerError, IvorError) as error:
            log.warning("not done", what=what, why=str(error))
        except Exception:  # our bug, met by one peer
            log.exception("a bug ended a task", what=what)

    async def _meet(self, connection: Connection) -> None:
        """Ask for a newer card, and compare directories: also later, as once may be in vain."""
        if await abroad.renew_card(self, connection):
            share = self.share(connection.key)
            async with share.turn():
                cards = await self.journal.read(share.charged(self.directory.cards))
                share.charged(partial(self._trust, cards))()
        await self._compare([connection])

    async def _compare(self, connections: Sequence[Connection]) -> None:
        """Compare directories; a new proof goes to everyone at once."""
        for connection in connections:
            if await abroad.compare_directories(self, connection):
                self._begin("comparing directories", partial(self._compare, self._nodes()))

    def _nodes(self) -> list[Connection]:
        return [one for one in self.hub.all() if one.peer is PeerKind.NODE]

    async def _keep_comparing(self) -> None:
        while True:
            await trio.sleep(COMPARE_SECONDS)
            self.pages.clear()
            self.directory.shown.clear()
            for connection in self._nodes():
                await self._guard("meeting again", partial(self._meet, connection))

    async def _keep_showing(self) -> None:
        """Show new heads of our directory to who is connected, the newest of many (SPEC 7.5)."""
        while True:
            await self._signed.wait()
            self._signed = trio.Event()
            await self._guard("showing our directory", self._show_directory)
            await trio.sleep(SHOW_SECONDS)

    async def _show_directory(self) -> None:
        newest = {connection.key: connection for connection in self._nodes()}
        if await abroad.show_directory(self, list(newest.values())):
            self._begin("comparing directories", partial(self._compare, self._nodes()))

    async def _write(self, work: Callable[[], Result]) -> Result:
        """Write what may sign another head of our directory."""
        before = self.directory.witness.signed
        done = await self.journal.write(work)
        if self.directory.witness.signed > before:
            self._has_signed()
        return done

    def _has_signed(self) -> None:
        self._signed.set()

    async def _tell_holdings(self, connection: Connection) -> None:
        """Tell a device how far its entries are; an acknowledgement may have been lost before."""
        device, sharing = DeviceKey(connection.key), self.replica.sharing

        def look() -> list[Holding]:
            return [*sharing.holdings(device), *sharing.stored_of(device, self.id)]

        share = self.share(connection.key)
        async with share.turn():
            holdings = await self.journal.read(share.charged(look))
        for at in range(0, len(holdings), HEADS_CHAINS_MAX):
            connection.have(holdings[at : at + HEADS_CHAINS_MAX])

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Push runs on, while the disk works on them or after it has."""
        hand_on = self.hub.storing(parts, source)
        attached = any(
            entry.header.kind == ATTACHED
            for stored in parts
            if stored.run.lane == CONTENT
            for entry in stored.entries
        )
        tell = self.larder.changed if attached else bool
        tell_home = acknowledging(self.replica, self.hub, parts, source)
        return partial(self._stored, parts, (hand_on, tell, tell_home))

    def _stored(self, parts: Sequence[Stored], put_off: Sequence[Callable[[], object]]) -> None:
        """Take note of what is durable."""
        for then in put_off:
            then()
        self.metrics.entries.inc(sum(stored.appended for stored in parts))
        if self.replica.payloads.unscrubbed:
            self._begin("emptying the log", self.sweep.scrub)

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """Hand seals on once they are durable."""
        readers = self.replica.readers_of(chat)
        return partial(self.hub.seals_kept, chat, epoch, owners, readers)

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        """Ask who made them, also on behalf of an agency that may not reach them."""
        for connection in self.hub.of(home):
            connection.relay_seals(lacked)

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        """A run was pushed of which all is here."""
        self.hub.repeated(chat, source)

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        """A node speaks of the live spread of a chat."""
        self.hub.gossiped(rumour, readers, source)

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """A new fork proof is durable."""
        self.metrics.forks.inc()
        log.warning("a device has forked its chain", chat=forked.chat.hex()[:16])
        self.hub.fork_kept(forked, readers)

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        """Somebody stores more."""
        del source
        self.hub.holdings_noted(holdings)

    async def load_chunk(self, want: WantBlob, source: Connection) -> Blob | None:
        """Read a chunk of a blob for a peer."""
        return await self.larder.load(want, source)

    def took_chunk(self, frame: Blob | Lacking, source: Connection) -> None:
        """A peer brings a chunk, or lacks some."""
        self.larder.took(frame, source)

    async def consult(self, connection: Connection, ask: Ask) -> Answer:
        """Answer a question; for users of other agencies ask those first."""
        unreached: Sequence[AgencyId] = ()
        if connection.peer is PeerKind.DEVICE and ask.topic == Topic.LOOKUP:
            unreached = await abroad.look_up(self, connection.key, ask)
        if connection.peer is PeerKind.DEVICE and ask.topic == Topic.RECEIPTS:
            await abroad.gather_receipts(self, connection.key, ask)
        if connection.peer is not PeerKind.INVITATION and ask.topic == Topic.BLOBS:
            return await abroad.tell_blobs(self, connection.peer, connection.key, ask)
        if connection.peer is PeerKind.DEVICE and ask.topic == Topic.FORWARD:
            passed = await abroad.pass_on(self, connection.key, ask)
            if passed is not None:
                return passed
        now = time.time()
        work = partial(self._answer, connection.peer, connection.key, ask, now)
        answer = await self._write(self.share(connection.key).charged(work))
        revokes = ask.topic == Topic.REVOKE and not answer.code
        asked = decode_question(ask.topic, ask.body) if revokes else None
        if isinstance(asked, Revoke):
            self._begin("parting with the revoked", partial(self._part_with, asked.device))
        return abroad.without(answer, unreached)

    def _answer(self, peer: PeerKind, key: bytes, ask: Ask, now: float) -> Answer:
        answer = self.directory.answer(peer, key, ask, now)
        if ask.topic == Topic.ENROL and answer.code == 0:
            self.replica.welcome()
        return answer

    # The operator

    async def _operate(self, command: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """Carry out an operator's command that came through the control socket."""
        if command == "backup":
            file = operations.backup_file(arguments)
            # What is not signed yet a restored node would sign anew, under the same number.
            await self._write(lambda: self.directory.sign(time.time()))
            async with self._backing_up:
                return await trio.to_thread.run_sync(
                    lambda: operations.backed_up(self.agency.folder, file), limiter=self._threads
                )
        connected = {connection.key for connection in self.hub.all()}
        if command in operations.SHOWS:
            return await trio.to_thread.run_sync(
                operations.show,
                self.agency.folder / DATABASE_FILE,
                self.agency.card,
                self.settings,
                command,
                arguments,
                connected,
                limiter=self._threads,
            )
        answer = await self.journal.write(
            lambda: operations.perform(
                self.directory, self.replica, self.settings, command, arguments, connected
            )
        )
        if command in operations.CHANGES_TRUST:
            self._trust(await self.journal.read(self.directory.cards))
        if command in operations.SHUTS_OUT:
            await self._drop_shut_out()
        return answer

    async def _part_with(self, device: DeviceKey) -> None:
        """Drop a device that its user gave up; who gave up itself hears the answer first."""
        await trio.sleep(FAREWELL_SECONDS)
        for connection in list(self._conversing):
            if connection.key == device:
                connection.close()

    async def _drop_shut_out(self) -> None:
        for connection in list(self._conversing):
            let_in = partial(self._is_let_in, connection.peer, connection.key)
            if not await self.journal.read(let_in):
                connection.close()


def acknowledging(
    replica: Replica, hub: Hub[One], parts: Sequence[Stored], source: Outgoing
) -> Callable[[], None]:
    """Return what tells the author's agency of runs that its node did not bring (SPEC 6.5)."""
    home = replica.home(parts[0].run) if source.peer is PeerKind.NODE else None
    indirect = home is not None and home not in (source.key, replica.agency)

    def tell() -> None:
        for connection in hub.of(home) if home is not None and indirect else ():
            for stored in parts:
                holding = replica.holding(stored)
                connection.have([] if holding is None else [holding])

    return tell


def _notify_service_manager() -> None:
    """Tell systemd, if it started us, that the node is ready (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(b"READY=1")
    except OSError as error:  # of a manager that is there no more
        log.warning("the service manager was not told", reason=str(error))
