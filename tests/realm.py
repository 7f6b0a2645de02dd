"""Three agencies with real nodes over TLS on loopback, an official at each, and one chat.

`found` makes everything once; each test works on a copy (`Realm`). Large files go through the same
code as on the command line.
"""

import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import apsw
import trio
from msgspec import structs

from client import compose, exchange
from client.attaching import open_blob, sealed_copy, sealed_file
from client.bringing import fetch
from client.device import Device
from client.files import readable, received
from client.link import Link, linked
from client.mailbox import read_letter
from node import agency as agencies
from node.agency import DATABASE_FILE, Agency, Founding
from node.blobs import FOLDER, StoredBlob
from node.config import Settings
from node.database import connect
from node.directory import Directory
from node.service import Node
from protocol.attachment import Attachment
from protocol.entry import ChatId, Reference
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.hostile.federation import (
    PASSPHRASE,
    _join,
    eventually,
    free_endpoint,
    now,
    one_settled,
    open_device,
    settings,
    start_node,
)

ZONE: Final = "RU-UDM"
AGENCIES: Final = ("north", "south", "east")
USERS: Final = {"anna": "north", "boris": "south", "clara": "east"}
FETCH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Founded:
    """What `found` has made."""

    agencies: Mapping[str, Agency]
    chat: ChatId


def found(base: Path) -> Founded:
    """Make agencies that trust each other, their officials, and the chat."""
    made = {
        name: agencies.create(
            base / name,
            Founding(name, ZONE, (free_endpoint(),), {}),
            PASSPHRASE,
            PASSPHRASE,
            time.time(),
            os.urandom,
        )
        for name in AGENCIES
    }
    for name, agency in made.items():
        connection = connect(base / name / DATABASE_FILE, None)
        directory = Directory(connection, agency, os.urandom)
        with connection:
            for other in made.values():
                if other is not agency:
                    directory.accept_card(other.card.raw, allow_local=True)
        connection.close()
    return Founded(made, trio.run(_settle, base, made))


async def _settle(base: Path, made: Mapping[str, Agency]) -> ChatId:
    async with Realm(base, Founded(made, ChatId(b""))).running() as realm:
        for user, home in USERS.items():
            await _join(realm.nodes[home], base / user)
        async with realm.online("anna") as (anna, link):
            for user in ("boris", "clara"):
                async with realm.online(user) as (_, other):
                    await other.refresh()
            await link.refresh()
            known = await link.look_up([f"{user}@{USERS[user]}" for user in ("boris", "clara")])
            policy = Policy((ZONE,), 0, HistoryRule.FROM_JOIN)
            members = [(user, Role.MEMBER) for user in known]
            new = partial(compose.new_chat, anna, ChatKind.GROUP, "all", policy, members, now())
            chat = await link.write(new)
            for user in ("boris", "clara"):
                async with realm.online(user) as (other_device, other):

                    async def has_it(device: Device = other_device) -> bool:
                        return device.replica.chat(chat) is not None

                    await eventually(has_it, "the chat is everywhere")
                    await exchange.visit_fresh(other_device, other, 5)
            await eventually(one_settled(link), "all is stored")
    return chat


@dataclass
class Realm:
    """The running nodes of one test."""

    base: Path
    founded: Founded
    nodes: dict[str, Node] = field(default_factory=dict)
    _scopes: dict[str, trio.CancelScope] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, *names: str, **changed: str | int) -> AsyncIterator["Realm"]:
        """Run these nodes, all by default, with these settings."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name in names or AGENCIES:
                await self.start(name, **changed)
            if not names:
                await eventually(self._all_met, "the nodes meet")
            yield self
            nursery.cancel_scope.cancel()

    async def _all_met(self) -> bool:
        agencies = self.founded.agencies.values()
        return all(
            node.hub.of(other.id)
            for node in self.nodes.values()
            for other in agencies
            if other.id != node.id
        )

    async def start(self, name: str, **changed: str | int) -> None:
        """Start a node with these settings."""
        agency = self.founded.agencies[name]
        chosen: Settings = structs.replace(settings(agency), **changed)
        self.nodes[name], self._scopes[name] = await start_node(
            self._nursery, self.base, agency, chosen
        )

    async def stop(self, name: str) -> None:
        """Stop a node, and wait until its database is closed."""
        node = self.nodes.pop(name)
        self._scopes[name].cancel()

        async def closed() -> bool:
            try:
                node.replica.store.connection.pragma("user_version")
            except apsw.ConnectionClosedError:
                return True
            return False

        await eventually(closed, f"{name} stops")

    @asynccontextmanager
    async def online(self, user: str) -> AsyncIterator[tuple[Device, Link]]:
        """A user's device, connected to its node."""
        device = open_device(self.base, user)
        try:
            async with linked(device) as link:
                await link.greeted.wait()
                yield device, link
        finally:
            device.close()

    @property
    def chat(self) -> ChatId:
        return self.founded.chat

    def attach(self, device: Device, file: Path) -> Reference:
        """Write a message with a large file, without a network."""
        with (
            readable(file, "") as stream,
            sealed_file(device, file, stream, "", bool) as sealed,
            device.transaction(),
        ):
            return compose.send_attached(device, self.chat, sealed, now(), None)

    def stored(self, name: str, place: Reference) -> StoredBlob | None:
        """What a node has of the blob of a message."""
        return self.nodes[name].replica.blobs.find(self.chat, place.id)

    def held(self, name: str, place: Reference) -> int:
        """How many chunks of it a node has."""
        blob = self.stored(name, place)
        return 0 if blob is None else self.nodes[name].replica.blobs.count_held(blob)

    async def whole(self, name: str, place: Reference) -> None:
        """Wait until a node has all of a blob."""

        async def is_whole() -> bool:
            blob = self.stored(name, place)
            return blob is not None and self.held(name, place) == blob.announced.chunks

        await eventually(is_whole, f"{name} has the blob")

    def files(self, name: str) -> list[Path]:
        """The files of blobs in the folder of a node or device."""
        folder = self.base / name / FOLDER
        return sorted(folder.iterdir()) if folder.exists() else []

    async def get(self, device: Device, link: Link, place: Reference, target: Path) -> None:
        """Fetch the file of a message and write it."""

        async def is_here() -> bool:
            await exchange.receive(device, link)
            return device.replica.blobs.find(self.chat, place.id) is not None

        await eventually(is_here, "the message has come")
        blob = device.replica.blobs.find(self.chat, place.id)
        message = read_letter(device, place.id)
        assert blob is not None
        assert isinstance(message, Attachment)
        here = await fetch(device, link, blob, bool, FETCH_SECONDS)
        with sealed_copy(device, here) as copy, received(target) as stream:
            open_blob(copy, here, message, stream, bool)


def copied(template: Path, base: Path) -> Path:
    """Copy the folders that `found` has made."""
    shutil.copytree(template, base, dirs_exist_ok=True)
    return base
