"""Epochs: one secret for all devices of a chat, and the chains that start from it (SPEC 4).

    operation, seals = build(place, secret, recipients, skipped, prekey, shareable=False)
    secret = open_seal(place_of(header), operation, device, private, seal, path)
    chains = sender_chains(epoch_id, secret, operation)     # then erase the secret

Whoever starts an epoch names every device of the membership that they have seen, and `commit` binds
them to one secret for all. A seal says for whom, in which entry, of which chat it is.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum
from hmac import compare_digest

from crypto import merkle, sealing
from crypto.errors import SealRefused
from crypto.labels import digest
from crypto.schedule import commitment, epoch_context, epoch_secret, seal_info, sender_chain
from crypto.sealing import prekey_id
from protocol import codec
from protocol.dag import EpochEntry, bits
from protocol.entry import DeviceKey, EntryId, Place
from protocol.errors import Inadmissible, Untrusted, UsageError
from protocol.history import History
from protocol.identity import Prekey, verify_prekey
from protocol.membership import void_reason
from protocol.operation import SUITE, EpochOperation, Recipient, recipients_fields
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


def recipients_root(recipients: Sequence[Recipient]) -> bytes:
    """Return the 32-byte digest by which the context names the recipients."""
    return digest("recipients", codec.encode(recipients_fields(recipients)))


def context(place: Place, operation: EpochOperation) -> bytes:
    """Return ectx, 32 bytes: chat, author, position, view, suite, recipients and shareable flag."""
    return _context(place, operation.recipients, shareable=operation.shareable)


def _context(place: Place, recipients: Sequence[Recipient], *, shareable: bool) -> bytes:
    root = recipients_root(recipients)
    return epoch_context(codec.encode((*place, SUITE, root, int(shareable))))


def build(
    place: Place,
    secret: bytes,
    recipients: Mapping[DeviceKey, bytes],
    skipped: AbstractSet[DeviceKey],
    prekey: bytes,
    *,
    shareable: bool,
) -> tuple[EpochOperation, list[bytes]]:
    """Seal a secret for each recipient; return the operation and the seals, in its order.

    secret: 32 random bytes. recipients: the public prekey, 1,216 bytes, of each device. skipped:
    devices of members without a valid prekey. prekey: the author's fresh prekey record.
    Raises crypto's SealRefused for a malformed public prekey: skip that device.
    """
    listed = tuple(Recipient(one, prekey_id(public)) for one, public in sorted(recipients.items()))
    ectx = _context(place, listed, shareable=shareable)
    commit = commitment(secret, ectx)
    seals = [
        sealing.seal(recipients[one.device], _seal_info(ectx, commit, one), secret)
        for one in listed
    ]
    operation = EpochOperation(
        suite=SUITE,
        commit=commit,
        shareable=shareable,
        recipients=listed,
        skipped=tuple(sorted(skipped)),
        seals_root=merkle.root(seals),
        prekey=prekey,
    )
    return operation, seals


def _seal_info(ectx: bytes, commit: bytes, recipient: Recipient) -> bytes:
    return seal_info(codec.encode((ectx, commit, recipient.device, recipient.prekey)))


def position(operation: EpochOperation, device: DeviceKey) -> int | None:
    """Return the number of a device's seal in the tree, None if it is no recipient."""
    found = (index for index, one in enumerate(operation.recipients) if one.device == device)
    return next(found, None)


def check_seal(
    operation: EpochOperation, device: DeviceKey, seal: bytes, path: Sequence[bytes]
) -> Recipient:
    """Check, without any key, that a seal is the one that the entry commits to for a device.

    path: siblings as `crypto.merkle.paths` gives them, from whoever kept them. Raises BadSeal.
    """
    index = position(operation, device)
    if index is None or not merkle.check(
        operation.seals_root, seal, index, len(operation.recipients), path
    ):
        raise BadSeal(NackReason.NOT_IN_TREE, "no such seal under the entry's root (SPEC 4.2)")
    return operation.recipients[index]


def open_seal(
    place: Place,
    operation: EpochOperation,
    device: DeviceKey,
    private: bytes,
    seal: bytes,
    path: Sequence[bytes],
) -> bytes:
    """Return the epoch's secret, 32 bytes.

    device: our own. private: the 32 bytes of the prekey that the entry names for it.
    Raises BadSeal, with the reason for a nack.
    """
    recipient = check_seal(operation, device, seal, path)
    ectx = context(place, operation)
    try:
        info = _seal_info(ectx, operation.commit, recipient)
        secret = sealing.open_seal(private, info, seal)
    except SealRefused:
        raise BadSeal(NackReason.DOES_NOT_OPEN, "the seal does not open (SPEC 4.2)") from None
    if not compare_digest(commitment(secret, ectx), operation.commit):
        raise BadSeal(NackReason.WRONG_COMMITMENT, "not the secret committed to (SPEC 4.2)")
    return secret


def sender_chains(
    epoch: EntryId, secret: bytes, operation: EpochOperation
) -> dict[DeviceKey, bytes]:
    """Return the first chain key, 32 bytes, of each device that may send in this epoch.

    Erase `secret` then: who holds it can derive every chain anew.
    """
    shared = epoch_secret(epoch, secret)
    return {device: sender_chain(shared, device) for device in sorted(named(operation))}


def named(operation: EpochOperation) -> frozenset[DeviceKey]:
    """Return the devices an epoch is for: recipients and those skipped for want of a prekey."""
    return frozenset(one.device for one in operation.recipients) | frozenset(operation.skipped)


def check_recipients(operation: EpochOperation, devices: AbstractSet[DeviceKey]) -> None:
    """Raise Inadmissible unless the epoch is for exactly these devices, each named once.

    devices: those of the membership in the causal past of the epoch's entry, or of the control
    heads of a content entry that names it.
    """
    present = named(operation)
    if len(present) != len(operation.recipients) + len(operation.skipped):
        raise Inadmissible("an epoch names a device twice (SPEC 4.2)")
    if ghosts := present - devices:
        raise Inadmissible(f"an epoch for {len(ghosts)} devices of no member (SPEC 4.2)")
    if lacking := devices - present:
        raise Inadmissible(f"an epoch that leaves out {len(lacking)} devices (SPEC 4.2)")


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
    least = None if current is None else rank(history, current)
    held = (history.entries[index].id for index in bits(history.epochs & past))
    ranked = [(rank(history, entry), entry) for entry in held if entry not in unusable]
    for standing, entry in sorted(ranked, reverse=True):
        if least is not None and standing < least:
            return None
        found = history.epoch(entry)
        if (
            found is not None
            and named(found.operation) == membership.sealed
            and found.operation.shareable == (membership.policy.history is HistoryRule.SHARED)
            and not _outlived(history, found, past)
            and void_reason(history, entry, past) is None
        ):
            return entry
    return None
