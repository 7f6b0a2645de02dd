"""A directory with its registrar and officials, without a node around it: for tests."""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import apsw

from crypto import certificate as x509
from crypto.archival import ArchivalSigner
from crypto.sealing import PREKEY_BYTES
from crypto.signing import Signer
from node import agency as agencies
from node.agency import Agency, Founding
from node.database import connect
from node.directory import Directory
from protocol import identity
from protocol.frame import Answer, Ask
from protocol.invitation import Invitation, Purpose
from protocol.person import Person
from protocol.question import Enrol, Lookup, Question, encode_question
from protocol.reply import People, Reply, decode_answer
from protocol.session import PeerKind

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HOUR = 3600
draw = random.Random(4711).randbytes


def signer() -> Signer:
    return Signer(draw(32))


class House:
    """A directory with its agency, and a peer to ask it."""

    def __init__(self, agency: Agency, file: Path) -> None:
        self.agency = agency
        self.connection: apsw.Connection = connect(file, None)
        self.directory = Directory(self.connection, agency, draw)

    def raw(self, peer: PeerKind, key: bytes, asked: Question, now: float = NOW) -> Answer:
        topic, body = encode_question(asked)
        return self.directory.answer(peer, key, Ask(7, topic, body), now)

    def ask(self, peer: PeerKind, key: bytes, asked: Question, now: float = NOW) -> Reply:
        answer = self.raw(peer, key, asked, now)
        assert answer.number == 7
        return decode_answer(encode_question(asked)[0], answer.code, answer.body)

    def device(self, person: "Official", asked: Question) -> Reply:
        return self.ask(PeerKind.DEVICE, person.device.public, asked)

    def refused(self, peer: PeerKind, key: bytes, asked: Question, now: float = NOW) -> Answer:
        before = self.connection.total_changes()
        answer = self.raw(peer, key, asked, now)
        assert answer.code
        assert self.connection.total_changes() == before, "a refusal has written"
        return answer


def found(folder: Path, *names: str) -> list[Agency]:
    """Agencies of one zone, each in a folder of its own."""
    return [
        agencies.create(
            folder / name,
            Founding(name, "RU-UDM", (f"{name}.example:7340",), {}),
            b"p",
            b"r",
            NOW,
            draw,
        )
        for name in names
    ]


@contextmanager
def trusting(founded: Sequence[Agency], folder: Path) -> Iterator[list[House]]:
    """Houses of agencies that trust each other."""
    made = [House(agency, folder / agency.card.charter.name) for agency in founded]
    for house in made:
        for other in made:
            if other is not house:
                house.directory.accept_card(other.agency.card.raw, allow_local=False)
    yield made
    for house in made:
        house.connection.close()


@dataclasses.dataclass
class Official:
    """Keys of a user with one device, and what they ask to enrol."""

    user: Signer
    device: Signer
    invitation: Invitation
    request: Enrol


def prekey_of(device: Signer) -> bytes:
    return identity.sign_prekey(device, draw(PREKEY_BYTES), 1)


def official(house: House, purpose: Purpose, user: Signer, name: str, issued: int) -> Official:
    """Somebody with an invitation and a new device."""
    device, agency = signer(), house.agency.id
    invitation = house.directory.registrar.invite(name, purpose, NOW, HOUR)
    request = Enrol(
        identity.request_user(user, agency, name, issued),
        identity.request_device(user, device, agency, "phone", issued),
        x509.public_pem(x509.make_key()),
        prekey_of(device),
        ArchivalSigner(draw(32)).public,
    )
    return Official(user, device, invitation, request)


def invited(house: House, name: str = "anna") -> Official:
    return official(house, Purpose.FIRST_DEVICE, signer(), name, 1)


def enrolled(house: House, name: str = "anna") -> Official:
    person = invited(house, name)
    house.ask(PeerKind.INVITATION, person.invitation.ticket, person.request)
    return person


def recovering(house: House, user: Signer, name: str = "anna") -> Official:
    """What somebody with these words asks with a new device."""
    return official(house, Purpose.RECOVERY, user, name, 2)


def looked_up(house: House, peer: PeerKind, key: bytes, asked: Lookup) -> tuple[Person | None, ...]:
    reply = house.ask(peer, key, asked)
    assert isinstance(reply, People)
    return reply.people
