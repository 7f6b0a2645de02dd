"""Questions to a node's directory (SPEC 7.1); `reply` has what it answers.

They travel in ASK frames. Bodies are canonical, see `codec`.

    topic, body = encode_question(Lookup(names=("anna@minzdrav",)))
    people = decode_answer(topic, code, reply)           # raises Refusal if code is not 0

What a certificate or a prekey says is not checked in decoding: `identity` does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple

from protocol import codec
from protocol.codec import Value
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import NotCanonical
from protocol.field import check_ascending
from protocol.identity import CERTIFICATE_BYTES_MAX, AgencyId, UserId
from protocol.invitation import TICKET_BYTES
from protocol.limits import HASH_BYTES, INCARNATION_BYTES, KEY_BYTES, SEQ_MAX, SIGNATURE_BYTES
from protocol.listing import HEAD_BYTES_MAX
from protocol.topic import (
    BLOBS_ASKED_MAX,
    HEADS_SEEN_MAX,
    LOOKUP_MAX,
    NUMBER_MAX,
    PARCEL_BYTES_MAX,
    PROOF_BYTES_MAX,
    QUESTION_BYTES_MAX,
    RECEIPTS_ASKED_MAX,
    TAKEN_MAX,
    Fields,
    Topic,
    read_address,
    read_archive_key,
    read_device,
    read_prekey,
    read_request,
    read_splits,
    read_tls_key,
)


@dataclass(frozen=True, slots=True)
class Enrol:
    """An invited person's first device asks for certificates. tls_key: public, PEM.

    archive_key: the device's ML-DSA key.
    """

    user_request: bytes = field(repr=False)
    device_request: bytes = field(repr=False)
    tls_key: bytes = field(repr=False)
    prekey: bytes = field(repr=False)
    archive_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Asks for people by name (`anna@minzdrav`) and by id."""

    names: tuple[str, ...] = ()
    users: tuple[UserId, ...] = ()


@dataclass(frozen=True, slots=True)
class PutPrekey:
    """A device's fresh prekey record."""

    prekey: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PutParcel:
    """A sealed bundle for another device of the same user."""

    device: DeviceKey
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Forward:
    """A sealed bundle for a device of another member of a chat, and of which agency it is."""

    chat: ChatId
    agency: AgencyId
    device: DeviceKey
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GetParcels:
    """Asks for what waits for the asking device."""


@dataclass(frozen=True, slots=True)
class Taken:
    """These parcels are kept at the device: delete them."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BeginLink:
    """A device asks for an invitation for a further device of its user."""


@dataclass(frozen=True, slots=True)
class PutLink:
    """A further device presents itself: `identity.request_link`, TLS key (PEM), prekey record.

    archive_key: its ML-DSA key.
    """

    request: bytes = field(repr=False)
    tls_key: bytes = field(repr=False)
    prekey: bytes = field(repr=False)
    archive_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GetLink:
    """A further device asks whether it was approved."""


@dataclass(frozen=True, slots=True)
class GetPending:
    """A device asks which further devices of its user wait for approval."""


@dataclass(frozen=True, slots=True)
class Approve:
    """The user endorses a further device: `identity.endorse_link`."""

    ticket: bytes = field(repr=False)
    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GetCard:
    """Asks for the agency's own card if that is newer.

    serial: of the charter in the one that the asker has, 0 for none.
    """

    serial: int


@dataclass(frozen=True, slots=True)
class GetCards:
    """A device asks for the cards of other agencies that its node has taken since it last asked.

    incarnation, since: as the answer before said; 16 zero bytes and 0 at first.
    """

    incarnation: bytes
    since: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """The user gives up a device: `identity.sign_revocation`."""

    device: DeviceKey
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Renew:
    """A device asks for a new TLS certificate. tls_key: public, PEM."""

    tls_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rename:
    """A device asks for another label. request: `identity.request_device`, for its own key."""

    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertifySigner:
    """Asks for a certificate for signing documents (SPEC 6.1).

    signing_key: public, PEM. proof: `crypto.signatory.prove_possession` by that key.
    """

    signing_key: bytes = field(repr=False)
    proof: bytes = field(repr=False)


class Seen(NamedTuple):
    """The newest head of an agency's directory that the asker has seen."""

    agency: AgencyId
    serial: int
    id: bytes


