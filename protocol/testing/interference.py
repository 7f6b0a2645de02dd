"""What a malicious node does to what passes it, and the devices that it invents (tests only).

    for run in interfere(Dice(7), runs):     # dropped, reordered, replayed, altered, unsigned
        device.take(run)
    ghost_certificates(registrar, user, agency)   # of a device that the user never asked for

Nothing here needs a key of anybody but the agency, whose registrar is the node's own.
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Raw, structs

from crypto.sealing import Prekey
from crypto.signing import Signer
from protocol import codec
from protocol.entry import ChatId, DeviceKey
from protocol.frame import Run
from protocol.identity import AgencyId, UserId
from protocol.testing.cast import ISSUED_MS, seed
from protocol.testing.histories import Dice

GHOST = Signer(seed("ghost"))
GHOST_USER = Signer(seed("ghost user"))
GHOST_PREKEY = Prekey(seed("ghost prekey"))
VERSION = 1
SIGNATURE_BYTES = 64

Lie = Callable[[Dice, Run], Run]


def _flip(dice: Dice, run: Run) -> Run:
    """Alter one bit of one record."""
    at = dice.pick(range(len(run.records)))
    record = bytearray(bytes(run.records[at]))
    record[dice.pick(range(len(record)))] ^= 1 << dice.pick(range(8))
    records = [*run.records]
    records[at] = Raw(bytes(record))
    return structs.replace(run, records=tuple(records))


def _unsign(_: Dice, run: Run) -> Run:
    """Leave out every signature."""
    return structs.replace(run, signatures=())


def _resign(_: Dice, run: Run) -> Run:
    """Put other signatures in the place of the true ones."""
    forged = tuple((at, GHOST.sign("sig", signature)) for at, signature in run.signatures)
    return structs.replace(run, signatures=forged)


def _attribute(_: Dice, run: Run) -> Run:
    """Say that another device wrote it."""
    return structs.replace(run, device=DeviceKey(GHOST.public))


def _move(_: Dice, run: Run) -> Run:
    """Say that it belongs to another chat."""
    return structs.replace(run, chat=ChatId(seed("another chat")))


def _shift(_: Dice, run: Run) -> Run:
    """Say that it stands one place later."""
    return structs.replace(run, start=run.start + 1)


LIES: Sequence[Lie] = (_flip, _unsign, _resign, _attribute, _move, _shift)


def interfere(dice: Dice, runs: Sequence[Run]) -> Iterator[Run]:
    """Yield runs as a malicious node passes them on: some of them, in any order, some not true."""
    waiting = list(runs)
    while waiting:
        run = dice.pick(waiting)
        if not dice.flip(4):
            waiting.remove(run)
        if dice.flip(4):
            continue
        yield dice.pick(LIES)(dice, run) if dice.flip(2) else run


def ghost_certificates(registrar: Signer, user: UserId, agency: AgencyId) -> list[bytes]:
    """Return certificates of the ghost as this user's device, as far as an agency can make them.

    The user's own signature is what it lacks: it is left empty, made by the ghost, by the
    registrar, or copied from the place where the registrar's stands.
    """
    parts = (VERSION, agency, user, GHOST.public, b"phone", ISSUED_MS)
    body = codec.encode(parts)
    by_registrar, by_ghost = (one.sign("device", body) for one in (registrar, GHOST))
    instead = (bytes(SIGNATURE_BYTES), by_ghost, GHOST_USER.sign("device", body), by_registrar)
    return [codec.encode((body, by_registrar, lie, by_ghost)) for lie in instead]
