"""The directory: who gets which answer, and what a card must pass."""

import dataclasses
import random
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from crypto import certificate as x509
from crypto import signatory
from crypto.archival import ArchivalSigner
from crypto.sealing import PREKEY_BYTES
from crypto.signing import Signer
from node import agency as agencies
from node.agency import Agency, Founding
from node.directory import Directory
from node.errors import IdentityError, RefusedError, UserError
from node.parcels import WAITING_MAX
from node.signatories import USER_MAX
from node.store import connect
from node.trust import Standing, changes
from protocol import codec, identity, question, topic
from protocol.entry import DeviceKey
from protocol.errors import PeerError, Untrusted
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId, CardNode, NodeId, UserId
from protocol.invitation import Invitation, Purpose, decode_invitation
from protocol.question import Enrol, Lookup, Question, encode_question
from protocol.reply import (
    Cards,
    Certified,
    Enrolment,
    LinkInvitation,
    Parcels,
    PendingLinks,
    People,
    Person,
    PersonDevice,
    Reply,
    Waiting,
    decode_answer,
    encode_answer,
)
from protocol.session import PeerKind
from protocol.topic import Topic

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HOUR = 3600
draw = random.Random(4711).randbytes


def signer() -> Signer:
    return Signer(draw(32))


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Agency, Agency]:
    """Two agencies that tests only read."""
    made = []
    for name, zone in (("minzdrav", "RU-UDM"), ("mincifry", "RU")):
        folder = tmp_path_factory.mktemp("agency") / name
        founding = Founding(name, zone, (f"{name}.example:7340",), {})
        made.append(agencies.create(folder, founding, b"p", b"r", NOW, draw))
    return made[0], made[1]


class House:
    """A directory with its agency, and a peer to ask it."""

    def __init__(self, agency: Agency, file: Path) -> None:
        self.agency = agency
        self.connection: apsw.Connection = connect(file, None)
        self.directory = Directory(self.connection, agency, draw)

    def raw(self, peer: PeerKind, key: bytes, asked: Question, now: float = NOW) -> Answer:
        topic, body = encode_question(asked)
        return self.directory.answer(peer, key, Ask(7, topic, body), now)

    def ask(self, peer: PeerKind, key: bytes, asked: Question, now: float = NOW) -> Reply:
        answer = self.raw(peer, key, asked, now)
        assert answer.number == 7
        return decode_answer(encode_question(asked)[0], answer.code, answer.body)

    def device(self, person: "Official", asked: Question) -> Reply:
        return self.ask(PeerKind.DEVICE, person.device.public, asked)

    def refused(self, peer: PeerKind, key: bytes, asked: Question, now: float = NOW) -> Answer:
        before = self.connection.total_changes()
        answer = self.raw(peer, key, asked, now)
        assert answer.code
        assert self.connection.total_changes() == before, "a refusal has written"
        return answer


@dataclasses.dataclass
class Official:
    """Keys of a user with one device, and what they ask to enrol."""

    user: Signer
    device: Signer
    invitation: Invitation
    request: Enrol


def prekey_of(device: Signer) -> bytes:
    return identity.sign_prekey(device, draw(PREKEY_BYTES), 1)


def invited(house: House, name: str = "anna") -> Official:
    user, device = signer(), signer()
    agency = house.agency.id
    invitation = house.directory.invite(name, Purpose.FIRST_DEVICE, NOW, HOUR)
    request = Enrol(
        identity.request_user(user, agency, name, 1),
        identity.request_device(user, device, agency, "phone", 1),
        x509.public_pem(x509.make_key()),
        prekey_of(device),
        ArchivalSigner(draw(32)).public,
    )
    return Official(user, device, invitation, request)


def enrolled(house: House, name: str = "anna") -> Official:
    person = invited(house, name)
    house.ask(PeerKind.INVITATION, person.invitation.ticket, person.request)
    return person


def recovering(house: House, user: Signer, name: str = "anna") -> Official:
    """What somebody with these words asks with a new device."""
    device, agency = signer(), house.agency.id
    invitation = house.directory.invite(name, Purpose.RECOVERY, NOW, HOUR)
    request = Enrol(
        identity.request_user(user, agency, name, 2),
        identity.request_device(user, device, agency, "new", 2),
        x509.public_pem(x509.make_key()),
        prekey_of(device),
        ArchivalSigner(draw(32)).public,
    )
    return Official(user, device, invitation, request)


