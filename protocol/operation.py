"""Operations: what a control entry says (SPEC 3.2).

`payload` writes and reads them. Who may do what, and what has any effect, is for `membership`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from protocol.checkpoint import Anchor
from protocol.entry import DeviceKey, EntryId, Reference
from protocol.fork import Fork
from protocol.grant import Credential, Grant
from protocol.identity import UserId
from protocol.policy import ChatKind, Policy, Role

NONCE_BYTES: Final = 16
SUITE: Final = 1  # X-Wing, HKDF-SHA256, ChaCha20-Poly1305, XChaCha20-Poly1305
LANE_MAX: Final = 1
REASON_BYTES_MAX: Final = 512
REASON_CODE_MAX: Final = 255
SIGNERS_MAX: Final = 64
CHECKPOINT_HEADS_MAX: Final = 512  # 38 KB: what is left waits for the next checkpoint


class Kind(IntEnum):
    """The number by which a control header names its operation."""

    GENESIS = 0
    GRANT = 1
    REMOVE = 2
    ROLE = 3
    ENROLL = 4
    REVOKE = 5
    POLICY = 6
    EPOCH = 7
    REDACT = 8
    LEAVE = 9
    QUORUM = 10
    CHECKPOINT = 11
    NACK = 12
    HOLD = 13


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first entry of a chat; its id is the chat's id."""

    chat_kind: ChatKind
    nonce: bytes
    policy: Policy
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Admit:
    """Take users in, or give members a higher role."""

    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Put a user out. seen: the heads of their content that the author has."""

    user: UserId
    seen: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class SetRole:
    """Change a member's role. seen: as in Remove, counts where the new role may not write."""

    user: UserId
    role: Role
    seen: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Enroll:
    """Bring a further device of the author's own user into the chat: one device."""

    credential: Credential


@dataclass(frozen=True, slots=True)
class UserSignature:
    """The identity key of `user` over label "revoke", chat, device and `seen`."""

    user: UserId
    signature: bytes


@dataclass(frozen=True, slots=True)
class Revoke:
    """Put a device out, by rank, by a fork proof, or by its user's identity key."""

    device: DeviceKey
    fork: Fork | None
    by_user: UserSignature | None
    seen: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Set the policy anew; zones can only narrow."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class EpochOperation:
    """Start an epoch (SPEC 4.2). prekey: the author's fresh prekey record, as signed.

    The recipients are the devices of the members that the author had seen, but for those skipped.
    They need no list, only a digest that shows that all mean the same.
    """

    suite: int
    commit: bytes
    shareable: bool
    recipients_root: bytes
    skipped: tuple[DeviceKey, ...]
    seals_root: bytes
    prekey: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Redact:
    """Ask every node to drop the payload of one entry."""

    device: DeviceKey
    lane: int
    seq: int
    id: EntryId
    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Go."""


@dataclass(frozen=True, slots=True)
class CoSignature:
    """One owner's device over label "quorum" and `quorum_message`."""

    device: DeviceKey
    signature: bytes


Inner = Admit | Remove | SetRole | Revoke | SetPolicy


@dataclass(frozen=True, slots=True)
class Quorum:
    """What two thirds of the owners decided.

    author: the device that must publish it. until: the last seq of the author's control lane at
    which it may stand; it also tells two decisions of one author apart, so none counts twice.
    """

    author: DeviceKey
    until: int
    operations: tuple[Inner, ...]
    signatures: tuple[CoSignature, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Content heads that the author vouches for, perhaps with an ML-DSA signature (SPEC 2.7)."""

    heads: tuple[Reference, ...] = ()
    anchor: Anchor | None = None


@dataclass(frozen=True, slots=True)
class Nack:
    """Tell that one's seal of an epoch is wrong."""

    epoch: EntryId
    reason: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Name a member as custodian: their agency's node and their devices keep what ages (SPEC 2.6).

    ends: whether this ends an earlier one.
    """

    user: UserId
    ends: bool


Operation = (
    Genesis
    | Admit
    | Remove
    | SetRole
    | Enroll
    | Revoke
    | SetPolicy
    | EpochOperation
    | Redact
    | Leave
    | Quorum
    | Checkpoint
    | Nack
    | Hold
)

_KINDS: Final[Mapping[type[Operation], Kind]] = {
    Genesis: Kind.GENESIS,
    Admit: Kind.GRANT,
    Remove: Kind.REMOVE,
    SetRole: Kind.ROLE,
    Enroll: Kind.ENROLL,
    Revoke: Kind.REVOKE,
    SetPolicy: Kind.POLICY,
    EpochOperation: Kind.EPOCH,
    Redact: Kind.REDACT,
    Leave: Kind.LEAVE,
    Quorum: Kind.QUORUM,
    Checkpoint: Kind.CHECKPOINT,
    Nack: Kind.NACK,
    Hold: Kind.HOLD,
}


def kind_of(operation: Operation) -> Kind:
    """Return the number that the header of this operation's entry carries."""
    return _KINDS[type(operation)]


def credentials(operation: Operation) -> Iterator[Credential]:
    """Yield the credentials that an operation brings along: of users, and of one's own device."""
    match operation:
        case Genesis() | Admit():
            yield from (grant.credential for grant in operation.grants)
        case Enroll(credential):
            yield credential
        case Quorum():
            for inner in operation.operations:
                yield from credentials(inner)
        case _:
            return
