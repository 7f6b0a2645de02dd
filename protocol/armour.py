"""Bytes as a block of text that survives mail and copying (SPEC 5.2).

    -----BEGIN IVOR CARD-----
    base64, 64 characters a line
    -----END IVOR CARD-----

Nothing is protected by it; what is inside is signed.
"""

import base64
import binascii
from typing import Final

from protocol.errors import LimitExceeded, NotCanonical

_LINE_CHARACTERS: Final = 64


def armour(kind: str, body: bytes) -> str:
    """Write `body` as a block. kind: capital words of our own, such as CARD."""
    encoded = base64.b64encode(body).decode()
    lines = [encoded[at : at + _LINE_CHARACTERS] for at in range(0, len(encoded), _LINE_CHARACTERS)]
    return "\n".join((f"-----BEGIN IVOR {kind}-----", *lines, f"-----END IVOR {kind}-----", ""))


def dearmour(kind: str, text: str, bytes_max: int) -> bytes:
    """Read the one block in `text`; what stands before and after it is skipped.

    Raises LimitExceeded or NotCanonical.
    """
    if len(text) > bytes_max * 2 + 1024:
        raise LimitExceeded(f"text of {len(text)} characters is too long for a {kind} (SPEC 5.2)")
    _, begin, rest = text.partition(f"-----BEGIN IVOR {kind}-----")
    block, end, _ = rest.partition(f"-----END IVOR {kind}-----")
    if not begin or not end:
        raise NotCanonical(f"no block that begins with -----BEGIN IVOR {kind}----- (SPEC 5.2)")
    try:
        return base64.b64decode("".join(block.split()), validate=True)
    except (binascii.Error, ValueError):
        raise NotCanonical(f"the block IVOR {kind} is damaged: not base64 (SPEC 5.2)") from None
