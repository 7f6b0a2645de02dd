"""Who is who: agencies, users, devices, and what vouches for them (SPEC 5.2).

An agency is its root key, a user is their identity key, a device is its signing key. On the wire
each record is [body, signature…]; a signature is over the body's bytes as received, and every
`verify_…` returns values that passed all checks, with the record itself as `raw`.

    charter             signed by the agency's root: name, zone and registrar key
    card                signed by the root: the charter, the CA for TLS, the nodes
    user certificate    signed by the registrar and the user
    device certificate  signed by the registrar, the user and the device
    device revocation   signed by the user, or by the device
    prekey              signed by the device

Every key that a certificate names signs it too. Without that an agency could certify a stranger's
key as its own user's, and what the stranger says would be put down to that user.

Nothing here is trusted yet: a charter vouches for itself. Whether its root is the ministry's is for
the node's directory, and for people who compare fingerprints.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NewType

from crypto.errors import BadSignature
from crypto.fingerprint import agency_fingerprint
from crypto.sealing import PREKEY_BYTES, prekey_id
from crypto.signing import Signer, verify
from protocol import codec
from protocol.entry import DeviceKey
from protocol.errors import LimitExceeded, NotCanonical, Untrusted
from protocol.limits import (
    CARD_BYTES_MAX,
    HASH_BYTES,
    KEY_BYTES,
    NAME_CHARS_MAX,
    SEQ_MAX,
    SIGNATURE_BYTES,
    TIME_MS_MAX,
    ZONE_CHARS_MAX,
)
from protocol.name import (
    ENDPOINT_CHARS_MAX,
    Address,
    check_name,
    check_zone,
    split_endpoint,
)

AgencyId = NewType("AgencyId", bytes)
UserId = NewType("UserId", bytes)
NodeId = NewType("NodeId", bytes)

VERSION: Final = 1
CHARTER_BYTES_MAX: Final = 512
CERTIFICATE_BYTES_MAX: Final = 1024
PREKEY_RECORD_BYTES_MAX: Final = PREKEY_BYTES + 256
AUTHORITY_BYTES_MAX: Final = 4096
LABEL_BYTES_MAX: Final = 64
NODES_AGENCY_MAX: Final = 16
ENDPOINTS_NODE_MAX: Final = 8
DEVICES_USER_MAX: Final = 32  # guess

_UTF8_BYTES_MAX: Final = 2  # of one letter of a name
_DEVICE_SIGNERS: Final = ("registrar", "user", "device")


@dataclass(frozen=True, slots=True)
class Charter:
    """What an agency says of itself. A higher serial replaces a lower one."""

    agency: AgencyId
    serial: int
    name: str
    zone: str
    registrar: bytes
    archive: bytes  # digest of the agency's ML-DSA key
    raw: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """What administrators compare: root key and archive key."""
        return agency_fingerprint(self.agency, self.archive)


@dataclass(frozen=True, slots=True)
class CardNode:
    """One node of an agency and where to reach it, `host:port` each; none if it only dials out."""

    node: NodeId
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """All that others need to federate with an agency. `ca` is a DER certificate."""

    charter: Charter
    ca: bytes = field(repr=False)
    nodes: tuple[CardNode, ...]
    issued: int
    raw: bytes = field(repr=False)

    @property
    def endpoints(self) -> list[str]:
        """Where its nodes are reached, host:port."""
        return [endpoint for node in self.nodes for endpoint in node.endpoints]


@dataclass(frozen=True, slots=True)
class UserCertificate:
    """A user's name in an agency. `name` is without the agency's; issued in milliseconds."""

    agency: AgencyId
    user: UserId
    name: str
    issued: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """A device of a user. `label` is what its owner calls it, and may hold any character."""

    agency: AgencyId
    user: UserId
    device: DeviceKey
    label: str
    issued: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """What a further device asks of its user: a device certificate's body, signed by it alone."""

    agency: AgencyId
    user: UserId
    device: DeviceKey
    label: str
    issued: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Prekey:
    """A public key to seal epoch secrets for a device; `id` is 16 bytes."""

    device: DeviceKey
    id: bytes
    public: bytes = field(repr=False)
    issued: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """A user and devices under one charter. Only `verify_credential` makes one."""

    agency: AgencyId
    agency_name: str
    zone: str
    user: UserId
    name: str  # anna@minzdrav
    devices: tuple[DeviceKey, ...]
    archive: bytes  # digest of the agency's ML-DSA key


def sign_charter(
    root: Signer, serial: int, name: str, zone: str, registrar: bytes, archive: bytes
) -> bytes:
    """Make a charter. Raises as `check_name` and `check_zone` do.

    registrar: the public key. archive: the digest of the archive key, 32 bytes.
    """
    body = codec.encode(
        (
            VERSION,
            root.public,
            serial,
            check_name(name).encode(),
            check_zone(zone).encode(),
            registrar,
            archive,
        )
    )
    return codec.encode((body, root.sign("charter", body)))


