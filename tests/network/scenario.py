"""What happens on the network, and what must hold in the end.

`talk` is short; `trouble` has a partition, a killed node and a cut in one direction, all while
frames are lost, late and out of order. `leaks` and `outside` then read every wire and every disk.
"""

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from protocol.frame import Run, decode_frame
from tests.network import capture
from tests.network.canary import found, found_in
from tests.network.hosts import address
from tests.network.world import World, begin

TITLE = "title of {canary}"
EACH = 5  # messages that each official writes on their side of a partition
LOSS = 0.2
DELAY = 0.15  # seconds, one way: 300 ms there and back
JITTER = 0.1  # seconds on top, so frames overtake each other


class Outcome(msgspec.Struct, kw_only=True):
    """What a round has shown. rounds: sessions that a pair of nodes needed until all was equal."""

    seed: int = 0
    messages: int = 0
    healed_seconds: float = 0.0
    healed_rounds: int = 0
    detour_seconds: float = 0.0
    frames: int = 0
    frames_outside: int = 0
    leaks: list[str] = []
    outside: list[str] = []


def canary() -> str:
    """Return a word that nobody has written before."""
    return f"канарейка{os.urandom(12).hex()}"


def _write(here: World, word: str, users: Sequence[str], count: int) -> list[str]:
    texts = []
    for number in range(count):
        for user in users:
            texts.append(f"{user} {len(here.written)} {number} {word}")
            here.say(user, texts[-1])
    return texts


def talk(here: World, word: str) -> Outcome:
    """A few messages over a network that is a little bad, and a cut in one direction."""
    begin(here, TITLE.format(canary=word))
    here.network.shape(len(here.plan.agencies), loss=0.02, delay=0.005, jitter=0.005)
    users = tuple(here.people)
    here.everyone_reads(_write(here, word, users, 2))
    here.network.cut(here.host("north"), here.host("south"))
    texts = _write(here, word, users, 2)
    here.network.mend()
    here.everyone_reads(texts)
    return Outcome(messages=len(here.written), healed_seconds=here.converged(), healed_rounds=1)


def trouble(here: World, word: str, say: Callable[[str], None]) -> Outcome:
    """A partition that ends with a killed node, then a cut in one direction, on a bad network."""
    begin(here, TITLE.format(canary=word))
    users = tuple(here.people)
    here.everyone_reads(_write(here, word, users, 1))
    here.network.shape(len(here.plan.agencies), loss=LOSS, delay=DELAY, jitter=JITTER)
    found = Outcome()
    texts, found.healed_seconds, found.healed_rounds = _partition(here, word)
    say(f"healed in {found.healed_seconds} s and {found.healed_rounds} rounds")
    here.everyone_reads(texts)
    found.detour_seconds = _detour(here, word)
    say(f"around a cut in one direction in {found.detour_seconds} s")
    here.converged()
    found.messages = len(here.written)
    return found


def _partition(here: World, word: str) -> tuple[list[str], float, int]:
    """Cut one node off, write on both sides, kill it, mend the line; wait until all is equal."""
    lonely, others = here.host("north"), range(1, len(here.plan.agencies))
    for other in others:
        here.network.cut(lonely, other)
        here.network.cut(other, lonely)
    texts = _write(here, word, tuple(here.people), EACH)
    assert len({here.stored(name) for name in here.inside()}) > 1
    here.kill_node("north")
    before = here.sessions()
    here.network.mend()
    here.start_node("north")
    here.until_ready("north")
    seconds = here.converged()
    return texts, seconds, max((here.sessions() - before).values(), default=1)


def _detour(here: World, word: str) -> float:
    """Let nothing pass from north to south: what anna writes comes by way of the third."""
    here.network.cut(here.host("north"), here.host("south"))
    begun = time.monotonic()
    here.everyone_reads(_write(here, word, ("anna",), 1), ("boris",))
    here.network.mend()
    return round(time.monotonic() - begun, 2)


def leaks(here: World, word: str) -> list[str]:
    """Return where a word of devices is: on wires, inside TLS, on a node's disk or in its log."""
    places = [f"wire: {name}" for name in found(word, here.wire.read_bytes())]
    for name in here.plan.agencies:
        places += found_in(word, here.folder / name)
        places += [f"log of {name}: {way}" for way in found(word, here.log(name).encode())]
    if capture.lacking() is None:
        for stream, said in capture.said(here.wire, here.keys).items():
            places += [f"inside TLS {stream}: {name}" for name in found(word, said)]
    return places


def outside(here: World) -> tuple[list[str], int, int]:
    """Return what of the chat went to or came from the agency outside, and frames: all, its own.

    The same search must find the chat between two agencies inside, or it has proved nothing.
    """
    chat = bytes.fromhex(here.chat)
    stranger = address(here.host(here.plan.agencies[-1]))
    pair = {address(here.host(name)) for name in here.inside()}
    wrong: list[str] = []
    seen, theirs, inside = 0, 0, False
    for (number, source, target), said in capture.said(here.wire, here.keys).items():
        whole = list(capture.frames(said))
        seen += len(whole)
        if stranger in (source, target):
            theirs += len(whole)
            wrong += [f"{number} {source} {target}"] * (chat in said)
            wrong += [f"{number} RUN" for one in whole if isinstance(decode_frame(one), Run)]
        elif {source, target} <= pair:
            inside = inside or chat in said
    assert inside, "the chat is not even where it must be: TLS was not opened"
    assert theirs, "the agency outside has said nothing: there was no session with it"
    return wrong, seen, theirs
