"""Hypothesis strategies for control lanes (tests only).

    @given(histories())                  entries in causal order, the genesis first
    @given(histories(), st.randoms())    reorder(entries, random.choice): another causal order
    @given(stories())                    the same as a `Story`, with headers and signatures

Authors are picked among the devices that may append by what they have seen, which is picked too:
old views, forks, duels, re-admissions, quorums, useless and unauthorised operations all occur.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

from hypothesis import strategies as st

from protocol.dag import ControlEntry
from protocol.entry import EntryId, Reference
from protocol.history import History
from protocol.membership import Membership, may_enter, resolve
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Hold,
    Inner,
    Leave,
    Nack,
    Operation,
    Redact,
    Remove,
    Revoke,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.testing.cast import DEVICES, Person, credential, grant, person
from protocol.testing.story import Story, Told

NAMES = ("anna@mz", "boris@mz", "clara@mz", "dina@mvd", "egor@mvd", "fyodor@mvd")
ENTRIES_MAX = 24
ROLES = list(Role)
T = TypeVar("T")
CAST = [person(name) for name in NAMES]


class Dice:
    """Picks among options, by numbers that follow from a seed."""

    def __init__(self, start: int) -> None:
        self._state = start.to_bytes(8)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        self._state = sha256(self._state).digest()
        return options[int.from_bytes(self._state[:8]) % len(options)]

    def flip(self, sides: int) -> bool:
        """Whether one certain side of so many came up."""
        return self.pick(range(sides)) == 0


def stories(size: int = ENTRIES_MAX, kind: ChatKind = ChatKind.GROUP) -> st.SearchStrategy[Story]:
    """Stories of up to `size` entries among six people, two to five of them there from the start.

    Shrinking cuts a story off at the end.
    """
    return st.builds(
        lambda start, steps: _story(Dice(start), steps, kind),
        st.integers(0, 2**32),
        st.integers(0, size - 1),
    )


def histories(
    size: int = ENTRIES_MAX, kind: ChatKind = ChatKind.GROUP
) -> st.SearchStrategy[list[ControlEntry]]:
    """The entries of `stories`, in causal order."""
    return stories(size, kind).map(lambda story: story.entries)


def _story(dice: Dice, steps: int, kind: ChatKind) -> Story:
    roles = [
        Role.OWNER,
        *(
            dice.pick((*ROLES, Role.ADMIN, Role.ADMIN, Role.MEMBER))
            for _ in range(dice.pick((1, 2, 3, 4)))
        ),
    ]
    cast = list(zip(CAST, roles, strict=False))
    if kind == ChatKind.DIRECT:
        cast = [(CAST[0], Role.OWNER), (CAST[1], Role.OWNER)]
    story = Story(cast, kind)
    history = story.history()
    for _ in range(steps):
        step(dice, story, history)
    return story


def step(dice: Dice, story: Story, history: History) -> None:
    """Tell one more entry, admissible by its own past, unless there is no author for it."""
    seen = [told for told in story.told if told.reference in story.heads()]
    if not dice.flip(2):
        seen = [dice.pick(story.told), dice.pick(story.told)]
    if not dice.flip(16) or not _enter(dice, story, history, seen):
        _act(dice, story, history, seen)


def _enter(dice: Dice, story: Story, history: History, seen: Sequence[Told]) -> bool:
    """Let a device that has written nothing bring itself in; return whether it may."""
    who, number = dice.pick(CAST), dice.pick(range(DEVICES))
    if any(told.entry.device == who.devices[number] for told in story.told):
        return False
    told = story.tell(who, Enroll(credential(who, (number,))), seen, number)
    past = history.past([link.id for link in told.entry.links])
    if told.entry.device in resolve(history, past).devices or may_enter(history, told.entry, past):
        history.add(told.entry)
        return True
    story.untell()
    return False


def _act(dice: Dice, story: Story, history: History, seen: Sequence[Told]) -> None:
    """Let a member's device tell something."""
    view = resolve(history, history.past([told.id for told in seen]))
    authors = [who for who in CAST if who.user in view.users and view.users[who.user].devices]
    if not authors:
        return
    who = dice.pick([who for who in authors for _ in range(_weight(view, who))])
    mine = view.users[who.user].devices
    number = dice.pick([n for n in range(DEVICES) if who.devices[n] in mine])
    operation = _operation(dice, story, who)
    own = [told for told in story.told if told.entry.device == who.devices[number]]
    if own and own[-1].entry.seq and dice.flip(25):
        told = story.retell(who, operation, own[-1], seen)
    else:
        told = story.tell(who, operation, seen, number)
    parents = [link.id for link in told.entry.links]
    past = history.past([*parents, *([told.entry.prev] if told.entry.prev else [])])
    if told.entry.device in resolve(history, past).devices:
        history.add(told.entry)
    else:
        story.untell()