def looked_up(house: House, peer: PeerKind, key: bytes, asked: Lookup) -> tuple[Person | None, ...]:
    reply = house.ask(peer, key, asked)
    assert isinstance(reply, People)
    return reply.people


@pytest.fixture
def house(founded: tuple[Agency, Agency], tmp_path: Path) -> Iterator[House]:
    made = House(founded[0], tmp_path / "node.db")
    yield made
    made.connection.close()


@pytest.fixture
def foreign(founded: tuple[Agency, Agency], tmp_path: Path) -> Iterator[House]:
    made = House(founded[1], tmp_path / "other.db")
    yield made
    made.connection.close()


class TestEnrol:
    def test_an_invited_person_is_registered(self, house: House) -> None:
        person = invited(house)
        reply = house.ask(PeerKind.INVITATION, person.invitation.ticket, person.request)
        assert isinstance(reply, Enrolment)
        charter = house.agency.card.charter
        known = identity.verify_credential(charter.raw, reply.user, [reply.device])
        assert (known.name, known.user) == ("anna@minzdrav", person.user.public)
        assert reply.card == house.agency.card.raw
        assert b"BEGIN CERTIFICATE" in reply.tls_certificate
        assert house.directory.device_allowed(DeviceKey(person.device.public))

    def test_a_ticket_is_good_once(self, house: House) -> None:
        person, other = invited(house), invited(house)
        ticket = person.invitation.ticket
        house.ask(PeerKind.INVITATION, ticket, person.request)
        refusal = house.refused(PeerKind.INVITATION, ticket, other.request)
        assert refusal.code == 8
        assert b"ask for a new one" in refusal.body

    def test_the_very_same_may_be_asked_again(self, house: House) -> None:
        """The answer may have been lost on the way."""
        person = enrolled(house)
        ticket = person.invitation.ticket
        reply = house.ask(PeerKind.INVITATION, ticket, person.request)
        assert isinstance(reply, Enrolment)
        house.directory.people.revoke([DeviceKey(person.device.public)])
        assert house.refused(PeerKind.INVITATION, ticket, person.request).code == 8

    def test_unknown_over_and_used_are_told_alike(self, house: House) -> None:
        person = invited(house)
        ticket = person.invitation.ticket
        unknown = house.refused(PeerKind.INVITATION, b"x" * 16, person.request)
        late = house.refused(PeerKind.INVITATION, ticket, person.request, NOW + HOUR + 1)
        assert (unknown.code, unknown.body) == (late.code, late.body)

    def test_the_name_is_the_invited_one(self, house: House) -> None:
        person = invited(house)
        wrong = dataclasses.replace(
            person.request,
            user_request=identity.request_user(person.user, house.agency.id, "boris", 1),
        )
        refusal = house.refused(PeerKind.INVITATION, person.invitation.ticket, wrong)
        assert (refusal.code, b"invited as anna" in refusal.body) == (4, True)

    def test_a_name_in_use_is_not_given_twice(self, house: House) -> None:
        second = invited(house)
        enrolled(house)
        refusal = house.refused(PeerKind.INVITATION, second.invitation.ticket, second.request)
        assert b"1 device(s) in use" in refusal.body

    def test_a_revoked_user_may_start_anew(self, house: House) -> None:
        old = enrolled(house)
        house.directory.people.revoke([DeviceKey(old.device.public)])
        new = enrolled(house)
        assert not house.directory.device_allowed(DeviceKey(old.device.public))
        assert house.directory.device_allowed(DeviceKey(new.device.public))

    def test_a_revoked_device_does_not_return(self, house: House) -> None:
        """Hostile case 47."""
        old = enrolled(house)
        house.directory.people.revoke([DeviceKey(old.device.public)])
        again = invited(house)
        refusal = house.refused(
            PeerKind.INVITATION,
            again.invitation.ticket,
            dataclasses.replace(old.request),
        )
        assert b"registered before" in refusal.body

    def test_another_devices_prekey_is_refused(self, house: House) -> None:
        person = invited(house)
        wrong = dataclasses.replace(person.request, prekey=prekey_of(signer()))
        refusal = house.refused(PeerKind.INVITATION, person.invitation.ticket, wrong)
        assert b"another device" in refusal.body


