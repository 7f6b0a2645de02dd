"""SPEC 7.4: parcels between members of a chat, of one agency or of two."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest
import trio

from node import abroad
from node.agency import Agency
from node.driver import Connection
from node.errors import NetworkError
from node.hub import Hub
from node.parcels import FORWARDED_BYTES_MAX, FORWARDED_MAX
from node.seals import Sealless
from node.share import Shares
from node.sharing import Sharing
from node.store import Store
from protocol.entry import ChatId, DeviceKey
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId
from protocol.question import Forward, GetParcels, PutParcel, Taken, encode_question
from protocol.reply import Done, Parcels
from protocol.session import PeerKind
from protocol.topic import PARCEL_BYTES_MAX, Topic
from tests.node.house import NOW, House, Official, enrolled, found

CHAT = ChatId(b"c" * 32)
LARGEST = b"\xff" * 32
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> list[Agency]:
    return found(tmp_path_factory.mktemp("agency"), "here", "there")


@dataclass
class Scene:
    """Two nodes that hold a chat of anna and boris here and clara there; dina is not in it."""

    here: House
    there: House
    anna: Official
    boris: Official
    dina: Official
    clara: Official

    def share(self, house: House, *peers: bytes) -> None:
        Sharing(house.connection).set_readers(
            Store(house.connection).create_chat(CHAT), frozenset(peers)
        )

    def to(self, house: House, official: Official, body: bytes = b"x") -> Forward:
        return Forward(CHAT, house.agency.id, key(official), body)

    def waiting(self, house: House, official: Official) -> list[bytes]:
        found = house.device(official, GetParcels())
        assert isinstance(found, Parcels)
        return [one.body for one in found.parcels]


def key(official: Official) -> DeviceKey:
    return DeviceKey(official.device.public)


@pytest.fixture
def scene(founded: list[Agency], tmp_path: Path) -> Iterator[Scene]:
    here, there = (House(one, tmp_path / one.card.charter.name) for one in founded)
    anna, boris, dina = (enrolled(here, name) for name in ("anna", "boris", "dina"))
    made = Scene(here, there, anna, boris, dina, enrolled(there, "clara"))
    made.share(here, here.agency.id, there.agency.id, key(anna), key(boris))
    made.share(there, here.agency.id, there.agency.id, key(made.clara))
    yield made
    here.connection.close()
    there.connection.close()


class TestWhoMay:
    def test_to_a_member_of_the_same_agency(self, scene: Scene) -> None:
        assert scene.here.device(scene.anna, scene.to(scene.here, scene.boris)) == Done()
        assert scene.waiting(scene.here, scene.boris) == [b"x"]

    def test_from_another_agencys_node(self, scene: Scene) -> None:
        asked = scene.to(scene.there, scene.clara)
        assert scene.there.ask(PeerKind.NODE, scene.here.agency.id, asked) == Done()
        assert scene.waiting(scene.there, scene.clara) == [b"x"]

    def test_one_answer_for_strangers_and_for_what_is_not_there(self, scene: Scene) -> None:
        """Case 48: whoever is outside learns nothing."""
        good = scene.to(scene.here, scene.boris)
        answers = [
            scene.here.refused(PeerKind.DEVICE, key(who), asked)
            for who, asked in (
                (scene.dina, good),
                (scene.anna, scene.to(scene.here, scene.dina)),
                (scene.anna, replace(good, chat=ChatId(b"d" * 32))),
                (scene.anna, replace(good, device=DeviceKey(b"e" * 32))),
                (scene.anna, replace(good, agency=AgencyId(b"f" * 32))),
            )
        ]
        assert {answer.code for answer in answers} == {8}
        assert len({answer.body for answer in answers}) == 1

    def test_a_node_outside_the_chat(self, scene: Scene) -> None:
        scene.share(scene.there, scene.there.agency.id, key(scene.clara))
        asked = scene.to(scene.there, scene.clara)
        assert scene.there.refused(PeerKind.NODE, scene.here.agency.id, asked).code == 8

    def test_a_node_that_would_have_it_sent_on(self, scene: Scene) -> None:
        """Only a device of ours can make our node speak to a third."""
        asked = scene.to(scene.here, scene.boris)
        answer = scene.there.refused(PeerKind.NODE, scene.here.agency.id, asked)
        assert answer.code

    def test_a_revoked_device(self, scene: Scene) -> None:
        scene.there.directory.people.revoke([key(scene.clara)])
        asked = scene.to(scene.there, scene.clara)
        assert scene.there.refused(PeerKind.NODE, scene.here.agency.id, asked).code == 8


class TestTaken:
    def test_a_number_means_one_parcel(self, scene: Scene) -> None:
        """Two programs of a device took the first; what came between must not go with it."""
        first, second = (scene.to(scene.there, scene.clara, body) for body in (b"1", b"2"))
        scene.there.ask(PeerKind.NODE, scene.here.agency.id, first)
        found = scene.there.device(scene.clara, GetParcels())
        assert isinstance(found, Parcels)
        taken = Taken(tuple(one.number for one in found.parcels))
        scene.there.device(scene.clara, taken)
        scene.there.ask(PeerKind.NODE, scene.here.agency.id, second)
        scene.there.device(scene.clara, taken)
        assert scene.waiting(scene.there, scene.clara) == [b"2"]


class TestQuota:
    def test_by_number_and_not_at_the_cost_of_others(self, scene: Scene) -> None:
        asked = scene.to(scene.there, scene.clara)
        for _ in range(FORWARDED_MAX):
            scene.there.ask(PeerKind.NODE, scene.here.agency.id, asked)
        assert scene.there.refused(PeerKind.NODE, scene.here.agency.id, asked).code == 5
        assert scene.there.device(scene.clara, PutParcel(key(scene.clara), b"own")) == Done()
        assert scene.there.device(scene.clara, asked) == Done()
        scene.there.device(scene.clara, Taken((1,)))
        assert scene.there.ask(PeerKind.NODE, scene.here.agency.id, asked) == Done()

    def test_by_size(self, scene: Scene) -> None:
        asked = scene.to(scene.there, scene.clara, bytes(PARCEL_BYTES_MAX))
        for _ in range(FORWARDED_BYTES_MAX // PARCEL_BYTES_MAX):
            scene.there.ask(PeerKind.NODE, scene.here.agency.id, asked)
        assert scene.there.refused(PeerKind.NODE, scene.here.agency.id, asked).code == 5


@dataclass
class Peer:
    """A connection to the other node. ends: before it answers."""

    scene: Scene
    ends: bool = False
    asked: list[bytes] = field(default_factory=list)
    open: bool = True
    peer = PeerKind.NODE

    def close(self) -> None:
        self.open = False

    @property
    def key(self) -> bytes:
        return self.scene.there.agency.id

    def awaited_of(self, home: bytes) -> Sequence[Sealless]:
        """It waits for no seals."""
        del home
        return ()

    async def ask(self, topic: int, body: bytes) -> Answer:
        self.asked.append(body)
        if self.ends:
            self.open = False
            raise NetworkError("gone")
        there = self.scene.there.directory
        return there.answer(PeerKind.NODE, self.scene.here.agency.id, Ask(3, topic, body), NOW)


async def read(work: Callable[[], Result]) -> Result:
    return work()


def passed_on(scene: Scene, sender: Official, asked: Forward, peers: list[Peer]) -> Answer | None:
    """Let the node here hand a parcel on, as when its device asks."""
    hub: Hub[Connection] = Hub(LARGEST, time.monotonic)  # whose agency ends no older session
    for peer in peers:
        hub.add(cast("Connection", peer))
    node = SimpleNamespace(
        hub=hub,
        journal=SimpleNamespace(read=read),
        directory=scene.here.directory,
        share=Shares().of,
    )
    ask = Ask(9, Topic.FORWARD, encode_question(asked)[1])
    return trio.run(abroad.pass_on, node, sender.device.public, ask)


class TestPassingOn:
    def test_to_the_node_of_the_other_agency(self, scene: Scene) -> None:
        asked = scene.to(scene.there, scene.clara)
        answer = passed_on(scene, scene.anna, asked, [Peer(scene)])
        assert answer is not None
        assert (answer.number, answer.code) == (9, 0)
        assert scene.waiting(scene.there, scene.clara) == [b"x"]

    def test_its_refusal_comes_back(self, scene: Scene) -> None:
        asked = replace(scene.to(scene.there, scene.clara), device=DeviceKey(b"e" * 32))
        answer = passed_on(scene, scene.anna, asked, [Peer(scene)])
        assert answer is not None
        assert answer.code == 8

    def test_nothing_leaves_for_whom_it_is_not(self, scene: Scene) -> None:
        peer = Peer(scene)
        for sender, asked in (
            (scene.dina, scene.to(scene.there, scene.clara)),
            (scene.anna, scene.to(scene.here, scene.boris)),
            (scene.anna, replace(scene.to(scene.there, scene.clara), chat=ChatId(bytes(32)))),
        ):
            assert passed_on(scene, sender, asked, [peer]) is None
        assert not peer.asked

    def test_over_another_session_if_one_ends(self, scene: Scene) -> None:
        asked = scene.to(scene.there, scene.clara)
        stays, ends = Peer(scene), Peer(scene, ends=True)
        answer = passed_on(scene, scene.anna, asked, [stays, ends])
        assert answer is not None
        assert answer.code == 0
        assert ends.asked == stays.asked == [encode_question(asked)[1]]
        assert scene.waiting(scene.there, scene.clara) == [b"x"]

    def test_nobody_is_there(self, scene: Scene) -> None:
        """The sender is told to try again, and nothing is kept on the way."""
        asked = scene.to(scene.there, scene.clara)
        assert passed_on(scene, scene.anna, asked, []) is None
        assert scene.here.refused(PeerKind.DEVICE, key(scene.anna), asked).code == 3
