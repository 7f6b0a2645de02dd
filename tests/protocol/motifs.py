"""Stories about what reaches furthest in SPEC 3.3: a forked chain, and who vouches for it.

    story = forked_early(random, steps)
    story = of_many_devices(random, steps)
    story = of_owners(random, steps)

A device forks near the beginning; it leaves, enrols, decides and acts on both branches. Others tell
of it, vouch for what they have seen, and act on it and on each other, each knowing little. In the
second kind all devices of everybody write and may fork, some are named for two users, devices enter
by themselves, and proofs of either lane name as seen what they like. In the third several owners
vouch, fork, decide together, leave and revoke devices.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from protocol.entry import EntryId, Reference
from protocol.membership import may_enter, resolve
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Hold,
    Inner,
    Leave,
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

CAST = [person(name) for name in ("anna@mz", "boris@mz", "clara@mz", "dina@mvd", "egor@mvd")]
ROLES = [Role.OWNER, Role.OWNER, Role.ADMIN, Role.ADMIN, Role.MEMBER]
ZONES = [("RU",), ("RU-UDM",), ("RU", "RU-UDM"), ("RU-PER", "RU-UDM")]
SEQS = 4


def forked_early(random: Random, steps: int) -> Story:
    """Tell such a story; each entry is admissible by its own past."""
    cast = CAST[: random.choice((4, 5))]
    roles = [Role.OWNER, *(random.choice(ROLES) for _ in cast[1:])]
    story = Story(list(zip(cast, roles, strict=True)))
    motif = _Motif(random, story, cast, random.choice(cast[1:]))
    motif.fork()
    owners = [who for who, role in zip(cast, roles, strict=True) if role is Role.OWNER]
    for _ in range(steps):
        motif.step(owners)
    return story


def of_many_devices(random: Random, steps: int) -> Story:
    """Tell such a story, in a group or a channel."""
    cast = CAST[: random.choice((3, 4, 5))]
    roles = [Role.OWNER, *(random.choice(ROLES) for _ in cast[1:])]
    kind = random.choice((ChatKind.GROUP, ChatKind.GROUP, ChatKind.CHANNEL))
    story = Story(list(zip(cast, roles, strict=True)), kind)
    return _played(random, _Crowd(random, story, cast, random.choice(cast[1:])), roles, steps)


def of_owners(random: Random, steps: int) -> Story:
    """Tell such a story with two owners or more."""
    cast = CAST[: random.choice((3, 4, 5))]
    roles = [Role.OWNER, Role.OWNER, *(random.choice(ROLES) for _ in cast[2:])]
    story = Story(list(zip(cast, roles, strict=True)))
    return _played(random, _Council(random, story, cast, random.choice(cast[1:])), roles, steps)


def _played(random: Random, motif: "_Motif", roles: list[Role], steps: int) -> Story:
    if random.randrange(2):
        motif.fork()
    owners = [who for who, role in zip(motif.cast, roles, strict=True) if role is Role.OWNER]
    for _ in range(steps):
        motif.step(owners)
    return motif.story


class _Motif:
    """A story in the making. forker: whose first device forks."""

    def __init__(self, random: Random, story: Story, cast: list[Person], forker: Person) -> None:
        self._random = random
        self.story = story
        self.cast = cast
        self._forker = forker
        self._history = story.history()

    def fork(self) -> None:
        """Let the device write on two or more branches."""
        forker, story = self._forker, self.story
        if self._flip(2):
            self._keep(story.tell(forker, Enroll(credential(forker, (1,))), [story.genesis]))
        self._keep(story.tell(forker, self._said(forker), self._some()))
        first = story.tell(forker, self._said(forker), self._some())
        if self._keep(first):
            for _ in range(self._random.randint(1, 3)):
                self._keep(story.retell(forker, self._said(forker), first, self._some()))
        for _ in range(self._random.randint(0, 2)):
            self._keep(story.tell(forker, self._said(forker), self._some()))

    def step(self, owners: list[Person]) -> None:
        """Let somebody tell of a fork, vouch, or do something else."""
        random, story = self._random, self.story
        who, seen = random.choice(self.cast), None if self._flip(4) else self._some()
        forks = list(_forks(story))
        if forks and self._flip(4):
            one, other = random.choice(forks)
            self._keep(story.tell(who, story.exposure(one, other), seen))
        elif self._flip(3):
            vouched = Checkpoint(story.heads()[: random.randint(0, 2)])
            self._keep(story.tell(random.choice(owners), vouched, seen))
        else:
            said = self._said(who) if self._flip(2) else self._inner(who)
            self._keep(story.tell(who, said, seen))

    def _flip(self, sides: int) -> bool:
        return self._random.randrange(sides) == 0

    def _some(self) -> list[Told]:
        told = self.story.told
        return self._random.sample(told, min(len(told), self._random.randint(1, 3)))

    def _keep(self, told: Told) -> bool:
        """Keep what was told last, if it is new and its device may append it."""
        entry, history = told.entry, self._history
        parents = [link.id for link in entry.links] + ([entry.prev] if entry.prev else [])
        past = history.past(parents)
        admitted = bool(past) and (
            entry.device in resolve(history, past).devices or may_enter(history, entry, past)
        )
        if entry.id in history or not admitted:
            self.story.untell()
            return False
        history.add(entry)
        return True

    def _inner(self, who: Person) -> Inner:
        """Return what needs a rank, mostly about the device that forks."""
        random = self._random
        other = random.choice([self._forker, *self.cast])
        number, role = random.randrange(DEVICES), random.choice(list(Role))
        seen = self._heads(other, number)
        policy = Policy(
            random.choice(ZONES), random.choice((0, 60)), random.choice(list(HistoryRule))
        )
        makers: list[Callable[[], Inner]] = [
            lambda: Admit((grant(other, role, (0, number) if number else (0,)),)),
            lambda: Remove(other.user, seen),
            lambda: SetRole(other.user, role, seen),
            lambda: Revoke(random.choice((who, other)).devices[number], None, None, seen),
            lambda: SetPolicy(policy),
        ]
        return random.choice(makers)()

    def _said(self, who: Person) -> Operation:
        """Return what somebody says of themselves, decides, or redacts."""
        random, story = self._random, self.story
        number = random.randrange(DEVICES)
        others = [one for one in self.cast if one is not who]
        seen = self._heads(who, number)
        target = random.choice(self.cast).devices[0]
        makers: list[Callable[[], Operation]] = [
            Leave,
            Leave,
            lambda: Enroll(credential(who, (number,))),
            lambda: Checkpoint(story.heads()[: random.choice((0, 1, 8))]),
            lambda: story.quorum(who, [self._inner(who)], others, random.choice((1, 2, 3, 999))),
            lambda: story.revocation(who, number, seen),
            lambda: Revoke(who.devices[number], None, None, seen),
            lambda: Redact(target, 1, random.randrange(2), EntryId(bytes(32)), "spam"),
            lambda: Hold(random.choice(others).user, self._flip(3)),
            lambda: self._inner(who),
        ]
        return random.choice(makers)()

    def _heads(self, who: Person, number: int) -> tuple[Reference, ...]:
        return (Reference(who.devices[number], self._random.randrange(SEQS), EntryId(bytes(32))),)


class _Crowd(_Motif):
    """The same, by all devices of everybody."""

    def step(self, owners: list[Person]) -> None:
        """Let somebody tell of a fork, vouch, bring a device in, or do something else."""
        random, story = self._random, self.story
        who, seen = random.choice(self.cast), None if self._flip(4) else self._some()
        forks = list(_forks(story))
        number = random.randrange(DEVICES)
        if forks and self._flip(5):
            self._keep(self._told(who, self._proof(*random.choice(forks)), seen))
        elif self._flip(4):
            self._keep(self._told(random.choice(owners), Checkpoint(story.heads()[:2]), seen))
        elif self._flip(5):
            self._keep(story.tell(who, Enroll(credential(who, (number,))), seen, number))
        else:
            said = self._said(who) if self._flip(2) else self._inner(who)
            self._keep(self._told(who, said, seen))

    def _told(self, who: Person, operation: Operation, seen: list[Told] | None) -> Told:
        """Tell something by one of the person's devices, which now and then forks."""
        number = 0 if self._flip(2) else self._random.randrange(DEVICES)
        mine = [told for told in self.story.told if told.entry.device == who.devices[number]]
        if mine[1:] and self._flip(12):
            return self.story.retell(who, operation, self._random.choice(mine[1:]), seen)
        return self.story.tell(who, operation, seen, number)

    def _proof(self, one: Told, other: Told) -> Revoke:
        proof = self.story.exposure(one, other)
        seen = (Reference(proof.device, self._random.randrange(SEQS), EntryId(bytes(32))),)
        assert proof.fork is not None
        lane = 1 if self._flip(3) else proof.fork.lane
        return replace(
            proof, fork=replace(proof.fork, lane=lane), seen=() if self._flip(2) else seen
        )

    def _inner(self, who: Person) -> Inner:
        if not self._flip(8):
            return super()._inner(who)
        one, other = self._random.choice(self.cast), self._random.choice(self.cast)
        made = grant(one, self._random.choice(list(Role)))
        devices = {one.devices[0], self._random.choice(other.devices)}
        user = replace(made.credential.user, devices=tuple(sorted(devices)))
        return Admit((replace(made, credential=replace(made.credential, user=user)),))


