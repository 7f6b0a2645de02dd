"""An invitation: one line of text that lets one new device speak to its agency's node (SPEC 5.3).

    "ivor1." ‖ base64url([1, card, ticket, purpose, user name, expires, certificate, key] ‖ sum)
    sum = the first 4 bytes of H("ivor/1 invitation" ‖ array)

The node made the certificate and its key for `ivor:invitation:<ticket>`, so that TLS is mutual from
the first byte. Whoever has the text can enrol in the user's name, once: it is a secret until then.
The sum finds slips of copying, no more; the card is signed, and its fingerprint can be compared.
"""

import base64
import binascii
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from crypto.labels import digest
from protocol import codec
from protocol.errors import LimitExceeded, NotCanonical
from protocol.identity import AUTHORITY_BYTES_MAX, VERSION, Card, verify_card
from protocol.limits import CARD_BYTES_MAX, NAME_CHARS_MAX, TIME_MS_MAX
from protocol.name import check_name

TICKET_BYTES: Final = 16
PREFIX: Final = "ivor1."
TLS_KEY_BYTES_MAX: Final = 512
INVITATION_BYTES_MAX: Final = CARD_BYTES_MAX + AUTHORITY_BYTES_MAX + TLS_KEY_BYTES_MAX + 256
INVITATION_CHARS_MAX: Final = INVITATION_BYTES_MAX * 3 // 2

_SUM_BYTES: Final = 4
_FIELDS: Final = 8


class Purpose(IntEnum):
    """What the ticket may be spent on."""

    FIRST_DEVICE = 0
    LINK = 1
    RECOVERY = 2


@dataclass(frozen=True, slots=True)
class Invitation:
    """All that a new device needs. expires: milliseconds. certificate, key: DER, for TLS."""

    card: Card
    ticket: bytes = field(repr=False)
    purpose: Purpose
    name: str
    expires: int
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


def encode_invitation(invitation: Invitation) -> str:
    """Make the one line of text that is handed to a person."""
    body = codec.encode(
        (
            VERSION,
            invitation.card.raw,
            invitation.ticket,
            invitation.purpose.value,
            invitation.name.encode(),
            invitation.expires,
            invitation.certificate,
            invitation.key,
        )
    )
    return PREFIX + base64.urlsafe_b64encode(body + _sum(body)).decode().rstrip("=")


def decode_invitation(text: str) -> Invitation:
    """Read an invitation; spaces and line breaks from copying are skipped.

    Raises NotCanonical (not an invitation, another version, damaged), LimitExceeded, or Untrusted
    if the card in it is not signed. The caller compares `expires` with its clock.
    """
    if len(text) > INVITATION_CHARS_MAX:
        raise LimitExceeded(
            f"invitation of {len(text)} characters, at most {INVITATION_CHARS_MAX} (SPEC 5.3)"
        )
    fields = codec.record(codec.decode(_body(text), INVITATION_BYTES_MAX), _FIELDS, "invitation")
    if fields[0] != VERSION:
        raise NotCanonical(f"invitation of version {fields[0]!r}, this is {VERSION} (SPEC 5.3)")
    return Invitation(
        card=verify_card(codec.binary(fields[1], CARD_BYTES_MAX, "card")),
        ticket=codec.fixed(fields[2], TICKET_BYTES, "ticket"),
        purpose=Purpose(codec.uint(fields[3], max(Purpose), "purpose")),
        name=check_name(codec.text(fields[4], NAME_CHARS_MAX * 2, "user name")),
        expires=codec.uint(fields[5], TIME_MS_MAX, "expires"),
        certificate=codec.binary(fields[6], AUTHORITY_BYTES_MAX, "TLS certificate"),
        key=codec.binary(fields[7], TLS_KEY_BYTES_MAX, "TLS key"),
    )


def _body(text: str) -> bytes:
    """Take off prefix, base64url and sum. Raises NotCanonical, saying which was wrong."""
    line = "".join(text.split())
    if not line.startswith(PREFIX):
        raise NotCanonical(f"an invitation of this version begins with {PREFIX} (SPEC 5.3)")
    encoded = line.removeprefix(PREFIX)
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotCanonical("invitation is damaged: not base64url (SPEC 5.3)") from None
    body, found = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
    if _sum(body) != found:
        raise NotCanonical("invitation is damaged or cut off: its sum is wrong (SPEC 5.3)")
    return body


def _sum(body: bytes) -> bytes:
    return digest("invitation", body)[:_SUM_BYTES]
