"""Hostile cases 1 to 13: bytes that are no frames, frames out of turn, peers that do not read."""

import resource
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest
import trio
import trio.lowlevel

from node import outgoing
from node import wire as framing
from protocol import limits, session
from protocol.frame import Answer, Ask, Bye, Hello, Ping, Pong, encode_frame
from protocol.question import GetCard, encode_question
from protocol.topic import Topic
from tests.hostile.federation import INCARNATION, PATIENCE_SECONDS, Federation, Wire

HELLO = Hello((1,), INCARNATION, None, 0, bytes(16))
MEBIBYTE = 1024 * 1024

Opening = Callable[[Federation], AbstractAsyncContextManager[Wire]]
PEERS: dict[str, Opening] = {
    "node": Federation.as_node,
    "device": Federation.as_device,
    "invited": Federation.as_invited,
}


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def packed(*values: object) -> bytes:
    return frame(msgspec.msgpack.encode(values))


# What comes after a good HELLO. The reason is a part of what the node logs.
BROKEN: dict[str, tuple[bytes, str]] = {
    "1 a length of 2^32 - 1": (b"\xff\xff\xff\xff", "frame of 4294967295 bytes"),
    "1 one byte too long": ((MEBIBYTE + 1).to_bytes(4, "big"), "frame of 1048577 bytes"),
    "2 zero length": (bytes(4), "frame of 0 bytes"),
    "4 array32": (frame(b"\xdd\xff\xff\xff\xff"), "not a frame"),
    "4 array32 of records": (
        frame(
            b"\x98\x03" + (b"\xc4\x20" + bytes(32)) * 2 + b"\x00\x00\xc0\xc0\xdd\xff\xff\xff\xff"
        ),
        "not a frame",
    ),
    "4 map32": (frame(b"\x91\xdf\xff\xff\xff\xff"), "not a frame"),
    "4 bin32": (frame(b"\x94\x09\x01\x0b\xc6\xff\xff\xff\xff"), "not a frame"),
    "4 ext32": (frame(b"\x94\x09\x01\x0b\xc9\xff\xff\xff\xff\x01"), "not a frame"),
    "5 depth 17": (frame(b"\x91" * 17 + b"\x90"), "not a frame"),
    "5 depth 10^6": (frame(b"\x91" * 1_000_000 + b"\x90"), "not a frame"),
    "5 depth 10^6 after PING": (frame(b"\x92\x0d" + b"\x91" * 1_000_000 + b"\x90"), "not a frame"),
    "6 empty arrays": (frame(b"\xdd\x00\x0f\x00\x00" + b"\x90" * 0xF0000), "not a frame"),
    "7 a map": (frame(b"\x82\xa1a\x01\xa1a\x02"), "not a frame"),
    "7 NaN for a number": (
        frame(b"\x94\x09\xcb\x7f\xf8" + bytes(6) + b"\x0b\xc4\x00"),
        "not a frame",
    ),
    "8 invalid UTF-8": (frame(b"\x94\x09\x01\x0b\xa2\xff\xfe"), "not a frame"),
    "9 a timestamp": (
        frame(b"\x94\x09\xc7\x0c\xff" + b"\xff" * 12 + b"\x0b\xc4\x00"),
        "not a frame",
    ),
    "10 trailing bytes": (frame(b"\x91\x0d\x00"), "not a frame"),
    "11 an unknown type": (packed(99), "not a frame"),
    "11 a second HELLO": (encode_frame(HELLO), "HELLO from a"),
    "a negative number": (packed(9, -1, 11, b""), "not a frame"),
    "a number above its bound": (packed(9, 2**64 - 1, 11, b""), "not a frame"),
    "a want that ends before it begins": (
        packed(2, bytes(32), bytes(32), 1, bytes(8), 9, 4),
        "a want of 9",
    ),
    "an answer's type with a question's fields": (packed(10, 1), "not a frame"),
}

# The body of a question is canonical, where frames need not be.
QUESTIONS: dict[str, tuple[int, bytes, str]] = {
    "4 array32": (Topic.CARDS, b"\xdd\xff\xff\xff\xff", "truncated"),
    "5 depth 17": (Topic.LOOKUP, b"\x91" * 17 + b"\x90", "nested deeper than 16"),
    "5 depth 900000": (Topic.LOOKUP, b"\x91" * 900_000 + b"\x90", "nested deeper than 16"),
    "6 empty arrays": (
        Topic.LOOKUP,
        b"\xdd\x00\x0e\x00\x00" + b"\x90" * 0xE0000,
        "more than 16384 elements",
    ),
    "7 a map": (Topic.LOOKUP, b"\x92\x82\xa1a\x01\xa1a\x02\x90", "dict is not allowed"),
    "7 a float": (Topic.LOOKUP, b"\x92\xcb\x7f\xf8" + bytes(6) + b"\x90", "float is not allowed"),
    "7 an integer too long": (Topic.TAKEN, b"\x91\x91\xcc\x01", "not the shortest encoding"),
    "8 invalid UTF-8": (Topic.LOOKUP, b"\x92\x91\xc4\x02\xff\xfe\x90", "not UTF-8"),
    "9 a timestamp": (
        Topic.LOOKUP,
        b"\x92\xd6\xff" + bytes(4) + b"\x90",
        "datetime is not allowed",
    ),
    "10 trailing bytes": (Topic.PARCELS, b"\x90\x90", "trailing"),
    "too few fields": (Topic.LOOKUP, b"\x90", "not an array of 2"),
}


