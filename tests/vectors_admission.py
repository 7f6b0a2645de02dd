"""Vectors of admission: what a chat takes, what waits, and what it never takes (SPEC 3.4, 4.2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from msgspec import structs

from protocol.entry import CONTENT, CONTROL, ChatId, ControlHeader, EntryId, Reference
from protocol.errors import Inadmissible, NotCanonical, PeerError, Untrusted
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Operation,
    Redact,
    Remove,
    SetPolicy,
    SetRole,
)
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from protocol.testing.cast import Person, credential, grant, prekey_record, seed
from protocol.testing.chains import Chain, Made, Step
from protocol.testing.story import Story, Told
from tests.vectors import Case, Value, epoch_place, invalid, recorded_anchor, three, valid
from tests.vectors_chat import ANNA, BORIS, CLARA, SEEN, STRANGER

ALL: Final = (ANNA, BORIS, CLARA)
Heads = tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """A chat told up to the entry in question. entries: as they stand in a case."""

    story: Story
    entries: list[Value]

    def tell(
        self, who: Person, operation: Operation, seen: Iterable[Told] | None = None, number: int = 0
    ) -> Told:
        """Add a control entry."""
        told = self.story.tell(who, operation, seen, number)
        self.entries.append(_entry(told.id, told.raw, told.payload, told.signature))
        return told

    def begin(self, who: Person = ANNA, among: Sequence[Person] = ALL) -> Told:
        """Start an epoch for the first devices of these people."""
        return self.tell(who, self.story.epoch(who, [one.devices[0] for one in among]))

    def chain(self, who: Person = ANNA, number: int = 0) -> Chain:
        """Return somebody's content, empty yet."""
        return Chain(who.signers[number], self.story.chat, CONTENT)

    def say(
        self,
        chain: Chain,
        epoch: Told | None = None,
        control: Heads | None = None,
        generation: int | None = None,
        links: Heads = (),
    ) -> Made:
        """Add content; what is not given is as it should be."""
        made = chain.add(
            Step(
                b"sealed",
                links=links,
                control=self.story.heads() if control is None else control,
                epoch=None if epoch is None else epoch.id,
                generation=generation,
            )
        )
        self.keep(made)
        return made

    def keep(self, made: Made) -> None:
        """Add an entry of any chain."""
        self.entries.append(_entry(made.id, made.raw, made.payload, made.signature))

    def drop(self, ground: Reference) -> None:
        """Let the entry told last come without its payload."""
        last = self.entries.pop()
        assert isinstance(last, dict)
        self.entries.append(last | {"payload": None, "ground": list(ground)})

    def inputs(self) -> dict[str, Value]:
        """Return what stands in a case."""
        return {"chat": self.story.chat, "entries": self.entries}


def _entry(entry: EntryId, header: bytes, payload: bytes, signature: bytes) -> dict[str, Value]:
    return {"id": entry, "header": header, "payload": payload, "signature": signature}


def scene(story: Story | None = None) -> Scene:
    """Return a chat with its genesis: by default of anna the owner, boris and clara."""
    story = story or three()
    first = story.genesis
    return Scene(story, [_entry(first.id, first.raw, first.payload, first.signature)])


def admission() -> list[Case]:
    """Every case ends with the entry in question; all before it is admitted."""
    return [*_taken(), *_waiting(), *_bad_control(), *_bad_content(), *_bad_epochs(), *_dropped()]


def _admitted(name: str, made: Scene) -> Case:
    return valid(name, {"admitted": 1}, **made.inputs())


def _taken() -> list[Case]:
    first = scene()
    first.say(first.chain(), first.begin())
    following = scene()
    epoch, chain = following.begin(), following.chain()
    following.say(chain, epoch)
    following.say(chain, epoch)
    deeper = scene()
    chain = deeper.chain()
    deeper.say(chain, deeper.begin())
    deeper.say(chain, deeper.begin(BORIS))
    skipping = scene()
    some = [one.devices[0] for one in (ANNA, BORIS)]
    skipping.tell(ANNA, skipping.story.epoch(ANNA, some, [CLARA.devices[0]]))
    unseen = scene()
    epoch, heads = unseen.begin(), unseen.story.heads()
    unseen.tell(ANNA, Remove(BORIS.user, ()))
    unseen.say(unseen.chain(BORIS), epoch, heads)
    idle = scene()
    idle.tell(BORIS, Remove(CLARA.user, ()))
    entering = scene()
    entering.tell(BORIS, Enroll(credential(BORIS, (1,))), number=1)
    anchored = scene()
    anchored.tell(ANNA, Checkpoint(SEEN, recorded_anchor(ANNA, epoch_place(), SEEN)))
    return [
        _admitted("a message", first),
        _admitted("the next of the epoch", following),
        _admitted("the first of a deeper epoch", deeper),
        _admitted("an epoch that skips a device", skipping),
        _admitted("a message by somebody who has not seen that they are out", unseen),
        _admitted("a removal that is void", idle),
        _admitted("a device that brings itself in", entering),
        _admitted("a checkpoint with ML-DSA", anchored),
    ]


