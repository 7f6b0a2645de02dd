"""The payload of a control entry: how an operation is written, read, and signed inside (SPEC 3.2).

`decode_operation` returns only what passed every check that needs no other entry: canonical bytes,
limits, certificates, fork proofs, signatures of users and co-signing owners. Who may do it, and
whether it has any effect, is decided by `membership`.

    payload = encode_operation(operation)
    operation = decode_operation(kind_of(operation), payload, chat)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from crypto.errors import BadSignature
from crypto.signing import verify
from protocol import codec, field
from protocol.checkpoint import anchor_fields, read_anchor
from protocol.entry import ChatId, DeviceKey, Reference
from protocol.errors import Inadmissible, NotCanonical, Unauthentic
from protocol.fork import verify_fork
from protocol.grant import grant_fields, read_credential, read_grants
from protocol.identity import PREKEY_RECORD_BYTES_MAX, verify_prekey
from protocol.limits import DEVICES_CHAT_MAX, GRANTS_MAX, HASH_BYTES, OPERATION_BYTES_MAX, SEQ_MAX
from protocol.operation import (
    CHECKPOINT_HEADS_MAX,
    LANE_MAX,
    NONCE_BYTES,
    REASON_BYTES_MAX,
    REASON_CODE_MAX,
    SIGNERS_MAX,
    SUITE,
    Admit,
    Checkpoint,
    CoSignature,
    Enroll,
    EpochOperation,
    Genesis,
    Hold,
    Inner,
    Kind,
    Leave,
    Nack,
    Operation,
    Quorum,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
    UserSignature,
    kind_of,
)
from protocol.policy import ChatKind, Role, policy_fields, read_policy

REVOKE_LABEL: Final = "revoke"
QUORUM_LABEL: Final = "quorum"


def encode_operation(operation: Operation) -> bytes:
    """Return the canonical payload."""
    return codec.encode(_fields(operation))


def revoke_message(chat: ChatId, device: DeviceKey, seen: Sequence[Reference]) -> bytes:
    """Return what a user's identity key signs, label "revoke", to put a device out of a chat.

    Also what it had written by then: others could else bring the signature again without that.
    """
    return codec.encode((chat, device, tuple(seen)))


def quorum_message(
    chat: ChatId, author: DeviceKey, until: int, operations: Sequence[Inner]
) -> bytes:
    """Return what each co-signing owner's device signs under label "quorum"."""
    return codec.encode((chat, author, until, decision_fields(operations)))


def _fields(operation: Operation) -> codec.Value:
    fields: codec.Value
    match operation:
        case Genesis(chat_kind, nonce, policy, grants):
            listed = [grant_fields(one) for one in grants]
            fields = (int(chat_kind), nonce, policy_fields(policy), listed)
        case Admit(grants):
            fields = ([grant_fields(one) for one in grants],)
        case Remove(user, seen):
            fields = (user, seen)
        case SetRole(user, role, seen):
            fields = (user, int(role), seen)
        case Enroll(credential):
            fields = (credential.charter, credential.certificate, credential.devices[0])
        case Revoke(device, fork, by_user, seen):
            signed = None if by_user is None else (by_user.user, by_user.signature)
            fields = (device, None if fork is None else fork.proof, signed, seen)
        case SetPolicy(policy):
            fields = (policy_fields(policy),)
        case _:
            fields = _other_fields(operation)
    return fields


def _other_fields(
    operation: EpochOperation | Redact | Leave | Quorum | Checkpoint | Nack | Hold,
) -> codec.Value:
    match operation:
        case EpochOperation(suite, commit, shareable, recipients, skipped, seals, prekey):
            return (suite, commit, int(shareable), recipients, skipped, seals, prekey)
        case Redact(device, lane, seq, entry, reason):
            return (device, lane, seq, entry, reason.encode())
        case Leave():
            return ()
        case Quorum(author, until, operations, signatures):
            co_signed = [(one.device, one.signature) for one in signatures]
            return (author, until, decision_fields(operations), co_signed)
        case Checkpoint(heads, anchor):
            return (heads, *anchor_fields(anchor))
        case Nack(about, number) | Hold(about, number):
            return (about, int(number))


def decision_fields(operations: Sequence[Inner]) -> list[tuple[int, bytes]]:
    """Return [[kind, payload]…] of what a quorum decides, for `codec.encode`."""
    return [(int(kind_of(one)), encode_operation(one)) for one in operations]


