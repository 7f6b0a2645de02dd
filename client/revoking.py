"""Putting devices out of chats: our own that are lost, and those that were caught forking.

Call inside one transaction, but for `tell_node` and `tell_again`. Each revocation is followed by an
epoch that the device cannot read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from msgspec import convert

from client import debts
from client.compose import content_heads
from client.device import Device
from client.epochs import start_epoch
from client.link import Link
from client.people import GIVEN_UP, UNTOLD
from client.residency import is_ours
from client.writing import append_control, may_sign
from crypto.signing import Signer
from node.errors import NetworkError, RefusedError
from protocol import question
from protocol.chat import Chat
from protocol.entry import ChatId, DeviceKey, Reference
from protocol.errors import PeerError
from protocol.fork import verify_fork
from protocol.identity import sign_revocation
from protocol.operation import Revoke, UserSignature
from protocol.payload import REVOKE_LABEL, revoke_message


@dataclass(frozen=True, slots=True)
class Exposed:
    """A member's device that is caught, and in which chat. proof: two signed entries at one seq."""

    chat: ChatId
    device: DeviceKey
    proof: bytes

    @property
    def words(self) -> str:
        """Say, for people, that it was put out."""
        short = self.device.hex()[:16]
        return f"a device forked its log and was put out: {short}; see 'ivor chat show'"


def exposed(device: Device) -> list[Exposed]:
    """Return the devices that are caught and not revoked yet, where we may revoke them."""
    rows = device.connection.execute(
        "SELECT id, device, proof FROM forks JOIN chats ON no = chat ORDER BY seq"
    ).fetchall()
    found: dict[tuple[ChatId, DeviceKey], Exposed] = {}
    for one in convert(
        [{"chat": row[0], "device": row[1], "proof": row[2]} for row in rows], list[Exposed]
    ):
        judge = device.chat(one.chat)
        if judge is None or one.device == device.key:
            continue
        membership = judge.membership()
        ours = is_ours(device, membership) and membership.may_write(device.key)
        if ours and one.device in membership.devices:
            found.setdefault((one.chat, one.device), one)
    return list(found.values())


def revoke_exposed(device: Device, now: int) -> Sequence[Exposed]:
    """Revoke each device that a proof exposes; any member may. Return which. now: milliseconds."""
    done: list[Exposed] = []
    for one in exposed(device) if may_sign(device) else ():
        judge = device.replica.chat(one.chat)
        if judge is None:
            continue
        operation = Revoke(
            one.device,
            verify_fork(one.proof),
            None,
            content_heads(device, one.chat, [one.device]),
        )
        try:
            with device.attempt():
                _revoke(device, judge, operation, now)
        except (RefusedError, PeerError):
            continue  # our own chain is forked too, or the chat has no room: others will do it
        done.append(one)
    return done


def revoke_own(device: Device, target: DeviceKey, now: int) -> int:
    """Put a device of ours out of every chat that it is in; return of how many.

    Any device may do so to itself. Raises RefusedError if another one would have to, and this is
    a device without the user identity key. Where it does not work `still_in` tells.
    """
    if target != device.key:
        _identity_key(device)
    count = _put_out(device, target, now)
    _note(device, target, UNTOLD)
    device.forget_others()
    debts.settle_all(device, target)
    return count


def revoke_given_up(device: Device, now: int) -> int:
    """Put devices of ours that were given up out of chats that they are in again; return how often.

    Who had not heard of it has brought them in, with their user. now: milliseconds.
    """
    if device.secrets.user is None or not may_sign(device):
        return 0
    return sum(_put_out(device, target, now) for target in _given_up(device))


def _given_up(device: Device) -> list[DeviceKey]:
    """Return the other devices of ours that we gave up, or that gave themselves up in a chat."""
    rows = device.connection.execute(
        "SELECT id, revoked FROM devices WHERE user = ? AND id != ?",
        (device.profile.user.user, device.key),
    ).fetchall()
    return [
        key
        for key, state in convert(rows, list[tuple[DeviceKey, int]])
        if state in (GIVEN_UP, UNTOLD) or any(_gave_itself_up(one, key) for one in device.chats())
    ]


