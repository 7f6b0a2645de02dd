"""A session that is opened by itself, frames for it, and an intake: for tests of their states."""

from collections.abc import Sequence

import msgspec

from protocol import frame as frames
from protocol.chat import Missing
from protocol.entry import CONTENT, ChatId, DeviceKey, EntryId
from protocol.frame import Hello, Run, Want
from protocol.intake import Intake
from protocol.session import Greeting, PeerKind, Session
from protocol.testing.cast import seed
from protocol.testing.chains import CHAT, Chain, Step, signer

OURS, THEIRS = seed("ours")[:16], seed("theirs")[:16]
HELLO = Hello((1,), THEIRS, OURS, 0, bytes(16))
DEVICE = DeviceKey(seed("device"))


def session(peer: PeerKind = PeerKind.NODE) -> Session:
    return Session(peer, Greeting(OURS, None, 0, bytes(16)), 0.0)


def opened(peer: PeerKind = PeerKind.NODE) -> Session:
    made = session(peer)
    made.receive(HELLO, 0.0)
    return made


CHAIN = Chain(signer("anna"), CHAT, CONTENT)
CHAIN.extend([Step(b"x")] * 20)


def wanted(number: int = 0, start: int = 0, stop: int = 1) -> frames.WantBlob:
    return frames.WantBlob(CHAT, EntryId(bytes([number]) * 32), start, stop)


def brought(number: int = 0, index: int = 0) -> frames.Blob:
    return frames.Blob(CHAT, EntryId(bytes([number]) * 32), index, b"", ())


def place(number: int, lane: int = CONTENT, chat: ChatId = CHAT) -> tuple[ChatId, DeviceKey, int]:
    return chat, DeviceKey(seed("device", str(number))), lane


def want(number: int, stop: int = 5, lane: int = CONTENT, start: int = 0) -> Want:
    return Want(*place(number, lane), bytes(8), start, stop)


def run_at(number: int, start: int = 0, count: int = 5, lane: int = CONTENT) -> Run:
    """Return a run that an intake can count, though nobody could verify it."""
    return Run(*place(number, lane), start, None, None, (msgspec.Raw(b"\x00"),) * count, ())


def entry_at(number: int, seq: int) -> EntryId:
    """Return the id of an entry of the first branch."""
    return EntryId(seed("entry", str(number), str(seq)))


def missing(number: int, seq: int = 0, have: int = 0) -> tuple[Missing, ...]:
    chat, device, lane = place(number)
    del chat
    return (Missing(device, lane, seq, entry_at(number, seq), have),)


def ids(number: int, start: int, stop: int) -> Sequence[EntryId]:
    """Return the ids of entries of the first branch."""
    return [entry_at(number, seq) for seq in range(start, stop)]


def intake(*wants: Want, cursor: int = 1) -> Intake:
    made = Intake()
    made.open_page(cursor)
    made.lacking(wants)
    return made
