"""Cases 73 to 75: a full disk, a clock that jumps, no file descriptors left, and a node at work."""

import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio

from client import exchange, mailbox
from client.delivery import unstored
from client.device import Device
from client.link import linked
from node.errors import NetworkError
from protocol.entry import ChatId
from protocol.message import Text
from protocol.name import split_endpoint
from tests.crash.work import sound
from tests.hostile import federation as made
from tests.hostile.federation import (
    PATIENCE_SECONDS,
    Founded,
    eventually,
    one_settled,
    open_device,
    say,
    start_node,
)
from tests.hostile.processes import process

ROOM = "8m"
SPARE = 4  # file descriptors
BEFORE = {f"before {number}" for number in range(10)}
TEN_YEARS = 10 * 365.25 * 24 * 3600


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "ivor", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, stderr=-3).returncode:
        pytest.skip("needs to mount a small file system, as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def fill(folder: Path) -> Path:
    """Leave no room at all."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def texts(device: Device, chat: ChatId) -> set[str]:
    """What a device can read of a chat by now."""
    found = mailbox.letters(device, chat, 1000)
    return {one.message.text for one in found if isinstance(one.message, Text)}


async def test_a_full_disk(
    template: tuple[Path, Founded],
    tmp_path: Path,
    small_disk: Path,
    events: list[structlog.typing.EventDict],
) -> None:
    """Case 73: what is there is served, nothing is acknowledged, and with room it goes on."""
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    shutil.copytree(base / "north", small_disk / "north")
    anna, mallory = open_device(base, "anna"), open_device(base, "mallory")
    agency, chat = founded.agencies["north"], founded.open
    async with trio.open_nursery() as nursery:
        node, _ = await start_node(nursery, small_disk, agency)
        async with linked(anna) as link:
            for text in BEFORE:
                await link.write(partial(say, anna, chat, text))
            await eventually(one_settled(link), "the node has all")
        filler = fill(small_disk)

        async def reads() -> bool:
            with suppress(NetworkError):
                async with linked(mallory) as link:
                    return await exchange.wait_until(
                        link, lambda: texts(mallory, chat) >= BEFORE, 1
                    )
            return False

        await eventually(reads, "what is there is read")
        with anna.transaction():
            for number in range(40):
                say(anna, chat, f"without room {number} {'x' * 4000}")
        with pytest.raises(NetworkError):
            async with linked(anna) as link:
                await link.settle(PATIENCE_SECONDS)
        assert unstored(anna)
        assert any(event["event"] == "transaction failed" for event in events)
        filler.unlink()
        async with linked(anna) as link:
            await eventually(one_settled(link), "with room it is stored")
        assert not unstored(anna)
        sound(node.replica.store.connection)
        nursery.cancel_scope.cancel()
    anna.close()
    mallory.close()


def descriptors(process_id: int) -> int:
    """How many file descriptors a process has open."""
    return len(list(Path(f"/proc/{process_id}/fd").iterdir()))


async def test_no_file_descriptors_left(template: tuple[Path, Founded], tmp_path: Path) -> None:
    """Case 75: who is connected is served on, who comes waits, and is let in when there is room."""
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    host, port = split_endpoint(founded.agencies["north"].card.nodes[0].endpoints[0])
    anna, mallory = open_device(base, "anna"), open_device(base, "mallory")
    async with process(base / "north") as node, linked(anna) as link:
        await eventually(one_settled(link), "anna is connected")
        soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
        left = descriptors(node.pid) + SPARE
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (left, hard))
        strangers = [await trio.open_tcp_stream(host, port) for _ in range(4 * SPARE)]
        await link.write(partial(say, anna, founded.open, "in spite of it"))
        await eventually(one_settled(link), "anna is served on")
        with pytest.raises(NetworkError):
            async with linked(mallory):
                pass
        for stranger in strangers:
            await stranger.aclose()
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))
        async with linked(mallory) as other:
            await eventually(one_settled(other), "mallory is let in")
        assert node.poll() is None
    anna.close()
    mallory.close()


@pytest.mark.parametrize("seconds", [TEN_YEARS, -TEN_YEARS])
async def test_a_clock_that_jumps(
    template: tuple[Path, Founded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    """Case 74: no session goes by it: what is written arrives, both ways, and in order.

    By a clock that is years ahead every prekey is too old to be sealed to: what is written then can
    not be read by others, as SPEC 4.5 wants it, and what is written after that can.
    """
    folder, founded = template
    base = made.copied(folder, tmp_path / "federation")
    anna, boris = open_device(base, "anna"), open_device(base, "boris")
    async with trio.open_nursery() as nursery:
        for name in ("north", "south"):
            await start_node(nursery, base, founded.agencies[name])
        async with linked(anna) as link, linked(boris) as other:
            await eventually(one_settled(link), "anna is connected")
            await eventually(one_settled(other), "boris is connected")
            real = time.time
            came = 2  # title and first word
            for shift in (0, seconds, 0):
                monkeypatch.setattr(time, "time", partial(_shifted, real, shift))
                for writer, device, reader, at in (
                    (link, anna, other, boris),
                    (other, boris, link, anna),
                ):
                    await writer.write(partial(say, device, founded.quiet, f"at {shift}"))
                    came += 1
                    arrived = partial(_count, at, founded.quiet, came)
                    assert await exchange.wait_until(reader, arrived, PATIENCE_SECONDS)
            for reader, device in ((link, anna), (other, boris)):
                read = partial(_reads_last, device, founded.quiet, "at 0")
                assert await exchange.wait_until(reader, read, PATIENCE_SECONDS)
            assert not link.ended.is_set()
            assert not other.ended.is_set()
        nursery.cancel_scope.cancel()
    anna.close()
    boris.close()


def _shifted(real: Callable[[], float], seconds: float) -> float:
    return real() + seconds


def _count(device: Device, chat: ChatId, count: int) -> bool:
    return len(mailbox.letters(device, chat, 1000)) == count


def _reads_last(device: Device, chat: ChatId, text: str) -> bool:
    return mailbox.letters(device, chat, 1)[0].message == Text(text, None)
