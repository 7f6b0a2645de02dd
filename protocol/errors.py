"""What can go wrong in the protocol, as types.

    ProtocolError
    ├── PeerError              the other side broke SPEC: close the session, or refuse the bytes
    │   ├── NotCanonical       bytes that are not the one encoding of what they say
    │   ├── LimitExceeded      more than `limits` allows
    │   ├── Unauthentic        no valid signature covers it
    │   ├── Inadmissible       authentic, but the rules of membership or epochs refuse it
    │   ├── Untrusted          an identity that no agency vouches for
    │   └── OutOfTurn          a frame that this state of a session does not allow
    └── UsageError             our own code broke a contract: fix the caller

Each PeerError has a `code`, the number that ERROR carries on the wire (SPEC 9).
"""

from typing import ClassVar


class ProtocolError(Exception):
    """Base of all errors of `protocol`."""


class PeerError(ProtocolError):
    """The peer, or whoever wrote the bytes, broke SPEC."""

    code: ClassVar[int] = 1


class NotCanonical(PeerError):
    """The bytes are not the canonical encoding of a value (SPEC 1)."""

    code = 2


class LimitExceeded(PeerError):
    """More, longer or deeper than `limits` allows (SPEC 8)."""

    code = 3


class Unauthentic(PeerError):
    """No signature that libsodium accepts covers it (SPEC 2.4)."""

    code = 4


class Inadmissible(PeerError):
    """Authentic, but refused by the rules of its own causal past (SPEC 3, 4)."""

    code = 5


class Untrusted(PeerError):
    """A certificate, card or name that no trusted agency vouches for (SPEC 5)."""

    code = 6


class OutOfTurn(PeerError):
    """A frame that this kind of peer may not send now (SPEC 6)."""

    code = 7


class UsageError(ProtocolError):
    """Our own code broke a contract. Fix the caller."""
