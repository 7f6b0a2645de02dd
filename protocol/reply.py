"""What a node's directory answers (SPEC 7.1); `question` has what it is asked.

They travel in ANSWER frames. An answer of code 0 carries a body, canonical, see `codec`; any other
code is a refusal with a text for people.

    people = decode_answer(Topic.LOOKUP, code, body)     # raises Refusal if code is not 0

What a certificate or a prekey says is not checked in decoding: `person` and `identity` do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Final, NamedTuple

from protocol import codec
from protocol.checkpoint import ARCHIVE_BYTES_MAX
from protocol.codec import Value
from protocol.identity import CERTIFICATE_BYTES_MAX, AgencyId
from protocol.invitation import INVITATION_CHARS_MAX, TICKET_BYTES
from protocol.limits import BLOB_CHUNKS_MAX, CARD_BYTES_MAX, INCARNATION_BYTES, KEY_BYTES
from protocol.listing import HEAD_BYTES_MAX
from protocol.person import Person, person_fields, read_person
from protocol.receipt import RECEIPT_BYTES_MAX
from protocol.topic import (
    ANSWER_BYTES_MAX,
    BLOBS_ASKED_MAX,
    CARDS_MAX,
    HEADS_SHOWN_MAX,
    HOLDERS_MAX,
    LINKS_PENDING_MAX,
    LOOKUP_MAX,
    NUMBER_MAX,
    PARCEL_BYTES_MAX,
    RECEIPTS_MAX,
    REFUSAL_BYTES_MAX,
    TAKEN_MAX,
    TLS_CERTIFICATE_BYTES_MAX,
    Fields,
    Topic,
    read_splits,
)


class Refusal(Exception):
    """The directory says no. code: as in SPEC 7.1, an exit code of the command line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Done:
    """It is done, and durable."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """All that a new device lacks. tls_certificate: PEM; card: of its own agency.

    archive: the archive certificate of its ML-DSA key.
    """

    user: bytes = field(repr=False)
    device: bytes = field(repr=False)
    tls_certificate: bytes = field(repr=False)
    card: bytes = field(repr=False)
    archive: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The further device is not approved yet: ask again later."""


@dataclass(frozen=True, slots=True)
class People:
    """One for each that was asked for, names first; None: absent, or none of your business.

    unreached: the agencies that had to be asked and did not answer; of their users what was known
    before.
    """

    people: tuple[Person | None, ...]
    unreached: tuple[AgencyId, ...] = ()


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
    """A certificate of a device (LINK_APPROVE, RENAME).

    Or, PEM: for TLS (RENEW), of a signatory (SIGNATORY).
    """

    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receipts:
    """Receipts, to be checked with `receipt.verify_receipt`."""

    receipts: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OwnCard:
    """The agency's own card, None if there is none newer: check it with `identity.verify_card`."""

    card: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cards:
    """Cards as they were taken, to be checked with `identity.verify_card`.

    Or, for one of an agency that is trusted no longer, its id.
    incarnation, newest: what the next question names. Fewer than CARDS_MAX are the last.
    """

    incarnation: bytes
    newest: int
    cards: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Heads that the asker has not seen, or not so, and proofs: check them with `listing`."""

    heads: tuple[bytes, ...] = field(repr=False)
    splits: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Directory:
    """Heads of an agency's directory, ascending."""

    heads: tuple[bytes, ...] = field(repr=False)


class Standing(IntEnum):
    """What a node does about a blob."""

    NONE = 0  # it knows of none: the message is not here, was dropped, or announces none
    UNWANTED = 1  # it would have to be asked for by a device
    COMING = 2  # it is asked for wherever it may be
    NO_ROOM = 3  # by the quotas of this node
    WHOLE = 4


class BlobState(NamedTuple):
    """How far a blob is: chunks that the node holds, and the agencies that have all of it."""

    held: int
    standing: Standing
    holders: tuple[AgencyId, ...]


@dataclass(frozen=True, slots=True)
class BlobStates:
    """One for each entry that was asked about."""

    states: tuple[BlobState, ...]


Reply = (
    Done
    | Enrolment
    | Waiting
    | People
    | Parcels
    | LinkInvitation
    | PendingLinks
    | Certified
    | OwnCard
    | Cards
    | Witnessed
    | Directory
    | Receipts
    | BlobStates
)


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


def _reply_fields(reply: Reply) -> Sequence[Value]:
    match reply:
        case People(people, unreached):
            listed = [None if one is None else person_fields(one) for one in people]
            return (listed, unreached)
        case Parcels(parcels):
            return [(parcel.number, parcel.body) for parcel in parcels]
        case PendingLinks(links):
            return [(link.ticket, link.request) for link in links]
        case LinkInvitation(text):
            return (text.encode(),)
        case Directory(listed) | Receipts(listed) | BlobStates(listed):
            return listed
        case Enrolment() | Certified() | Done() | Waiting() | OwnCard() | Cards() | Witnessed():
            return [getattr(reply, one.name) for one in fields(reply)]


