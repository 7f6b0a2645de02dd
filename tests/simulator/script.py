"""What a seed stands for: who is there, what the world is like, and what is done when.

    script = draw(seed=7, minutes=3)
    msgspec.json.encode(script)          # a regression is such a file, with acts left out

All of it is drawn before the simulation begins. An act names people and things by numbers, of which
the remainder counts when it is done, so a script with acts left out is a script, too.
"""

from collections.abc import Sequence
from enum import StrEnum
from random import Random

from msgspec import Struct, structs

from tests.simulator.cast import ZONES
from tests.simulator.limits import drawn

NUMBER_MAX = 1 << 16
STRANGERS_SHARE = 0.3  # of the seeds
MEETS_SHARES = (0.0, 0.5, 1.0)  # the rest writes what it knows, as without a network
BESIDE_SHARES = (0.0, 0.0, 0.5)
CROSSING_SHARES = (0.0, 0.0, 0.3)
NEWCOMERS_MAX = 3  # enrolled in a seed of strangers
LAST = 0.9  # of the time: then the world rests a little before it is healed


class Deed(StrEnum):
    """What is done. The first group is work, then come the network, disks and clocks, attackers."""

    FOUND = "found a chat"
    SAY = "say"
    BURST = "say much"
    ADD = "add a member"
    REMOVE = "remove a member"
    ROLE = "change a role"
    DUEL = "two remove each other"
    DEMOTE = "demote each other"
    PROPOSE = "propose to the owners"
    CONSENT = "consent to what is proposed"
    LEAVE = "leave"
    REDACT = "redact"
    EDIT = "give a text a new one"
    SHARE = "share what was said"
    POLICY = "set the policy"
    HOLD = "hold, or end it"
    AGE = "drop what has aged"
    SECOND = "bring in a second device"
    GIVE_UP = "give up a second device"
    RECOVER = "replace a lost device"
    DISMISS = "the operator revokes a user"
    ENROL = "enrol a user"
    COME = "come online"
    GO = "go offline"
    VISIT = "visit"
    CUT = "cut connections"
    PART = "part two sides"
    PART_ONE_WAY = "part one way"
    CRASH = "crash"
    DISK_FULL = "disk full"
    DISK_FAILS = "disk fails"
    CLOCK = "clock jumps"
    BACKUP = "back up"
    RESTORE = "restore"
    STEAL = "a device is copied"
    THIEF = "the copy writes"
    MISCHIEF = "a member cheats"


WORK: Sequence[tuple[Deed, int]] = (
    (Deed.SAY, 50),
    (Deed.BURST, 6),
    (Deed.FOUND, 5),
    (Deed.ADD, 5),
    (Deed.REMOVE, 5),
    (Deed.ROLE, 5),
    (Deed.DUEL, 3),
    (Deed.DEMOTE, 2),
    (Deed.LEAVE, 2),
    (Deed.REDACT, 3),
    (Deed.POLICY, 6),
    (Deed.HOLD, 5),
    (Deed.AGE, 8),
    (Deed.SECOND, 3),
    (Deed.COME, 10),
    (Deed.GO, 5),
    (Deed.VISIT, 8),
)
SELDOM: Sequence[tuple[Deed, int]] = (
    (Deed.PROPOSE, 8),
    (Deed.CONSENT, 15),
    (Deed.GIVE_UP, 4),
    (Deed.RECOVER, 4),
    (Deed.DISMISS, 1),
    (Deed.EDIT, 8),
    (Deed.SHARE, 12),
)
FAULTS: Sequence[tuple[Deed, int]] = (
    (Deed.CUT, 10),
    (Deed.PART, 6),
    (Deed.PART_ONE_WAY, 6),
    (Deed.CRASH, 10),
    (Deed.DISK_FULL, 3),
    (Deed.DISK_FAILS, 5),
    (Deed.CLOCK, 10),
    (Deed.BACKUP, 4),
    (Deed.RESTORE, 3),
)
ATTACKS: Sequence[tuple[Deed, int]] = ((Deed.STEAL, 5), (Deed.THIEF, 15), (Deed.MISCHIEF, 10))


