"""`ivor read --follow`: each new message once, as it comes, whether the node is there or not.

Two sources: the node, which tells at once, and other processes of this device (an `ivor send` in
the next terminal), whose writes are seen by looking.
"""

from collections.abc import Callable, Sequence
from functools import partial

import trio

from client import exchange
from client.device import Device
from client.erasure import drop_aged, empty_log, erase_prekeys
from client.exchange import now_ms
from client.link import Link, linked
from client.reading import Follower, Line, Reader
from client.revoking import exposed
from node.errors import NetworkError
from protocol.entry import ChatId

LOOK_SECONDS = 0.15
TEND_SECONDS = 60.0
VISIT_SECONDS = 10.0
BACK_OFF_SECONDS_MAX = 30.0
REVOKE_SECONDS_MAX = 4.0  # not all members at once: most then see that another has done it
_RANDOM_BYTES = 2


async def follow(
    device: Device,
    chat: ChatId,
    follower: Follower,
    show: Callable[[Sequence[Line]], None],
    tell: Callable[[str], None],
) -> None:
    """Show new messages of a chat for ever; cancel it to end. Raises what is not the network's.

    follower: made before what is old was shown, so that nothing falls between. show: gets what is
    new in the order of the chat. tell: gets a sentence when the node goes or comes back, and of
    what was done there.
    """
    pause = 1.0
    away = False
    while True:
        try:
            async with linked(device) as link:
                if away:
                    tell("connected again")
                pause, away = 1.0, False
                await _follow_link(device, link, chat, follower, show, tell)
        except NetworkError as error:
            if not away:
                tell(f"offline, trying again: {error}")
            away = True
        await _follow_alone(device, chat, follower, show, pause * _jitter(device))
        pause = min(pause * 2, BACK_OFF_SECONDS_MAX)


def _jitter(device: Device) -> float:
    """Return 0.5 to 1, so that all devices do not come back at one moment."""
    return 0.5 + int.from_bytes(device.random(_RANDOM_BYTES)) / (1 << (8 * _RANDOM_BYTES + 1))


async def _follow_link(
    device: Device,
    link: Link,
    chat: ChatId,
    follower: Follower,
    show: Callable[[Sequence[Line]], None],
    tell: Callable[[str], None],
) -> None:
    await link.preview(chat, show)
    for said in (await exchange.visit(device, link, VISIT_SECONDS)).told:
        tell(said)
    caught_since: float | None = None
    tended = trio.current_time()
    while True:
        if trio.current_time() - tended > TEND_SECONDS:
            for said in await exchange.tend(device, link):
                tell(said)
            tended = trio.current_time()
        news = link.news
        link.check()
        show(await link.journal.read(partial(_fresh, device, chat, follower)))
        with trio.move_on_after(LOOK_SECONDS):
            await news.wait()
        if news.is_set():
            await exchange.receive(device, link)
            continue
        if not await link.journal.read(partial(exposed, device)):
            caught_since = None
        elif caught_since is None:
            caught_since = trio.current_time()
        elif trio.current_time() - caught_since > REVOKE_SECONDS_MAX * _jitter(device):
            for one in await exchange.revoke_caught(device, link):
                tell(one.words)
            caught_since = None  # where it is refused, not at each look


async def _follow_alone(
    device: Device,
    chat: ChatId,
    follower: Follower,
    show: Callable[[Sequence[Line]], None],
    seconds: float,
) -> None:
    """Show what other processes of this device write while no node can be reached."""
    erase_prekeys(device, now_ms())
    drop_aged(device)
    empty_log(device)
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        device.refresh()
        show(_fresh(device, chat, follower))
        await trio.sleep(LOOK_SECONDS)


def _fresh(device: Device, chat: ChatId, follower: Follower) -> list[Line]:
    letters = follower.fresh()
    judge = device.replica.chat(chat) if letters else None
    if judge is None:
        return []
    reader = Reader(device, judge, now_ms())
    return [reader.line(letter) for letter in letters]
