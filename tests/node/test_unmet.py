"""SPEC 7.5: a node that was brought back changes no user before it has met its peers."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from node import abroad
from node.agency import (
    DATABASE_FILE,
    ROOT_FILE,
    Agency,
    open_agency,
    open_root,
    reissue_card,
    rekey,
)
from node.backup import restore, save
from node.database import begin_anew
from node.desk import Desk
from node.directory import Directory
from node.doctor import examine
from node.driver import Connection
from node.errors import NetworkError, RefusedError
from node.journal import Journal
from node.operations import carry_out
from node.share import Shares
from protocol.entry import DeviceKey
from protocol.frame import Answer, Ask
from protocol.listing import Head
from protocol.question import Lookup, Witness
from protocol.reply import People, Refusal
from protocol.session import PeerKind
from protocol.topic import Topic
from tests.node.house import NOW, House, draw, enrolled, found, trusting


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> list[Agency]:
    return found(tmp_path_factory.mktemp("agency"), "mid", "east", "west")


@pytest.fixture
def houses(founded: list[Agency], tmp_path: Path) -> Iterator[list[House]]:
    """mid, with anna, and its two peers; all trust each other."""
    with trusting(founded, tmp_path) as made:
        enrolled(made[0], "anna")
        made[0].directory.own_head(NOW)
        yield made


@pytest.fixture
def again(houses: list[House], tmp_path: Path) -> Iterator[House]:
    """mid, brought back from a copy of before it enrolled boris and carl, which east has seen."""
    mid, east, _ = houses
    mid.connection.execute("VACUUM INTO ?", (str(tmp_path / "again"),))
    for name in ("boris", "carl"):
        enrolled(mid, name)
        east.directory.witness.agrees(mid.directory.own_head(NOW).raw)
    house = House(mid.agency, tmp_path / "again")
    with house.connection:
        begin_anew(house.connection, draw)
    yield house
    house.connection.close()


@dataclass
class Peer:
    """A session with another agency's node. away: it answers nothing."""

    house: House
    asker: House
    away: bool = False
    asked: list[int] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        return self.house.agency.id

    async def ask(self, topic: int, body: bytes) -> Answer:
        await trio.lowlevel.checkpoint()
        self.asked.append(topic)
        if self.away:
            raise NetworkError("the line is down")
        ask = Ask(1, topic, body)
        return self.house.directory.answer(PeerKind.NODE, self.asker.agency.id, ask, NOW)


