"""Who is connected, and whom a stored run concerns (SPEC 6.5).

A node pushes what its own devices write to every agency of the chat that is connected, and what it
stores to the devices that may read it. In a chat of up to 16 agencies what comes from another node
is pushed on to devices only: its author's node has pushed it to all; whoever was missed is told by
heads two seconds later. In a larger one `Spread` says who hands on to whom.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

import trio

from node.dealing import Dealing
from node.outgoing import Outgoing
from node.stored import Stored
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import (
    Forked,
    Graft,
    Head,
    Holding,
    IHave,
    Prune,
    Rumour,
    Seal,
    Seals,
    encode_frame,
)
from protocol.limits import (
    HEADS_CHAINS_MAX,
    HEADS_DELAY_SECONDS,
    HEADS_FAR_SECONDS,
    PREFIX_BYTES,
)
from protocol.session import PeerKind
from protocol.spread import Spread, Told, is_large

One = TypeVar("One", bound=Dealing)


class Hub(Generic[One]):
    """The open connections of a node, by the peer's key.

    agencies: those that we trust, who alone can be reached. own: our agency. clock: seconds,
    monotonic.
    """

    def __init__(self, own: bytes, clock: Callable[[], float]) -> None:
        self.agencies: AbstractSet[bytes] = frozenset()
        self._own = own
        self._now = clock
        self._connections: dict[bytes, list[One]] = {}
        self._changed = trio.Event()
        self._spread = Spread(own)
        self._due = trio.Event()

    def add(self, connection: One) -> None:
        """Take part in what is handed on, from now on.

        Of two sessions with one agency the agency with the smaller id ends the older: if their
        calls cross, each may have heard another one last, and both together would end both.
        """
        if connection.peer is PeerKind.NODE and self._own < connection.key:
            for older in self.of(connection.key):
                older.close()
        self._connections.setdefault(connection.key, []).append(connection)
        if connection.peer is PeerKind.NODE:
            self._spread.up(connection.key)
            self._tell_changed()
            for other in self.all():
                for lacked in other.awaited_of(connection.key):
                    connection.relay_seals(lacked)

    def remove(self, connection: One) -> None:
        """Take no more part. A connection that was never added is no error."""
        remaining = self._connections.get(connection.key, [])
        if connection not in remaining:
            return
        remaining.remove(connection)
        if not remaining:
            del self._connections[connection.key]
        for other in self.of(connection.key):
            other.ask_for_seals()  # what the ended one had asked for is answered to nobody
        if connection.peer is PeerKind.NODE:
            if not remaining:
                self._spread.down(connection.key)
            self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def newest(self, key: bytes) -> One:
        """Return the newest open connection of this agency; wait until there is one."""
        while not (found := self.of(key)):
            await self._changed.wait()
        return found[-1]

    async def until_gone(self, key: bytes) -> None:
        """Return when no connection of this agency is open."""
        while key in self._connections:
            await self._changed.wait()

    def of(self, key: bytes) -> Sequence[One]:
        """Return the open connections of one peer, the newest last."""
        return tuple(one for one in self._connections.get(key, ()) if one.open)

    def all(self) -> Sequence[One]:
        """Return every open connection."""
        return [connection for group in self._connections.values() for connection in group]

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Hand on runs that were judged; return what to do once they are durable (SPEC 6.5).

        What a node brought goes on at once, what a device of ours wrote only when it is durable:
        then our agency knows of whatever anybody has of it. source: where the runs came from.
        """

        def hand_on() -> None:
            for stored in parts:
                self.hand_on(stored, source)

        if source.peer is PeerKind.DEVICE:
            return hand_on
        hand_on()
        return lambda: None

    def hand_on(self, stored: Stored, source: Outgoing) -> None:
        """Push a run to whom it concerns.

        Reads nothing from the database: the transaction that stores the run may be on its way.
        """
        relayed = source.peer is PeerKind.NODE
        raw = encode_frame(stored.verified) if stored.whole else b""
        agencies = stored.readers & self.agencies
        large = is_large(len(agencies))
        for peer in sorted(stored.readers):
            for connection in self._connections.get(peer, ()):
                among_nodes = connection.peer is PeerKind.NODE
                if connection is source or (large and among_nodes):
                    continue
                if raw and not (relayed and among_nodes):
                    connection.push(raw)
                else:
                    connection.changed()
        for peer in sorted(stored.left):
            for connection in self._connections.get(peer, ()):
                connection.changed()
        welcome = stored.readers if self._own in stored.entered else stored.entered
        for peer in sorted(welcome):
            for connection in self._connections.get(peer, ()):
                connection.let_in()
        if large:
            self._spread_on(stored, raw, agencies, source)

    def _spread_on(
        self, stored: Stored, raw: bytes, agencies: AbstractSet[bytes], source: Outgoing
    ) -> None:
        """Hand on in a large chat what was pushed to us, or written here. Neighbours hear first."""
        run = stored.run
        relayed = source.peer is PeerKind.NODE
        if raw and (stored.live or not relayed):
            last = stored.entries[-1]
            head = Head(run.device, run.lane, last.header.seq, last.id[:PREFIX_BYTES])
            came = source.key if relayed else self._own
            told = self._spread.stored(run.chat, agencies, head, came, self._now())
            self._tell(told, raw)
        near = self._spread.near(run.chat, agencies)
        for peer in sorted(agencies):
            for connection in self._connections.get(peer, ()):
                if connection is not source:
                    connection.changed(HEADS_DELAY_SECONDS if peer in near else HEADS_FAR_SECONDS)

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        """A node has pushed what was here."""
        if source.peer is PeerKind.NODE:
            self._tell(self._spread.repeated(chat, source.key))

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        """Take what a node says about the spread of a chat, if that is large."""
        agencies = readers & self.agencies
        if not is_large(len(agencies)):
            return
        match rumour:
            case IHave(chat, heads):
                self._spread.announced(chat, heads, source.key, self._now())
                self._due.set()
            case Graft(chat):
                self._spread.grafted(chat, agencies, source.key)
            case Prune(chat):
                self._spread.pruned(chat, source.key)

    def _tell(self, told: Sequence[Told], run: bytes = b"") -> None:
        """Push a run, or say what is to be said; what there is no room for, heads make good."""
        for peer, frame in told:
            raw = run if frame is None else encode_frame(frame)
            for connection in self._connections.get(peer, ()):
                connection.push(raw)
        self._due.set()

    @property
    def due(self) -> float:
        """When `spread` has something to do next, NEVER for nothing."""
        return self._spread.due

    def spread(self) -> None:
        """Announce what was gathered, and ask for what was announced and did not come."""
        self._tell(self._spread.expired(self._now()))

    async def keep_spreading(self) -> None:
        """Announce and ask in time, for ever."""
        while True:
            self._due = trio.Event()
            with trio.move_on_at(self.due):
                await self._due.wait()
                continue
            self.spread()

    def seals_kept(
        self,
        chat: ChatId,
        epoch: EntryId,
        owners: Sequence[tuple[DeviceKey, Seal]],
        readers: AbstractSet[bytes],
    ) -> None:
        """Hand seals to the devices that they are for, and to nodes that asked too early.

        owners: (device, its seal). readers: of the chat, now: who has left since gets nothing.
        """
        for device, seal in owners:
            for connection in self._connections.get(device, ()) if device in readers else ():
                if connection.open:
                    connection.send(Seals(chat, epoch, (seal,)))
        for connection in self.all():
            if connection.peer is PeerKind.NODE and connection.key in readers:
                connection.seals_kept(chat, epoch, owners)

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """Send a new fork proof to every peer in the chat."""
        for peer in readers:
            for connection in self._connections.get(peer, ()):
                if connection.open:
                    connection.send(forked)

    def holdings_noted(self, holdings: Sequence[Holding]) -> None:
        """Tell authors, where connected, who stores their entries."""
        of_devices: dict[DeviceKey, list[Holding]] = {}
        for holding in holdings:
            of_devices.setdefault(holding.device, []).append(holding)
        for device, held in sorted(of_devices.items()):
            for connection in self._connections.get(device, ()):
                for at in range(0, len(held), HEADS_CHAINS_MAX):
                    connection.have(held[at : at + HEADS_CHAINS_MAX])
