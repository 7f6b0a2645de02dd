"""Chats of so many devices that not every node keeps all seals of an epoch (SPEC 6.5)."""

from functools import partial
from pathlib import Path

import pytest

from client import compose, mailbox
from client.device import Device
from client.epochs import start_epoch
from client.exchange import visit
from client.link import Link
from node import dialler, seals
from protocol.message import Text
from tests.federation import now
from tests.hostile.federation import eventually
from tests.realm import Realm, copied, found


@pytest.fixture
def realm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Realm:
    """Two recipients are many here, as 65 are elsewhere."""
    monkeypatch.setattr(dialler, "YIELD_SECONDS", 0.2)
    monkeypatch.setattr(dialler, "LOOK_SECONDS", 0.05)
    founded = found(tmp_path / "template")
    monkeypatch.setattr(seals, "SEALS_SPREAD_MAX", 1)
    return Realm(copied(tmp_path / "template", tmp_path / "realm"), founded)


async def test_other_agencies_are_given_the_seals_for_theirs(realm: Realm) -> None:
    """Regression: the author's node asked it for the seals of its own agency, others had no way."""
    async with realm.running(), realm.online("boris") as (boris, link):
        await visit(boris, link, 5)
        await link.write(partial(begin_and_say, boris, realm))
        for name in ("anna", "clara"):
            async with realm.online(name) as (reader, other):
                reads = partial(visit_and_read, reader, other, realm)
                await eventually(reads, f"{name} reads what boris wrote")


def begin_and_say(device: Device, realm: Realm) -> None:
    start_epoch(device, compose.require(device, realm.chat), now())
    compose.send(device, realm.chat, Text("to many", None), now(), None)


async def visit_and_read(device: Device, link: Link, realm: Realm) -> bool:
    await visit(device, link, 5)
    letters = await link.journal.read(partial(mailbox.letters, device, realm.chat, 9))
    return any(letter.message == Text("to many", None) for letter in letters)
