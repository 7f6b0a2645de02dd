"""The keys that an official signs documents with: of this device, or on a PKCS#11 token (SPEC 5.8).

    key = own_key(device)                           # or token_keys.token_key(token, pin)
        certificate = certificate_of(device, key, now)  # None: ask the node, then keep it
        signer = key.signer(certificate, authority)

A key of another kind, such as one in a certified module for GOST, is one more class here.
"""

import ssl
from dataclasses import dataclass
from typing import Protocol

from asn1crypto import keys, x509
from cryptography.hazmat.primitives import serialization
from pyhanko.sign.signers import SimpleSigner
from pyhanko.sign.signers.pdf_cms import Signer
from pyhanko_certvalidator.registry import CertificateRegistry

from client.device import Device
from crypto import certificate
from crypto.errors import CertificateRefused
from crypto.signatory import Subject, possession, prove_possession, read_signatory
from node.errors import IdentityError
from protocol.question import CertifySigner

RENEW_SECONDS = 30 * 24 * 3600  # before its end a certificate is replaced, if the node answers


class SigningKey(Protocol):
    """A P-256 key that certificates and signatures are made with."""

    def public(self) -> bytes:
        """Return the public key, PEM."""
        ...

    def prove(self, claim: bytes) -> bytes:
        """Sign a claim with ECDSA and SHA-256, DER."""
        ...

    def signer(self, certified: bytes, authority: bytes) -> Signer:
        """Return what pyHanko signs with. certified, authority: certificates, DER."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """Where a key is: the module's path, the labels of token and key."""

    module: str
    token: str
    key: str


class SoftKey:
    """A key in the device's encrypted database. pem: private, not encrypted."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def public(self) -> bytes:
        """Return the public key, PEM."""
        return certificate.public_pem(self._pem)

    def prove(self, claim: bytes) -> bytes:
        """Sign a claim, DER."""
        return prove_possession(self._pem, claim)

    def signer(self, certified: bytes, authority: bytes) -> Signer:
        """Return what pyHanko signs with."""
        der = certificate.private_key(self._pem).private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        registry = CertificateRegistry.build(certs=[x509.Certificate.load(authority)])
        return SimpleSigner(
            signing_cert=x509.Certificate.load(certified),
            signing_key=keys.PrivateKeyInfo.load(der),
            cert_registry=registry,
        )


def own_key(device: Device) -> SigningKey:
    """Return this device's own key for signing; the first time it is made.

    Call inside `Device.transaction`.
    """
    found = device.connection.execute(
        "SELECT private FROM signing WHERE private IS NOT NULL ORDER BY ends DESC LIMIT 1"
    ).get
    if found is not None:
        return SoftKey(found)
    key = SoftKey(made := certificate.make_key())
    device.connection.execute("INSERT INTO signing VALUES (?, ?, NULL, 0)", (key.public(), made))
    return key


def certificate_of(device: Device, key: SigningKey, now: float) -> tuple[bytes, bool] | None:
    """Return the certificate of a key, DER, and whether it is soon over; None if it has none."""
    row = device.connection.execute(
        "SELECT certificate, ends FROM signing WHERE public = ? AND ends > ?",
        (key.public(), int(now)),
    ).fetchone()
    return None if row is None else (row[0], row[1] - now < RENEW_SECONDS)


def ask_for(device: Device, key: SigningKey) -> CertifySigner:
    """Return what the device asks its node to certify."""
    claim = possession(device.profile.charter.agency, device.key)
    return CertifySigner(key.public(), key.prove(claim))


def keep_certificate(device: Device, key: SigningKey, pem: bytes) -> bytes:
    """Check and keep what the node certified, DER. Raises IdentityError if it is not for us.

    Call inside `Device.transaction`.
    """
    profile = device.profile
    subject = Subject(profile.user.name, profile.charter.name, profile.user.user)
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode())
        found = read_signatory(der, profile.card.ca)
    except (CertificateRefused, ValueError) as error:
        raise IdentityError(f"our node gave a certificate that does not hold: {error}") from None
    if not found.is_of(subject) or certificate.key_of(der) != key.public():
        raise IdentityError("our node gave a certificate for somebody else, or another key")
    device.connection.execute(
        "INSERT INTO signing VALUES (?, NULL, ?, ?) ON CONFLICT (public)"
        " DO UPDATE SET certificate = excluded.certificate, ends = excluded.ends",
        (key.public(), der, int(found.ends)),
    )
    return der