@dataclass(frozen=True, slots=True)
class Witness:
    """Compares directories: the newest heads seen, and proofs against agencies (`listing`).

    head: the newest of whom is asked, None if none was seen: they may have lost it; or a new one
    of who asks, who may be lost.
    """

    seen: tuple[Seen, ...]
    splits: tuple[bytes, ...] = field(repr=False)
    head: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class GetDirectory:
    """Asks for the heads of an agency's directory that follow a number."""

    agency: AgencyId
    serial: int


@dataclass(frozen=True, slots=True)
class GetReceipts:
    """Asks who has dropped these payloads: a node for its own word, a device for everybody's."""

    chat: ChatId
    entries: tuple[EntryId, ...]


@dataclass(frozen=True, slots=True)
class GetBlobs:
    """Asks how far the blobs of these entries are, and who has all of them."""

    chat: ChatId
    entries: tuple[EntryId, ...]


Question = (
    Enrol
    | Lookup
    | PutPrekey
    | PutParcel
    | GetParcels
    | Taken
    | BeginLink
    | PutLink
    | GetLink
    | GetPending
    | Approve
    | GetCard
    | GetCards
    | Revoke
    | Renew
    | CertifySigner
    | Witness
    | GetDirectory
    | GetReceipts
    | Forward
    | Rename
    | GetBlobs
)


def encode_question(question: Question) -> tuple[Topic, bytes]:
    """Return the topic and the body of ASK."""
    return _TOPICS[type(question)], codec.encode(_question_fields(question))


def decode_question(topic: int, body: bytes) -> Question:
    """Read the body of ASK. Raises NotCanonical, LimitExceeded, or Untrusted for a mixed name."""
    size, read = _QUESTIONS[Topic(topic)]
    found = codec.decode(body, QUESTION_BYTES_MAX)
    return read(codec.record(found, size, f"question {topic}"))


def _question_fields(question: Question) -> Sequence[Value]:
    if isinstance(question, Lookup):
        return ([name.encode() for name in question.names], question.users)
    # Fields of the other questions stand in the order of SPEC 7.
    return [getattr(question, one.name) for one in fields(question)]


def _read_enrol(values: Fields) -> Enrol:
    return Enrol(
        codec.binary(values[0], CERTIFICATE_BYTES_MAX, "user request"),
        codec.binary(values[1], CERTIFICATE_BYTES_MAX, "device request"),
        read_tls_key(values[2]),
        read_prekey(values[3]),
        read_archive_key(values[4]),
    )


def _read_lookup(values: Fields) -> Lookup:
    names = codec.array(values[0], LOOKUP_MAX, "names")
    users = codec.array(values[1], LOOKUP_MAX - len(names), "users")
    return Lookup(
        tuple(read_address(name) for name in names),
        tuple(UserId(codec.fixed(user, KEY_BYTES, "user")) for user in users),
    )


def _read_receipts(values: Fields) -> GetReceipts:
    return GetReceipts(_chat(values[0]), _entries(values[1], RECEIPTS_ASKED_MAX))


def _chat(value: object) -> ChatId:
    return ChatId(codec.fixed(value, HASH_BYTES, "chat"))


def _entries(value: object, most: int) -> tuple[EntryId, ...]:
    entries = codec.array(value, most, "entries")
    if not entries:
        raise NotCanonical("a question about no entry (SPEC 7.1)")
    return tuple(EntryId(codec.fixed(entry, HASH_BYTES, "entry")) for entry in entries)


def _read_taken(values: Fields) -> Taken:
    numbers = codec.array(values[0], TAKEN_MAX, "numbers")
    return Taken(tuple(codec.uint(number, NUMBER_MAX, "number") for number in numbers))


def _read_witness(values: Fields) -> Witness:
    seen = codec.array(values[0], HEADS_SEEN_MAX, "directory heads")
    heads = tuple(_seen(item) for item in seen)
    check_ascending([head.agency for head in heads], "directory heads")
    head = values[2]
    return Witness(
        heads,
        read_splits(values[1]),
        None if head is None else codec.binary(head, HEAD_BYTES_MAX, "directory head"),
    )