class TestRecover:
    """SPEC 5.3: a new device, by the identity key, whether or not the lost ones are revoked."""

    @pytest.mark.parametrize("revoked", [True, False])
    def test_a_new_device_of_the_same_user(self, house: House, *, revoked: bool) -> None:
        person = enrolled(house)
        if revoked:
            house.directory.people.revoke([DeviceKey(person.device.public)])
        again = recovering(house, person.user)
        reply = house.ask(PeerKind.INVITATION, again.invitation.ticket, again.request)
        assert isinstance(reply, Enrolment)
        repeated = house.ask(PeerKind.INVITATION, again.invitation.ticket, again.request)
        assert isinstance(repeated, Enrolment)
        assert repeated.device == reply.device
        owner = house.directory.people.owner(DeviceKey(again.device.public))
        assert owner == (UserId(person.user.public), "anna@minzdrav")
        fresh = (DeviceKey(again.device.public), UserId(person.user.public))
        assert house.directory.people.devices_in_use(UserId(person.user.public)) == 2 - revoked
        rows = house.connection.execute("SELECT id, user FROM devices WHERE enters = 1").fetchall()
        assert rows == [fresh]

    def test_not_with_other_words(self, house: House) -> None:
        enrolled(house)
        again = recovering(house, signer())
        refusal = house.refused(PeerKind.INVITATION, again.invitation.ticket, again.request)
        assert (refusal.code, b"these words are not those of" in refusal.body) == (8, True)

    def test_not_without_the_identity_key(self, house: House) -> None:
        person = enrolled(house)
        forged = recovering(house, signer())
        honest = identity.request_user(person.user, house.agency.id, "anna", 2)
        forged.request = dataclasses.replace(forged.request, user_request=honest)
        refusal = house.refused(PeerKind.INVITATION, forged.invitation.ticket, forged.request)
        assert refusal.code == 4

    def test_not_by_an_invitation_for_a_first_device(self, house: House) -> None:
        person = enrolled(house)
        house.directory.people.revoke([DeviceKey(person.device.public)])
        other = recovering(house, person.user)
        first = house.directory.invite("anna", Purpose.FIRST_DEVICE, NOW, HOUR)
        house.ask(PeerKind.INVITATION, first.ticket, other.request)
        assert house.connection.execute("SELECT 1 FROM devices WHERE enters = 1").get is None

    def test_nobody_is_recovered_who_never_was(self, house: House) -> None:
        with pytest.raises(RefusedError, match="never enrolled here"):
            house.directory.invite("anna", Purpose.RECOVERY, NOW, HOUR)

    def test_a_lost_device_is_given_up_once_more(self, house: House) -> None:
        """The operator was faster than the user."""
        person = enrolled(house)
        again = recovering(house, person.user)
        house.ask(PeerKind.INVITATION, again.invitation.ticket, again.request)
        lost = DeviceKey(person.device.public)
        house.directory.people.revoke([lost])
        signature = identity.sign_revocation(person.user, house.agency.id, lost)
        house.device(again, question.Revoke(lost, signature))