def _waiting() -> list[Case]:
    """What is missing is told: device, lane, seq, id."""
    elsewhere = Reference(CLARA.devices[0], 0, EntryId(seed("unknown")))
    cases: list[Case] = []

    def waits(name: str, made: Scene, missing: Reference, lane: int) -> None:
        found: Value = [[missing.device, lane, missing.seq, missing.id]]
        cases.append(valid(name, {"missing": found}, **made.inputs()))

    made = scene()
    made.say(made.chain(), made.begin(), (elsewhere,))
    waits("an unknown control head", made, elsewhere, CONTROL)
    made = scene()
    made.say(made.chain(), made.begin(), links=(elsewhere,))
    waits("an unknown link", made, elsewhere, CONTENT)
    made = scene()
    epoch, chain = made.begin(), made.chain()
    gone = made.say(chain, epoch)
    made.entries.pop()
    made.say(chain, epoch)
    waits("the entry before is not here", made, gone.reference, CONTENT)
    made = scene()
    away = made.tell(BORIS, Remove(CLARA.user, ()))
    made.entries.pop()
    made.tell(ANNA, SetRole(CLARA.user, Role.ADMIN, ()))
    waits("an unknown link of a control entry", made, away.reference, CONTROL)
    made = scene()
    made.say(made.chain(), made.begin())
    made.drop(elsewhere)
    waits("an unknown ground", made, elsewhere, CONTROL)
    return cases


def _bad_control() -> list[Case]:
    cases: list[Case] = []

    def refused(name: str, made: Scene, error: type[PeerError] = Inadmissible) -> None:
        cases.append(invalid(name, error, **made.inputs()))

    refused(
        "a genesis by a device of no owner",
        scene(Story([(BORIS, Role.MEMBER), (ANNA, Role.OWNER), (CLARA, Role.MEMBER)])),
    )
    refused("a genesis that has seen something", _late_genesis())
    made = scene()
    told = made.story.tell(BORIS, Remove(CLARA.user, ()))
    wrong = told.header.links[0]._replace(seq=5)
    made.keep(_resigned(BORIS, structs.replace(told.header, links=(wrong,)), told.payload))
    refused("a link that gives the wrong place", made)
    made = scene()
    told = made.story.tell(BORIS, Remove(CLARA.user, ()))
    made.keep(_resigned(BORIS, structs.replace(told.header, kind=14), told.payload))
    refused("a kind that does not exist", made, NotCanonical)
    anchor = recorded_anchor(ANNA, epoch_place(), SEEN)
    made = scene()
    made.tell(BORIS, Remove(CLARA.user, ()))
    made.tell(ANNA, Checkpoint(SEEN, anchor))
    refused("a checkpoint whose signature is for another place", made, Untrusted)
    made = scene()
    made.tell(ANNA, Checkpoint((), anchor))
    refused("a checkpoint whose signature is for other heads", made, Untrusted)
    made = scene()
    made.tell(BORIS, Checkpoint(SEEN, anchor))
    refused("a checkpoint with another device's archive certificate", made, Untrusted)
    return cases


def _late_genesis() -> Scene:
    """Return a chat whose genesis has a link: what that names cannot come before it."""
    story = three()
    first = story.genesis
    link = Reference(BORIS.devices[0], 0, EntryId(seed("unknown")))
    header = structs.replace(first.header, links=(link,))
    made = Chain(ANNA.signers[0], story.chat, CONTROL).append(header, first.payload)
    story.chat = ChatId(made.id)
    return Scene(story, [_entry(made.id, made.raw, made.payload, made.signature)])


def _resigned(who: Person, header: ControlHeader, payload: bytes) -> Made:
    assert header.chat is not None
    return Chain(who.signers[0], header.chat, CONTROL).append(header, payload)


def _bad_content() -> list[Case]:
    cases: list[Case] = []

    def refused(name: str, made: Scene) -> None:
        cases.append(invalid(name, Inadmissible, **made.inputs()))

    made = scene()
    made.say(made.chain(STRANGER), made.begin())
    refused("content by a stranger", made)
    made = scene()
    made.say(made.chain(BORIS, 1), made.begin())
    refused("content by a device that was not brought in", made)
    made = scene()
    made.tell(ANNA, SetRole(BORIS.user, Role.READER, ()))
    made.say(made.chain(BORIS), made.begin())
    refused("content by a reader", made)
    made = scene()
    made.tell(ANNA, Remove(BORIS.user, ()))
    made.say(made.chain(BORIS), made.begin(ANNA, (ANNA, CLARA)))
    refused("content by somebody who has seen that they are out", made)
    made = scene()
    epoch = made.begin()
    (head,) = made.story.heads()
    made.say(made.chain(), epoch, (head._replace(seq=9),))
    refused("a control head at the wrong place", made)
    made = scene()
    epoch, chain, earlier = made.begin(), made.chain(), made.story.heads()
    made.tell(ANNA, SetRole(BORIS.user, Role.ADMIN, ()))
    made.say(chain, epoch)
    made.say(chain, epoch, earlier)
    refused("control heads older than those of the entry before", made)
    for name, generations in (
        ("an epoch that begins with generation 1", [1]),
        ("a generation twice", [0, 0]),
        ("a generation left out", [0, 2]),
    ):
        made = scene()
        epoch, chain = made.begin(), made.chain()
        for generation in generations:
            made.say(chain, epoch, generation=generation)
        refused(name, made)
    return cases


