"""A visit to the node: how long it waits, and what it does not end for."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair

from cli.opening import change
from client import compose, exchange
from client.device import Device, open_device
from client.epochs import start_epoch
from client.link import Link, over
from client.revoking import revoke_own
from protocol.entry import CONTENT, CONTROL, ChatId
from protocol.question import Question, Renew
from protocol.reply import Certified, Done, Reply
from tests.federation import PASSPHRASE, Federation, now


@asynccontextmanager
async def link_of(device: Device) -> AsyncIterator[Link]:
    """A link to a node that says nothing."""
    ours, theirs = memory_stream_pair()
    async with over(device, ours) as link:
        yield link
    await theirs.aclose()


@pytest.fixture
def sealed(federation: Federation, anna: Device, boris: Device) -> ChatId:
    """A chat in which boris has a message without the seal of its epoch."""
    chat = federation.chat(anna, "", boris)
    with anna.transaction():
        start_epoch(anna, compose.require(anna, chat), now())
    federation.say(anna, chat, "waits")
    for lane in (CONTROL, CONTENT):
        federation.carry_lane(anna, boris, lane)
    return chat


@pytest.mark.usefixtures("sealed")
async def test_a_seal_that_does_not_come_is_not_waited_for(
    boris: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SEALS_SECONDS_MAX", 0.1)
    async with link_of(boris) as link:
        with trio.fail_after(60):
            assert not await exchange.receive(boris, link)


async def test_a_seal_that_another_process_has_brought_is_noticed(
    federation: Federation,
    anna: Device,
    boris: Device,
    sealed: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our own node has no news then; so the database is looked at without."""
    monkeypatch.setattr(exchange, "SEALS_SECONDS_MAX", 3600)
    monkeypatch.setattr(exchange, "NEWS_SECONDS_MAX", 0.01)
    other = open_device(boris.folder, PASSPHRASE, boris.random)
    lacks_seals, looks = exchange._lacks_seals, itertools.count(1)

    def look(device: Device) -> bool:
        lacks = lacks_seals(device)
        if next(looks) == 2:
            federation._carry_seals(anna, other)
        return lacks

    monkeypatch.setattr(exchange, "_lacks_seals", look)
    async with link_of(boris) as link:
        with trio.fail_after(60):
            assert await exchange.receive(boris, link) == {sealed: 1}
    other.close()


async def certify_none(question: Question) -> Reply:
    return Certified(b"none") if isinstance(question, Renew) else Done()


def test_a_command_that_changes_something_tells_what_was_not_believed(
    anna: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cards, for instance, are not told of again."""

    async def settle(_: float) -> bool:
        return True

    @asynccontextmanager
    async def linked(device: Device, **_: float) -> AsyncIterator[Link]:
        async with link_of(device) as link:
            link.greeted.set()
            monkeypatch.setattr(link, "ask", certify_none)
            monkeypatch.setattr(link, "settle", settle)
            yield link

    monkeypatch.setattr("client.link.linked", linked)
    monkeypatch.setattr(exchange, "RENEW_MS", 0)
    anna.note("refreshed", now())
    assert change(anna, [], len).problem is None
    assert "a TLS certificate that is none" in capsys.readouterr().err


async def test_a_certificate_that_is_none_ends_no_visit(
    anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The present one is good for two months more."""
    before = anna.profile.tls_certificate
    monkeypatch.setattr(exchange, "RENEW_MS", 0)
    anna.note("refreshed", now())
    async with link_of(anna) as link:
        monkeypatch.setattr(link, "ask", certify_none)
        said = [await exchange.tend(anna, link) for _ in range(2)]
        assert [["certificate" in one for one in each] for each in said] == [[True], []]
    anna.reread()
    assert anna.profile.tls_certificate == before


async def test_who_refreshed_under_a_clock_years_ahead_refreshes_again(
    anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed: list[bool] = []

    async def refresh() -> None:
        refreshed.append(True)

    async def ask(_: Question) -> Reply:
        return Done()

    anna.note("refreshed", now() + 3650 * 24 * 3_600_000)
    async with link_of(anna) as link:
        monkeypatch.setattr(link, "refresh", refresh)
        monkeypatch.setattr(link, "ask", ask)
        await exchange.tend(anna, link)
        await exchange.tend(anna, link)
    assert refreshed == [True]


async def test_who_stays_online_asks_every_hour_for_payloads_that_came_as_gone(
    anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 2.6: as a session begins they were asked for; the node may have got them since."""
    asked: list[int] = []

    async def ask_for_payloads() -> None:
        asked.append(now())

    async def ask(_: Question) -> Reply:
        return Done()

    anna.note("refreshed", now())
    async with link_of(anna) as link:
        monkeypatch.setattr(link, "ask", ask)
        monkeypatch.setattr(link.connection, "ask_for_payloads", ask_for_payloads)
        for hours, times in ((0, 1), (0, 1), (1, 2), (-2, 3)):
            anna.note(exchange._ASKED, anna.done_at(exchange._ASKED) - hours * exchange.ASK_MS)
            await exchange.tend(anna, link)
            assert len(asked) == times


async def test_who_stays_online_opens_what_came_so(
    federation: Federation,
    anna: Device,
    boris: Device,
    sealed: ChatId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A payload that comes late is no news, nor is a seal that another process has brought."""

    async def ask(_: Question) -> Reply:
        return Done()

    boris.note("refreshed", now())
    federation._carry_seals(anna, boris)
    async with link_of(boris) as link:
        monkeypatch.setattr(link, "ask", ask)
        assert federation.texts(boris, sealed) == []
        await exchange.tend(boris, link)
    assert federation.texts(boris, sealed) == ["waits"]


async def test_seals_that_another_process_lacks_are_asked_for_here(
    anna: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it had asked on its own session, and ended; the message stayed closed."""
    other = open_device(anna.folder, PASSPHRASE, anna.random)
    asked: list[None] = []
    async with link_of(anna) as link:
        monkeypatch.setattr(link.connection, "ask_for_seals", lambda: asked.append(None))
        await link.journal.read(bool)
        asked.clear()
        for times in (0, 1, 2):
            await link.journal.read(bool)
            assert len(asked) == times
            other.note("written", times)
    other.close()


async def test_who_gave_a_device_up_is_told_when_it_had_come_in_again(
    federation: Federation, anna: Device, boris: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = federation.further(anna)
    with anna.transaction():
        revoke_own(anna, phone.key, now())
    chat = federation.chat(boris, "", anna)

    async def ask(_: Question) -> Reply:
        return Done()

    async with link_of(anna) as link:
        monkeypatch.setattr(link, "ask", ask)
        visits = [await exchange.finish(anna, link, 0.01, even=True) for _ in range(2)]
    assert ["was put out again" in " ".join(one.warnings) for one in visits] == [True, False]
    assert phone.key not in compose.require(anna, chat).membership().devices
