"""Zones of a chat: where its members are, unless somebody says more, and never less."""

from collections.abc import Sequence

from client.device import Device
from node.errors import RefusedError, UserError
from protocol.identity import UserId, verify_charter
from protocol.name import check_zone
from protocol.policy import ZONES_MAX, Policy, fewest
from protocol.roster import Membership


def zones_of(device: Device, users: Sequence[UserId]) -> tuple[str, ...]:
    """Return the fewest zones that hold us and all of these known users, ascending."""
    found = {device.profile.charter.zone, *(zone_of(device, user) for user in users)}
    return fewest(found)


def zone_of(device: Device, user: UserId) -> str:
    """Return the zone of a known user's agency. Raises UserError."""
    charter = device.connection.execute("SELECT charter FROM users WHERE id = ?", (user,)).get
    if charter is None:
        raise UserError("that user is not known here; run 'ivor sync'")
    return verify_charter(charter).zone


def is_ours(device: Device, membership: Membership) -> bool:
    """Whether our agency may hold a chat; else our node takes nothing of it (SPEC 3.4)."""
    return device.profile.charter.agency in membership.agencies


def read_zones(text: str) -> tuple[str, ...]:
    """Read `RU-UDM,RU-MOW` as typed."""
    zones = {check_zone(zone.strip().upper()) for zone in text.split(",")}
    if len(zones) > ZONES_MAX:
        raise UserError(f"{len(zones)} zones, at most {ZONES_MAX}: name wider ones")
    return fewest(zones)


def check_zones(device: Device, policy: Policy, users: Sequence[UserId]) -> None:
    """Raise RefusedError if an agency of these users may not hold the chat by its policy."""
    ours = device.profile
    people = [(ours.name, ours.charter.zone)]
    for user in users:
        name = device.connection.execute("SELECT name FROM users WHERE id = ?", (user,)).get
        people.append((str(name), zone_of(device, user)))
    for name, zone in people:
        if not policy.allows(zone):
            raise RefusedError(
                f"{name} is in zone {zone}, and this chat stays in {', '.join(policy.zones)}: "
                "begin another chat for wider zones"
            )
