"""Signed chains of any shape, made without judging them (tests only).

    chain = Chain(signer("anna"), CHAT, CONTENT)
    chain.add(b"one")
    other = chain.fork(1)              # shares the first entry
    frame = chain.run(0, 2)            # as a peer would send it, every entry signed
    frame = chain.run(0, 2, signed=[1])

What `Chain` makes is authentic and well-formed; whether a chat admits it is not its business. For
entries that a chat admits, see `network`.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

import msgspec
from hypothesis import strategies as st

from crypto.signing import Signer
from protocol.entry import (
    CONTENT,
    CONTROL,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Header,
    Reference,
    encode_header,
    entry_id,
)
from protocol.fork import Cover
from protocol.frame import Run
from protocol.limits import KEYFRAME_ENTRIES, LINKS_MAX, SEQ_MAX, TIME_MS_MAX
from protocol.run import START, Context, context_after, pack
from protocol.testing.cast import seed

CHAT = ChatId(seed("chat"))
FOUNDED = Reference(DeviceKey(seed("founder")), 0, EntryId(CHAT))  # what content has seen at least


def signer(name: str) -> Signer:
    """Return the key of a device of this name."""
    return Signer(seed("device", name))


class Made(NamedTuple):
    """One entry as its author made it."""

    header: Header
    raw: bytes
    id: EntryId
    payload: bytes
    signature: bytes

    @property
    def reference(self) -> Reference:
        """How others name it."""
        return Reference(self.header.device, self.header.seq, self.id)


class Step(NamedTuple):
    """What of the next entry is not implied by its place. None: as the entry before has it."""

    payload: bytes = b""
    elapsed: int = 1
    links: tuple[Reference, ...] = ()
    control: tuple[Reference, ...] | None = None
    epoch: EntryId | None = None
    generation: int | None = None
    kind: int = 1


class Chain:
    """The entries of one device in one lane of a chat, oldest first."""

    def __init__(self, key: Signer, chat: ChatId, lane: int) -> None:
        self.key = key
        self.chat = chat
        self.lane = lane
        self.entries: list[Made] = []

    @property
    def device(self) -> DeviceKey:
        """The author's key."""
        return DeviceKey(self.key.public)

    @property
    def before(self) -> Context:
        """What the newest entry leaves to the next."""
        return context_after(self.entries[-1].header) if self.entries else START

    def add(self, step: "Step | bytes" = b"") -> Made:
        """Append an entry; bytes are its payload."""
        return self.extend([Step(step) if isinstance(step, bytes) else step])[-1]

    def extend(self, steps: Iterable[Step]) -> list[Made]:
        """Append an entry for each step."""
        return [self.append(self.header(step), step.payload) for step in steps]

    def append(self, header: Header, payload: bytes) -> Made:
        """Sign and append whatever header."""
        raw = encode_header(header)
        entry = entry_id(raw)
        made = Made(header, raw, entry, payload, self.key.sign(SIGNATURE_LABEL, entry))
        self.entries.append(made)
        return made

    def header(self, step: Step) -> Header:
        """Return the next header, with a commitment to nothing."""
        before = self.before
        prev = self.entries[-1].id if self.entries else None
        time = min(max(before.time + step.elapsed, 0), TIME_MS_MAX)
        size, digest = len(step.payload), sha256(step.payload).digest()
        seq = len(self.entries)
        if self.lane == CONTROL:
            return ControlHeader(
                chat=self.chat,
                device=self.device,
                seq=seq,
                prev=prev,
                links=step.links,
                time=time,
                kind=step.kind,
                payload_hash=digest,
                payload_size=size,
            )
        epoch = step.epoch or EntryId(before.epoch or seed("epoch"))
        fresh = epoch != before.epoch
        generation = 0 if fresh else min(before.generation + 1, SEQ_MAX)
        return ContentHeader(
            chat=self.chat,
            device=self.device,
            seq=seq,
            prev=prev,
            links=step.links,
            control=(before.control or (FOUNDED,)) if step.control is None else step.control,
            time=time,
            epoch=epoch,
            generation=generation if step.generation is None else step.generation,
            pc=seed("pc", str(seq)),
            payload_size=size,
            payload_hash=digest,
        )

    def fork(self, at: int) -> "Chain":
        """Return a chain of the same device that shares the entries before `at`."""
        other = Chain(self.key, self.chat, self.lane)
        other.entries = self.entries[:at]
        return other

    def context(self, seq: int) -> Context:
        """Return what the entry before `seq` leaves to it."""
        return context_after(self.entries[seq - 1].header) if seq else START

    def record(self, seq: int) -> bytes:
        """Return the record of an entry, with its payload."""
        made = self.entries[seq]
        return pack(made.header, made.payload, self.context(seq))

    def run(
        self,
        start: int = 0,
        stop: int | None = None,
        signed: Iterable[int] | None = None,
    ) -> Run:
        """Return entries as a frame. signed: which seqs come with their signature, None for all."""
        part = self.entries[start:stop]
        chosen = range(start, start + len(part)) if signed is None else signed
        return Run(
            self.chat,
            self.device,
            self.lane,
            start,
            part[0].header.prev,
            None if start % KEYFRAME_ENTRIES == 0 else self.context(start),
            tuple(msgspec.Raw(self.record(made.header.seq)) for made in part),
            tuple((seq - start, self.entries[seq].signature) for seq in chosen),
        )

    def cover(self, seq: int, stop: int | None = None) -> Cover:
        """Return the cover of an entry by the one before `stop`, None: by its own signature."""
        part = self.entries[seq : seq + 1 if stop is None else stop]
        return Cover(tuple(made.raw for made in part), part[-1].signature)


HASHES = st.binary(min_size=32, max_size=32)
REFERENCES = st.builds(
    Reference, HASHES.map(DeviceKey), st.integers(0, SEQ_MAX), HASHES.map(EntryId)
)
HEADS = st.lists(REFERENCES, max_size=LINKS_MAX, unique=True).map(
    lambda found: tuple(sorted(found))
)
CONTROL_HEADS = HEADS.filter(bool)
EPOCHS = st.sampled_from([EntryId(seed("epoch", str(number))) for number in range(3)])
STEPS = st.builds(
    Step,
    payload=st.binary(max_size=40),
    elapsed=st.integers(-5, 2**40),
    links=st.just(()) | HEADS,
    control=st.none() | st.none() | CONTROL_HEADS,
    epoch=st.none() | st.none() | EPOCHS,
    generation=st.none() | st.none() | st.integers(0, SEQ_MAX),
    kind=st.integers(1, 255),
)
LANES = st.sampled_from([CONTROL, CONTENT])


@st.composite
def chains(draw: st.DrawFn, lanes: st.SearchStrategy[int] = LANES, entries_max: int = 8) -> Chain:
    """Draw a chain that begins at 0, or soon before a keyframe with plain entries before it.

    At least one entry. Every field takes unusual values: generations jump, epochs go back.
    """
    chain = Chain(signer(draw(st.sampled_from(["anna", "boris"]))), CHAT, draw(lanes))
    plain = draw(st.sampled_from([0, 0, KEYFRAME_ENTRIES - 2, 2 * KEYFRAME_ENTRIES - 1]))
    chain.extend([Step()] * plain)
    chain.extend(draw(st.lists(STEPS, min_size=1, max_size=entries_max)))
    return chain
