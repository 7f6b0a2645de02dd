"""The chats of a replica as they are stored: their judges, their readers, their control entries."""

from collections import OrderedDict
from collections.abc import Set as AbstractSet

import apsw
import structlog

from node.errors import DamagedError
from node.sharing import Sharing
from node.store import SEQ_BITS, Store, StoredChat
from protocol.chat import Chat
from protocol.entry import CONTENT, CONTROL, ChatId, ControlHeader, DeviceKey, EntryId
from protocol.membership import Membership
from protocol.run import Entry, rebuild

log = structlog.get_logger()

CHATS_JUDGED_MAX = 512
HEADERS_READ_MAX = 4096


class Chats:
    """Stored chats. agency: ours. owner: the same at a node, the device key at a device."""

    def __init__(self, connection: apsw.Connection, agency: bytes, owner: bytes) -> None:
        self.store = Store(connection)
        self.sharing = Sharing(connection)
        self.agency = agency
        self.owner = owner
        self._chats: OrderedDict[bytes, Chat] = OrderedDict()
        self._headers: OrderedDict[EntryId, ControlHeader] = OrderedDict()

    def forget(self) -> None:
        """Drop what is cached: after a rollback, or when another process wrote."""
        self.store.forget()
        self._chats.clear()
        self._headers.clear()

    def chat(self, chat: ChatId) -> Chat | None:
        """Return the judge of a stored chat, None when it is not stored.

        Raises DamagedError if what is stored of it is not what was written.
        """
        cached = self._chats.get(chat)
        if cached is not None:
            self._chats.move_to_end(chat)
            return cached
        stored = self.store.chat(chat)
        if stored is None:
            return None
        try:
            judge = self._restore(stored)
        except Exception as error:  # a wrong byte may lead to anything
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.CorruptError):
                raise
            raise DamagedError(f"chat {chat.hex()[:16]} is damaged: {error}") from error
        self.remember(judge)
        return judge

    def is_readable(self, chat: ChatId) -> bool:
        """Tell whether a chat can be judged, if it is stored: else it is as if it were not here."""
        try:
            self.chat(chat)
        except DamagedError as error:
            log.warning("a chat is left alone", reason=str(error))
            return False
        return True

    def _restore(self, stored: StoredChat) -> Chat:
        judge = Chat(stored.id)
        at: dict[int, Entry] = {}
        for (device, lane), chain in stored.chains.items():
            if lane != CONTROL:
                continue
            for branch in chain:
                prev, context = self.store.context_before(chain, branch, CONTROL, branch.base)
                records = [
                    row[2] for row in self.store.rows(chain, branch, branch.base, branch.length)
                ]
                entries = rebuild(
                    stored.id, DeviceKey(device), CONTROL, branch.base, prev, context, records
                )
                at.update({branch.no << SEQ_BITS | e.header.seq: e for e in entries})
        for place in self.store.control_order(stored):
            header, entry, payload = at[place].header, at[place].id, at[place].payload
            if isinstance(header, ControlHeader) and payload is not None:
                judge.restore(header, entry, payload)
        return judge

    def remember(self, chat: Chat) -> None:
        """Keep a judge at hand; the one that was not asked for longest makes room."""
        self._chats[chat.id] = chat
        if len(self._chats) > CHATS_JUDGED_MAX:
            self._chats.popitem(last=False)

    def readers(self, chat: Chat) -> AbstractSet[bytes]:
        """Return who may see a chat: agencies, and the devices of our own agency.

        Also a member's new device that the chat does not know of yet, so that it can enter.
        """
        membership = chat.membership()
        entrants = {
            device
            for device, user in self.sharing.entrants()
            if user in membership.users and not chat.history.names(device)
        }
        held = self.agency in membership.agencies
        return self.readers_by(membership) | (entrants if held else frozenset())

    def may_bring(self, peer: bytes, chat: ChatId) -> bool:
        """Tell whether what a peer says of a chat is heard: it is in it, or we do not know yet.

        A device hears its own node in any case: it may have been let in again, with its agency.
        """
        own_node = self.owner != self.agency == peer
        return own_node or self.store.chat(chat) is None or self.sharing.may_read(peer, chat)

    def readers_by(self, membership: Membership) -> AbstractSet[bytes]:
        """Return who may see a chat with this membership: our devices only where our agency may."""
        if self.agency not in membership.agencies:
            return membership.agencies
        own = {
            device
            for device, user in membership.devices.items()
            if membership.users[user].agency == self.agency
        }
        return membership.agencies | own

    def readers_of(self, chat: ChatId) -> AbstractSet[bytes]:
        """Return who may see a stored chat."""
        stored = self.store.chat(chat)
        return frozenset() if stored is None else self.sharing.readers(stored)

    def control_header(self, chat: ChatId, entry: EntryId) -> ControlHeader | None:
        """Return the header of a stored control entry, None if it is not here."""
        header = self._headers.get(entry)
        if header is None:
            header = self._read_control_header(chat, entry)
            if header is not None:
                self._headers[entry] = header
                if len(self._headers) > HEADERS_READ_MAX:
                    self._headers.popitem(last=False)
        return header

    def _read_control_header(self, chat: ChatId, entry: EntryId) -> ControlHeader | None:
        judge, stored = self.chat(chat), self.store.chat(chat)
        if judge is None or stored is None or entry not in judge.history:
            return None
        held = judge.history.entries[judge.history.index(entry)]
        device, seq = held.device, held.seq
        chain = stored.chains[device, CONTROL]
        number = self.store.branch_of(stored, device, CONTROL, seq, entry)
        if number is None:
            return None
        branch = chain[number]
        prev, context = self.store.context_before(chain, branch, CONTROL, seq)
        records = [row[2] for row in self.store.rows(chain, branch, seq, seq + 1)]
        header = rebuild(chat, device, CONTROL, seq, prev, context, records)[0].header
        return header if isinstance(header, ControlHeader) else None

    def last_epoch(self, chat: ChatId, device: DeviceKey) -> EntryId | None:
        """Return the epoch of a device's newest content entry, None before its first."""
        stored = self.store.chat(chat)
        chain = [] if stored is None else stored.chains.get((device, CONTENT), [])
        if not chain:
            return None
        newest = max(chain, key=lambda branch: branch.length)
        context = self.store.context_after(chain, newest, CONTENT, newest.length - 1)
        return EntryId(context.epoch)
