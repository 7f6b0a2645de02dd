"""Numbers, times and reasons in what people read."""

from typing import Final

_SECONDS: Final = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


def counted(number: int, one: str, more: str | None = None) -> str:
    """Say how many there are: 1 byte, 4,096 bytes. more: of several, if that is not `one` and s."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def measured(seconds: int) -> tuple[int, str]:
    """Return a length of time in the largest unit of which it is a whole number."""
    unit = max(one for one in _SECONDS if seconds % one == 0)
    return seconds // unit, _SECONDS[unit]


def lasting(seconds: int) -> str:
    """Say how long: 30 days, 6 minutes."""
    return counted(*measured(seconds))


def reason(error: Exception) -> str:
    """Say why a file is not to be had, without what only a program needs."""
    if isinstance(error, UnicodeError):
        return "it is not text"
    return (isinstance(error, OSError) and error.strerror) or str(error)
