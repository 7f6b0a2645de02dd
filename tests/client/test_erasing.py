"""What a device keeps no longer than it may, with and without a node (SPEC 2.6, 4.5, 4.6, 10)."""

import time
from pathlib import Path

import pytest
import trio

from cli.opening import bring_in as bring_in_all
from cli.opening import opened
from client import archive, compose, epochs, erasure, following, grants, keeping
from client.arrivals import take_in
from client.device import Device
from client.entries import read_entry
from client.reading import Follower
from crypto import content, schedule
from protocol.entry import ChatId, ContentHeader, header_before_commitment
from protocol.identity import verify_prekey
from protocol.policy import Role
from tests.client.channels import ask, follow, pay
from tests.client.post import Post
from tests.client.test_debts import channel_of, hand_on
from tests.client.test_keeping import bring_bare, keep_for
from tests.federation import PASSPHRASE, Federation, now

DAY = 24 * 3600 * 1000


def _stolen(chain: bytes, header: ContentHeader, payload: bytes) -> bytes:
    seed, _ = schedule.advance(chain)
    before = header_before_commitment(header)
    return content.open_content(seed, before, header.pc, payload)[1]


def test_a_publisher_keeps_what_readers_may_ask_for_no_longer_than_fourteen_days(
    federation: Federation, anna: Device, vera: Device, channel: ChatId
) -> None:
    place = federation.say(anna, channel, "m1")
    recorded = read_entry(anna, channel, place)
    follow(federation, anna, vera)
    pay(anna, vera)
    later = now() + 15 * DAY
    erasure.erase_prekeys(anna, later)  # each start, and each minute of `read --follow`
    with anna.transaction():
        assert grants.due(anna, later) == []
        take_in(anna, later)
    row = anna.connection.execute(
        "SELECT chain FROM openings WHERE device = ?", (anna.key,)
    ).fetchone()
    header = recorded.header
    assert isinstance(header, ContentHeader)
    assert recorded.payload is not None
    assert row is None, _stolen(row[0], header, recorded.payload)


async def test_what_was_handed_over_while_its_key_was_on_its_way_leaves_no_key(
    federation: Federation, post: Post, anna: Device, boris: Device
) -> None:
    """A thief who has the phone later, and what a node recorded, reads what was redacted."""
    channel, phone = channel_of(federation, boris, anna, Role.READER)
    federation.carry(anna, phone)
    federation.carry(anna, boris)
    follow(federation, boris, anna, phone)
    place = federation.say(boris, channel, "m1")
    recorded = read_entry(boris, channel, place)
    follow(federation, boris, anna, phone)
    pay(boris, anna)
    with anna.transaction():
        take_in(anna, now())
    assert federation.texts(anna, channel) == ["m1"]
    ask(phone, boris)
    await hand_on(post, anna, phone)
    assert federation.texts(phone, channel) == ["m1"]
    pay(boris, phone)
    with phone.transaction():
        take_in(phone, now())
    with boris.transaction():
        keeping.redact(boris, channel, place, "", now())
    follow(federation, boris, phone)
    assert federation.texts(phone, channel) == []
    row = phone.connection.execute(
        "SELECT generation, chain FROM senders WHERE device = ?", (boris.key,)
    ).fetchone()
    assert row is not None
    header = recorded.header
    assert isinstance(header, ContentHeader)
    assert recorded.payload is not None
    assert row[0] > header.generation, _stolen(row[1], header, recorded.payload)


def test_a_clock_that_was_set_back_for_an_hour_erases_no_prekey_of_yesterday(
    anna: Device,
) -> None:
    issued = federation_issued(anna)
    with anna.transaction():
        epochs.own_prekey(anna, issued - 3 * 365 * DAY)  # its clock lost power
    assert erasure.erase_prekeys(anna, issued + DAY) <= 1
    with anna.transaction():
        epochs.own_prekey(anna, issued + DAY)
    kept = [row[0] for row in anna.connection.execute("SELECT record FROM prekeys")]
    assert issued in [verify_prekey(one).issued for one in kept]


def federation_issued(one: Device) -> int:
    raw = one.connection.execute("SELECT record FROM prekeys").get
    return verify_prekey(raw).issued


def test_what_is_too_old_is_not_read_without_a_network_either(
    federation: Federation,
    anna: Device,
    boris: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat = federation.chat(anna, "", boris)
    keep_for(anna, chat, 3600)
    federation.say(anna, chat, "old")
    federation.carry(anna, boris)
    federation.acknowledge(boris)
    words = tmp_path / "words"
    words.write_bytes(PASSPHRASE + b"\n")
    words.chmod(0o600)
    at = time.time() + DAY / 1000
    monkeypatch.setattr(time, "time", lambda: at)
    with opened(boris.folder, words) as device:
        bring_in_all(device)  # as `ivor read` does
        assert federation.texts(device, chat) == []


async def test_who_follows_while_the_node_is_away_erases_as_ever(
    federation: Federation, anna: Device, boris: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 10: prekeys after 14 days, and the log once a minute while the database is open."""
    chat = federation.chat(anna, "", boris)
    monkeypatch.setattr(following, "TEND_SECONDS", 0.1)
    at = time.time() + 15 * DAY / 1000
    monkeypatch.setattr(time, "time", lambda: at)
    follower = Follower(anna, compose.require(anna, chat))
    told: list[str] = []
    with trio.move_on_after(4):
        await following.follow(anna, chat, follower, lambda _: None, told.append)
    assert len(told) == 1
    assert told[0].startswith("offline")
    assert anna.connection.execute("SELECT count(*) FROM prekeys").get == 0


def test_history_of_what_a_node_dropped_early_ages_too(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """A further device has it from the laptop alone; past the retention it has to go there too."""
    chat = federation.chat(anna, "", boris)
    keep_for(anna, chat, 24 * 3600)
    federation.say(anna, chat, "here")
    federation.carry(anna, boris)
    federation.say(anna, chat, "one")
    bring_bare(federation, anna, boris, chat)
    phone = federation.further(anna)
    with anna.transaction():
        compose.enroll(anna, chat, phone.profile.device_certificate, now())
    for parcel in federation.parcels(anna, phone):
        with phone.transaction():
            archive.keep(phone, archive.unpack(phone, parcel))
    federation.carry(boris, phone)
    federation.carry_lane(anna, phone, 0)
    federation.carry(boris, phone)
    assert federation.texts(phone, chat) == ["here", "one"]
    for one in (anna, phone):
        federation.acknowledge(one)
        erasure.drop_aged(one)
        one.replica.payloads.clock = lambda: now() + 3 * DAY
        erasure.drop_aged(one)
    assert federation.texts(anna, chat) == []
    assert federation.texts(phone, chat) == []
