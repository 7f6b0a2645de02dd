"""What a session asks of the world: values that a driver carries out (SPEC 6.5).

A session returns effects and never performs one. Some effects have an answer, which the driver
brings back as a call of the session; the docstring says which. `Admit` is answered only after what
was admitted is durable, so an acknowledgement can not be sent too early: the session does not
know what to acknowledge until then.
"""

from dataclasses import dataclass

from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.frame import (
    Answer,
    Ask,
    Blob,
    ChatHeads,
    Forked,
    Frame,
    Holding,
    Lacking,
    Rumour,
    Run,
    Seal,
    Want,
    WantBlob,
)


@dataclass(frozen=True, slots=True)
class Send:
    """Queue this frame for the peer."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Admit:
    """Verify, judge and store runs of one chat that may need each other's entries.

    When that is durable, answer with `Session.admitted`. live: whether nobody asked for it.
    """

    runs: tuple[Run, ...]
    live: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """Verify these runs, the end of one chat, and show them; nothing of them is kept."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Find what we lack of these heads; answer with `Session.compared`."""

    chats: tuple[ChatHeads, ...]


@dataclass(frozen=True, slots=True)
class LoadHeads:
    """Read the heads that this peer may see and that changed after `cursor`; `Session.heads`."""

    cursor: int


@dataclass(frozen=True, slots=True)
class LoadChanges:
    """Read the heads of these changes, as far as they are still heads; `Session.changes`."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """Make a table of all heads that this peer may see, by this key; `Session.surveyed`.

    It may take its time, but the change counter of the table is read before the first head.
    """

    key: bytes


@dataclass(frozen=True, slots=True)
class LoadRun:
    """Read entries for this want, from its start on; answer with `Session.loaded`."""

    want: Want


@dataclass(frozen=True, slots=True)
class LoadSeals:
    """Read these recipients' seals, if the peer may have them; send what there is."""

    chat: ChatId
    epoch: EntryId
    devices: tuple[DeviceKey, ...]


@dataclass(frozen=True, slots=True)
class LoadChunk:
    """Read the first chunk that this asks for; answer with `Session.chunk_loaded`."""

    want: WantBlob


@dataclass(frozen=True, slots=True)
class TakeChunk:
    """The peer brings a chunk, or says that it lacks some."""

    frame: Blob | Lacking


@dataclass(frozen=True, slots=True)
class StoreSeals:
    """Check these seals against the epoch entry and keep those that fit."""

    chat: ChatId
    epoch: EntryId
    seals: tuple[Seal, ...]


@dataclass(frozen=True, slots=True)
class StoreFork:
    """Check this proof, keep it, and spread it if it is new."""

    forked: Forked


@dataclass(frozen=True, slots=True)
class NoteHoldings:
    """The peer says who stores what."""

    holdings: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class NoteShared:
    """Keep, as of a page of its heads, that the peer stores what these changes are of."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SaveCursor:
    """All that the peer listed up to `cursor` of this incarnation is stored here."""

    incarnation: bytes
    cursor: int


@dataclass(frozen=True, slots=True)
class Gossip:
    """The peer announces what it has, or says whether to push to it, in a large chat."""

    frame: Rumour


@dataclass(frozen=True, slots=True)
class Consult:
    """Put the question to our directory; send its answer."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Deliver:
    """The answer to a question of ours."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `Session.expired` at this time, in seconds on the clock of `now`."""

    at: float


@dataclass(frozen=True, slots=True)
class Close:
    """Send what is queued, then end the connection. `error` is None for a friendly end."""

    error: PeerError | None


Effect = (
    Send
    | Admit
    | Preview
    | Compare
    | LoadHeads
    | LoadChanges
    | Survey
    | LoadRun
    | LoadSeals
    | LoadChunk
    | TakeChunk
    | StoreSeals
    | StoreFork
    | NoteHoldings
    | NoteShared
    | SaveCursor
    | Gossip
    | Consult
    | Deliver
    | Wake
    | Close
)