def decode_operation(kind: int, payload: bytes, chat: ChatId) -> Operation:
    """Decode and check a payload; `membership` judges the rest.

    kind: of the header. chat: the entry's chat, which signatures inside are bound to.
    Raises NotCanonical, LimitExceeded, Untrusted, Unauthentic or Inadmissible.
    """
    reader = _READERS.get(kind)
    if reader is None:
        raise NotCanonical(f"no operation has kind {kind} (SPEC 3.2)")
    size, read = reader
    fields = codec.decode(payload, OPERATION_BYTES_MAX)
    return read(codec.record(fields, size, Kind(kind).name.lower()), chat)


def _read_genesis(fields: Sequence[object], _: ChatId) -> Genesis:
    genesis = Genesis(
        chat_kind=ChatKind(codec.uint(fields[0], max(ChatKind), "chat kind")),
        nonce=codec.fixed(fields[1], NONCE_BYTES, "nonce"),
        policy=read_policy(fields[2]),
        grants=read_grants(fields[3]),
    )
    owners = [grant for grant in genesis.grants if grant.role == Role.OWNER]
    if not owners:
        raise Inadmissible("a chat begins with an owner (SPEC 3.2)")
    if genesis.chat_kind == ChatKind.DIRECT and (len(genesis.grants), len(owners)) != (2, 2):
        raise Inadmissible("a direct chat is between exactly two owners (SPEC 3.2)")
    return genesis


def _read_admit(fields: Sequence[object], _: ChatId) -> Admit:
    return Admit(read_grants(fields[0]))


def _read_remove(fields: Sequence[object], _: ChatId) -> Remove:
    return Remove(field.read_user(fields[0]), field.read_seen(fields[1]))


def _read_set_role(fields: Sequence[object], _: ChatId) -> SetRole:
    return SetRole(
        field.read_user(fields[0]), field.read_role(fields[1]), field.read_seen(fields[2])
    )


def _read_enroll(fields: Sequence[object], _: ChatId) -> Enroll:
    return Enroll(read_credential(fields[0], fields[1], fields[2:]))


def _read_revoke(fields: Sequence[object], chat: ChatId) -> Revoke:
    device = field.read_device(fields[0])
    fork = None
    if fields[1] is not None:
        fork = verify_fork(codec.binary(fields[1], OPERATION_BYTES_MAX, "fork proof"))
        if (fork.chat, fork.device) != (chat, device):
            raise Unauthentic("the fork proof is of another chat or device (SPEC 2.5)")
    by_user, seen = None, field.read_seen(fields[3])
    if fields[2] is not None:
        user, signature = codec.record(fields[2], 2, "user signature")
        by_user = UserSignature(field.read_user(user), field.read_signature(signature))
        message = revoke_message(chat, device, seen)
        _check_signature(by_user.user, REVOKE_LABEL, message, by_user.signature)
    return Revoke(device, fork, by_user, seen)


def _read_set_policy(fields: Sequence[object], _: ChatId) -> SetPolicy:
    return SetPolicy(read_policy(fields[0]))


def _read_epoch(fields: Sequence[object], _: ChatId) -> EpochOperation:
    suite = codec.uint(fields[0], SEQ_MAX, "suite")
    if suite != SUITE:
        raise Inadmissible(f"suite {suite}, this version knows {SUITE} (SPEC 4.2)")
    skipped = tuple(
        field.read_device(item)
        for item in codec.array(fields[4], DEVICES_CHAT_MAX, "skipped devices")
    )
    field.check_ascending(skipped, "skipped devices")
    return EpochOperation(
        suite=suite,
        commit=codec.fixed(fields[1], HASH_BYTES, "commitment"),
        shareable=bool(codec.uint(fields[2], 1, "shareable")),
        recipients_root=codec.fixed(fields[3], HASH_BYTES, "recipients root"),
        skipped=skipped,
        seals_root=codec.fixed(fields[5], HASH_BYTES, "seals root"),
        prekey=verify_prekey(codec.binary(fields[6], PREKEY_RECORD_BYTES_MAX, "prekey")).raw,
    )


def _read_redact(fields: Sequence[object], _: ChatId) -> Redact:
    return Redact(
        device=field.read_device(fields[0]),
        lane=codec.uint(fields[1], LANE_MAX, "lane"),
        seq=codec.uint(fields[2], SEQ_MAX, "seq"),
        id=field.read_entry(fields[3]),
        reason=codec.text(fields[4], REASON_BYTES_MAX, "reason"),
    )


def _read_leave(_: Sequence[object], __: ChatId) -> Leave:
    return Leave()


