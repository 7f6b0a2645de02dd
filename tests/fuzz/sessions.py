"""Whole sessions: what a member who has lost all honesty may say to a replica, in any order.

An input is a program, a byte or a few for each step: the next frame of an honest session, one from
elsewhere, one that was changed, one that was changed and signed again by its author, an entry that
a member's device forges, a commit, a clock that goes on, a new connection. Whatever it does, only a
PeerError may come out, and that ends the session; what the replica remembers of the peer stays
within SPEC 6.6; and what is stored in the end keeps nothing honest out, and means the same to all.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from random import Random
from typing import Final

import msgspec

from protocol.entry import (
    CONTENT,
    CONTROL,
    SIGNATURE_LABEL,
    EntryId,
    Reference,
    check_signature,
    encode_header,
    entry_id,
)
from protocol.errors import PeerError
from protocol.frame import (
    LENGTH_BYTES,
    Absent,
    Answer,
    Ask,
    Bye,
    Error,
    Forked,
    Frame,
    Graft,
    Have,
    Head,
    Heads,
    Hello,
    Holding,
    IHave,
    Ping,
    Pong,
    Prune,
    Run,
    Seal,
    Seals,
    Seen,
    WantSeals,
    authentic,
    decode_frame,
    encode_frame,
)
from protocol.limits import COVER_ENTRIES_MAX, LINKS_MAX, SEQ_MAX, SIGNATURE_BYTES
from protocol.operation import (
    Admit,
    Checkpoint,
    Enroll,
    Hold,
    Leave,
    Nack,
    Operation,
    Redact,
    Remove,
    SetPolicy,
    SetRole,
    kind_of,
)
from protocol.payload import encode_operation
from protocol.policy import HistoryRule, Policy, Role
from protocol.reconcile import Reconciliation, tabulate
from protocol.run import Entry, rebuild
from protocol.session import PeerKind, State
from protocol.testing.cast import Person, credential, grant, person, seed
from protocol.testing.chains import Chain, Step
from protocol.testing.conversations import Conversation, conversation
from protocol.testing.histories import Dice
from protocol.testing.network import Network, Replica
from tests.fuzz.attacked import THEIRS, Attacked, check_bounds
from tests.fuzz.mutation import bytewise, tree
from tests.fuzz.once import verified_once
from tests.fuzz.target import target

STEPS_MAX: Final = 100


@cache
def _talk() -> Conversation:
    """A chat of four, with two epochs and a fork in it."""
    talk = conversation(Dice(3), 6, epochs=4)
    talk.runs.append(talk.fork(talk.people[3], 0, 2).run())
    return talk


@cache
def _told() -> Sequence[tuple[Run, Sequence[Entry]]]:
    """The runs of the chat, verified once for all inputs."""
    return [(run, authentic(run)) for run in _talk().runs]


@cache
def _honest() -> Replica:
    return _filled(_told())


def _filled(parts: Sequence[tuple[Run, Sequence[Entry]]]) -> Replica:
    replica = Replica("honest")
    for part in parts:
        replica.admit([part])
    return replica


@cache
def _trace() -> Sequence[bytes]:
    """What an honest peer says to an empty replica, in order."""
    network = Network(Dice(1), [_filled(_told()), Replica("south")])
    north, _ = network.connect(0, 1)
    network.settle()
    return [encode_frame(frame)[LENGTH_BYTES:] for frame in north.sent]


@cache
def _frames() -> Sequence[bytes]:
    """Frames of each kind that fit the chat: what was said, and what else could have been."""
    network = Network(Dice(2), [_filled(_told()[:6]), _filled(_told())])
    one, other = network.connect(0, 1)
    network.settle()
    said = [*one.sent, *other.sent]
    return [encode_frame(frame)[LENGTH_BYTES:] for frame in (*said, *_more())]


def _more() -> Iterator[Frame]:
    talk = _talk()
    chain, branch = talk.chain(talk.people[3], 1), talk.fork(talk.people[3], 0, 2)
    kept = _honest().chats[talk.chat]
    yield from talk.runs
    yield from (Forked(talk.chat, proof) for proof in kept.proofs.values())
    yield branch.run(0, 2, [1])
    yield Have((Holding(chain.device, talk.chat, chain.device, 1, 0),))
    yield Absent(talk.chat, chain.device, 1, 0)
    yield WantSeals(talk.chat, talk.epochs[0], (chain.device,))
    yield WantSeals(talk.chat, talk.epochs[0], ())
    yield Heads(7, 1, ())
    yield Seals(talk.chat, talk.epochs[0], (Seal(0, bytes(1184), (seed("path"),)),))
    yield from (Ask(1, 1, b"\x92\x90\x90"), Answer(1, 0, b"\x90"), Seen(3), Ping(), Pong())
    head = Head(chain.device, 1, 0, chain.entries[0].id[:8])
    yield from (IHave(talk.chat, (head,)), Graft(talk.chat, head), Prune(talk.chat))
    nothing = Reconciliation(tabulate(b"", (), 0))
    yield from (nothing.begin(0), nothing.begin(1))
    yield from (Hello((1,), THEIRS, None, 0, bytes(16)), Error(1, b"text"), Bye())


@cache
def _operations() -> Sequence[Operation]:
    """What a member might try, sensible or not."""
    talk = _talk()
    written = talk.chain(talk.people[3], CONTENT)
    seen = (written.entries[0].reference,)
    found: list[Operation] = [Leave(), Checkpoint(talk.story.heads())]
    found += (Nack(epoch, 1) for epoch in talk.epochs)
    found += (Redact(written.device, 1, 0, entry, "") for entry in (seen[0].id, EntryId(bytes(32))))
    found += (SetPolicy(Policy((zone,), 60, HistoryRule.SHARED)) for zone in ("RU", "RU-UDM"))
    found.append(Admit((grant(person("egor@mvd"), Role.MEMBER),)))
    for who in talk.people:
        found += (Remove(who.user, seen), Hold(who.user, ends=False), Hold(who.user, ends=True))
        found += (SetRole(who.user, role, ()) for role in Role)
        found += (Enroll(credential(who, (1,))), talk.story.epoch(who, who.devices))
    return found


class Program:
    """The steps of an input."""

    def __init__(self, data: bytes) -> None:
        kinds = list(PeerKind)
        self._left = deque(data)
        self._next = 0
        self._chains: dict[tuple[Person, int], Chain] = {}
        self.attacked = Attacked(kinds[self._byte() % len(kinds)])
        for part in _told()[: self._byte() % (len(_told()) + 1)]:
            self.attacked.replica.admit([part])

    def run(self) -> None:
        """Carry all steps out. A session that a PeerError ended is followed by another."""
        self._connect()
        for _ in range(STEPS_MAX):
            if not self._left:
                return
            try:
                self._steps[self._byte() % len(self._steps)](self)
            except PeerError:
                self._connect()
            check_bounds(self.attacked.session)
            if self.attacked.session.state is State.CLOSED:
                self._connect()

    def _byte(self) -> int:
        return self._left.popleft() if self._left else 0

    def _say_next(self) -> None:
        self.attacked.hear(_trace()[self._next % len(_trace())])
        self._next += 1

    def _chosen(self) -> bytes:
        return _frames()[self._byte() % len(_frames())]

    def _say(self) -> None:
        self.attacked.hear(self._chosen())

    def _say_changed(self) -> None:
        self.attacked.hear(tree(self._chosen(), self._dice()))

    def _say_signed(self) -> None:
        self.attacked.hear(encode_frame(_signed(tree(self._chosen(), self._dice())))[LENGTH_BYTES:])

    def _say_forged(self) -> None:
        """Say an entry that a member's device has signed, at its place or on another branch.

        Or one that it has not signed: then it is somebody else who forges.
        """
        who, lane = _talk().people[self._byte() % len(_talk().people)], self._byte() % 2
        known = self._chains.get((who, lane)) or _talk().chain(who, lane)
        at = max(0, len(known.entries) - self._byte() % 3 // 2)
        chain, signed = known.fork(at), self._byte() % 4
        if signed:
            self._chains[who, lane] = chain
        links = tuple(one for one in self._heads(lane) if one.device != chain.device)
        if lane == CONTROL:
            operation = _operations()[self._byte() % len(_operations())]
            payload = encode_operation(operation)
            if self._byte() % 4 == 0:
                payload = tree(payload, self._dice())
            chain.add(Step(payload, links=links, kind=int(kind_of(operation))))
        else:
            epoch = _talk().epochs[self._byte() % len(_talk().epochs)]
            chain.add(Step(b"forged", links=links, control=self._heads(CONTROL), epoch=epoch))
        run = chain.run(at)
        if not signed:
            run = msgspec.structs.replace(run, signatures=((0, bytes(SIGNATURE_BYTES)),))
        self.attacked.hear(encode_frame(run)[LENGTH_BYTES:])

    def _heads(self, lane: int) -> tuple[Reference, ...]:
        """Return some heads of a lane, honest and forged ones."""
        chosen, talk = self._byte(), _talk()
        chains = [chain for (_, other), chain in talk.chains.items() if other == lane]
        chains += [chain for (_, other), chain in self._chains.items() if other == lane]
        heads = {chain.entries[-1].reference for chain in chains if chain.entries}
        some = [head for place, head in enumerate(sorted(heads)) if not chosen >> place % 8 & 1]
        return tuple(some[:LINKS_MAX])

    def _dice(self) -> Random:
        return Random(self._byte() << 8 | self._byte())

    def _store(self) -> None:
        for _ in range(self._byte() % 8 + 1):
            self.attacked.store()

    def _serve(self) -> None:
        self.attacked.serve()

    def _tick(self) -> None:
        self.attacked.tick(self._byte() / 8)

    def _connect(self) -> None:
        """Connect, and greet as the trace begins; sometimes not."""
        self._next = 0
        self.attacked.connect()
        if self._byte() % 8 < 7 and self.attacked.kind is not PeerKind.INVITATION:
            self._say_next()

    _steps: Final[Sequence[Callable[["Program"], None]]] = (
        *(_say_next, _store, _say_next, _serve, _say_next, _say_signed, _say_changed, _say),
        *(_say_forged, _store, _say_forged, _tick, _say_forged, _connect),
    )


def _signed(raw: bytes) -> Frame:
    """Return a frame, a run signed at its end by its author, if that is one of the chat's."""
    frame = decode_frame(raw)
    if not isinstance(frame, Run) or frame.start + len(frame.records) - 1 > SEQ_MAX:
        return frame
    keys = {key.public: key for who in _talk().people for key in who.signers}
    if frame.device not in keys:
        return frame
    place = frame.chat, frame.device, frame.lane, frame.start, frame.prev, frame.context
    last = rebuild(*place, frame.records)[-1]
    signature = keys[frame.device].sign(SIGNATURE_LABEL, last.id)
    return msgspec.structs.replace(frame, signatures=((len(frame.records) - 1, signature),))


