"""Questions to a node's directory, and its answers (SPEC 7).

They travel in ASK and ANSWER frames. An answer of code 0 carries a body; any other code is a
refusal with a text for people. Bodies are canonical, see `codec`.

    topic, body = encode_question(Lookup(names=("anna@minzdrav",)))
    people = decode_answer(topic, code, reply)           # raises Refusal if code is not 0
    known = [person and verify_person(person) for person in people.people]

What a certificate or a prekey says is not checked in decoding: `verify_person` and `identity` do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Final, NamedTuple

from protocol import codec
from protocol.codec import Value
from protocol.entry import DeviceKey
from protocol.errors import NotCanonical
from protocol.identity import (
    CERTIFICATE_BYTES_MAX,
    CHARTER_BYTES_MAX,
    DEVICES_USER_MAX,
    PREKEY_RECORD_BYTES_MAX,
    Prekey,
    UserId,
    VerifiedUser,
    verify_credential,
    verify_prekey,
)
from protocol.invitation import INVITATION_CHARS_MAX, TICKET_BYTES
from protocol.limits import CARD_BYTES_MAX, KEY_BYTES, NAME_CHARS_MAX, SIGNATURE_BYTES
from protocol.name import parse_address

QUESTION_BYTES_MAX: Final = 960 * 1024
ANSWER_BYTES_MAX: Final = 960 * 1024  # leaves room for the frame around it
LOOKUP_MAX: Final = 64
PARCEL_BYTES_MAX: Final = 900 * 1024
TAKEN_MAX: Final = 1024
CARDS_MAX: Final = 4096
TLS_KEY_BYTES_MAX: Final = 512  # PEM of a P-256 public key has 178
TLS_CERTIFICATE_BYTES_MAX: Final = 4096
LINKS_PENDING_MAX: Final = 8
REFUSAL_BYTES_MAX: Final = 512

_NAME_BYTES_MAX: Final = 2 * (2 * NAME_CHARS_MAX) + 1
_NUMBER_MAX: Final = 2**63 - 1


class Topic(IntEnum):
    """What a question is about; the number that ASK carries."""

    ENROL = 0
    LOOKUP = 1
    PREKEY = 2
    PARCEL = 3
    PARCELS = 4
    TAKEN = 5
    LINK = 6
    LINK_REQUEST = 7
    LINK_RESULT = 8
    LINK_PENDING = 9
    LINK_APPROVE = 10
    CARDS = 11
    REVOKE = 12
    RENEW = 13


class Refusal(Exception):
    """The directory says no. code: as in SPEC 7.1, an exit code of the command line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Enrol:
    """An invited person's first device asks for certificates. tls_key: public, PEM."""

    user_request: bytes = field(repr=False)
    device_request: bytes = field(repr=False)
    tls_key: bytes = field(repr=False)
    prekey: bytes = field(repr=False)


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
    """A further device presents itself: `identity.request_link`, TLS key (PEM), prekey record."""

    request: bytes = field(repr=False)
    tls_key: bytes = field(repr=False)
    prekey: bytes = field(repr=False)


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
class GetCards:
    """Asks for the cards of all agencies that the node trusts, its own too."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """The user gives up a device: `identity.sign_revocation`."""

    device: DeviceKey
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Renew:
    """A device asks for a new TLS certificate. tls_key: public, PEM."""

    tls_key: bytes = field(repr=False)


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
    | GetCards
    | Revoke
    | Renew
)


@dataclass(frozen=True, slots=True)
class Done:
    """It is done, and durable."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """All that a new device lacks. tls_certificate: PEM; card: of its own agency."""

    user: bytes = field(repr=False)
    device: bytes = field(repr=False)
    tls_certificate: bytes = field(repr=False)
    card: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The further device is not approved yet: ask again later."""


class PersonDevice(NamedTuple):
    """One device of a person: its certificate, and its newest prekey record if it has one."""

    certificate: bytes
    prekey: bytes | None


