"""Checkpoints: a chat's state signed with ML-DSA, for the time after Ed25519 (SPEC 2.7).

    certificate = certify_archive(agency.archive, agency.id, user, device, key)
    anchor = make_anchor(device.archive, certificate, place, heads)
    check_anchor(anchor, place, heads, member.identity)    # by whoever admits its entry

The signature covers the place of the checkpoint's entry, so all its control past by the hashes in
prev and links, and content heads, so all that their chains hold before them. What was so covered
cannot be written anew without the archive key of a device, and no device key counts without the
archive key of its agency, whose digest is in the charter and in the agency's fingerprint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from crypto.archival import (
    ARCHIVAL_KEY_BYTES,
    ARCHIVAL_SIGNATURE_BYTES,
    ArchivalSigner,
    archive_digest,
    verify_archival,
)
from crypto.errors import BadSignature
from protocol import codec
from protocol.entry import DeviceKey, Place, Reference
from protocol.errors import NotCanonical, Untrusted
from protocol.identity import VERSION, AgencyId, UserId, VerifiedUser
from protocol.limits import HASH_BYTES, KEY_BYTES

ARCHIVE_BYTES_MAX: Final = 6144
CHECKPOINT_LABEL: Final = "checkpoint"
CERTIFICATE_LABEL: Final = "archive certificate"


@dataclass(frozen=True, slots=True)
class ArchiveCertificate:
    """An agency's word for a device's ML-DSA key. key: its digest. authority: the agency's key."""

    agency: AgencyId
    user: UserId
    device: DeviceKey
    key: bytes
    authority: bytes = field(repr=False)
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Anchor:
    """What makes a checkpoint last: the device's ML-DSA key, vouched for, and its signature."""

    certificate: ArchiveCertificate
    key: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def certify_archive(
    authority: ArchivalSigner, agency: AgencyId, user: UserId, device: DeviceKey, key: bytes
) -> bytes:
    """Make an archive certificate. authority: the agency's archive key. key: 1,952 bytes."""
    body = codec.encode((VERSION, agency, user, device, archive_digest(key)))
    return codec.encode((body, authority.public, authority.sign(CERTIFICATE_LABEL, body)))


def read_archive(raw: bytes) -> ArchiveCertificate:
    """Check an archive certificate against the key that it carries.

    Whether that is the agency's is for `vouched`. Raises NotCanonical, LimitExceeded or Untrusted.
    """
    fields = codec.record(codec.decode(raw, ARCHIVE_BYTES_MAX), 3, "archive certificate")
    body = codec.binary(fields[0], ARCHIVE_BYTES_MAX, "archive certificate body")
    authority = codec.fixed(fields[1], ARCHIVAL_KEY_BYTES, "archive key")
    signature = codec.fixed(fields[2], ARCHIVAL_SIGNATURE_BYTES, "signature")
    said = codec.record(codec.decode(body, ARCHIVE_BYTES_MAX), 5, "archive certificate")
    if said[0] != VERSION:
        raise NotCanonical(f"archive certificate of version {said[0]!r}, this is {VERSION}")
    certificate = ArchiveCertificate(
        AgencyId(codec.fixed(said[1], KEY_BYTES, "agency")),
        UserId(codec.fixed(said[2], KEY_BYTES, "user")),
        DeviceKey(codec.fixed(said[3], KEY_BYTES, "device")),
        codec.fixed(said[4], HASH_BYTES, "archive key"),
        authority,
        raw,
    )
    _check(authority, CERTIFICATE_LABEL, body, signature)
    return certificate


def vouched(certificate: ArchiveCertificate, agency: AgencyId, archive: bytes) -> bool:
    """Whether an agency whose charter names this digest of its archive key has certified it."""
    return certificate.agency == agency and archive_digest(certificate.authority) == archive


def anchor_fields(anchor: Anchor | None) -> tuple[codec.Value, ...]:
    """Return the last three fields of a checkpoint's payload."""
    if anchor is None:
        return (None, None, None)
    return (anchor.certificate.raw, anchor.key, anchor.signature)


def read_anchor(values: Sequence[object]) -> Anchor | None:
    """Read what `anchor_fields` gives, all three or none; the signature waits for its place."""
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        raise NotCanonical("a checkpoint has certificate, key and signature, or none (SPEC 3.2)")
    certificate = read_archive(codec.binary(values[0], ARCHIVE_BYTES_MAX, "archive certificate"))
    key = codec.fixed(values[1], ARCHIVAL_KEY_BYTES, "ML-DSA key")
    if archive_digest(key) != certificate.key:
        raise Untrusted("another ML-DSA key than the certificate names (SPEC 2.7)")
    return Anchor(certificate, key, codec.fixed(values[2], ARCHIVAL_SIGNATURE_BYTES, "signature"))


def checkpoint_message(place: Place, heads: Sequence[Reference]) -> bytes:
    """Return what a device signs under label "checkpoint"."""
    return codec.encode((*place, heads))


def make_anchor(
    signer: ArchivalSigner, certificate: bytes, place: Place, heads: Sequence[Reference]
) -> Anchor:
    """Sign a checkpoint for this place. certificate: of the signer's key."""
    signature = signer.sign(CHECKPOINT_LABEL, checkpoint_message(place, heads))
    return Anchor(read_archive(certificate), signer.public, signature)


def check_signed(anchor: Anchor, place: Place, heads: Sequence[Reference]) -> None:
    """Check that an anchor is of its author's device and signs this very place and these heads.

    Raises Untrusted.
    """
    if anchor.certificate.device != place.device:
        raise Untrusted("a checkpoint with another device's archive certificate (SPEC 2.7)")
    _check(anchor.key, CHECKPOINT_LABEL, checkpoint_message(place, heads), anchor.signature)


def check_anchor(
    anchor: Anchor, place: Place, heads: Sequence[Reference], author: VerifiedUser
) -> None:
    """Check an anchor where it stands. author: the member whose device made it.

    Raises Untrusted.
    """
    right = vouched(anchor.certificate, author.agency, author.archive)
    if not right or anchor.certificate.user != author.user:
        raise Untrusted("an archive certificate that is not of the author's agency (SPEC 2.7)")
    check_signed(anchor, place, heads)


def _check(public: bytes, label: str, message: bytes, signature: bytes) -> None:
    try:
        verify_archival(public, label, message, signature)
    except BadSignature:
        raise Untrusted(f"a bad ML-DSA signature of a {label} (SPEC 2.7)") from None
