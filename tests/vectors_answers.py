"""Makes the vectors of answers: bodies of ANSWER, by the topic of the question (SPEC 7.1)."""

from typing import Final

from protocol import codec, identity
from protocol.errors import LimitExceeded, NotCanonical, PeerError
from protocol.identity import CardNode
from protocol.listing import Listing
from protocol.person import Person, PersonDevice
from protocol.receipt import Receipt, sign_receipt
from protocol.reply import (
    BlobState,
    BlobStates,
    Cards,
    Certified,
    Directory,
    Done,
    Enrolment,
    LinkInvitation,
    OwnCard,
    Parcel,
    Parcels,
    Pending,
    PendingLinks,
    People,
    Receipts,
    Reply,
    Standing,
    Waiting,
    Witnessed,
    encode_answer,
)
from protocol.testing.cast import ISSUED_MS, prekey_record, seed
from protocol.topic import Topic
from tests.vectors import TICKET, Case, Value, drawn, invalid, recorded_certificate, valid
from tests.vectors_people import AGENCY, ANNA, HOME, NODE, NODE_KEY
from tests.vectors_wire import CHAT, EPOCH

_RENEWED: Final = b"pem"


def answers() -> list[Case]:
    """One answer of each topic at least, a refusal, and what is no answer."""
    cases: list[Case] = []
    for name, topic, one in _answers():
        result = {"answer": type(one).__name__.lower()}
        cases.append(valid(name, result, topic=int(topic), code=0, body=encode_answer(one)))
    text = b"this node does not answer that to you"
    refusal: Value = {"refused": 8, "text": text}
    return [*cases, valid("a refusal", refusal, topic=int(Topic.LINK), code=8, body=text), *_bad()]


def _answers() -> list[tuple[str, Topic, Reply]]:
    nodes = (CardNode(NODE, ("node.example:7340",)),)
    card = identity.sign_card(HOME.root, HOME.charter, drawn("ca"), nodes, ISSUED_MS)
    certificate = ANNA.certificates[0]
    record = prekey_record(ANNA.signers[0])
    devices = (PersonDevice(certificate, record), PersonDevice(ANNA.certificates[1], None))
    place = Listing(b"head", 1, (bytes(32),))
    anna = Person(HOME.charter, ANNA.certificate, devices, place)
    archive = recorded_certificate(ANNA)
    enrolled = Enrolment(ANNA.certificate, certificate, _RENEWED, card, archive)
    link = identity.request_link(ANNA.signers[1], ANNA.user, AGENCY, "phone", ISSUED_MS)
    receipt = sign_receipt(NODE_KEY, Receipt(NODE, AGENCY, CHAT, EPOCH, EPOCH, ISSUED_MS))
    blob = BlobState(7, Standing.WHOLE, (AGENCY,))
    return [
        ("enrolled", Topic.ENROL, enrolled),
        ("a person, and one who is not there", Topic.LOOKUP, People((anna, None))),
        ("nobody, for an agency did not answer", Topic.LOOKUP, People((None,), (AGENCY,))),
        ("a prekey kept", Topic.PREKEY, Done()),
        ("a parcel kept", Topic.PARCEL, Done()),
        ("a parcel handed on", Topic.FORWARD, Done()),
        ("parcels", Topic.PARCELS, Parcels((Parcel(1, b"one"), Parcel(2**40, b"two")))),
        ("parcels deleted", Topic.TAKEN, Done()),
        ("an invitation", Topic.LINK, LinkInvitation("ivor1.text")),
        ("a link request kept", Topic.LINK_REQUEST, Done()),
        ("not approved yet", Topic.LINK_RESULT, Waiting()),
        ("approved", Topic.LINK_RESULT, enrolled),
        ("who waits", Topic.LINK_PENDING, PendingLinks((Pending(TICKET, link),))),
        ("a device approved", Topic.LINK_APPROVE, Certified(certificate)),
        ("the cards of others", Topic.CARDS, Cards(seed("incarnation")[:16], 3, (card, AGENCY))),
        ("a device given up", Topic.REVOKE, Done()),
        ("a new TLS certificate", Topic.RENEW, Certified(_RENEWED)),
        ("a certificate for signing", Topic.SIGNATORY, Certified(_RENEWED)),
        ("heads and proofs", Topic.WITNESS, Witnessed((b"head",), (b"proof",))),
        ("heads of a directory", Topic.DIRECTORY, Directory((b"head", b"next"))),
        ("a receipt", Topic.RECEIPTS, Receipts((receipt,))),
        ("another label", Topic.RENAME, Certified(certificate)),
        ("how far blobs are", Topic.BLOBS, BlobStates((blob, BlobState(0, Standing.NONE, ())))),
        ("a newer card", Topic.CARD, OwnCard(card)),
        ("no newer card", Topic.CARD, OwnCard(None)),
    ]


def _bad() -> list[Case]:
    person: codec.Value = (b"charter", b"user", ((b"device", None),))
    refused: list[tuple[str, Topic, codec.Value, type[PeerError]]] = [
        ("done, with something beside", Topic.PREKEY, (1,), NotCanonical),
        ("a certificate without its array", Topic.RENEW, (b"pem", b"pem"), NotCanonical),
        ("a person without a listing's place", Topic.LOOKUP, ([person], ()), NotCanonical),
        ("65 people", Topic.LOOKUP, ([None] * 65, ()), LimitExceeded),
        ("a parcel over 900 KiB", Topic.PARCELS, [(1, bytes(921_601))], LimitExceeded),
        ("nine who wait", Topic.LINK_PENDING, [(bytes(16), b"")] * 9, LimitExceeded),
        ("33 cards", Topic.CARDS, (bytes(16), 1, [b"card"] * 33), LimitExceeded),
        ("257 heads", Topic.DIRECTORY, [b"head"] * 257, LimitExceeded),
        ("65 proofs", Topic.WITNESS, ((), [b"proof"] * 65), LimitExceeded),
        ("1,025 receipts", Topic.RECEIPTS, [b"receipt"] * 1025, LimitExceeded),
        ("a standing of 5", Topic.BLOBS, [(0, 5, ())], LimitExceeded),
        ("an enrolment without an archive certificate", Topic.ENROL, [b""] * 4, NotCanonical),
    ]
    cases = [
        invalid(name, error, topic=int(topic), code=0, body=codec.encode(value))
        for name, topic, value, error in refused
    ]
    trailing = codec.encode(()) + b"\x00"
    return [
        *cases,
        invalid("not canonical", NotCanonical, topic=int(Topic.PREKEY), code=0, body=trailing),
    ]