class TestLookup:
    def test_by_name_and_by_id(self, house: House) -> None:
        anna = enrolled(house)
        asked = Lookup(("anna@minzdrav", "nobody@minzdrav"), (UserId(anna.user.public),))
        found = looked_up(house, PeerKind.DEVICE, anna.device.public, asked)
        assert found[0] is not None
        assert found[0] == found[2]
        assert found[1] is None
        assert found[0].devices[0].prekey == anna.request.prekey

    def test_absent_and_unknown_agency_are_one_answer(self, house: House) -> None:
        """Hostile case 61: whether a user exists is not told."""
        anna = enrolled(house)
        bodies = {
            house.raw(PeerKind.DEVICE, anna.device.public, Lookup((name,))).body
            for name in ("nobody@minzdrav", "nobody@mincifry", "anna@nowhere")
        }
        assert len(bodies) == 1

    def test_a_revoked_user_is_absent(self, house: House) -> None:
        anna, boris = enrolled(house), enrolled(house, "boris")
        house.directory.people.revoke([DeviceKey(boris.device.public)])
        asked = Lookup(("boris@minzdrav",))
        assert looked_up(house, PeerKind.DEVICE, anna.device.public, asked) == (None,)

    def test_a_revoked_device_asks_in_vain(self, house: House) -> None:
        anna = enrolled(house)
        house.directory.people.revoke([DeviceKey(anna.device.public)])
        for asked in (question.GetParcels(), question.BeginLink()):
            assert house.refused(PeerKind.DEVICE, anna.device.public, asked).code == 8

    def test_a_prekey_is_renewed_by_its_device(self, house: House) -> None:
        anna = enrolled(house)
        fresh = prekey_of(anna.device)
        house.device(anna, question.PutPrekey(fresh))
        (found,) = looked_up(house, PeerKind.DEVICE, anna.device.public, Lookup(("anna@minzdrav",)))
        assert found is not None
        assert found.devices[0].prekey == fresh
        wrong = question.PutPrekey(prekey_of(signer()))
        assert house.refused(PeerKind.DEVICE, anna.device.public, wrong).code == 4

    @pytest.mark.parametrize(
        ("peer", "asked"),
        [
            (PeerKind.NODE, question.GetParcels()),
            (PeerKind.NODE, question.BeginLink()),
            (PeerKind.DEVICE, question.GetLink()),
            (PeerKind.INVITATION, question.GetCards()),
        ],
    )
    def test_each_kind_of_peer_has_its_questions(
        self, house: House, peer: PeerKind, asked: Question
    ) -> None:
        assert house.refused(peer, b"k" * 32, asked).code == 8

    def test_an_unknown_topic_is_refused(self, house: House) -> None:
        answer = house.directory.answer(PeerKind.DEVICE, b"k" * 32, Ask(1, 99, b"\x90"), NOW)
        assert answer.code == 8

    def test_malformed_bytes_end_the_session(self, house: House) -> None:
        with pytest.raises(PeerError):
            house.directory.answer(PeerKind.NODE, b"k" * 32, Ask(1, Topic.LOOKUP, b"\xc1"), NOW)


class TestForeign:
    """Users of other agencies: asked for there, checked, and cached here."""

    def forwarded(self, house: House, foreign: House, asked: Lookup) -> None:
        topic, body = encode_question(asked)
        for agency, forward in house.directory.foreign(Ask(1, topic, body)).items():
            assert agency == foreign.agency.id
            answer = foreign.directory.answer(
                PeerKind.NODE, house.agency.id, Ask(2, Topic.LOOKUP, forward), NOW
            )
            house.directory.remember(agency, answer, forward)

    @pytest.fixture
    def federated(self, house: House, foreign: House) -> None:
        house.directory.accept_card(foreign.agency.card.raw, allow_local=False)

    @pytest.mark.usefixtures("federated")
    def test_a_user_abroad_is_found_and_cached(self, house: House, foreign: House) -> None:
        anna, boris = enrolled(house), enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry", "anna@minzdrav"))
        self.forwarded(house, foreign, asked)
        found = looked_up(house, PeerKind.DEVICE, anna.device.public, asked)
        assert all(found)
        assert not house.directory.device_allowed(DeviceKey(boris.device.public))
        by_id = Lookup((), (UserId(boris.user.public),))
        assert house.directory.foreign(Ask(1, *encode_question(by_id)))

    @pytest.mark.usefixtures("federated")
    def test_the_cache_is_not_told_to_other_nodes(self, house: House, foreign: House) -> None:
        enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry",))
        self.forwarded(house, foreign, asked)
        assert looked_up(house, PeerKind.NODE, b"n" * 32, asked) == (None,)

    @pytest.mark.usefixtures("federated")
    def test_whom_their_agency_revoked_is_dropped(self, house: House, foreign: House) -> None:
        anna, boris = enrolled(house), enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry",))
        self.forwarded(house, foreign, asked)
        foreign.directory.people.revoke([DeviceKey(boris.device.public)])
        self.forwarded(house, foreign, asked)
        assert looked_up(house, PeerKind.DEVICE, anna.device.public, asked) == (None,)

    @pytest.mark.usefixtures("federated")
    def test_a_refusal_changes_nothing(self, house: House, foreign: House) -> None:
        anna = enrolled(house)
        enrolled(foreign, "boris")
        asked = Lookup(("boris@mincifry",))
        self.forwarded(house, foreign, asked)
        body = encode_question(asked)[1]
        house.directory.remember(foreign.agency.id, Answer(1, 3, b"busy"), body)
        assert all(looked_up(house, PeerKind.DEVICE, anna.device.public, asked))

    @pytest.mark.usefixtures("federated")
    def test_an_agency_speaks_for_its_own_users_only(self, house: House, foreign: House) -> None:
        enrolled(house)
        own = house.directory.people.by_name("anna@minzdrav")
        answer = Answer(1, 0, encode_answer(People((own,))))
        with pytest.raises(Untrusted, match="of another"):
            house.directory.remember(foreign.agency.id, answer)

    @pytest.mark.usefixtures("federated")
    def test_an_agency_speaks_under_its_own_name(
        self, house: House, foreign: House, founded: tuple[Agency, Agency]
    ) -> None:
        """A trusted agency cannot make itself a charter of another name."""
        root = agencies.open_root(founded[1].folder / agencies.ROOT_FILE, b"r")
        registrar = founded[1].registrar
        charter = identity.sign_charter(root, 9, "minfin", "RU", registrar.public, bytes(32))
        user, device = signer(), signer()
        person = Person(
            charter,
            identity.certify_user(
                registrar, identity.request_user(user, foreign.agency.id, "boris", 1)
            ),
            (
                PersonDevice(
                    identity.certify_device(
                        registrar,
                        identity.request_device(user, device, foreign.agency.id, "x", 1),
                    ),
                    None,
                ),
            ),
        )
        with pytest.raises(Untrusted, match="under another name"):
            house.directory.remember(
                foreign.agency.id, Answer(1, 0, encode_answer(People((person,))))
            )

    def test_unknown_agencies_are_not_asked(self, house: House) -> None:
        asked = Lookup(("boris@mincifry",), (UserId(b"u" * 32),))
        assert not house.directory.foreign(Ask(1, *encode_question(asked)))


