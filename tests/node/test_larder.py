"""SPEC 6.7: whose turn it is among the blobs that a node brings, if they are many."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import pytest
import trio
from msgspec import structs

from crypto import merkle
from crypto.blob import CHUNK_BYTES
from node import blobs
from node import larder as larders
from node.blobs import State, StoredBlob, folder_of, write_chunks
from node.config import Settings
from node.driver import Connection
from node.errors import StorageError
from node.fetching import Fetching
from node.hub import Hub
from node.journal import Journal
from node.larder import Larder
from node.seals import Sealless
from protocol.entry import ATTACHED, CONTENT, EntryId
from protocol.frame import Blob, WantBlob
from protocol.limits import BLOBS_FETCHED_MAX
from protocol.session import PeerKind
from protocol.testing.cast import Person
from protocol.testing.chains import Step
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from tests.node.homes import names_that_nobody_resolves, until
from tests.node.replicas import MVD, MZ, node, take

Taken = Literal["all", "demand"]


@dataclass(eq=False)
class Peer:
    """A session with another node. asked: for what of it was asked, as it never comes."""

    key: bytes = MVD
    peer: PeerKind = PeerKind.NODE
    open: bool = True
    asked: list[WantBlob] = field(default_factory=list)

    def send(self, want: WantBlob) -> None:
        self.asked.append(want)

    def awaited_of(self, home: bytes) -> Sequence[Sealless]:
        """It waits for no seals."""
        del home
        return ()


CHUNK = b"c" * 1000
NINE_CHUNKS = bytes(32) + (9 * CHUNK_BYTES).to_bytes(8, "big")


def announce(
    talk: Conversation, who: Person, count: int, announced: bytes = NINE_CHUNKS
) -> list[EntryId]:
    """Write messages with a file each, all of this root and size."""
    chain = talk.chain(who, CONTENT)
    payload = announced + b"sealed"
    step = Step(payload, control=talk.story.heads(), epoch=talk.epochs[-1])
    return [
        chain.append(structs.replace(chain.header(step), kind=ATTACHED), payload).id
        for _ in range(count)
    ]


class Turns:
    """A larder, and the blobs that have had a turn, in that order.

    end: how a turn ends; None: it goes on until it has to give way.
    """

    def __init__(
        self, folder: Path, talk: Conversation, patch: pytest.MonkeyPatch, taken: Taken = "all"
    ) -> None:
        self.had: list[EntryId] = []
        replica = node(path=folder / "replica.db")
        for chain in talk.chains.values():
            take(replica, chain.run())
        self.index = replica.blobs
        self.hub: Hub[Connection] = Hub(MZ, trio.current_time)
        self.peer = cast("Connection", Peer())
        self.hub.add(self.peer)
        self._journal = Journal(replica.store.connection, replica.forget)
        self.larder = Larder(replica, self._journal, Settings(blobs=taken), folder, self.hub)
        self._news = trio.Event()
        self.end: Callable[[StoredBlob], object] | None = None
        patch.setattr(larders, "LOOK_SECONDS", 0)
        patch.setattr(Fetching, "bring", self._bring)

    async def _bring(
        self,
        blob: StoredBlob,
        sources: Callable[[], Sequence[Connection]],
        _: Callable[[int], object],
        gives_way: Callable[[], bool],
    ) -> None:
        assert sources() == [self.peer]
        self.had.append(blob.entry)
        self._news.set()
        await trio.lowlevel.checkpoint()
        if self.end is not None:
            self.end(blob)
            return
        while not gives_way():  # noqa: ASYNC110 - as a source that is slow
            await trio.sleep(0.001)

    def start_journal(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._journal.run)

    def start(self, nursery: trio.Nursery) -> None:
        self.start_journal(nursery)
        nursery.start_soon(self.larder.run)

    async def first(self, count: int) -> list[EntryId]:
        """Wait until so many turns have begun."""
        while len(self.had) < count:
            await self._news.wait()
            self._news = trio.Event()
        return self.had[:count]


@pytest.fixture
def talk() -> Conversation:
    return conversation(Dice(6), 0)


async def test_nobody_has_the_turns_of_others(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files each has announced."""
    listed = {who: announce(talk, who, BLOBS_FETCHED_MAX) for who in talk.people}
    assert len(listed) == BLOBS_FETCHED_MAX
    turns = Turns(tmp_path, talk, monkeypatch)
    turns.start(nursery)
    first = await turns.first(BLOBS_FETCHED_MAX)
    assert [len({*first} & {*theirs}) for theirs in listed.values()] == [1] * len(listed)


