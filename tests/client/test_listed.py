"""What the directory lists of our own devices, and what we make of it."""

from dataclasses import replace

import pytest

from client import compose, handing, identities, people, witnessing
from client.device import Device
from client.linking import bring_in
from client.people import keep_person
from client.revoking import revoke_own
from node.agency import Agency
from protocol.entry import ChatId, DeviceKey
from protocol.grant import verified
from protocol.identity import UserId
from protocol.listing import Head, Listing, leaf_of, sign_head
from protocol.person import Person
from tests.client.test_rekeyed import rekeyed
from tests.federation import Federation, now


def placed(agency: Agency, person: Person, before: Head | None) -> tuple[Person, Head]:
    """A person as the only one in the directory of an agency that follows another one."""
    certificates = [one.certificate for one in person.devices]
    user = verified(person.charter, person.certificate, certificates).user
    head = sign_head(agency.registrar, agency.card.charter, before, [leaf_of(user)], now())
    return replace(person, listing=Listing(head.raw, 0, ())), head


def in_use(device: Device, user: UserId) -> set[DeviceKey]:
    rows = device.connection.execute(
        "SELECT id FROM devices WHERE user = ? AND revoked = 0", (user,)
    )
    return {DeviceKey(key) for (key,) in rows}


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


def test_an_answer_that_comes_late_changes_nothing(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Regression: a phone linked just now was out of use for a day; what was put out came back.

    `ivor sync` may have asked before, and take the answer after `ivor device link` took its own.
    """
    agency, ours = federation.agencies["minzdrav"], anna.profile.user.user
    alone, first = placed(agency, federation.persons[anna.profile.name], None)
    phone = federation.further(anna)
    both, second = placed(agency, federation.persons[anna.profile.name], first)
    again, _ = placed(agency, alone, second)
    for device in (anna, boris):
        with device.transaction():
            for told, expected in (
                (both, {anna.key, phone.key}),
                (alone, {anna.key, phone.key}),
                (again, {anna.key}),
                (both, {anna.key}),
            ):
                assert witnessing.keep_listed(device, told) == ours
                assert in_use(device, ours) == expected


def test_nor_does_it_say_that_somebody_has_begun_anew(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """Whom the name meant before is no other identity than the one that was taken since."""
    agency, name = federation.agencies["mincifry"], boris.profile.name
    before, first = placed(agency, federation.persons[name], None)
    with anna.transaction():
        witnessing.keep_listed(anna, before)
        people.accept_change(anna, name)
    federation.devices.remove(boris)
    begun_anew = federation.official(name)
    federation.devices.append(boris)
    with anna.transaction():
        told, _ = placed(agency, federation.persons[name], first)
        assert not witnessing.note_change(anna, told, bool)
        assert witnessing.keep_listed(anna, told) == begun_anew.profile.user.user
        assert not witnessing.note_change(anna, before, bool)
        assert witnessing.keep_listed(anna, before) == begun_anew.profile.user.user
    assert not identities.changed(anna)


def test_what_another_registrar_key_lists_counts_whatever_its_number(
    federation: Federation, anna: Device
) -> None:
    """Who had the old key may have signed a head of the highest number."""
    ours, phone = anna.profile.user.user, federation.further(anna)
    old, first = placed(federation.agencies["minzdrav"], federation.persons["anna@minzdrav"], None)
    old, _ = placed(federation.agencies["minzdrav"], old, replace(first, serial=1000))
    agency = rekeyed(federation, "minzdrav")
    listed = federation.persons["anna@minzdrav"]
    alone, _ = placed(agency, replace(listed, devices=listed.devices[:1]), first)
    with anna.transaction():
        witnessing.keep_listed(anna, old)
        assert phone.key in in_use(anna, ours)
        for told in (alone, old):
            witnessing.keep_listed(anna, told)
            assert in_use(anna, ours) == {anna.key}
