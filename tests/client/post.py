"""A node's parcels, without the node: what devices of one user leave there for each other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trio.testing import memory_stream_pair

from client import archive, handing, linking
from client.device import Device
from client.link import Link, over
from node import parcels
from node.database import connect
from node.parcels import Parcels
from protocol import reply
from protocol.entry import DeviceKey
from protocol.question import GetParcels, Lookup, PutParcel, Question, Taken


class Post:
    """The parcels of a node, with room for two, and links of devices to it.

    caught_up: whether it has told them all of the log.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
        self.caught_up = True
        monkeypatch.setattr(parcels, "WAITING_MAX", 2)
        monkeypatch.setattr(archive, "LETTERS_MAX", 2)
        monkeypatch.setattr(handing, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(linking, "POLL_SECONDS", 0.01)
        monkeypatch.setattr(Link, "caught_up", property(lambda _: self.caught_up))
        self._patch = monkeypatch
        self._parcels = Parcels(connect(folder / "post.db", None), device.profile.charter.agency)

    @asynccontextmanager
    async def link(self, device: Device) -> AsyncIterator[Link]:
        async def ask(question: Question) -> reply.Reply:
            return self._answer(device.key, question)

        ours, theirs = memory_stream_pair()
        async with over(device, ours) as link:
            self._patch.setattr(link, "ask", ask)
            yield link
        await theirs.aclose()

    def _answer(self, device: DeviceKey, question: Question) -> reply.Reply:
        match question:
            case PutParcel(target, body):
                self._parcels.put(target, body)
            case GetParcels():
                return reply.Parcels(self._parcels.waiting(device))
            case Taken(numbers):
                self._parcels.take(device, numbers)
            case Lookup():
                return reply.People((None,) * len(question.users + question.names))
            case _:
                pass
        return reply.Done()
