"""Users and devices of an agency: invited, enrolled, linked, certified, revoked (SPEC 5, 7.3).

    invitation = registrar.invite("anna", Purpose.FIRST_DEVICE, now, seconds)
    enrolment = registrar.enrol(ticket, asked, raw, now)        # the first device, and recovery
    registrar.put_link(…); registrar.approve(…); registrar.get_link(…)      # a further one

Plain and synchronous, inside the caller's transaction. An answer may be lost on its way, so whoever
asks again is answered the same.
"""

from crypto.errors import CertificateRefused
from crypto.signatory import check_possession, possession
from node.agency import (
    Agency,
    Random,
    certify_archive,
    device_certificate,
    invite,
    register_device,
    register_user,
    rename_device,
    signing_certificate,
)
from node.errors import LimitReached, RefusedError
from node.people import People
from node.signatories import Signatories
from node.tickets import Tickets, check_repeated
from protocol import identity, question, reply
from protocol.entry import DeviceKey
from protocol.errors import Untrusted
from protocol.identity import DEVICES_USER_MAX, DeviceCertificate, UserCertificate, UserId
from protocol.invitation import Invitation, Purpose
from protocol.name import Address
from protocol.question import Approve, Enrol, PutLink, decode_question
from protocol.reply import Certified, Done, Enrolment, Pending, Waiting
from protocol.topic import Topic


