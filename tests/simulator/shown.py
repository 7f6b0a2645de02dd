"""Invariants at rest of what devices show: nothing redacted, and all that was shared with them."""

from collections.abc import Iterator

from client import mailbox
from client.mailbox import Letter
from protocol.chat import Chat
from protocol.disclosure import Share
from protocol.entry import ContentHeader, EntryId, Reference
from tests.simulator.parties import DeviceParty
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
    header = mailbox.read_entry(device.device, judge.id, place).header
    epoch = judge.history.epoch(header.epoch) if isinstance(header, ContentHeader) else None
    return epoch is not None and epoch.operation.shareable
