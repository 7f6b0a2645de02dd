"""SPEC 2.6 at a replica: bytes go from the files, entries stay, nobody hides what is not gone."""

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from node import payloads as node_payloads
from node.database import connect, empty_log
from node.replica import Replica
from node.stored import Stored
from protocol.entry import CONTENT, ChatId, EntryId, Reference
from protocol.frame import Run, Want, authentic
from protocol.operation import Hold, Operation, Redact, SetPolicy, SetRole
from protocol.policy import HistoryRule, Policy, Role
from protocol.run import pack
from protocol.testing.cast import Person, agency
from protocol.testing.chains import Chain, Step
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.story import Seen

MZ = agency("mz").root.public
MVD = agency("mvd").root.public
DAY_MS = 24 * 3600 * 1000
START_MS = 1000  # entries of the tests have times of some milliseconds


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START_MS

    def __call__(self) -> int:
        return self.now


class Node:
    """The replica of an agency's node, with its files."""

    def __init__(self, path: Path, home: bytes = MZ) -> None:
        self.path = path
        self.clock = Clock()
        self.home = home
        self.open()

    def open(self) -> None:
        self.replica = Replica(connect(self.path, None), self.home, self.home, self.clock)

    def restart(self) -> None:
        self.replica.store.connection.close()
        self.open()

    def take(self, *runs: Run) -> list[Stored]:
        found: list[Stored] = []
        with self.replica.store.connection:
            parts = [(run, authentic(run)) for run in runs]
            found += self.replica.append_together(parts, MVD)
        return found

    def age(self, chat: ChatId) -> None:
        at: int | None = 0
        while at is not None:
            with self.replica.store.connection:
                at = self.replica.age(chat, at)

    def on_disk(self, payload: bytes) -> bool:
        """Whether any 32 bytes of a canary are in the files, once the log is emptied."""
        if self.replica.payloads.unscrubbed:
            assert empty_log(self.replica.store.connection)
        files = b"".join(file.read_bytes() for file in self.path.parent.glob(self.path.name + "*"))
        return any(payload[at : at + 32] in files for at in range(0, len(payload), 32))

    def served(self, chat: ChatId, place: Reference) -> Run:
        want = Want(chat, place.device, CONTENT, place.id[:8], place.seq, place.seq + 1)
        run = self.replica.serve(want, MVD)
        assert run is not None
        return run

    def payload(self, chat: ChatId, place: Reference) -> bytes | None:
        return authentic(self.served(chat, place))[0].payload

    def rows(self) -> list[tuple[bytes, bytes, int]]:
        return [
            (bytes(entry), bytes(ground), int(wanted))
            for entry, ground, wanted in self.replica.store.connection.execute(
                "SELECT id, ground, wanted FROM dropped ORDER BY place"
            )
        ]


def canary(number: int) -> bytes:
    """A payload that is longer than a page, so that it has pages of its own."""
    return b"".join(sha256(b"%d %d" % (number, part)).digest() for part in range(400))


@pytest.fixture
def talk() -> Conversation:
    made = conversation(Dice(5), 0)
    for number in range(6):
        made.say(made.people[number % 2], canary(number))
    return made


@pytest.fixture
def here(tmp_path: Path, talk: Conversation) -> Node:
    node = Node(tmp_path / "node.db")
    for run in talk.runs:
        node.take(run)
    return node


def place(talk: Conversation, who: int, seq: int) -> Reference:
    return talk.chains[talk.people[who].devices[0], CONTENT].entries[seq].reference


def say(talk: Conversation, who: Person, operation: Operation, seen: Seen | None = None) -> Run:
    """Append a control entry of the first device; return its run."""
    told = talk.story.tell(who, operation, seen)
    talk.tell(who, told)
    return talk.runs[-1]


def redaction(target: Reference) -> Redact:
    return Redact(target.device, CONTENT, target.seq, target.id, "not for here")


def keep_for(seconds: int) -> SetPolicy:
    return SetPolicy(Policy(("RU",), seconds, HistoryRule.FROM_JOIN))


def bare(talk: Conversation, target: Reference, ground: Reference) -> Run:
    chain = talk.chains[target.device, CONTENT]
    run = chain.run(target.seq, target.seq + 1)
    record = pack(chain.entries[target.seq].header, ground, chain.context(target.seq))
    return msgspec.structs.replace(run, records=(msgspec.Raw(record),))


