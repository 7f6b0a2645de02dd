"""SPEC 6.3, rule 5: who looks at a chat that is far behind sees its end, marked; it is not kept."""

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from msgspec import Raw, structs

from cli.letters import show
from cli.output import Output
from client import compose, keeping, mailbox
from client.device import Device
from client.link import Link, over
from client.mailbox import State
from client.preview import preview
from client.reading import Line
from node.database import connect
from node.dealing import greeting_for
from node.driver import Connection
from node.journal import Journal
from node.outgoing import Outgoing
from node.replica import Replica
from node.seals import Sealless
from node.share import Share, Shares
from node.stored import Stored
from protocol import preview as previews
from protocol.entry import CONTENT, ChatId, DeviceKey, EntryId
from protocol.errors import Unauthentic
from protocol.frame import (
    Answer,
    Ask,
    Blob,
    Forked,
    Holding,
    Lacking,
    Rumour,
    Run,
    Seal,
    Want,
    WantBlob,
    authentic,
)
from protocol.limits import EPOCH_MESSAGES_MAX
from protocol.message import Text
from protocol.policy import Role
from protocol.run import Entry
from protocol.session import PeerKind
from tests.federation import Federation, now, runs

TEXTS = 24
SCREEN = 8


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty messages are far away, and eight are a screenful."""
    monkeypatch.setattr(previews, "PREVIEW_BACKLOG_MIN", 20)
    monkeypatch.setattr(previews, "PREVIEW_ENTRIES_MAX", SCREEN)


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    """Boris has the control lane and his seals, and nothing of what Anna wrote."""
    made = federation.chat(anna, "", boris)
    for number in range(TEXTS):
        federation.say(anna, made, str(number))
    return made


class Node:
    """Boris's node in this process: a replica that has all that Anna wrote, and no directory."""

    def __init__(self, federation: Federation, anna: Device, boris: Device) -> None:
        agency = boris.profile.charter.agency
        connection = connect(federation.folder / "node.db", None)
        connection.pragma("synchronous", "OFF")
        self.replica = Replica(connection, agency, agency)
        self.journal = Journal(connection, self.replica.forget)
        self.device = boris.key
        self.failure: Exception | None = None
        with connection:
            for run in [run for chat in anna.replica.store.chats() for run in runs(anna, chat)]:
                self.replica.append(run, authentic(run))
            for chat, epoch, devices in self.replica.sealless(agency)[0]:
                seals = anna.replica.seals_for(chat, epoch, devices)
                self.replica.keep_seals(chat, epoch, seals, agency)

    def opened(self, connection: Connection) -> None:
        self.device = DeviceKey(connection.key)

    def share(self, key: bytes) -> Share:
        return Shares().of(key)

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        raise AssertionError((parts, source))

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        raise AssertionError((chat, epoch, owners))

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        raise AssertionError((lacked, home))

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        raise AssertionError((forked, readers))

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        raise AssertionError((chat, source))

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        raise AssertionError((rumour, readers, source))

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        raise AssertionError((holdings, source))

    async def load_chunk(self, want: WantBlob, source: Connection) -> Blob | None:
        raise AssertionError((want, source))

    def took_chunk(self, frame: Blob | Lacking, source: Connection) -> None:
        raise AssertionError((frame, source))

    async def consult(self, connection: Connection, ask: Ask) -> Answer:
        raise AssertionError((connection, ask))

    @asynccontextmanager
    async def meets(self, device: Device) -> AsyncIterator[Link]:
        ours, theirs = trio.testing.memory_stream_pair()
        greeting = greeting_for(self.replica, device.key)
        served = Connection(
            theirs, PeerKind.DEVICE, device.key, greeting, self.replica, self.journal, self
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run)
            nursery.start_soon(served.run)
            async with over(device, ours) as link:
                yield link
            nursery.cancel_scope.cancel()


@pytest.fixture
def node(federation: Federation, anna: Device, boris: Device, chat: ChatId) -> Node:
    assert federation.texts(boris, chat) == []
    return Node(federation, anna, boris)


