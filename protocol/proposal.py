"""What owners say to each other before a decision that needs several of them (SPEC 5.9).

    m = [4, until, [[kind, payload]…]] · [5, proposal, signature]

The proposal's author publishes the decision once two thirds have signed `quorum_message`. Nothing
counts before: these are messages, and only the `quorum` entry that comes of them changes the chat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from crypto.errors import BadSignature
from crypto.signing import verify
from protocol import codec
from protocol.entry import ChatId, DeviceKey, Reference
from protocol.errors import LimitExceeded
from protocol.field import read_reference, read_signature
from protocol.limits import SEQ_MAX, TEXT_BYTES_MAX
from protocol.operation import Inner
from protocol.payload import QUORUM_LABEL, decision_fields, quorum_message, read_decisions

_PROPOSAL, _CONSENT = 4, 5


@dataclass(frozen=True, slots=True)
class Proposal:
    """Asks the owners to decide this. until: as in the `quorum` entry that its author makes."""

    until: int
    operations: tuple[Inner, ...]


@dataclass(frozen=True, slots=True)
class Consent:
    """An owner's device signs the decision that a proposal names, label "quorum"."""

    proposal: Reference
    signature: bytes = field(repr=False)


Motion = Proposal | Consent


def motion_fields(motion: Motion) -> Sequence[codec.Value]:
    """Return the fields of a plaintext. Raises LimitExceeded."""
    match motion:
        case Proposal(until, operations):
            decisions = decision_fields(operations)
            _check_size(decisions)
            return (_PROPOSAL, until, decisions)
        case Consent(proposal, signature):
            return (_CONSENT, proposal, signature)


def read_proposal(until: object, decisions: object) -> Proposal:
    """Read a proposal's fields: the decisions pass every check of 3.2. Raises PeerError."""
    found = read_decisions(decisions)
    _check_size(decision_fields(found))
    return Proposal(codec.uint(until, SEQ_MAX, "until"), found)


def read_consent(proposal: object, signature: object) -> Consent:
    """Read a consent's fields; `signs` checks the signature. Raises PeerError."""
    return Consent(read_reference(proposal), read_signature(signature))


def signs(
    chat: ChatId, author: DeviceKey, proposal: Proposal, device: DeviceKey, signature: bytes
) -> bool:
    """Whether this is a device's signature under the decision. author: the proposal's device."""
    message = quorum_message(chat, author, proposal.until, proposal.operations)
    try:
        verify(device, QUORUM_LABEL, message, signature)
    except BadSignature:
        return False
    return True


def needed(owners: int) -> int:
    """Return how many of so many owners decide: two thirds, rounded up (SPEC 3.3)."""
    return -(-2 * owners // 3)


def _check_size(decisions: Sequence[tuple[int, bytes]]) -> None:
    size = sum(len(payload) for _, payload in decisions)
    if size > TEXT_BYTES_MAX:
        raise LimitExceeded(f"decisions of {size} bytes, at most {TEXT_BYTES_MAX} (SPEC 5.9)")
