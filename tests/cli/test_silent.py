"""A node that stands still, or is busy: what is to be written does not wait for it long."""

from collections import Counter
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import memory_stream_pair

from cli.opening import MEET_SECONDS
from cli.writing import BUSY_SECONDS
from client.delivery import Progress
from client.device import Device
from client.exchange import Visit
from client.link import Link, Silent, over
from node.tls import Credential
from node.wire import TLS_SECONDS_MAX
from protocol.identity import Card
from tests.cli.conftest import Official
from tests.federation import Federation


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    return federation.chat(anna.device, "Бюджет", boris.device).hex()[:8]


def test_a_message_is_written_before_the_node_is_waited_for(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: for 15 seconds, in which whoever interrupted had written nothing."""
    kept: list[trio.abc.Stream] = []

    async def connect(_endpoint: str) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        kept.append(theirs)  # the system takes the connection, and nobody reads it
        return ours

    monkeypatch.setattr("client.link.connect", connect)
    monkeypatch.setattr("cli.opening.MEET_SECONDS", 0.05)
    monkeypatch.setattr("cli.writing.BUSY_SECONDS", 0.05)
    (sent,) = anna.json("send", chat, "once")
    assert "no answer in time" in str(sent["problem"])
    assert f"{str(sent['id'])[:8]} is written; the node does not answer yet" in anna.said


def test_so_it_is_where_the_node_only_shakes_hands(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the first question to it found that out, after 18 seconds."""
    kept: list[trio.abc.Stream] = []

    async def dial(*_: object) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        kept.append(theirs)
        return ours

    monkeypatch.setattr("client.link.dial", dial)
    monkeypatch.setattr("cli.opening.MEET_SECONDS", 0.05)
    monkeypatch.setattr("cli.writing.BUSY_SECONDS", 0.05)
    why = "the node of minzdrav takes the connection, and gives no answer in time"
    (sent,) = anna.json("send", chat, "once")
    assert (sent["state"], sent["problem"]) == ("queued", why)
    assert f"{str(sent['id'])[:8]} is written; the node does not answer yet" in anna.said
    (changed,) = anna.json("chat", "role", chat, "boris@mincifry", "admin")
    assert (changed["state"], changed["problem"]) == ("queued", why)


@pytest.fixture
def greeted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has greeted, and says no more."""

    async def meet(*_: object) -> None:
        """It has."""

    def linked(device: Device, **_: float) -> AbstractAsyncContextManager[Link]:
        return over(device, memory_stream_pair()[0])

    monkeypatch.setattr("client.link.linked", linked)
    monkeypatch.setattr(Link, "meet", meet)


@pytest.fixture
def slow(greeted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has told what is new, and does not say that it stores what is written then."""
    del greeted

    async def visit(*_: object) -> Visit:
        return Visit(even=False, came=Counter(), archived=0, revoked=(), warnings=())

    monkeypatch.setattr("client.exchange.visit", visit)
    monkeypatch.setattr("cli.writing.SETTLE_SECONDS", 0)


@pytest.mark.usefixtures("greeted")
def test_nobody_is_told_to_send_again_what_is_queued(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 'queued: …; try again', and whoever did had said it twice."""
    monkeypatch.setattr("cli.opening.SETTLE_SECONDS", 0.05)
    monkeypatch.setattr("client.link.ANSWER_SECONDS_MAX", 0.05)
    (sent,) = anna.json("send", chat, "once")
    assert (sent["state"], sent["problem"]) == ("queued", "the node did not answer in time")


@pytest.mark.usefixtures("slow")
def test_a_message_that_is_not_confirmed_says_so(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 'queued', and no word why."""
    monkeypatch.setattr("cli.writing.BUSY_SECONDS", 0.05)
    why = "the node has not confirmed yet that it is stored; 'ivor sync' asks again"
    (sent,) = anna.json("send", chat, "once")
    assert (sent["state"], sent["problem"]) == ("queued", why)
    assert anna("send", chat, "twice").endswith(f" queued: {why}\n")
    anna("send", chat, "thrice", "--wait", "stored", "--timeout", "0", code=3)


@pytest.mark.usefixtures("slow")
def test_a_confirmation_that_is_long_on_its_way_is_waited_for(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two satellites three seconds are over before it is here."""
    known = [Progress(own=True, agencies=1, of=2)] * 2 + [Progress(own=False, agencies=0, of=2)]
    monkeypatch.setattr("client.delivery.progress_of", lambda *_: known.pop())
    (sent,) = anna.json("send", chat, "once")
    assert (sent["state"], sent["problem"]) == ("stored", None)


def test_who_then_interrupts_is_told_that_it_is_written(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(_card: Card, _credential: Credential, patience: float) -> None:
        raise Silent("no answer") if patience == MEET_SECONDS else KeyboardInterrupt

    monkeypatch.setattr("client.link.dial", dial)
    anna("send", chat, "once", code=130)
    assert "is written, and goes with the next command" in anna.said


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how many seconds, each time, a node was waited for that is silent."""
    waited: list[float] = []

    async def dial(_card: Card, _credential: Credential, seconds: float) -> None:
        waited.append(seconds)
        raise Silent("no answer")

    monkeypatch.setattr("client.link.dial", dial)
    return waited


def test_a_first_message_to_somebody_meets_a_silent_node_once(
    anna: Official, boris: Official, patience: list[float]
) -> None:
    """Regression: three times, to look for the chat, to begin it, to write; then it was written."""
    (sent,) = anna.json("send", boris.device.profile.name, "hello")
    assert (sent["state"], sent["problem"]) == ("queued", "no answer")
    assert patience == [MEET_SECONDS, BUSY_SECONDS]
    patience.clear()
    anna("send", "zoya@mincifry", "hello", code=3)
    assert patience == [MEET_SECONDS, TLS_SECONDS_MAX]


def test_a_change_of_which_nothing_is_written_says_so(
    anna: Official, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("client.link.dial", dial)
    anna("chat", "role", chat, "boris@mincifry", "admin", code=130)
    assert anna.said == "interrupted: the change is not written\n"


@pytest.mark.usefixtures("boris")
def test_for_who_is_not_known_here_a_busy_node_is_waited_for(
    anna: Official, patience: list[float]
) -> None:
    """What is here could not do instead."""
    anna("chat", "new", "Чужой", "zoya@mincifry", code=3)
    anna("chat", "new", "Новый", "boris@mincifry")
    assert patience == [TLS_SECONDS_MAX, MEET_SECONDS]
