"""Questions to a directory and their answers: what is written is read, and nothing else is."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.sealing import PREKEY_BYTES
from crypto.signing import Signer
from protocol import codec, identity, topic
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import LimitExceeded, NotCanonical, PeerError, Untrusted
from protocol.identity import AgencyId, UserId
from protocol.listing import Listing
from protocol.person import Person, PersonDevice, verify_person
from protocol.question import (
    Approve,
    BeginLink,
    CertifySigner,
    Enrol,
    Forward,
    GetBlobs,
    GetCard,
    GetCards,
    GetDirectory,
    GetLink,
    GetParcels,
    GetPending,
    GetReceipts,
    Lookup,
    PutLink,
    PutParcel,
    PutPrekey,
    Question,
    Rename,
    Renew,
    Revoke,
    Seen,
    Taken,
    Witness,
    decode_question,
    encode_question,
)
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
    Refusal,
    Reply,
    Standing,
    Waiting,
    Witnessed,
    decode_answer,
    encode_answer,
    encode_refusal,
)
from protocol.topic import LOOKUP_MAX, Topic

ROOT, REGISTRAR = Signer(b"r" * 32), Signer(b"g" * 32)
USER, DEVICE, OTHER = Signer(b"u" * 32), Signer(b"d" * 32), Signer(b"o" * 32)
AGENCY = identity.AgencyId(ROOT.public)
KEY = DeviceKey(DEVICE.public)
CHARTER = identity.sign_charter(ROOT, 1, "minzdrav", "RU-UDM", REGISTRAR.public, bytes(32))
CERTIFICATE = identity.certify_user(REGISTRAR, identity.request_user(USER, AGENCY, "anna", 1))
DEVICE_CERTIFICATE = identity.certify_device(
    REGISTRAR, identity.request_device(USER, DEVICE, AGENCY, "phone", 1)
)
PREKEY = identity.sign_prekey(DEVICE, bytes(PREKEY_BYTES), 1)
ARCHIVE_KEY = bytes(1952)
LISTING = Listing(b"head", 3, (b"p" * 32,))
PERSON = Person(CHARTER, CERTIFICATE, (PersonDevice(DEVICE_CERTIFICATE, PREKEY),), LISTING)

QUESTIONS: list[tuple[Topic, Question]] = [
    (Topic.ENROL, Enrol(b"u", b"d", b"t", b"p", ARCHIVE_KEY)),
    (Topic.LOOKUP, Lookup(("anna@minzdrav", "борис@минцифры"), (UserId(USER.public),))),
    (Topic.PREKEY, PutPrekey(b"p")),
    (Topic.PARCEL, PutParcel(KEY, b"body")),
    (Topic.PARCELS, GetParcels()),
    (Topic.TAKEN, Taken((1, 2**63 - 1))),
    (Topic.LINK, BeginLink()),
    (Topic.LINK_REQUEST, PutLink(b"r", b"t", b"p", ARCHIVE_KEY)),
    (Topic.LINK_RESULT, GetLink()),
    (Topic.LINK_PENDING, GetPending()),
    (Topic.LINK_APPROVE, Approve(b"t" * 16, b"r")),
    (Topic.CARDS, GetCards(b"i" * 16, 2**63 - 1)),
    (Topic.REVOKE, Revoke(KEY, b"s" * 64)),
    (Topic.RENEW, Renew(b"t")),
    (Topic.SIGNATORY, CertifySigner(b"k", b"p")),
    (Topic.WITNESS, Witness((Seen(AGENCY, 7, b"h" * 32),), (b"proof",), b"head")),
    (Topic.DIRECTORY, GetDirectory(AGENCY, 7)),
    (Topic.RECEIPTS, GetReceipts(ChatId(b"c" * 32), (EntryId(b"e" * 32),))),
    (Topic.FORWARD, Forward(ChatId(b"c" * 32), AgencyId(b"a" * 32), KEY, b"body")),
    (Topic.RENAME, Rename(b"r")),
    (Topic.BLOBS, GetBlobs(ChatId(b"c" * 32), (EntryId(b"e" * 32), EntryId(b"f" * 32)))),
    (Topic.CARD, GetCard(3)),
]
REPLIES: list[tuple[Topic, Reply]] = [
    (Topic.ENROL, Enrolment(b"u", b"d", b"t", b"c", b"a")),
    (Topic.LOOKUP, People((PERSON, None))),
    (Topic.LOOKUP, People((), (AgencyId(bytes(32)), AgencyId(b"\xff" * 32)))),
    (Topic.PREKEY, Done()),
    (Topic.PARCELS, Parcels((Parcel(3, b"x"), Parcel(4, b"")))),
    (Topic.LINK, LinkInvitation("ivor1.abc")),
    (Topic.LINK_RESULT, Waiting()),
    (Topic.LINK_RESULT, Enrolment(b"u", b"d", b"t", b"c", b"a")),
    (Topic.LINK_PENDING, PendingLinks((Pending(b"t" * 16, b"r"),))),
    (Topic.LINK_APPROVE, Certified(b"c")),
    (Topic.SIGNATORY, Certified(b"c")),
    (Topic.RENAME, Certified(b"c")),
    (Topic.CARD, OwnCard(b"a")),
    (Topic.CARD, OwnCard(None)),
    (Topic.CARDS, Cards(b"i" * 16, 7, (b"a", b"b"))),
    (Topic.WITNESS, Witnessed((b"a",), (b"proof",))),
    (Topic.DIRECTORY, Directory((b"a", b"b"))),
    (Topic.RECEIPTS, Receipts((b"a", b"b"))),
    (Topic.FORWARD, Done()),
    (Topic.BLOBS, BlobStates((BlobState(7, Standing.COMING, (AGENCY,)),))),
]


class TestWire:
    @pytest.mark.parametrize(("topic", "asked"), QUESTIONS)
    def test_a_question_comes_back(self, topic: Topic, asked: Question) -> None:
        found, body = encode_question(asked)
        assert found is topic
        assert decode_question(topic, body) == asked

    def test_every_topic_has_a_question(self) -> None:
        assert [topic for topic, _ in QUESTIONS] == list(Topic)

    @pytest.mark.parametrize(("topic", "reply"), REPLIES)
    def test_an_answer_comes_back(self, topic: Topic, reply: Reply) -> None:
        assert decode_answer(topic, 0, encode_answer(reply)) == reply

    def test_a_refusal_is_raised_with_its_code(self) -> None:
        with pytest.raises(Refusal, match="not for you") as caught:
            decode_answer(Topic.CARDS, 8, encode_refusal("not for you"))
        assert caught.value.code == 8

    def test_a_refusal_that_is_no_text_is_read_all_the_same(self) -> None:
        with pytest.raises(Refusal, match="\ufffd"):
            decode_answer(Topic.CARDS, 1, b"\xff\xfe")

    @given(st.sampled_from(Topic), st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, topic: Topic, body: bytes) -> None:
        """Nothing but PeerError comes of bytes that a peer sent."""
        for read in (
            lambda: decode_question(topic, body),
            lambda: decode_answer(topic, 0, body),
        ):
            with suppress(PeerError):
                read()


class TestLimits:
    def test_too_many_names(self) -> None:
        names = tuple(f"a{n}@minzdrav" for n in range(LOOKUP_MAX + 1))
        with pytest.raises(LimitExceeded):
            decode_question(Topic.LOOKUP, encode_question(Lookup(names))[1])

    def test_names_and_ids_count_together(self) -> None:
        names = tuple(f"a{n}@minzdrav" for n in range(LOOKUP_MAX))
        asked = Lookup(names, (UserId(USER.public),))
        with pytest.raises(LimitExceeded):
            decode_question(Topic.LOOKUP, encode_question(asked)[1])

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("Anna@minzdrav", NotCanonical),
            ("anna", NotCanonical),
            ("an\u200bna@minzdrav", NotCanonical),
            ("аnna@minzdrav", Untrusted),
        ],
    )
    def test_names_are_exact(self, name: str, error: type[PeerError]) -> None:
        """Hostile case 59: mixed scripts and zero-width characters are no names."""
        body = codec.encode(([name.encode()], []))
        with pytest.raises(error):
            decode_question(Topic.LOOKUP, body)

    def test_a_parcel_has_a_size(self) -> None:
        asked = PutParcel(KEY, bytes(topic.PARCEL_BYTES_MAX + 1))
        with pytest.raises(LimitExceeded):
            decode_question(Topic.PARCEL, encode_question(asked)[1])

    def test_one_more_field_is_refused(self) -> None:
        with pytest.raises(NotCanonical, match="array of 1"):
            decode_question(Topic.RENEW, codec.encode((b"t", b"u")))


class TestPerson:
    def test_all_that_it_says_is_checked(self) -> None:
        known = verify_person(PERSON)
        assert known.user.name == "anna@minzdrav"
        assert known.user.devices == (KEY,)
        assert known.prekeys[KEY].device == KEY

    def test_a_device_may_lack_a_prekey(self) -> None:
        bare = Person(CHARTER, CERTIFICATE, (PersonDevice(DEVICE_CERTIFICATE, None),))
        assert not verify_person(bare).prekeys

    def test_another_devices_prekey_is_refused(self) -> None:
        foreign = identity.sign_prekey(OTHER, bytes(PREKEY_BYTES), 1)
        person = Person(CHARTER, CERTIFICATE, (PersonDevice(DEVICE_CERTIFICATE, foreign),))
        with pytest.raises(NotCanonical, match="another device"):
            verify_person(person)

    def test_an_altered_certificate_is_refused(self) -> None:
        altered = DEVICE_CERTIFICATE[:-1] + bytes([DEVICE_CERTIFICATE[-1] ^ 1])
        with pytest.raises(Untrusted):
            verify_person(Person(CHARTER, CERTIFICATE, (PersonDevice(altered, None),)))


class TestFurtherDevices:
    """SPEC 5.3: a device asks, its user endorses, the registrar certifies."""

    def test_the_three_signatures_meet(self) -> None:
        request = identity.request_link(DEVICE, UserId(USER.public), AGENCY, "tablet", 7)
        link = identity.read_link(request)
        assert (link.device, link.label, link.issued) == (KEY, "tablet", 7)
        raw = identity.certify_device(REGISTRAR, identity.endorse_link(USER, request))
        device = identity.verify_device(raw, identity.verify_charter(CHARTER))
        assert (device.device, device.label) == (KEY, "tablet")

    def test_another_user_does_not_endorse(self) -> None:
        request = identity.request_link(DEVICE, UserId(USER.public), AGENCY, "tablet", 7)
        with pytest.raises(Untrusted, match="another user"):
            identity.endorse_link(OTHER, request)

    def test_a_request_is_its_devices_own(self) -> None:
        body = codec.encode((1, AGENCY, USER.public, DEVICE.public, b"tablet", 7))
        forged = codec.encode((body, OTHER.sign("device", body)))
        with pytest.raises(Untrusted):
            identity.read_link(forged)

    def test_a_revocation_is_the_users(self) -> None:
        signature = identity.sign_revocation(USER, AGENCY, KEY)
        identity.verify_revocation(UserId(USER.public), AGENCY, KEY, signature)
        with pytest.raises(Untrusted):
            identity.verify_revocation(UserId(OTHER.public), AGENCY, KEY, signature)
