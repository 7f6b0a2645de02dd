"""SPEC 10: the database, against plain dictionaries."""

import itertools
import os
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.database import begin_anew, connect
from node.errors import StorageError
from node.runs import read_cover, read_run
from node.schema import SCHEMA, SCHEMA_VERSION
from node.seals import NEWEST
from node.sharing import HEADS_OF_FEW_CHANGES, HEADS_OF_FEW_CHATS, Sharing
from node.store import Branch, Store, StoredChat
from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId
from protocol.fork import encode_proof, verify_fork
from protocol.frame import SEALED_BYTES, Head, Heads, Holding, Seal, Want, authentic
from protocol.limits import BRANCHES_MAX, COVER_ENTRIES_MAX, PAYLOAD_BYTES_MAX, RUN_BYTES_MAX
from protocol.run import Entry
from protocol.testing.chains import CHAT, STEPS, Chain, Made, Step, signer

KEY = bytes(range(32))
CANARY = b"a canary that nobody may find on the disk"
PEER = DeviceKey(b"p" * 32)


def store_chain(
    store: Store,
    chain: Chain,
    start: int = 0,
    stop: int | None = None,
    branch: int | None = 0,
    signed: list[int] | None = None,
) -> StoredChat:
    """Append entries of a chain as a replica does."""
    chat = store.create_chat(chain.chat)
    store.append(chat, authentic(chain.run(start, stop, signed)), branch, 0)
    return chat


def want(chain: Chain, start: int, stop: int) -> Want:
    prefix = chain.entries[stop - 1].id[:8]
    return Want(chain.chat, chain.device, chain.lane, prefix, start, stop)


def long_chain(count: int, lane: int = CONTENT, name: str = "anna") -> Chain:
    chain = Chain(signer(name), CHAT, lane)
    chain.extend([Step(b"%d" % number) for number in range(count)])
    return chain


