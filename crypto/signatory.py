"""X.509 for documents: an agency's CA certifies the key that an official signs files with.

    claim = possession(agency, device)
    certificate = certify(ca, ca_key, public, Subject("anna", "minzdrav", user), now, days, serial)
    signatory = read_signatory(der, ca_der)      # checks that it is this CA's, and of this kind

Such a certificate is never one for TLS: it has a subject, its URI is `ivor:user:<hex>`, and its
uses are signing documents and mail. Mail, because `openssl cms -verify` and the NSS behind `pdfsig`
ask for that use. Keys are ECDSA P-256, which cards, tokens and all verifiers take.

Randomness: the library draws what an ECDSA signature needs. Serial numbers and the time are
arguments. Sources: RFC 5280; RFC 9336 (document signing); SPEC 6.1.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crypto.certificate import (
    BACKDATE_SECONDS,
    MALFORMED,
    NAME_CHARACTERS_MAX,
    authority_pair,
    builder,
    key_usage,
    private_key,
    public_key,
    signed,
)
from crypto.errors import CertificateRefused

SIGNING_DAYS: Final = 365

_DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
_USES: Final = frozenset({_DOCUMENT_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION})
_KEY_USES: Final = ("digital_signature", "content_commitment")
_URI: Final = re.compile(r"ivor:user:([0-9a-f]{64})", re.ASCII)
_LABEL: Final = b"ivor/1 signing-key"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names. user: the id, 32 bytes; names without the @."""

    name: str
    agency: str
    user: bytes

    @property
    def common_name(self) -> str:
        """The address; the name alone where RFC 5280 has no room for the address."""
        address = f"{self.name}@{self.agency}"
        return address if len(address) <= NAME_CHARACTERS_MAX else self.name


@dataclass(frozen=True, slots=True)
class Signatory:
    """What a certificate says that `read_signatory` has checked. Times are seconds UTC."""

    common_name: str
    agency: str
    user: bytes
    serial: int
    begins: float
    ends: float

    def is_of(self, subject: Subject) -> bool:
        """Whether it names exactly this user."""
        named = (subject.common_name, subject.agency, subject.user)
        return named == (self.common_name, self.agency, self.user)

    def is_valid_at(self, moment: float) -> bool:
        """Whether a time, in seconds UTC, is within its validity."""
        return self.begins <= moment <= self.ends


def possession(agency: bytes, device: bytes) -> bytes:
    """Return what a signing key signs to be certified: it is asked for by this device, here."""
    return _LABEL + agency + device


def prove_possession(key_pem: bytes, claim: bytes) -> bytes:
    """Sign a claim, DER. key_pem: a private key. Raises CertificateRefused."""
    return private_key(key_pem).sign(claim, ec.ECDSA(hashes.SHA256()))


def check_possession(public_pem: bytes, claim: bytes, proof: bytes) -> None:
    """Check that whoever asks holds the private key. Raises CertificateRefused."""
    try:
        public_key(public_pem).verify(proof, claim, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        refusal = "whoever asks does not hold the signing key (SPEC 7.3)"
        raise CertificateRefused(refusal) from None


def certify(
    authority_pem: bytes,
    authority_key_pem: bytes,
    subject_key_pem: bytes,
    subject: Subject,
    now: float,
    days: int,
    serial: int,
) -> bytes:
    """Certify that a key signs documents for an official, PEM.

    now: seconds UTC. days: `SIGNING_DAYS`; the end is brought forward to the authority's own.
    serial: random, positive, below 2^159. Raises CertificateRefused if a key is not P-256, or the
    authority is over or not this key's.
    """
    issuer, issuer_key = authority_pair(authority_pem, authority_key_pem)
    start = datetime.fromtimestamp(now - BACKDATE_SECONDS, UTC)
    if issuer.not_valid_after_utc <= datetime.fromtimestamp(now, UTC):
        refusal = f"authority ended on {issuer.not_valid_after_utc:%Y-%m-%d} (SPEC 6.1)"
        raise CertificateRefused(refusal)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.agency),
            x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name),
        ]
    )
    uri = x509.UniformResourceIdentifier(f"ivor:user:{subject.user.hex()}")
    draft = (
        builder(name, issuer.subject, public_key(subject_key_pem), serial)
        .not_valid_before(start)
        .not_valid_after(min(start + timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(*_KEY_USES), critical=True)
        .add_extension(x509.ExtendedKeyUsage(sorted(_USES, key=str)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    )
    return signed(draft, issuer_key)


def read_signatory(der: bytes, authority_der: bytes) -> Signatory:
    """Check that a certificate is of this kind, and issued directly by this CA; say whose it is.

    Whether it is valid at some time is asked of what is returned.
    Raises CertificateRefused.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        _check_issuer(certificate, x509.load_der_x509_certificate(authority_der))
        _check_uses(certificate)
        organization, common_name = [str(one.value) for one in certificate.subject]
        return Signatory(
            common_name,
            organization,
            _user_of(certificate),
            certificate.serial_number,
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )
    except MALFORMED:
        raise CertificateRefused("not a certificate for signing documents (SPEC 6.1)") from None


def _check_issuer(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):  # another name, kind of key, signature
        raise CertificateRefused("the agency's CA did not issue it (SPEC 6.1)") from None


def _check_uses(certificate: x509.Certificate) -> None:
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    named = [one.oid for one in certificate.subject]
    key = certificate.public_key()
    if (
        constraints.ca
        or usage != key_usage(*_KEY_USES)
        or set(uses) != _USES
        or named != [NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME]
        or not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP256R1)
    ):
        raise CertificateRefused("certificate is not for signing documents (SPEC 6.1)")


def _user_of(certificate: x509.Certificate) -> bytes:
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    found = None
    if len(names) == 1 and isinstance(names[0], x509.UniformResourceIdentifier):
        found = _URI.fullmatch(names[0].value)
    if found:
        return bytes.fromhex(found[1])
    raise CertificateRefused("certificate does not name one ivor:user: URI (SPEC 6.1)")
