"""What people compare by eye or by voice, to know that they see the same key."""

import base64
import hashlib
from typing import Final

from crypto.labels import PREFIX, digest

FINGERPRINT_GROUPS: Final = 8
LINK_CODE_GROUPS: Final = 4
SAFETY_GROUPS: Final = 12
SAFETY_ROUNDS: Final = 5200  # Signal's; makes a search for a near match 5,200 times dearer

_FINGERPRINT_GROUP_CHARACTERS: Final = 4
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_FINGERPRINT_CHARACTERS: Final = FINGERPRINT_GROUPS * _FINGERPRINT_GROUP_CHARACTERS
_FINGERPRINT_BYTES: Final = _FINGERPRINT_CHARACTERS * 5 // 8
_LINK_CODE_CHARACTERS: Final = LINK_CODE_GROUPS * (_FINGERPRINT_GROUP_CHARACTERS + 1) - 1
_SAFETY_GROUP_DIGITS: Final = 5
_SAFETY_CHUNK_BYTES: Final = 5
_SAFETY_BYTES: Final = SAFETY_GROUPS // 2 * _SAFETY_CHUNK_BYTES


def fingerprint(key: bytes) -> str:
    """Show 160 bits of a hash of `key` as 8 groups of 4 letters and digits.

    The alphabet is base32 of RFC 4648, which has no 0, 1, 8 or 9.
    """
    return _shown(digest("fingerprint", key))


def is_fingerprint(text: str) -> bool:
    """Whether this may be what `fingerprint` shows, spaced and capitalised in any way."""
    plain = "".join(text.split()).upper()
    return len(plain) == _FINGERPRINT_CHARACTERS and _ALPHABET.issuperset(plain)


def agency_fingerprint(root: bytes, archive: bytes) -> str:
    """Show an agency's root key and the digest of its archive key, as `fingerprint` shows a key.

    So what administrators compare once also holds when Ed25519 does not (SPEC 2.7).
    """
    return _shown(digest("agency fingerprint", root, archive))


def link_code(ticket: bytes, request: bytes) -> str:
    """Show 80 bits of a hash of a further device's request as 4 groups of 4 letters and digits.

    Both screens show it. ticket: of the invitation, so that a search cannot begin before it is
    given out; request: as the new device has signed it. Source: SPEC 5.3.
    """
    return _shown(digest("link code", ticket, request))[:_LINK_CODE_CHARACTERS]


def safety_number(id_a: bytes, name_a: str, id_b: bytes, name_b: str) -> str:
    """Show 60 digits in 12 groups of 5, the same whichever of the two users is called a.

    id: a user's identity key; name: the stable name, such as anna@minzdrav.
    Takes about 10 ms, on purpose. Source: Signal's NumericFingerprintGenerator; SPEC 5.4.
    """
    halves = sorted((_safety_half(id_a, name_a), _safety_half(id_b, name_b)))
    return _grouped("".join(halves), _SAFETY_GROUP_DIGITS)


def _safety_half(identity: bytes, name: str) -> str:
    """Return 30 digits for one user."""
    start = (PREFIX, b"safety", len(identity).to_bytes(2, "big"), identity, name.encode())
    state = b"".join(start)
    for _ in range(SAFETY_ROUNDS):
        state = hashlib.sha512(state + identity).digest()
    chunks = (
        int.from_bytes(state[at : at + _SAFETY_CHUNK_BYTES], "big")
        for at in range(0, _SAFETY_BYTES, _SAFETY_CHUNK_BYTES)
    )
    return "".join(f"{chunk % 10**_SAFETY_GROUP_DIGITS:05}" for chunk in chunks)


def _shown(hashed: bytes) -> str:
    text = base64.b32encode(hashed[:_FINGERPRINT_BYTES]).decode()
    return _grouped(text, _FINGERPRINT_GROUP_CHARACTERS)


def _grouped(text: str, size: int) -> str:
    return " ".join(text[at : at + size] for at in range(0, len(text), size))
