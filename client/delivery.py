"""How far our messages are: queued, stored at our own node, stored at n of m agencies (SPEC 5.5).

What an agency stores it tells itself, and our node passes that on; it is kept as holdings. What was
written by somebody whose node knew by then that they were out of the chat is stored by nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import convert

from client.device import Device
from client.federated import strange
from client.residency import is_ours
from node.words import counted
from protocol.chat import Chat
from protocol.dag import bits
from protocol.entry import CONTENT, CONTROL, ChatId, Reference
from protocol.identity import AgencyId
from protocol.membership import resolve
from protocol.policy import Role


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one message is stored. own: at our own node. agencies, of: how many, of how many.

    refused: nobody stores it, because we might not write in the chat any more. untold: how many of
    the others tell us nothing, as our agency is not federated with them.
    """

    own: bool
    agencies: int
    of: int
    refused: bool = False
    untold: int = 0

    @property
    def everywhere(self) -> bool:
        """Whether each agency of the chat stores it."""
        return not self.refused and self.agencies >= self.of

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for: each agency stores it that would tell us."""
        return self.own and self.agencies + self.untold >= self.of

    @property
    def state(self) -> str:
        """A word for scripts."""
        if self.refused:
            return "refused"
        if self.everywhere:
            return "everywhere"
        return "stored" if self.own else "queued"

    def __str__(self) -> str:
        """Words for people."""
        if self.refused:
            return "not delivered: you may no longer write in this chat"
        if not self.own:
            return "queued"
        if self.agencies <= 1 < self.of:
            return f"stored at own node, 1 of {self.of} agencies"
        return f"stored at {self.agencies} of {counted(self.of, 'agency', 'agencies')}"


class Deliveries:
    """Where the messages of this device in one chat are stored. Made anew when asked anew."""

    def __init__(self, device: Device, judge: Chat) -> None:
        self._own = device.profile.charter.agency
        self._agencies = judge.membership().agencies
        self._strangers = strange(device, judge)
        self._refused = not takes(device, judge, CONTENT)
        rows = device.connection.execute(
            "SELECT agency, length FROM holdings JOIN chats ON no = chat"
            " WHERE id = ? AND device = ? AND lane = ?",
            (judge.id, device.key, CONTENT),
        ).fetchall()
        self._lengths: Mapping[AgencyId, int] = dict(convert(rows, list[tuple[AgencyId, int]]))

    def of(self, place: Reference) -> Progress:
        """Return how far one of our own messages is."""
        holders = [agency for agency, length in self._lengths.items() if length > place.seq]
        counted = sum(agency in self._agencies for agency in holders)
        own = self._own in holders
        refused = self._refused and not own
        untold = len(self._strangers - set(holders))
        return Progress(own, counted, len(self._agencies), refused, untold)

    def length_at(self, agency: AgencyId) -> int:
        """Return how many of our messages an agency stores."""
        return self._lengths.get(agency, 0)


def progress_of(device: Device, chat: ChatId, place: Reference) -> Progress:
    """Return how far one of our own messages is."""
    judge = device.replica.chat(chat)
    if judge is None:
        return Progress(own=False, agencies=0, of=0)
    return Deliveries(device, judge).of(place)


def written(device: Device, chat: ChatId) -> int:
    """Return how many messages we have written in a chat from this device."""
    stored = device.replica.store.chat(chat)
    chain = [] if stored is None else stored.chains.get((device.key, CONTENT), [])
    return max((branch.length for branch in chain), default=0)


def unstored(device: Device) -> int:
    """Return how many entries of ours our own node has yet to acknowledge."""
    rows = device.connection.execute(
        "SELECT id, own.lane, own.length - ifnull(there.length, 0) AS lacking"
        " FROM chains AS own JOIN chats ON chats.no = own.chat LEFT JOIN holdings AS there"
        " ON there.chat = own.chat AND there.device = own.device AND there.lane = own.lane"
        " AND agency = ? WHERE own.device = ? AND lacking > 0",
        (device.profile.charter.agency, device.key),
    ).fetchall()
    found = 0
    for chat, lane, lacking in convert(rows, list[tuple[ChatId, int, int]]):
        judge = device.chat(chat)
        if judge is not None and takes(device, judge, lane):
            found += lacking
    return found


def takes(device: Device, judge: Chat, lane: int) -> bool:
    """Whether our node takes what we write in a lane of a chat, as far as we know.

    It does not once it knows that somebody has put us out, or made us a reader, or that our agency
    may not hold the chat (SPEC 3.4): what has come from it of the control lane says so. That we
    have left it hears from ourselves.
    """
    history = judge.history
    reached = _acknowledged(device, judge.id)
    ours = [at for at in bits(history.chain(device.key)) if history.entries[at].seq >= reached]
    known = history.everything & ~sum(1 << at for at in ours)
    if not known & 1:
        return True
    membership = resolve(history, known)
    member = membership.users.get(device.profile.user.user)
    if member is None or not is_ours(device, membership):
        return False
    return lane == CONTROL or member.role >= Role.MEMBER


def _acknowledged(device: Device, chat: ChatId) -> int:
    """Return how many control entries of ours our own node stores of a chat."""
    agency = device.profile.charter.agency
    found = device.connection.execute(
        "SELECT length FROM holdings JOIN chats ON no = chat"
        " WHERE id = ? AND device = ? AND lane = ? AND agency = ?",
        (chat, device.key, CONTROL, agency),
    ).get
    return int(found or 0)
