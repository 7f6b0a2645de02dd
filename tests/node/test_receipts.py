"""SPEC 2.6, 7.1: receipts are told to readers only, and what others sent is kept as it came."""

import os
import time
from pathlib import Path

import pytest

from crypto.signing import Signer
from node import agency as agencies
from node.agency import Founding, open_agency
from node.database import connect
from node.errors import RefusedError
from node.receipts import ReceiptBook
from node.replica import Replica
from protocol.entry import CONTENT, ChatId, EntryId
from protocol.errors import Untrusted
from protocol.frame import authentic
from protocol.identity import AgencyId, NodeId
from protocol.operation import Redact
from protocol.question import GetReceipts
from protocol.receipt import Receipt, sign_receipt, verify_receipt
from protocol.testing.cast import agency, seed
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice

MZ = agency("mz").root.public
MVD = AgencyId(agency("mvd").root.public)
THEIRS = Signer(seed("mvd", "node"))
NODE = NodeId(THEIRS.public)


@pytest.fixture
def talk() -> Conversation:
    """Two messages by anna; the first is redacted."""
    made = conversation(Dice(5), 0)
    anna = made.people[0]
    for text in (b"one", b"two"):
        made.say(anna, text)
    target = made.chains[anna.devices[0], CONTENT].entries[0].reference
    told = made.story.tell(anna, Redact(target.device, CONTENT, target.seq, target.id, ""))
    made.tell(anna, told)
    return made


@pytest.fixture
def asked(talk: Conversation) -> GetReceipts:
    entries = talk.chains[talk.people[0].devices[0], CONTENT].entries
    return GetReceipts(talk.chat, tuple(entry.id for entry in entries))


class Desk:
    """A receipt book over a replica of the agency mz; its node signs with a key of its own."""

    def __init__(self, folder: Path) -> None:
        founding = Founding("mz", "RU-UDM", ("127.0.0.1:9",), {})
        agencies.create(folder / "mz", founding, b"service", b"root", time.time(), os.urandom)
        self.agency = open_agency(folder / "mz", b"service")
        connection = connect(folder / "node.db", None)
        self.replica = Replica(connection, MZ, MZ, lambda: 7_000)
        self.book = ReceiptBook(connection, self.agency)

    def take(self, talk: Conversation) -> None:
        for run in talk.runs:
            with self.replica.store.connection:
                self.replica.append(run, authentic(run))


@pytest.fixture
def desk(tmp_path: Path, talk: Conversation) -> Desk:
    made = Desk(tmp_path)
    made.take(talk)
    return made


class TestOwn:
    def test_of_what_is_gone_and_of_nothing_else(
        self, desk: Desk, talk: Conversation, asked: GetReceipts
    ) -> None:
        (raw,) = desk.book.own(MVD, asked)
        ground = authentic(talk.runs[-1])[0].id
        node = NodeId(desk.agency.node.public)
        said = Receipt(node, desk.agency.id, talk.chat, asked.entries[0], ground, 7_000)
        assert verify_receipt(raw) == said
        assert desk.book.own(MVD, asked) == [raw]

    def test_not_to_strangers(self, desk: Desk, asked: GetReceipts) -> None:
        stranger = bytes(32)
        with pytest.raises(RefusedError, match="does not answer that to you"):
            desk.book.own(stranger, asked)
        assert desk.book.others(stranger, asked) == []
        other = GetReceipts(ChatId(bytes(32)), asked.entries)
        with pytest.raises(RefusedError, match="does not answer that to you"):
            desk.book.own(MVD, other)

    def test_not_for_what_is_wanted(self, desk: Desk, asked: GetReceipts) -> None:
        desk.replica.store.connection.execute("UPDATE dropped SET wanted = 1")
        assert desk.book.own(MVD, asked) == []


class TestOthers:
    def receipt(self, asked: GetReceipts, dropped: int = 1, key: Signer = THEIRS) -> bytes:
        said = Receipt(NODE, MVD, asked.chat, asked.entries[0], EntryId(bytes(32)), dropped)
        return sign_receipt(key, said)

    def kept(self, desk: Desk, asked: GetReceipts) -> list[bytes]:
        own = desk.book.own(MVD, asked)
        return desk.book.everybodys(MVD, asked)[len(own) :]

    def test_the_newest_is_kept(self, desk: Desk, asked: GetReceipts) -> None:
        for dropped in (1, 2):
            desk.book.keep(MVD, [NODE], asked, [self.receipt(asked, dropped)])
            assert self.kept(desk, asked) == [self.receipt(asked, dropped)]

    def test_what_is_none_is_shown_until_it_is_better(self, desk: Desk, asked: GetReceipts) -> None:
        forged = self.receipt(asked, key=Signer(seed("nobody")))
        desk.book.keep(MVD, [NODE], asked, [forged, forged])
        assert self.kept(desk, asked) == [forged]
        with pytest.raises(Untrusted):
            verify_receipt(forged)
        desk.book.keep(MVD, [NODE], asked, [self.receipt(asked)])
        assert self.kept(desk, asked) == [self.receipt(asked)]

    def test_a_node_that_is_not_in_the_card(self, desk: Desk, asked: GetReceipts) -> None:
        """It is kept as one of nobody, so it cannot take the place of a true one."""
        true = self.receipt(asked)
        desk.book.keep(MVD, [NODE], asked, [true])
        desk.book.keep(MVD, [], asked, [self.receipt(asked, 9)])
        assert set(self.kept(desk, asked)) == {true, self.receipt(asked, 9)}
