"""When a replica's clock may decide that payloads have aged (SPEC 2.6).

What is dropped by age does not come back, and a clock can be wrong by years: after a repair, or in
a copy of a machine. So one that has leapt ahead is believed after a day only, within which somebody
sets it right.
"""

import apsw
from msgspec import convert

from node.database import note, noted

LEAP_MS = 7 * 24 * 3600 * 1000
PATIENCE_MS = 24 * 3600 * 1000
STEP_MS = 3600 * 1000  # how exactly it is kept when was looked last

_LOOKED = "aged"  # in `meta`: when what has aged was looked for last
_LEAPT = "leapt"  # what the clock showed when it was first seen so far ahead of that


def may_age(connection: apsw.Connection, now: int) -> bool:
    """Tell whether payloads may be dropped by a clock, and note that it was asked.

    now: milliseconds UTC. Use inside a transaction.
    """
    looked, leapt = _noted(connection, _LOOKED), _noted(connection, _LEAPT)
    if looked is not None and now - looked > LEAP_MS:
        if leapt is None or now < leapt:
            note(connection, _LEAPT, now)
            return False
        if now - leapt < PATIENCE_MS:
            return False
    if looked is None or not 0 <= now - looked < STEP_MS:
        note(connection, _LOOKED, now)
    connection.execute("DELETE FROM meta WHERE key = ?", (_LEAPT,))
    return True


def waits_until(connection: apsw.Connection) -> int | None:
    """Return when a clock that leapt ahead is believed, milliseconds UTC; None if it did not."""
    leapt = _noted(connection, _LEAPT)
    return None if leapt is None else leapt + PATIENCE_MS


def _noted(connection: apsw.Connection, what: str) -> int | None:
    return convert(noted(connection, what), int | None)
