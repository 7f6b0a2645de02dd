"""A device without a database: a session of the protocol over TLS, of which there can be thousands.

It comes back by itself when the node is lost, checks what it is pushed, and writes entries that the
node admits: signed and chained, with random bytes in the place of ciphertext. What the node lists
it says to have.
"""

import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

import msgspec
import trio

from bench.ministry import HeldChat, HeldDevice, control_head
from client.link import dial
from crypto.signing import Signer
from node.errors import IvorError
from node.tls import Credential
from node.wire import FrameReader
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Effect,
    LoadHeads,
    NoteHoldings,
    SaveCursor,
    Send,
    Survey,
    Wake,
)
from protocol.entry import (
    CONTENT,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    encode_header,
    entry_id,
)
from protocol.errors import PeerError
from protocol.frame import Heads, Holding, Run, encode_frame
from protocol.identity import Card
from protocol.intake import NEVER, Outcome
from protocol.limits import FRAME_BYTES_MAX, KEYFRAME_ENTRIES
from protocol.reconcile import Table
from protocol.run import START, Context, context_after, pack, unpack
from protocol.session import WITH_LEAF, Greeting, PeerKind, Session

BACK_OFF_SECONDS_MIN = 1.0  # as `client.following` comes back
BACK_OFF_SECONDS_MAX = 30.0
PAYLOAD_BYTES = 304  # a text of 240 bytes, encrypted and padded
STAMP_BYTES = 8
SALT_BYTES = 16
INCARNATION = bytes(16)
LOST = (IvorError, PeerError, trio.BrokenResourceError, trio.ClosedResourceError)


class Chain(NamedTuple):
    """Where a device's content in a chat stands."""

    seq: int
    prev: EntryId | None
    context: Context


