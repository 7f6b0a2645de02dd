"""What the directory lists of our own devices, and what we make of it."""

import pytest

from client import compose, handing
from client.device import Device
from client.linking import bring_in
from client.people import keep_person
from client.revoking import revoke_own
from protocol.entry import ChatId
from protocol.person import Person
from tests.federation import Federation, now


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    return federation.chat(anna, "Budget", boris)


def test_an_answer_from_before_it_was_certified_gives_it_up_for_no_longer(
    federation: Federation, anna: Device, chat: ChatId
) -> None:
    phone = federation.further(anna)
    listed = federation.persons[anna.profile.name]
    before = Person(listed.charter, listed.certificate, listed.devices[:1])
    with anna.transaction():
        handing.begin(anna, phone.key)
        keep_person(anna, before)
        assert bring_in(anna, now()) == 0
    assert not handing.owed(anna)
    with anna.transaction():
        keep_person(anna, listed)
        assert bring_in(anna, now()) == 1
    assert list(handing.owed(anna)) == [phone.key]
    assert phone.key in compose.require(anna, chat).membership().devices


def test_what_we_gave_up_stays_so_whatever_is_listed(
    federation: Federation, anna: Device, chat: ChatId
) -> None:
    phone = federation.further(anna)
    with anna.transaction():
        assert bring_in(anna, now()) == 1
        revoke_own(anna, phone.key, now())
        keep_person(anna, federation.persons[anna.profile.name])
        assert bring_in(anna, now()) == 0
    assert phone.key not in compose.require(anna, chat).membership().devices