def _bad_epochs() -> list[Case]:
    cases: list[Case] = []

    def refused(name: str, made: Scene, error: type[PeerError] = Inadmissible) -> None:
        cases.append(invalid(name, error, **made.inputs()))

    made = scene()
    everyone = [one.devices[0] for one in ALL]
    made.tell(ANNA, made.story.epoch(ANNA, everyone, [STRANGER.devices[0]]))
    refused("an epoch that skips a device of no member", made)
    made = scene()
    borrowed = replace(made.story.epoch(ANNA, everyone), prekey=prekey_record(BORIS.signers[0]))
    made.tell(ANNA, borrowed)
    refused("an epoch with another device's prekey", made, Untrusted)
    made = scene()
    made.tell(ANNA, replace(made.story.epoch(ANNA, everyone), shareable=True))
    refused("an epoch that is shareable where the policy is not", made)
    made = scene()
    made.say(made.chain(BORIS), made.begin(), (made.story.genesis.reference,))
    refused("an epoch that is not in the past of the control heads", made)
    made = scene()
    made.say(made.chain(), made.story.genesis)
    refused("an epoch that is no epoch", made)
    made = scene()
    epoch = made.begin()
    made.tell(ANNA, Admit((grant(STRANGER, Role.MEMBER),)))
    made.say(made.chain(), epoch)
    refused("an epoch of before somebody came in", made)
    made = scene()
    epoch = made.begin()
    made.tell(ANNA, SetPolicy(Policy(("RU",), 0, HistoryRule.SHARED)))
    made.say(made.chain(), epoch)
    refused("an epoch of before the policy turned", made)
    made = scene()
    chain, old = made.chain(), made.begin()
    made.say(chain, made.begin(BORIS))
    made.say(chain, old)
    refused("back to an epoch less deep", made)
    made = scene()
    chain, start = made.chain(), [made.story.genesis]
    beside = [made.tell(one, made.story.epoch(one, everyone), start) for one in (BORIS, CLARA)]
    better, worse = sorted(beside, key=lambda one: one.id)
    made.say(chain, better)
    made.say(chain, worse)
    refused("on to an epoch as deep, with the greater id", made)
    channel = [(ANNA, Role.OWNER), (BORIS, Role.MEMBER), (CLARA, Role.READER)]
    made = scene(Story(channel, ChatKind.CHANNEL))
    epoch = made.begin(ANNA, (ANNA, BORIS))
    made.tell(ANNA, Remove(CLARA.user, ()))
    made.say(made.chain(), epoch)
    refused("an epoch of before a reader of the channel was put out", made)
    return cases


def _dropped() -> list[Case]:
    """Content without its payload, by different grounds (SPEC 2.6)."""
    cases: list[Case] = []
    for name, by, lane, this in (
        ("a payload dropped by its author's redaction", BORIS, 1, True),
        ("a payload dropped by a redaction of another entry", BORIS, 1, False),
        ("a payload dropped by a redaction that is void", CLARA, 1, True),
        ("a payload dropped by a redaction of lane 0", BORIS, 0, True),
    ):
        made = scene()
        said = made.say(made.chain(BORIS), made.begin())
        gone = made.entries.pop()
        place = said.reference if this else said.reference._replace(seq=7)
        ground = made.tell(by, Redact(place.device, lane, place.seq, place.id, ""))
        made.entries.append(gone)
        made.drop(ground.reference)
        good = by is BORIS and lane and this
        cases.append(
            _admitted(name, made) if good else invalid(name, Inadmissible, **made.inputs())
        )
    for name, seconds in (("by a retention", 86_400), ("by a setting that keeps for ever", 0)):
        made = scene()
        ground = made.tell(ANNA, SetPolicy(Policy(("RU",), seconds, HistoryRule.FROM_JOIN)))
        made.say(made.chain(BORIS), made.begin())
        made.drop(ground.reference)
        whole = f"a payload dropped {name}"
        cases.append(
            _admitted(whole, made) if seconds else invalid(whole, Inadmissible, **made.inputs())
        )
    return cases
