"""Who is connected, and whom a stored run concerns (SPEC 6.5).

A node pushes what its own devices write to every agency of the chat that is connected, and what it
stores to the devices that may read it. What comes from another node is pushed on to devices only:
its author's node has pushed it to all; whoever was missed is told by heads two seconds later.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

import trio

from node.dealing import Dealing
from node.replica import Stored
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import Forked, Holding, Seal, Seals, encode_frame
from protocol.session import PeerKind

One = TypeVar("One", bound=Dealing)


class Hub(Generic[One]):
    """The open connections of a node or device, by the peer's key."""

    def __init__(self) -> None:
        self._connections: dict[bytes, list[One]] = {}
        self._changed = trio.Event()

    def add(self, connection: One) -> None:
        """Take part in what is handed on, from now on."""
        self._connections.setdefault(connection.key, []).append(connection)

    def remove(self, connection: One) -> None:
        """Take no more part. A connection that was never added is no error."""
        remaining = self._connections.get(connection.key, [])
        if connection in remaining:
            remaining.remove(connection)
        if not remaining:
            self._connections.pop(connection.key, None)
        self._changed.set()
        self._changed = trio.Event()

    async def until_gone(self, key: bytes) -> None:
        """Return when no connection of this peer is open."""
        while key in self._connections:
            await self._changed.wait()

    def of(self, key: bytes) -> Sequence[One]:
        """Return the open connections of one peer."""
        return tuple(self._connections.get(key, ()))

    def all(self) -> Sequence[One]:
        """Return every open connection."""
        return [connection for group in self._connections.values() for connection in group]

    def hand_on(self, stored: Stored, source: Dealing) -> None:
        """Push a run that was judged to whom it concerns. It need not be durable here (SPEC 6.5).

        source: where it came from. Reads nothing from the database: the transaction that stores the
        run may be on its way.
        """
        whole = stored.outcome.reached >= stored.run.start + len(stored.run.records)
        relayed = source.peer is PeerKind.NODE
        raw = encode_frame(stored.verified) if whole else b""
        for peer in sorted(stored.readers):
            for connection in self._connections.get(peer, ()):
                if connection is source:
                    continue
                if whole and not (relayed and connection.peer is PeerKind.NODE):
                    connection.push(raw)
                else:
                    connection.changed()

    def seals_kept(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> None:
        """Hand seals to the devices that they are for, and to nodes that asked too early.

        owners: (device, its seal).
        """
        for device, seal in owners:
            for connection in self._connections.get(device, ()):
                if connection.open:
                    connection.send(Seals(chat, epoch, (seal,)))
        for connection in self.all():
            if connection.peer is PeerKind.NODE:
                connection.seals_kept(chat, epoch, owners)

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """Send a new fork proof to every peer in the chat."""
        for peer in readers:
            for connection in self._connections.get(peer, ()):
                if connection.open:
                    connection.send(forked)

    def holdings_noted(self, holdings: Sequence[Holding]) -> None:
        """Tell authors, where connected, who stores their entries."""
        for device in sorted({holding.device for holding in holdings}):
            theirs = [holding for holding in holdings if holding.device == device]
            for connection in self._connections.get(device, ()):
                connection.have(theirs)
