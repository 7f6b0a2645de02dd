"""A node goes on, whatever it meets beside its sessions (cases 64 and 55)."""

import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from node import abroad, journal, operations, service
from node import agency as agencies
from node.agency import DATABASE_FILE, Agency, Founding, Random
from node.backup import restore
from node.config import Settings
from node.control import SOCKET_FILE
from node.database import connect
from node.driver import Connection
from node.errors import DamagedError, StorageError, UserError
from node.service import Node
from node.tls import Credential
from node.transaction import Transaction
from node.trust import take_card
from node.witness import Witness
from protocol.entry import ChatId
from protocol.errors import NotCanonical, Untrusted
from protocol.session import PeerKind
from tests.node.homes import HELLO, names_that_nobody_resolves, until
from tests.node.house import draw


@pytest.mark.parametrize("met", [StorageError("EIO"), Untrusted("a bad card"), KeyError("a bug")])
async def test_what_fails_beside_the_sessions(tmp_path: Path, met: Exception) -> None:
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))

    async def fail() -> None:
        raise met

    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(node.run, lambda _host, _port: ready.set())
        await ready.wait()
        with structlog.testing.capture_logs() as logs:
            node._begin("something", fail)
            await trio.testing.wait_all_tasks_blocked()
        assert [one["what"] for one in logs] == ["something"]
        assert await node.journal.read(lambda: 7) == 7
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_ready_answers_its_operator(tmp_path: Path) -> None:
    """A command would find no node there, and the folder in use."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))
    ready = trio.Event()
    there: list[bool] = []

    def note(_host: str, _port: int) -> None:
        there.append((agency.folder / SOCKET_FILE).exists())
        ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, note)
        await ready.wait()
        nursery.cancel_scope.cancel()
    assert there == [True]


@pytest.mark.parametrize("host", ["mvd..example", f"{'m' * 64}.example", ".example"])
async def test_a_card_with_what_is_no_host_name(tmp_path: Path, host: str) -> None:
    """What another agency's card says must not end a node, now and at each start."""
    north, other = (
        agencies.create(
            tmp_path / name, Founding(name, "RU", (endpoint,), {}), b"p", b"r", time.time(), draw
        )
        for name, endpoint in (("north", "north.example:7340"), ("mvd", f"{host}:7340"))
    )
    node = Node(north, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))
    take_card(node.replica.store.connection, other.card)
    node._trust(node.directory.cards())
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, lambda _host, _port: None)
            with trio.fail_after(60):
                while not any(one.get("agency") == "mvd" for one in logs):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert await node.journal.read(lambda: 7) == 7
            nursery.cancel_scope.cancel()
    assert host in next(one["why"] for one in logs if one.get("agency") == "mvd")


async def test_a_backup_leaves_no_change_of_users_unsigned(tmp_path: Path) -> None:
    """SPEC 7.5: what a restored node signs anew would contradict what the lost one showed."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    folder = tmp_path / "minzdrav"
    agency = agencies.create(folder, founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(folder / DATABASE_FILE, None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, lambda _host, _port: None)
        await node._operate("backup", {"file": str(tmp_path / "kept")})
        nursery.cancel_scope.cancel()
    restore(tmp_path / "kept", tmp_path / "again")
    kept = Witness(connect(tmp_path / "again" / DATABASE_FILE, None)).latest(agency.id)
    assert kept == node.directory.witness.latest(agency.id) is not None


async def test_a_session_that_stays_tells_what_the_ended_one_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: what the node had was queued there until the device came anew (9910907)."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))
    told: list[Connection] = []
    streams: list[trio.abc.Stream] = []

    async def tell(connection: Connection) -> None:
        await trio.lowlevel.checkpoint()
        told.append(connection)

    monkeypatch.setattr(node, "_tell_holdings", tell)
    monkeypatch.setattr(node.directory, "device_allowed", lambda _: True)
    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(node.run, lambda _host, _port: ready.set())
        await ready.wait()
        for _ in range(2):
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(node.hold, ours, PeerKind.DEVICE, bytes(32))
            await theirs.send_all(HELLO)
            streams.append(theirs)
            await until(lambda: len(told) == len(streams))
        await streams[0].aclose()
        await until(lambda: len(told) > len(streams))
        nursery.cancel_scope.cancel()
    assert told == [told[0], told[1], told[1]]


async def test_a_card_is_asked_for_every_hour(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over the hours
) -> None:
    """Regression: once a session, so who was not answered kept an old one for months."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))
    asked: list[str] = []

    async def ask(_: object, connection: str) -> bool:
        await trio.lowlevel.checkpoint()
        asked.append(connection)
        if connection == "bad":
            raise Untrusted("a bad answer")
        return False

    monkeypatch.setattr(node, "_nodes", lambda: ["bad", "good"])
    monkeypatch.setattr(abroad, "renew_card", ask)
    monkeypatch.setattr(abroad, "compare_directories", ask)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, lambda _host, _port: None)
        await trio.sleep(2.5 * service.COMPARE_SECONDS)
        nursery.cancel_scope.cancel()
    assert asked == ["bad", "good", "good"] * 2