def text_of(line: Line) -> str:
    message = line.letter.message
    return message.text if isinstance(message, Text) else ""


async def looked(node: Node, device: Device, chat: ChatId) -> list[Line]:
    """What is shown to somebody who looks, before anything of the chat's content is here."""
    shown: list[list[Line]] = []
    kept: list[int] = []

    def see(lines: Sequence[Line]) -> None:
        shown.append(list(lines))
        kept.append(len(mailbox.letters(device, chat, TEXTS)))

    async with node.meets(device) as link:
        await link.preview(chat, see)
        assert await link.settle(20)
    assert len(shown) <= 1
    assert kept in ([], [0]), "shown first"
    return [line for lines in shown for line in lines]


class TestLooking:
    async def test_the_end_first_then_everything(
        self,
        federation: Federation,
        boris: Device,
        chat: ChatId,
        node: Node,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        lines = await looked(node, boris, chat)
        assert [text_of(line) for line in lines] == [str(n) for n in range(TEXTS)][-SCREEN:]
        assert all(line.ahead and line.letter.state is State.OPEN for line in lines)
        assert {line.author.name for line in lines if line.author} == {"anna@minzdrav"}
        assert federation.texts(boris, chat) == [str(n) for n in range(TEXTS)]
        self.check_the_mark(lines, capsys)
        assert await looked(node, boris, chat) == [], "nothing is far away any more"

    def check_the_mark(self, lines: Sequence[Line], capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        show(Output(as_json=False), lines)
        assert capsys.readouterr().out.count("PREVIEW: earlier messages are still coming") == SCREEN
        show(Output(as_json=True), lines)
        told = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
        assert all(line["preview"] for line in told)


class TestLyingNodes:
    async def test_a_forged_end(
        self, boris: Device, chat: ChatId, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Case 14: a text that nobody signed is shown to nobody, and ends the session."""
        serve = node.replica.serve

        def forge(want: Want, peer: bytes) -> Run | None:
            run = serve(want, peer)
            if run is None or run.lane != CONTENT:
                return run
            fields = msgspec.msgpack.decode(run.records[-1])
            fields[2] = bytes(len(fields[2]))
            forged = Raw(msgspec.msgpack.encode(fields))
            return structs.replace(
                run, records=(*run.records[:-1], forged), signatures=run.signatures[-1:]
            )

        monkeypatch.setattr(node.replica, "serve", forge)
        shown: list[Sequence[Line]] = []
        async with node.meets(boris) as link:
            await link.preview(chat, shown.append)
            with trio.fail_after(20):
                await link.ended.wait()
            assert isinstance(link.connection.failure, Unauthentic)
        assert shown == []

    async def test_what_is_between_is_kept_from_us(
        self,
        federation: Federation,
        boris: Device,
        chat: ChatId,
        node: Node,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Case 33: the end is shown with its mark, and is never admitted for that."""
        serve = node.replica.serve

        def withhold(want: Want, peer: bytes) -> Run | None:
            begun = want.lane == CONTENT and want.start < TEXTS - SCREEN
            return None if begun else serve(want, peer)

        monkeypatch.setattr(node.replica, "serve", withhold)
        lines = await looked(node, boris, chat)
        assert len(lines) == SCREEN
        assert all(line.ahead for line in lines)
        assert federation.texts(boris, chat) == []
        assert boris.connection.execute("SELECT count(*) FROM mailbox").get == 0


def last(device: Device, chat: ChatId, count: int) -> list[Entry]:
    (found,) = [
        run for run in runs(device, chat) if (run.lane, run.device) == (CONTENT, device.key)
    ]
    return authentic(found)[-count:]


def previewed(device: Device, chat: ChatId, entries: Sequence[Entry]) -> list[Line]:
    with device.transaction():
        return preview(device, chat, entries, now())


@pytest.fixture
def joined(federation: Federation, anna: Device, boris: Device, chat: ChatId) -> list[Entry]:
    """Boris has the control lane with its seals; these are the last of Anna's entries."""
    for run in runs(anna, chat):
        if run.lane != CONTENT:
            with boris.transaction():
                boris.replica.append(run, authentic(run))
    federation._carry_seals(anna, boris)
    return last(anna, chat, SCREEN)


class TestOpening:
    def test_keys_stay_where_they_are(
        self,
        federation: Federation,
        anna: Device,
        boris: Device,
        chat: ChatId,
        joined: Sequence[Entry],
    ) -> None:
        """What was shown ahead is opened once more, by the sync, from the same key."""
        assert [text_of(line) for line in previewed(boris, chat, joined)][-1] == str(TEXTS - 1)
        generations = boris.connection.execute("SELECT generation FROM senders").fetchall()
        assert set(generations) == {(0,)}
        federation.carry(anna, boris)
        assert federation.texts(boris, chat)[-1] == str(TEXTS - 1)
        assert previewed(boris, chat, joined) == []

    @pytest.mark.usefixtures("joined")
    def test_several_authors_stand_in_the_order_for_people(
        self, federation: Federation, anna: Device, boris: Device, vera: Device, chat: ChatId
    ) -> None:
        with anna.transaction():
            compose.add_members(anna, chat, [(vera.profile.user.user, Role.MEMBER)], now())
        federation.carry(anna, vera)
        for number in range(4):
            one, other = (anna, vera) if number % 2 else (vera, anna)
            federation.say(one, chat, f"turn {number}")
            federation.carry(one, other)
        for run in runs(anna, chat):
            if run.lane != CONTENT:
                with boris.transaction():
                    boris.replica.append(run, authentic(run))
        federation._carry_seals(anna, boris)
        mixed = [entry for run in runs(anna, chat) if run.lane for entry in authentic(run)[-4:]]
        shown = [text_of(line) for line in previewed(boris, chat, mixed[::-1])]
        assert shown[-4:] == [f"turn {number}" for number in range(4)]

    def test_not_for_us(
        self, federation: Federation, anna: Device, vera: Device, chat: ChatId
    ) -> None:
        """Who joined later sees that something was written, and by whom."""
        old = last(anna, chat, 3)
        with anna.transaction():
            compose.add_members(anna, chat, [(vera.profile.user.user, Role.MEMBER)], now())
        federation.carry(anna, vera)
        assert previewed(vera, ChatId(chat[::-1]), old) == [], "a chat that is not here"
        vera.connection.execute("DELETE FROM mailbox")
        assert [line.letter.state for line in previewed(vera, chat, old)] == [State.UNREADABLE] * 3

    def test_what_was_redacted_is_not_shown(
        self, anna: Device, boris: Device, chat: ChatId, joined: list[Entry]
    ) -> None:
        """A node that serves the payload all the same makes nobody read it."""
        gone = mailbox.letters(anna, chat, 1)[0].reference
        with anna.transaction():
            keeping.redact(anna, chat, gone, "wrong chat", now())
        for run in runs(anna, chat):
            if run.lane != CONTENT:
                with boris.transaction():
                    boris.replica.append(run, authentic(run))
        line = previewed(boris, chat, joined)[-1]
        assert (line.letter.state, line.letter.message) == (State.GONE, None)
        assert line.redaction is not None

    def test_a_generation_that_is_not_the_keys(
        self, boris: Device, chat: ChatId, joined: list[Entry]
    ) -> None:
        """Case 44. Nobody is made to derive keys without end. Without a seal there is no key."""
        wrong = []
        for generation in (0, EPOCH_MESSAGES_MAX, 2**32 - 1):
            header = structs.replace(joined[-1].header, generation=generation)
            wrong.append(
                structs.replace(
                    joined[-1], header=header, id=EntryId(bytes([generation % 251]) * 32)
                )
            )
        shown = {line.letter.state for line in previewed(boris, chat, wrong)}
        assert shown == {State.REFUSED, State.UNREADABLE}
        boris.connection.execute("DELETE FROM senders")
        boris.connection.execute("DELETE FROM seals")
        assert {line.letter.state for line in previewed(boris, chat, joined)} == {State.SEALED}