class _Council(_Crowd):
    """The same, mostly by owners."""

    def step(self, owners: list[Person]) -> None:
        """Let somebody tell of a fork, an owner vouch or decide with others, or somebody go."""
        random, story = self._random, self.story
        who, owner = random.choice(self.cast), random.choice(owners)
        seen = None if self._flip(4) else self._some()
        forks = list(_forks(story))
        choice = random.randrange(10)
        if forks and choice < 2:
            self._keep(self._told(who, self._proof(*random.choice(forks)), seen))
        elif choice < 5:
            self._keep(self._told(owner, Checkpoint(story.heads()[: random.randrange(2)]), seen))
        elif choice == 5:
            others = [one for one in owners if one is not owner]
            until = random.choice((1, 2, 3, 999))
            decided = story.quorum(owner, [self._inner(owner)], others, until)
            self._keep(self._told(owner, decided, seen))
        elif choice == 6:
            gone = Leave() if self._flip(2) else story.revocation(who, random.randrange(2))
            self._keep(self._told(who, gone, seen))
        else:
            author = random.choice((who, *owners))
            said = self._inner(author) if self._flip(2) else self._said(author)
            self._keep(self._told(author, said, seen))

    def _told(self, who: Person, operation: Operation, seen: list[Told] | None) -> Told:
        number = int(self._flip(5))
        mine = [told for told in self.story.told if told.entry.device == who.devices[number]]
        if mine[1:] and self._flip(5):
            return self.story.retell(who, operation, self._random.choice(mine[1:]), seen)
        return self.story.tell(who, operation, seen, number)


def _forks(story: Story) -> Iterator[tuple[Told, Told]]:
    places: dict[tuple[bytes, int], list[Told]] = {}
    for told in story.told:
        places.setdefault((told.entry.device, told.entry.seq), []).append(told)
    for found in places.values():
        if len(found) > 1:
            yield found[0], found[-1]
