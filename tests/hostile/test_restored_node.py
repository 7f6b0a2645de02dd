"""Hostile cases 66, 67 and 79: a node that has lost something, and is told it anew."""

import shutil
import time
from pathlib import Path

import apsw
import pytest
import trio

from client import exchange, mailbox
from client.link import linked
from node import backup
from node.agency import DATABASE_FILE
from node.damage import mend
from node.doctor import Finding, examine
from protocol.entry import CONTENT
from protocol.message import Text
from tests.hostile import federation as made
from tests.hostile.conftest import check_file
from tests.hostile.federation import Founded, eventually, one_settled, open_device, say
from tests.hostile.processes import acknowledged, process, stored_ids


def users(folder: Path) -> Finding:
    """Whether a node can change its users, as its doctor says."""
    return next(one for one in examine(folder, time.time()) if one.check == "users")


@pytest.mark.usefixtures("events")
async def test_a_node_killed_and_restored(template: tuple[Path, Founded], tmp_path: Path) -> None:
    """What was written after the backup comes back from devices and peers; nothing is reused."""
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    chat, file = founded.quiet, tmp_path / "north.backup"
    anna, boris = open_device(base, "anna"), open_device(base, "boris")
    north, south = base / "north", base / "south"
    async with process(south), process(north), linked(anna) as link, linked(boris) as other:
        for _ in range(20):
            await link.write(lambda: say(anna, chat, "before"))
        kept = await trio.to_thread.run_sync(backup.save, north, file)
        for _ in range(5):
            await link.write(lambda: say(anna, chat, "after"))
        await eventually(one_settled(link), "north has all")
        told = acknowledged(anna, chat)
        assert told <= stored_ids(north, chat)
        await other.write(lambda: say(boris, chat, "from south, after"))
        await eventually(one_settled(other), "south has it")
    shutil.rmtree(north)
    backup.restore(file, north)
    check_file(north / DATABASE_FILE)
    assert not told <= stored_ids(north, chat)
    assert len(stored_ids(north, chat)) <= kept.entries
    assert "south" in users(north).text
    async with process(south), process(north), linked(anna) as link, linked(boris) as other:
        await eventually(one_settled(link), "north is told all anew")
        await link.write(lambda: say(anna, chat, "after the restore"))
        await eventually(one_settled(link), "north takes what is new")

        async def arrived() -> bool:
            await exchange.receive(boris, other)
            newest = mailbox.letters(boris, chat, 2)
            return any(one.message == Text("after the restore", None) for one in newest)

        await eventually(arrived, "boris reads what was written after the restore")

        async def equal() -> bool:
            return stored_ids(north, chat) == stored_ids(south, chat)

        await eventually(equal, "both nodes hold the same")

        async def met() -> bool:
            return "south" not in users(north).text

        await eventually(met, "north has met south")
        assert told < acknowledged(anna, chat) <= stored_ids(north, chat)
    for device in (anna, boris):
        stored = device.replica.store.chat(chat)
        assert stored is not None
        assert all(len(chain) == 1 for chain in stored.chains.values()), "nobody has forked"
        assert [bool(chain) for (_, lane), chain in stored.chains.items() if lane == CONTENT]
        device.close()


@pytest.mark.usefixtures("events")
async def test_a_bit_that_turned(template: tuple[Path, Founded], tmp_path: Path) -> None:
    """Case 66: the operator is told of it; the chat comes back from peers and devices, whole."""
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    chat, north, south = founded.quiet, base / "north", base / "south"
    whole = stored_ids(north, chat)
    connection = apsw.Connection(str(north / DATABASE_FILE))
    connection.execute(
        "UPDATE entries SET record = CAST(substr(record, 1, 40) || x'00' || substr(record, 42)"
        " AS BLOB) WHERE place = (SELECT max(place) FROM entries WHERE length(record) > 80)"
    )
    connection.close()
    found = {one.check: one for one in examine(north, time.time())}["database"]
    assert found.state == "fail"
    assert "ivor node mend" in found.text
    mended = mend(north)
    assert len(mended.chats) == 1
    assert {one.check: one for one in examine(north, time.time())}["database"].state == "ok"
    anna = open_device(base, "anna")
    async with process(south), process(north), linked(anna) as link:
        await eventually(one_settled(link), "north is told all anew")

        async def back() -> bool:
            return whole <= stored_ids(north, chat) == stored_ids(south, chat)

        await eventually(back, "all of it is back")
    anna.close()
    check_file(north / DATABASE_FILE)
    assert {one.check: one for one in examine(north, time.time())}["database"].state == "ok"