def _seen(item: object) -> Seen:
    agency, serial, head = codec.record(item, len(Seen._fields), "directory head")
    return Seen(
        _agency(agency),
        codec.uint(serial, SEQ_MAX, "directory number"),
        codec.fixed(head, HASH_BYTES, "directory head"),
    )


def _agency(value: object) -> AgencyId:
    return AgencyId(codec.fixed(value, KEY_BYTES, "agency"))


_TOPICS: Final[Mapping[type, Topic]] = {
    Enrol: Topic.ENROL,
    Lookup: Topic.LOOKUP,
    PutPrekey: Topic.PREKEY,
    PutParcel: Topic.PARCEL,
    GetParcels: Topic.PARCELS,
    Taken: Topic.TAKEN,
    BeginLink: Topic.LINK,
    PutLink: Topic.LINK_REQUEST,
    GetLink: Topic.LINK_RESULT,
    GetPending: Topic.LINK_PENDING,
    Approve: Topic.LINK_APPROVE,
    GetCard: Topic.CARD,
    GetCards: Topic.CARDS,
    Revoke: Topic.REVOKE,
    Renew: Topic.RENEW,
    CertifySigner: Topic.SIGNATORY,
    Witness: Topic.WITNESS,
    GetDirectory: Topic.DIRECTORY,
    GetReceipts: Topic.RECEIPTS,
    Forward: Topic.FORWARD,
    Rename: Topic.RENAME,
    GetBlobs: Topic.BLOBS,
}

_QUESTIONS: Final[Mapping[Topic, tuple[int, Callable[[Fields], Question]]]] = {
    Topic.ENROL: (5, _read_enrol),
    Topic.LOOKUP: (2, _read_lookup),
    Topic.PREKEY: (1, lambda values: PutPrekey(read_prekey(values[0]))),
    Topic.PARCEL: (
        2,
        lambda values: PutParcel(
            read_device(values[0]), codec.binary(values[1], PARCEL_BYTES_MAX, "parcel")
        ),
    ),
    Topic.PARCELS: (0, lambda _: GetParcels()),
    Topic.FORWARD: (
        4,
        lambda values: Forward(
            _chat(values[0]),
            _agency(values[1]),
            read_device(values[2]),
            codec.binary(values[3], PARCEL_BYTES_MAX, "parcel"),
        ),
    ),
    Topic.TAKEN: (1, _read_taken),
    Topic.LINK: (0, lambda _: BeginLink()),
    Topic.LINK_REQUEST: (
        4,
        lambda values: PutLink(
            read_request(values[0]),
            read_tls_key(values[1]),
            read_prekey(values[2]),
            read_archive_key(values[3]),
        ),
    ),
    Topic.LINK_RESULT: (0, lambda _: GetLink()),
    Topic.LINK_PENDING: (0, lambda _: GetPending()),
    Topic.LINK_APPROVE: (
        2,
        lambda values: Approve(
            codec.fixed(values[0], TICKET_BYTES, "ticket"), read_request(values[1])
        ),
    ),
    Topic.CARD: (1, lambda values: GetCard(codec.uint(values[0], NUMBER_MAX, "serial"))),
    Topic.CARDS: (
        2,
        lambda values: GetCards(
            codec.fixed(values[0], INCARNATION_BYTES, "incarnation"),
            codec.uint(values[1], NUMBER_MAX, "number"),
        ),
    ),
    Topic.REVOKE: (
        2,
        lambda values: Revoke(
            read_device(values[0]), codec.fixed(values[1], SIGNATURE_BYTES, "signature")
        ),
    ),
    Topic.RENEW: (1, lambda values: Renew(read_tls_key(values[0]))),
    Topic.RENAME: (1, lambda values: Rename(read_request(values[0]))),
    Topic.SIGNATORY: (
        2,
        lambda values: CertifySigner(
            read_tls_key(values[0]), codec.binary(values[1], PROOF_BYTES_MAX, "proof")
        ),
    ),
    Topic.WITNESS: (3, _read_witness),
    Topic.DIRECTORY: (
        2,
        lambda values: GetDirectory(
            _agency(values[0]), codec.uint(values[1], SEQ_MAX, "directory number")
        ),
    ),
    Topic.RECEIPTS: (2, _read_receipts),
    Topic.BLOBS: (
        2,
        lambda values: GetBlobs(_chat(values[0]), _entries(values[1], BLOBS_ASKED_MAX)),
    ),
}
