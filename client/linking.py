"""Bringing a further device of the same user in, seen from a device that is enrolled (SPEC 5.6).

The user identity key stays on the first device; it signs the new one's certificate after the person
has compared the new device's fingerprint on both screens. Then the first device brings the new one
into every chat, and hands over what it has read.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio
from msgspec import convert

from client import archive, compose, grants, handing, people
from client.arrivals import open_waiting
from client.device import Device
from client.link import Link
from client.writing import may_sign
from node.errors import IdentityError, NetworkError, RefusedError, UserError
from protocol.entry import ChatId, DeviceKey
from protocol.errors import PeerError
from protocol.identity import (
    DeviceCertificate,
    LinkRequest,
    UserId,
    endorse_link,
    read_link,
    verify_device,
)
from protocol.invitation import Invitation, decode_invitation
from protocol.keygrant import kind_of
from protocol.limits import KEY_BYTES
from protocol.membership import is_lost
from protocol.question import Approve, BeginLink, GetParcels, GetPending, Taken
from protocol.reply import Certified, LinkInvitation, Parcels, Pending, PendingLinks

POLL_SECONDS = 1.0
_SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class LinkCode:
    """What is carried from the old screen to the new device. The user: whose device it will be."""

    invitation: Invitation
    user: UserId


def read_code(text: str) -> LinkCode:
    """Read `INVITATION~USER`. Raises UserError, or PeerError for a damaged invitation."""
    line = "".join(text.split())
    invitation, separator, user = line.rpartition(_SEPARATOR)
    try:
        key = bytes.fromhex(user)
    except ValueError:
        key = b""
    if not separator or len(key) != KEY_BYTES:
        raise UserError("that is no link code: copy all that 'ivor device link' shows")
    return LinkCode(decode_invitation(invitation), UserId(key))


async def begin(device: Device, link: Link) -> tuple[str, Invitation]:
    """Ask our node for a link invitation; return the code to show, and the invitation in it."""
    if device.secrets.user is None:
        raise RefusedError("only your first device, which holds your identity key, can link others")
    reply = await link.ask(BeginLink())
    if not isinstance(reply, LinkInvitation):
        raise NetworkError("the node answered another question than was asked")
    invitation = decode_invitation(reply.text)
    return f"{reply.text}{_SEPARATOR}{device.profile.user.user.hex()}", invitation


async def wait(link: Link, invitation: Invitation) -> tuple[Pending, LinkRequest]:
    """Wait until the new device has presented itself. Raises RefusedError when time is over."""
    while time.time() * 1000 < invitation.expires:
        reply = await link.ask(GetPending())
        for pending in reply.links if isinstance(reply, PendingLinks) else ():
            if pending.ticket == invitation.ticket:
                return pending, read_link(pending.request)
        await trio.sleep(POLL_SECONDS)
    raise RefusedError("no device has used the code in time; begin again")


async def approve(device: Device, link: Link, pending: Pending) -> DeviceCertificate:
    """Endorse the new device, have it certified, and take up its prekey."""
    user = device.secrets.user
    if user is None:
        raise RefusedError("only your first device, which holds your identity key, can link others")
    wanted = read_link(pending.request)
    await link.write(partial(handing.begin, device, wanted.device))
    reply = await link.ask(Approve(pending.ticket, endorse_link(user, pending.request)))
    if not isinstance(reply, Certified):
        raise NetworkError("the node answered another question than was asked")
    await link.look_up_own()  # first: the registrar may have another key since
    certificate = verify_device(reply.certificate, device.profile.charter)
    if (certificate.device, certificate.user) != (wanted.device, user.public):
        raise IdentityError("the node certified another device than you approved; nothing was done")
    return certificate


def bring_in(device: Device, now: int) -> int:
    """Enrol each device of ours in each chat that lacks it; return how often that was needed.

    Only one that holds the identity key does it, so that two do not do the same at once; in the
    place of a lost one it first enters by itself (SPEC 5.3). now: milliseconds. Call inside a
    transaction.
    """
    if device.secrets.user is None or not may_sign(device):
        return 0
    count = _enter(device, now)
    rows = device.connection.execute(
        "SELECT id, certificate FROM devices WHERE user = ? AND revoked = 0 ORDER BY id",
        (device.profile.user.user,),
    ).fetchall()
    devices = convert(rows, list[tuple[DeviceKey, bytes]])
    for chat in device.replica.store.chats():
        for key, certificate in devices:
            if _is_lacking(device, chat, key):
                count += _enroll(device, chat, certificate, now)
    return count


def _is_lacking(device: Device, chat: ChatId, key: DeviceKey) -> bool:
    """Whether a chat that we are in lacks a device of ours that was not put out of it."""
    judge = device.chat(chat)
    inside = {} if judge is None else judge.membership().devices
    if judge is None or device.key not in inside or key in inside:
        return False
    return not is_lost(judge.history, key)


def _enter(device: Device, now: int) -> int:
    """Bring this device into each chat of its user that has never heard of it."""
    count = 0
    for judge in device.chats():
        if judge.history.names(device.key):
            continue
        if device.profile.user.user in judge.membership().users:
            count += _enroll(device, judge.id, device.profile.device_certificate, now)
    if count:
        people.note_lost(device)
    return count


def _enroll(device: Device, chat: ChatId, certificate: bytes, now: int) -> int:
    try:
        with device.attempt():
            compose.enroll(device, chat, certificate, now)
    except (RefusedError, PeerError):
        return 0  # revoked in this chat for good, or the chat is full
    return 1


@dataclass(slots=True)
class History:
    """How much of the history has come. parts: how many it has, None until a segment tells.

    left: how many are to come; they come in order. lost: how many did not come where others after
    them did. beside: how many parcels brought what another device owed us beside it. refused: why
    parcels were thrown away.
    """

    parts: int | None = None
    left: int = 0
    lost: int = 0
    came: int = 0
    beside: int = 0
    readable: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the last segment has come."""
        return self.parts is not None and self.left == 0

    @property
    def whole(self) -> bool:
        """Whether all of it has come, in one go."""
        return self.complete and self.lost == 0

    def add(self, segment: archive.Segment) -> None:
        """Count a segment."""
        if (segment.part, segment.parts) == archive.BESIDE:
            self.beside += 1
            return
        self.lost += max(0, segment.part - self.came - self.lost)
        self.parts = segment.parts
        self.left = segment.parts - segment.part - 1
        self.came += 1