class Registrar:
    """Registers the users and devices of one agency. random: returns so many bytes."""

    def __init__(
        self,
        agency: Agency,
        people: People,
        tickets: Tickets,
        signatories: Signatories,
        random: Random,
    ) -> None:
        self._agency = agency
        self._people = people
        self._tickets = tickets
        self._signatories = signatories
        self._random = random

    def invite(self, name: str, purpose: Purpose, now: float, seconds: int) -> Invitation:
        """Make an invitation and keep its ticket. name: without the agency. now: seconds.

        Raises LimitReached for too many links, RefusedError for a first device of a user who has
        devices in use, and for the recovery of one who never had any, as far as is known here.
        """
        if purpose is Purpose.FIRST_DEVICE:
            self._check_free(name)
        elif not self._people.has_forgotten() and self._registered(name) is None:
            raise RefusedError(
                f"{self._address(name)} was never enrolled here: there is nothing to recover; "
                "invite without --recover"
            )
        invitation = invite(self._agency, name, purpose, now, seconds, self._random)
        self._tickets.keep(invitation.ticket, purpose, name, invitation.expires, _ms(now))
        return invitation

    # First devices

    def enrol(self, key: bytes, asked: Enrol, raw: bytes, now: float) -> Enrolment:
        """Register a user's first device, or a recovered user's. key: its ticket. raw: `asked`.

        Raises RefusedError, LimitReached for too many devices, and PeerError for what does not
        verify.
        """
        ticket = self._tickets.find(key, (Purpose.FIRST_DEVICE, Purpose.RECOVERY), _ms(now))
        user = register_user(self._agency, asked.user_request, ticket.name)
        device = register_device(self._agency, asked.device_request, user.user)
        prekey = own_prekey(device.device, asked.prekey)
        tls_certificate = self._tls_certificate(device.device, asked.tls_key, now)
        if ticket.used:
            check_repeated(ticket, raw)
            self._check_in_use(device.device)
        else:
            self._check_unknown(device.device)
            if ticket.purpose is Purpose.FIRST_DEVICE:
                self._keep_first(user)
            elif self._people.has_forgotten() and self._registered(user.name) is None:
                self._keep_forgotten(user)
            else:
                self._check_same(user)
            self._people.keep_device(device.device, user.user, device.raw, prekey)
            if ticket.purpose is Purpose.RECOVERY:
                self._people.let_enter(device.device)
            self._tickets.note(ticket, raw)
            self._tickets.use(ticket)
        archive = certify_archive(self._agency, device, asked.archive_key)
        return Enrolment(user.raw, device.raw, tls_certificate, self._agency.card.raw, archive)

    def _keep_first(self, user: UserCertificate) -> None:
        self._check_free(user.name)
        if self._people.agency_of(user.user) not in (None, self._agency.id):
            raise RefusedError("this identity key is already a user's of another agency")
        charter, address = self._agency.card.charter.raw, self._address(user.name)
        self._people.keep_user(user.user, self._agency.id, address, charter, user.raw)

    def _keep_forgotten(self, user: UserCertificate) -> None:
        """Take back an identity that was enrolled after our database was copied (SPEC 5.3)."""
        if self._people.agency_of(user.user) is not None:
            raise RefusedError("these words are those of somebody else; check the name")
        self._keep_first(user)

    def _check_same(self, user: UserCertificate) -> None:
        """Check that a recovered identity is the one that the name stands for (SPEC 5.3)."""
        known = self._registered(user.name)
        if known is None or known[0] != user.user:
            raise RefusedError(
                f"these words are not those of {self._address(user.name)}: another identity key "
                "is registered under that name"
            )
        self._check_room(user.user)

    def _registered(self, name: str) -> tuple[UserId, bytes] | None:
        return self._people.registered(self._address(name))

    def _check_free(self, name: str) -> None:
        person = self._people.by_name(self._address(name))
        if person is not None:
            raise RefusedError(
                f"{self._address(name)} has {len(person.devices)} of {DEVICES_USER_MAX} devices in "
                "use: add another with 'ivor device link' on one of them, or revoke the user first "
                "to start anew"
            )

    def _check_unknown(self, device: DeviceKey) -> None:
        if self._people.known_device(device):
            raise RefusedError("this device key was registered before: make a new device")

    def _check_in_use(self, device: DeviceKey) -> None:
        if self._people.owner(device) is None:
            raise RefusedError("this device is revoked")

    def _check_room(self, user: UserId) -> None:
        if self._people.devices_in_use(user) >= DEVICES_USER_MAX:
            raise LimitReached(f"a user has at most {DEVICES_USER_MAX} devices: revoke one")

    # Further devices

    def put_link(self, key: bytes, asked: PutLink, raw: bytes, now: float) -> Done:
        """Keep what a further device asks for until it is approved. key: its ticket. raw: `asked`.

        Raises RefusedError for a key that was registered, and PeerError for what does not verify.
        """
        ticket = self._tickets.find(key, (Purpose.LINK,), _ms(now))
        request = identity.read_link(asked.request)
        own_prekey(request.device, asked.prekey)
        self._tls_certificate(request.device, asked.tls_key, now)
        if not ticket.used:
            self._check_unknown(request.device)
        self._tickets.note(ticket, raw)
        return Done()

    def pending(self, name: str, now: float) -> reply.PendingLinks:
        """Return the further devices of a user that wait. name: without the agency."""
        found = []
        for ticket in self._tickets.pending(name, _ms(now)):
            link = _link_of(ticket.request)
            if link is not None:
                found.append(Pending(ticket.id, link.request))
        return reply.PendingLinks(tuple(found))

    def approve(self, user: UserId, name: str, asked: Approve, now: float) -> Certified:
        """Register the further device that one of the user's devices has signed for.

        Raises RefusedError, LimitReached for too many devices, Untrusted for another device.
        """
        ticket = self._tickets.find(asked.ticket, (Purpose.LINK,), _ms(now))
        link = _link_of(ticket.request)
        if ticket.name != name or link is None:
            raise RefusedError("no further device of this user waits with that ticket")
        device = register_device(self._agency, asked.request, user)
        if not _same_device(device, identity.read_link(link.request)):
            raise Untrusted("approved another device than the one that waits (SPEC 7.3)")
        if ticket.used:
            self._check_in_use(device.device)
        else:
            self._check_unknown(device.device)
            self._check_room(user)
            self._people.keep_device(device.device, user, device.raw, link.prekey)
            self._tickets.use(ticket)
        return Certified(device.raw)

    def get_link(self, key: bytes, now: float) -> Enrolment | Waiting:
        """Answer the same until the ticket is over, because an answer may be lost on the way."""
        ticket = self._tickets.find(key, (Purpose.LINK,), _ms(now))
        link = _link_of(ticket.request)
        if link is None or not ticket.used:
            return Waiting()
        device = identity.read_link(link.request).device
        self._check_in_use(device)
        person = self._people.by_name(self._address(ticket.name))
        certificate = self._people.certificate(device)
        if person is None:
            raise RefusedError("this user has no device in use")
        known = identity.verify_device(certificate, self._agency.card.charter)
        archive = certify_archive(self._agency, known, link.archive_key)
        tls_certificate = self._tls_certificate(device, link.tls_key, now)
        card = self._agency.card.raw
        return Enrolment(person.certificate, certificate, tls_certificate, card, archive)

    # All of them

    def take_over(self) -> int:
        """Sign anew what an earlier registrar key of ours has certified; return how many users.

        What users and devices have signed stays, so none of them is asked (SPEC 5.2).
        """
        ours, key, count = self._agency.card.charter, self._agency.registrar, 0
        for charter in self._people.charters():
            if identity.verify_charter(charter).registrar == ours.registrar:
                continue
            for user, certificate in self._people.certified_under(charter):
                renewed = identity.recertify_user(key, certificate)
                self._people.recertify_user(user, ours.raw, renewed)
                for device, raw in self._people.certificates(user):
                    self._people.recertify(device, identity.recertify_device(key, raw))
                count += 1
        return count

    # Devices in use

    def revoke(self, user: UserId, asked: question.Revoke) -> None:
        """Put a device of this user out, as another of theirs has signed; again changes nothing.

        Raises RefusedError for a device of somebody else, PeerError for a wrong signature.
        """
        identity.verify_revocation(user, self._agency.id, asked.device, asked.signature)
        owner = self._people.owner(asked.device)
        if owner is None and self._people.gave_up(asked.device, user):
            return
        if owner is None or owner[0] != user:
            raise RefusedError("no device of this user has that key")
        self._people.revoke([asked.device])

    def certify(
        self,
        device: DeviceKey,
        user: UserId,
        asked: question.Renew | question.CertifySigner | question.Rename,
        now: float,
    ) -> bytes:
        """Return a new certificate for a device: for TLS, with another label, or for documents.

        Raises RefusedError, and PeerError for what does not verify.
        """
        if isinstance(asked, question.Renew):
            return self._tls_certificate(device, asked.tls_key, now)
        if isinstance(asked, question.Rename):
            present = self._people.certificate(device)
            renamed = rename_device(self._agency, asked.request, user, present)
            self._people.recertify(device, renamed.raw)
            return renamed.raw
        return self._certify_signer(device, user, asked, now)

    def _certify_signer(
        self, device: DeviceKey, user: UserId, asked: question.CertifySigner, now: float
    ) -> bytes:
        """Certify a key for signing documents; the same again, because an answer may be lost."""
        try:
            check_possession(asked.signing_key, possession(self._agency.id, device), asked.proof)
        except CertificateRefused as error:
            raise Untrusted(f"{error}") from None
        standing = self._signatories.standing(device, asked.signing_key, now)
        if standing is not None:
            return standing
        person = self._people.by_id(user)
        if person is None:
            raise RefusedError("this user has no device in use")
        self._signatories.check_room(user, now)
        known = identity.verify_user(person.certificate, identity.verify_charter(person.charter))
        made = signing_certificate(self._agency, known, asked.signing_key, now, self._random)
        self._signatories.keep(user, device, asked.signing_key, made)
        return made

    def _tls_certificate(self, device: DeviceKey, tls_key: bytes, now: float) -> bytes:
        return device_certificate(self._agency, device, tls_key, now, self._random)

    def _address(self, name: str) -> str:
        return Address(name, self._agency.card.charter.name).text


def _ms(now: float) -> int:
    return int(now * 1000)


def own_prekey(device: DeviceKey, raw: bytes) -> bytes:
    """Check that a prekey record is this device's own, and return it. Raises Untrusted."""
    if identity.verify_prekey(raw).device != device:
        raise Untrusted("a prekey of another device (SPEC 7.3)")
    return raw


def _link_of(request: bytes | None) -> PutLink | None:
    """Read what the holder of a link's ticket asked; it was checked when it came."""
    if request is None:
        return None
    asked = decode_question(Topic.LINK_REQUEST, request)
    return asked if isinstance(asked, PutLink) else None


def _same_device(device: DeviceCertificate, link: identity.LinkRequest) -> bool:
    approved = (device.agency, device.user, device.device, device.label, device.issued)
    return approved == (link.agency, link.user, link.device, link.label, link.issued)
