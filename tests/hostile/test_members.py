"""Hostile cases 39 to 49: who is in a chat, for whom is sealed, and who is not there any more."""

import os
import time
from collections.abc import AsyncIterator

import pytest
import trio
from msgspec import structs

from client import compose, mailbox, people
from client.link import linked
from crypto import merkle
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey
from crypto.signing import SEED_BYTES, Signer
from node.agency import register_device
from node.errors import IvorError, NetworkError
from protocol import epoch, identity
from protocol.entry import CONTENT, CONTROL, ContentHeader, DeviceKey, EntryId
from protocol.errors import PeerError, Untrusted
from protocol.frame import Absent, Answer, Heads, Ping, Pong, Seal, Seals, Want, WantSeals
from protocol.grant import Credential, Grant, verified
from protocol.message import Text
from protocol.operation import Admit, Enroll, EpochOperation, Recipient, Remove
from protocol.policy import Role
from protocol.question import Lookup, Person, PersonDevice, Topic, encode_answer, encode_question
from protocol.question import People as PeopleReply
from protocol.question import Revoke as RevokeQuestion
from tests.hostile.federation import (
    Federation,
    eventually,
    now,
    one_settled,
    start_node,
    wire as open_wire,
)
from tests.hostile.forger import Forger, head, newest, nonsense


@pytest.fixture
async def forger(federation: Federation) -> AsyncIterator[Forger]:
    device = federation.device("mallory")
    yield Forger(device, federation.founded.open)
    device.close()


def without_the_user(federation: Federation, home: str, user: str) -> tuple[Signer, Person]:
    """What an agency can make alone: a further device for its user, whose key it does not hold."""
    agency = federation.agency(home)
    person = _person(federation, home, user)
    known = verified(person.charter, person.certificate, [person.devices[0].certificate]).user
    invented, stranger = Signer(os.urandom(SEED_BYTES)), Signer(os.urandom(SEED_BYTES))
    request = identity.request_device(stranger, invented, agency.id, "ghost", now())
    body = request.replace(stranger.public, known.user)
    certificate = identity.certify_device(agency.registrar, body)
    prekey = Prekey(os.urandom(PREKEY_PRIVATE_BYTES))
    record = identity.sign_prekey(invented, prekey.public, now())
    ghost = PersonDevice(certificate, record)
    return invented, Person(person.charter, person.certificate, (*person.devices, ghost))


def _person(federation: Federation, home: str, user: str) -> Person:
    person = federation.node(home).directory.people.by_name(f"{user}@{home}")
    assert person is not None
    return person


async def test_an_agency_cannot_add_a_device(federation: Federation, forger: Forger) -> None:
    """Cases 39 and 46: no directory, no device and no chat takes it."""
    ghost, person = without_the_user(federation, "south", "boris")
    north, anna = federation.node(), federation.honest["anna"]
    told = Answer(1, 0, encode_answer(PeopleReply((person,))))
    with pytest.raises(PeerError):
        await north.journal.write(
            lambda: north.directory.remember(federation.agency("south").id, told)
        )
    with pytest.raises(PeerError), anna.transaction():
        people.keep_person(anna, person)
    with pytest.raises(PeerError):
        register_device(
            federation.agency("south"),
            person.devices[-1].certificate,
            federation.founded.users["boris"],
        )
    own_ghost, own = without_the_user(federation, "north", "mallory")
    with pytest.raises(PeerError):
        verified(own.charter, own.certificate, [own.devices[-1].certificate])
    # Put past the checks of our own encoder, the entry is refused by those of the nodes.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(identity, "verify_device", _believing(own_ghost))
        good = verified(own.charter, own.certificate, [own.devices[-1].certificate])
    chain = forger.control(Enroll(good))
    await _refused_control(federation, forger, newest(chain))
    assert ghost.public not in await _devices(federation)


def _believing(ghost: Signer):  # noqa: ANN202
    real = identity.verify_device

    def believe(raw: bytes, charter: identity.Charter) -> identity.DeviceCertificate:
        try:
            return real(raw, charter)
        except Untrusted:
            return identity.DeviceCertificate(
                charter.agency, identity.UserId(b""), DeviceKey(ghost.public), "ghost", 0, raw
            )

    return believe
