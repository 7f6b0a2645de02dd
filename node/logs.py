"""What a node says about itself, on stderr: one event a line, as JSON or for a person to read.

Every event passes through `redact`, so that a key that slips into a log call is not written, and
through an escape of control characters, so that what a peer sent cannot drive a terminal.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from node.config import Level

Form = Literal["json", "text"]

SECRET_WORDS: Final = frozenset(
    ("key", "passphrase", "password", "plaintext", "private", "secret", "seed", "ticket", "token")
)
REDACTED: Final = "[not logged]"

_DEPTH_MAX: Final = 4


def open_log(stream: TextIO, form: Form, level: Level) -> FilteringBoundLogger:
    """Make the one logger of a process; every `structlog.get_logger()` is it from now on.

    `log_form` says which form a stream should have.
    """
    last: list[Processor] = [_versioned, structlog.processors.JSONRenderer()]
    if form == "text":
        last = [_escaped, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    structlog.configure(
        logger_factory=lambda *_: _Lossy(stream),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class _Lossy(structlog.PrintLogger):
    """Loses what its stream does not take: a full disk must not end whoever says so on it."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg


def log_form(stream: TextIO) -> Form:
    """Text for a terminal, JSON for all else."""
    return "text" if stream.isatty() else "json"


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace every value that is bytes, or whose name holds one of `SECRET_WORDS`.

    It does not raise: a mistake in a log call must not end a session. Ids are logged as hex.
    """
    return {name: _safe(name, value, 0) for name, value in event.items()}


def _safe(name: str, value: object, depth: int) -> object:
    named = not SECRET_WORDS.isdisjoint(name.lower().split("_"))
    if named or depth > _DEPTH_MAX or isinstance(value, bytes | bytearray | memoryview):
        return REDACTED
    match value:
        case str() | int() | float() | None:
            return value
        case Mapping():
            return {str(key): _safe(str(key), inner, depth + 1) for key, inner in value.items()}
        case Sequence() | set() | frozenset():
            return [_safe(name, inner, depth + 1) for inner in value]
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case other:
            # A repr may hold anything; a type's name does not.
            return f"<{type(other).__name__}>"


def _versioned(
    _logger: object, _method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    return {"v": 1} | dict(event)


def _escaped(_logger: object, _method: str, event: EventDict) -> EventDict:
    # Only a trace has lines: elsewhere a line break would let a peer write an event of its own.
    return {name: _inert(value, "\n" * (name == "exception")) for name, value in event.items()}


def _inert(value: object, kept: str) -> object:
    if not isinstance(value, str):
        return value
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in value
    )
