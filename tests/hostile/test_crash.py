"""Hostile cases 62 and 67: nodes killed under load, and a device's folder out of a backup."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import trio

from client import compose
from client import device as client
from client.device import Device
from client.link import Link, linked
from node.agency import DATABASE_FILE
from node.errors import EvidenceError, NetworkError, RefusedError
from protocol.entry import CONTENT, ChatId
from protocol.message import Text
from tests.hostile import federation as made
from tests.hostile.conftest import check_file
from tests.hostile.federation import (
    PASSPHRASE,
    PATIENCE_SECONDS,
    Federation,
    Founded,
    eventually,
    now,
    one_settled,
    open_device,
    say,
)
from tests.hostile.processes import acknowledged, process, stored_ids

CYCLES = 3
LOAD_SECONDS = 0.7


async def write_on(link: Link, device: Device, chat: ChatId) -> None:
    """Write without a pause until the connection is gone."""
    number = 0
    while not link.ended.is_set():
        await link.write(partial(say, device, chat, f"under load {number}"))
        number += 1


@pytest.mark.usefixtures("events")
async def test_killed_under_load(template: tuple[Path, Founded], tmp_path: Path) -> None:
    """Case 62: SIGKILL while a device writes; what was acknowledged is there, each time."""
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    device, chat = open_device(base, "anna"), founded.quiet
    total = 0
    for _ in range(CYCLES):
        async with process(base / "north") as running, linked(device) as link:
            await link.greeted.wait()
            with trio.move_on_after(LOAD_SECONDS):
                await write_on(link, device, chat)
            running.kill()
            with trio.fail_after(PATIENCE_SECONDS):
                await link.ended.wait()
        known = acknowledged(device, chat)
        assert known <= stored_ids(base / "north", chat)
        assert len(known) > total
        total = len(known)
        check_file(base / "north" / DATABASE_FILE)
    async with process(base / "north"), linked(device) as link:
        await eventually(one_settled(link), "all is stored in the end")
    written = device.replica.store.chat(chat)
    assert written is not None
    assert len(acknowledged(device, chat)) == written.chains[device.key, CONTENT][0].length
    device.close()
    log = (base / "north.log").read_text()
    assert "a bug ended" not in log
    assert "Traceback" not in log


async def test_a_restored_device_that_syncs_first(federation: Federation) -> None:
    """Case 67: an old copy that learns from its node that it wrote on elsewhere writes no more."""
    chat, folder = federation.founded.open, federation.base / "mallory"
    backup = federation.base / "backup"
    shutil.copytree(folder, backup)
    await _say(folder, chat, "after the backup")
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    for _ in range(2):  # it remembers, when it is opened again
        with pytest.raises(EvidenceError, match="old copy of a device that wrote on"):
            await _say(folder, chat, "after the restore")
    stored = federation.node().replica.store.chat(chat)
    assert stored is not None
    device = federation.device("mallory")
    (chain,) = stored.chains[device.key, CONTENT]
    assert chain.length == 2
    assert compose.require(device, chat).membership().may_write(device.key)
    device.close()


async def test_a_restored_device_without_a_network(federation: Federation) -> None:
    """Case 67: a folder that was brought back writes nothing before its node has been asked."""
    chat, folder = federation.founded.open, federation.base / "mallory"
    backup = federation.base / "backup"
    federation.device("mallory").close()
    shutil.copytree(folder, backup)
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    device = client.open_device(folder, PASSPHRASE, os.urandom)
    with pytest.raises(NetworkError, match="copied or brought back"), device.transaction():
        say(device, chat, "too early")
    async with linked(device) as link:
        await eventually(one_settled(link), "its node has told all")
        await link.write(lambda: say(device, chat, "nothing was written meanwhile"))
        await eventually(one_settled(link), "the node has it")
    device.close()
    again = client.open_device(folder, PASSPHRASE, os.urandom)
    with again.transaction():
        say(again, chat, "and offline, from here on")
    again.close()


async def test_a_restored_device_that_writes_first(federation: Federation) -> None:
    """Case 67: one that does not ask is caught; it writes no more, and the proof is everywhere."""
    chat, folder = federation.founded.open, federation.base / "mallory"
    backup = federation.base / "backup"
    shutil.copytree(folder, backup)
    await _say(folder, chat, "after the backup")
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    device = open_device(federation.base, "mallory")
    with device.transaction():
        compose.send(device, chat, Text("written alone", None), now(), None)
    async with linked(device) as link:
        await link.greeted.wait()

        async def caught() -> bool:
            stored = device.replica.store.chat(chat)
            return stored is not None and bool(device.replica.sharing.forks(stored))

        await eventually(caught, "the device learns of its own fork")
        with pytest.raises(RefusedError):
            await link.write(lambda: compose.send(device, chat, Text("and on", None), now(), None))
    device.close()
    for name in ("north", "south"):
        await eventually(partial(proved, federation, name), f"the proof is at {name}")


async def proved(federation: Federation, name: str) -> bool:
    replica = federation.node(name).replica

    def read() -> bool:
        stored = replica.store.chat(federation.founded.open)
        return stored is not None and len(replica.sharing.forks(stored)) == 1

    return await federation.node(name).journal.read(read)


async def _say(folder: Path, chat: ChatId, text: str) -> None:
    device = open_device(folder.parent, folder.name)
    try:
        async with linked(device) as link:
            await link.greeted.wait()
            await eventually(one_settled(link), "the device has what its node has")
            message = Text(text, None)
            await link.write(lambda: compose.send(device, chat, message, now(), None))
            await eventually(one_settled(link), "the node has it")
    finally:
        device.close()
