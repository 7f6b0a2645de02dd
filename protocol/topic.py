"""What a question to a node's directory can be about, and what bounds it (SPEC 7.1)."""

from enum import IntEnum
from typing import Final

from crypto.archival import ARCHIVAL_KEY_BYTES
from protocol import codec
from protocol.entry import DeviceKey
from protocol.errors import NotCanonical
from protocol.identity import CERTIFICATE_BYTES_MAX, PREKEY_RECORD_BYTES_MAX
from protocol.limits import KEY_BYTES, NAME_CHARS_MAX
from protocol.listing import SPLIT_BYTES_MAX
from protocol.name import parse_address

QUESTION_BYTES_MAX: Final = 960 * 1024
ANSWER_BYTES_MAX: Final = 960 * 1024  # leaves room for the frame around it
LOOKUP_MAX: Final = 64
PARCEL_BYTES_MAX: Final = 900 * 1024
TAKEN_MAX: Final = 1024
CARDS_MAX: Final = 32  # in one answer
TLS_KEY_BYTES_MAX: Final = 512  # PEM of a P-256 public key has 178
TLS_CERTIFICATE_BYTES_MAX: Final = 4096
LINKS_PENDING_MAX: Final = 8
RECEIPTS_ASKED_MAX: Final = 64  # entries in one question
RECEIPTS_MAX: Final = 1024  # in one answer
BLOBS_ASKED_MAX: Final = 64  # in one question
HOLDERS_MAX: Final = 4096  # agencies that have all of a blob
REFUSAL_BYTES_MAX: Final = 512
PROOF_BYTES_MAX: Final = 80  # an ECDSA signature, DER: P-256 has at most 72
HEADS_SEEN_MAX: Final = 4096  # agencies whose heads are compared at once
HEADS_SHOWN_MAX: Final = 256
SPLITS_MAX: Final = 64

_NAME_BYTES_MAX: Final = 2 * (2 * NAME_CHARS_MAX) + 1
NUMBER_MAX: Final = 2**63 - 1


class Topic(IntEnum):
    """What a question is about; the number that ASK carries."""

    ENROL = 0
    LOOKUP = 1
    PREKEY = 2
    PARCEL = 3
    PARCELS = 4
    TAKEN = 5
    LINK = 6
    LINK_REQUEST = 7
    LINK_RESULT = 8
    LINK_PENDING = 9
    LINK_APPROVE = 10
    CARDS = 11
    REVOKE = 12
    RENEW = 13
    SIGNATORY = 14
    WITNESS = 15
    DIRECTORY = 16
    RECEIPTS = 17
    FORWARD = 18
    RENAME = 19
    BLOBS = 20
    CARD = 21


Fields = tuple[object, ...]


def read_address(value: object) -> str:
    """Read `user@agency` in its final form."""
    text = codec.text(value, _NAME_BYTES_MAX, "name")
    if parse_address(text).text != text:
        raise NotCanonical(f"name {text!a} is not in lower case and NFC (SPEC 5.1)")
    return text


def read_tls_key(value: object) -> bytes:
    """Read a public TLS key, PEM."""
    return codec.binary(value, TLS_KEY_BYTES_MAX, "TLS key")


def read_prekey(value: object) -> bytes:
    """Read a prekey record; it is not checked here."""
    return codec.binary(value, PREKEY_RECORD_BYTES_MAX, "prekey")


def read_archive_key(value: object) -> bytes:
    """Read a device's ML-DSA key."""
    return codec.fixed(value, ARCHIVAL_KEY_BYTES, "ML-DSA key")


def read_device(value: object) -> DeviceKey:
    """Read a device's key."""
    return DeviceKey(codec.fixed(value, KEY_BYTES, "device"))


def read_request(value: object) -> bytes:
    """Read a device request; it is not checked here."""
    return codec.binary(value, CERTIFICATE_BYTES_MAX, "device request")


def read_splits(value: object) -> tuple[bytes, ...]:
    """Read proofs against agencies; they are not checked here."""
    return tuple(
        codec.binary(item, SPLIT_BYTES_MAX, "directory proof")
        for item in codec.array(value, SPLITS_MAX, "directory proofs")
    )