class TestLink:
    def begin(self, house: House, owner: Official) -> tuple[Invitation, Signer, question.PutLink]:
        reply = house.device(owner, question.BeginLink())
        assert isinstance(reply, LinkInvitation)
        invitation = decode_invitation(reply.text)
        tablet = signer()
        request = question.PutLink(
            identity.request_link(tablet, UserId(owner.user.public), house.agency.id, "tablet", 2),
            x509.public_pem(x509.make_key()),
            prekey_of(tablet),
            ArchivalSigner(draw(32)).public,
        )
        return invitation, tablet, request

    def test_a_further_device_joins(self, house: House) -> None:
        anna = enrolled(house)
        invitation, tablet, request = self.begin(house, anna)
        assert invitation.purpose is Purpose.LINK
        ticket = invitation.ticket
        own = looked_up(house, PeerKind.INVITATION, ticket, Lookup(("anna@minzdrav",)))
        assert own[0] is not None
        house.ask(PeerKind.INVITATION, ticket, request)
        assert house.ask(PeerKind.INVITATION, ticket, question.GetLink()) == Waiting()
        pending = house.device(anna, question.GetPending())
        assert isinstance(pending, PendingLinks)
        (link,) = pending.links
        endorsed = identity.endorse_link(anna.user, link.request)
        approve = question.Approve(link.ticket, endorsed)
        approved = house.device(anna, approve)
        assert house.device(anna, approve) == approved, "an answer may be lost"
        result = house.ask(PeerKind.INVITATION, ticket, question.GetLink())
        assert isinstance(result, Enrolment)
        assert isinstance(approved, Certified)
        assert result.device == approved.certificate
        assert house.directory.device_allowed(DeviceKey(tablet.public))
        assert house.device(anna, question.GetPending()) == PendingLinks(())

    def test_only_the_user_can_endorse(self, house: House) -> None:
        """Hostile case 46: a device certificate needs the user's signature."""
        anna, boris = enrolled(house), enrolled(house, "boris")
        invitation, _, request = self.begin(house, anna)
        house.ask(PeerKind.INVITATION, invitation.ticket, request)
        body, by_device = codec.decode(request.request, 4096)
        assert isinstance(body, bytes)
        assert isinstance(by_device, bytes)
        forged = codec.encode((body, boris.user.sign("device", body), by_device))
        approve = question.Approve(invitation.ticket, forged)
        assert house.refused(PeerKind.DEVICE, anna.device.public, approve).code == 4
        endorsed = question.Approve(
            invitation.ticket, identity.endorse_link(anna.user, request.request)
        )
        assert house.refused(PeerKind.DEVICE, boris.device.public, endorsed).code == 8

    def test_nobody_takes_the_place_of_the_device_that_waits(self, house: House) -> None:
        anna = enrolled(house)
        invitation, _, request = self.begin(house, anna)
        other = dataclasses.replace(request, prekey=prekey_of(signer()))
        house.ask(PeerKind.INVITATION, invitation.ticket, request)
        assert house.refused(PeerKind.INVITATION, invitation.ticket, other).code == 4
        thief = signer()
        stolen = question.PutLink(
            identity.request_link(thief, UserId(anna.user.public), house.agency.id, "x", 2),
            request.tls_key,
            prekey_of(thief),
            request.archive_key,
        )
        assert house.refused(PeerKind.INVITATION, invitation.ticket, stolen).code == 8

    def test_links_are_bounded(self, house: House) -> None:
        anna = enrolled(house)
        for _ in range(topic.LINKS_PENDING_MAX):
            house.device(anna, question.BeginLink())
        refusal = house.refused(PeerKind.DEVICE, anna.device.public, question.BeginLink())
        assert refusal.code == 5

    def test_a_link_ticket_tells_of_its_user_only(self, house: House) -> None:
        anna, _ = enrolled(house), enrolled(house, "boris")
        ticket = self.begin(house, anna)[0].ticket
        assert looked_up(house, PeerKind.INVITATION, ticket, Lookup(("boris@minzdrav",))) == (None,)
        first = invited(house, "clara").invitation.ticket
        assert house.refused(PeerKind.INVITATION, first, Lookup(("boris@minzdrav",))).code == 8