async def test_what_was_not_tried_yet_comes_before_what_nobody_had(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = announce(talk, talk.people[3], 4 * BLOBS_FETCHED_MAX)
    monkeypatch.setattr(larders, "AGAIN_SECONDS", 1e-9)
    turns = Turns(tmp_path, talk, monkeypatch)
    turns.end = bool
    turns.start(nursery)
    assert sorted(await turns.first(len(listed))) == sorted(listed)


async def test_what_a_look_did_not_see_is_seen_later(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a look saw what nobody can bring, and the next was when somebody came."""
    monkeypatch.setattr(blobs, "LOOKED_AT_MAX", 1)
    for name in ("AGAIN_SECONDS", "AGAIN_SECONDS_MAX"):
        monkeypatch.setattr(larders, name, 1e-4)
    listed = {who: announce(talk, who, 1) for who in talk.people}
    turns = Turns(tmp_path, talk, monkeypatch)
    here = next(who for who in talk.people if who.agency.root.public == MZ)
    turns.hub.remove(turns.peer)
    turns.peer = cast("Connection", Peer(here.devices[0], PeerKind.DEVICE))
    turns.hub.add(turns.peer)
    turns.end = bool
    turns.start(nursery)
    with trio.fail_after(60):
        assert set(await turns.first(16)) == {*listed[here]}


async def test_a_node_that_comes_may_have_what_nobody_had(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that is tried at once; what the disk did not take is not."""
    failed, lacked = announce(talk, talk.people[3], 2)
    for name in ("AGAIN_SECONDS", "AGAIN_SECONDS_MAX"):
        monkeypatch.setattr(larders, name, larders.REFUSED_SECONDS / 2)

    def end(blob: StoredBlob) -> None:
        if blob.entry == failed:
            raise StorageError("full")

    turns = Turns(tmp_path, talk, monkeypatch)
    turns.end = end
    turns.start(nursery)
    with trio.fail_after(60):
        while turns.had.count(lacked) < 4:
            turns.larder.opened(turns.peer)
            await trio.sleep(0.001)
    assert turns.had.count(failed) == 1


async def test_a_node_that_comes_as_a_turn_begins_is_asked(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: nothing was asked of it until the turn was over."""
    announce(talk, talk.people[3], 1)
    bring = Fetching.bring
    turns = Turns(tmp_path, talk, monkeypatch)
    monkeypatch.setattr(Fetching, "bring", bring)
    held = turns.index.held
    late = Peer()

    def meanwhile(blob: StoredBlob) -> list[int]:
        monkeypatch.setattr(turns.index, "held", held)
        turns.hub.remove(turns.peer)
        turns.larder.closed(turns.peer)
        turns.hub.add(cast("Connection", late))
        turns.larder.opened(cast("Connection", late))
        return held(blob)

    monkeypatch.setattr(turns.index, "held", meanwhile)
    turns.start(nursery)
    with trio.fail_after(60):
        while not late.asked:  # noqa: ASYNC110 - as a source that is slow
            await trio.sleep(0.001)
    assert not cast("Peer", turns.peer).asked


async def test_what_is_redacted_as_its_turn_begins_leaves_no_file(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: what came was written after the file was removed, and stayed until a restart."""
    bring = Fetching.bring
    turns, want = stored(tmp_path, talk, monkeypatch)
    monkeypatch.setattr(Fetching, "bring", bring)
    blob = turns.index.find(want.chat, want.entry)
    assert blob is not None
    turns.index.lose(blob, 0)

    def meanwhile(blob: StoredBlob) -> list[int]:
        connection = turns.index._connection
        connection.execute("UPDATE blobs SET state = ?", (State.GOING,))
        blobs.remove(folder_of(tmp_path) / str(blob.file))
        turns.index.gone(blob)
        return []

    monkeypatch.setattr(turns.index, "held", meanwhile)
    turns.start(nursery)
    await until(lambda: bool(cast("Peer", turns.peer).asked))
    turns.larder.took(Blob(want.chat, want.entry, 0, CHUNK, ()), turns.peer)
    await until(lambda: not turns.larder._turns)
    assert not list(folder_of(tmp_path).iterdir())


@pytest.mark.parametrize("taken", ["all", "demand"])
async def test_what_a_full_disk_did_not_take_is_wanted_still(
    tmp_path: Path,
    talk: Conversation,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    taken: Taken,
) -> None:
    """Regression: where only what is asked for is brought, nobody tried it again."""
    (entry,) = announce(talk, talk.people[3], 1)
    monkeypatch.setattr(larders, "REFUSED_SECONDS", 0.05)
    turns = Turns(tmp_path, talk, monkeypatch, taken)
    blob = turns.index.find(talk.chat, entry)
    assert blob is not None
    turns.index.want([blob.place])  # as what our own users announce is from the first

    def fail(_: StoredBlob) -> None:
        raise StorageError("the disk is full")

    turns.end = fail
    turns.start(nursery)
    await turns.first(1)
    turns.end = bool
    with trio.fail_after(60):
        await turns.first(2)


def stored(folder: Path, talk: Conversation, patch: pytest.MonkeyPatch) -> tuple[Turns, WantBlob]:
    """Have a blob of one chunk here; return what asks for that."""
    (entry,) = announce(
        talk, talk.people[3], 1, merkle.root([CHUNK]) + len(CHUNK).to_bytes(8, "big")
    )
    turns = Turns(folder, talk, patch)
    blob = turns.index.find(talk.chat, entry)
    begun = None if blob is None else turns.index.begin(blob, "file")
    assert begun is not None
    write_chunks(folder_of(folder) / "file", [(0, CHUNK)])
    turns.index.keep(begun, [(0, [])])
    return turns, WantBlob(talk.chat, entry, 0, 1)


async def test_names_that_nobody_resolves_hold_no_file_up(
    tmp_path: Path, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: nor the session that asks for it, which went on with nothing else meanwhile."""
    turns, want = stored(tmp_path, talk, monkeypatch)
    with names_that_nobody_resolves(), trio.fail_after(60):
        assert await turns.larder.load(want, turns.peer) is not None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EIO])
async def test_what_cannot_be_opened_just_now_is_not_lost(
    tmp_path: Path,
    talk: Conversation,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    """Regression: where descriptors were short, the only copy of a file was forgotten."""
    turns, want = stored(tmp_path, talk, monkeypatch)
    turns.start_journal(nursery)
    assert await turns.larder.load(want, turns.peer) is not None
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> Blob:
            raise OSError(code, os.strerror(code))

        patch.setattr(blobs, "read_blob_chunk", refuse)
        assert await turns.larder.load(want, turns.peer) is None
    is_here = await turns.larder.load(want, turns.peer) is not None
    assert is_here == (code != errno.EIO)


async def test_a_slow_one_gives_way_to_those_that_wait(
    tmp_path: Path, talk: Conversation, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = announce(talk, talk.people[3], BLOBS_FETCHED_MAX + 1)
    monkeypatch.setattr(larders, "TURN_SECONDS", 0)
    turns = Turns(tmp_path, talk, monkeypatch)
    turns.start(nursery)
    with trio.fail_after(60):
        assert sorted(await turns.first(len(listed))) == sorted(listed)


@pytest.mark.parametrize(("taken", "state"), [("all", State.KNOWN), ("demand", State.WANTED)])
async def test_where_all_is_brought_nobody_asks_for_it(
    tmp_path: Path,
    talk: Conversation,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    taken: Taken,
    state: State,
) -> None:
    """Else a device could have all tried again that waits, as often as it likes."""
    (entry,) = announce(talk, talk.people[3], 1)
    turns = Turns(tmp_path, talk, monkeypatch, taken)
    turns.start_journal(nursery)
    await turns.larder.want(talk.chat, entry, talk.people[0].devices[0])
    blob = turns.index.find(talk.chat, entry)
    assert blob is not None
    assert blob.state is state
