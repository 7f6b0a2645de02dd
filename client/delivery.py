"""How far our messages are: queued, stored at our own node, stored at n of m agencies (SPEC 5.5).

What an agency stores it tells itself, and our node passes that on; it is kept as holdings.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import convert

from client.device import Device
from protocol.entry import CONTENT, ChatId, Reference
from protocol.identity import AgencyId
from protocol.roster import Membership


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one message is stored. own: at our own node. agencies, of: how many, of how many."""

    own: bool
    agencies: int
    of: int

    @property
    def everywhere(self) -> bool:
        """Whether each agency of the chat stores it."""
        return self.agencies >= self.of

    @property
    def state(self) -> str:
        """A word for scripts."""
        if self.everywhere:
            return "everywhere"
        return "stored" if self.own else "queued"

    def __str__(self) -> str:
        """Words for people."""
        if not self.own:
            return "queued"
        if self.agencies <= 1 < self.of:
            return f"stored at own node, 1 of {self.of} agencies"
        return f"stored at {self.agencies} of {self.of} agencies"


class Deliveries:
    """Where the messages of this device in one chat are stored. Made anew when asked anew."""

    def __init__(self, device: Device, chat: ChatId, membership: Membership) -> None:
        self._own = device.profile.charter.agency
        self._agencies = membership.agencies
        rows = device.connection.execute(
            "SELECT agency, length FROM holdings JOIN chats ON no = chat"
            " WHERE id = ? AND device = ? AND lane = ?",
            (chat, device.key, CONTENT),
        ).fetchall()
        self._lengths: Mapping[AgencyId, int] = dict(convert(rows, list[tuple[AgencyId, int]]))

    def of(self, place: Reference) -> Progress:
        """Return how far one of our own messages is."""
        holders = [agency for agency, length in self._lengths.items() if length > place.seq]
        counted = sum(agency in self._agencies for agency in holders)
        return Progress(self._own in holders, counted, len(self._agencies))

    def length_at(self, agency: AgencyId) -> int:
        """Return how many of our messages an agency stores."""
        return self._lengths.get(agency, 0)


def progress_of(device: Device, chat: ChatId, place: Reference) -> Progress:
    """Return how far one of our own messages is."""
    judge = device.replica.chat(chat)
    if judge is None:
        return Progress(own=False, agencies=0, of=0)
    return Deliveries(device, chat, judge.membership()).of(place)


def written(device: Device, chat: ChatId) -> int:
    """Return how many messages we have written in a chat from this device."""
    stored = device.replica.store.chat(chat)
    chain = [] if stored is None else stored.chains.get((device.key, CONTENT), [])
    return max((branch.length for branch in chain), default=0)
