"""Epochs: one secret for all devices of a chat, and the chains that start from it (SPEC 4).

    operation, seals = build(place, secret, prekeys, skipped, prekey, shareable=False)
    listed = history.recipients(epoch)
    secret = open_seal(place_of(header), operation, listed, device, private, seal, path)
    chains = sender_chains(epoch_id, secret, history.named(epoch))     # then erase the secret

An epoch is for every device of the membership that whoever starts it has seen, and `commit` binds
them to one secret for all. A seal says for whom, in which entry, of which chat it is.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum
from functools import cache, partial
from hmac import compare_digest

from crypto import merkle, sealing
from crypto.errors import SealRefused
from crypto.labels import digest
from crypto.schedule import commitment, epoch_context, epoch_secret, seal_info, sender_chain
from crypto.sealing import PREKEY_ID_BYTES, prekey_id
from protocol import codec
from protocol.dag import EpochEntry, bits
from protocol.entry import DeviceKey, EntryId, Place
from protocol.errors import Inadmissible, Untrusted, UsageError
from protocol.history import History
from protocol.identity import Prekey, verify_prekey
from protocol.membership import void_reason
from protocol.operation import SUITE, EpochOperation
from protocol.policy import HistoryRule
from protocol.roster import Membership


class NackReason(IntEnum):
    """What is wrong with a seal; the code that a nack carries."""

    NOT_IN_TREE = 0
    DOES_NOT_OPEN = 1
    WRONG_COMMITMENT = 2


class BadSeal(Inadmissible):
    """The seal is not what the epoch's entry committed to: publish a nack with `reason`."""

    def __init__(self, reason: NackReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def recipients_root(devices: Iterable[DeviceKey]) -> bytes:
    """Return the 32-byte digest by which an epoch names whom it is sealed to."""
    return digest("recipients", codec.encode(sorted(devices)))


def context(place: Place, operation: EpochOperation) -> bytes:
    """Return ectx, 32 bytes: chat, author, position, view, suite, recipients and shareable flag."""
    return _context(place, operation.recipients_root, shareable=operation.shareable)


def _context(place: Place, root: bytes, *, shareable: bool) -> bytes:
    return epoch_context(codec.encode((*place, SUITE, root, int(shareable))))


def build(
    place: Place,
    secret: bytes,
    prekeys: Mapping[DeviceKey, bytes],
    skipped: AbstractSet[DeviceKey],
    prekey: bytes,
    *,
    shareable: bool,
) -> tuple[EpochOperation, list[bytes]]:
    """Seal a secret for each recipient; return the operation and the seals, ascending by device.

    secret: 32 random bytes. prekeys: the public one, 1,216 bytes, of each recipient. skipped:
    devices of members without a valid prekey. prekey: the author's fresh prekey record.
    Raises crypto's SealRefused for a malformed public prekey: skip that device.
    """
    root = recipients_root(prekeys)
    ectx = _context(place, root, shareable=shareable)
    commit = commitment(secret, ectx)
    seals = [seal(ectx, commit, device, prekeys[device], secret) for device in sorted(prekeys)]
    operation = EpochOperation(
        suite=SUITE,
        commit=commit,
        shareable=shareable,
        recipients_root=root,
        skipped=tuple(sorted(skipped)),
        seals_root=merkle.root(seals),
        prekey=prekey,
    )
    return operation, seals


def seal(ectx: bytes, commit: bytes, device: DeviceKey, public: bytes, secret: bytes) -> bytes:
    """Return the seal for one device: the id of its prekey, and the secret sealed to that.

    1,184 bytes. public: the prekey, 1,216 bytes; raises crypto's SealRefused if it is malformed.
    """
    prekey = prekey_id(public)
    return prekey + sealing.seal(public, _seal_info(ectx, commit, device, prekey), secret)


def unseal(ectx: bytes, commit: bytes, device: DeviceKey, private: bytes, seal: bytes) -> bytes:
    """Return what was sealed. private: 32 bytes, of the prekey. Raises crypto's SealRefused."""
    info = _seal_info(ectx, commit, device, prekey_of(seal))
    return sealing.open_seal(private, info, seal[PREKEY_ID_BYTES:])


def prekey_of(seal: bytes) -> bytes:
    """Return the id of the prekey that a seal is for, 16 bytes."""
    return seal[:PREKEY_ID_BYTES]


def _seal_info(ectx: bytes, commit: bytes, device: DeviceKey, prekey: bytes) -> bytes:
    return seal_info(codec.encode((ectx, commit, device, prekey)))


def position(recipients: Sequence[DeviceKey], device: DeviceKey) -> int | None:
    """Return the number of a device's seal in the tree, None if it is no recipient."""
    at = bisect_left(recipients, device)
    return at if at < len(recipients) and recipients[at] == device else None


def check_seal(
    operation: EpochOperation,
    recipients: Sequence[DeviceKey],
    device: DeviceKey,
    seal: bytes,
    path: Sequence[bytes],
) -> None:
    """Check, without any key, that a seal is the one that the entry commits to for a device.

    path: siblings as `crypto.merkle.paths` gives them, from whoever kept them. Raises BadSeal.
    """
    index = position(recipients, device)
    if index is None or not merkle.check(operation.seals_root, seal, index, len(recipients), path):
        raise BadSeal(NackReason.NOT_IN_TREE, "no such seal under the entry's root (SPEC 4.2)")


def open_seal(
    place: Place,
    operation: EpochOperation,
    recipients: Sequence[DeviceKey],
    device: DeviceKey,
    private: bytes,
    seal: bytes,
    path: Sequence[bytes],
) -> bytes:
    """Return the epoch's secret, 32 bytes.

    device: our own. private: the 32 bytes of the prekey that the seal names.
    Raises BadSeal, with the reason for a nack.
    """
    check_seal(operation, recipients, device, seal, path)
    ectx = context(place, operation)
    try:
        secret = unseal(ectx, operation.commit, device, private, seal)
    except SealRefused:
        raise BadSeal(NackReason.DOES_NOT_OPEN, "the seal does not open (SPEC 4.2)") from None
    if not compare_digest(commitment(secret, ectx), operation.commit):
        raise BadSeal(NackReason.WRONG_COMMITMENT, "not the secret committed to (SPEC 4.2)")
    return secret


def sender_chains(
    epoch: EntryId, secret: bytes, devices: AbstractSet[DeviceKey]
) -> dict[DeviceKey, bytes]:
    """Return the first chain key, 32 bytes, of each device that an epoch is for.

    Erase `secret` then: who holds it can derive every chain anew.
    """
    shared = epoch_secret(epoch, secret)
    return {device: sender_chain(shared, device) for device in sorted(devices)}


def check_recipients(operation: EpochOperation, devices: AbstractSet[DeviceKey]) -> None:
    """Raise Inadmissible unless the epoch is for exactly these devices, sealed or skipped.

    devices: those of the membership in the causal past of the epoch's entry, or of the control
    heads of a content entry that names it.
    """
    root = _root_without(devices, operation.skipped)
    if root is None:
        raise Inadmissible("an epoch that skips a device of no member (SPEC 4.2)")
    if operation.recipients_root != root:
        raise Inadmissible("an epoch for others than the devices of the members (SPEC 4.2)")


def _root_without(devices: AbstractSet[DeviceKey], skipped: Sequence[DeviceKey]) -> bytes | None:
    """Return the root over all devices but those skipped; None if one of these is none of them."""
    sealed = devices - set(skipped)
    return recipients_root(sealed) if len(sealed) + len(skipped) == len(devices) else None


def check_shareable(operation: EpochOperation, history: HistoryRule) -> None:
    """Raise Inadmissible unless an epoch says of sharing what the policy there says.

    history: of the policy in the causal past of the epoch's entry, or of the control heads of a
    content entry that names it. So nobody makes secret history shareable, or the other way round.
    """
    if operation.shareable != (history is HistoryRule.SHARED):
        raise Inadmissible("an epoch that says otherwise than the policy what is shared (SPEC 4.2)")


def check_departures(history: History, epoch: EpochEntry, past: int) -> None:
    """Raise Inadmissible if a content entry whose control heads have this past outlives its epoch.

    A channel's epochs do not name its readers, so nothing else tells that one of them is out.
    """
    if _outlived(history, epoch, past):
        raise Inadmissible("an epoch that began before somebody was put out (SPEC 4.6)")


def _outlived(history: History, epoch: EpochEntry, past: int) -> bool:
    began = history.pasts[epoch.index]
    return history.is_channel and bool(history.authority.departures(past) & ~began)


def author_prekey(operation: EpochOperation, author: DeviceKey) -> Prekey:
    """Return the fresh prekey that an epoch brought. Raises Untrusted if it is another device's."""
    prekey = verify_prekey(operation.prekey)
    if prekey.device != author:
        raise Untrusted("an epoch brings a prekey of another device than its author (SPEC 4.2)")
    return prekey


def rank(history: History, epoch: EntryId) -> tuple[int, int]:
    """Return what epochs are compared by; greater is better: deeper first, then the smaller id.

    Raises UsageError if no epoch of this id is held.
    """
    found = history.epoch(epoch)
    if found is None:
        raise UsageError(f"no epoch {epoch.hex()[:16]} in this history")
    return found.depth, -int.from_bytes(epoch)


def eligible(
    history: History,
    past: int,
    membership: Membership,
    current: EntryId | None,
    unusable: AbstractSet[EntryId],
) -> EntryId | None:
    """Return the epoch to write the next message in, None if a new one must be started.

    past: of our control heads, membership: as it is there. current: the epoch of our message
    before, if any; the result is that or one of better rank. unusable: epochs that we cannot or
    will not use: no secret, older than `EPOCH_RENEW_SECONDS`, or `EPOCH_MESSAGES_MAX` reached.
    """
    return next(choices(history, past, membership, current, unusable), None)


def choices(
    history: History,
    past: int,
    membership: Membership,
    current: EntryId | None,
    unusable: AbstractSet[EntryId],
) -> Iterator[EntryId]:
    """Yield all that `eligible` may return, the best first: members can start many."""
    least = None if current is None else rank(history, current)
    root = cache(partial(_root_without, membership.sealed))
    held = (history.entries[index].id for index in bits(history.epochs & past))
    ranked = [(rank(history, entry), entry) for entry in held if entry not in unusable]
    for standing, entry in sorted(ranked, reverse=True):
        if least is not None and standing < least:
            return
        found = history.epoch(entry)
        if (
            found is not None
            and found.operation.recipients_root == root(found.operation.skipped)
            and found.operation.shareable == (membership.policy.history is HistoryRule.SHARED)
            and not _outlived(history, found, past)
            and void_reason(history, entry, past) is None
        ):
            yield entry
