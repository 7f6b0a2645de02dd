"""Content entries out of a device's store, whether or not their text can be read."""

from client.device import Device
from node.store import Branch, StoredChat
from protocol.entry import CONTENT, ChatId, DeviceKey, Header, Reference
from protocol.run import Entry, rebuild


def read_entry(device: Device, chat: ChatId, place: Reference) -> Entry:
    """Read one stored content entry."""
    store = device.replica.store
    stored = store.create_chat(chat)
    number = store.branch_of(stored, place.device, CONTENT, place.seq, place.id)
    branch = stored.chains[place.device, CONTENT][number or 0]
    return _entry_at(device, stored, place.device, branch, place.seq)


def header_at(
    device: Device, stored: StoredChat, author: DeviceKey, branch: Branch, seq: int
) -> Header:
    """Read the header of the content entry of this number of one branch."""
    return _entry_at(device, stored, author, branch, seq).header


def _entry_at(
    device: Device, stored: StoredChat, author: DeviceKey, branch: Branch, seq: int
) -> Entry:
    store, chain = device.replica.store, stored.chains[author, CONTENT]
    prev, context = store.context_before(chain, branch, CONTENT, seq)
    records = [row[2] for row in store.rows(chain, branch, seq, seq + 1)]
    return rebuild(stored.id, author, CONTENT, seq, prev, context, records)[0]