def _gave_itself_up(chat: Chat, device: DeviceKey) -> bool:
    return any(one.device == device for one in chat.history.revocations(device))


def _put_out(device: Device, target: DeviceKey, now: int) -> int:
    count = 0
    for chat in still_in(device, target):
        judge = device.replica.chat(chat)
        if judge is None:
            continue
        seen = content_heads(device, chat, [target])
        proof = None if target == device.key else _by_user(device, chat, target, seen)
        try:
            with device.attempt():
                _revoke(device, judge, Revoke(target, None, proof, seen), now)
        except (RefusedError, PeerError):
            continue  # our own chain is forked there: it must not save the device elsewhere
        count += 1
    return count


def still_in(device: Device, target: DeviceKey) -> list[ChatId]:
    """Return the chats of this device in which a device of ours is, or can go on writing."""
    found = []
    for judge in device.chats():
        devices = judge.membership().devices
        if device.key not in devices:
            continue
        if target in devices or _writes_on(device, judge, target):
            found.append(judge.id)
    return found


def _writes_on(device: Device, chat: Chat, target: DeviceKey) -> bool:
    """Whether a device gave itself up by naming content that nobody has shown us (SPEC 3.5)."""
    words = {
        one.device: one.operation.seen
        for one in chat.history.revocations(target)
        if isinstance(one.operation, Revoke)
    }
    named = [one.seq for one in words.get(target, ()) if one.device == target]
    here = [one.seq for one in content_heads(device, chat.id, [target])]
    return words.keys() == {target} and max(named, default=-1) > max(here, default=-1)


async def tell_node(device: Device, link: Link, target: DeviceKey, seconds: float) -> None:
    """Have our agency refuse a device of ours from now on. Raises NetworkError or RefusedError.

    Of itself a device tells last, when its node has all that it wrote: nothing is taken after.
    """
    own = target == device.key
    if own and not await link.settle(seconds):
        raise NetworkError("the node has not stored yet that this device left its chats")
    await _have_refused(device, link, target)
    if not own:
        await link.settle(seconds)


async def tell_again(device: Device, link: Link) -> None:
    """Have our agency refuse devices that we gave up, and that its directory still lists.

    It could not be asked then; or it was brought back from before that. Raises NetworkError.
    """
    for target in await link.journal.read(partial(_untold, device)):
        try:
            await _have_refused(device, link, target)
        except RefusedError as error:  # it has to meet its peers first, or knows no such device
            link.refused.append(str(error))


def _untold(device: Device) -> list[DeviceKey]:
    if device.secrets.user is None:
        return []
    rows = device.connection.execute(
        "SELECT id FROM devices WHERE user = ? AND id != ? AND revoked = ?",
        (device.profile.user.user, device.key, UNTOLD),
    ).fetchall()
    return [key for (key,) in convert(rows, list[tuple[DeviceKey]])]


async def _have_refused(device: Device, link: Link, target: DeviceKey) -> None:
    signer = device.secrets.device if target == device.key else _identity_key(device)
    agency = device.profile.charter.agency
    await link.ask(question.Revoke(target, sign_revocation(signer, agency, target)))
    await link.write(partial(_note, device, target, GIVEN_UP))


def _note(device: Device, target: DeviceKey, state: int) -> None:
    device.connection.execute("UPDATE devices SET revoked = ? WHERE id = ?", (state, target))


def _identity_key(device: Device) -> Signer:
    if device.secrets.user is None:
        raise RefusedError(
            "only your first device may revoke others: it holds your identity key; ask your "
            "administrator if it is lost"
        )
    return device.secrets.user


def _by_user(
    device: Device, chat: ChatId, target: DeviceKey, seen: Sequence[Reference]
) -> UserSignature:
    signature = _identity_key(device).sign(REVOKE_LABEL, revoke_message(chat, target, seen))
    return UserSignature(device.profile.user.user, signature)


def _revoke(device: Device, chat: Chat, operation: Revoke, now: int) -> None:
    entry = append_control(device, chat, operation, now)
    void = chat.membership().void.get(entry.id)
    if void is not None:
        raise RefusedError(f"this has no effect: {void.value}")
    if device.key in chat.membership().devices:
        start_epoch(device, chat, now)
