"""SPEC 6.7: which blobs a node asks for next, and what it costs to know."""

import ast
import itertools
from pathlib import Path

import pytest
import trio
from msgspec import structs

from crypto.blob import CHUNK_BYTES
from node import blobs
from node.blobs import Blobs, State, StoredBlob
from node.config import Settings
from node.database import connect
from node.driver import Connection
from node.hub import Hub
from node.journal import Journal
from node.larder import Larder, in_turn
from node.store import SEQ_BITS, Store
from protocol.attachment import Announcement
from protocol.entry import ATTACHED, CONTENT, ChatId, DeviceKey, EntryId
from protocol.identity import AgencyId
from protocol.operation import Remove
from protocol.testing.chains import Step
from protocol.testing.conversations import conversation
from protocol.testing.histories import Dice
from tests.node.replicas import MZ, node, take


def test_what_a_chunk_costs_does_not_grow(tmp_path: Path) -> None:
    """Nor what it costs to say how many there are, which a peer may ask of 64 files at once."""
    count = 10_000
    steps = itertools.count()
    store = Store(connect(tmp_path / "replica.db", None))
    store.connection.execute("INSERT INTO chats VALUES (1, ?)", (bytes(32),))
    store.connection.execute(
        "INSERT INTO chains VALUES (1, 1, ?, 1, 0, NULL, 0, 1, ?, 1)", (bytes(32), bytes(32))
    )
    store.connection.execute(
        "INSERT INTO blobs VALUES (?, 1, ?, x'', ?, ?, ?, 'file', 0)",
        (1 << SEQ_BITS, bytes(32), bytes(32), count * CHUNK_BYTES, State.FETCHING),
    )
    index = Blobs(store, b"")
    blob = index.find(bytes(32), bytes(32))
    assert blob is not None
    index.keep(blob, [(at, ()) for at in range(count - 2)])
    store.connection.set_progress_handler(lambda: next(steps) < 0, 10)
    assert index.keep(blob, [(count - 2, ())])
    index.complete(blob)
    assert index.count_held(blob) == count - 1
    assert next(steps) < 60
    assert blob == index.find(bytes(32), bytes(32))
    index.keep(blob, [(count - 1, ())])
    index.complete(blob)
    assert index.whole_of(blob.author) == [blob._replace(state=State.WHOLE)]


def test_what_nobody_brings_is_not_in_the_way(tmp_path: Path) -> None:
    """However many blobs somebody announces and keeps, those of others have their turn."""
    store = Store(connect(tmp_path / "replica.db", None))
    store.connection.execute("INSERT INTO chats VALUES (1, ?)", (bytes(32),))
    many = 2 * blobs.LOOKED_AT_MAX
    for chain, author in ((1, b"m" * 32), (2, b"a" * 32)):
        store.connection.execute(
            "INSERT INTO chains VALUES (?, 1, ?, 1, 0, NULL, 0, 1, zeroblob(32), 1)",
            (chain, author),
        )
    store.connection.executemany(
        "INSERT INTO blobs VALUES (?, 1, ?, x'', ?, 9, ?, NULL, 0)",
        [
            (chain << SEQ_BITS | at, at.to_bytes(32, "big"), bytes(32), state)
            for chain, state, count in ((1, State.FETCHING, many), (2, State.WANTED, 3))
            for at in range(count)
        ],
    )
    index = Blobs(store, b"")
    listed, more = index.open(State.KNOWN)
    assert more
    assert len(listed) == len(set(listed)) <= blobs.LOOKED_AT_MAX
    assert {blob.place for blob in listed if blob.author == b"a" * 32} == {
        2 << SEQ_BITS | at for at in range(3)
    }
    reached = {blob.place for _ in range(64) for blob in index.open(State.WANTED)[0]}
    assert len(reached) == many + 3
    assert {blob.state for blob in index.open(State.FETCHING)[0]} == {State.FETCHING}


def test_authors_take_turns() -> None:
    """Of those that wait, one of each author comes before a second of anybody."""
    announced = Announcement(bytes(32), 9)
    chat, entry, agency = ChatId(bytes(32)), EntryId(bytes(32)), AgencyId(b"")
    listed = [
        StoredBlob(at, chat, entry, device, agency, announced, State.KNOWN, None)
        for at, device in enumerate(map(DeviceKey, (b"m", b"m", b"m", b"a", b"a", b"m")))
    ]
    assert [blob.place for blob in in_turn(listed)] == [0, 3, 1, 4, 2, 5]


