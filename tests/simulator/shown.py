"""Invariants at rest of what devices show: nothing redacted, and all that was shared with them."""

from collections.abc import Iterator
from itertools import permutations

from msgspec import convert

from client import mailbox
from client.entries import read_entry
from client.epochs import prekey_of
from client.mailbox import Letter
from node.witness import Witness
from protocol.chat import Chat
from protocol.disclosure import Share
from protocol.entry import ChatId, ContentHeader, DeviceKey, EntryId, Reference
from protocol.listing import verify_split
from tests.simulator.devices import DeviceParty
from tests.simulator.rest import Rest

ALL = 1_000_000


def i4_nobody_shows_what_is_redacted(rest: Rest) -> None:
    """No device has the text of what is redacted by all that it has seen, nor in a share."""
    for device in rest.devices:
        for judge in device.device.chats():
            redacted = {place.id for place in judge.redactions.of()}
            shown = {one for letter in _letters(device, judge) for one in _told(letter)}
            rest.require(
                "I4", not redacted & shown, f"{device.name} shows {len(redacted & shown)} redacted"
            )


def i3_what_is_shared_is_read(rest: Rest) -> None:
    """What somebody has shared with a device, and may be shared, it can read, or it is gone."""
    for device in rest.devices:
        for judge in device.device.chats():
            letters = list(_letters(device, judge))
            closed = {
                one.reference.id: one.reference
                for one in letters
                if one.message is None and one.state is not mailbox.State.GONE
            }
            shared = {one for letter in letters for one in _shared(letter)} & closed.keys()
            lacking = [one for one in shared if _is_shareable(device, judge, closed[one])]
            rest.require(
                "I3", not lacking, f"{device.name} cannot read {len(lacking)} that were shared"
            )


def i3_nobody_stays_a_stranger(rest: Rest) -> None:
    """Each living device knows a key of each other that is in a chat with it, so it skips none.

    Not if a clock leapt, as prekeys are dated, or an agency was caught with two directories.
    """
    there = {one.key: one for one in rest.devices if not one.disturbed}
    for device in there.values():
        for judge in device.device.chats():
            skipped = [
                other.name
                for key in sorted(judge.membership().sealed)
                if (other := there.get(key)) is not None
                and other.home.directory.device_allowed(key)
                and not _is_accused(device, other)
                and prekey_of(device.device, judge, key, device.wall) is None
            ]
            rest.require("I3", not skipped, f"{device.name} knows no key of {skipped}")


def i3_last_words_are_read(rest: Rest) -> None:
    """What is said when all are at rest is read by each living device that is known to be in.

    Not between two of whom one was copied, or whose clock leapt; and not in an epoch of one who is
    gone, and may have taken its seals along.
    """
    living = {one.key for one in rest.devices}
    steady = [one for one in rest.devices if not one.disturbed]
    steady = [one for one in steady if one.key not in rest.checks.compromised]
    shown = {(one.name, other.name, chat) for one, other, chat in rest.pairs}
    for author, reader in permutations(steady, 2):
        closed = [
            said
            for chat, said in author.last_words.items()
            if reader.key in said.members
            and _shares(author, reader, chat)
            and (reader.home.name, reader.name, chat) in shown
            and (author.home is reader.home or (author.home.name, reader.home.name, chat) in shown)
            and not _is_accused(author, reader)
            and _author_of_epoch(author, chat, said.entry) in living
            and not _has_read(reader, said.entry)
        ]
        rest.require("I3", not closed, f"{reader.name} cannot read {author.name}'s last words")


def _shares(author: DeviceParty, reader: DeviceParty, chat: ChatId) -> bool:
    judges = [one.replica.chat(chat) for one in (author, reader)]
    keys = {author.key, reader.key}
    return all(judge is not None and keys <= judge.membership().devices.keys() for judge in judges)


def _author_of_epoch(device: DeviceParty, chat: ChatId, entry: EntryId) -> DeviceKey | None:
    """Who began the epoch in which a device has said something."""
    row = device.connection.execute(
        "SELECT device, seq, id FROM mailbox WHERE id = ?", (entry,)
    ).fetchone()
    judge = device.replica.chat(chat)
    header = read_entry(device.device, chat, convert(row, Reference)).header
    if judge is None or not isinstance(header, ContentHeader):
        return None
    epoch = judge.history.epoch(header.epoch)
    return None if epoch is None else judge.history.entries[epoch.index].device


def _has_read(device: DeviceParty, entry: EntryId) -> bool:
    state = device.connection.execute("SELECT state FROM mailbox WHERE id = ?", (entry,)).get
    return state in (mailbox.State.OPEN, mailbox.State.GONE)


def _is_accused(device: DeviceParty, other: DeviceParty) -> bool:
    proofs = [
        raw
        for party in (device, device.home, other.home)
        for raw in Witness(party.connection).proofs()
    ]
    return any(verify_split(raw).agency == other.home.agency for raw in proofs)


def _letters(device: DeviceParty, judge: Chat) -> Iterator[Letter]:
    yield from mailbox.letters(device.device, judge.id, ALL)


def _told(letter: Letter) -> Iterator[EntryId]:
    if letter.message is not None:
        yield letter.reference.id
    yield from _shared(letter)


def _shared(letter: Letter) -> Iterator[EntryId]:
    if isinstance(letter.message, Share):
        yield from (one.entry for one in letter.message.letters)


def _is_shareable(device: DeviceParty, judge: Chat, place: Reference) -> bool:
    header = read_entry(device.device, judge.id, place).header
    epoch = judge.history.epoch(header.epoch) if isinstance(header, ContentHeader) else None
    return epoch is not None and epoch.operation.shareable