def verify_charter(raw: bytes) -> Charter:
    """Check a charter against the root key that it names."""
    body, (signature,) = _signed(raw, CHARTER_BYTES_MAX, 1, "charter")
    fields = _body(body, CHARTER_BYTES_MAX, 7, "charter")
    charter = Charter(
        agency=AgencyId(codec.fixed(fields[1], KEY_BYTES, "root")),
        serial=codec.uint(fields[2], SEQ_MAX, "serial"),
        name=_name(fields[3], "agency name"),
        zone=check_zone(codec.text(fields[4], ZONE_CHARS_MAX, "zone")),
        registrar=codec.fixed(fields[5], KEY_BYTES, "registrar"),
        archive=codec.fixed(fields[6], HASH_BYTES, "archive key"),
        raw=raw,
    )
    _check(charter.agency, "charter", body, signature, "root")
    return charter


def sign_card(
    root: Signer, charter: bytes, ca: bytes, nodes: Sequence[CardNode], issued: int
) -> bytes:
    """Make a card. ca: DER. issued: milliseconds. `verify_card` says what is allowed."""
    listed = [
        (node.node, [endpoint.encode() for endpoint in node.endpoints])
        for node in sorted(nodes, key=lambda node: node.node)
    ]
    body = codec.encode((VERSION, charter, ca, listed, issued))
    return codec.encode((body, root.sign("card", body)))


def verify_card(raw: bytes) -> Card:
    """Check a card and the charter in it. Nodes come in ascending order, none twice."""
    body, (signature,) = _signed(raw, CARD_BYTES_MAX, 1, "card")
    fields = _body(body, CARD_BYTES_MAX, 5, "card")
    charter = verify_charter(codec.binary(fields[1], CHARTER_BYTES_MAX, "charter"))
    _check(charter.agency, "card", body, signature, "root")
    nodes = tuple(_node(item) for item in codec.array(fields[3], NODES_AGENCY_MAX, "nodes"))
    if any(a.node >= b.node for a, b in pairwise(nodes)):
        raise NotCanonical("nodes of a card are not in ascending order (SPEC 5.2)")
    return Card(
        charter=charter,
        ca=codec.binary(fields[2], AUTHORITY_BYTES_MAX, "CA certificate"),
        nodes=nodes,
        issued=codec.uint(fields[4], TIME_MS_MAX, "issued"),
        raw=raw,
    )


def request_user(user: Signer, agency: AgencyId, name: str, issued: int) -> bytes:
    """Make what a registrar signs with `certify_user`: [body, the user's signature]."""
    body = codec.encode((VERSION, agency, user.public, check_name(name).encode(), issued))
    return codec.encode((body, user.sign("user", body)))


def certify_user(registrar: Signer, request: bytes) -> bytes:
    """Add the registrar's signature to a request, and so make a user certificate.

    The caller decides about the name first; the result still has to pass `verify_user`.
    """
    body, (by_user,) = _signed(request, CERTIFICATE_BYTES_MAX, 1, "user request")
    return codec.encode((body, registrar.sign("user", body), by_user))


def recertify_user(registrar: Signer, certificate: bytes) -> bytes:
    """Put a registrar's signature in the place of another key's of the same agency."""
    body, (_, by_user) = _signed(certificate, CERTIFICATE_BYTES_MAX, 2, "user certificate")
    return codec.encode((body, registrar.sign("user", body), by_user))


def verify_user(raw: bytes, charter: Charter) -> UserCertificate:
    """Check a user certificate against the charter's registrar and the user's own key."""
    body, (by_registrar, by_user) = _signed(raw, CERTIFICATE_BYTES_MAX, 2, "user certificate")
    fields = _body(body, CERTIFICATE_BYTES_MAX, 5, "user certificate")
    certificate = UserCertificate(
        agency=_agency(fields[1], charter),
        user=UserId(codec.fixed(fields[2], KEY_BYTES, "user")),
        name=_name(fields[3], "user name"),
        issued=codec.uint(fields[4], TIME_MS_MAX, "issued"),
        raw=raw,
    )
    _check(charter.registrar, "user", body, by_registrar, "registrar")
    _check(certificate.user, "user", body, by_user, "user")
    return certificate


def request_device(
    user: Signer, device: Signer, agency: AgencyId, label: str, issued: int
) -> bytes:
    """Make what a registrar signs with `certify_device`: [body, user's and device's signatures]."""
    body = codec.encode((VERSION, agency, user.public, device.public, label.encode(), issued))
    return codec.encode((body, user.sign("device", body), device.sign("device", body)))


