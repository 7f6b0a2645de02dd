"""Good frames with something changed: no peer meets a bug of ours, whatever comes of it.

IVOR_MUTANTS=5000 hunts for longer.
"""

import os
import random
from collections.abc import Sequence
from contextlib import suppress

from protocol import identity
from protocol.entry import CONTENT, DeviceKey
from protocol.fork import encode_proof
from protocol.frame import (
    LENGTH_BYTES,
    Absent,
    Answer,
    Ask,
    ChatHeads,
    Forked,
    Frame,
    Have,
    Heads,
    Holding,
    Ping,
    Pong,
    Seal,
    Seals,
    Seen,
    Want,
    WantSeals,
    encode_frame,
)
from protocol.operation import Checkpoint
from protocol.question import (
    BeginLink,
    GetCards,
    GetParcels,
    GetPending,
    Lookup,
    PutParcel,
    PutPrekey,
    Question,
    Taken,
    encode_question,
)
from tests.hostile.federation import Federation, Gone
from tests.hostile.forger import Forger, head, newest, nonsense

MUTANTS = int(os.environ.get("IVOR_MUTANTS", "60"))
BATCH = 5


def good_frames(federation: Federation, forger: Forger) -> Sequence[Frame]:
    """One of each kind, such that it would be taken."""
    chat, key = forger.chat, forger.device.key
    judge = federation.node().replica.chat(chat)
    assert judge is not None
    entries = [one.id for one in judge.history.entries]
    one, other = forger.content(b"one", 3), forger.content(b"other", 2)
    path = forger.honest()
    prekey = identity.sign_prekey(forger.device.secrets.device, bytes(1216), 1_800_000_000_000)
    questions: Sequence[Question] = (
        Lookup(("anna@north", "boris@south"), (federation.founded.users["anna"],)),
        PutParcel(key, b"parcel"),
        PutPrekey(prekey),
        Taken((1, 2)),
        GetParcels(),
        GetPending(),
        BeginLink(),
        GetCards(bytes(16), 0),
    )
    return (
        path,
        one.run(1),
        newest(forger.control(Checkpoint())),
        Want(chat, key, CONTENT, head(forger.chain(CONTENT)).prefix, 0, 1),
        Heads(9, 1, (ChatHeads(chat, (head(one), head(other))),)),
        Absent(chat, key, CONTENT, 0),
        Have((Holding(DeviceKey(federation.agency("rogue").id), chat, key, CONTENT, 0),)),
        Forked(chat, encode_proof(one.cover(1), other.cover(1, 3))),
        WantSeals(chat, entries[1], (key,)),
        Seals(chat, entries[1], (Seal(0, nonsense(1184), (nonsense(),)),)),
        Seen(4),
        Answer(1, 0, b"\x90"),
        *(Ask(7, *encode_question(question)) for question in questions),
    )


def mutant(raw: bytes, dice: random.Random) -> bytes:
    """Change a few bytes, cut, repeat or exchange a piece; the length fits again."""
    body = bytearray(raw[LENGTH_BYTES:])
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(body))
        match dice.randrange(6):
            case 0:
                body[at] ^= 1 << dice.randrange(8)
            case 1:
                body[at] = dice.choice((0, 0x90, 0xC0, 0xC4, 0xDD, 0xDF, 0xFF, 0xCB, 0x80))
            case 2:
                del body[at : at + dice.randint(1, 8)]
            case 3:
                body[at:at] = body[at : at + dice.randint(1, 40)]
            case 4:
                body[at : at + 1] = dice.randbytes(dice.randint(1, 4))
            case _:
                body[at : at + 9] = b"\xcf" + dice.randbytes(8)
        if not body:
            body = bytearray(b"\x90")
    return len(body).to_bytes(LENGTH_BYTES, "big") + bytes(body)


async def test_mutants(federation: Federation, forger: Forger) -> None:
    dice = random.Random(os.environ.get("IVOR_MUTANTS_SEED", "mutants"))
    frames = [encode_frame(frame) for frame in good_frames(federation, forger)]
    for _ in range(MUTANTS // BATCH):
        opening = federation.as_device if dice.randrange(3) else federation.as_node
        async with opening() as wire:
            await wire.greet()
            await wire.send_raw(b"".join(mutant(dice.choice(frames), dice) for _ in range(BATCH)))
            await wire.send(Ping())
            with suppress(Gone):
                await wire.hear(Pong)
            await federation.node().journal.write(lambda: None)
