"""What a dealing asks of whoever does the waiting for it (SPEC 6.5).

A driver takes these in order:

    Send, Wake, Consult, Deliver, Preview, Survey, LoadChunk, TakeChunk, Close
                     as in `protocol.effect`
    Look(work)       run `work` between two transactions, then take the steps that it leaves
    Keep(work)       run `work` in a transaction; once that is durable, tell others what it leaves
                     for them, and take the steps that it leaves
    Try(work)        the same, and go on without it if the disk fails
    Store(work)      the same, while the next frame is read; what is left is taken in order
    Acknowledge, Note    holdings to send, or to keep: may be put together
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol.effect import (
    Close,
    Consult,
    Deliver,
    LoadChunk,
    Preview,
    Send,
    Survey,
    TakeChunk,
    Wake,
)
from protocol.frame import Holding

Steps = Sequence["Step"]
After = Callable[[], Steps]
Reading = Callable[[], After]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a write leaves once it is durable.

    tell: called then, whatever has become of the session: others wait for it. then: the session's
    own steps, if it goes on.
    """

    tell: Callable[[], object] = bool
    then: After = list


Writing = Callable[[], Kept]


@dataclass(frozen=True, slots=True)
class Look:
    """Run `work`, which only reads, between two transactions."""

    work: Reading


@dataclass(frozen=True, slots=True)
class Keep:
    """Run `work` in a transaction, and go on when that is durable."""

    work: Writing


@dataclass(frozen=True, slots=True)
class Try:
    """The same; if the disk fails there is nothing left to do, and the session goes on."""

    work: Writing


@dataclass(frozen=True, slots=True)
class Store:
    """Run `work` in a transaction, and read on meanwhile; a few at a time, so a peer can't pile up.

    What they leave is done in the order in which they were begun.
    """

    work: Writing


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the peer that this is durable; later news of a chain may replace earlier."""

    holdings: Sequence[Holding]


@dataclass(frozen=True, slots=True)
class Note:
    """Keep what the peer stores, with `Dealing.note`; later news of a chain may replace earlier."""

    holdings: Sequence[Holding]


Step = (
    Send
    | Wake
    | Consult
    | Deliver
    | Preview
    | Survey
    | LoadChunk
    | TakeChunk
    | Close
    | Look
    | Keep
    | Try
    | Store
    | Acknowledge
    | Note
)
