"""What one hostile peer can do for as long as it likes, each a coroutine that never ends.

`ATTACKS` names them. Each is played by a process of its own (`attacker.py`), over TLS, with all
that a peer may use: its 16 sessions, and no pause. Who is shown the door comes back.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import trio
from msgspec import structs

from client.device import Device
from node.agency import Agency
from node.service import PEER_CONNECTIONS_MAX
from node.tls import Credential
from protocol.entry import CONTENT, ChatId, DeviceKey
from protocol.frame import (
    Ask,
    ChatHeads,
    Frame,
    Have,
    Head,
    Heads,
    Holding,
    Ping,
    Run,
    Want,
    encode_frame,
)
from protocol.limits import HEADS_CHAINS_MAX, WANTS_SERVED_MAX
from protocol.name import split_endpoint
from protocol.question import GetCard, encode_question
from tests.hostile.federation import Wire, wire
from tests.hostile.forger import Forger, nonsense

HISTORY: Final = 8_000  # entries that the attacker's own chain has before
HISTORY_PAYLOAD: Final = b"x" * 200
STRANGERS: Final = 1_000
RECEIVE_BYTES: Final = 1024 * 1024
COMES_BACK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Ground:
    """Whom to attack, and what the attacker has: an enrolled device that is in one chat."""

    target: Agency
    device: Device
    chat: ChatId

    @property
    def credential(self) -> Credential:
        """What the device shows."""
        return self.device.credential

    @property
    def forger(self) -> Forger:
        """What signs for the device."""
        return Forger(self.device, self.chat)


Attack = Callable[[Ground], Awaitable[None]]


@asynccontextmanager
async def session(ground: Ground) -> AsyncIterator[Wire]:
    """A session of the attacker's that has greeted."""
    async with wire(ground.target, ground.credential) as opened:
        await opened.greet()
        yield opened


async def again_and_again(ground: Ground, once: Callable[[Wire], Awaitable[None]]) -> None:
    """Play something in as many sessions as a peer may have; come back when it is over."""

    async def one() -> None:
        while True:
            with suppress(Exception):
                async with session(ground) as opened:
                    await once(opened)
            await trio.sleep(COMES_BACK_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(PEER_CONNECTIONS_MAX):
            nursery.start_soon(one)


async def flood(ground: Ground, *frames: Frame) -> None:
    """Send the same frames without end; what comes back is read and dropped."""
    raw = b"".join(map(encode_frame, frames))

    async def once(opened: Wire) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swallow, opened)
            while True:
                await opened.stream.send_all(raw)

    await again_and_again(ground, once)


async def swallow(opened: Wire) -> None:
    """Take whatever comes. Raises when nothing comes any more."""
    while await opened.stream.receive_some(RECEIVE_BYTES):
        pass
    raise EOFError


async def history(ground: Ground) -> None:
    """Case 32: the whole history, again and again, read as fast as it comes."""
    chain = ground.forger.chain(CONTENT)
    tip = chain.entries[-1]
    want = Want(ground.chat, chain.device, CONTENT, tip.id[:8], 0, len(chain.entries))
    ask = encode_frame(want)
    size = sum(len(made.payload) for made in chain.entries)

    async def once(opened: Wire) -> None:
        ahead = WANTS_SERVED_MAX // 4
        await opened.stream.send_all(ask * ahead)
        got = 0
        while chunk := await opened.stream.receive_some(RECEIVE_BYTES):
            got += len(chunk)
            if got > size:
                got -= size
                await opened.stream.send_all(ask)

    await again_and_again(ground, once)


async def duplicates(ground: Ground) -> None:
    """Case 36: the same long run, which is stored already."""
    await flood(ground, ground.forger.chain(CONTENT).run(0, 1_000, range(63, 1_000, 64)))


async def bad_signatures(ground: Ground) -> None:
    """Case 29: a short run that is stored already, with as many bad signatures as are looked at."""
    run = ground.forger.chain(CONTENT).run(0, 64)
    spoilt = tuple((at, one if at == 0 else nonsense(64)) for at, one in run.signatures)
    await flood(ground, structs.replace(run, signatures=spoilt))


async def nowhere(ground: Ground) -> None:
    """Cases 30 and 31: pages full of what does not exist; after the third the session is over."""
    heads = tuple(Head(DeviceKey(nonsense()), 0, 1, nonsense(8)) for _ in range(HEADS_CHAINS_MAX))

    async def once(opened: Wire) -> None:
        for cursor in (1, 2):
            await opened.send(Heads(cursor, 0, (ChatHeads(ChatId(nonsense()), heads),)))
        await opened.send(Heads(3, 1, ()))
        await opened.end()

    await again_and_again(ground, once)


async def lies(ground: Ground) -> None:
    """Case 34: who stores what, all of it untrue."""
    key = ground.device.key
    holdings = tuple(
        Holding(DeviceKey(nonsense()), ground.chat, key, CONTENT, 1) for _ in range(4096)
    )
    await flood(ground, Have(holdings))


async def questions(ground: Ground) -> None:
    """Questions without end."""
    await flood(ground, Ask(1, *encode_question(GetCard(0))))


async def storm(ground: Ground) -> None:
    """Case 37: connect, greet, go away."""

    async def once(opened: Wire) -> None:
        await opened.send(Ping())

    await again_and_again(ground, once)


async def strangers(ground: Ground) -> None:
    """Case 38: a thousand connections that never shake hands, and come back when they are cut."""
    host, port = split_endpoint(ground.target.card.nodes[0].endpoints[0])

    async def one() -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream(host, port) as stream:
                    await stream.receive_some()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(STRANGERS):
            nursery.start_soon(one)


async def never_reads(ground: Ground) -> None:
    """Case 13: asks, and takes no answer."""
    ask = encode_frame(Ask(1, *encode_question(GetCard(0)))) * 64

    async def once(opened: Wire) -> None:
        while True:
            await opened.stream.send_all(ask)

    await again_and_again(ground, once)


async def garbage(ground: Ground) -> None:
    """Cases 4 to 12: a megabyte that is no frame."""
    body = b"\x92\x0d" + b"\x91" * 1_000_000 + b"\x90"

    async def once(opened: Wire) -> None:
        await opened.send_raw(len(body).to_bytes(4, "big") + body)
        await opened.end()

    await again_and_again(ground, once)


async def busy(ground: Ground) -> None:
    """No attack: the same process computes, and so takes from others what it would take anyway."""
    del ground
    while True:
        for _ in range(10_000):
            pass
        await trio.lowlevel.checkpoint()


ATTACKS: Mapping[str, Attack] = {
    "0 no attack, a busy process": busy,
    "4-12 no frames": garbage,
    "13 never reads": never_reads,
    "29 bad signatures": bad_signatures,
    "30, 31 what does not exist": nowhere,
    "32 history again and again": history,
    "34 lies about who stores what": lies,
    "36 duplicates": duplicates,
    "37 connections come and go": storm,
    "38 strangers without handshake": strangers,
    "questions without end": questions,
}


def prepared(forger: Forger) -> list[Run]:
    """What gives the attacker's chain its length, as runs to be pushed."""
    chain = forger.chain(CONTENT)
    start = len(chain.entries)
    chain = forger.content(HISTORY_PAYLOAD, HISTORY)
    runs = []
    while start < len(chain.entries):
        stop = min((start // 64 + 12) * 64, len(chain.entries))
        signed = sorted({*range(start + 63 - start % 64, stop, 64), stop - 1})
        runs.append(chain.run(start, stop, signed))
        start = stop
    return runs
