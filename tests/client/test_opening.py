"""SPEC 10, rule 3: a message is stored, opened and put into the mailbox in one transaction."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from client import compose, mailbox
from client.audit import audit
from client.device import Device, open_device
from client.entries import read_entry
from client.epochs import start_epoch
from client.link import Link
from client.mailbox import State
from node.errors import StorageError
from protocol.entry import ChatId, Reference
from protocol.message import Text
from protocol.run import Entry
from tests.federation import PASSPHRASE, Federation, now, runs


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    """A chat whose epoch both can open; anna then writes three messages that boris lacks."""
    made = federation.chat(anna, "", boris)
    federation.say(anna, made, "first")
    federation.carry(anna, boris)
    for text in "abc":
        federation.say(anna, made, text)
    return made


def as_after_a_kill(device: Device, copy: Path) -> Device:
    """Open what a kill at this moment would leave of a device's folder."""
    shutil.copytree(device.folder, copy)
    return open_device(copy, PASSPHRASE, device.random)


def bring(federation: Federation, source: Device, target: Device, chat: ChatId) -> None:
    """Bring a device each run of a chat once, and nothing else."""
    for run in runs(source, chat):
        federation._bring(target, run)


def rows(device: Device) -> tuple[int, int]:
    """How many content entries are stored, and how many rows the mailbox has."""
    stored = device.connection.execute("SELECT ifnull(sum(length), 0) FROM chains WHERE lane = 1")
    return int(stored.get), int(device.connection.execute("SELECT count(*) FROM mailbox").get)


def test_killed_between_storing_and_opening(
    federation: Federation,
    anna: Device,
    boris: Device,
    chat: ChatId,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the entry nor its row nor the next key is there; later all is opened, once."""
    left: list[Device] = []
    opening = mailbox._open

    def killed(device: Device, chat: ChatId, entry: Entry) -> object:
        if len(left) < 3:
            left.append(as_after_a_kill(device, tmp_path / f"killed-{len(left)}"))
        return opening(device, chat, entry)

    monkeypatch.setattr(mailbox, "_open", killed)
    bring(federation, anna, boris, chat)
    monkeypatch.undo()
    assert len(left) == 3
    for device in left:
        assert rows(device) == (1, 1)
        bring(federation, anna, device, chat)
        bring(federation, anna, device, chat)
        assert federation.texts(device, chat) == ["first", "a", "b", "c"]
        assert rows(device) == (4, 4)
        assert audit(device, chat, lambda _: None).faults == []
        device.close()


def test_two_processes_that_receive_at_once(
    federation: Federation, anna: Device, boris: Device, chat: ChatId
) -> None:
    """Whoever comes second finds it there: each message has one row, and no key is used twice."""
    other = open_device(boris.folder, PASSPHRASE, boris.random)
    for number in range(6):
        federation.say(anna, chat, str(number))
        pair = (boris, other)[:: 1 if number % 2 else -1]
        for device in pair:
            bring(federation, anna, device, chat)
    other.close()
    boris.refresh()
    assert federation.texts(boris, chat) == ["first", *"abc", *"012345"]
    assert rows(boris) == (10, 10)
    states = boris.connection.execute("SELECT DISTINCT state FROM mailbox").fetchall()
    assert states == [(State.OPEN,)]


def test_what_waited_for_its_key_is_opened_before_what_follows(
    federation: Federation, anna: Device, boris: Device
) -> None:
    """The seal came by another way, and the next message before the device looked again."""
    chat = federation.chat(anna, "", boris)
    with anna.transaction():
        start_epoch(anna, compose.require(anna, chat), now())
    federation.say(anna, chat, "waits")
    bring(federation, anna, boris, chat)
    assert [letter.state for letter in mailbox.letters(boris, chat, 9)] == [State.SEALED]
    federation._carry_seals(anna, boris)
    federation.say(anna, chat, "follows")
    bring(federation, anna, boris, chat)
    assert federation.texts(boris, chat) == ["waits", "follows"]


async def test_a_device_sends_nothing_before_it_is_durable(
    anna: Device, chat: ChatId, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I16: had it forgotten what it sent, it would sign the place again."""
    ours, _theirs = memory_stream_pair()
    link = Link(anna, ours)
    nursery.start_soon(link.journal.run)
    pushed: list[bytes] = []
    durable: list[int] = []
    monkeypatch.setattr(link.connection, "push", pushed.append)

    def look() -> bool:
        durable.append(len(pushed))
        return len(durable) == 2  # this commit fails

    anna.connection.set_commit_hook(look)
    say = partial(compose.send, anna, chat, Text("now", None), now(), None)
    await link.write(say)
    assert (durable, len(pushed)) == ([0], 1)
    with pytest.raises(StorageError):
        await link.write(say)
    assert len(pushed) == 1
    await link.write(say)
    assert len(pushed) == 2


def test_what_waits_for_a_key_is_not_tried_at_each_message(
    federation: Federation,
    anna: Device,
    boris: Device,
    chat: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member withholds a seal and writes on; when it comes all is read."""
    with anna.transaction():
        start_epoch(anna, compose.require(anna, chat), now())
    for number in range(20):
        federation.say(anna, chat, str(number))
    bring(federation, anna, boris, chat)
    bring(federation, anna, boris, chat)
    federation.say(anna, chat, "last")
    tried: list[Reference] = []

    def read(device: Device, chat: ChatId, place: Reference) -> Entry:
        tried.append(place)
        return read_entry(device, chat, place)

    monkeypatch.setattr(mailbox, "read_entry", read)
    bring(federation, anna, boris, chat)
    assert not tried
    federation.carry(anna, boris)
    expected = ["first", *"abc", *map(str, range(20)), "last"]
    assert federation.texts(boris, chat) == expected
