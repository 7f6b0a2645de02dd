"""Zones and devices: which node may have what a device writes (SPEC 3.4, 6.3)."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from client import compose, keeping
from client.attaching import sealed_file
from client.bringing import waiting
from client.delivery import progress_of, unstored
from client.device import Device, open_device
from client.files import readable
from client.outbox import Outbox
from client.revoking import exposed
from node.errors import RefusedError
from protocol.entry import CONTROL, ChatId, Reference
from protocol.file import FILE_BYTES_MAX
from protocol.frame import ChatHeads, Head
from protocol.membership import resolve
from protocol.message import Title
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.federation import PASSPHRASE, Federation, now

UDM = Policy(("RU-UDM",), 0, HistoryRule.FROM_JOIN)
ALL = Policy(("RU",), 0, HistoryRule.FROM_JOIN)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path)
    yield made
    made.close()


def start(device: Device, policy: Policy, *members: Device) -> ChatId:
    users = [(member.profile.user.user, Role.OWNER) for member in members]
    with device.transaction():
        return compose.new_chat(device, ChatKind.GROUP, "", policy, users, now())


def test_a_chat_in_zones_of_others_is_not_started(federation: Federation) -> None:
    moscow = federation.official("olga@mos", "RU-MOW")
    with pytest.raises(RefusedError, match="could not hold"):
        start(moscow, UDM)
    chat = start(moscow, ALL)
    with pytest.raises(RefusedError, match="could not hold"), moscow.transaction():
        keeping.set_policy(moscow, chat, UDM, now())


def test_a_policy_that_leaves_the_zone(federation: Federation) -> None:
    """The node is no reader any more, and neither are its devices; nothing is pushed to it."""
    anna = federation.official("anna@minzdrav")
    olga = federation.official("olga@mos", "RU-MOW")
    chat = start(anna, ALL, olga)
    federation.carry(anna, olga)
    agency = olga.profile.charter.agency
    assert {agency, olga.key} <= olga.replica.readers_of(chat)
    pushed: list[bytes] = []
    outbox = Outbox(olga, pushed.append)
    with olga.transaction():
        place = compose.send(olga, chat, Title("secret"), now(), None)
    with anna.transaction():
        keeping.set_policy(anna, chat, UDM, now())
    assert unstored(olga)
    federation.carry(anna, olga)
    assert not {agency, olga.key} & olga.replica.readers_of(chat)
    outbox.appended()()
    assert pushed == []
    assert progress_of(olga, chat, place).refused
    assert not unstored(olga)


def test_who_is_outside_the_zones_writes_nothing(federation: Federation) -> None:
    """Regression: it was queued for good, and each 'ivor sync' waited a minute for it."""
    anna = federation.official("anna@minzdrav")
    olga = federation.official("olga@mos", "RU-MOW")
    chat = start(anna, ALL, olga)
    federation.carry(anna, olga)
    with anna.transaction():
        keeping.set_policy(anna, chat, UDM, now())
    federation.carry(anna, olga)
    for write in (
        partial(compose.send, olga, chat, Title("secret"), now(), None),
        partial(compose.leave, olga, chat, now()),
    ):
        with pytest.raises(RefusedError, match="RU-MOW, may hold this"), olga.transaction():
            write()
    assert not unstored(olga)


def attach(device: Device, chat: ChatId, file: Path) -> Reference:
    file.write_bytes(bytes(FILE_BYTES_MAX + 1))
    with (
        readable(file, "") as stream,
        sealed_file(device, file, stream, "", bool) as sealed,
        device.transaction(),
    ):
        return compose.send_attached(device, chat, sealed, now(), None)


@pytest.mark.parametrize("change", ["zones", "reader"])
def test_a_file_that_nobody_takes_any_more_is_not_waited_for(
    federation: Federation, tmp_path: Path, change: str
) -> None:
    """Regression: each 'ivor send' and 'ivor sync' stood still for 20 seconds, for good."""
    anna = federation.official("anna@minzdrav")
    olga = federation.official("olga@mos", "RU-MOW")
    chat = start(anna, ALL)
    user = olga.profile.user.user
    federation.carry(olga, anna)
    with anna.transaction():
        compose.add_members(anna, chat, [(user, Role.MEMBER)], now())
    federation.carry(anna, olga)
    place = attach(olga, chat, tmp_path / "report")
    assert [one.entry for one in waiting(olga)] == [place.id]
    with anna.transaction():
        if change == "zones":
            keeping.set_policy(anna, chat, UDM, now())
        else:
            compose.set_role(anna, chat, user, Role.READER, now())
    federation.carry(anna, olga)
    assert progress_of(olga, chat, place).refused
    assert not waiting(olga)


def test_who_is_outside_the_zones_puts_nobody_out(federation: Federation, tmp_path: Path) -> None:
    """Regression: 'ivor read --follow' tried it again without a pause, for good."""
    anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
    olga = federation.official("olga@mos", "RU-MOW")
    chat = start(anna, ALL, boris, olga)
    federation.carry(anna, boris)
    shutil.copytree(boris.folder, tmp_path / "twin")
    twin = open_device(tmp_path / "twin", PASSPHRASE, boris.random)
    twin.settle_here()
    for device, title in ((boris, "one story"), (twin, "another story")):
        federation.say(device, chat, title)
        federation.carry(device, olga)
    twin.close()
    assert [one.device for one in exposed(olga)] == [boris.key]
    with anna.transaction():
        keeping.set_policy(anna, chat, UDM, now())
    federation.carry(anna, olga)
    assert exposed(olga) == []


def test_let_in_again(federation: Federation) -> None:
    """A device hears its own node even where its agency is out: it may be in again."""
    anna, boris = federation.official("anna@minzdrav"), federation.official("boris@mincifry")
    chat = federation.chat(boris, "Budget", anna)
    own, other = (one.profile.charter.agency for one in (anna, boris))
    user = anna.profile.user.user
    with boris.transaction():
        compose.remove_member(boris, chat, user, now())
    federation.carry(boris, anna)
    assert own not in anna.replica.readers_of(chat)
    news = [ChatHeads(chat, (Head(boris.key, CONTROL, 99, bytes(8)),))]
    assert anna.replica.heard(news, own)
    assert anna.replica.heard(news, other)
    assert not anna.replica.heard(news, bytes(32))
    with boris.transaction():
        compose.add_members(boris, chat, [(user, Role.MEMBER)], now())
    federation.carry(boris, anna)
    assert own in anna.replica.readers_of(chat)
    judge = anna.replica.chat(chat)
    assert judge is not None
    assert user in resolve(judge.history).users
