"""What `ivor read` shows of a chat: each message with all that its reader must know about it.

Order is the mailbox's. A message that counts for nothing is shown, with the reason: what a removed
member wrote is not silently dropped, and not silently taken either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from client import debts
from client.chats import void_by, void_of
from client.delivery import Deliveries, Progress
from client.device import Device
from client.entries import read_entry
from client.federated import reached
from client.mailbox import WAITING, Letter, State, select
from client.sharing import sharer
from node.blobs import State as BlobState
from protocol.chat import Chat
from protocol.entry import ContentHeader, DeviceKey, Reference
from protocol.identity import UserId
from protocol.membership import resolve
from protocol.redaction import Redaction
from protocol.roster import Member, Void

FUTURE_MS_MIN = 5 * 60 * 1000  # clocks that are honest differ by less


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """How much of a large file is here: so many of its chunks.

    waits: it is ours, and our node is not known to have it. fetched: it was written somewhere.
    """

    held: int
    chunks: int
    waits: bool
    fetched: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One message for the screen. author: None if no member's device wrote it.

    verified: its author's safety number was compared. trusted: their agency is one of our node's.
    future: its time is far ahead of our clock. progress: of our own ones only. redaction: if it was
    redacted. shared: who has given it to us, if its key was not for this device. elsewhere: it does
    not open here, and does on another device of ours. unreached: it waits for a key, and our agency
    is federated with none of those whose members could grant it. ahead: it is shown before it could
    be admitted, because much of the chat is yet to come (SPEC 6.3). whereabouts: of the large file
    that came with it.
    """

    letter: Letter
    author: Member | None
    own: bool
    verified: bool
    trusted: bool
    future: bool
    void: Void | None
    progress: Progress | None
    redaction: Redaction | None
    shared: Member | None
    elsewhere: bool
    unreached: bool
    ahead: bool
    whereabouts: Whereabouts | None


class Reader:
    """Reads one chat at one moment; make another after something has changed."""

    def __init__(self, device: Device, chat: Chat, now: int) -> None:
        self._device = device
        self._chat = chat
        self._now = now
        self._deliveries = Deliveries(device, chat)

    @cached_property
    def _verified(self) -> frozenset[UserId]:
        rows = self._device.connection.execute("SELECT id FROM users WHERE verified = 1")
        return frozenset(UserId(row[0]) for row in rows)

    @cached_property
    def _trusted(self) -> frozenset[bytes]:
        return frozenset(
            row[0] for row in self._device.connection.execute("SELECT id FROM agencies")
        )

    @cached_property
    def _is_reached(self) -> bool:
        """Whether our agency can be granted the keys of a channel; seals come through anybody."""
        near = reached(self._device, self._chat.membership())
        return bool(near) or not self._chat.history.is_channel

    @cached_property
    def _everybody(self) -> Mapping[bytes, Member]:
        """Whoever is or was a member, by device: the present ones say the most."""
        found: dict[bytes, Member] = {}
        history = self._chat.history
        for index in range(len(history)):
            before = resolve(history, history.pasts[index])
            found.update({device: before.users[user] for device, user in before.devices.items()})
        return found

    def author(self, place: Reference) -> Member | None:
        """Return whose device wrote an entry, None if it is no member's and never was."""
        return self._member(place.device)

    def _member(self, key: DeviceKey) -> Member | None:
        member = self._chat.membership().member_of(key)
        return self._everybody.get(key) if member is None else member

    def line(self, letter: Letter) -> Line:
        """Return what to show of a letter."""
        void = void_of(self._device, self._chat, letter.reference)
        return self._line(letter, void, ahead=False)

    def ahead(self, letter: Letter, header: ContentHeader) -> Line:
        """Return what to show of a message that is not admitted yet."""
        return self._line(letter, void_by(self._chat, header), ahead=True)

    def _line(self, letter: Letter, void: Void | None, *, ahead: bool) -> Line:
        place = letter.reference
        author = self.author(place)
        own = place.device == self._device.key
        user = None if author is None else author.user
        ours = user == self._device.profile.user.user
        return Line(
            letter,
            author,
            own,
            verified=ours or user in self._verified,
            trusted=author is not None and author.agency in self._trusted,
            future=letter.time > self._now + FUTURE_MS_MIN,
            void=void,
            progress=self._deliveries.of(place) if own else None,
            redaction=self._chat.redactions.of().get(place),
            shared=self._sharer(place),
            elsewhere=not ahead and self._is_elsewhere(letter),
            unreached=letter.state is State.SEALED and not self._is_reached,
            ahead=ahead,
            whereabouts=self._whereabouts(place),
        )

    def _is_elsewhere(self, letter: Letter) -> bool:
        if letter.state is not State.UNREADABLE:
            return False
        header = read_entry(self._device, self._chat.id, letter.reference).header
        return isinstance(header, ContentHeader) and any(
            debts.is_for(self._chat, header, other) for other in self._device.others
        )

    def _whereabouts(self, place: Reference) -> Whereabouts | None:
        blobs = self._device.replica.blobs
        blob = blobs.find(self._chat.id, place.id)
        if blob is None:
            return None
        fetched = self._device.connection.execute(
            "SELECT 1 FROM fetched WHERE id = ?", (place.id,)
        ).get
        waits = blob.state is BlobState.WHOLE and blob.author == self._device.key
        held = blobs.count_held(blob)
        return Whereabouts(held, blob.announced.chunks, waits, fetched is not None)

    def _sharer(self, place: Reference) -> Member | None:
        key = sharer(self._device, place.id)
        return None if key is None else self._member(key)


def letters(device: Device, chat: Chat, since: int, limit: int) -> list[Letter]:
    """Return the last `limit` letters of a chat with a time from `since` on, in their order."""
    found = select(
        device,
        "chat = ? AND time >= ? ORDER BY depth DESC, time DESC, id DESC LIMIT ?",
        (chat.id, since, limit),
    )
    return list(found)[::-1]


class Follower:
    """Gives each letter of a chat once: as soon as it can be read, or never will be."""

    def __init__(self, device: Device, chat: Chat) -> None:
        self._device = device
        self._chat = chat.id
        self._after = self._newest()
        waiting = select(device, "chat = ? AND state IN (0, 5)", (chat.id,))
        self._waiting = {letter.no for letter in waiting}

    def _newest(self) -> int:
        found = self._device.connection.execute("SELECT ifnull(max(no), 0) FROM mailbox").get
        return int(found)

    def fresh(self) -> list[Letter]:
        """Return what has become readable since the last call, in the order of the chat."""
        newest = self._newest()
        found = []
        for letter in select(
            self._device,
            "chat = ? AND (no > ? AND no <= ? OR no IN (SELECT value FROM json_each(?)))"
            " ORDER BY depth, time, id",
            (self._chat, self._after, newest, str(sorted(self._waiting))),
        ):
            if letter.state in WAITING:
                self._waiting.add(letter.no)
                continue
            self._waiting.discard(letter.no)
            found.append(letter)
        self._after = newest
        return found