def request_link(device: Signer, user: UserId, agency: AgencyId, label: str, issued: int) -> bytes:
    """Make what a user signs with `endorse_link`: [body, the device's signature]."""
    body = codec.encode((VERSION, agency, user, device.public, label.encode(), issued))
    return codec.encode((body, device.sign("device", body)))


def read_link(raw: bytes) -> LinkRequest:
    """Check a further device's request against its own key; the user decides about the rest."""
    body, (by_device,) = _signed(raw, CERTIFICATE_BYTES_MAX, 1, "link request")
    fields = _body(body, CERTIFICATE_BYTES_MAX, 6, "link request")
    request = LinkRequest(
        agency=AgencyId(codec.fixed(fields[1], KEY_BYTES, "agency")),
        user=UserId(codec.fixed(fields[2], KEY_BYTES, "user")),
        device=DeviceKey(codec.fixed(fields[3], KEY_BYTES, "device")),
        label=codec.text(fields[4], LABEL_BYTES_MAX, "device label"),
        issued=codec.uint(fields[5], TIME_MS_MAX, "issued"),
        raw=raw,
    )
    _check(request.device, "device", body, by_device, "device")
    return request


def endorse_link(user: Signer, request: bytes) -> bytes:
    """Add the user's signature to a further device's request: what `certify_device` takes.

    The user has compared the device's fingerprint. Raises Untrusted if it is for another user.
    """
    if read_link(request).user != user.public:
        raise Untrusted("a link request for another user (SPEC 5.3)")
    body, (by_device,) = _signed(request, CERTIFICATE_BYTES_MAX, 1, "link request")
    return codec.encode((body, user.sign("device", body), by_device))


def sign_revocation(signer: Signer, agency: AgencyId, device: DeviceKey) -> bytes:
    """Tell an agency that a device is no longer its user's. signer: the user, or that device."""
    return signer.sign("revoke-device", agency + device)


def verify_revocation(user: UserId, agency: AgencyId, device: DeviceKey, signature: bytes) -> None:
    """Check a revocation. Raises Untrusted unless user or device signed it for this agency."""
    body = agency + device
    with suppress(Untrusted):
        _check(device, "revoke-device", body, signature, "device")
        return
    _check(user, "revoke-device", body, signature, "user")


def certify_device(registrar: Signer, request: bytes) -> bytes:
    """Add the registrar's signature to a request, and so make a device certificate.

    The caller decides about the user first; the result still has to pass `verify_device`.
    """
    body, (by_user, by_device) = _signed(request, CERTIFICATE_BYTES_MAX, 2, "device request")
    return codec.encode((body, registrar.sign("device", body), by_user, by_device))


def recertify_device(registrar: Signer, certificate: bytes) -> bytes:
    """Put a registrar's signature in the place of another key's of the same agency."""
    body, (_, *others) = _signed(certificate, CERTIFICATE_BYTES_MAX, 3, "device certificate")
    return codec.encode((body, registrar.sign("device", body), *others))


def verify_device(raw: bytes, charter: Charter) -> DeviceCertificate:
    """Check a device certificate: registrar, user and device must all have signed it."""
    certificate, body, signatures = _device(raw)
    _agency(certificate.agency, charter)
    keys = (charter.registrar, certificate.user, certificate.device)
    for key, signature, role in zip(keys, signatures, _DEVICE_SIGNERS, strict=True):
        _check(key, "device", body, signature, role)
    return certificate


def verify_endorsed(raw: bytes) -> DeviceCertificate:
    """Check a device certificate by its user and device alone, whichever registrar has signed.

    Enough for the devices of one user: the caller compares agency and user with its own.
    """
    certificate, body, (_, by_user, by_device) = _device(raw)
    _check(certificate.user, "device", body, by_user, "user")
    _check(certificate.device, "device", body, by_device, "device")
    return certificate


def _device(raw: bytes) -> tuple[DeviceCertificate, bytes, list[bytes]]:
    """Read a device certificate; return its body and signatures, which are to be checked."""
    body, signatures = _signed(raw, CERTIFICATE_BYTES_MAX, 3, "device certificate")
    fields = _body(body, CERTIFICATE_BYTES_MAX, 6, "device certificate")
    certificate = DeviceCertificate(
        agency=AgencyId(codec.fixed(fields[1], KEY_BYTES, "agency")),
        user=UserId(codec.fixed(fields[2], KEY_BYTES, "user")),
        device=DeviceKey(codec.fixed(fields[3], KEY_BYTES, "device")),
        label=codec.text(fields[4], LABEL_BYTES_MAX, "device label"),
        issued=codec.uint(fields[5], TIME_MS_MAX, "issued"),
        raw=raw,
    )
    return certificate, body, signatures


