"""TLS 1.3 with certificates on both sides, and who that makes the other side (SPEC 6.1).

    context = server_context(credential, authorities)      or client_context
    stream = trio.SSLStream(transport, context, server_side=True)
    peer = peer_identity(await handshake(stream), cards, own, now)

Two steps, because OpenSSL answers only "did one of these CAs sign it". Any trusted agency's CA
could sign `ivor:node:<id of another agency's node>`, so `peer_identity` asks again, of one agency
at a time: its own CA, and a node that its own card names.
"""

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import trio
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crypto.certificate import MALFORMED, subject_uri
from crypto.errors import CertificateRefused
from node.errors import NetworkError
from protocol.entry import DeviceKey
from protocol.errors import Untrusted
from protocol.identity import AgencyId, Card, NodeId
from protocol.invitation import TICKET_BYTES
from protocol.limits import KEY_BYTES

Transport = TypeVar("Transport", bound=trio.abc.Stream)

_URI = re.compile(
    rf"ivor:(?:(node):([0-9a-f]{{{KEY_BYTES * 2}}})|(device):([0-9a-f]{{{KEY_BYTES * 2}}})"
    rf"|(invitation):([0-9a-f]{{{TICKET_BYTES * 2}}}))"
)

_OUT_OF_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
# What the library raises at a certificate that is none, or is made in a way that it does not know.
_REFUSED = (*MALFORMED, TypeError, InvalidSignature, UnsupportedAlgorithm)


class HandshakeFailed(NetworkError):
    """The other side does not speak TLS 1.3, refused us, or went away."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, both PEM, not encrypted; never written to a disk."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodePeer:
    """A node that the agency's card names."""

    agency: AgencyId
    node: NodeId


@dataclass(frozen=True, slots=True)
class DevicePeer:
    """A device of our own agency; whether it is revoked is not known here."""

    device: DeviceKey


@dataclass(frozen=True, slots=True)
class InvitationPeer:
    """The holder of a ticket of our own agency, which may be spent or over."""

    ticket: bytes


Peer = NodePeer | DevicePeer | InvitationPeer


class AllRecords(ssl.SSLObject):
    """Gives all records that are here in one read; OpenSSL gives one, of 16 KiB at most.

    A read is a pass of the event loop, which costs more than to decrypt a record.
    """

    _found: ssl.SSLError | None = None  # after what was given last

    def read(self, size: int = 1024, buffer: object = None) -> bytes:
        """Return up to this many bytes, b"" at the end. Raises SSLError where nothing is left.

        buffer: none; the stream over this takes what is returned.
        """
        assert buffer is None
        if self._found is not None:
            raise self._found
        records = [super().read(size)]
        while records[-1] and (size := size - len(records[-1])):
            try:
                records.append(super().read(size))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._found = error
                break
        return records[0] if len(records) == 1 else b"".join(records)


def server_context(credential: Credential, authorities: Iterable[bytes]) -> ssl.SSLContext:
    """Make the context of a listening node.

    authorities: DER, of every trusted agency's card; `authority_of` has accepted each, because one
    that OpenSSL cannot read would spoil the context for all.

    Without tickets no session is resumed: a resumed one would not look at certificates again, and
    a card that was replaced, or a certificate that is over, would go unnoticed.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, credential, authorities)
    context.num_tickets = 0
    return context


def client_context(credential: Credential, authorities: Iterable[bytes]) -> ssl.SSLContext:
    """Make the context of a node or device that dials; arguments as in `server_context`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, credential, authorities)