class Leaf:
    """One device: comes back by itself, checks what it is pushed, writes when told to."""

    def __init__(self, held: HeldDevice, card: Card, chats: Sequence[HeldChat]) -> None:
        self._signer = Signer(held.seed)
        self._credential = Credential(held.certificate, held.tls_key)
        self._card = card
        self._chats = chats
        self._chains: dict[bytes, Chain] = {}
        self._seen: tuple[bytes | None, int] = None, 0
        self._sending = trio.Lock()
        self._wake_at = NEVER
        self._session: Session | None = None
        self._stream: trio.abc.Stream | None = None
        self._sent: dict[tuple[bytes, int], float] = {}
        self.greeted = False
        self.failures = 0
        self.delivered: list[float] = []
        self.stored: list[float] = []

    @property
    def writes(self) -> bool:
        """Whether it is connected, and has a chat to write to."""
        return self.greeted and bool(self._chats)

    @property
    def waits(self) -> bool:
        """Whether something that it has written is not stored yet."""
        return bool(self._sent)

    @property
    def key(self) -> DeviceKey:
        """The device's key."""
        return DeviceKey(self._signer.public)

    async def stay(self) -> None:
        """Stay connected, as `ivor read --follow` does."""
        pause = BACK_OFF_SECONDS_MIN
        while True:
            with suppress(*LOST):
                self._stream = await dial(self._card, self._credential)
                await self._converse(self._stream)
            self.failures += not self.greeted
            if self.greeted:
                pause = BACK_OFF_SECONDS_MIN
            await self._leave()
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, BACK_OFF_SECONDS_MAX)

    async def _leave(self) -> None:
        stream, self._stream = self._stream, None
        self.greeted, self._session, self._wake_at = False, None, NEVER
        self._sent.clear()
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        now = trio.current_time()
        greeting = Greeting(INCARNATION, *self._seen, os.urandom(SALT_BYTES), WITH_LEAF)
        self._session = session = Session(PeerKind.NODE, greeting, now)
        reader = FrameReader(stream, lambda: FRAME_BYTES_MAX)
        await self._perform(session.start(now))
        while (frame := await reader.next()) is not None:
            await self._perform(session.receive(frame, trio.current_time()))
            self.greeted = True
            while effects := session.idle():
                await self._perform(effects)

    async def keep_time(self) -> None:
        """Look at the deadlines of the session, if it is time to."""
        now, session = trio.current_time(), self._session
        if session is not None and self._wake_at <= now:
            self._wake_at = NEVER
            with suppress(*LOST):
                await self._perform(session.expired(now))

    async def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(frame):
                    await self._send(encode_frame(frame))
                case Wake(at):
                    self._wake_at = at
                case SaveCursor(incarnation, cursor):
                    self._seen = incarnation, cursor
                case NoteHoldings(holdings):
                    self._note(holdings)
                case Close():
                    raise trio.ClosedResourceError
                case _:
                    await self._answer(effect)

    async def _answer(self, effect: Effect) -> None:
        now, session = trio.current_time(), self._session
        if session is None:
            return
        match effect:
            case Compare():
                await self._perform(session.compared([], now))
            case LoadHeads(cursor):
                await self._perform(session.heads(Heads(cursor, 1, ())))
            case Survey():
                await self._perform(session.surveyed(Table(0), now))
            case Admit(runs):
                judged = [(run, self._check(run)) for run in runs]
                await self._perform(session.admitted(judged, (), now))
            case _:
                pass  # seals and answers: it has no use for them

    async def _send(self, raw: bytes) -> None:
        async with self._sending:
            if self._stream is not None:
                await self._stream.send_all(raw)

    def _check(self, run: Run) -> Outcome:
        """Check a run as every receiver does; note how long a message took."""
        now = time.monotonic_ns()
        signatures = dict(run.signatures)
        for entry in unpack(*_place(run), run.prev, run.context, run.records, signatures):
            if entry.payload is not None and run.lane == CONTENT:
                self.delivered.append((now - int.from_bytes(entry.payload[:STAMP_BYTES])) / 1e6)
        return Outcome(run.start + len(run.records))

    def _note(self, holdings: Sequence[Holding]) -> None:
        """Note how long it took until the node had stored what this device wrote."""
        now = time.monotonic()
        for one in holdings:
            sent = self._sent.pop((one.chat, one.seq), None)
            if sent is not None and one.device == self.key:
                self.stored.append((now - sent) * 1e3)

    async def write(self) -> None:
        """Append a message to a chat of ours, and push it."""
        chat = random.choice(self._chats)
        chain = self._chains.get(chat.chat, Chain(0, None, START))
        stamp = time.monotonic_ns().to_bytes(STAMP_BYTES)
        payload = stamp + os.urandom(PAYLOAD_BYTES - STAMP_BYTES)
        header = ContentHeader(
            chat=ChatId(chat.chat),
            device=self.key,
            seq=chain.seq,
            prev=chain.prev,
            links=(),
            control=(control_head(chat),),
            time=int(time.time() * 1000),
            epoch=EntryId(chat.epoch),
            generation=chain.seq,
            pc=os.urandom(32),
            payload_size=len(payload),
            payload_hash=sha256(payload).digest(),
        )
        entry = entry_id(encode_header(header))
        keyframe = chain.seq % KEYFRAME_ENTRIES == 0
        record = pack(header, payload, chain.context)
        signature = self._signer.sign(SIGNATURE_LABEL, entry)
        self._chains[chat.chat] = Chain(chain.seq + 1, entry, context_after(header))
        self._sent[chat.chat, chain.seq] = time.monotonic()
        context = None if keyframe else chain.context
        run = Run(
            header.chat,
            self.key,
            CONTENT,
            chain.seq,
            chain.prev,
            context,
            (msgspec.Raw(record),),
            ((0, signature),),
        )
        await self._send(encode_frame(run))


def _place(run: Run) -> tuple[ChatId, DeviceKey, int, int]:
    return run.chat, run.device, run.lane, run.start