def _read(data: bytes) -> Replica:
    program = Program(data)
    program.run()
    with suppress(PeerError):
        while program.attacked.pending:
            program.attacked.store()
    return program.attacked.replica


def _law(_: bytes, replica: Replica) -> None:
    """What is honest is admitted all the same; what else was stored means the same to others."""
    for kept in replica.chats.values():
        for lines in kept.lines.values():
            for line in lines:
                _check_covered([*line.entries, *line.cover])
    for run, entries in _told():
        assert replica.admit([(run, entries)])[0].reached == run.start + len(run.records)
    both = _entries(replica)
    if both == _entries(_honest()):
        return
    other = _filled(_told())
    network = Network(Dice(4), [replica, other])
    replica.cursors.clear()
    network.connect(0, 1)
    network.settle()
    assert _entries(replica) == _entries(other) == both
    ours, theirs = (one.chats[_talk().chat].chat.membership() for one in (replica, other))
    assert ours == theirs


def _check_covered(entries: Sequence[Entry]) -> None:
    """Each entry has a cover (I6, SPEC 2.4): the next signature is at most 63 steps away."""
    signed = len(entries)
    for at in reversed(range(len(entries))):
        entry = entries[at]
        assert entry_id(encode_header(entry.header)) == entry.id
        assert not at or entry.header.prev == entries[at - 1].id
        if entry.signature is not None:
            check_signature(entry.header.device, entry.id, entry.signature)
            signed = at
        assert signed < min(at + COVER_ENTRIES_MAX, len(entries))


def _entries(replica: Replica) -> frozenset[EntryId]:
    return replica.summary().get(_talk().chat, (frozenset(), frozenset()))[0]


def _seeds() -> Iterator[bytes]:
    yield bytes([0, 0, 0]) + bytes([0, 1, 7, 3]) * len(_trace())
    for step in range(14):
        yield bytes([0, 3 * step, 0]) + bytes([step, 9, 4, 1, 1, 0, 9, 7]) * 9
    for kind in range(3):
        forged = bytes([8, kind, 0, 0, 1, 0, 5, 1, 9, 7, 10, 3, 1, 0, 1, 0, 1, 9, 7])
        yield bytes([kind, 11, 0]) + forged * 5


TARGETS: Final = {"sessions": target(_read, _law, (), _seeds, bytewise, 400, verified_once)}
