"""What an operator's commands work on, and get: one node's tables, and what is given (SPEC 10)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import apsw
import msgspec
from msgspec import Struct

from node.config import Settings
from node.directory import Directory
from node.errors import UserError
from node.people import People
from node.trust import Trust
from protocol.identity import Card, verify_endorsed

Arguments = Mapping[str, object]
Result = dict[str, object]
Shape = TypeVar("Shape", bound=Struct)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the operations work on.

    directory: None on a stopped node whose keys are not open. connected: keys of the peers that are
    connected; None when the node does not run. now: seconds UTC.
    """

    connection: apsw.Connection
    trust: Trust
    settings: Settings
    directory: Directory | None
    connected: Collection[bytes] | None
    now: float

    @property
    def card(self) -> Card:
        """Our own card."""
        return self.trust.own

    @property
    def people(self) -> People:
        """The users here."""
        return People(self.connection, self.card.charter.agency)


def convert(arguments: Arguments, shape: type[Shape]) -> Shape:
    """Read what a command was given. Raises UserError if that is not what it takes."""
    try:
        return msgspec.convert(arguments, shape)
    except msgspec.ValidationError as error:
        raise UserError(f"not what the command takes: {error}") from None


def count(desk: Desk, query: str, *bindings: bytes) -> int:
    """Return the one number that a query finds."""
    return int(desk.connection.execute(query, bindings).get)


def devices_of(desk: Desk, user: bytes) -> list[Result]:
    """List all devices that one of our users ever had."""
    rows = desk.connection.execute(
        "SELECT id, certificate, revoked, prekey IS NOT NULL FROM devices WHERE user = ?"
        " ORDER BY id",
        (user,),
    )
    found: list[Result] = []
    for device, raw, revoked, prekey in rows:
        certificate = verify_endorsed(raw)
        found.append(
            {
                "id": device.hex(),
                "label": certificate.label,
                "issued": certificate.issued,
                "revoked": bool(revoked),
                "prekey": bool(prekey),
            }
        )
    return found
