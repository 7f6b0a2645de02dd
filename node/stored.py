"""What became of a run that was judged and stored: what `Replica` returns, and others hand on."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from msgspec import Raw, structs

from node.seals import Sealless
from protocol.errors import PeerError
from protocol.frame import Forked, Run
from protocol.intake import Outcome
from protocol.run import Entry


@dataclass(frozen=True, slots=True)
class Stored:
    """What a transaction changes.

    entries: those that are new here, as stored. entered, left: the readers that it lets in, and
    puts out. live: whether it was pushed.
    """

    outcome: Outcome
    run: Run
    entries: Sequence[Entry] = ()
    fork: Forked | None = None
    readers: AbstractSet[bytes] = frozenset()
    sealless: tuple[Sealless, ...] = ()
    refusal: PeerError | None = None
    signatures: tuple[tuple[int, bytes], ...] = ()
    bare: Mapping[int, bytes] = field(default_factory=dict)
    live: bool = False
    entered: AbstractSet[bytes] = frozenset()
    left: AbstractSet[bytes] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether all of the run is here."""
        return self.outcome.reached >= self.run.start + len(self.run.records)

    @property
    def repeated(self) -> bool:
        """Whether all of the run was here before."""
        return self.whole and not self.appended

    @property
    def appended(self) -> int:
        """How many entries are new here."""
        return len(self.entries)

    @property
    def verified(self) -> Run:
        """The run as it may be handed on.

        It is without those of its signatures that nobody has found valid, and without the payloads
        that were redacted before they came.
        """
        if not self.bare:
            return structs.replace(self.run, signatures=self.signatures)
        records = tuple(
            Raw(self.bare[seq]) if seq in self.bare else record
            for seq, record in enumerate(self.run.records, self.run.start)
        )
        return structs.replace(self.run, signatures=self.signatures, records=records)

    def then(self, rest: "Stored") -> "Stored":
        """Return both as one: the rest of the same run was judged in the same transaction."""
        return Stored(
            rest.outcome,
            self.run,
            [*self.entries, *rest.entries],
            self.fork or rest.fork,
            rest.readers or self.readers,
            self.sealless + rest.sealless,
            rest.refusal,
            self.signatures,
            {**self.bare, **rest.bare},
            entered=self.entered | rest.entered,
            left=self.left | rest.left,
        )


def signatures(run: Run, entries: Sequence[Entry]) -> tuple[tuple[int, bytes], ...]:
    """Return the signatures of a run that were verified, by index."""
    return tuple(
        (entry.header.seq - run.start, entry.signature)
        for entry in entries
        if entry.signature is not None
    )