async def meet(house: House, *peers: Peer) -> None:
    """Compare directories as a node does."""
    journal = Journal(house.connection, lambda: None)
    node = SimpleNamespace(
        journal=journal, directory=house.directory, share=Shares().of, pages=Counter()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for peer in peers:
            asker, connection = cast("abroad.Asker", node), cast("Connection", peer)
            await abroad.compare_directories(asker, connection)
        nursery.cancel_scope.cancel()


def goes_on_from(again: House, latest: Head, east: House) -> None:
    """A further user makes the head that follows, and it is no lie to who knows the latest."""
    enrolled(again, "dina")
    head = again.directory.own_head(NOW)
    assert (head.serial, head.prev) == (latest.serial + 1, latest.id)
    assert east.directory.witness.agrees(head.raw)


class TestUnmet:
    async def test_it_waits_for_each_and_then_goes_on_from_the_newest(
        self, houses: list[House], again: House
    ) -> None:
        mid, east, west = houses
        with pytest.raises(Refusal, match="east, west"):
            enrolled(again, "dina")
        await meet(again, Peer(east, again))
        with pytest.raises(Refusal, match="met west, who"):
            enrolled(again, "dina")
        await meet(again, Peer(west, again))
        enrolled(again, "dina")
        head = again.directory.own_head(NOW)
        assert head.serial == mid.directory.own_head(NOW).serial + 1
        assert east.directory.witness.agrees(head.raw)

    async def test_who_does_not_answer_is_not_met(self, houses: list[House], again: House) -> None:
        peer = Peer(houses[1], again, away=True)
        await meet(again, peer, Peer(houses[2], again))
        assert peer.asked == [Topic.WITNESS]
        assert again.directory.people.unmet() == ["east"]

    async def test_also_from_before_it_had_signed_anything(
        self, founded: list[Agency], tmp_path: Path
    ) -> None:
        """A backup may be made as soon as the node is set up."""
        with trusting(founded, tmp_path) as (mid, east, west):
            mid.connection.execute("VACUUM INTO ?", (str(tmp_path / "again"),))
            enrolled(mid, "anna")
            latest = mid.directory.own_head(NOW)
            assert east.directory.witness.agrees(latest.raw)
            again = House(mid.agency, tmp_path / "again")
            with again.connection:
                begin_anew(again.connection, draw)
            await meet(again, Peer(east, again), Peer(west, again))
            goes_on_from(again, latest, east)
            again.connection.close()

    async def test_what_lies_between_may_be_lost_with_the_node(
        self, houses: list[House], again: House
    ) -> None:
        """Regression: east knew only a head two further on, so it was never met, for good."""
        mid, east, west = houses
        latest = mid.directory.own_head(NOW)
        between = "DELETE FROM directories WHERE agency = ? AND serial < ?"
        east.connection.execute(between, (mid.agency.id, latest.serial))
        await meet(again, Peer(east, again), Peer(west, again))
        assert again.directory.people.unmet() == []
        goes_on_from(again, latest, east)

    async def test_nor_is_a_head_signed_of_older_users(
        self, houses: list[House], again: House
    ) -> None:
        """Regression: east told it of one, it signed the next, which west had seen already."""
        mid, east, west = houses
        enrolled(mid, "egor")
        west.directory.witness.agrees(mid.directory.own_head(NOW).raw)
        for peer in (east, west):
            await meet(again, Peer(peer, again))
            await meet(peer, Peer(again, peer))
            assert not peer.directory.witness.proofs()
        assert west.directory.witness.agrees(again.directory.own_head(NOW).raw)

    async def test_and_until_then_it_does_not_say_who_is_listed(
        self, houses: list[House], again: House
    ) -> None:
        await meet(again, Peer(houses[1], again))
        with pytest.raises(Refusal, match="when it has met west"):
            again.ask(PeerKind.NODE, houses[2].agency.id, Lookup(("anna@mid",)))
        again.directory.people.resume()
        found = again.ask(PeerKind.NODE, houses[2].agency.id, Lookup(("anna@mid",)))
        assert isinstance(found, People)

    async def test_another_card_changes_nothing_about_that(
        self, houses: list[House], again: House, tmp_path: Path
    ) -> None:
        """A node that is brought back elsewhere has other endpoints, so another charter."""
        mid, east, west = houses
        folder = shutil.copytree(mid.agency.folder, tmp_path / "moved")
        root = open_root(folder / ROOT_FILE, b"r")
        card = reissue_card(folder, root, ("elsewhere.example:7340",), NOW)
        again.directory = Directory(again.connection, replace(mid.agency, card=card), draw)
        first = again.directory.witness.latest(mid.agency.id)
        assert again.directory.own_head(NOW) == first
        await meet(again, Peer(east, again), Peer(west, again))
        assert again.directory.own_head(NOW).charter == card.charter

    async def test_with_a_key_that_was_replaced_since_it_signs_nothing(
        self, houses: list[House], again: House, tmp_path: Path
    ) -> None:
        """Regression: it enrolled users whom nobody believed, and its operator was not told."""
        mid, east, west = houses
        folder = shutil.copytree(mid.agency.folder, tmp_path / "rekeyed")
        (folder / DATABASE_FILE).unlink(missing_ok=True)
        rekey(folder, b"p", open_root(folder / ROOT_FILE, b"r"), NOW, draw)
        newer = Directory(mid.connection, open_agency(folder, b"p"), draw)
        east.directory.witness.agrees(newer.own_head(NOW).raw)
        await meet(again, Peer(east, again), Peer(west, again))
        with pytest.raises(RefusedError, match="ivor agency rekey"):
            again.directory.own_head(NOW)
        old = shutil.copytree(mid.agency.folder, tmp_path / "old")
        (old / DATABASE_FILE).unlink(missing_ok=True)
        again.connection.execute("VACUUM INTO ?", (str(old / DATABASE_FILE),))
        found = {one.check: one for one in examine(old, time.time())}["users"]
        assert found.state == "fail"
        assert "ivor agency rekey" in found.text
        rekey(old, b"p", open_root(old / ROOT_FILE, b"r"), NOW + 1, draw)
        again.directory = Directory(again.connection, open_agency(old, b"p"), draw)
        again.directory.registrar.take_over()
        assert east.directory.witness.agrees(again.directory.own_head(NOW + 1).raw)

    def test_a_device_of_its_own_shows_what_nobody_else_has_seen(
        self, houses: list[House], again: House
    ) -> None:
        """Regression: it signed that number a second time."""
        mid = houses[0]
        enrolled(mid, "egor")
        newest = mid.directory.own_head(NOW)
        self._visit(again, mid.directory.witness.question(mid.agency.id))
        again.directory.people.resume()
        enrolled(again, "dina")
        assert again.directory.own_head(NOW).serial > newest.serial
        signed = again.directory.witness.after(mid.agency.id, newest.serial)
        assert all(mid.directory.witness.agrees(head) for head in signed)

    def test_but_not_what_was_never_signed(self, houses: list[House], again: House) -> None:
        asked = houses[0].directory.witness.question(houses[0].agency.id)
        assert asked.head is not None
        forged = replace(asked, head=asked.head[:-1] + bytes([asked.head[-1] ^ 1]))
        with pytest.raises(Refusal):
            self._visit(again, forged)

    def _visit(self, house: House, asked: Witness) -> None:
        device = house.connection.execute("SELECT id FROM devices").get
        house.ask(PeerKind.DEVICE, device, asked)

    async def test_nobody_is_put_out_either_and_all_else_goes_on(
        self, houses: list[House], again: House
    ) -> None:
        device = again.connection.execute("SELECT id FROM devices").get
        with pytest.raises(RefusedError, match="has met"):
            again.directory.people.revoke([DeviceKey(device)])
        found = again.ask(PeerKind.NODE, houses[1].agency.id, Lookup(("anna@mid",)))
        assert isinstance(found, People)
        assert found.people[0] is not None

    def test_the_operator_can_go_on_without(self, again: House) -> None:
        desk = cast("Desk", SimpleNamespace(people=again.directory.people))
        assert carry_out(desk, "resume", {}) == {"v": 1, "not_met": ["east", "west"]}
        enrolled(again, "dina")

    def test_a_new_node_has_nobody_to_meet(self, houses: list[House]) -> None:
        assert houses[0].directory.people.unmet() == []


def test_the_operator_of_a_restored_one_is_told(tmp_path: Path, founded: list[Agency]) -> None:
    folder = founded[0].folder
    house = House(founded[0], folder / DATABASE_FILE)
    house.directory.accept_card(founded[1].card.raw, allow_local=False)
    house.connection.close()
    assert {one.check: one.state for one in examine(folder, time.time())}["users"] == "ok"
    save(folder, tmp_path / "kept")
    restore(tmp_path / "kept", tmp_path / "again")
    found = {one.check: one for one in examine(tmp_path / "again", time.time())}["users"]
    assert found.state == "warn"
    assert found.text.endswith("has met east")
