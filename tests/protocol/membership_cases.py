"""The worked cases of membership (SPEC 3.6) as data: for the tests, and for the vectors.

Each case is a story and what it amounts to. `make_cases()` makes them anew, always the same bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from protocol.entry import DeviceKey, EntryId, Reference
from protocol.membership import Void
from protocol.operation import Admit, Checkpoint, Enroll, Leave, Remove, Revoke, SetPolicy, SetRole
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.testing.cast import Person, credential, grant, person
from protocol.testing.story import Story

ANNA: Final = person("anna@mz")  # owner
BORIS: Final = person("boris@mz")  # admin
CLARA: Final = person("clara@mvd")  # member or admin
DINA: Final = person("dina@mvd")
OLGA: Final = person("olga@mz")  # the other owner


@dataclass(frozen=True, slots=True)
class Content:
    """What membership looks at in a content entry. saw: the control entries that it names."""

    what: str
    device: DeviceKey
    seq: int
    saw: tuple[EntryId, ...]
    void: Void | None


@dataclass(frozen=True, slots=True)
class WorkedCase:
    """A story and its outcome. roles: of everybody in the chat. void: of every void entry."""

    letter: str
    title: str
    story: Story
    roles: Mapping[Person, Role]
    void: Mapping[EntryId, Void] = field(default_factory=dict)
    content: tuple[Content, ...] = ()
    policy: Policy | None = None


def head(who: Person, seq: int) -> Reference:
    """Name a content entry of a person's first device."""
    return Reference(who.devices[0], seq, EntryId(bytes([seq]) * 32))


def duel() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.ADMIN)])
    start = [story.genesis]
    one = story.tell(BORIS, Remove(CLARA.user, ()), start)
    other = story.tell(CLARA, Remove(BORIS.user, ()), start)
    return WorkedCase(
        "a",
        "admins remove each other: neither may, an owner decides",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN, CLARA: Role.ADMIN},
        {one.id: Void.RANK, other.id: Void.RANK},
    )


def readmission_beside_removal() -> WorkedCase:
    story = Story(
        [(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER), (OLGA, Role.ADMIN)]
    )
    start = [story.genesis]
    story.tell(BORIS, Remove(CLARA.user, (head(CLARA, 4),)), start)
    story.tell(OLGA, Remove(CLARA.user, (head(CLARA, 6),)), start)
    back = story.tell(OLGA, Admit((grant(CLARA, Role.MEMBER),)), [])
    device = CLARA.devices[0]
    return WorkedCase(
        "b",
        "one admin removes C, another removes and takes C in again: C is out",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN, OLGA: Role.ADMIN},
        {},
        (
            Content("before all removals", device, 4, (story.genesis.id,), None),
            Content(
                "within the larger frontier only", device, 5, (story.genesis.id,), Void.REMOVED
            ),
            Content("after the void re-admission", device, 7, (back.id,), Void.REMOVED),
        ),
    )


def _demoted(letter: str, title: str, *, backdated: bool) -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)])
    kept = story.tell(BORIS, Admit((grant(OLGA, Role.MEMBER),)), [story.genesis])
    demotion = SetRole(BORIS.user, Role.MEMBER, ())
    if backdated:
        story.tell(ANNA, demotion, [kept])
    late = story.tell(BORIS, Admit((grant(DINA, Role.MEMBER),)), [])
    if not backdated:
        story.tell(ANNA, demotion, [kept])
    said = story.tell(DINA, story.epoch(DINA, [DINA.devices[0]]), [late])
    answer = story.tell(CLARA, story.epoch(CLARA, [CLARA.devices[0]]), [said])
    return WorkedCase(
        letter,
        title,
        story,
        {ANNA: Role.OWNER, BORIS: Role.MEMBER, CLARA: Role.MEMBER, OLGA: Role.MEMBER},
        {late.id: Void.OUTRANKED, said.id: Void.NOT_A_MEMBER},
        (
            Content("by D", DINA.devices[0], 0, (late.id,), Void.NOT_A_MEMBER),
            Content("a reply to D", CLARA.devices[0], 0, (answer.id,), None),
        ),
    )


