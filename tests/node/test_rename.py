"""Another label for a device: which new certificate replaces the present one (SPEC 5.2, 7.3)."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crypto import certificate as x509
from crypto.archival import ArchivalSigner
from crypto.sealing import PREKEY_BYTES
from crypto.signing import Signer
from node import agency as agencies
from node.agency import Agency, Founding
from node.database import connect
from node.directory import Directory
from protocol import codec, identity
from protocol.entry import DeviceKey
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId, UserId
from protocol.invitation import Purpose
from protocol.person import Person
from protocol.question import Enrol, Lookup, Question, Rename, encode_question
from protocol.reply import Certified, People, decode_answer
from protocol.session import PeerKind

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
draw = random.Random(4712).randbytes


@pytest.fixture(scope="module")
def agency(tmp_path_factory: pytest.TempPathFactory) -> Agency:
    folder = tmp_path_factory.mktemp("agency") / "minzdrav"
    founding = Founding("minzdrav", "RU-UDM", ("minzdrav.example:7340",), {})
    return agencies.create(folder, founding, b"p", b"r", NOW, draw)


class House:
    """A directory with one enrolled user, `anna`, whose certificates are dated 100."""

    def __init__(self, agency: Agency, file: Path) -> None:
        self.connection = connect(file, None)
        self.directory = Directory(self.connection, agency, draw)
        self.agency, self.user, self.device = agency.id, Signer(draw(32)), Signer(draw(32))
        invitation = self.directory.registrar.invite("anna", Purpose.FIRST_DEVICE, NOW, 3600)
        self.enrol = Enrol(
            identity.request_user(self.user, agency.id, "anna", 100),
            self.request("phone", 100),
            x509.public_pem(x509.make_key()),
            identity.sign_prekey(self.device, draw(PREKEY_BYTES), 100),
            ArchivalSigner(draw(32)).public,
        )
        assert not self.answer(self.enrol, PeerKind.INVITATION, invitation.ticket).code

    def request(self, label: str, issued: int) -> bytes:
        return identity.request_device(self.user, self.device, self.agency, label, issued)

    def answer(
        self, asked: Question, peer: PeerKind = PeerKind.DEVICE, key: bytes | None = None
    ) -> Answer:
        topic, body = encode_question(asked)
        key = self.device.public if key is None else key
        return self.directory.answer(peer, key, Ask(1, topic, body), NOW)

    def rename(self, request: bytes) -> identity.DeviceCertificate:
        asked = Rename(request)
        answer = self.answer(asked)
        reply = decode_answer(encode_question(asked)[0], answer.code, answer.body)
        assert isinstance(reply, Certified)
        return identity.verify_device(reply.certificate, self.directory.agency.card.charter)

    def listed(self) -> Person:
        asked = Lookup(("anna@minzdrav",))
        answer = self.answer(asked)
        reply = decode_answer(encode_question(asked)[0], answer.code, answer.body)
        assert isinstance(reply, People)
        (person,) = reply.people
        assert person is not None
        return person

    def refused(self, request: bytes) -> Answer:
        before = self.listed()
        answer = self.answer(Rename(request))
        assert answer.code
        assert self.listed() == before
        return answer


@pytest.fixture
def house(agency: Agency, tmp_path: Path) -> Iterator[House]:
    made = House(agency, tmp_path / "node.db")
    yield made
    made.connection.close()


def test_the_new_certificate_replaces_the_old_one_and_nothing_else(house: House) -> None:
    """Prekey, listing and head stay: the directory's tree is over keys."""
    before = house.listed()
    renamed = house.rename(house.request("Стол", 101))
    assert (renamed.label, renamed.device) == ("Стол", house.device.public)
    after = house.listed()
    assert after.devices[0].certificate == renamed.raw
    assert after.devices[0].prekey == before.devices[0].prekey == house.enrol.prekey
    assert after.listing == before.listing
    assert house.directory.device_allowed(DeviceKey(house.device.public))


def test_the_very_same_may_be_asked_again(house: House) -> None:
    """The answer may have been lost on the way."""
    request = house.request("desk", 101)
    assert house.rename(request) == house.rename(request)


@pytest.mark.parametrize("issued", [0, 99, 100])
def test_what_is_not_later_is_refused(house: House, issued: int) -> None:
    answer = house.refused(house.request("desk", issued))
    assert (answer.code, b"must be later" in answer.body) == (8, True)


def test_an_old_label_does_not_return(house: House) -> None:
    first = house.request("desk", 101)
    house.rename(first)
    house.rename(house.request("table", 102))
    assert house.refused(first).code == 8


def test_another_device_of_the_user_is_not_renamed(house: House) -> None:
    """Not even with both signatures: only the asking device's own certificate is replaced."""
    other = Signer(draw(32))
    answer = house.refused(identity.request_device(house.user, other, house.agency, "x", 101))
    assert (answer.code, b"another device" in answer.body) == (4, True)


def test_not_for_another_user_or_agency(house: House) -> None:
    stranger = Signer(draw(32))
    wrong_user = identity.request_device(stranger, house.device, house.agency, "x", 101)
    assert house.refused(wrong_user).code == 4
    elsewhere = AgencyId(bytes(32))
    foreign = identity.request_device(house.user, house.device, elsewhere, "x", 101)
    assert house.refused(foreign).code == 4


def test_not_without_the_users_signature(house: House) -> None:
    """What a linked device could sign alone."""
    user = UserId(house.user.public)
    alone = identity.request_link(house.device, user, house.agency, "x", 101)
    assert house.refused(alone).code == 1
    body, by_user, by_device = _parts(house.request("x", 101))
    forged = codec.encode((body, bytes(64), by_device))
    assert by_user != bytes(64)
    assert house.refused(forged).code == 4


def _parts(request: bytes) -> tuple[bytes, bytes, bytes]:
    body, by_user, by_device = codec.record(codec.decode(request, 1024), 3, "request")
    return (
        codec.binary(body, 1024, "body"),
        codec.fixed(by_user, 64, "signature"),
        codec.fixed(by_device, 64, "signature"),
    )


def test_a_revoked_device_asks_in_vain(house: House) -> None:
    house.directory.people.revoke([DeviceKey(house.device.public)])
    answer = house.answer(Rename(house.request("desk", 101)))
    assert (answer.code, b"revoked" in answer.body) == (8, True)
    kept = house.directory.people.certificate(DeviceKey(house.device.public))
    assert identity.device_issued(kept) == 100


@pytest.mark.parametrize("peer", [PeerKind.NODE, PeerKind.INVITATION])
def test_only_devices_ask(house: House, peer: PeerKind) -> None:
    assert house.answer(Rename(house.request("desk", 101)), peer).code == 8
    assert identity.device_issued(house.listed().devices[0].certificate) == 100