async def test_what_is_no_frame_ends_the_session(federation: Federation) -> None:
    """Cases 1, 2, 4 to 12, for nodes and devices that have greeted, in turn."""
    for turn, (raw, reason) in enumerate(BROKEN.values()):
        async with (federation.as_device, federation.as_node)[turn % 2]() as wire:
            await wire.greet()
            # What follows is never looked at: a decoder that met nonsense is not used again.
            await wire.send_raw(raw + encode_frame(Ping()) * 3)
            await federation.refused(wire, reason)
            assert not any(isinstance(one, Pong) for one in wire.heard)


async def test_what_is_no_question_ends_the_session(federation: Federation) -> None:
    """Cases 4 to 10 in the canonical body of a question."""
    for topic, body, reason in QUESTIONS.values():
        async with federation.as_device() as wire:
            await wire.greet()
            await wire.send(Ask(1, topic, body))
            await federation.refused(wire, reason)


async def test_a_greeting_must_come_first_and_be_small(federation: Federation) -> None:
    """Cases 1 and 11 before HELLO is done, for each kind of peer."""
    too_long = (limits.FRAME_BYTES_MAX_BEFORE_HELLO + 1).to_bytes(4, "big")
    for opening in PEERS.values():
        async with opening(federation) as wire:
            await wire.send_raw(too_long)
            await federation.refused(wire, "frame of 262145 bytes, 1 to 262144 allowed")
        async with opening(federation) as wire:
            await wire.send(Ping())
            await federation.refused(wire, "PING from a")
    for versions in ((2,), (0, 2**63), (255,) * 8):
        async with federation.as_node() as wire:
            await wire.send(Hello(versions, INCARNATION, None, 0, bytes(16)))
            await federation.refused(wire, "peer speaks versions")
    async with federation.as_invited() as wire:
        await wire.send(HELLO)
        await federation.refused(wire, "HELLO from a invitation while greeting")


async def test_later_versions_are_no_reason_to_part(federation: Federation) -> None:
    """Case 11: a peer that also speaks what is not known here."""
    async with federation.as_node() as wire:
        await wire.send(Hello((9, 1, 7), INCARNATION, None, 0, bytes(16)))
        await wire.hear(Hello)
        await wire.send(Ping())
        await wire.hear(Pong)
        await wire.send(Bye())
        await wire.end()


async def test_one_byte_at_a_time(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 3, with shorter deadlines: a frame that never ends, and a peer that never greets."""
    monkeypatch.setattr(framing, "FRAME_SECONDS_MAX", 0.4)
    monkeypatch.setattr(session, "HELLO_TIMEOUT_SECONDS", 0.4)
    async with federation.as_node() as wire:
        await wire.greet()
        await _trickle(wire, encode_frame(Ask(1, Topic.CARDS, bytes(64))))
        await federation.refused(wire, "a frame took over")
    async with federation.as_node() as wire:
        await federation.refused(wire, "no word for")
    monkeypatch.setattr(session, "HELLO_TIMEOUT_SECONDS", 9.0)
    async with federation.as_node() as wire:
        await _trickle(wire, encode_frame(HELLO))
        await federation.refused(wire, "a frame took over")


async def _trickle(wire: Wire, raw: bytes) -> None:
    with trio.move_on_after(0.6):
        for byte in raw:
            await wire.send_raw(bytes([byte]))
            await trio.sleep(0.05)


async def test_a_peer_that_never_reads(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 13: answers wait in a bounded queue; then the peer is given up."""
    monkeypatch.setattr(outgoing, "UNREAD_BYTES_MAX", MEBIBYTE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    topic, body = encode_question(GetCard(0))
    flood = encode_frame(Ask(1, topic, body)) * 64
    async with federation.as_device() as wire:
        await wire.greet()
        with trio.move_on_after(PATIENCE_SECONDS):
            while not any("does not read" in (why or "") for why in federation.reasons()):
                await wire.send_raw(flood)
                await trio.lowlevel.checkpoint()
        await federation.refused(wire, "the peer does not read what it is sent")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 64 * MEBIBYTE


async def test_the_same_question_twice_at_once(federation: Federation) -> None:
    """Questions that are equal in all their bytes are still two."""
    topic, body = encode_question(GetCard(0))
    async with federation.as_device() as wire:
        await wire.greet()
        await wire.send(*[Ask(1, topic, body)] * 40)
        answers = [await wire.hear(Answer) for _ in range(40)]
    assert len(set(answers)) == 1
