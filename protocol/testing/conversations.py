"""Whole chats that a node admits: members, epochs, content that answers content (tests only).

talk = conversation(Dice(7), messages=40)
for run in talk.runs:                              # in causal order, one entry each
    replica.take(run)
replica.take(talk.fork(talk.people[0], 1, 3).run())   # another branch of anna's content
"""

from dataclasses import dataclass, field

from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId, Reference
from protocol.frame import Run
from protocol.membership import resolve
from protocol.policy import Role
from protocol.testing.cast import Person, person
from protocol.testing.chains import Chain, Made, Step
from protocol.testing.histories import Dice
from protocol.testing.story import Story, Told

NAMES = ("anna@mz", "boris@mvd", "clara@mz", "dina@fns")


@dataclass(slots=True)
class Conversation:
    """A chat as its authors wrote it. runs: one entry each, in causal order."""

    story: Story
    people: list[Person]
    runs: list[Run] = field(default_factory=list)
    chains: dict[tuple[DeviceKey, int], Chain] = field(default_factory=dict)
    epochs: list[EntryId] = field(default_factory=list)
    linked: dict[DeviceKey, frozenset[EntryId]] = field(default_factory=dict)

    @property
    def chat(self) -> ChatId:
        """The chat's id."""
        return self.story.chat

    def chain(self, who: Person, lane: int) -> Chain:
        """Return the chain of a person's first device."""
        device = who.devices[0]
        made = Chain(who.signers[0], self.chat, lane)
        return self.chains.setdefault((device, lane), made)

    def tell(self, who: Person, told: Told) -> None:
        """Take a control entry over from the story."""
        chain = self.chain(who, CONTROL)
        chain.entries.append(Made(told.header, told.raw, told.id, told.payload, told.signature))
        self.runs.append(chain.run(len(chain.entries) - 1))

    def start_epoch(self, who: Person) -> None:
        """Start an epoch for everybody, by all that was told."""
        devices = resolve(self.story.history()).sealed
        told = self.story.tell(who, self.story.epoch(who, devices))
        self.tell(who, told)
        self.epochs.append(told.id)

    def say(self, who: Person, payload: bytes) -> None:
        """Write a message that links what the author has not linked of others yet."""
        chain = self.chain(who, CONTENT)
        heads = [
            Reference(other.device, len(other.entries) - 1, other.entries[-1].id)
            for (device, lane), other in self.chains.items()
            if lane == CONTENT and device != chain.device and other.entries
        ]
        known = self.linked.get(chain.device, frozenset())
        links = tuple(sorted(head for head in heads if head.id not in known))
        self.linked[chain.device] = known | {link.id for link in links}
        control = self.story.heads()
        step = Step(payload, links=links, control=control, epoch=self.epochs[-1])
        self.append(chain, step)
        self.runs.append(chain.run(len(chain.entries) - 1))

    def append(self, chain: Chain, step: Step) -> None:
        """Add an entry whose commitment is to nothing."""
        chain.add(step)

    def fork(self, who: Person, at: int, count: int) -> Chain:
        """Return another branch of a person's content, from `at` on."""
        branch = self.chain(who, CONTENT).fork(at)
        control, epoch = self.story.heads(), self.epochs[-1]
        branch.extend(
            Step(b"fork %d" % number, control=control, epoch=epoch) for number in range(count)
        )
        return branch


def conversation(dice: Dice, messages: int, epochs: int = 20) -> Conversation:
    """Return a chat of four with so many messages. One in `epochs` starts a new epoch first."""
    people = [person(name) for name in NAMES]
    roles = (Role.OWNER, Role.ADMIN, Role.MEMBER, Role.MEMBER)
    talk = Conversation(Story(list(zip(people, roles, strict=True))), people)
    talk.tell(people[0], talk.story.genesis)
    talk.start_epoch(people[0])
    for number in range(messages):
        if dice.flip(epochs):
            talk.start_epoch(dice.pick(people))
        talk.say(dice.pick(people), b"message %d" % number)
    return talk
