"""Entries that no honest device would make, signed with the keys of a device that would."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from msgspec import Raw, structs

from client import compose
from client.device import Device
from protocol.attachment import Announcement
from protocol.entry import (
    CONTENT,
    CONTROL,
    SIGNATURE_LABEL,
    ChatId,
    ContentHeader,
    ControlHeader,
    EntryId,
    Header,
    Reference,
    encode_header,
    entry_id,
)
from protocol.frame import Head, Run
from protocol.limits import KEYFRAME_ENTRIES
from protocol.message import Text, encode_message
from protocol.operation import Operation, kind_of
from protocol.payload import encode_operation
from protocol.run import START, pack, rebuild
from protocol.testing.chains import Chain, Made, Step
from tests.hostile.federation import now


class Undone(Exception):
    """Ends a transaction that must leave nothing behind."""


@dataclass(slots=True)
class Forger:
    """A device whose owner writes past its program."""

    device: Device
    chat: ChatId

    def chain(self, lane: int) -> Chain:
        """Return what the device has in a lane, to go on with in any way."""
        chain = Chain(self.device.secrets.device, self.chat, lane)
        stored = self.device.replica.store.chat(self.chat)
        branches = [] if stored is None else stored.chains.get((self.device.key, lane), [])
        for branch in branches[:1]:
            rows = self.device.replica.store.rows(branches, branch, 0, branch.length)
            records = [row[2] for row in rows]
            for entry in rebuild(self.chat, self.device.key, lane, 0, None, None, records):
                chain.append(entry.header, entry.payload or b"")
        return chain

    def content(self, payload: bytes = b"no ciphertext", count: int = 1) -> Chain:
        """Return the content lane with entries that nodes admit and nobody can decrypt."""
        chain = self.chain(CONTENT)
        chain.extend(Step(payload) for _ in range(count))
        return chain

    def honest(self, text: str = "hello") -> Run:
        """Return what the program itself would send next, without keeping it."""
        run: list[Run] = []

        def write_and_undo() -> None:
            compose.send(self.device, self.chat, Text(text, None), now(), None)
            chain = self.chain(CONTENT)
            run.append(chain.run(len(chain.entries) - 1))
            raise Undone

        with suppress(Undone), self.device.transaction():
            write_and_undo()
        return run[0]

    def plaintexts(self, *said: bytes) -> Run:
        """Return messages that say these bytes, encrypted and signed as the program does it."""
        runs: list[Run] = []

        def write_and_undo() -> None:
            start = len(self.chain(CONTENT).entries)
            for one in said:
                chat = compose.require(self.device, self.chat)
                compose._write_plaintext(self.device, chat, one, now())
            runs.append(self.chain(CONTENT).run(start))
            raise Undone

        with suppress(Undone), self.device.transaction():
            write_and_undo()
        return runs[0]

    def attached(self, *announced: Announcement) -> tuple[Run, list[EntryId]]:
        """Return messages with whatever blobs announced, and their ids."""
        made: list[tuple[Run, list[EntryId]]] = []

        def write_and_undo() -> None:
            start = len(self.chain(CONTENT).entries)
            text = encode_message(Text("look", None))
            places = [
                compose._write_plaintext(
                    self.device, compose.require(self.device, self.chat), text, now(), one
                )
                for one in announced
            ]
            made.append((self.chain(CONTENT).run(start), [one.id for one in places]))
            raise Undone

        with suppress(Undone), self.device.transaction():
            write_and_undo()
        return made[0]

    def next_content(self, change: Callable[[ContentHeader], ContentHeader]) -> Run:
        """Return the next content entry with its header changed, signed as it is then."""
        chain = self.content()
        header = chain.entries.pop().header
        assert isinstance(header, ContentHeader)
        return self.signed(chain, change(header), b"no ciphertext")

    def written_in(self, chain: Chain, header: Header, own: Reference) -> Run:
        """Return a content entry in the epoch that the reference names, which it has seen."""
        assert isinstance(header, ContentHeader)
        others = [one for one in header.control if one.device != own.device]
        control = tuple(sorted([*others, own]))
        changed = structs.replace(header, control=control, epoch=own.id, generation=0)
        return self.signed(chain, changed, b"no ciphertext")

    def signed(self, chain: Chain, header: Header, payload: bytes) -> Run:
        """Return a run of one entry with whatever header."""
        digest = sha256(payload).digest()
        final = structs.replace(header, payload_size=len(payload), payload_hash=digest)
        signature = chain.key.sign(SIGNATURE_LABEL, entry_id(encode_header(final)))
        before = START if final.seq % KEYFRAME_ENTRIES == 0 else chain.before
        return Run(
            chain.chat,
            chain.device,
            chain.lane,
            final.seq,
            final.prev,
            before if final.seq % KEYFRAME_ENTRIES else None,
            (Raw(pack(final, payload, before)),),
            ((0, signature),),
        )

    def control(self, operation: Operation, links: Sequence[Reference] | None = None) -> Chain:
        """Return the control lane with an operation appended, whether allowed or not."""
        return self.appended(self.chain(CONTROL), operation, links)

    def appended(
        self, chain: Chain, operation: Operation, links: Sequence[Reference] | None = None
    ) -> Chain:
        """Append an operation to a control lane; return the lane."""
        judge = self.device.replica.chat(self.chat)
        heads = () if judge is None else judge.history.heads()
        seen = tuple(one for one in heads if one.device != self.device.key)
        payload = encode_operation(operation)
        chain.append(
            ControlHeader(
                chat=self.chat,
                device=self.device.key,
                seq=len(chain.entries),
                prev=chain.entries[-1].id if chain.entries else None,
                links=seen if links is None else tuple(links),
                time=now(),
                kind=int(kind_of(operation)),
                payload_hash=sha256(payload).digest(),
                payload_size=len(payload),
            ),
            payload,
        )
        return chain


def newest(chain: Chain) -> Run:
    """Return the last entry of a chain as a pushed run."""
    return chain.run(len(chain.entries) - 1)


def head(chain: Chain) -> Head:
    """Return how a page of heads names the last entry of a chain."""
    last: Made = chain.entries[-1]
    return Head(chain.device, chain.lane, last.header.seq, last.id[:8])


def nonsense(size: int = 32) -> bytes:
    """Random bytes."""
    return os.urandom(size)