class StoreMachine(RuleBasedStateMachine):
    """Chains with branches, appended in pieces, are read back as they were written."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = apsw.Connection(":memory:")

    @initialize()
    def create(self) -> None:
        Path("build").mkdir(exist_ok=True)
        self.path = Path("build") / f"store-{os.getpid()}-{id(self)}.db"
        self.path.unlink(missing_ok=True)
        self.connection = connect(self.path, None)
        self.store = Store(self.connection)
        self.sharing = Sharing(self.connection)
        self.lines: list[tuple[Chain, list[Made], int]] = []  # chain, its entries stored, branch

    def teardown(self) -> None:
        self.connection.close()
        for file in Path("build").glob(f"store-{os.getpid()}-{id(self)}.db*"):
            file.unlink()

    @rule(
        name=st.sampled_from(["anna", "boris"]),
        lane=st.sampled_from([CONTROL, CONTENT]),
        steps=st.lists(STEPS, min_size=1, max_size=5),
    )
    def begin(self, name: str, lane: int, steps: list[Step]) -> None:
        """Begin a chain, or a second one from seq 0: a fork."""
        chain = Chain(signer(name), CHAT, lane)
        number = len([1 for other, _, _ in self.lines if self._same(other, chain)])
        if number >= BRANCHES_MAX:
            return
        chain.extend([Step(b"%d" % number), *steps])
        store_chain(self.store, chain, branch=None)
        self.lines.append((chain, list(chain.entries), number))

    @rule(data=st.data(), steps=st.lists(STEPS, min_size=1, max_size=70))
    def go_on(self, data: st.DataObject, steps: list[Step]) -> None:
        """Append a run to a branch, with only the signatures that it needs."""
        if not self.lines:
            return
        chain, made, number = data.draw(st.sampled_from(self.lines))
        start = len(made)
        chain.extend(steps)
        run = chain.run(
            start, signed=[*range(start, len(chain.entries), 64), len(chain.entries) - 1]
        )
        chat = self.store.create_chat(CHAT)
        self.store.append(chat, authentic(run), number, 0)
        made.extend(chain.entries[start:])

    @rule(data=st.data(), steps=st.lists(STEPS, min_size=1, max_size=3))
    def branch(self, data: st.DataObject, steps: list[Step]) -> None:
        """Fork a branch anywhere after its first entry."""
        if not self.lines:
            return
        chain, made, _ = data.draw(st.sampled_from(self.lines))
        number = len([1 for other, _, _ in self.lines if self._same(other, chain)])
        if number >= BRANCHES_MAX:
            return
        other = chain.fork(data.draw(st.integers(1, len(made))))
        start = len(other.entries)
        other.extend([Step(b"fork %d" % number), *steps])
        if start == len(made):
            return
        store_chain(self.store, other, start, branch=None)
        self.lines.append((other, list(other.entries), number))

    @rule()
    def reopen(self) -> None:
        self.connection.close()
        self.connection = connect(self.path, None)
        self.store = Store(self.connection)
        self.sharing = Sharing(self.connection)

    @rule()
    def forget(self) -> None:
        self.store.forget()

    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        """A run served for any want is authentic, begins as asked, and is of that branch."""
        if not self.lines:
            return
        chain, made, _ = data.draw(st.sampled_from(self.lines))
        start = data.draw(st.integers(0, len(made) - 1))
        stop = data.draw(st.integers(start + 1, len(made)))
        run = read_run(self.store, want(chain, start, stop))
        assert run is not None
        found = [entry.id for entry in authentic(run)]
        assert len(found) == len(run.records)
        expected = [entry.id for entry in made[start:stop]]
        assert found[: len(expected)] == expected[: len(found)]
        assert len(found) >= len(expected) or len(run.records) > 1

    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        """A cover can be given for every entry that is stored."""
        if not self.lines:
            return
        chain, made, number = data.draw(st.sampled_from(self.lines))
        chat = self.store.chat(CHAT)
        assert chat is not None
        branch = chat.chains[chain.device, chain.lane][number]
        seq = data.draw(st.integers(branch.base, len(made) - 1))
        cover = read_cover(self.store, chat, chain.device, chain.lane, branch, seq)
        assert cover.headers[0] == made[seq].raw
        assert len(cover.headers) <= COVER_ENTRIES_MAX

    @invariant()
    def heads_are_known(self) -> None:
        for chain, made, number in getattr(self, "lines", []):
            chat = self.store.chat(CHAT)
            assert chat is not None
            branch = chat.chains[chain.device, chain.lane][number]
            assert (branch.length, branch.head) == (len(made), made[-1].id)

    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        """Every entry is found under its own place only, with the context that it leaves."""
        if not self.lines:
            return
        chain, made, number = data.draw(st.sampled_from(self.lines))
        chat = self.store.chat(CHAT)
        assert chat is not None
        place = chain.device, chain.lane
        seq = data.draw(st.integers(0, len(made) - 1))
        found = self.store.branch_of(chat, *place, seq, made[seq].id)
        assert found is not None
        assert self.store.branch_of(chat, *place, seq + 1, made[seq].id) is None
        assert self.store.branch_of(chat, place[0], 1 - place[1], seq, made[seq].id) is None
        branches = chat.chains[place]
        assert self.store.context_after(
            branches, branches[number], chain.lane, seq
        ) == chain.context(seq + 1)
        prev, context = self.store.context_before(branches, branches[number], chain.lane, seq)
        assert prev == (made[seq - 1].id if seq else None)
        assert context == (None if seq % 64 == 0 else chain.context(seq))

    @staticmethod
    def _same(one: Chain, other: Chain) -> bool:
        return (one.device, one.lane) == (other.device, other.lane)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=20)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(connect(tmp_path / "replica.db", None))


class TestFile:
    def test_only_the_owner_may_read_it(self, tmp_path: Path) -> None:
        connect(tmp_path / "replica.db", KEY).close()
        for file in tmp_path.iterdir():
            assert file.stat().st_mode & 0o077 == 0

    def test_encrypted_at_rest(self, tmp_path: Path) -> None:
        """I7: nothing of what is stored is in any file; without a key it is."""
        for key in (KEY, None):
            path = tmp_path / f"{key is None}.db"
            connection = connect(path, key)
            chain = Chain(signer("anna"), CHAT, CONTROL)
            chain.add(CANARY)
            with connection:
                store_chain(Store(connection), chain)
            found = [CANARY in file.read_bytes() for file in tmp_path.glob(path.name + "*")]
            connection.close()
            found.append(CANARY in path.read_bytes())
            assert any(found) == (key is None)

    @pytest.mark.parametrize("key", [bytes(32), None])
    def test_a_wrong_key(self, tmp_path: Path, key: bytes | None) -> None:
        connect(tmp_path / "replica.db", KEY).close()
        with pytest.raises(StorageError, match="wrong key"):
            connect(tmp_path / "replica.db", key)
        connect(tmp_path / "replica.db", KEY).close()

    def test_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "replica.db").write_bytes(b"not a database" * 1000)
        with pytest.raises(StorageError, match="not an Ivor database"):
            connect(tmp_path / "replica.db", None)
        for path in (tmp_path, tmp_path / "nowhere" / "replica.db"):
            with pytest.raises(StorageError, match="does not open"):
                connect(path, None)

    def test_another_version(self, tmp_path: Path) -> None:
        """Case 78: what a later Ivor wrote is left alone."""
        connection = connect(tmp_path / "replica.db", None)
        connection.pragma("user_version", SCHEMA_VERSION + 1)
        connection.close()
        before = (tmp_path / "replica.db").read_bytes()
        with pytest.raises(StorageError, match="use the Ivor that wrote it"):
            connect(tmp_path / "replica.db", None)
        assert (tmp_path / "replica.db").read_bytes() == before

    def test_incarnation(self, tmp_path: Path) -> None:
        """It stays with the file, and no two files have the same."""
        found = []
        for name in ("one", "one", "other"):
            connection = connect(tmp_path / name, None)
            found.append(Store(connection).incarnation)
            connection.close()
        assert found[0] == found[1] != found[2]
        assert len(found[0]) == 16

    def test_durable(self, store: Store) -> None:
        """I1: FULL, and a WAL; what is deleted is overwritten."""
        pragma = store.connection.pragma
        assert (pragma("synchronous"), pragma("journal_mode"), pragma("secure_delete")) == (
            2, "wal", 1,
        )  # fmt: skip


class TestRuns:
    def test_absent(self, store: Store) -> None:
        chain = long_chain(5)
        assert read_run(store, want(chain, 0, 5)) is None
        store_chain(store, chain)
        other = long_chain(5, name="boris")
        for wrong in (
            want(other, 0, 5),
            Want(CHAT, chain.device, CONTROL, chain.entries[4].id[:8], 0, 5),
            Want(ChatId(bytes(32)), chain.device, CONTENT, chain.entries[4].id[:8], 0, 5),
            Want(CHAT, chain.device, CONTENT, bytes(8), 0, 5),
            Want(CHAT, chain.device, CONTENT, chain.entries[4].id[:8], 0, 6),
        ):
            assert read_run(store, wrong) is None

    def test_the_fewest_signatures(self, store: Store) -> None:
        """All are stored, one in 64 and the last are sent."""
        chain = long_chain(300)
        store_chain(store, chain)
        run = read_run(store, want(chain, 0, 300))
        assert run is not None
        assert len(run.signatures) == 5
        assert len(authentic(run)) == 300

    def test_the_size_of_a_run(self, store: Store) -> None:
        chain = Chain(signer("anna"), CHAT, CONTENT)
        chain.extend([Step(bytes(PAYLOAD_BYTES_MAX))] * 9)
        chat = store.create_chat(CHAT)
        for seq in range(9):
            store.append(chat, authentic(chain.run(seq, seq + 1)), 0, 0)
        start = 0
        while start < 9:
            run = read_run(store, want(chain, start, 9))
            assert run is not None
            assert sum(len(bytes(record)) for record in run.records) <= RUN_BYTES_MAX
            start += len(authentic(run))

    def test_an_unsigned_head(self, store: Store) -> None:
        """What follows it up to a signed entry is kept, sent, and replaced by the next append."""
        chain = long_chain(40)
        entries = authentic(chain.run(0, 40, signed=[39]))
        chat = store.create_chat(CHAT)
        store.append(chat, entries[:10], 0, 0)
        assert read_run(store, want(chain, 0, 10)) is None
        store.keep_cover(chat, entries[9], entries[10:], 0)
        branch = chat.chains[chain.device, CONTENT][0]
        assert branch.length == 10
        run = read_run(store, want(chain, 3, 10))
        assert run is not None
        assert [entry.id for entry in authentic(run)][:7] == [m.id for m in chain.entries[3:10]]
        assert len(read_cover(store, chat, chain.device, CONTENT, branch, 9).headers) == 31
        store.keep_cover(chat, entries[8], entries[9:], 0)
        other = chain.fork(10)
        other.add(b"another")
        store.append(chat, authentic(other.run(10)), 0, 0)
        rows = store.connection.execute("SELECT count(*) FROM entries").get
        assert rows == 11

    def test_control_order(self, store: Store) -> None:
        """Control entries come back in the order of their admission, content is not among them."""
        one, other = long_chain(4, CONTROL), long_chain(4, CONTROL, "boris")
        store_chain(store, long_chain(3))
        chat = store_chain(store, one, 0, 2)
        store_chain(store, other, 0, 3)
        store_chain(store, one, 2, 4)
        numbers = [branch.no for chain in (one, other) for branch in self.branches(chat, chain)]
        assert [(numbers.index(at >> 32), at & 0xFF) for at in store.control_order(chat)] == [
            (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (0, 2), (0, 3),
        ]  # fmt: skip

    @staticmethod
    def branches(chat: StoredChat, chain: Chain) -> list[Branch]:
        return chat.chains[chain.device, chain.lane]

    def test_chats(self, store: Store) -> None:
        ids = [ChatId(bytes([number]) * 32) for number in (7, 3, 5)]
        for chat in ids:
            assert store.chat(chat) is None
            store.create_chat(chat)
            assert store.create_chat(chat) is store.chat(chat)
        assert store.chats() == ids


def changed(chats: list[int], read: set[int]) -> apsw.Connection:
    """Return tables in which a chain of each of these chats changed, in this order.

    read: those that PEER may see.
    """
    connection = apsw.Connection(":memory:")
    connection.execute(SCHEMA)
    connection.executemany(
        "INSERT INTO chats VALUES (?, ?)",
        [(chat + 1, chat.to_bytes(32)) for chat in {*chats, *read}],
    )
    connection.executemany(
        "INSERT INTO chains (chat, device, lane, branch, base, length, head, changed)"
        " VALUES (?, ?, 0, 0, 0, 1, zeroblob(32), ?)",
        [(chat + 1, number.to_bytes(32), number) for number, chat in enumerate(chats, 1)],
    )
    connection.executemany("INSERT INTO readers VALUES (?, ?)", [(PEER, chat + 1) for chat in read])
    return connection


def pages(store: Store, cursor: int) -> tuple[int, list[Head]]:
    """Return the cursor and all heads of the pages since `cursor`."""
    sharing = Sharing(store.connection)
    heads: list[Head] = []
    while True:
        page: Heads = sharing.heads_since(PEER, cursor)
        assert page.cursor >= cursor
        cursor = page.cursor
        heads += [head for item in page.chats for head in item.heads]
        if page.last:
            return cursor, heads


class TestHeads:
    """I15: every change exactly once."""

    def test_pages(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("node.sharing.HEADS_CHAINS_MAX", 3)
        sharing = Sharing(store.connection)
        chains = [long_chain(4, lane, f"{n}") for n in range(5) for lane in (CONTROL, CONTENT)]
        for chain in chains:
            store_chain(store, chain, 0, 2)
        sharing.set_readers(store.create_chat(CHAT), {PEER})
        cursor, heads = pages(store, 0)
        assert set(heads) == {self.head(chain, 2) for chain in chains}
        assert len(heads) == len(chains)
        assert pages(store, cursor) == (cursor, [])
        store_chain(store, chains[4], 2, 3)
        store_chain(store, chains[2], 2, 4)
        later, heads = pages(store, cursor)
        assert heads == [self.head(chains[4], 3), self.head(chains[2], 4)]
        assert later > cursor
        assert pages(store, later) == (later, [])

    @given(st.lists(st.integers(0, 5), max_size=40), st.sets(st.integers(0, 5)), st.integers(0, 40))
    def test_both_walks_find_the_same(self, chats: list[int], read: set[int], cursor: int) -> None:
        """By changes and by chats: which is shorter decides about the time, and nothing else."""
        connection = changed(chats, read)
        asked = {"prefix": 8, "peer": PEER, "cursor": cursor, "most": 20}
        walks = HEADS_OF_FEW_CHANGES, HEADS_OF_FEW_CHATS
        one, other = (connection.execute(walk, asked).fetchall() for walk in walks)
        assert one == other

    @pytest.mark.parametrize(("mine", "since"), [(1000, 1), (1, 1000)])
    def test_the_shorter_walk_is_taken(self, mine: int, since: int) -> None:
        """Of a thousand chats one has changed; or of a thousand that have changed one is ours."""
        steps = itertools.count()
        connection = changed(list(range(1000)), set(range(1000 - mine, 1000)))
        sharing = Sharing(connection)
        connection.set_progress_handler(lambda: next(steps) < 0, 10)
        assert len(sharing.heads_since(PEER, 1000 - since).chats) == 1
        assert len(sharing.heads_at(PEER, [1000]).chats) == 1
        assert next(steps) < 40

    @staticmethod
    def head(chain: Chain, length: int) -> Head:
        prefix = chain.entries[length - 1].id[:8]
        return Head(chain.device, chain.lane, length - 1, prefix)

    def test_only_readers(self, store: Store) -> None:
        """I8, case 48."""
        sharing = Sharing(store.connection)
        chat = store_chain(store, long_chain(2))
        assert pages(store, 0)[1] == []
        assert not sharing.may_read(PEER, CHAT)
        sharing.set_readers(chat, {PEER})
        assert sharing.may_read(PEER, CHAT)
        assert not sharing.may_read(PEER, ChatId(bytes(32)))
        assert sharing.readers(chat) == {PEER}
        assert len(pages(store, 0)[1]) == 1
        sharing.set_readers(chat, set())
        assert not sharing.may_read(PEER, CHAT)
        assert pages(store, 0)[1] == []

    def test_a_new_reader_is_told_of_all(self, store: Store) -> None:
        sharing = Sharing(store.connection)
        chat = store_chain(store, long_chain(2))
        store_chain(store, long_chain(2, CONTROL))
        cursor, _ = pages(store, 0)
        sharing.set_readers(chat, {PEER})
        store.touch(chat)
        assert len(pages(store, cursor)[1]) == 2


class TestSharing:
    @pytest.mark.parametrize("left", [False, True])
    def test_a_new_device_waits_for_its_users_chats(self, *, left: bool) -> None:
        """It is asked about at each enrolment: what others see is not looked through."""
        steps = itertools.count()
        connection = changed(list(range(1000)), set(range(1000)))
        own, others, fresh, user = bytes(32), PEER, b"f" * 32, b"u" * 32
        connection.executemany(
            "INSERT INTO devices VALUES (?, ?, x'', NULL, 0, ?)",
            [(own, user, 0), (others, b"v" * 32, 0), (fresh, user, 1)],
        )
        seen = "former (peer, chat, departure) VALUES (?, 7, 1)"
        seen = seen if left else "readers (peer, chat) VALUES (?, 7)"
        connection.execute(f"INSERT INTO {seen}", (own,))
        connection.set_progress_handler(lambda: next(steps) < 0, 10)
        assert Sharing(connection).awaiting() == [ChatId((6).to_bytes(32))]
        assert next(steps) < 30
        connection.execute("INSERT INTO readers VALUES (?, 9)", (fresh,))
        assert Sharing(connection).awaiting() == []

    def test_so_it_does_where_its_users_devices_are_forgotten(self) -> None:
        """Regression: a user enrolled after the backup of a restored node came into no chat."""
        connection = changed(list(range(10)), set())
        agency, forgotten, fresh, user = b"a" * 32, b"o" * 32, b"f" * 32, b"u" * 32
        connection.execute("INSERT INTO devices VALUES (?, ?, x'', NULL, 0, 1)", (fresh, user))
        connection.execute(
            "INSERT INTO users (id, agency, name, charter, certificate)"
            " VALUES (?, ?, 'anna@minzdrav', x'', x'')",
            (user, agency),
        )
        connection.executemany("INSERT INTO readers VALUES (?, 7)", [(agency,), (forgotten,)])
        connection.execute("INSERT INTO readers VALUES (?, 8)", (agency,))
        assert Sharing(connection).awaiting() == []
        begin_anew(connection, os.urandom)
        assert Sharing(connection).awaiting() == [ChatId((6).to_bytes(32))]

    def test_holdings_of_one_device_among_many(self) -> None:
        """A device that connects is told who stores what it wrote; nobody else's rows are read."""
        steps = itertools.count()
        connection = changed([], set(range(1000)))
        connection.executemany(
            "INSERT INTO holdings VALUES (?, ?, 0, zeroblob(32), 1)",
            [(chat + 1, device) for chat in range(1000) for device in (KEY, bytes(32))]
            + [(7, PEER)],
        )
        connection.set_progress_handler(lambda: next(steps) < 0, 10)
        assert len(Sharing(connection).holdings(PEER)) == 1
        assert next(steps) < 20

    def test_cursors(self, store: Store) -> None:
        sharing = Sharing(store.connection)
        assert sharing.cursor(PEER) == (None, 0)
        for incarnation, cursor in ((b"a" * 16, 7), (b"b" * 16, 3)):
            sharing.save_cursor(PEER, incarnation, cursor)
            assert sharing.cursor(PEER) == (incarnation, cursor)

    def test_holdings_never_shrink(self, store: Store) -> None:
        sharing = Sharing(store.connection)
        chat = store.create_chat(CHAT)
        device = DeviceKey(b"d" * 32)
        for seq in (5, 3, 9):
            sharing.note_holdings(chat, [Holding(PEER, CHAT, device, CONTENT, seq)])
        assert sharing.holdings(device) == [Holding(PEER, CHAT, device, CONTENT, 9)]

    def test_few_proofs_of_one_chain(self, store: Store) -> None:
        """Whoever forks at each seq fills no disk."""
        sharing = Sharing(store.connection)
        chat = store.create_chat(CHAT)
        chain = long_chain(20)
        kept = []
        for at in range(20):
            other = chain.fork(at)
            other.add(b"fork")
            fork = verify_fork(encode_proof(chain.cover(at), other.cover(at)))
            kept.append(sharing.keep_fork(chat, fork))
            assert not sharing.keep_fork(chat, fork)
        assert kept == [True] * BRANCHES_MAX + [False] * (20 - BRANCHES_MAX)
        assert len(sharing.forks(chat)) == BRANCHES_MAX

    def test_seals(self, store: Store) -> None:
        sharing = Sharing(store.connection)
        epoch = EntryId(b"e" * 32)
        seals = [Seal(at, bytes([at]) * SEALED_BYTES, (bytes(32), b"h" * 32)) for at in (1, 4)]
        assert sharing.keep_seals(epoch, seals) == list(seals)
        assert sharing.keep_seals(epoch, [*seals, *seals]) == [], "case 36: handed on once"
        assert sharing.seals(epoch, range(6)) == seals
        assert sharing.seals(EntryId(bytes(32)), range(6)) == []

    def test_sealless(self, store: Store) -> None:
        sharing = Sharing(store.connection)
        chat = store.create_chat(CHAT)
        sharing.set_readers(chat, {PEER})
        epochs = [EntryId(bytes([number]) * 32) for number in range(3)]
        for epoch in (*epochs, epochs[0]):
            sharing.note_sealless(chat, epoch)
        found = sharing.sealless(PEER, NEWEST)
        assert [epoch for _, _, epoch in found] == epochs[::-1]
        assert sharing.sealless(b"nobody", NEWEST) == []
        assert sharing.sealless(PEER, found[0][0]) == found[1:]
        sharing.forget_sealless(epochs[1])
        assert [epoch for _, _, epoch in sharing.sealless(PEER, NEWEST)] == [epochs[2], epochs[0]]


def test_entries_are_values() -> None:
    """What is stored is what was verified: record, id and signature, nothing made up."""
    entry = authentic(long_chain(1).run())[0]
    assert isinstance(entry, Entry)
    assert entry.signature == long_chain(1).entries[0].signature