def demotion_beside_grant() -> WorkedCase:
    title = "an owner demotes A, who concurrently adds D: D's entries are void, replies to D stay"
    return _demoted("c", title, backdated=False)


def backdated_grant() -> WorkedCase:
    return _demoted("d", "A backdates the grant after having seen the demotion", backdated=True)


def removal_by_a_demoted_admin() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)])
    start = [story.genesis]
    removal = story.tell(BORIS, Remove(CLARA.user, ()), start)
    out = (removal.id,)
    story.tell(ANNA, SetRole(BORIS.user, Role.MEMBER, ()), start)
    return WorkedCase(
        "e",
        "A removes C, an owner who has not seen it demotes A: C is back",
        story,
        {ANNA: Role.OWNER, BORIS: Role.MEMBER, CLARA: Role.MEMBER},
        {removal.id: Void.OUTRANKED},
        (
            Content("by C, unaware", CLARA.devices[0], 0, (story.genesis.id,), None),
            Content("by A, after removing C", BORIS.devices[0], 0, out, None),
        ),
    )


def promotion_beside_removal() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)])
    start = [story.genesis]
    story.tell(BORIS, Remove(CLARA.user, ()), start)
    story.tell(ANNA, SetRole(CLARA.user, Role.ADMIN, ()), start)
    return WorkedCase(
        "f",
        "an admin removes C while an owner promotes C: C is admin",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN, CLARA: Role.ADMIN},
        {},
        (Content("by C, unaware of both", CLARA.devices[0], 0, (story.genesis.id,), None),),
    )


def past_the_frontier() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)])
    start = story.genesis
    story.tell(BORIS, Remove(CLARA.user, (head(CLARA, 57),)), [start])
    device = CLARA.devices[0]
    return WorkedCase(
        "g",
        "honest C writes on past the frontier: void, to be sent again",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN},
        {},
        (
            Content("the last that was seen", device, 57, (start.id,), None),
            Content("past the frontier", device, 58, (start.id,), Void.REMOVED),
            Content(
                "from a device nobody heard of", CLARA.devices[1], 0, (start.id,), Void.NOT_A_MEMBER
            ),
        ),
    )


def concurrent_settings() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER), (BORIS, Role.ADMIN)])
    start = [story.genesis]
    story.tell(ANNA, SetPolicy(Policy(("RU-UDM",), 3600, HistoryRule.SHARED)), start)
    story.tell(OLGA, SetPolicy(Policy(("RU-PER", "RU-UDM"), 60, HistoryRule.SHARED)), start)
    narrow = story.tell(BORIS, SetPolicy(Policy(("RU-UDM-IZH",), 0, HistoryRule.SHARED)), start)
    story.tell(BORIS, SetPolicy(Policy(("RU",), 0, HistoryRule.FROM_JOIN)), start)
    return WorkedCase(
        "h",
        "concurrent settings: the most restrictive wins; zones narrow, and only by owners",
        story,
        {ANNA: Role.OWNER, OLGA: Role.OWNER, BORIS: Role.ADMIN},
        {narrow.id: Void.RANK},
        (),
        Policy(("RU-UDM",), 60, HistoryRule.FROM_JOIN),
    )