async def test_many_new_directories_make_few_rounds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over the pauses
) -> None:
    """SPEC 7.5: the first is shown at once, of those that follow at once only the newest."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))
    witness, rounds = node.directory.witness, list[tuple[float, int]]()

    async def show(*_: object) -> bool:
        await trio.lowlevel.checkpoint()
        rounds.append((trio.current_time(), witness.signed))
        return False

    monkeypatch.setattr(abroad, "show_directory", show)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, lambda _host, _port: None)
        for at in range(20):
            await node._write(lambda: setattr(witness, "signed", witness.signed + 1))
            if not at:
                await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert rounds[0][1] == 1
    assert rounds[-1][1] == 20
    assert all(later[0] - one[0] >= service.SHOW_SECONDS for one, later in pairwise(rounds))


@pytest.mark.parametrize("began", [0.0, 2e9])
async def test_a_clock_that_is_set_right(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,  # noqa: ARG001 - jumps over the wait
    began: float,
) -> None:
    """A machine may wake in 1970, or years ahead; nobody takes a certificate of then."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    now, clock = time.time(), [began]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    made: list[float] = []
    monkeypatch.setattr(service, "node_credential", partial(noted, made))
    node = Node(agency, Settings(), connect(tmp_path / "node.db", None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node._renew_credential)
        await trio.sleep(600)
        assert made == [began]
        clock[0] = now
        await trio.sleep(600)
        assert made == [began, now]
        clock[0] = 2**33  # its authority is over: it goes on with what it has
        await trio.sleep(600)
        assert len(made) == 2
        nursery.cancel_scope.cancel()
    with pytest.raises(UserError, match="is the clock right"):
        Node(agency, Settings(), connect(tmp_path / "node.db", None))


def noted(made: list[float], agency: Agency, now: float, random: Random) -> Credential:
    """Make a certificate, and note when."""
    credential = agencies.node_credential(agency, now, random)
    made.append(now)
    return credential


@pytest.mark.parametrize("command", sorted(operations.SHOWS))
async def test_what_an_operator_is_shown_holds_nobody_up(tmp_path: Path, command: str) -> None:
    """It looks through all chains, of each agency anew; here nobody carries out a transaction."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(), connect(agency.folder / DATABASE_FILE, None))
    with trio.fail_after(60):
        found = await node._operate(command, {})
    assert found == node_answer(node, command)
    node.replica.store.connection.execute("DROP TABLE users")
    node.replica.store.connection.execute("DROP TABLE cards")
    node.replica.store.connection.execute("DROP TABLE chats")
    with pytest.raises(StorageError, match="cannot be read"):
        await node._operate(command, {})


async def test_what_an_operator_is_shown_while_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the name of the database was asked of the connection, which a COMMIT had."""
    begun, shown = threading.Event(), threading.Event()

    def take_time(*_: object) -> bool:
        begun.set()
        return shown.wait(10)

    def commit(transaction: Transaction) -> None:
        connection = transaction._connection
        connection.create_scalar_function("take_time", take_time)
        assert connection.execute("SELECT take_time()").get
        connection.execute("COMMIT")

    monkeypatch.setattr(Transaction, "commit", commit)
    monkeypatch.setattr(journal, "SMALL_SECONDS_MAX", 0.0)  # so that it runs in a thread
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(), connect(agency.folder / DATABASE_FILE, None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.journal.run)
        pending = await node.journal.begin(lambda: 7)
        await trio.to_thread.run_sync(begun.wait, 10)
        assert (await node._operate("peers", {}))["v"] == 1
        shown.set()
        assert await pending() == 7
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("command", ["backup", "status"])
async def test_names_that_nobody_resolves_hold_no_operator_up(tmp_path: Path, command: str) -> None:
    """Regression: where the line was cut to forty agencies and more, a node did not answer."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(), connect(agency.folder / DATABASE_FILE, None))
    asked = {"file": str(tmp_path / "copy")} if command == "backup" else {}
    with names_that_nobody_resolves():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.journal.run)
            with trio.fail_after(60):
                assert (await node._operate(command, asked))["v"] == 1
            nursery.cancel_scope.cancel()


def node_answer(node: Node, command: str) -> Mapping[str, object]:
    """What the command answers on the node's own connection."""
    return operations.perform(node.directory, node.replica, node.settings, command, {}, ())


async def test_one_backup_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two into one file, as of an operator who is tired of waiting, take each other's draft."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    folder = tmp_path / "minzdrav"
    agency = agencies.create(folder, founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(folder / DATABASE_FILE, None))
    at_once: list[int] = []

    def slow(_folder: Path, _file: Path) -> Mapping[str, object]:
        at_once.append(len(at_once))
        time.sleep(0.05)
        assert at_once.pop() == 0
        return {}

    monkeypatch.setattr(operations, "backed_up", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.journal.run)
        async with trio.open_nursery() as both:
            for _ in range(2):
                both.start_soon(node._operate, "backup", {"file": str(tmp_path / "kept")})
        nursery.cancel_scope.cancel()


async def test_a_chat_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 66: what ages in the others goes, and the node goes on; the operator mends it."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    node = Node(agency, Settings(listen="127.0.0.1:0"), connect(tmp_path / "node.db", None))
    chats = [ChatId(bytes([number]) * 32) for number in range(4)]
    for chat in chats:
        node.replica.store.create_chat(chat)
    aged: list[ChatId] = []

    def age(chat: ChatId, start: int) -> None:
        assert start == 0
        if chat == chats[0]:
            raise NotCanonical("a record that does not fit")
        if chat == chats[1]:
            raise KeyError("a row that is not there")
        if chat == chats[2]:
            raise DamagedError("a chat that cannot be judged")
        aged.append(chat)

    monkeypatch.setattr(node.replica, "age", age)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, lambda _host, _port: None)
        with trio.fail_after(60):
            while not aged:  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert await node.journal.read(lambda: 7) == 7
        nursery.cancel_scope.cancel()
    assert aged == chats[3:]


def test_a_service_manager_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that a shell has inherited must not keep a node from starting."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    service._notify_service_manager()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "here"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "here"))
        service._notify_service_manager()
        assert manager.recv(64) == b"READY=1"
