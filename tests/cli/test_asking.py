"""What is asked at a terminal while a session is open: it goes on meanwhile, and can be ended."""

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace

import pytest
import trio
import typer
from trio.testing import memory_stream_pair

from cli.device_commands import _approve_next
from cli.opening import confirmed_meanwhile
from cli.output import Output
from client.device import Device
from client.link import Link, over
from node.errors import NetworkError, UserError
from tests.cli.conftest import Official

TICK_SECONDS = 0.01


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write what a person types."""
    keyboard, terminal = os.openpty()
    with os.fdopen(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield keyboard
    os.close(keyboard)


@pytest.mark.parametrize(
    ("said", "answer"), [("y\n", True), ("YES\n", True), ("\n", False), ("maybe\nn\n", False)]
)
async def test_the_session_goes_on_until_there_is_an_answer(
    typed: int, capsys: pytest.CaptureFixture[str], *, said: str, answer: bool
) -> None:
    found: list[bool] = []

    async def ask() -> None:
        found.append(await confirmed_meanwhile("Is it you?", yes=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(TICK_SECONDS)
        assert not found
        os.write(typed, said.encode())
    assert found == [answer]
    assert capsys.readouterr().err == "Is it you? [y/N]: " * len(said.splitlines())


async def test_the_end_of_what_is_typed_ends_the_command(
    typed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    os.write(typed, b"\x04")
    with pytest.raises(typer.Abort):
        await confirmed_meanwhile("Is it you?", yes=False)
    assert capsys.readouterr().err == "Is it you? [y/N]: \n"


@pytest.mark.usefixtures("typed")
async def test_what_is_said_of_an_interruption_begins_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with trio.move_on_after(TICK_SECONDS):
        await confirmed_meanwhile("Is it you?", yes=False)
    assert capsys.readouterr().err == "Is it you? [y/N]: \n"


async def test_who_asks_nobody_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert await confirmed_meanwhile("Is it you?", yes=True)
    with pytest.raises(UserError, match="nobody is there to answer"):
        await confirmed_meanwhile("Is it you?", yes=False)


async def test_a_device_is_linked_in_a_session_that_goes_on(
    typed: int, anna: Official, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: nothing was read from the node, nor answered, until the person had answered."""
    steps: list[str] = []

    async def tick() -> None:
        await trio.sleep(TICK_SECONDS)
        steps.append("session")

    @asynccontextmanager
    async def linked(_: object) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            yield nursery

    async def begin(*_: object) -> tuple[str, object]:
        return "code", SimpleNamespace(expires=0, ticket=bytes(16))

    async def wait(nursery: trio.Nursery, _: object) -> tuple[object, object]:
        nursery.start_soon(tick)
        threading.Timer(20 * TICK_SECONDS, os.write, (typed, b"y\n")).start()
        return object(), SimpleNamespace(raw=b"", device=bytes(32), label="phone")

    async def approve(*_: object) -> None:
        steps.append("approved")

    monkeypatch.setattr("client.link.linked", linked)
    for function in (begin, wait, approve):
        monkeypatch.setattr(f"client.linking.{function.__name__}", function)
    await _approve_next(anna.device, yes=False, output=Output(as_json=False), stages=[])
    assert steps == ["session", "approved"]


@pytest.mark.parametrize(
    ("end", "code"), [(KeyboardInterrupt(), 130), (NetworkError("the connection ended"), 3)]
)
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("begin", ""),
        ("wait", "nothing was given to the new device, and its code is void: "),
        ("approve", "'ivor device list' tells whether the new device was approved\n"),
    ],
)
def test_who_ends_a_linking_is_told_what_has_become_of_it(
    anna: Official,
    monkeypatch: pytest.MonkeyPatch,
    end: BaseException,
    code: int,
    where: str,
    said: str,
) -> None:
    """Regression: nothing was said, and the new device waited on until its code was over."""

    def linked(device: Device) -> AbstractAsyncContextManager[Link]:
        return over(device, memory_stream_pair()[0])

    async def begin(*_: object) -> tuple[str, object]:
        return "code", SimpleNamespace(expires=0, ticket=bytes(16))

    async def wait(*_: object) -> tuple[object, object]:
        return object(), SimpleNamespace(raw=b"", device=bytes(32), label="phone")

    async def ended(*_: object) -> None:
        raise end

    monkeypatch.setattr("client.link.linked", linked)
    for function in (begin, wait):
        monkeypatch.setattr(f"client.linking.{function.__name__}", function)
    monkeypatch.setattr(f"client.linking.{where}", ended)
    anna("device", "link", "--yes", code=code)
    assert said in anna.said
    assert ("the new device" in anna.said) is (said != "")
