"""A world at rest: the living, what each of them has accepted, and who must have the same."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from random import Random

from protocol.entry import ChatId
from protocol.limits import BRANCHES_MAX
from protocol.run import Entry
from tests.simulator.checks import Checks
from tests.simulator.devices import DeviceParty
from tests.simulator.parties import NodeParty, Party
from tests.simulator.stored import stored_entries


class Rest:
    """A world at rest: the living, and what each of them has accepted."""

    def __init__(self, living: Sequence[Party], checks: Checks, chance: Random) -> None:
        self.checks = checks
        self.chance = chance
        self.nodes = [one for one in living if isinstance(one, NodeParty)]
        self.devices = [one for one in living if isinstance(one, DeviceParty)]
        self.parties: list[Party] = [*self.nodes, *self.devices]
        for device in self.devices:
            device.device.refresh()  # another process of it may have written last
        self._accepted: dict[tuple[str, bytes], frozenset[bytes]] = {}
        self._entries: dict[tuple[str, bytes], Sequence[Entry]] = {}

    def chats(self, party: Party) -> list[ChatId]:
        """Return the chats that a party stores."""
        return party.replica.store.chats()

    def accepted(self, party: Party, chat: ChatId) -> frozenset[bytes]:
        """Return E(n) of a chat."""
        key = party.name, bytes(chat)
        if key not in self._accepted:
            rows = party.connection.execute(
                "SELECT entries.id FROM entries JOIN chains ON chains.no = place >> 32"
                " JOIN chats ON chats.no = chains.chat WHERE chats.id = ?"
                " AND place & 4294967295 < chains.length",
                (chat,),
            )
            self._accepted[key] = frozenset(row[0] for row in rows)
        return self._accepted[key]

    def entries(self, party: Party, chat: ChatId) -> Sequence[Entry]:
        """Return every entry that a party stores of a chat, verified: once, as nothing changes."""
        key = party.name, bytes(chat)
        if key not in self._entries:
            self._entries[key] = stored_entries(party.replica, chat)
        return self._entries[key]

    def require(self, invariant: str, holds: bool, what: str) -> None:  # noqa: FBT001 - a claim
        """Fail unless something holds."""
        if not holds:
            self.checks.fail(invariant, what)

    def overgrown(self, party: Party, chat: ChatId) -> bool:
        """Whether some chain has as many branches as are kept: what more there was may differ."""
        stored = party.replica.store.chat(chat)
        chains = {} if stored is None else stored.chains
        return any(len(branches) >= BRANCHES_MAX for branches in chains.values())

    def listens(self, party: NodeParty, peer: NodeParty, chat: ChatId) -> bool:
        """Whether a node takes what another says of a chat: that one is in, by what the node has.

        Or, if it has none of it, by what that one brings. Otherwise these may be the last words of
        one who left, told where that is known already, or where everybody has left. Who is in is
        derived from the entries, so that a table of readers that lacks somebody excuses nothing.
        """
        judge = party.replica.chat(chat) or peer.replica.chat(chat)
        return judge is not None and peer.agency in judge.membership().agencies

    @cached_property
    def pairs(self) -> Sequence[tuple[Party, Party, ChatId]]:
        """Who must have the same of which chat: they may see it by what each has seen."""
        return list(self._pairs())

    def _pairs(self) -> Iterator[tuple[Party, Party, ChatId]]:
        for one in self.nodes:
            for chat in self.chats(one):
                readers = one.replica.readers_of(chat)
                for other in self.nodes:
                    listed = other is not one and other.agency in readers
                    if listed and self.listens(other, one, chat):
                        yield one, other, chat
                for device in self.devices:
                    if device.home is one and device.key in readers:
                        yield one, device, chat
