"""What one device hands to another is neither lost nor kept out by who means ill (SPEC 5.6)."""

import pytest

from client import archive, compose, handing, keeping, mailbox, people
from client.arrivals import take_in
from client.device import Device
from client.epochs import make_prekey
from client.erasure import erase_prekeys
from client.link import Link
from client.linking import History, bring_in, take_parcels
from protocol.disclosure import Disclosed
from protocol.identity import sign_prekey
from protocol.message import Text
from protocol.person import Person, PersonDevice
from tests.client.post import Post
from tests.client.test_debts import hand_on, owed, shared_by_vera, with_phone
from tests.client.test_rekeyed import rekeyed
from tests.federation import Federation, now

DAY = 24 * 3600 * 1000


async def test_a_phone_whose_prekey_is_none_holds_its_users_laptop_up(
    federation: Federation, post: Post, anna: Device
) -> None:
    """Who stole it publishes a record that is signed and holds no key."""
    phone = federation.further(anna)
    with anna.transaction():
        handing.begin(anna, phone.key)
    record = sign_prekey(phone.secrets.device, b"\xff" * 1184 + bytes(32), now())
    anna.connection.execute("UPDATE devices SET prekey = ? WHERE id = ?", (record, phone.key))
    async with post.link(anna) as link:
        assert await handing.hand_on(anna, link) == 0


@pytest.mark.parametrize("slow", [0, 1])
async def test_an_absent_device_gets_what_an_author_with_a_slow_clock_wrote(
    federation: Federation, post: Post, anna: Device, boris: Device, slow: int
) -> None:
    chat, phone = with_phone(federation, anna, boris)
    with boris.transaction():
        compose.send(boris, chat, Text("late", None), now() - slow * DAY, None)
    federation.carry(boris, anna)
    later = now() + 14 * DAY
    erase_prekeys(phone, later)
    with phone.transaction():
        record = make_prekey(phone, later)
    for source in (boris, anna):
        federation.carry(source, phone)
    assert federation.texts(phone, chat) == []
    anna.replica.payloads.clock = lambda: later
    known = federation.persons["anna@minzdrav"]
    listed = tuple(
        PersonDevice(one.certificate, record if at else one.prekey)
        for at, one in enumerate(known.devices)
    )
    with anna.transaction():
        people.keep_person(anna, Person(known.charter, known.certificate, listed))
    await hand_on(post, anna, phone)
    assert federation.texts(phone, chat) == ["late"]


async def test_what_else_a_share_holds_is_taken_where_it_is_handed_over(
    federation: Federation, post: Post, anna: Device, boris: Device, vera: Device
) -> None:
    """One of the messages in it was redacted meanwhile: that one goes, and no other (SPEC 2.6)."""
    chat, phone = shared_by_vera(federation, anna, boris, vera, "slip", "before anna")
    slip = mailbox.letters(boris, chat, 9)[0].reference
    async with post.link(anna) as link, post.link(phone) as other:
        assert await handing.hand_on(anna, link) == 1
        with boris.transaction():
            keeping.redact(boris, chat, slip, "", now())
        federation.carry(boris, phone)
        await take_parcels(phone, other, History())
    assert federation.texts(phone, chat) == ["before anna"]


async def test_what_a_device_hands_over_that_is_not_known_yet_is_not_lost(
    federation: Federation,
    post: Post,
    anna: Device,
    boris: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linked since the agency has another registrar key; the phone asks the directory daily."""
    chat = federation.chat(anna, "", boris)
    phone = federation.further(anna)
    federation.devices.remove(phone)
    rekeyed(federation, "minzdrav")
    federation.introduce()
    tablet = federation.further(anna)
    with anna.transaction():
        compose.enroll(anna, chat, tablet.profile.device_certificate, now())
    federation.carry(anna, boris)
    federation.carry(anna, tablet)
    federation.say(boris, chat, "for the tablet")
    with anna.transaction():
        assert bring_in(anna, now()) == 1
    federation.carry(boris, tablet)
    federation.carry(anna, tablet)
    federation.carry(anna, phone)
    federation.carry(boris, phone)
    assert owed(tablet) == 1
    federation.devices.append(phone)

    async def look_up_own(_: Link) -> None:
        federation.introduce()

    monkeypatch.setattr(Link, "look_up_own", look_up_own)
    refused = (await hand_on(post, tablet, phone)).refused
    with phone.transaction():
        take_in(phone, now())
    assert federation.texts(phone, chat) == ["for the tablet"], refused


def test_what_another_device_made_up_does_not_keep_the_truth_out(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """A tablet was stolen, and sends the new phone false letters before the laptop's come."""
    chat = federation.chat(anna, "", boris)
    place = federation.say(boris, chat, "truth")
    federation.carry(boris, anna)
    phone = federation.further(anna)
    with phone.transaction():
        archive.keep_letters(phone, [Disclosed(place.id, b"\x93\x00\xc0\xc0", bytes(32))])
    for parcel in federation.parcels(anna, phone):
        with phone.transaction():
            archive.keep(phone, archive.unpack(phone, parcel))
    with anna.transaction():
        bring_in(anna, now())
    federation.carry(anna, phone)
    assert federation.texts(phone, chat) == ["truth"]
