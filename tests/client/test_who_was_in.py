"""Whose a device was is asked of all that was said, not of who is in now (SPEC 2.6, 4.6, 5.5)."""

import pytest

from client import compose, grants, keeping, mailbox
from client.collating import collate
from client.device import Device
from client.linking import bring_in
from client.mailbox import State
from client.reading import Reader
from client.revoking import revoke_own
from protocol.entry import ChatId, EntryId
from protocol.policy import Role
from tests.client.channels import LATER, ask, follow, pay
from tests.client.test_channels import forged
from tests.client.test_debts import with_phone
from tests.federation import Federation, now


def shown(device: Device, chat: ChatId) -> list[str]:
    reader = Reader(device, compose.require(device, chat), now())
    return [
        one.text or str(one.line.letter.message)
        for one in collate([reader.line(x) for x in mailbox.letters(device, chat, 99)])
        if one.line.letter.message is not None
    ]


def test_redact_takes_edits_of_a_lost_device(
    federation: Federation, anna: Device, boris: Device
) -> None:
    chat, phone = with_phone(federation, anna, boris)
    place = federation.say(phone, chat, "secret")
    federation.carry(phone, anna)
    with anna.transaction():
        compose.edit(anna, chat, place, "secret two", now())
    with anna.transaction():
        assert revoke_own(anna, phone.key, now()) == 1
    with anna.transaction():
        keeping.redact(anna, chat, place, "slip", now())
    federation.carry(anna, boris)
    assert not [one for one in shown(boris, chat) if "secret" in one]


def test_own_message_of_a_lost_device_can_be_edited(
    federation: Federation, anna: Device, boris: Device
) -> None:
    chat, phone = with_phone(federation, anna, boris)
    place = federation.say(phone, chat, "tpyo")
    federation.carry(phone, anna)
    with anna.transaction():
        revoke_own(anna, phone.key, now())
    with anna.transaction():
        compose.edit(anna, chat, place, "typo", now())


@pytest.fixture
def clara(federation: Federation) -> Device:
    return federation.official("clara@minzdrav")


def add(federation: Federation, anna: Device, channel: ChatId, one: Device, role: Role) -> EntryId:
    with anna.transaction():
        compose.add_members(anna, channel, [(one.profile.user.user, role)], now())
    federation.carry(anna, one)
    federation.say(anna, channel, "welcome")
    federation.carry(anna, one)
    epoch = anna.replica.last_epoch(channel, anna.key)
    assert epoch is not None
    return epoch


def test_who_lied_and_whose_message_it_is_are_out_by_now(
    federation: Federation,
    anna: Device,
    boris: Device,
    vera: Device,
    clara: Device,
    channel: ChatId,
) -> None:
    """Boris grants vera wrong keys; he and clara are put out before vera hears of her message."""
    epoch = add(federation, anna, channel, clara, Role.MEMBER)
    follow(federation, anna, boris)
    follow(federation, anna, vera)
    with vera.transaction():
        grants.take(vera, forged(boris, vera, channel, federation, epoch))
    federation.say(clara, channel, "by clara")
    federation.carry(clara, anna)
    for one in (clara, boris):
        with anna.transaction():
            compose.remove_member(anna, channel, one.profile.user.user, now())
    follow(federation, anna, vera)
    ask(vera, anna)
    pay(anna, vera)
    with vera.transaction():
        mailbox.open_waiting(vera)
    states = {one.reference.device: one.state for one in mailbox.letters(vera, channel, 9)}
    assert states[anna.key] is State.OPEN
    assert states[clara.key] is not State.REFUSED
    ask(vera, anna, at=now() + LATER)
    pay(anna, vera)
    with vera.transaction():
        mailbox.open_waiting(vera)
    assert "by clara" in federation.texts(vera, channel)


def test_two_devices_of_one_liar_are_not_two_users(
    federation: Federation, anna: Device, boris: Device, vera: Device, channel: ChatId
) -> None:
    phone = federation.further(boris)
    follow(federation, anna, boris)
    with boris.transaction():
        assert bring_in(boris, now()) == 1
    follow(federation, boris, anna, phone)
    federation.say(anna, channel, "by anna")
    epoch = anna.replica.last_epoch(channel, anna.key)
    assert epoch is not None
    follow(federation, anna, boris, phone, vera)
    for one in (phone, boris):
        with vera.transaction():
            grants.take(vera, forged(one, vera, channel, federation, epoch))
            mailbox.open_waiting(vera)
        if one is phone:
            with boris.transaction():
                assert revoke_own(boris, phone.key, now())
            follow(federation, boris, vera)
    assert [one.state for one in mailbox.letters(vera, channel, 9)] == [State.SEALED]
