"""Detached CMS signatures of officials: made, and checked without a network (SPEC 5.8).

    raw = sign_detached(signer, digest, now)
    found = check_detached(raw, digest, authority)       # raises SignatureFault

A signature is over the SHA-256 of a file, so the file itself is not needed to check it. pyHanko
makes and checks it; `crypto.signatory` checks the certificate, against the agency's CA alone.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import cms
from asn1crypto.x509 import Certificate
from pyhanko.sign.general import (
    SigningError,
    extract_signer_info,
    find_unique_cms_attribute,
)
from pyhanko.sign.signers.pdf_cms import PdfCMSSignedAttributes, Signer
from pyhanko.sign.validation.generic_cms import (
    extract_certs_for_validation,
    validate_sig_integrity,
)

from crypto.errors import CertificateRefused
from crypto.signatory import Signatory, read_signatory
from node.errors import UserError

DIGEST_ALGORITHM = "sha256"
_ATTRIBUTES = {"content_type", "message_digest", "signing_time", "signing_certificate_v2"}


class SignatureFault(Exception):
    """A signature that does not verify; the text says which rule of SPEC 5.8 fails."""


@dataclass(frozen=True, slots=True)
class Detached:
    """A signature that verifies. time: the signer's clock, seconds UTC."""

    signatory: Signatory
    time: float


def sign_detached(signer: Signer, digest: bytes, now: float) -> bytes:
    """Sign a file by its SHA-256, DER. now: seconds UTC. Raises UserError if the key fails."""
    attributes = PdfCMSSignedAttributes(signing_time=datetime.fromtimestamp(int(now), UTC))
    try:
        made = asyncio.run(
            signer.async_sign(
                digest, DIGEST_ALGORITHM, signed_attr_settings=attributes, is_pdf_sig=False
            )
        )
    except SigningError as error:
        raise UserError(f"the key does not sign: {error}") from None
    return bytes(made.dump())


def check_detached(raw: bytes, digest: bytes, authority: bytes) -> Detached:
    """Check a signature over this digest, by a signatory of this CA (DER).

    Whose it is, and whether the certificate was valid then, is asked of what is returned.
    Raises SignatureFault.
    """
    try:
        return _check(raw, digest, authority)
    except SignatureFault:
        raise
    except CertificateRefused as error:
        raise SignatureFault(str(error)) from None
    except Exception:  # noqa: BLE001 - the two libraries raise anything, AssertionError too
        raise SignatureFault("the CMS structure is malformed") from None


def _check(raw: bytes, digest: bytes, authority: bytes) -> Detached:
    found = cms.ContentInfo.load(raw, strict=True)
    if found["content_type"].native != "signed_data":
        raise SignatureFault("not a CMS signature")
    signed = found["content"]
    if signed["encap_content_info"]["content"].native is not None:
        raise SignatureFault("the CMS signature is not detached")
    info = extract_signer_info(signed)
    named = {one["type"].native for one in info["signed_attrs"]}
    algorithm = info["signature_algorithm"]
    signed_with = (algorithm.signature_algo, algorithm.hash_algo)
    if info["digest_algorithm"]["algorithm"].native != DIGEST_ALGORITHM:
        raise SignatureFault("the CMS signature is not over SHA-256")
    if signed_with != ("ecdsa", DIGEST_ALGORITHM):
        raise SignatureFault("the CMS signature is not ECDSA with SHA-256")
    if not named >= _ATTRIBUTES:
        raise SignatureFault("the CMS signature lacks an attribute (SPEC 5.8)")
    inside = extract_certs_for_validation(signed)
    certificate, anchor = inside.signer_cert, Certificate.load(authority)
    intact, valid = validate_sig_integrity(info, certificate, "data", digest)
    if not valid:
        raise SignatureFault("the CMS signature is not one of its certificate's key")
    if not intact:
        raise SignatureFault("the CMS signature is over another file")
    signatory = read_signatory(bytes(certificate.dump()), authority)
    if anchor.public_key.dump() not in [one.public_key.dump() for one in inside.other_certs]:
        raise SignatureFault("the CMS signature comes without its CA's certificate (SPEC 5.8)")
    time = find_unique_cms_attribute(info["signed_attrs"], "signing_time").native
    return Detached(signatory, time.timestamp())
