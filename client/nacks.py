"""Wrong seals: tell the chat of one that we got, and say what others tell (SPEC 4.2)."""

from dataclasses import dataclass

from msgspec import convert

from client.device import Device
from client.writing import append_control, may_sign
from node.errors import RefusedError
from protocol.chat import Chat
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.epoch import NackReason
from protocol.membership import resolve
from protocol.nack import complaints
from protocol.operation import Nack

_REASONS = {
    NackReason.NOT_IN_TREE: "the seal that came is not one that the epoch names",
    NackReason.DOES_NOT_OPEN: "the seal does not open",
    NackReason.WRONG_COMMITMENT: "the seal holds another secret than the one promised to all",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a member says of an epoch: who says it, of whom, and what is wrong, in words."""

    epoch: EntryId
    by: str
    by_device: DeviceKey
    against: str
    against_device: DeviceKey
    why: str


def note_bad_seal(device: Device, chat: ChatId, epoch: EntryId, reason: NackReason) -> None:
    """Keep that our seal of an epoch is wrong, so that `publish` tells it, once."""
    device.connection.execute(
        "INSERT INTO bad_seals VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING", (epoch, chat, reason)
    )


def is_bad(device: Device, epoch: EntryId) -> bool:
    """Whether our seal of an epoch was found to be wrong."""
    found = device.connection.execute("SELECT 1 FROM bad_seals WHERE epoch = ?", (epoch,)).get
    return found is not None


def publish(device: Device, now: int) -> int:
    """Nack each epoch whose seal for us is wrong, where we are members; return how many.

    Call inside a transaction. now: milliseconds.
    """
    if not may_sign(device):
        return 0
    rows = device.connection.execute(
        "SELECT chat, epoch, reason FROM bad_seals WHERE told = 0"
    ).fetchall()
    count = 0
    for chat, epoch, reason in convert(rows, list[tuple[ChatId, EntryId, int]]):
        judge = device.chat(chat)
        if judge is None or device.key not in judge.membership().devices:
            continue
        try:
            append_control(device, judge, Nack(epoch, reason), now)
        except RefusedError:
            continue  # our own chain is forked: nobody takes our word
        device.connection.execute("UPDATE bad_seals SET told = 1 WHERE epoch = ?", (epoch,))
        count += 1
    return count


def told(chat: Chat) -> list[Told]:
    """Return all that members say of wrong seals, in the order of arrival."""
    return [
        Told(
            one.epoch,
            _name(chat, one.at, one.by),
            one.by,
            _name(chat, chat.history.index(one.epoch), one.against),
            one.against,
            _REASONS[NackReason(one.reason)]
            if one.reason in list(NackReason)
            else f"reason {one.reason}",
        )
        for one in complaints(chat.history, chat.history.everything)
    ]


def _name(chat: Chat, at: int, device: DeviceKey) -> str:
    """Return whose device it was when it made an entry."""
    member = resolve(chat.history, chat.history.pasts[at]).member_of(device)
    return f"device {device.hex()[:16]}" if member is None else member.name
