"""A device whose agency has another registrar key than when it was enrolled (SPEC 5.2)."""

import dataclasses
import os
import time

import pytest

from client import archive, people
from client.device import Device, open_device
from node.agency import Agency, open_agency, open_root, rekey
from protocol.errors import Untrusted
from protocol.identity import recertify_device, recertify_user
from protocol.person import Person, PersonDevice
from protocol.policy import Role
from tests.federation import PASSPHRASE, Federation


def rekeyed(federation: Federation, name: str) -> Agency:
    """Give an agency another key, and certify its users anew in its directory."""
    folder = federation.agencies[name].folder
    rekey(folder, b"service", open_root(folder / "root.key", b"root"), time.time(), os.urandom)
    agency = federation.agencies[name] = open_agency(folder, b"service")
    for address, person in federation.persons.items():
        if address.endswith(f"@{name}"):
            federation.persons[address] = _certified_anew(agency, person)
    return agency


def _certified_anew(agency: Agency, person: Person) -> Person:
    key = agency.registrar
    devices = tuple(
        PersonDevice(recertify_device(key, one.certificate), one.prekey) for one in person.devices
    )
    user = recertify_user(key, person.certificate)
    return dataclasses.replace(
        person, charter=agency.card.charter.raw, certificate=user, devices=devices
    )


def test_it_is_who_its_agency_says_now(federation: Federation, anna: Device, boris: Device) -> None:
    """Chats go on, new ones begin, and a further device is linked under the new key."""
    chat = federation.chat(anna, "Budget", boris)
    agency = rekeyed(federation, "minzdrav")
    federation.introduce()
    assert anna.profile.charter == agency.card.charter
    again = open_device(anna.folder, PASSPHRASE, anna.random)
    assert again.profile == anna.profile
    again.close()
    federation.say(anna, chat, "after")
    federation.carry(anna, boris)
    assert federation.texts(boris, chat) == ["after"]
    phone = federation.further(anna)
    assert phone.profile.charter == agency.card.charter
    for device in (anna, boris):
        grant = people.grant_of(device, anna.profile.user.user, Role.MEMBER)
        assert set(grant.credential.devices) == {
            anna.profile.device_certificate,
            phone.profile.device_certificate,
        }


def test_an_older_charter_changes_nothing(federation: Federation, anna: Device) -> None:
    """Our node was restored from a backup, or lies."""
    before = federation.persons["anna@minzdrav"]
    rekeyed(federation, "minzdrav")
    federation.introduce()
    profile = anna.profile
    with anna.transaction():
        people.keep_person(anna, before)
    anna.reread()
    assert anna.profile == profile


def test_devices_of_one_user_understand_each_other_meanwhile(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """One has been told of the new key, the other not yet: history is handed over all the same."""
    federation.say(anna, federation.chat(anna, "Budget", boris), "before")
    phone = federation.further(anna)
    rekeyed(federation, "minzdrav")
    with anna.transaction():
        people.keep_person(anna, federation.persons["anna@minzdrav"])
    assert anna.profile.charter != phone.profile.charter
    for parcel in federation.parcels(anna, phone):
        archive.unpack(phone, parcel)
    with phone.transaction():
        phone.connection.execute("DELETE FROM devices WHERE id = ?", (anna.key,))
    (parcel,) = federation.parcels(anna, phone)
    with pytest.raises(Untrusted):
        archive.unpack(phone, parcel)