async def take_parcels(device: Device, link: Link, history: History) -> None:
    """Take all that waits for this device at the node."""
    while await _take_some(device, link, history):
        pass


async def _take_some(device: Device, link: Link, history: History) -> bool:
    """Take what fits one answer; return whether there was something.

    It is kept durably before the node is told to forget it. What is not to be believed stays there
    as long as more of the log is to come: that may tell whose it is.
    """
    reply = await link.ask(GetParcels())
    taken = []
    for parcel in reply.parcels if isinstance(reply, Parcels) else ():
        try:
            await _take(device, link, parcel.body, history)
        except (PeerError, IdentityError) as error:
            if not link.caught_up:
                continue
            history.refused.append(str(error))
        taken.append(parcel.number)
    if not taken:
        return False
    await link.ask(Taken(tuple(taken)))
    if history.came or history.beside:
        history.readable += await link.write(partial(_take_up, device))
    return True


async def _take(device: Device, link: Link, parcel: bytes, history: History) -> None:
    if kind_of(parcel) != archive.VERSION:
        await link.write(partial(grants.take, device, parcel))
        return
    segment = await _unpacked(device, link, parcel)
    await link.write(partial(archive.keep, device, segment))
    history.add(segment)


async def _unpacked(device: Device, link: Link, parcel: bytes) -> archive.Segment:
    """Open a parcel; if it is not to be believed, ask first who our devices are by now."""
    try:
        return await link.journal.read(partial(archive.unpack, device, parcel))
    except (PeerError, IdentityError):
        with suppress(RefusedError):
            await link.look_up_own()
        return await link.journal.read(partial(archive.unpack, device, parcel))


def _take_up(device: Device) -> int:
    open_waiting(device)
    return archive.take_up(device)


async def take_history(
    device: Device, link: Link, seconds: float, advance: Callable[[History], None]
) -> History:
    """Wait for the whole history, as long as some of it comes within so many seconds.

    advance: told how far it is.
    """
    history = History()
    with trio.move_on_after(seconds) as waiting:
        while not history.complete:
            before = history.came
            more = await _take_some(device, link, history)
            advance(history)
            if history.came > before:
                waiting.deadline = trio.current_time() + seconds
            if not more:
                await trio.sleep(POLL_SECONDS)
    return history
