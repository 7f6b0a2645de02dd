"""What the rest of a node, or device, is told by its sessions (SPEC 6.5)."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from node.outgoing import Outgoing
from node.seals import Sealless
from node.stored import Stored
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import Forked, Holding, Rumour, Seal


class Surroundings(Protocol):
    """Who is told. source: the session that it comes from."""

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Runs are being stored: called last in their transaction, before it is durable.

        Return what is to be done once it is; if it fails, that is never called.
        """

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """Seals are being kept; as `storing`."""

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        """Seals are lacking, here or at another node. home: who has them, see `Replica.makers`."""

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """A new fork proof is durable."""

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        """Somebody stores more than they did."""

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        """A run was pushed of which all is here."""

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        """A peer speaks of the live spread of a chat; of IHAVE what is lacking here is left."""