def _read_quorum(fields: Sequence[object], chat: ChatId) -> Quorum:
    author = field.read_device(fields[0])
    until = codec.uint(fields[1], SEQ_MAX, "until")
    operations = read_decisions(fields[2])
    signatures = tuple(
        _read_co_signature(item) for item in codec.array(fields[3], SIGNERS_MAX, "signatures")
    )
    field.check_ascending([one.device for one in signatures], "co-signing devices")
    message = quorum_message(chat, author, until, operations)
    for one in signatures:
        _check_signature(one.device, QUORUM_LABEL, message, one.signature)
    return Quorum(author, until, operations, signatures)


def read_decisions(value: object) -> tuple[Inner, ...]:
    """Read what a quorum decides, or is asked to. Raises PeerError, as `decode_operation` does."""
    operations = tuple(_read_inner(item) for item in codec.array(value, GRANTS_MAX, "operations"))
    _check_once(operations)
    return operations


def _read_inner(item: object) -> Inner:
    kind, payload = codec.record(item, 2, "operation")
    number = codec.uint(kind, max(Kind), "kind")
    raw = codec.binary(payload, OPERATION_BYTES_MAX, "operation")
    if number == Kind.REVOKE and codec.decode(raw, OPERATION_BYTES_MAX)[1:3] != (None, None):
        raise NotCanonical("a quorum revokes by its rank, with no other proof (SPEC 3.2)")
    operation = decode_operation(number, raw, _ANY_CHAT) if number in _INNER_KINDS else None
    if not isinstance(operation, Inner):
        raise NotCanonical(f"a quorum does not decide about kind {number} (SPEC 3.2)")
    return operation


def _check_once(operations: Sequence[Inner]) -> None:
    """One entry says one thing of one user or device, and one thing of the policy."""
    targets: list[bytes] = []
    for operation in operations:
        match operation:
            case Admit(grants):
                targets += [grant.credential.user.user for grant in grants]
            case Remove(user) | SetRole(user):
                targets.append(user)
            case Revoke(device):
                targets.append(device)
            case SetPolicy():
                targets.append(b"")
    if not targets or len(set(targets)) != len(targets):
        raise NotCanonical("a quorum decides something, and once about each target (SPEC 3.2)")


def _read_co_signature(item: object) -> CoSignature:
    device, signature = codec.record(item, 2, "co-signature")
    return CoSignature(field.read_device(device), field.read_signature(signature))


def _read_checkpoint(fields: Sequence[object], _: ChatId) -> Checkpoint:
    return Checkpoint(field.read_heads(fields[0], CHECKPOINT_HEADS_MAX), read_anchor(fields[1:]))


def _read_nack(fields: Sequence[object], _: ChatId) -> Nack:
    return Nack(field.read_entry(fields[0]), codec.uint(fields[1], REASON_CODE_MAX, "reason code"))


def _read_hold(fields: Sequence[object], _: ChatId) -> Hold:
    return Hold(field.read_user(fields[0]), bool(codec.uint(fields[1], 1, "end of a hold")))


def _check_signature(public: bytes, label: str, message: bytes, signature: bytes) -> None:
    try:
        verify(public, label, message, signature)
    except BadSignature:
        raise Unauthentic(f"a bad {label} signature inside the operation (SPEC 3.2)") from None


_ANY_CHAT: Final = ChatId(bytes(HASH_BYTES))  # no kind inside a quorum names its chat
_INNER_KINDS: Final = frozenset({Kind.GRANT, Kind.REMOVE, Kind.ROLE, Kind.REVOKE, Kind.POLICY})
_READERS: Final[Mapping[int, tuple[int, Callable[[Sequence[object], ChatId], Operation]]]] = {
    Kind.GENESIS: (4, _read_genesis),
    Kind.GRANT: (1, _read_admit),
    Kind.REMOVE: (2, _read_remove),
    Kind.ROLE: (3, _read_set_role),
    Kind.ENROLL: (3, _read_enroll),
    Kind.REVOKE: (4, _read_revoke),
    Kind.POLICY: (1, _read_set_policy),
    Kind.EPOCH: (7, _read_epoch),
    Kind.REDACT: (5, _read_redact),
    Kind.LEAVE: (0, _read_leave),
    Kind.QUORUM: (4, _read_quorum),
    Kind.CHECKPOINT: (4, _read_checkpoint),
    Kind.NACK: (2, _read_nack),
    Kind.HOLD: (2, _read_hold),
}
