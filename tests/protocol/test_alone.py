"""SPEC 3.3, step *Alone*: the code and a second reading find the same reasons (`alone`, `oracle`).

The oracle holds them against each other whenever it settles an operation. Here are operations
that are wrong in many ways at once, where the order of the reasons shows, and chats nearly full.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.grant import Grant
from protocol.identity import AgencyId
from protocol.operation import Admit, Enroll, Inner, Operation, Remove, Revoke, SetPolicy, SetRole
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.roster import Void
from protocol.testing.cast import DEVICES, Person, credential, grant, person
from protocol.testing.story import Story
from tests.protocol.oracle import Oracle

NAMES = ("anna@mz", "boris@mz", "clara@mz", "dina@mvd", "egor@mvd")
CAST = [person(name) for name in NAMES]
ANNA, BORIS, CLARA, DINA, _ = CAST
DIRECT = [(ANNA, Role.OWNER), (BORIS, Role.OWNER)]
GROUP = [(ANNA, Role.OWNER), (BORIS, Role.OWNER), (CLARA, Role.MEMBER), (DINA, Role.READER)]
SMALL = {"DEVICES_USER_MAX": 2, "DEVICES_CHAT_MAX": 4, "DEVICES_CHANNEL_MAX": 6}
ALONE = {
    Void.NOT_A_MEMBER,
    Void.REPLAYED,
    Void.DIRECT,
    Void.STRANGER,
    Void.LOWERS,
    Void.AGENCY,
    Void.TAKEN,
    Void.LIMIT,
    Void.NOWHERE,
    Void.KNOWN,
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(f"protocol.case.{name}", value)
        monkeypatch.setattr(f"tests.protocol.alone.{name}", value)


def odd_grant(random: Random) -> Grant:
    """Return a grant that may be of a foreign agency, or with a device of somebody else."""
    who, role = random.choice(CAST), random.choice(list(Role))
    numbers = sorted(random.sample(range(DEVICES), random.randint(1, DEVICES)))
    made = grant(who, role, numbers)
    user = made.credential.user
    if random.random() < 0.15:
        user = replace(user, agency=AgencyId(bytes(32)))
    if random.random() < 0.15:
        user = replace(user, devices=random.choice(CAST).devices[:1])
    return replace(made, credential=replace(made.credential, user=user))


def odd_grants(random: Random) -> Admit:
    chosen = {one.credential.user.user: one for one in map(odd_grant, [random] * 3)}
    some = random.sample(sorted(chosen), random.randint(1, len(chosen)))
    return Admit(tuple(chosen[user] for user in sorted(some)))


def inner(random: Random) -> Inner:
    who = random.choice(CAST)
    zones = random.choice([("RU",), ("RU-UDM",), ("KZ",), ("KZ", "RU-PER"), ("RUS",)])
    makers: list[Callable[[], Inner]] = [
        lambda: odd_grants(random),
        lambda: odd_grants(random),
        lambda: Remove(who.user, ()),
        lambda: SetRole(who.user, random.choice(list(Role)), ()),
        lambda: Revoke(random.choice(who.devices), None, None, ()),
        lambda: SetPolicy(Policy(zones, 0, HistoryRule.FROM_JOIN)),
    ]
    return random.choice(makers)()


def once(decisions: list[Inner]) -> list[Inner]:
    """Leave out what is about somebody, a device or the policy for a second time (SPEC 3.2)."""
    kept: list[Inner] = []
    told_of: set[bytes] = set()
    for one in decisions:
        about = targets(one)
        if told_of.isdisjoint(about):
            kept.append(one)
            told_of |= about
    return kept


def targets(decision: Inner) -> set[bytes]:
    match decision:
        case Admit(grants):
            return {one.credential.user.user for one in grants}
        case Remove(user) | SetRole(user):
            return {user}
        case Revoke(device):
            return {device}
        case SetPolicy():
            return {b""}


def together(random: Random) -> list[Inner]:
    """Return decisions that are each in order, and may be too many devices together."""
    decided: list[Inner] = []
    for who in random.sample(CAST, 2):
        role = random.choice([Role.MEMBER, Role.MEMBER, Role.READER])
        granted = Admit((grant(who, role, (random.randrange(DEVICES),)),))
        decided.append(granted if random.random() < 0.5 else SetRole(who.user, role, ()))
    return decided


def operation(random: Random, story: Story, who: Person) -> Operation:
    other, number = random.choice(CAST), random.randrange(DEVICES)
    signers = [one for one in CAST if one is not who]
    makers: list[Callable[[], Operation]] = [
        lambda: inner(random),
        lambda: inner(random),
        lambda: Enroll(credential(other, (number,))),
        lambda: Enroll(credential(who, (number,))),
        lambda: story.revocation(other, number),
        lambda: replace(story.revocation(other, number), device=random.choice(CAST).devices[0]),
        lambda: story.quorum(
            random.choice([who, who, who, other]),
            once([inner(random) for _ in range(random.randint(1, 3))]),
            signers,
            random.choice([0, 5, 999, 999]),
        ),
        lambda: story.quorum(who, together(random), signers, random.randint(20, 999)),
        lambda: next(proofs(story), inner(random)),
        lambda: next(proofs(story), inner(random)),
    ]
    return random.choice(makers)()


def proofs(story: Story) -> Iterator[Operation]:
    """Yield the revocations by the forks that are there."""
    places: dict[tuple[bytes, int], list[int]] = {}
    for index, told in enumerate(story.told):
        places.setdefault((told.entry.device, told.entry.seq), []).append(index)
    for found in places.values():
        if len(found) > 1:
            yield story.exposure(*(story.told[index] for index in found[:2]))


def told(random: Random, kind: ChatKind, steps: int) -> Oracle:
    """Tell a story of the kind, and have all of it settled."""
    story = Story(DIRECT if kind is ChatKind.DIRECT else GROUP, kind)
    for _ in range(steps):
        who = random.choice([ANNA, ANNA, BORIS, random.choice(CAST)])
        seen = None if random.random() < 0.6 else [random.choice(story.told)]
        number = 0 if random.random() < 0.85 else random.randrange(DEVICES)
        made = operation(random, story, who)
        own = [one for one in story.told if one.entry.device == who.devices[0]]
        if own and own[-1].entry.seq and random.random() < 0.2:
            story.retell(who, made, own[-1], seen)
        else:
            story.tell(who, made, seen, number)
    oracle = Oracle(story.entries)
    for index in range(len(story.entries)):
        oracle.case(index)
    return oracle


@given(st.randoms(use_true_random=False), st.sampled_from(ChatKind), st.integers(2, 10))
@settings(max_examples=120)
def test_the_same_reasons(random: Random, kind: ChatKind, steps: int) -> None:
    """Each operation is settled twice: the oracle asks both."""
    told(random, kind, steps)


def test_every_reason_comes_up() -> None:
    found: Counter[Void | None] = Counter()
    for seed in range(200):
        kind = list(ChatKind)[seed % len(ChatKind)]
        oracle = told(Random(seed), kind, 10)
        found.update(oracle.case(index).fault for index in range(len(oracle.entries)))
    assert found.keys() == {*ALONE, None}