def device_issued(raw: bytes) -> int:
    """Return when a device certificate was issued, which `verify_device` has checked before."""
    body, _ = _signed(raw, CERTIFICATE_BYTES_MAX, 3, "device certificate")
    fields = _body(body, CERTIFICATE_BYTES_MAX, 6, "device certificate")
    return codec.uint(fields[5], TIME_MS_MAX, "issued")


def prekey_issued(raw: bytes) -> int:
    """Return when a prekey was issued, which `verify_prekey` has checked before."""
    body, _ = _signed(raw, PREKEY_RECORD_BYTES_MAX, 1, "prekey")
    return codec.uint(_body(body, PREKEY_RECORD_BYTES_MAX, 4, "prekey")[3], TIME_MS_MAX, "issued")


def sign_prekey(device: Signer, public: bytes, issued: int) -> bytes:
    """Make a prekey record. public: 1,216 bytes. issued: milliseconds."""
    body = codec.encode((VERSION, device.public, public, issued))
    return codec.encode((body, device.sign("prekey", body)))


def verify_prekey(raw: bytes) -> Prekey:
    """Check a prekey against the device key that it names; the caller knows that device."""
    body, (signature,) = _signed(raw, PREKEY_RECORD_BYTES_MAX, 1, "prekey")
    fields = _body(body, PREKEY_RECORD_BYTES_MAX, 4, "prekey")
    device = DeviceKey(codec.fixed(fields[1], KEY_BYTES, "device"))
    public = codec.fixed(fields[2], PREKEY_BYTES, "prekey")
    issued = codec.uint(fields[3], TIME_MS_MAX, "issued")
    _check(device, "prekey", body, signature, "device")
    return Prekey(device, prekey_id(public), public, issued, raw)


def verify_credential(charter: bytes, user: bytes, devices: Sequence[bytes]) -> VerifiedUser:
    """Check a whole credential: charter, user certificate, and device certificates of that user.

    Raises NotCanonical, LimitExceeded or Untrusted; a device named twice is NotCanonical.
    """
    if len(devices) > DEVICES_USER_MAX:
        raise LimitExceeded(f"{len(devices)} devices, at most {DEVICES_USER_MAX} a user (SPEC 5.2)")
    agency = verify_charter(charter)
    person = verify_user(user, agency)
    certificates = [verify_device(raw, agency) for raw in devices]
    if any(certificate.user != person.user for certificate in certificates):
        raise Untrusted("a device certificate of another user (SPEC 5.2)")
    keys = tuple(certificate.device for certificate in certificates)
    if len(set(keys)) != len(keys):
        raise NotCanonical("one device has two certificates in a credential (SPEC 5.2)")
    name = Address(person.name, agency.name).text
    return VerifiedUser(
        agency.agency, agency.name, agency.zone, person.user, name, keys, agency.archive
    )


def _signed(raw: bytes, most: int, signatures: int, what: str) -> tuple[bytes, list[bytes]]:
    """Split a record of at most `most` bytes into its body and that many signatures."""
    fields = codec.record(codec.decode(raw, most), 1 + signatures, what)
    body = codec.binary(fields[0], most, f"{what} body")
    return body, [codec.fixed(item, SIGNATURE_BYTES, "signature") for item in fields[1:]]


def _body(body: bytes, most: int, size: int, what: str) -> tuple[object, ...]:
    fields = codec.record(codec.decode(body, most), size, what)
    if fields[0] != VERSION:
        raise NotCanonical(f"{what} of version {fields[0]!r}, this is {VERSION} (SPEC 5.2)")
    return fields


def _check(public: bytes, label: str, body: bytes, signature: bytes, role: str) -> None:
    try:
        verify(public, label, body, signature)
    except BadSignature:
        raise Untrusted(f"{label} is not signed by its {role} key (SPEC 5.2)") from None


def _agency(value: object, charter: Charter) -> AgencyId:
    agency = AgencyId(codec.fixed(value, KEY_BYTES, "agency"))
    if agency != charter.agency:
        raise Untrusted("a certificate of another agency than the charter's (SPEC 5.2)")
    return agency


def _name(value: object, what: str) -> str:
    return check_name(codec.text(value, NAME_CHARS_MAX * _UTF8_BYTES_MAX, what))


def _node(item: object) -> CardNode:
    node, listed = codec.record(item, 2, "node")
    endpoints = codec.array(listed, ENDPOINTS_NODE_MAX, "endpoints")
    return CardNode(
        NodeId(codec.fixed(node, KEY_BYTES, "node")),
        tuple(_endpoint(endpoint) for endpoint in endpoints),
    )


def _endpoint(value: object) -> str:
    text = codec.text(value, ENDPOINT_CHARS_MAX, "endpoint")
    split_endpoint(text)
    return text