@dataclass(frozen=True, slots=True)
class Person:
    """A person's records as a directory has them."""

    charter: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    devices: tuple[PersonDevice, ...]


@dataclass(frozen=True, slots=True)
class People:
    """One for each that was asked for, names first; None: absent, or none of your business."""

    people: tuple[Person | None, ...]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A bundle that waits, with the number to take it by."""

    number: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parcels:
    """What waits, oldest first, as much as fits; ask again after taking these."""

    parcels: tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class LinkInvitation:
    """The text of an invitation for a further device."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """One further device that waits: show the fingerprint of its key before approving."""

    ticket: bytes = field(repr=False)
    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PendingLinks:
    """All further devices that wait."""

    links: tuple[Pending, ...]


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate: of a device (LINK_APPROVE), or PEM for TLS (RENEW)."""

    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cards:
    """Cards, to be checked with `identity.verify_card`."""

    cards: tuple[bytes, ...] = field(repr=False)


Reply = (
    Done
    | Enrolment
    | Waiting
    | People
    | Parcels
    | LinkInvitation
    | PendingLinks
    | Certified
    | Cards
)


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person whose records were checked. Only `verify_person` makes one."""

    user: VerifiedUser
    prekeys: Mapping[DeviceKey, Prekey]


def verify_person(person: Person) -> KnownPerson:
    """Check all certificates and prekeys of a person.

    Whether the agency is trusted is not asked here: compare `user.agency` with a trusted card.
    Raises NotCanonical, LimitExceeded or Untrusted.
    """
    certificates = [certificate for certificate, _ in person.devices]
    user = verify_credential(person.charter, person.certificate, certificates)
    prekeys: dict[DeviceKey, Prekey] = {}
    for key, (_, record) in zip(user.devices, person.devices, strict=True):
        if record is None:
            continue
        prekey = verify_prekey(record)
        if prekey.device != key:
            raise NotCanonical("a prekey that stands with another device (SPEC 7.2)")
        prekeys[key] = prekey
    return KnownPerson(user, prekeys)


def encode_question(question: Question) -> tuple[Topic, bytes]:
    """Return the topic and the body of ASK."""
    return _TOPICS[type(question)], codec.encode(_question_fields(question))


def decode_question(topic: int, body: bytes) -> Question:
    """Read the body of ASK. Raises NotCanonical, LimitExceeded, or Untrusted for a mixed name."""
    size, read = _QUESTIONS[Topic(topic)]
    found = codec.decode(body, QUESTION_BYTES_MAX)
    return read(codec.record(found, size, f"question {topic}"))


def encode_answer(reply: Reply) -> bytes:
    """Return the body of an ANSWER of code 0. `refuse` makes the others."""
    return codec.encode(_reply_fields(reply))


def decode_answer(topic: int, code: int, body: bytes) -> Reply:
    """Read an ANSWER to a question of this topic.

    Raises Refusal for a code that is not 0, NotCanonical or LimitExceeded.
    """
    if code:
        raise Refusal(code, body[:REFUSAL_BYTES_MAX].decode(errors="replace"))
    return _ANSWERS[Topic(topic)](codec.decode(body, ANSWER_BYTES_MAX))


def encode_refusal(text: str) -> bytes:
    """Return the body of an ANSWER of any other code: one line for people."""
    return text.encode()[:REFUSAL_BYTES_MAX]


def _question_fields(question: Question) -> Sequence[Value]:
    if isinstance(question, Lookup):
        return ([name.encode() for name in question.names], question.users)
    # Fields of the other questions stand in the order of SPEC 7.
    return [getattr(question, one.name) for one in fields(question)]


def _reply_fields(reply: Reply) -> Sequence[Value]:
    match reply:
        case People(people):
            return [None if person is None else _person_fields(person) for person in people]
        case Parcels(parcels):
            return [(parcel.number, parcel.body) for parcel in parcels]
        case PendingLinks(links):
            return [(link.ticket, link.request) for link in links]
        case LinkInvitation(text):
            return (text.encode(),)
        case Cards(cards):
            return cards
        case Enrolment() | Certified() | Done() | Waiting():
            return [getattr(reply, one.name) for one in fields(reply)]


def _person_fields(person: Person) -> Sequence[Value]:
    return (person.charter, person.certificate, person.devices)


Fields = tuple[object, ...]


def _read_enrol(values: Fields) -> Enrol:
    return Enrol(
        codec.binary(values[0], CERTIFICATE_BYTES_MAX, "user request"),
        codec.binary(values[1], CERTIFICATE_BYTES_MAX, "device request"),
        _tls_key(values[2]),
        _prekey(values[3]),
    )


def _read_lookup(values: Fields) -> Lookup:
    names = codec.array(values[0], LOOKUP_MAX, "names")
    users = codec.array(values[1], LOOKUP_MAX - len(names), "users")
    return Lookup(
        tuple(_address(name) for name in names),
        tuple(UserId(codec.fixed(user, KEY_BYTES, "user")) for user in users),
    )


def _read_taken(values: Fields) -> Taken:
    numbers = codec.array(values[0], TAKEN_MAX, "numbers")
    return Taken(tuple(codec.uint(number, _NUMBER_MAX, "number") for number in numbers))


def _read_people(values: Fields) -> People:
    people = codec.array(values, LOOKUP_MAX, "people")
    return People(tuple(None if item is None else _person(item) for item in people))


def _person(item: object) -> Person:
    charter, certificate, listed = codec.record(item, 3, "person")
    devices = codec.array(listed, DEVICES_USER_MAX, "devices")
    return Person(
        codec.binary(charter, CHARTER_BYTES_MAX, "charter"),
        codec.binary(certificate, CERTIFICATE_BYTES_MAX, "user certificate"),
        tuple(_person_device(device) for device in devices),
    )


def _person_device(item: object) -> PersonDevice:
    certificate, prekey = codec.record(item, 2, "device")
    return PersonDevice(
        codec.binary(certificate, CERTIFICATE_BYTES_MAX, "device certificate"),
        None if prekey is None else _prekey(prekey),
    )


def _read_parcels(values: Fields) -> Parcels:
    found = []
    for item in codec.array(values, TAKEN_MAX, "parcels"):
        number, body = codec.record(item, 2, "parcel")
        found.append(
            Parcel(
                codec.uint(number, _NUMBER_MAX, "number"),
                codec.binary(body, PARCEL_BYTES_MAX, "parcel"),
            )
        )
    return Parcels(tuple(found))


def _read_pending(values: Fields) -> PendingLinks:
    found = []
    for item in codec.array(values, LINKS_PENDING_MAX, "links"):
        ticket, request = codec.record(item, 2, "link")
        found.append(
            Pending(
                codec.fixed(ticket, TICKET_BYTES, "ticket"),
                codec.binary(request, CERTIFICATE_BYTES_MAX, "link request"),
            )
        )
    return PendingLinks(tuple(found))


def _read_enrolment(values: Fields) -> Enrolment:
    user, device, tls_certificate, card = codec.record(values, 4, "enrolment")
    return Enrolment(
        codec.binary(user, CERTIFICATE_BYTES_MAX, "user certificate"),
        codec.binary(device, CERTIFICATE_BYTES_MAX, "device certificate"),
        codec.binary(tls_certificate, TLS_CERTIFICATE_BYTES_MAX, "TLS certificate"),
        codec.binary(card, CARD_BYTES_MAX, "card"),
    )


def _read_result(values: Fields) -> Enrolment | Waiting:
    return _read_enrolment(values) if values else Waiting()


def _read_done(values: Fields) -> Done:
    codec.record(values, 0, "answer")
    return Done()


def _read_cards(values: Fields) -> Cards:
    cards = codec.array(values, CARDS_MAX, "cards")
    return Cards(tuple(codec.binary(card, CARD_BYTES_MAX, "card") for card in cards))


def _read_invitation(values: Fields) -> LinkInvitation:
    (text,) = codec.record(values, 1, "link invitation")
    return LinkInvitation(codec.text(text, INVITATION_CHARS_MAX, "invitation"))


def _read_certified(values: Fields) -> Certified:
    (certificate,) = codec.record(values, 1, "certified")
    return Certified(codec.binary(certificate, TLS_CERTIFICATE_BYTES_MAX, "certificate"))


def _address(value: object) -> str:
    text = codec.text(value, _NAME_BYTES_MAX, "name")
    if parse_address(text).text != text:
        raise NotCanonical(f"name {text!a} is not in lower case and NFC (SPEC 5.1)")
    return text


def _tls_key(value: object) -> bytes:
    return codec.binary(value, TLS_KEY_BYTES_MAX, "TLS key")


def _prekey(value: object) -> bytes:
    return codec.binary(value, PREKEY_RECORD_BYTES_MAX, "prekey")


def _device(value: object) -> DeviceKey:
    return DeviceKey(codec.fixed(value, KEY_BYTES, "device"))


def _request(value: object) -> bytes:
    return codec.binary(value, CERTIFICATE_BYTES_MAX, "device request")


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
    GetCards: Topic.CARDS,
    Revoke: Topic.REVOKE,
    Renew: Topic.RENEW,
}

_QUESTIONS: Final[Mapping[Topic, tuple[int, Callable[[Fields], Question]]]] = {
    Topic.ENROL: (4, _read_enrol),
    Topic.LOOKUP: (2, _read_lookup),
    Topic.PREKEY: (1, lambda values: PutPrekey(_prekey(values[0]))),
    Topic.PARCEL: (
        2,
        lambda values: PutParcel(
            _device(values[0]), codec.binary(values[1], PARCEL_BYTES_MAX, "parcel")
        ),
    ),
    Topic.PARCELS: (0, lambda _: GetParcels()),
    Topic.TAKEN: (1, _read_taken),
    Topic.LINK: (0, lambda _: BeginLink()),
    Topic.LINK_REQUEST: (
        3,
        lambda values: PutLink(_request(values[0]), _tls_key(values[1]), _prekey(values[2])),
    ),
    Topic.LINK_RESULT: (0, lambda _: GetLink()),
    Topic.LINK_PENDING: (0, lambda _: GetPending()),
    Topic.LINK_APPROVE: (
        2,
        lambda values: Approve(codec.fixed(values[0], TICKET_BYTES, "ticket"), _request(values[1])),
    ),
    Topic.CARDS: (0, lambda _: GetCards()),
    Topic.REVOKE: (
        2,
        lambda values: Revoke(
            _device(values[0]), codec.fixed(values[1], SIGNATURE_BYTES, "signature")
        ),
    ),
    Topic.RENEW: (1, lambda values: Renew(_tls_key(values[0]))),
}

_ANSWERS: Final[Mapping[Topic, Callable[[Fields], Reply]]] = {
    Topic.ENROL: _read_enrolment,
    Topic.LOOKUP: _read_people,
    Topic.PREKEY: _read_done,
    Topic.PARCEL: _read_done,
    Topic.PARCELS: _read_parcels,
    Topic.TAKEN: _read_done,
    Topic.LINK: _read_invitation,
    Topic.LINK_REQUEST: _read_done,
    Topic.LINK_RESULT: _read_result,
    Topic.LINK_PENDING: _read_pending,
    Topic.LINK_APPROVE: _read_certified,
    Topic.CARDS: _read_cards,
    Topic.REVOKE: _read_done,
    Topic.RENEW: _read_certified,
}
