"""The history of a chat's control lane, from which membership follows (SPEC 3.1).

history = History()
index = history.add(ControlEntry(...))
membership = resolve(history)                          # protocol.membership
seen = resolve(history, history.past(ids))
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from protocol.authority import Authority
from protocol.dag import ControlEntry, Dag, EpochEntry, bits
from protocol.entry import DeviceKey
from protocol.identity import UserId
from protocol.operation import Genesis, credentials
from protocol.policy import ChatKind
from protocol.roster import Membership

__all__ = ["ControlEntry", "EpochEntry", "History"]

RECIPIENTS_KEPT = 64  # epochs of which they are remembered, once listed


class History(Dag):
    """An append-only graph of control entries, and the judge of any set of them."""

    def __init__(self) -> None:
        super().__init__()
        self.authority = Authority(self)
        self._recipients: dict[int, Sequence[DeviceKey]] = {}

    def add(self, entry: ControlEntry) -> int:
        """Hold a further entry, unless it is held already, and return its number.

        Its prev and links must be held (UsageError). The first one is a genesis; no other is.
        Raises Inadmissible if its place in the graph is not what it says, and then holds nothing.
        """
        if entry.id in self:
            return self.index(entry.id)
        self.authority.check(entry)
        index = self.append(entry)
        self.authority.admit(index)
        return index

    @property
    def is_channel(self) -> bool:
        """Whether the chat is a channel; False before its genesis."""
        first = self.entries[0].operation if self.entries else None
        return isinstance(first, Genesis) and first.chat_kind is ChatKind.CHANNEL

    def named(self, epoch: EpochEntry) -> AbstractSet[DeviceKey]:
        """Return the devices that an epoch is for: recipients, and those skipped (SPEC 4.2)."""
        return self._before(epoch).sealed

    def _before(self, epoch: EpochEntry) -> Membership:
        return self.authority.roster(self.pasts[epoch.index] & ~(1 << epoch.index))

    def members(self, epoch: EpochEntry) -> AbstractSet[DeviceKey]:
        """Return the devices that were in where an epoch starts, readers' among them."""
        return self._before(epoch).devices.keys()

    def recipients(self, epoch: EpochEntry) -> Sequence[DeviceKey]:
        """Return whom an epoch that was admitted is sealed to, in the order of its seals."""
        known = self._recipients.get(epoch.index)
        if known is None:
            if len(self._recipients) >= RECIPIENTS_KEPT:
                self._recipients.clear()
            known = sorted(self.named(epoch) - set(epoch.operation.skipped))
            self._recipients[epoch.index] = known
        return known

    def is_granted(self, epoch: EpochEntry, device: DeviceKey) -> bool:
        """Whether a device gets an epoch's keys by grants: whom it skips, or a channel's reader."""
        if device in self.recipients(epoch):
            return False
        return self.is_channel or device in epoch.operation.skipped

    def certificate(self, device: DeviceKey) -> bytes | None:
        """Return the newest certificate by which an entry names a device, None if none does."""
        for entry in reversed(self.entries):
            for credential in credentials(entry.operation):
                if device in credential.user.devices:
                    return credential.devices[credential.user.devices.index(device)]
        return None

    def devices_of(self, user: UserId) -> AbstractSet[DeviceKey]:
        """Return the devices that entries ever named for a user."""
        claims = self.authority.register.claims
        return {device for device, users in claims.items() if user in users}

    def users_of(self, device: DeviceKey) -> AbstractSet[UserId]:
        """Return the users for whom entries ever named a device: one, if nobody lies."""
        return self.authority.register.claims.get(device, frozenset())

    def revocations(self, device: DeviceKey) -> list[ControlEntry]:
        """Return the entries that put a device out, in one view or another."""
        return [
            self.entries[index]
            for index in bits(self.authority.register.revocations.get(device, 0))
        ]

    def names(self, device: DeviceKey) -> bool:
        """Whether an entry ever brought a device in, or put it out."""
        register = self.authority.register
        return device in register.claims or device in register.revocations
