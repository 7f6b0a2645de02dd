"""X.509 for TLS: an agency's CA, and short-lived leaves for a node, a device or an invitation.

TLS keys are ECDSA P-256, though everything else is Ed25519: every TLS stack takes them, and
OpenSSL's Ed25519 verifier, which is laxer than libsodium's, then never judges a key of the log.
TLS keys bind nothing in the log; they only say who is at the other end of a connection.

The subject is one URI in the subjectAltName: `ivor:node:<hex>`, `ivor:device:<hex>` or
`ivor:invitation:<hex>`. No DNS name, no common name: the peer compares the id with the agency card.
What a certificate may be used for follows from its URI.

Randomness: the library draws keys and signature nonces from the operating system. Serial numbers
and the time are arguments. Sources: RFC 5280; SPEC 6.1.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crypto.errors import CertificateRefused

AUTHORITY_DAYS: Final = 3652
LEAF_DAYS: Final = 90
BACKDATE_SECONDS: Final = 3600  # guess: how far a peer's clock may be behind
NAME_CHARACTERS_MAX: Final = 64  # RFC 5280, ub-common-name

# What the library's parser raises at bytes that are not a certificate as we allow it; the classes
# have no other base in common than Exception.
MALFORMED: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_NODE_PREFIX: Final = "ivor:node:"
_URI: Final = re.compile(r"ivor:(?:node|device|invitation):(?:[0-9a-f]{2}){1,64}", re.ASCII)


def make_key() -> bytes:
    """Make a P-256 private key, PKCS8 PEM, not encrypted. The library draws the randomness."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key_pem: bytes) -> bytes:
    """Take the public half of a private key, SubjectPublicKeyInfo PEM, to send for certifying.

    Raises CertificateRefused if it is not a P-256 key.
    """
    return (
        private_key(key_pem)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def key_of(der: bytes) -> bytes:
    """Return the public key of a certificate, SubjectPublicKeyInfo PEM. Raises CertificateRefused.

    der: a certificate that was checked.
    """
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except MALFORMED:
        raise CertificateRefused("certificate is malformed (SPEC 6.1)") from None
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def authority(key_pem: bytes, name: str, now: float, days: int, serial: int) -> bytes:
    """Make an agency's self-signed CA certificate, PEM: it may sign leaves, nothing below them.

    name: 1 to 64 characters. now: seconds UTC. days: `AUTHORITY_DAYS`. serial: random, positive,
    below 2^159. Raises CertificateRefused if key or name is outside this.
    """
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        refusal = f"name of {len(name)} characters, allowed 1 to {NAME_CHARACTERS_MAX} (RFC 5280)"
        raise CertificateRefused(refusal)
    key = private_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.fromtimestamp(now - BACKDATE_SECONDS, UTC)
    draft = (
        builder(subject, subject, key.public_key(), serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign"), critical=True)
    )
    return signed(draft, key)


def issue(
    authority_pem: bytes,
    authority_key_pem: bytes,
    subject_key_pem: bytes,
    uri: str,
    now: float,
    days: int,
    serial: int,
) -> bytes:
    """Certify that a key is of `uri`, PEM.

    subject_key_pem: a public key, or a private one whose public half is meant. uri: see the module;
    a node's is for TLS servers and clients, any other's for clients only. now: seconds UTC.
    days: `LEAF_DAYS`; the end is brought forward to the authority's own. serial: see `authority`.
    Raises CertificateRefused if a key is not P-256, the uri is not one of ours, or the authority
    is over or not this key's.
    """
    if not _URI.fullmatch(uri):
        refusal = f"subject {uri!r}, must be ivor:node|device|invitation:<hex> (SPEC 6.1)"
        raise CertificateRefused(refusal)
    issuer, issuer_key = authority_pair(authority_pem, authority_key_pem)
    start = datetime.fromtimestamp(now - BACKDATE_SECONDS, UTC)
    if issuer.not_valid_after_utc <= datetime.fromtimestamp(now, UTC):
        refusal = f"authority ended on {issuer.not_valid_after_utc:%Y-%m-%d} (SPEC 6.1)"
        raise CertificateRefused(refusal)
    end = min(start + timedelta(days=days), issuer.not_valid_after_utc)
    draft = (
        builder(x509.Name([]), issuer.subject, public_key(subject_key_pem), serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage("digital_signature"), critical=True)
        .add_extension(_extended_usage(uri), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        # Critical, because the subject is empty (RFC 5280, 4.2.1.6).
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
        )
    )
    return signed(draft, issuer_key)


def begins(pem: bytes) -> float:
    """Return from when a certificate is good, in seconds UTC."""
    return x509.load_pem_x509_certificate(pem).not_valid_before_utc.timestamp()


def ends(pem: bytes) -> float:
    """Return until when a certificate is good, in seconds UTC."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def subject_uri(der: bytes) -> str:
    """Read the one ivor: URI of a certificate, which TLS has verified already.

    der: as `ssl` gives it. Raises CertificateRefused unless the subjectAltName is exactly one of
    our URIs; a second name of any kind would let two readers see two subjects.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = list(
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except MALFORMED:
        refusal = "certificate is malformed or has no subjectAltName (SPEC 6.1)"
        raise CertificateRefused(refusal) from None
    match names:
        case [x509.UniformResourceIdentifier(value=uri)] if _URI.fullmatch(uri):
            return uri
    refusal = f"certificate names {len(names)} subjects, must be one ivor: URI (SPEC 6.1)"
    raise CertificateRefused(refusal)


def builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, serial: int
) -> x509.CertificateBuilder:
    """Begin a certificate; it lacks its validity and what it may be used for."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def signed(draft: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a certificate, PEM."""
    return draft.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _extended_usage(uri: str) -> x509.ExtendedKeyUsage:
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if uri.startswith(_NODE_PREFIX):
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    return x509.ExtendedKeyUsage(usages)


def key_usage(*uses: str) -> x509.KeyUsage:
    """Make the key usage extension with these bits set, named as the library names them."""
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | dict.fromkeys(uses, True)))


def authority_pair(
    authority_pem: bytes, authority_key_pem: bytes
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Load the CA's certificate and key, known to belong together."""
    key = private_key(authority_key_pem)
    try:
        certificate = x509.load_pem_x509_certificate(authority_pem)
    except MALFORMED:
        raise CertificateRefused("authority is not a PEM certificate (SPEC 6.1)") from None
    if certificate.public_key() != key.public_key():
        raise CertificateRefused("authority's certificate is of another key (SPEC 6.1)")
    return certificate, key


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Load a P-256 private key. Raises CertificateRefused."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # TypeError: the PEM is encrypted
        raise CertificateRefused("key is not an unencrypted PEM key (SPEC 6.1)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRefused("key is not ECDSA P-256 (SPEC 6.1)")
    return key


def public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Load a P-256 public key, or the public half of a private one. Raises CertificateRefused."""
    if b"PRIVATE KEY" in pem:
        return private_key(pem).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        raise CertificateRefused("subject's key is not a PEM key (SPEC 6.1)") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRefused("subject's key is not ECDSA P-256 (SPEC 6.1)")
    return key