def credential_from_der(certificate: bytes, key: bytes) -> Credential:
    """Make a credential of what an invitation carries. Raises Untrusted if it is malformed."""
    try:
        private = serialization.load_der_private_key(key, password=None)
        public = x509.load_der_x509_certificate(certificate)
    except (ValueError, TypeError):  # TypeError: the key is encrypted
        raise Untrusted("TLS certificate or key is malformed (SPEC 5.3)") from None
    if private.public_key() != public.public_key():
        raise Untrusted("TLS certificate is of another key (SPEC 5.3)")
    return Credential(
        public.public_bytes(serialization.Encoding.PEM),
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def credential_to_der(credential: Credential) -> tuple[bytes, bytes]:
    """Return certificate and key as an invitation carries them."""
    private = serialization.load_pem_private_key(credential.key, password=None)
    key = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return ssl.PEM_cert_to_DER_cert(credential.certificate.decode()), key


async def handshake(stream: trio.SSLStream[Transport]) -> bytes:
    """Shake hands and return the other side's certificate, DER. The caller sets the deadline.

    A client may learn only with its first read that the server refused it.
    Raises Untrusted if the certificate does not verify, HandshakeFailed for all else.
    """
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        raise refusal(error.__cause__) from None
    certificate = stream.getpeercert(binary_form=True)
    if not isinstance(certificate, bytes):
        raise Untrusted("the other side showed no certificate (SPEC 6.1)")
    return certificate


def refusal(error: BaseException | None) -> Untrusted | HandshakeFailed:
    """Say what went wrong in a handshake, or in the first read after it."""
    match error:
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=reason):
            clock = "; or the clock of this machine is wrong" if code in _OUT_OF_TIME else ""
            return Untrusted(f"the other side's certificate is refused: {reason}{clock} (SPEC 6.1)")
        case ssl.SSLError(reason="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            return Untrusted("the other side showed no certificate (SPEC 6.1)")
        case ssl.SSLError(reason=str(reason)):
            return HandshakeFailed(f"not TLS 1.3 as SPEC 6.1 asks: {reason}")
        case _:
            return HandshakeFailed("the connection ended in the handshake (SPEC 6.1)")


def authority_of(card: Card) -> x509.Certificate:
    """Return a card's CA, known to be made for this agency: its common name is the agency's id.

    Without that, a card could carry another agency's CA, and pass off that agency's nodes as its
    own. Raises Untrusted.
    """
    try:
        authority = x509.load_der_x509_certificate(card.ca)
        authority.verify_directly_issued_by(authority)
        names = [name.value for name in authority.subject]
        common = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _REFUSED:
        raise Untrusted("a card's CA certificate is malformed (SPEC 5.2)") from None
    if len(names) != 1 or not common or names != [card.charter.agency.hex()]:
        raise Untrusted("a card's CA certificate is not made for its agency (SPEC 5.2)")
    return authority


def peer_identity(der: bytes, cards: Mapping[AgencyId, Card], own: AgencyId, now: float) -> Peer:
    """Say who showed this certificate; TLS has proved that they hold its key.

    der: as `handshake` gives it. cards: the newest of each trusted agency, `own` among them.
    now: seconds UTC. Raises Untrusted: no agency's CA issued it directly, it is over or for another
    use, it names no node of that agency's card, or is a device or invitation from elsewhere.
    """
    try:
        found = _URI.fullmatch(subject_uri(der))
    except CertificateRefused as error:
        raise Untrusted(f"{error}") from None
    if not found:
        raise Untrusted("a certificate's id is not of the length of its kind (SPEC 6.1)")
    kind, name = (group for group in found.groups() if group)
    leaf = x509.load_der_x509_certificate(der)
    card = _issuer(leaf, cards)
    _check_use(leaf, kind, now)
    agency = card.charter.agency
    subject = bytes.fromhex(name)
    if kind == "node":
        if all(node.node != subject for node in card.nodes):
            raise Untrusted(f"node {name[:16]} is not in the card of its agency (SPEC 6.1)")
        return NodePeer(agency, NodeId(subject))
    if agency != own:
        raise Untrusted(f"a {kind} of another agency may not connect here (SPEC 6.1)")
    return DevicePeer(DeviceKey(subject)) if kind == "device" else InvitationPeer(subject)


def _context(protocol: int, credential: Credential, authorities: Iterable[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslobject_class = AllRecords
    # The subject is an ivor: URI, which `peer_identity` reads; there is no host name to compare.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    context.load_verify_locations(cadata=b"".join(authorities))
    _load(context, credential)
    return context


def _load(context: ssl.SSLContext, credential: Credential) -> None:
    """Hand over a private key. `ssl` takes it only from a file: this one is in memory alone."""
    descriptor = os.memfd_create("ivor-tls", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(credential.certificate + credential.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _issuer(leaf: x509.Certificate, cards: Mapping[AgencyId, Card]) -> Card:
    """Find the agency whose CA signed the leaf itself, with nothing between."""
    card = _named_issuer(leaf, cards)
    if card is not None:
        with suppress(*_REFUSED):
            leaf.verify_directly_issued_by(authority_of(card))
            return card
    raise Untrusted("a certificate that no trusted agency's CA issued directly (SPEC 6.1)")


def _named_issuer(leaf: x509.Certificate, cards: Mapping[AgencyId, Card]) -> Card | None:
    with suppress(*_REFUSED):  # a common name may be any text, or bytes
        (name,) = leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        return cards.get(AgencyId(bytes.fromhex(str(name.value))))
    return None


def _check_use(leaf: x509.Certificate, kind: str, now: float) -> None:
    """Check validity and extended key usage: a node must serve and dial, all others only dial."""
    moment = datetime.fromtimestamp(now, UTC)
    if not leaf.not_valid_before_utc <= moment <= leaf.not_valid_after_utc:
        raise Untrusted(
            f"certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, not now (SPEC 6.1)"
        )
    needed = {ExtendedKeyUsageOID.CLIENT_AUTH}
    if kind == "node":
        needed.add(ExtendedKeyUsageOID.SERVER_AUTH)
    try:
        usages = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = set()
    if usages != needed:
        raise Untrusted(f"certificate is not for the use of a {kind} (SPEC 6.1)")
