"""Another label for this device, and who keeps which certificate of it."""

import dataclasses
import os
import time

import pytest

from client import compose, exchange, people, renaming
from client.device import Device, open_device
from client.linking import bring_in
from crypto.certificate import make_key, public_pem
from node import agency as agencies
from node.agency import device_certificate
from node.errors import IdentityError, LimitReached, RefusedError, UserError
from protocol.identity import DeviceCertificate, verify_device
from protocol.person import Person, PersonDevice
from protocol.policy import Role
from tests.federation import PASSPHRASE, Federation, now


def certified(federation: Federation, device: Device, label: str, at: int | None = None) -> bytes:
    """What the agency answers to RENAME. at: milliseconds."""
    agency = federation.agencies[device.profile.charter.name]
    request = renaming.request(device, label, now() if at is None else at)
    user, present = device.profile.user.user, device.profile.device_certificate
    return agencies.rename_device(agency, request, user, present).raw


def renamed(federation: Federation, device: Device, label: str) -> None:
    """Rename a device, and have the directory tell everyone."""
    raw = certified(federation, device, label)
    with device.transaction():
        renaming.keep(device, label, raw)
    known = federation.persons[device.profile.name]
    federation.persons[device.profile.name] = with_certificate(known, raw)
    federation.introduce()


def with_certificate(person: Person, raw: bytes) -> Person:
    return dataclasses.replace(person, devices=(PersonDevice(raw, person.devices[0].prekey),))


def certificate_at(device: Device, of: Device) -> DeviceCertificate:
    """The certificate that a device knows of another."""
    raw = device.connection.execute("SELECT certificate FROM devices WHERE id = ?", (of.key,)).get
    return verify_device(raw, of.profile.charter)


def test_everyone_hears_of_it_and_chats_go_on(
    federation: Federation, anna: Device, boris: Device
) -> None:
    chat = federation.chat(anna, "Budget", boris)
    renamed(federation, anna, "Стол")
    for device in (anna, boris):
        assert certificate_at(device, anna).label == "Стол"
    again = open_device(anna.folder, PASSPHRASE, anna.random)
    assert again.profile == anna.profile
    again.close()
    federation.say(anna, chat, "after")
    federation.carry(anna, boris)
    assert federation.texts(boris, chat) == ["after"]
    with anna.transaction():
        assert bring_in(anna, now()) == 0
    newer = federation.chat(boris, "Another", anna)
    assert anna.key in compose.require(anna, newer).membership().devices


def test_one_that_a_crash_cut_off_is_taken_up_by_a_visit(
    federation: Federation, anna: Device
) -> None:
    """The agency has certified it, and the device did not keep that."""
    raw = certified(federation, anna, "desk")
    known = federation.persons["anna@minzdrav"]
    federation.persons["anna@minzdrav"] = with_certificate(known, raw)
    federation.introduce()
    again = open_device(anna.folder, PASSPHRASE, anna.random)
    again.close()
    for device in (anna, again):
        assert device.profile.device_certificate == raw
    assert certificate_at(anna, anna).label == "desk"


def test_an_earlier_certificate_never_comes_back(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """A node that was restored from an old copy, or lies, shows the one before."""
    before = federation.persons["anna@minzdrav"]
    renamed(federation, anna, "desk")
    for device in (anna, boris):
        with device.transaction():
            people.keep_person(device, before)
        assert certificate_at(device, anna).label == "desk"
    grant = people.grant_of(boris, anna.profile.user.user, Role.MEMBER)
    assert grant.credential.devices == (anna.profile.device_certificate,)


def test_a_clock_behind_the_certificate_is_no_hindrance(
    federation: Federation, anna: Device
) -> None:
    agency = federation.agencies["minzdrav"]
    request = renaming.request(anna, "desk", 0)
    user, present = anna.profile.user.user, anna.profile.device_certificate
    issued = agencies.rename_device(agency, request, user, present).issued
    assert issued == certificate_at(anna, anna).issued + 1


def test_a_linked_device_is_told_why_not(federation: Federation, anna: Device) -> None:
    phone = federation.further(anna)
    with pytest.raises(RefusedError, match="when it is linked"):
        renaming.request(phone, "mobile", now())


@pytest.mark.parametrize("label", ["", " \t", "\udcff"])
def test_what_is_no_label(anna: Device, label: str) -> None:
    with pytest.raises(UserError):
        renaming.request(anna, label, now())


def test_a_label_has_64_bytes(anna: Device) -> None:
    renaming.request(anna, "я" * 32, now())
    with pytest.raises(LimitReached, match="64 bytes, not 65"):
        renaming.request(anna, "я" * 32 + "a", now())


def test_a_node_that_certifies_something_else_changes_nothing(
    federation: Federation, anna: Device
) -> None:
    """An older certificate, or a label that was asked for another time."""
    present, raw = anna.profile.device_certificate, certified(federation, anna, "desk")
    for said in (present, raw):
        with pytest.raises(IdentityError, match="the old one stays"), anna.transaction():
            renaming.keep(anna, "table", said)
    assert anna.profile.device_certificate == present
    assert certificate_at(anna, anna).raw == present


def test_the_tls_certificate_is_renewed_at_its_time_all_the_same(
    federation: Federation, anna: Device
) -> None:
    """Its age counts; a device that is renamed every month would run out of it otherwise."""
    due = now() + exchange.RENEW_MS
    assert not exchange.renewal_due(anna, now())
    assert exchange.renewal_due(anna, due)
    raw = certified(federation, anna, "desk", due)
    with anna.transaction():
        renaming.keep(anna, "desk", raw)
    assert exchange.renewal_due(anna, due)


def test_a_tls_certificate_that_is_not_ours_is_not_kept(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """With one that is for nothing the device could not even ask for another."""
    agency = federation.agencies["minzdrav"]
    key = public_pem(anna.secrets.tls_key)
    before = anna.connection.execute("SELECT tls FROM profile").get
    for said in (
        b"garbage",
        boris.profile.tls_certificate,
        device_certificate(agency, anna.key, public_pem(make_key()), time.time(), os.urandom),
        device_certificate(agency, boris.key, key, time.time(), os.urandom),
    ):
        with pytest.raises(IdentityError, match="our node gave"), anna.transaction():
            exchange.keep_credential(anna, said)
    assert anna.connection.execute("SELECT tls FROM profile").get == before
    renewed = device_certificate(agency, anna.key, key, time.time(), os.urandom)
    with anna.transaction():
        exchange.keep_credential(anna, renewed)
    assert anna.connection.execute("SELECT tls FROM profile").get == renewed