def told_gone(talk: Conversation, tmp_path: Path, targets: Mapping[EntryId, Reference]) -> Node:
    """Return a node to which the payloads of these came as gone, though they have not aged."""
    say(talk, talk.people[0], keep_for(DAY_MS // 1000))
    ground = talk.story.told[-1].reference
    node = Node(tmp_path / "node.db")
    for run in sorted(talk.runs, key=lambda run: run.lane):
        first = authentic(run)[0].id
        node.take(bare(talk, targets[first], ground) if first in targets else run)
    return node


class TestRedacted:
    def test_bytes_are_gone_and_the_chain_verifies(self, talk: Conversation, here: Node) -> None:
        """Of the files too, and after a restart; what is beside it stays."""
        target = place(talk, 1, 1)
        assert here.on_disk(canary(3))
        run = say(talk, talk.people[1], redaction(target))
        here.take(run)
        for _ in range(2):
            assert not here.on_disk(canary(3))
            assert here.on_disk(canary(1))
            assert here.on_disk(canary(5))
            chain = talk.chains[target.device, CONTENT]
            want = Want(talk.chat, target.device, CONTENT, chain.entries[2].id[:8], 0, 3)
            served = here.replica.serve(want, MVD)
            assert served is not None
            entries = authentic(served)
            assert [entry.id for entry in entries] == [made.id for made in chain.entries]
            assert [entry.payload is None for entry in entries] == [False, True, False]
            ground = authentic(run)[0]
            assert entries[1].ground == Reference(target.device, ground.header.seq, ground.id)
            here.restart()

    def test_another_node_takes_it_on(self, talk: Conversation, here: Node, tmp_path: Path) -> None:
        """Headers reach who comes later, with the ground, and go on from there."""
        target = place(talk, 0, 1)
        here.take(say(talk, talk.people[0], redaction(target)))
        there = Node(tmp_path / "there.db", MVD)
        given = here.served(talk.chat, target)
        for run in talk.runs[:-1]:
            if authentic(run)[0].id != target.id:
                there.take(run)
                continue
            (stored,) = there.take(given)
            assert [item.id for item in stored.outcome.missing] == [authentic(talk.runs[-1])[0].id]
        there.take(talk.runs[-1])
        assert there.take(given)[0].outcome.reached == target.seq + 1
        for run in talk.runs:
            there.take(run)
        assert there.payload(talk.chat, target) is None
        assert there.rows() == here.rows()

    def test_a_payload_that_comes_late(self, talk: Conversation, tmp_path: Path) -> None:
        """It is neither stored nor handed on."""
        target = place(talk, 1, 2)
        say(talk, talk.people[1], redaction(target))
        late = next(run for run in talk.runs if authentic(run)[0].id == target.id)
        node = Node(tmp_path / "late.db")
        for run in talk.runs:
            if run is not late:
                node.take(run)
        (stored,) = node.take(late)
        assert stored.appended == 1
        assert not node.on_disk(canary(5))
        assert node.payload(talk.chat, target) is None
        assert authentic(stored.verified)[0].payload is None
        node.take(late)
        assert not node.on_disk(canary(5))

    def test_a_redaction_without_authority(self, talk: Conversation, here: Node) -> None:
        target = place(talk, 0, 0)
        here.take(say(talk, talk.people[2], redaction(target)))
        assert here.payload(talk.chat, target) == canary(0)

    def test_a_redaction_that_gains_effect_later(self, talk: Conversation, here: Node) -> None:
        """An owner demotes an admin, the others undo that before anybody saw it."""
        target = place(talk, 0, 0)
        start = [talk.story.told[-1]]
        anna, boris = talk.people[:2]
        here.take(say(talk, anna, SetRole(boris.user, Role.MEMBER, ()), start))
        here.take(say(talk, boris, redaction(target), start))
        assert here.payload(talk.chat, target) == canary(0)
        quorum = talk.story.quorum(anna, [SetRole(boris.user, Role.OWNER, ())], [])
        undone = say(talk, anna, quorum, start)
        here.take(undone)
        judge = here.replica.chat(talk.chat)
        assert judge is not None
        redacted = target in judge.redactions.of()
        assert (here.payload(talk.chat, target) is None) is redacted

    def test_what_stands_where_a_redacted_cover_was(self, talk: Conversation, here: Node) -> None:
        """What only covered may be redacted, and then another entry takes its place."""
        chain = Chain(talk.people[2].signers[0], talk.chat, CONTENT)
        chain.add(Step(b"0", control=talk.story.heads(), epoch=talk.epochs[-1]))
        cover = chain.add(Step(canary(20), generation=99))
        (stored,) = here.take(chain.run(signed=[1]))
        assert stored.appended == 1
        here.take(say(talk, talk.people[0], redaction(cover.reference)))
        other = chain.fork(1)
        target = other.add(canary(21)).reference
        (stored,) = here.take(other.run(1))
        assert stored.appended == 1
        run = say(talk, talk.people[0], redaction(target))
        here.take(run)
        assert here.payload(talk.chat, target) is None
        assert not here.on_disk(canary(21))
        assert (target.id, authentic(run)[0].id, 0) in here.rows()


class TestAged:
    def test_after_the_retention_and_not_before(self, talk: Conversation, here: Node) -> None:
        run = say(talk, talk.people[0], keep_for(DAY_MS // 1000))
        here.take(run)
        here.clock.now += DAY_MS - 1
        here.age(talk.chat)
        assert here.rows() == []
        here.clock.now += 1
        here.age(talk.chat)
        assert len(here.rows()) == 6
        assert not any(here.on_disk(canary(number)) for number in range(6))
        here.restart()
        assert here.payload(talk.chat, place(talk, 0, 2)) is None

    def test_what_only_covers(self, talk: Conversation, here: Node) -> None:
        """What no rule allows may stand behind a head for ever, to show that the head is signed."""
        chain = Chain(talk.people[2].signers[0], talk.chat, CONTENT)
        head = chain.add(Step(b"0", control=talk.story.heads(), epoch=talk.epochs[-1]))
        chain.add(Step(canary(20), generation=99))
        here.take(say(talk, talk.people[0], keep_for(DAY_MS // 1000)))
        (stored,) = here.take(chain.run(signed=[1]))
        assert stored.appended == 1
        here.clock.now += DAY_MS
        here.age(talk.chat)
        assert not here.on_disk(canary(20))
        run = here.served(talk.chat, head.reference)
        assert len(authentic(run)) == len(run.records) == 2

    def test_what_was_a_cover_when_it_aged(self, talk: Conversation, here: Node) -> None:
        """What it waited for has come: it is here anew, and may be redacted."""
        late = Chain(talk.people[3].signers[0], talk.chat, CONTENT)
        awaited = late.add(Step(b"late", control=talk.story.heads(), epoch=talk.epochs[-1]))
        chain = Chain(talk.people[2].signers[0], talk.chat, CONTENT)
        chain.add(Step(b"0", control=talk.story.heads(), epoch=talk.epochs[-1]))
        target = chain.add(Step(canary(20), links=(awaited.reference,))).reference
        here.take(say(talk, talk.people[0], keep_for(DAY_MS // 1000)))
        here.take(chain.run(signed=[1]))
        here.clock.now += DAY_MS
        here.age(talk.chat)
        here.take(late.run(), chain.run(1))
        assert here.payload(talk.chat, target) == canary(20)
        assert target.id not in {entry for entry, _, _ in here.rows()}
        here.take(say(talk, talk.people[0], redaction(target)))
        assert not here.on_disk(canary(20))

    def test_by_the_later_of_two_times(self, talk: Conversation, here: Node) -> None:
        """A node that was away keeps what it got late as long as the others did."""
        here.take(say(talk, talk.people[0], keep_for(DAY_MS // 1000)))
        here.clock.now += DAY_MS // 2
        talk.say(talk.people[0], canary(9))
        here.take(talk.runs[-1])
        here.clock.now += DAY_MS // 2
        here.age(talk.chat)
        assert here.payload(talk.chat, place(talk, 0, 3)) == canary(9)
        assert len(here.rows()) == 6

    def test_no_retention(self, talk: Conversation, here: Node) -> None:
        here.clock.now += 100 * DAY_MS
        here.age(talk.chat)
        assert here.rows() == []

    def test_a_chat_without_retention_is_looked_at_once(
        self, talk: Conversation, here: Node
    ) -> None:
        """Until its control lane changes, or a rollback takes back what that was seen by."""
        ageless = here.replica.payloads.ageless
        here.age(talk.chat)
        assert ageless == {talk.chat}
        here.replica.forget()
        assert not ageless
        here.age(talk.chat)
        here.take(say(talk, talk.people[0], keep_for(DAY_MS // 1000)))
        assert not ageless
        here.clock.now += DAY_MS
        here.age(talk.chat)
        assert len(here.rows()) == 6
        assert not ageless

    @pytest.mark.parametrize(("home", "kept"), [(MZ, True), (MVD, False)])
    def test_a_custodian(
        self,
        talk: Conversation,
        tmp_path: Path,
        home: bytes,
        kept: bool,  # noqa: FBT001 - a column
    ) -> None:
        """The agency of a custodian keeps what ages; what is redacted goes there too."""
        node = Node(tmp_path / "node.db", home)
        clara = talk.people[2]
        say(talk, talk.people[0], keep_for(60))
        say(talk, talk.people[0], Hold(clara.user, ends=False))
        for run in talk.runs:
            node.take(run)
        node.clock.now += DAY_MS
        node.age(talk.chat)
        target = place(talk, 0, 0)
        assert (node.payload(talk.chat, target) == canary(0)) is kept
        node.take(say(talk, talk.people[0], redaction(target)))
        assert node.payload(talk.chat, target) is None
        node.take(say(talk, talk.people[0], Hold(clara.user, ends=True)))
        node.age(talk.chat)
        assert node.payload(talk.chat, place(talk, 1, 0)) is None


def _first_bytes(source: bytes, size: int) -> bytes:
    return source[:size]


class TestWanted:
    """A node says "gone" of what is not."""

    def test_without_a_ground(self, talk: Conversation, tmp_path: Path) -> None:
        target = place(talk, 0, 2)
        node = Node(tmp_path / "node.db")
        for run in talk.runs:
            if authentic(run)[0].id != target.id:
                node.take(run)
        (stored,) = node.take(bare(talk, target, talk.story.genesis.reference))
        assert (stored.appended, stored.outcome.refused) == (0, True)
        (stored,) = node.take(talk.chains[target.device, CONTENT].run(2))
        assert stored.appended == 1

    def test_too_early(self, talk: Conversation, tmp_path: Path) -> None:
        """It is taken, since the ground is one; but its payload is asked of others."""
        target = place(talk, 0, 2)
        say(talk, talk.people[0], keep_for(DAY_MS // 1000))
        ground = talk.story.told[-1].reference
        node = Node(tmp_path / "node.db")
        for run in talk.runs:
            node.take(bare(talk, target, ground) if authentic(run)[0].id == target.id else run)
        node.take(bare(talk, target, ground))
        assert node.rows() == [(target.id, ground.id, 1)]
        (want,) = node.replica.payloads.wanted(MVD)
        assert (want.start, want.stop, want.prefix) == (2, 3, target.id[:8])
        assert node.replica.payloads.wanted(b"stranger") == []
        (stored,) = node.take(talk.chains[target.device, CONTENT].run(2))
        assert (stored.outcome.reached, stored.outcome.refused) == (3, False)
        assert node.payload(talk.chat, target) == canary(4)
        assert node.rows() == []

    def test_others_each_time(
        self, talk: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where more are wanted than are asked for at once, none has to wait for the others."""
        targets = {one.id: one for one in (place(talk, *at) for at in ((0, 0), (0, 2), (1, 1)))}
        payloads = told_gone(talk, tmp_path, targets).replica.payloads
        assert len(payloads.wanted(MVD)) == len(targets)
        monkeypatch.setattr(node_payloads, "WANTED_MAX", 1)
        for start in targets:
            payloads.random = partial(_first_bytes, start)
            assert [want.prefix for want in payloads.wanted(MVD)] == [start[:8]]
        payloads.random = partial(_first_bytes, b"\xff" * 32)
        assert [want.prefix for want in payloads.wanted(MVD)] == [min(targets)[:8]]

    def test_those_that_follow_each_other_are_one_want(
        self, talk: Conversation, tmp_path: Path
    ) -> None:
        targets = {one.id: one for one in (place(talk, 0, seq) for seq in range(3))}
        node = told_gone(talk, tmp_path, targets)
        payloads, last = node.replica.payloads, place(talk, 0, 2)
        payloads.random = partial(_first_bytes, place(talk, 0, 0).id)
        (want,) = payloads.wanted(MVD)
        assert (want.start, want.stop, want.prefix) == (0, 3, last.id[:8])
        payloads.random = partial(_first_bytes, place(talk, 0, 1).id)
        assert [(want.start, want.stop) for want in payloads.wanted(MVD)] == [(1, 3), (0, 1)]
        node.take(talk.chains[last.device, CONTENT].run())
        assert payloads.wanted(MVD) == []
        assert node.payload(talk.chat, last) == canary(4)

    def test_redacted_after_all(self, talk: Conversation, tmp_path: Path) -> None:
        target = place(talk, 0, 2)
        say(talk, talk.people[0], keep_for(DAY_MS // 1000))
        ground = talk.story.told[-1].reference
        node = Node(tmp_path / "node.db")
        for run in talk.runs:
            if authentic(run)[0].id != target.id:
                node.take(run)
        node.take(bare(talk, target, ground))
        run = say(talk, talk.people[0], redaction(target))
        node.take(run)
        assert node.rows() == [(target.id, authentic(run)[0].id, 0)]
        node.take(talk.chains[target.device, CONTENT].run(2))
        assert node.payload(talk.chat, target) is None
