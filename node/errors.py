"""What can go wrong at a node or device, apart from what peers do wrong (`protocol.errors`).

IvorError            what happened, to what, and what to do next; carries an exit code
├── UserError        1: the caller's mistake
├── StorageError     3: the disk or database
│   └── DamagedError    it gives back what was not written
├── NetworkError     3: a peer that does not answer
├── IdentityError    4: not who it should be
├── LimitReached     5: more than a limit or a rate allows
├── EvidenceError    7: a check failed, or somebody equivocated
└── RefusedError     8: a rule or policy says no

Modules derive their own from these, so that `exit_code` is the one place that knows the numbers.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from protocol.errors import (
    Inadmissible,
    LimitExceeded,
    NotCanonical,
    OutOfTurn,
    PeerError,
    Unauthentic,
    Untrusted,
)


class IvorError(Exception):
    """Base: its text is one line for people, its `exit_code` for scripts (design 5)."""

    exit_code: ClassVar[int] = 1


class UserError(IvorError):
    """Asked for something that cannot be; the text says what to do instead."""


class StorageError(IvorError):
    """The disk, the folder or the database does not do what it must."""

    exit_code = 3


class DamagedError(StorageError):
    """What is stored is not what was written."""


class NetworkError(IvorError):
    """A peer does not answer."""

    exit_code = 3


class IdentityError(IvorError):
    """Somebody is not who they should be."""

    exit_code = 4


class LimitReached(IvorError):
    """More than a limit or a rate allows."""

    exit_code = 5


class EvidenceError(IvorError):
    """A verification failed, or an equivocation was seen."""

    exit_code = 7


class RefusedError(IvorError):
    """A rule or policy says no."""

    exit_code = 8


# What came as bytes, and was given to us by the person at the keyboard or by a peer.
_PEER_EXIT_CODES: Final[Mapping[type[PeerError], int]] = {
    NotCanonical: 1,
    OutOfTurn: 3,
    Untrusted: 4,
    LimitExceeded: 5,
    Unauthentic: 7,
    Inadmissible: 8,
}
_BY_EXIT_CODE: Final[Mapping[int, type[IvorError]]] = {
    error.exit_code: error
    for error in (
        UserError,
        StorageError,
        IdentityError,
        LimitReached,
        EvidenceError,
        RefusedError,
    )
}


def exit_code(error: IvorError | PeerError) -> int:
    """Return the exit code, and the code of an ANSWER, that stands for an error."""
    if isinstance(error, IvorError):
        return error.exit_code
    return _PEER_EXIT_CODES.get(type(error), 3)


def reported(code: int, text: str) -> IvorError:
    """Make the error that another process or node reported with its code."""
    return _BY_EXIT_CODE.get(code, NetworkError)(text)


def answered(code: int, text: str) -> IvorError:
    """The same, of a node's answer: whether its disk or its network fails, it can not do it now."""
    return NetworkError(text) if code == NetworkError.exit_code else reported(code, text)