def _weight(view: Membership, who: Person) -> int:
    """Let those who may do something act more often."""
    return 1 + 2 * max(view.users[who.user].role - Role.MEMBER, 0)


def _operation(dice: Dice, story: Story, who: Person) -> Operation:
    """Return an operation that this person might try, sensible or not."""
    forks = _forks(story)
    if forks and dice.flip(6):
        return dice.pick(forks)
    if not dice.flip(4):
        return _inner(dice)
    number = dice.pick(range(DEVICES))
    other = dice.pick(CAST)
    makers: list[Callable[[], Operation]] = [
        lambda: story.quorum(who, [_inner(dice)], [one for one in CAST if one is not who]),
        lambda: story.quorum(who, [_inner(dice)], [other] if other is not who else [], number),
        lambda: Enroll(credential(who, (number,))),
        lambda: Checkpoint(story.heads()[:8]),
        lambda: story.revocation(who, number),
        lambda: Revoke(who.devices[number], None, None, ()),
        Leave,
        lambda: Redact(other.devices[0], 1, number, EntryId(bytes(32)), "spam"),
        lambda: story.epoch(who, other.devices),
        lambda: Nack(EntryId(bytes(32)), number),
        lambda: Hold(other.user, dice.flip(3)),
    ]
    return dice.pick(makers)()


def _inner(dice: Dice) -> Inner:
    other, number, role = dice.pick(CAST), dice.pick(range(DEVICES)), dice.pick(ROLES)
    seen = (Reference(other.devices[0], number, EntryId(bytes(32))),)
    zones = dice.pick([("RU",), ("RU",), ("RU-UDM",), ("RU-PER", "RU-UDM")])
    policy = Policy(zones, dice.pick((0, 60, 3600)), dice.pick(list(HistoryRule)))
    numbers = (0, number) if number else (0,)
    makers: list[Callable[[], Inner]] = [
        lambda: Admit((grant(other, role, numbers),)),
        lambda: Remove(other.user, seen),
        lambda: SetRole(other.user, role, seen),
        lambda: Admit((grant(other, Role.MEMBER, numbers),)),
        lambda: Admit((grant(other, Role.ADMIN, numbers),)),
        lambda: Remove(other.user, seen),
        lambda: SetRole(other.user, role, seen),
        lambda: Revoke(other.devices[number], None, None, seen),
        lambda: SetPolicy(policy),
    ]
    return dice.pick(makers)()


def _forks(story: Story) -> list[Revoke]:
    """Return the revocations by proof of the forks that are there."""
    places: dict[tuple[bytes, int], list[int]] = {}
    for index, told in enumerate(story.told):
        places.setdefault((told.entry.device, told.entry.seq), []).append(index)
    return [
        story.exposure(story.told[found[0]], story.told[found[1]])
        for found in places.values()
        if len(found) > 1
    ]


def reorder(
    entries: Sequence[ControlEntry], choose: Callable[[Sequence[ControlEntry]], ControlEntry]
) -> list[ControlEntry]:
    """Return the same entries in another causal order, as another node may have got them.

    choose: picks the next among those whose past is there, such as `Random.choice`.
    """
    waiting = list(entries[1:])
    held = {entries[0].id}
    ordered = [entries[0]]
    while waiting:
        ready = [
            one
            for one in waiting
            if (one.prev is None or one.prev in held) and all(ref.id in held for ref in one.links)
        ]
        chosen = choose(ready)
        waiting.remove(chosen)
        ordered.append(chosen)
        held.add(chosen.id)
    return ordered
