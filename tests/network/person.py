"""An official with a device, as a process on a host of their own: FOLDER.

Obeys lines of JSON on stdin: `join`, `meet`, `start`, `say`, `await`; reports as bench children do.
"""

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

from bench.processes import tell
from client import compose, enrol, mailbox
from client.device import Device, open_device
from client.link import Link, linked
from node.errors import NetworkError, UserError
from node.logs import open_log
from protocol.entry import ChatId
from protocol.invitation import decode_invitation
from protocol.message import Text
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.hostile.federation import now, say

PASSPHRASE = b"network tests"
POLL_SECONDS = 0.1
READ_MAX = 1000


class Order(msgspec.Struct, frozen=True):
    """One line of stdin. what: join, meet, start, say or await."""

    what: str
    text: str = ""
    texts: list[str] = []
    zones: list[str] = []
    chat: str = ""


class Person:
    """A device that stays connected to its node, and what it is told to do."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._link: Link | None = None
        self._connected = trio.Event()

    async def stay_connected(self) -> None:
        """Connect, and connect again, for ever."""
        while True:
            with suppress(NetworkError):
                async with linked(self.device) as link:
                    await link.greeted.wait()
                    self._link = link
                    self._connected.set()
                    await link.ended.wait()
            self._connected = trio.Event()
            await trio.sleep(POLL_SECONDS)

    async def link(self) -> Link:
        """Return the session with our node, once there is one."""
        await self._connected.wait()
        assert self._link is not None
        return self._link

    async def obey(self, order: Order) -> None:
        """Carry out one order, and tell so."""
        match order.what:
            case "meet":
                await self._meet(order.texts)
                tell("met")
            case "start":
                chat = await self._start(order)
                tell("started", chat=chat.hex())
            case "say":
                chat = ChatId(bytes.fromhex(order.chat))
                await (await self.link()).write(partial(say, self.device, chat, order.text))
                tell("said")
            case "await":
                await self._await(ChatId(bytes.fromhex(order.chat)), set(order.texts))
                tell("read")
            case other:
                raise ValueError(other)

    async def _meet(self, names: list[str]) -> None:
        while True:
            with suppress(UserError):
                link = await self.link()
                await link.refresh()
                await link.look_up(names)
                return
            await trio.sleep(POLL_SECONDS)

    async def _start(self, order: Order) -> ChatId:
        link = await self.link()
        members = [(user, Role.MEMBER) for user in await link.look_up(order.texts)]
        policy = Policy(tuple(order.zones), 0, HistoryRule.FROM_JOIN)
        return await link.write(
            lambda: compose.new_chat(
                self.device, ChatKind.GROUP, order.text, policy, members, now()
            )
        )

    async def _await(self, chat: ChatId, wanted: set[str]) -> None:
        while True:
            link = await self.link()
            letters = await link.journal.read(lambda: mailbox.letters(self.device, chat, READ_MAX))
            texts = {one.message.text for one in letters if isinstance(one.message, Text)}
            if wanted <= texts:
                return
            await trio.sleep(POLL_SECONDS)


async def main(folder: Path) -> None:
    """Join, connect, and obey until stdin ends."""
    open_log(sys.stderr, "text", "warning")
    person: Person | None = None
    async with trio.open_nursery() as nursery:
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for line in raw.splitlines():
                order = msgspec.json.decode(line, type=Order)
                if order.what == "join":
                    invitation = decode_invitation(order.text)
                    await enrol.join(folder, invitation, "desk", PASSPHRASE, os.urandom)
                    person = Person(open_device(folder, PASSPHRASE, os.urandom))
                    nursery.start_soon(person.stay_connected)
                    tell("joined")
                elif person is not None:
                    nursery.start_soon(person.obey, order)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