class TestDevices:
    def test_parcels_come_in_order_and_go_when_taken(self, house: House) -> None:
        anna = enrolled(house)
        own = DeviceKey(anna.device.public)
        for body in (b"a" * 600_000, b"b" * 600_000, b"c"):
            house.device(anna, question.PutParcel(own, body))
        first = house.device(anna, question.GetParcels())
        assert isinstance(first, Parcels)
        assert [parcel.body[:1] for parcel in first.parcels] == [b"a"]
        house.device(anna, question.Taken(tuple(one.number for one in first.parcels)))
        rest = house.device(anna, question.GetParcels())
        assert isinstance(rest, Parcels)
        assert [parcel.body[:1] for parcel in rest.parcels] == [b"b", b"c"]

    def test_parcels_are_for_ones_own_devices(self, house: House) -> None:
        anna, boris = enrolled(house), enrolled(house, "boris")
        theirs = question.PutParcel(DeviceKey(boris.device.public), b"x")
        absent = question.PutParcel(DeviceKey(b"x" * 32), b"x")
        answers = [
            house.refused(PeerKind.DEVICE, anna.device.public, asked) for asked in (theirs, absent)
        ]
        assert answers[0] == answers[1]

    def test_nobody_takes_anothers_parcels(self, house: House) -> None:
        anna, boris = enrolled(house), enrolled(house, "boris")
        house.device(anna, question.PutParcel(DeviceKey(anna.device.public), b"x"))
        house.device(boris, question.Taken((1,)))
        left = house.device(anna, question.GetParcels())
        assert isinstance(left, Parcels)
        assert len(left.parcels) == 1

    def test_parcels_are_bounded(self, house: House) -> None:
        anna = enrolled(house)
        parcel = question.PutParcel(DeviceKey(anna.device.public), b"x")
        for _ in range(WAITING_MAX):
            house.device(anna, parcel)
        assert house.refused(PeerKind.DEVICE, anna.device.public, parcel).code == 5

    def test_a_user_revokes_a_device(self, house: House) -> None:
        anna = enrolled(house)
        device = DeviceKey(anna.device.public)
        house.device(anna, question.PutParcel(device, b"x"))
        signature = identity.sign_revocation(anna.user, house.agency.id, device)
        house.device(anna, question.Revoke(device, signature))
        assert not house.directory.device_allowed(device)
        assert not house.directory.parcels.waiting(device)

    def test_a_revocation_needs_the_users_signature(self, house: House) -> None:
        anna, boris = enrolled(house), enrolled(house, "boris")
        device = DeviceKey(anna.device.public)
        signature = identity.sign_revocation(boris.user, house.agency.id, device)
        asked = question.Revoke(device, signature)
        assert house.refused(PeerKind.DEVICE, anna.device.public, asked).code == 4
        assert house.refused(PeerKind.DEVICE, boris.device.public, asked).code == 8

    def test_a_tls_certificate_is_renewed(self, house: House) -> None:
        anna = enrolled(house)
        reply = house.device(anna, question.Renew(x509.public_pem(x509.make_key())))
        assert isinstance(reply, Certified)
        assert b"BEGIN CERTIFICATE" in reply.certificate
        assert house.refused(PeerKind.DEVICE, anna.device.public, question.Renew(b"x")).code == 4