def test_an_agency_has_a_share(tmp_path: Path) -> None:
    """Case 51: with however many devices and chats; and what room there is costs little to know."""
    store = Store(connect(tmp_path / "replica.db", None))
    connection = store.connection
    own, greedy, other = (AgencyId(bytes([number]) * 32) for number in (1, 2, 3))
    size, many = 3 * CHUNK_BYTES - 5, 40
    for number in range(1, many + 1):
        agency = (own, greedy, other, greedy)[number % 4]
        connection.execute("INSERT INTO chats VALUES (?, ?)", (number, number.to_bytes(32, "big")))
        connection.execute(
            "INSERT INTO chains VALUES (?1, ?1, ?2, 1, 0, NULL, 0, 1, zeroblob(32), 1)",
            (number, number.to_bytes(32, "big")),
        )
        connection.execute(
            "INSERT INTO blobs VALUES (?, ?, ?, ?, zeroblob(32), ?, 2, 'file', 0)",
            (number << SEQ_BITS, number, number.to_bytes(32, "big"), agency, size),
        )
    index = Blobs(store, own)
    found = {blob.agency: blob for blob in index.open(State.FETCHING)[0]}
    everything = blobs.Quotas(many * size, many * size, many * size, many * size)
    assert index.room(found[greedy], everything) == many * size
    for blob in index.open(State.FETCHING)[0]:
        if blob.agency == greedy:
            assert index.keep(blob, [(at, ()) for at in range(3)])
    held = many // 2 * size
    quotas = everything._replace(agency=held + size - 1)
    steps = itertools.count()
    connection.set_progress_handler(lambda: next(steps) < 0, 10)
    assert index.room(found[greedy], quotas) == size - 1
    connection.set_progress_handler(None)
    assert next(steps) < 100
    assert index.room(found[other], quotas, [found[greedy]]) == many * size - held
    assert index.room(found[own], quotas) == many * size - held
    assert not index.has_room(found[other], quotas._replace(total=held + size - 1), ())
    assert index.has_room(found[greedy], quotas, [found[other]]), "it is here"
    index.lose(found[greedy], 2)
    assert index.room(found[greedy], quotas) == size - 1 + CHUNK_BYTES - 5
    assert index.room(found[other], everything, [found[greedy]]) == many * size - held
    for blob in index.open(State.FETCHING)[0]:
        index.let_go(blob)
    assert index.room(found[greedy], quotas) == held + size - 1


def test_the_agency_of_who_was_put_out_since(tmp_path: Path) -> None:
    """What they wrote before may come after, and counts for their agency."""
    talk = conversation(Dice(6), 0)
    anna, dina = talk.people[0], talk.people[3]
    chain = talk.chain(dina, CONTENT)
    payload = bytes(32) + (9 * CHUNK_BYTES).to_bytes(8, "big") + b"sealed"
    step = Step(payload, control=talk.story.heads(), epoch=talk.epochs[-1])
    made = chain.append(structs.replace(chain.header(step), kind=ATTACHED), payload)
    talk.tell(anna, talk.story.tell(anna, Remove(dina.user, ())))
    replica = node(path=tmp_path / "replica.db")
    for run in (*talk.runs, chain.run()):
        take(replica, run)
    blob = replica.blobs.find(talk.chat, made.id)
    assert blob is not None
    assert blob.agency == dina.agency.root.public


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I9: a member may announce more than there is room for, without end."""
    monkeypatch.setattr("node.larder.PATIENCE_MAX", 3)
    replica = node(path=tmp_path / "replica.db")
    journal = Journal(replica.store.connection, replica.forget)

    async def wait() -> None:
        hub: Hub[Connection] = Hub(MZ, trio.current_time)
        larder = Larder(replica, journal, Settings(), tmp_path, hub)
        for number in (1, 2, 3, 1, 4):
            larder._wait(EntryId(bytes([number])), 9)
        assert list(larder._patience) == [bytes([3]), bytes([1]), bytes([4])]

    trio.run(wait)


def test_a_blob_is_never_looked_into() -> None:
    """Case 54: no module of a node can open a chunk, or imports what decodes media or archives."""
    decoders = {"PIL", "zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile", "xml", "pyhanko"}
    for module in Path(blobs.__file__).parent.glob("*.py"):
        for part in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in getattr(part, "names", [])]
            source = getattr(part, "module", None) or ""
            assert not {one.split(".")[0] for one in (*names, source)} & decoders
            assert "BlobCipher" not in names
