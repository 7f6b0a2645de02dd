"""Certificates that a node should never take, issued as an agency's CA, or a stranger, could."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from crypto import certificate, signatory
from node.agency import Agency
from node.tls import Credential

DAY_SECONDS = 24 * 3600
YEAR_SECONDS = 400 * DAY_SECONDS
FOR_CLIENTS = (ExtendedKeyUsageOID.CLIENT_AUTH,)
FOR_SERVERS = (ExtendedKeyUsageOID.SERVER_AUTH,)
FOR_BOTH = (*FOR_SERVERS, *FOR_CLIENTS)


def issued(agency: Agency, uri: str, *, at: float = 0.0, days: int = 2) -> Credential:
    """A certificate as this agency's CA would sign it. at: seconds from now."""
    key = certificate.make_key()
    serial = int.from_bytes(os.urandom(16), "big") + 1
    leaf = certificate.issue(
        agency.ca, agency.ca_key, key, uri, now=time.time() + at, days=days, serial=serial
    )
    return Credential(leaf, key)


def odd(
    agency: Agency, uri: str, usages: Sequence[ObjectIdentifier], issuer: bytes | None = None
) -> Credential:
    """A certificate for other uses. issuer: the key that signs it, None for the agency's CA."""
    key = serialization.load_pem_private_key(certificate.make_key(), None)
    signer = serialization.load_pem_private_key(issuer or agency.ca_key, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert isinstance(signer, EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agency.id.hex())])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(authority, critical=False)
        .add_extension(names, critical=True)
    )
    if usages:
        built = built.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    made = built.sign(signer, hashes.SHA256())
    return Credential(made.public_bytes(serialization.Encoding.PEM), private)


def for_documents(agency: Agency, user: bytes) -> Credential:
    """What an official signs documents with."""
    key = certificate.make_key()
    subject = signatory.Subject("anna", agency.card.charter.name, user)
    serial = int.from_bytes(os.urandom(16), "big") + 1
    made = signatory.certify(
        agency.ca, agency.ca_key, key, subject, now=time.time(), days=2, serial=serial
    )
    return Credential(made, key)


def authority_itself(agency: Agency) -> Credential:
    """The CA's own certificate, shown as if it were a leaf."""
    return Credential(agency.ca, agency.ca_key)