class TestSignatories:
    """SPEC 6.1, 7.3: certificates for signing documents."""

    def asked(
        self, house: House, anna: Official, key: bytes, claimed: bytes | None = None
    ) -> question.CertifySigner:
        device = anna.device.public if claimed is None else claimed
        claim = signatory.possession(house.agency.id, device)
        return question.CertifySigner(x509.public_pem(key), signatory.prove_possession(key, claim))

    def test_names_the_user_and_says_the_same_again(self, house: House) -> None:
        anna, key = enrolled(house), x509.make_key()
        reply = house.device(anna, self.asked(house, anna, key))
        assert isinstance(reply, Certified)
        found = signatory.read_signatory(
            ssl.PEM_cert_to_DER_cert(reply.certificate.decode()), house.agency.card.ca
        )
        assert found.is_of(signatory.Subject("anna", "minzdrav", anna.user.public))
        assert found.is_valid_at(NOW)
        assert house.device(anna, self.asked(house, anna, key)) == reply

    def test_near_its_end_it_is_another(self, house: House) -> None:
        anna, key = enrolled(house), x509.make_key()
        asked = self.asked(house, anna, key)
        first = house.device(anna, asked)
        later = NOW + 340 * 24 * HOUR
        assert house.ask(PeerKind.DEVICE, anna.device.public, asked, later) != first

    def test_needs_the_private_key_and_this_device(self, house: House) -> None:
        anna, boris = enrolled(house), enrolled(house, "boris")
        key = x509.make_key()
        own = self.asked(house, anna, key)
        stolen = dataclasses.replace(own, signing_key=x509.public_pem(x509.make_key()))
        for device, asked in ((anna, stolen), (boris, own)):
            refused = house.refused(PeerKind.DEVICE, device.device.public, asked)
            assert refused.code == 4
            assert b"does not hold the signing key" in refused.body

    def test_a_revoked_device_gets_none(self, house: House) -> None:
        anna, key = enrolled(house), x509.make_key()
        house.directory.people.revoke([DeviceKey(anna.device.public)])
        asked = self.asked(house, anna, key)
        assert house.refused(PeerKind.DEVICE, anna.device.public, asked).code == 8

    def test_a_user_has_so_many_at_most(self, house: House) -> None:
        anna = enrolled(house)
        for number in range(USER_MAX):
            house.connection.execute(
                "INSERT INTO signatories VALUES (?, ?, x'', x'', x'', ?)",
                (number.to_bytes(20, "big"), anna.user.public, int(NOW) + 1),
            )
        asked = self.asked(house, anna, x509.make_key())
        assert house.refused(PeerKind.DEVICE, anna.device.public, asked).code == 5
        house.ask(PeerKind.DEVICE, anna.device.public, asked, NOW + 1)


