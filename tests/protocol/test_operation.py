"""Operations (SPEC 3.2): one encoding each, and nothing unchecked gets past `decode_operation`."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.signing import Signer
from protocol import codec
from protocol.checkpoint import make_anchor
from protocol.entry import ChatId, DeviceKey, EntryId, Place, Reference
from protocol.errors import (
    Inadmissible,
    LimitExceeded,
    NotCanonical,
    PeerError,
    Unauthentic,
    Untrusted,
)
from protocol.grant import Grant
from protocol.operation import (
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
    kind_of,
)
from protocol.payload import QUORUM_LABEL, decode_operation, encode_operation, quorum_message
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.testing.cast import (
    archive_certificate,
    archive_signer,
    credential,
    grant,
    person,
    prekey_record,
)
from protocol.testing.histories import stories
from protocol.testing.story import Story

ANNA, BORIS, CLARA = person("anna@mz"), person("boris@mz"), person("clara@mvd")
STORY = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN)])
POLICY = Policy(("RU-PER", "RU-UDM"), 3600, HistoryRule.SHARED)
HEAD = Reference(BORIS.devices[0], 7, EntryId(bytes(32)))
HIGHER = Reference(DeviceKey(b"\xff" * 32), 7, EntryId(bytes(32)))
PLACE = Place(STORY.chat, ANNA.devices[0], 1, STORY.genesis.id, ())
ANCHOR = make_anchor(archive_signer(ANNA), archive_certificate(ANNA), PLACE, (HEAD,))


def granted(*grants: Grant) -> tuple[Grant, ...]:
    return tuple(sorted(grants, key=lambda one: one.credential.user.user))


def forked() -> tuple[Story, Revoke]:
    story = Story([(CLARA, Role.OWNER), (BORIS, Role.ADMIN)])
    one = story.tell(BORIS, Leave())
    other = story.retell(BORIS, Checkpoint(), one, [story.genesis])
    return story, story.exposure(one, other)


EPOCH = EpochOperation(
    suite=1,
    commit=b"c" * 32,
    shareable=True,
    recipients_root=b"d" * 32,
    skipped=(DeviceKey(b"b" * 32),),
    seals_root=b"r" * 32,
    prekey=prekey_record(ANNA.signers[0]),
)
OPERATIONS: list[Operation] = [
    Genesis(ChatKind.CHANNEL, b"n" * 16, POLICY, granted(grant(ANNA, Role.OWNER))),
    Admit(granted(grant(BORIS, Role.READER), grant(CLARA, Role.MEMBER, (0, 2)))),
    Remove(BORIS.user, (HEAD, HIGHER)),
    SetRole(BORIS.user, Role.ADMIN, ()),
    Enroll(credential(CLARA, (2,))),
    Revoke(BORIS.devices[0], None, None, (HEAD,)),
    STORY.revocation(BORIS, 0, (HEAD,)),
    SetPolicy(POLICY),
    EPOCH,
    Redact(BORIS.devices[0], 1, 9, EntryId(b"x" * 32), "не туда"),
    Leave(),
    STORY.quorum(ANNA, [Remove(BORIS.user, ()), SetPolicy(POLICY)], [BORIS, CLARA]),
    Checkpoint((HEAD,)),
    Checkpoint((HEAD, HIGHER), ANCHOR),
    Nack(EntryId(b"e" * 32), 2),
    Hold(BORIS.user, ends=False),
]


NAMES = [f"{kind_of(one).name.lower()}-{number}" for number, one in enumerate(OPERATIONS)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
class TestEachKind:
    def test_round_trip(self, operation: Operation) -> None:
        payload = encode_operation(operation)
        assert decode_operation(kind_of(operation), payload, STORY.chat) == operation

    @given(data=st.data())
    def test_changed_bytes(self, operation: Operation, data: st.DataObject) -> None:
        """A flipped bit is refused, or says something else."""
        payload = bytearray(encode_operation(operation))
        index = data.draw(st.integers(0, len(payload) - 1))
        payload[index] ^= 1 << data.draw(st.integers(0, 7))
        try:
            other = decode_operation(kind_of(operation), bytes(payload), STORY.chat)
        except PeerError:
            return
        assert other != operation
        assert encode_operation(other) == payload

    @given(data=st.data())
    def test_cut_or_longer(self, operation: Operation, data: st.DataObject) -> None:
        payload = encode_operation(operation)
        size = data.draw(st.integers(0, len(payload) - 1))
        for damaged in (payload[:size], payload + b"\xc0"):
            with pytest.raises(PeerError):
                decode_operation(kind_of(operation), damaged, STORY.chat)

    def test_another_kind(self, operation: Operation) -> None:
        payload = encode_operation(operation)
        for kind in Kind:
            if kind != kind_of(operation):
                try:
                    other = decode_operation(kind, payload, STORY.chat)
                except PeerError:
                    continue
                assert kind_of(other) == kind


@given(stories(10))
def test_whatever_is_told(story: Story) -> None:
    for told in story.told:
        chat = story.chat
        assert decode_operation(told.header.kind, told.payload, chat) == told.entry.operation


@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_bytes(kind: int, payload: bytes) -> None:
    """Bytes of no meaning are refused by a typed error, or by chance are an operation."""
    try:
        operation = decode_operation(kind, payload, STORY.chat)
    except PeerError:
        return
    assert encode_operation(operation) == payload


def test_a_fork_proof_round_trip() -> None:
    story, proof = forked()
    payload = encode_operation(proof)
    assert decode_operation(Kind.REVOKE, payload, story.chat) == proof
    with pytest.raises(Unauthentic, match="another chat or device"):
        decode_operation(Kind.REVOKE, payload, STORY.chat)
    other = encode_operation(replace(proof, device=ANNA.devices[0]))
    with pytest.raises(Unauthentic, match="another chat or device"):
        decode_operation(Kind.REVOKE, other, story.chat)


def swapped(pair: tuple[Grant, ...]) -> Admit:
    return Admit(tuple(reversed(pair)))


def refused(operation: Operation) -> Callable[[], Operation]:
    return lambda: decode_operation(kind_of(operation), encode_operation(operation), STORY.chat)


PAIR = granted(grant(BORIS, Role.MEMBER), grant(CLARA, Role.MEMBER))
DECISION = STORY.quorum(ANNA, [Remove(BORIS.user, ())], [CLARA])
GENESIS = Genesis(ChatKind.GROUP, b"n" * 16, POLICY, granted(grant(ANNA, Role.OWNER)))


@pytest.mark.parametrize(
    ("operation", "error", "words"),
    [
        (replace(GENESIS, grants=granted(grant(ANNA, Role.ADMIN))), Inadmissible, "an owner"),
        (replace(GENESIS, chat_kind=ChatKind.DIRECT), Inadmissible, "exactly two owners"),
        (replace(GENESIS, grants=()), NotCanonical, "at least one user"),
        (replace(GENESIS, policy=replace(POLICY, zones=())), NotCanonical, "at least one"),
        (replace(GENESIS, policy=replace(POLICY, zones=("RU", "KZ"))), NotCanonical, "ascending"),
        (replace(GENESIS, policy=replace(POLICY, zones=("ru",))), NotCanonical, "zone"),
        (replace(GENESIS, nonce=b""), NotCanonical, "nonce"),
        (swapped(PAIR), NotCanonical, "granted users"),
        (Admit((PAIR[0], PAIR[0])), NotCanonical, "granted users"),
        (Admit((grant(BORIS, Role.MEMBER, ()),)), NotCanonical, "at least one device"),
        (Remove(BORIS.user, (HIGHER, HEAD)), NotCanonical, "seen heads"),
        (Remove(BORIS.user, (HEAD, HEAD._replace(seq=8))), NotCanonical, "seen heads"),
        (Checkpoint((HIGHER, HEAD)), NotCanonical, "ascending"),
        (Checkpoint((), replace(ANCHOR, key=bytes(5))), NotCanonical, "ML-DSA key"),
        (Checkpoint((), replace(ANCHOR, key=bytes(1952))), Untrusted, "another ML-DSA key"),
        (Checkpoint((), replace(ANCHOR, signature=b"")), NotCanonical, "signature"),
        (replace(EPOCH, suite=2), Inadmissible, "suite 2"),
        (replace(EPOCH, recipients_root=b"d"), NotCanonical, "recipients root"),
        (replace(EPOCH, skipped=EPOCH.skipped * 2), NotCanonical, "skipped devices"),
        (replace(EPOCH, prekey=EPOCH.prekey[:-1] + b"!"), Untrusted, "prekey"),
        (replace(DECISION, signatures=DECISION.signatures * 2), NotCanonical, "co-signing"),
        (replace(DECISION, operations=()), NotCanonical, "decides something"),
        (replace(DECISION, operations=DECISION.operations * 2), NotCanonical, "once about each"),
        (replace(DECISION, until=1), Unauthentic, "quorum signature"),
        (replace(DECISION, author=BORIS.devices[0]), Unauthentic, "quorum signature"),
        (
            replace(DECISION, operations=(STORY.revocation(BORIS),)),
            NotCanonical,
            "revokes by its rank",
        ),
    ],
)
def test_refused(operation: Operation, error: type[PeerError], words: str) -> None:
    with pytest.raises(error, match=words):
        refused(operation)()


def test_devices_of_another_user() -> None:
    one, other = (grant_.credential for grant_ in PAIR)
    mixed = (int(Role.MEMBER), one.charter, one.certificate, other.devices)
    with pytest.raises(Untrusted):
        decode_operation(Kind.GRANT, codec.encode(([mixed],)), STORY.chat)


def test_no_other_kinds() -> None:
    with pytest.raises(NotCanonical, match="no operation has kind 14"):
        decode_operation(14, b"\x90", STORY.chat)


@pytest.mark.parametrize("inner", [Leave(), Nack(EntryId(bytes(32)), 0), DECISION])
def test_what_a_quorum_does_not_decide(inner: Operation) -> None:
    listed = [(int(kind_of(inner)), encode_operation(inner))]
    payload = codec.encode((ANNA.devices[0], 3, listed, []))
    with pytest.raises(NotCanonical, match="does not decide"):
        decode_operation(Kind.QUORUM, payload, STORY.chat)


def test_a_quorum_may_decide_all_these() -> None:
    parts: list[Inner] = [
        Admit(PAIR),
        Remove(ANNA.user, ()),
        SetRole(person("dina@mvd").user, Role.OWNER, ()),
        Revoke(BORIS.devices[1], None, None, ()),
        SetPolicy(POLICY),
    ]
    decision = STORY.quorum(ANNA, parts, [BORIS])
    assert decode_operation(Kind.QUORUM, encode_operation(decision), STORY.chat) == decision


def test_a_quorum_is_signed_for_one_chat() -> None:
    other = ChatId(b"o" * 32)
    message = quorum_message(other, ANNA.devices[0], 999, DECISION.operations)
    stranger = Signer(b"s" * 32)
    signed = CoSignature(DeviceKey(stranger.public), stranger.sign(QUORUM_LABEL, message))
    decision = Quorum(ANNA.devices[0], 999, DECISION.operations, (signed,))
    payload = encode_operation(decision)
    assert decode_operation(Kind.QUORUM, payload, other) == decision
    with pytest.raises(Unauthentic):
        decode_operation(Kind.QUORUM, payload, STORY.chat)


def test_a_revocation_is_signed_for_one_chat_and_device() -> None:
    signed = STORY.revocation(BORIS)
    for chat, operation in (
        (ChatId(b"o" * 32), signed),
        (STORY.chat, replace(signed, device=BORIS.devices[1])),
    ):
        with pytest.raises(Unauthentic, match="revoke signature"):
            decode_operation(Kind.REVOKE, encode_operation(operation), chat)


def test_limits() -> None:
    heads = tuple(
        Reference(DeviceKey(bytes([number]) * 32), 0, EntryId(bytes(32))) for number in range(33)
    )
    many = tuple(
        Reference(DeviceKey(number.to_bytes(32)), 0, EntryId(bytes(32))) for number in range(513)
    )
    for operation in (Remove(BORIS.user, heads), Checkpoint(many)):
        with pytest.raises(LimitExceeded):
            refused(operation)()
    with pytest.raises(LimitExceeded):
        refused(Redact(BORIS.devices[0], 1, 0, EntryId(bytes(32)), "x" * 513))()
    with pytest.raises(LimitExceeded):
        refused(Nack(EntryId(bytes(32)), 256))()
    assert refused(Nack(EntryId(bytes(32)), 255))() == Nack(EntryId(bytes(32)), 255)
