"""The seals of epochs: which concern us, which are here, which have yet to come (SPEC 4.2, 6.3)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crypto import merkle
from node.chats import Chats
from node.store import StoredChat
from protocol.chat import Chat
from protocol.dag import EpochEntry
from protocol.entry import CONTROL, ChatId, DeviceKey, EntryId
from protocol.epoch import position
from protocol.errors import Inadmissible
from protocol.frame import Seal
from protocol.limits import SEALS_SPREAD_MAX
from protocol.membership import may_append
from protocol.run import Entry

NEWEST, OLDEST = 2**63 - 1, 0  # beyond both ends of the numbers that SQLite gives
SEALS_ASKED_MAX = 16 * 1024  # recipients of a page, of the SEALS_SERVED_MAX that a peer remembers


class Sealless(NamedTuple):
    """An epoch of which we lack the seals of these recipients."""

    chat: ChatId
    epoch: EntryId
    devices: tuple[DeviceKey, ...]


class SealedChats(Chats):
    """Chats, and the seals of their epochs."""

    def lacking_seals(
        self, chat: Chat, stored: StoredChat, entries: Sequence[Entry]
    ) -> tuple[Sealless, ...]:
        """Note, and return, which of these entries start an epoch whose seals have yet to come."""
        found = []
        for entry in entries:
            epoch = chat.history.epoch(entry.id) if entry.header.lane == CONTROL else None
            if epoch is None:
                continue
            devices = self._concerned(chat, epoch)
            if len(self.seals_for(stored.id, entry.id, devices)) < len(devices):
                self.sharing.note_sealless(stored, entry.id)
                found.append(Sealless(stored.id, entry.id, devices))
        return tuple(found)

    def _concerned(self, chat: Chat, epoch: EpochEntry) -> tuple[DeviceKey, ...]:
        """Return whose seals we keep: a device its own; a node its agency's, or all.

        All those that a device of its agency made, as the other nodes ask here for theirs; and all
        of few, so that a node can still have them when the author's is gone. The author made the
        secret, so nobody else keeps the seal that is for the author.
        """
        listed = chat.history.recipients(epoch)
        if self.owner != self.agency:
            return tuple(device for device in listed if device == self.owner)
        author = chat.history.entries[epoch.index].device
        others = tuple(device for device in listed if device != author)
        own = self.readers(chat)
        if len(listed) <= SEALS_SPREAD_MAX or author in own:
            return others
        return tuple(device for device in others if device in own)

    def sealless(self, peer: bytes, before: int = NEWEST) -> tuple[list[Sealless], int]:
        """Return a page of the epochs whose seals have yet to come and that this peer may have.

        Newest first, and where the next page begins: OLDEST if there is none.
        """
        found: list[Sealless] = []
        room = SEALS_ASKED_MAX
        page = self.sharing.sealless(peer, before)
        for number, chat_id, epoch in page:
            chat = self.chat(chat_id) if self.is_readable(chat_id) else None
            entry = None if chat is None else chat.history.epoch(epoch)
            if chat is not None and entry is not None:
                devices = self._concerned(chat, entry)
                room -= len(devices)
                if found and room < 0:
                    return found, number + 1
                found.append(Sealless(chat_id, epoch, devices))
        return found, page[-1][0] if page else OLDEST

    def makers(self, lacked: Iterable[Sealless]) -> list[tuple[Sealless, bytes]]:
        """Return who has seals that a node lacks: their maker's agency, of our own the very device.

        A device asks its own node alone.
        """
        found: list[tuple[Sealless, bytes]] = []
        for one in lacked if self.owner == self.agency else ():
            judge = self.chat(one.chat)
            entry = None if judge is None else judge.history.epoch(one.epoch)
            if judge is not None and entry is not None:
                author = judge.history.entries[entry.index].device
                member = judge.membership().member_of(author)
                if member is None:
                    continue
                own = member.agency == self.agency
                found.append((one, author if own else member.agency))
        return found

    def made_elsewhere(
        self, chat_id: ChatId, epoch: EntryId, devices: Sequence[DeviceKey], peer: bytes
    ) -> tuple[Sealless, bytes] | None:
        """Return which of these seals are for a peer's own devices, and the author's agency.

        That keeps them also when the author is out. None if there are none, or if it is the peer's,
        or is out itself.
        """
        judge = self.chat(chat_id)
        entry = None if judge is None else judge.history.epoch(epoch)
        if judge is None or entry is None:
            return None
        members, listed = judge.membership(), judge.history.recipients(entry)
        author = judge.history.entries[entry.index].device
        home = may_append(judge.history, author, judge.history.past([epoch])).identity.agency
        theirs = tuple(
            device
            for device in devices
            if position(listed, device) is not None
            and (member := members.member_of(device)) is not None
            and member.agency == peer
        )
        if home == peer or home not in members.agencies or not theirs:
            return None
        return Sealless(chat_id, epoch, theirs), home

    def keep_seals(
        self, chat: ChatId, epoch: EntryId, seals: Sequence[Seal], peer: bytes
    ) -> list[tuple[DeviceKey, Seal]]:
        """Keep the seals that belong to an epoch entry of ours; return the new ones, and whose.

        Raises Inadmissible if one does not belong to it.
        """
        judge = self.chat(chat)
        entry = None if judge is None else judge.history.epoch(epoch)
        if judge is None or entry is None or not self.may_bring(peer, chat):
            return []
        root = entry.operation.seals_root
        listed = judge.history.recipients(entry)
        for seal in seals:
            if not merkle.check(root, seal.seal, seal.index, len(listed), seal.path):
                raise Inadmissible("a seal that its epoch does not name (SPEC 4.2)")
        new = self.sharing.keep_seals(epoch, seals)
        devices = self._concerned(judge, entry)
        if len(self.seals_for(chat, epoch, devices)) == len(devices):
            self.sharing.forget_sealless(epoch)
        return [(listed[seal.index], seal) for seal in new]

    def seals_for(self, chat: ChatId, epoch: EntryId, devices: Sequence[bytes]) -> list[Seal]:
        """Return the seals of these recipients that are here."""
        judge = self.chat(chat)
        entry = None if judge is None else judge.history.epoch(epoch)
        if judge is None or entry is None:
            return []
        listed = judge.history.recipients(entry)
        found = (position(listed, DeviceKey(device)) for device in devices)
        return self.sharing.seals(epoch, sorted({at for at in found if at is not None}))
