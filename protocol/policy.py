"""A chat's kind, its roles, and what its members agreed on: zones, retention, history (SPEC 3.2).

Zones only ever narrow. Retention and history can be set anew; of settings that did not know of each
other the most restrictive wins, so no arrival order decides what is kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

from protocol import codec
from protocol.errors import NotCanonical
from protocol.limits import SEQ_MAX, ZONE_CHARS_MAX
from protocol.name import check_zone, holding, inside

ZONES_MAX: Final = 16


class Role(IntEnum):
    """What a member may do; an operation acts on strictly lower roles than its author's."""

    READER = 0
    MEMBER = 1
    ADMIN = 2
    OWNER = 3


class ChatKind(IntEnum):
    """DIRECT: two owners, nobody joins. CHANNEL: most are readers."""

    DIRECT = 0
    GROUP = 1
    CHANNEL = 2


class HistoryRule(IntEnum):
    """What a joiner may be given of the time before: nothing, or what members share."""

    FROM_JOIN = 0
    SHARED = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """One setting. zones: 1 to 16 of them, ascending. retention: seconds, 0 is for ever."""

    zones: tuple[str, ...]
    retention: int
    history: HistoryRule

    def allows(self, zone: str) -> bool:
        """Whether an agency of this zone may hold the chat."""
        return any(inside(zone, allowed) for allowed in self.zones)


def policy_fields(policy: Policy) -> codec.Value:
    """Return the array [zones, retention, history] for `codec.encode`."""
    return ([zone.encode() for zone in policy.zones], policy.retention, int(policy.history))


def read_policy(value: object) -> Policy:
    """Read what `policy_fields` made. Raises NotCanonical or LimitExceeded."""
    listed, retention, history = codec.record(value, 3, "policy")
    zones = tuple(
        check_zone(codec.text(zone, ZONE_CHARS_MAX, "zone"))
        for zone in codec.array(listed, ZONES_MAX, "zones")
    )
    if not zones or any(a >= b for a, b in pairwise(zones)):
        raise NotCanonical("a policy names its zones in ascending order, at least one (SPEC 3.2)")
    return Policy(
        zones,
        codec.uint(retention, SEQ_MAX, "retention"),
        HistoryRule(codec.uint(history, max(HistoryRule), "history")),
    )


def narrow(zones: Collection[str], others: Collection[str]) -> tuple[str, ...]:
    """Return the zones that are inside both lists, ascending; none if they do not meet."""
    here, there = frozenset(zones), frozenset(others)
    met = {one for one in here if not there.isdisjoint(holding(one))}
    met |= {other for other in there if not here.isdisjoint(holding(other))}
    return fewest(met)


def fewest(zones: Collection[str]) -> tuple[str, ...]:
    """Return the zones of a list that are inside no other of it, ascending: they hold as much."""
    listed = frozenset(zones)
    return tuple(sorted(zone for zone in listed if listed.isdisjoint(holding(zone)[1:])))


def covering(zones: Collection[str]) -> tuple[str, ...]:
    """Return zones that hold these, as many as a setting may name: it does not narrow them.

    Those in force can be more, where settings meet; as they are inside those of a genesis, wider
    ones can always be named.
    """
    found = fewest(zones)
    while len(found) > ZONES_MAX and "-" in (deepest := max(found, key=lambda one: one.count("-"))):
        found = fewest({*found, deepest.rpartition("-")[0]})
    return found


def combine(zones: tuple[str, ...], latest: Sequence[Policy]) -> Policy:
    """Return the policy in force.

    zones: in which all effective settings meet. latest: those of them that no other has seen.
    """
    kept = [setting.retention for setting in latest if setting.retention]
    return Policy(
        zones,
        min(kept) if kept else 0,
        min(setting.history for setting in latest),
    )