def a_lost_first_device() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)])
    lost, fresh, third = CLARA.devices
    entered = story.tell(CLARA, Enroll(credential(CLARA, (1,))), [story.genesis], number=1)
    story.tell(CLARA, story.revocation(CLARA, seen=(head(CLARA, 4),)), number=1)
    thief = story.tell(CLARA, Enroll(credential(CLARA, (2,))), [story.genesis])
    again = story.tell(BORIS, Enroll(credential(BORIS, (1,))), number=1)
    return WorkedCase(
        "i",
        "C's only device is lost: a new one enters by itself and revokes it; B's new one enters",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN, CLARA: Role.MEMBER},
        {thief.id: Void.DEVICE},
        (
            Content("by the new device", fresh, 0, (entered.id,), None),
            Content("by the lost one, seen", lost, 4, (story.genesis.id,), None),
            Content("by the lost one, later", lost, 5, (story.genesis.id,), Void.DEVICE),
            Content("by what the thief brought in", third, 0, (thief.id,), Void.DEVICE),
            Content("by B's new device", BORIS.devices[1], 0, (again.id,), None),
        ),
    )


def given_up_by_a_thief() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER)])
    stolen = CLARA.devices[0]
    ahead = Revoke(stolen, None, None, (head(CLARA, 200),))
    story.tell(CLARA, ahead, [story.genesis])
    story.tell(BORIS, Revoke(stolen, None, None, (head(CLARA, 4),)))
    return WorkedCase(
        "j",
        "a thief gives C's device up, and names what is yet to be written: B cuts it off",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN, CLARA: Role.MEMBER},
        {},
        (
            Content("what B had seen", stolen, 4, (story.genesis.id,), None),
            Content("what the thief writes", stolen, 5, (story.genesis.id,), Void.DEVICE),
        ),
    )


def left_to_write_on() -> WorkedCase:
    story = Story([(ANNA, Role.OWNER), (OLGA, Role.OWNER)], ChatKind.DIRECT)
    device = OLGA.devices[0]
    story.tell(OLGA, Leave(), [story.genesis])
    story.tell(ANNA, Revoke(device, None, None, (head(OLGA, 4),)))
    return WorkedCase(
        "k",
        "in a direct chat, one leaves and writes on as if they had not: the other cuts it off",
        story,
        {ANNA: Role.OWNER},
        {},
        (
            Content("what the other had seen", device, 4, (story.genesis.id,), None),
            Content("what is written on", device, 5, (story.genesis.id,), Void.DEVICE),
            Content("by the other", ANNA.devices[0], 9, (story.genesis.id,), None),
        ),
    )


def a_proof_that_names_nothing() -> WorkedCase:
    story = Story(
        [(ANNA, Role.OWNER), (BORIS, Role.ADMIN), (CLARA, Role.MEMBER), (OLGA, Role.READER)]
    )
    device, start = CLARA.devices[0], story.genesis.id
    story.tell(CLARA, Checkpoint(), [story.genesis])
    one = story.tell(CLARA, Checkpoint(), [])
    other = story.retell(CLARA, Checkpoint((head(CLARA, 1),)), one, [])
    story.tell(OLGA, story.exposure(one, other), [one, other])
    story.tell(BORIS, Revoke(device, None, None, (head(CLARA, 57),)), [one])
    return WorkedCase(
        "l",
        "a reader brings the proof of a fork and names nothing as seen: an admin says what was",
        story,
        {ANNA: Role.OWNER, BORIS: Role.ADMIN, CLARA: Role.MEMBER, OLGA: Role.READER},
        {one.id: Void.FORKED, other.id: Void.FORKED},
        (
            Content("from long before the fork", device, 57, (start,), None),
            Content("past what the admin had seen", device, 58, (start,), Void.DEVICE),
            Content("of who has seen the fork", device, 3, (one.id, other.id), None),
        ),
    )


CASES: Final[tuple[Callable[[], WorkedCase], ...]] = (
    duel,
    readmission_beside_removal,
    demotion_beside_grant,
    backdated_grant,
    removal_by_a_demoted_admin,
    promotion_beside_removal,
    past_the_frontier,
    concurrent_settings,
    a_lost_first_device,
    given_up_by_a_thief,
    left_to_write_on,
    a_proof_that_names_nothing,
)


def make_cases() -> Iterator[WorkedCase]:
    """Yield the cases, (a) to (l)."""
    for make in CASES:
        yield make()