def _read_people(values: Fields) -> People:
    listed, agencies = codec.record(values, 2, "people")
    people = codec.array(listed, LOOKUP_MAX, "people")
    found = tuple(None if item is None else read_person(item) for item in people)
    return People(found, _agencies(agencies, LOOKUP_MAX))


def _agencies(value: object, most: int) -> tuple[AgencyId, ...]:
    listed = codec.array(value, most, "agencies")
    return tuple(AgencyId(codec.fixed(one, KEY_BYTES, "agency")) for one in listed)


def _read_parcels(values: Fields) -> Parcels:
    found = []
    for item in codec.array(values, TAKEN_MAX, "parcels"):
        number, body = codec.record(item, 2, "parcel")
        found.append(
            Parcel(
                codec.uint(number, NUMBER_MAX, "number"),
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
    user, device, tls_certificate, card, archive = codec.record(values, 5, "enrolment")
    return Enrolment(
        codec.binary(user, CERTIFICATE_BYTES_MAX, "user certificate"),
        codec.binary(device, CERTIFICATE_BYTES_MAX, "device certificate"),
        codec.binary(tls_certificate, TLS_CERTIFICATE_BYTES_MAX, "TLS certificate"),
        codec.binary(card, CARD_BYTES_MAX, "card"),
        codec.binary(archive, ARCHIVE_BYTES_MAX, "archive certificate"),
    )


def _read_result(values: Fields) -> Enrolment | Waiting:
    return _read_enrolment(values) if values else Waiting()


def _read_done(values: Fields) -> Done:
    codec.record(values, 0, "answer")
    return Done()


def _read_card(values: Fields) -> OwnCard:
    (card,) = codec.record(values, 1, "answer")
    return OwnCard(None if card is None else codec.binary(card, CARD_BYTES_MAX, "card"))


def _read_cards(values: Fields) -> Cards:
    incarnation, newest, listed = codec.record(values, 3, "cards")
    cards = codec.array(listed, CARDS_MAX, "cards")
    return Cards(
        codec.fixed(incarnation, INCARNATION_BYTES, "incarnation"),
        codec.uint(newest, NUMBER_MAX, "number"),
        tuple(codec.binary(card, CARD_BYTES_MAX, "card") for card in cards),
    )


def _read_invitation(values: Fields) -> LinkInvitation:
    (text,) = codec.record(values, 1, "link invitation")
    return LinkInvitation(codec.text(text, INVITATION_CHARS_MAX, "invitation"))


def _read_receipts(values: Fields) -> Receipts:
    receipts = codec.array(values, RECEIPTS_MAX, "receipts")
    return Receipts(tuple(codec.binary(one, RECEIPT_BYTES_MAX, "receipt") for one in receipts))


def _read_blobs(values: Fields) -> BlobStates:
    found = []
    for item in codec.array(values, BLOBS_ASKED_MAX, "blobs"):
        held, standing, holders = codec.record(item, 3, "blob")
        found.append(
            BlobState(
                codec.uint(held, BLOB_CHUNKS_MAX, "chunks"),
                Standing(codec.uint(standing, max(Standing), "standing")),
                _agencies(holders, HOLDERS_MAX),
            )
        )
    return BlobStates(tuple(found))


def _read_certified(values: Fields) -> Certified:
    (certificate,) = codec.record(values, 1, "certified")
    return Certified(codec.binary(certificate, TLS_CERTIFICATE_BYTES_MAX, "certificate"))


def _read_witnessed(values: Fields) -> Witnessed:
    heads, splits = codec.record(values, 2, "witness")
    return Witnessed(_heads(heads), read_splits(splits))


def _heads(value: object) -> tuple[bytes, ...]:
    return tuple(
        codec.binary(item, HEAD_BYTES_MAX, "directory head")
        for item in codec.array(value, HEADS_SHOWN_MAX, "directory heads")
    )


_ANSWERS: Final[Mapping[Topic, Callable[[Fields], Reply]]] = {
    Topic.ENROL: _read_enrolment,
    Topic.LOOKUP: _read_people,
    Topic.PREKEY: _read_done,
    Topic.PARCEL: _read_done,
    Topic.FORWARD: _read_done,
    Topic.PARCELS: _read_parcels,
    Topic.TAKEN: _read_done,
    Topic.LINK: _read_invitation,
    Topic.LINK_REQUEST: _read_done,
    Topic.LINK_RESULT: _read_result,
    Topic.LINK_PENDING: _read_pending,
    Topic.LINK_APPROVE: _read_certified,
    Topic.CARD: _read_card,
    Topic.CARDS: _read_cards,
    Topic.REVOKE: _read_done,
    Topic.RENEW: _read_certified,
    Topic.SIGNATORY: _read_certified,
    Topic.RENAME: _read_certified,
    Topic.WITNESS: _read_witnessed,
    Topic.DIRECTORY: lambda values: Directory(_heads(values)),
    Topic.RECEIPTS: _read_receipts,
    Topic.BLOBS: _read_blobs,
}
