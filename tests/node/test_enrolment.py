"""SPEC 5.3, 7.3: enrolling, recovering, linking, revoking, and certificates for documents."""

import dataclasses
import ssl

import pytest

from crypto import certificate as x509
from crypto import signatory
from crypto.archival import ArchivalSigner
from crypto.signing import Signer
from node.database import begin_anew
from node.errors import RefusedError
from node.parcels import WAITING_MAX
from node.signatories import USER_MAX
from protocol import codec, identity, question, topic
from protocol.entry import DeviceKey
from protocol.identity import UserId
from protocol.invitation import Invitation, Purpose, decode_invitation
from protocol.question import Lookup
from protocol.reply import (
    Certified,
    Enrolment,
    LinkInvitation,
    Parcels,
    PendingLinks,
    Waiting,
)
from protocol.session import PeerKind
from tests.node.house import (
    HOUR,
    NOW,
    House,
    Official,
    draw,
    enrolled,
    invited,
    looked_up,
    prekey_of,
    recovering,
    signer,
)


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
        assert b"1 of 32 devices in use" in refusal.body

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
        first = house.directory.registrar.invite("anna", Purpose.FIRST_DEVICE, NOW, HOUR)
        house.ask(PeerKind.INVITATION, first.ticket, other.request)
        assert house.connection.execute("SELECT 1 FROM devices WHERE enters = 1").get is None

    def test_nobody_is_recovered_who_never_was(self, house: House) -> None:
        with pytest.raises(RefusedError, match="never enrolled here"):
            house.directory.registrar.invite("anna", Purpose.RECOVERY, NOW, HOUR)

    def test_who_was_enrolled_after_the_backup_stays_who_they_were(self, house: House) -> None:
        """Regression: they had to begin anew, out of every chat, and looked like an impostor."""
        boris = enrolled(house, "boris")
        with house.connection:
            begin_anew(house.connection, draw)
        again = recovering(house, signer())
        reply = house.ask(PeerKind.INVITATION, again.invitation.ticket, again.request)
        assert isinstance(reply, Enrolment)
        owner = house.directory.people.owner(DeviceKey(again.device.public))
        assert owner == (UserId(again.user.public), "anna@minzdrav")
        assert house.connection.execute("SELECT count(*) FROM devices WHERE enters = 1").get == 1
        third = recovering(house, boris.user, "dina")
        refusal = house.refused(PeerKind.INVITATION, third.invitation.ticket, third.request)
        assert b"those of somebody else" in refusal.body

    def test_a_lost_device_is_given_up_once_more(self, house: House) -> None:
        """The operator was faster than the user."""
        person = enrolled(house)
        again = recovering(house, person.user)
        house.ask(PeerKind.INVITATION, again.invitation.ticket, again.request)
        lost = DeviceKey(person.device.public)
        house.directory.people.revoke([lost])
        signature = identity.sign_revocation(person.user, house.agency.id, lost)
        house.device(again, question.Revoke(lost, signature))


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
