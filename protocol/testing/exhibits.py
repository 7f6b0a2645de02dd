"""Conversations whose messages can be disclosed, and evidence files of them (tests only).

talk = Record.of([(ANNA, Role.OWNER), (BORIS, Role.MEMBER)])
talk.write(ANNA, "one")
talk.checkpoint(BORIS)
raw = talk.file(wanted=[ANNA])          # evidence of all that anna wrote
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import msgspec

from crypto.content import franking_commitment
from protocol.attachment import Attachment
from protocol.checkpoint import Anchor, make_anchor
from protocol.entry import (
    ATTACHED,
    CONTENT,
    CONTROL,
    ContentHeader,
    EntryId,
    Place,
    Reference,
    header_before_commitment,
)
from protocol.exhibit import (
    ContentPart,
    ControlPart,
    Disclosed,
    plan,
    write_evidence,
)
from protocol.message import Text, encode_message
from protocol.operation import Checkpoint
from protocol.policy import Role
from protocol.testing.cast import Person, archive_certificate, archive_signer, seed
from protocol.testing.chains import Chain, Made, Step
from protocol.testing.conversations import Conversation
from protocol.testing.story import Story

ATTACHMENT_BEGINS = b"\x97\x0b"  # an array of seven, the first of which is Attachment's number
Anchored = Callable[[Person, Place, Sequence[Reference]], Anchor]


def anchored(who: Person, place: Place, heads: Sequence[Reference]) -> Anchor:
    """Return an anchor by a person's first device."""
    return make_anchor(archive_signer(who), archive_certificate(who), place, heads)


@dataclass(slots=True)
class Record(Conversation):
    """A conversation that keeps what opens each commitment. anchored: makes the anchors."""

    disclosed: dict[EntryId, Disclosed] = field(default_factory=dict)
    anchored: Anchored = anchored

    @classmethod
    def of(cls, cast: Sequence[tuple[Person, Role]], sign: Anchored = anchored) -> "Record":
        """Begin a chat, with an epoch for all."""
        talk = cls(Story(cast), [who for who, _ in cast], anchored=sign)
        talk.tell(talk.people[0], talk.story.genesis)
        talk.start_epoch(talk.people[0])
        return talk

    def append(self, chain: Chain, step: Step) -> None:
        """Add an entry that commits to the step's payload as its plaintext."""
        header = chain.header(step)
        assert isinstance(header, ContentHeader)
        if step.payload.startswith(ATTACHMENT_BEGINS):
            header = msgspec.structs.replace(header, kind=ATTACHED)
        frank = seed("frank", chain.device.hex(), str(header.seq))
        pc = franking_commitment(frank, header_before_commitment(header), step.payload)
        made = chain.append(msgspec.structs.replace(header, pc=pc), step.payload)
        self.disclosed[made.id] = Disclosed(frank, step.payload)

    def write(self, who: Person, said: str | Attachment) -> Made:
        """Write a text, or a message with a large file."""
        message = Text(said, None) if isinstance(said, str) else said
        self.say(who, encode_message(message))
        return self.chain(who, CONTENT).entries[-1]

    def heads(self) -> tuple[Reference, ...]:
        """Return the newest entry of each content chain."""
        tips = [
            chain.entries[-1].reference
            for (_, lane), chain in self.chains.items()
            if lane == CONTENT and chain.entries
        ]
        return tuple(sorted(tips))

    def checkpoint(self, who: Person) -> EntryId:
        """Add an anchored checkpoint of all that was written."""
        chain, heads = self.chain(who, CONTROL), self.heads()
        links = tuple(one for one in self.story.heads() if one.device != chain.device)
        prev = chain.entries[-1].id if chain.entries else None
        place = Place(self.chat, chain.device, len(chain.entries), prev, links)
        told = self.story.tell(who, Checkpoint(heads, self.anchored(who, place, heads)))
        self.tell(who, told)
        return told.id

    def control(self) -> list[ControlPart]:
        """Return the control lane for a file, each entry signed."""
        return [ControlPart(one.raw, one.signature, one.payload) for one in self.story.told]

    def parts(self, wanted: Collection[EntryId]) -> list[list[ContentPart]]:
        """Return the content for a file that discloses these entries."""
        named = {
            head
            for told in self.story.told
            if isinstance(told.entry.operation, Checkpoint)
            for head in told.entry.operation.heads
        }
        found = []
        for (_, lane), chain in sorted(self.chains.items()):
            if lane == CONTENT:
                heads = sorted(one.seq for one in named if one.device == chain.device)
                seqs = [one.header.seq for one in chain.entries if one.id in wanted]
                for first, last in plan(seqs, range(len(chain.entries)), [heads]):
                    found.append(self._run(chain.entries[first : last + 1], wanted))
        return found

    def _run(self, part: Sequence[Made], wanted: Collection[EntryId]) -> list[ContentPart]:
        return [
            ContentPart(
                made.raw,
                made.signature if at % 64 == 0 else None,
                self.disclosed[made.id] if made.id in wanted else None,
            )
            for at, made in zip(range(len(part) - 1, -1, -1), part, strict=True)
        ]

    def file(self, wanted: Collection[EntryId] | None = None) -> bytes:
        """Return evidence of these entries, of all for None."""
        chosen = self.disclosed.keys() if wanted is None else wanted
        return b"".join(write_evidence(self.control(), self.parts(chosen)))

    def written_by(self, who: Person) -> list[EntryId]:
        """Return the ids of what a person wrote."""
        return [made.id for made in self.chain(who, CONTENT).entries]
