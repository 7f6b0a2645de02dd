"""What a connection tells, and asks, the rest of its node or device (SPEC 6.5)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from node.replica import Stored
from node.share import Share
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import Answer, Ask, Blob, Forked, Holding, Lacking, Seal, WantBlob

if TYPE_CHECKING:
    from node.driver import Connection


class Surroundings(Protocol):
    """What a connection tells, and asks, the rest of its node or device."""

    def share(self, key: bytes) -> Share:
        """Return what all sessions of a peer have together."""

    def opened(self, connection: "Connection") -> None:
        """The peer has greeted."""

    def storing(self, parts: Sequence[Stored], source: "Connection") -> Callable[[], None]:
        """Runs are being stored: called last in their transaction, before it is durable.

        Return what is to be done once it is; if it fails, that is never called.
        """

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """Seals are being kept; as `storing`."""

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """A new fork proof is durable."""

    def holdings_noted(self, holdings: Sequence[Holding], source: "Connection") -> None:
        """Somebody stores more than they did."""

    async def consult(self, connection: "Connection", ask: Ask) -> Answer:
        """Answer a question of the peer."""

    async def load_chunk(self, want: WantBlob, source: "Connection") -> Blob | None:
        """Read the first chunk that a peer asks for; None if it has none to get."""

    def took_chunk(self, frame: Blob | Lacking, source: "Connection") -> None:
        """A peer brings a chunk of a blob, or lacks some."""