class TestCards:
    def other(
        self,
        founded: tuple[Agency, Agency],
        serial: int,
        name: str = "mincifry",
        endpoints: tuple[str, ...] = ("mincifry.example:7340",),
        zone: str = "RU",
        issued: int = 1,
    ) -> bytes:
        """A card of the second agency's root, as it likes."""
        agency = founded[1]
        root = agencies.open_root(agency.folder / agencies.ROOT_FILE, b"r")
        charter = identity.sign_charter(
            root, serial, name, zone, agency.registrar.public, bytes(32)
        )
        nodes = (CardNode(NodeId(agency.node.public), endpoints),)
        return identity.sign_card(root, charter, agency.card.ca, nodes, issued)

    def stranger(self, name: str) -> bytes:
        """A card of a new root."""
        root = signer()
        ca = x509.authority(x509.make_key(), root.public.hex(), NOW, 3652, 5)
        der = x509_der(ca)
        charter = identity.sign_charter(root, 1, name, "RU", signer().public, bytes(32))
        return identity.sign_card(root, charter, der, (), 1)

    def test_a_card_is_taken(self, house: House, founded: tuple[Agency, Agency]) -> None:
        raw = self.other(founded, 1)
        card = house.directory.accept_card(raw, allow_local=False)
        assert house.directory.cards()[card.charter.agency].raw == raw
        assert house.directory.trust.examine(raw, allow_local=False).standing is Standing.SAME

    def test_our_own_card_is_among_them(self, house: House) -> None:
        assert house.directory.cards() == {house.agency.id: house.agency.card}

    def test_the_highest_serial_wins(self, house: House, founded: tuple[Agency, Agency]) -> None:
        """Hostile case 58: an old card replayed."""
        trust = house.directory.trust
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        newer = self.other(founded, 3, endpoints=("new.example:1",))
        assert trust.renew(newer, allow_local=False)
        assert not trust.renew(newer, allow_local=False)
        with pytest.raises(IdentityError, match="an old card"):
            trust.renew(self.other(founded, 2), allow_local=False)
        assert house.directory.cards()[AgencyId(founded[1].id)].raw == newer

    def test_two_cards_of_one_serial(self, house: House, founded: tuple[Agency, Agency]) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        with pytest.raises(IdentityError, match="two different cards"):
            house.directory.accept_card(self.other(founded, 1, issued=2), allow_local=False)

    def test_another_root_under_a_known_name(
        self, house: House, founded: tuple[Agency, Agency]
    ) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        for name in ("mincifry", "minzdrav"):
            with pytest.raises(IdentityError, match="already known as"):
                house.directory.accept_card(self.stranger(name), allow_local=False)

    def test_an_agency_keeps_its_name(self, house: House, founded: tuple[Agency, Agency]) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        with pytest.raises(IdentityError, match="keeps its name"):
            house.directory.accept_card(self.other(founded, 2, "minfin"), allow_local=False)

    def test_names_that_look_alike_are_told(self, house: House) -> None:
        """Hostile case 59: one script each, and yet the same on a screen."""
        trust = house.directory.trust
        house.directory.accept_card(self.stranger("cop"), allow_local=False)
        assert trust.examine(self.stranger("сор"), allow_local=False).looks_like == ("cop",)
        assert not trust.examine(self.stranger("minfin"), allow_local=False).looks_like

    @pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "[::1]:1", "169.254.1.1:1", "localhost:1"])
    def test_local_addresses(
        self, house: House, founded: tuple[Agency, Agency], endpoint: str
    ) -> None:
        """Hostile case 60."""
        raw = self.other(founded, 1, endpoints=(endpoint,))
        with pytest.raises(Untrusted, match="local to a machine"):
            house.directory.accept_card(raw, allow_local=False)
        house.directory.accept_card(raw, allow_local=True)

    def test_a_card_with_anothers_ca(self, house: House, founded: tuple[Agency, Agency]) -> None:
        root = signer()
        charter = identity.sign_charter(root, 1, "minfin", "RU", root.public, bytes(32))
        raw = identity.sign_card(root, charter, founded[1].card.ca, (), 1)
        with pytest.raises(Untrusted, match="not made for its agency"):
            house.directory.accept_card(raw, allow_local=False)

    def test_ones_own_card_is_no_peers(self, house: House) -> None:
        with pytest.raises(UserError, match="own card"):
            house.directory.accept_card(house.agency.card.raw, allow_local=True)

    def test_strangers_and_other_zones_need_a_person(
        self, house: House, founded: tuple[Agency, Agency]
    ) -> None:
        trust = house.directory.trust
        with pytest.raises(IdentityError, match="not trusted here"):
            trust.renew(self.other(founded, 1), allow_local=False)
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        moved = self.other(founded, 2, zone="US")
        with pytest.raises(IdentityError, match="moved from zone"):
            trust.renew(moved, allow_local=False)
        found = trust.examine(moved, allow_local=False)
        assert found.known is not None
        assert changes(found.known, found.card) == ("zone",)

    def test_cards_are_told(self, house: House, founded: tuple[Agency, Agency]) -> None:
        house.directory.accept_card(self.other(founded, 1), allow_local=False)
        reply = house.ask(PeerKind.NODE, founded[1].id, question.GetCards())
        assert isinstance(reply, Cards)
        assert len(reply.cards) == 2


def x509_der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())