class Act(Struct, frozen=True, array_like=True):
    """One thing that is done. who, other, draw: numbers that choose among what is there then."""

    at: float
    deed: Deed
    who: int
    other: int
    draw: int


class Script(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a simulation is made from.

    limits: those of the protocol that are small here, by name.
    liars: agencies whose node is hostile. cheats: roles, by number, whose owners cheat.
    strangers: whether people have yet to hear of each other, and look up whom they need.
    meets: which share of the commands takes up what is new at the node before it writes.
    crossing: how often two nodes dial each other at once, or a device its node twice.
    beside: how often another process of a device does what is to be done, while one stays.
    """

    seed: int
    seconds: float
    real: bool
    agencies: tuple[str, ...]
    delay: float
    jitter: float
    loss: float
    limits: dict[str, int]
    liars: tuple[str, ...]
    cheats: tuple[int, ...]
    acts: tuple[Act, ...]
    strangers: bool = False
    meets: float = 0.0
    crossing: float = 0.0
    beside: float = 0.0


def draw(seed: int, minutes: float) -> Script:
    """Draw the script of a seed."""
    chance = Random(f"{seed}/script")
    seconds = minutes * 60
    agencies = tuple(chance.sample(sorted(ZONES), chance.randint(2, len(ZONES))))
    hostile = chance.random() < 0.5
    liars = chance.choice((0, 0, 1, 1, 2)) if hostile else 0
    liars = min(liars, len(agencies) - 1)
    script = Script(
        seed=seed,
        seconds=seconds,
        real=chance.random() < 0.05,
        agencies=agencies,
        delay=chance.choice((0.001, 0.02, 0.15, 0.6)),
        jitter=chance.choice((0.0, 0.5, 3.0)),
        loss=chance.choice((0.0, 0.0, 0.002, 0.02, 0.05)),
        limits=drawn(seed),
        liars=tuple(sorted(chance.sample(agencies, liars))),
        cheats=tuple(chance.sample(range(len(agencies) * 2), 1)) if hostile else (),
        acts=_acts(chance, seconds, hostile=hostile),
        meets=Random(f"{seed}/meets").choice(MEETS_SHARES),
        crossing=Random(f"{seed}/crossing").choice(CROSSING_SHARES),
        beside=Random(f"{seed}/beside").choice(BESIDE_SHARES),
    )
    return _estranged(script, Random(f"{seed}/strangers"))


def _estranged(script: Script, chance: Random) -> Script:
    """Let nobody have heard of others, and some be enrolled later, in some of the seeds."""
    if chance.random() >= STRANGERS_SHARE:
        return script
    enrolled = [
        _act(chance, script.seconds, Deed.ENROL) for _ in range(chance.randint(0, NEWCOMERS_MAX))
    ]
    first, *others = script.acts
    acts = first, *sorted([*others, *enrolled], key=lambda act: act.at)
    return structs.replace(script, strangers=True, acts=acts)


def _act(chance: Random, seconds: float, deed: Deed) -> Act:
    at = round(chance.uniform(2.0, seconds * LAST), 3)
    return Act(at, deed, *(chance.randrange(NUMBER_MAX) for _ in range(3)))


def _acts(chance: Random, seconds: float, *, hostile: bool) -> tuple[Act, ...]:
    weights = [*WORK]
    if chance.random() < 0.85:
        weights += FAULTS
    if chance.random() < 0.35:
        weights += SELDOM
    if hostile:
        weights += ATTACKS
    # A seed does without some of the deeds, and so the more of the others: swarm testing.
    left_out = {deed for deed, _ in weights if chance.random() < 0.25} - {Deed.SAY, Deed.COME}
    deeds = [(deed, weight) for deed, weight in weights if deed not in left_out]
    count = chance.randint(20, 120)
    done = [
        Act(
            round(chance.uniform(2.0, seconds * LAST), 3),
            chance.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])[0],
            *(chance.randrange(NUMBER_MAX) for _ in range(3)),
        )
        for _ in range(count)
    ]
    return (_first(chance), *sorted(done, key=lambda act: act.at))


def _first(chance: Random) -> Act:
    """Without a chat nothing happens."""
    return Act(1.0, Deed.FOUND, *(chance.randrange(NUMBER_MAX) for _ in range(3)))
