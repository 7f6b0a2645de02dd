"""Replicas in memory, joined by sessions without any I/O (tests only).

    network = Network(Dice(7), [Replica("north"), Replica("south")])
    network.replicas[0].take(frame)
    network.connect(0, 1)
    network.settle()                    # any interleaving, until nobody has anything to say
    assert network.replicas[0].summary() == network.replicas[1].summary()

The dice choose what happens next: a frame arrives, a run becomes durable, a side goes on serving.
`Side` keeps what was sent, and checks the promise of a cursor each time that one is saved.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from protocol.chat import Chat
from protocol.effect import (
    Admit,
    Close,
    Compare,
    Effect,
    LoadChanges,
    LoadHeads,
    LoadRun,
    NoteHoldings,
    NoteShared,
    Preview,
    SaveCursor,
    Send,
    StoreFork,
    Survey,
    Wake,
)
from protocol.entry import ChatId, DeviceKey, EntryId, encode_header
from protocol.fork import Cover, encode_proof, verify_fork
from protocol.frame import (
    LENGTH_BYTES,
    ChatHeads,
    Forked,
    Frame,
    Head,
    Heads,
    Holding,
    Run,
    Want,
    authentic,
    decode_frame,
    encode_frame,
)
from protocol.intake import Outcome
from protocol.limits import KEYFRAME_ENTRIES, PREFIX_BYTES
from protocol.reconcile import tabulate
from protocol.run import Context, Entry, context_after, pack
from protocol.session import Greeting, PeerKind, Session, State
from protocol.testing.cast import seed
from protocol.testing.histories import Dice

Place = tuple[DeviceKey, int]
STEPS_MAX = 200_000


@dataclass(slots=True)
class Line:
    """One branch, from seq 0 on. cover: what follows an unsigned head, up to a signed entry."""

    entries: list[Entry]
    base: int = 0
    changed: int = 0
    cover: Sequence[Entry] = ()


@dataclass(slots=True)
class Kept:
    """What a replica has of one chat: `protocol.chat.Ledger`."""

    chat: Chat
    lines: dict[Place, list[Line]] = field(default_factory=dict)
    proofs: dict[tuple[DeviceKey, int, int], bytes] = field(default_factory=dict)

    def branch_of(self, device: DeviceKey, lane: int, seq: int, entry: EntryId) -> int | None:
        """Return the branch that holds this entry."""
        for number, line in enumerate(self.lines.get((device, lane), [])):
            if line.base <= seq < len(line.entries) and line.entries[seq].id == entry:
                return number
        return None

    def branches_at(self, device: DeviceKey, lane: int, seq: int) -> Sequence[int]:
        """Return the branches that have an entry of their own at this place."""
        lines = enumerate(self.lines.get((device, lane), []))
        return [number for number, line in lines if line.base <= seq < len(line.entries)]

    def goes_on(self, branch: int, entries: Sequence[Entry]) -> bool:
        """Tell that they do: covers are not kept here."""
        del branch, entries
        return True

    def takes_branch(self, entries: Sequence[Entry]) -> bool:
        """Tell that there is room."""
        return bool(entries)

    def length(self, device: DeviceKey, lane: int) -> int:
        """Return the length of the longest branch."""
        lines = self.lines.get((device, lane), [])
        return max((len(line.entries) for line in lines), default=0)

    def context_after(self, device: DeviceKey, lane: int, seq: int, branch: int) -> Context:
        """Return the context that an entry leaves to its successor."""
        return context_after(self.lines[device, lane][branch].entries[seq].header)


class Replica:
    """All chats of one participant, in memory. page: how many heads it lists at once."""

    def __init__(self, name: str, page: int = 3) -> None:
        self.incarnation = seed("incarnation", name)[:16]
        self.page = page
        self.chats: dict[ChatId, Kept] = {}
        self.changes = 0
        self.sessions = 0
        self.cursors: dict[bytes, tuple[bytes, int]] = {}

    def take(self, *runs: Run) -> list[Outcome]:
        """Verify, judge and keep runs of one chat, as a node does."""
        return self.admit([(run, authentic(run)) for run in runs])

    def admit(self, parts: Sequence[tuple[Run, Sequence[Entry]]]) -> list[Outcome]:
        """The same of runs whose entries were verified."""
        outcomes = [self._append(run, entries) for run, entries in parts]
        going = len(parts) > 1
        while going:
            going = False
            for index, (run, entries) in enumerate(parts):
                before = outcomes[index]
                if before.missing:
                    outcomes[index] = self._append(run, entries[before.reached - run.start :])
                    going = going or outcomes[index].reached > before.reached
        return outcomes

    def _append(self, run: Run, entries: Sequence[Entry]) -> Outcome:
        kept = self.chats.get(run.chat)
        if kept is None:
            kept = self.chats[run.chat] = Kept(Chat(run.chat))
        admission = kept.chat.admit(entries, kept)
        accepted = list(admission.entries)
        reached = entries[0].header.seq + admission.known + len(accepted)
        if accepted:
            line = self._line(kept, accepted[0], admission.branch)
            line.entries += [_relative(line, accepted[0]), *accepted[1:]]
            line.cover = ()
            if accepted[-1].signature is None:
                line.cover = entries[admission.known + len(accepted) :]
            self.changes += 1
            line.changed = self.changes
            if admission.branch is None:
                self._expose(kept, line, line.base)
        first, ids = entries[0].header.seq, [entry.id for entry in entries]
        refused = admission.refusal is not None
        return Outcome(reached, admission.missing, refused, first=first, ids=ids)

    def _line(self, kept: Kept, first: Entry, branch: int | None) -> Line:
        header = first.header
        lines = kept.lines.setdefault((header.device, header.lane), [])
        if branch is not None and lines:
            return lines[branch]
        shared: list[Entry] = []
        if header.prev is not None:
            of = kept.branch_of(header.device, header.lane, header.seq - 1, header.prev)
            shared = lines[of or 0].entries[: header.seq]
        lines.append(Line(shared, header.seq))
        return lines[-1]

    def _expose(self, kept: Kept, line: Line, seq: int) -> None:
        header = line.entries[seq].header
        rivals = [
            other
            for other in kept.lines[header.device, header.lane]
            if other is not line and other.base <= seq < len(other.entries)
        ]
        if rivals:
            proof = encode_proof(_cover(line, seq), _cover(rivals[0], seq))
            self.keep_fork(Forked(kept.chat.id, proof))

    def keep_fork(self, forked: Forked) -> None:
        """Check and keep a proof."""
        fork = verify_fork(forked.proof)
        place = fork.device, fork.lane, fork.seq
        self.chats[fork.chat].proofs.setdefault(place, forked.proof)

    def serve(self, want: Want) -> Run | None:
        """Return a run from the want's start on, up to its stop or the next signed entry."""
        kept = self.chats.get(want.chat)
        lines = [] if kept is None else kept.lines.get((want.device, want.lane), [])
        for line in lines:
            last = line.entries[want.stop - 1 : want.stop]
            if last and last[0].id.startswith(want.prefix):
                return _run(want, line)
        return None

    def heads_since(self, cursor: int) -> Heads:
        """Return the next page of what changed after `cursor`."""
        changed = self._changed_after(cursor) if self.changes > cursor else []
        whole = len(changed) <= self.page
        reached = self.changes if whole else changed[self.page - 1][0]
        return _page(max(cursor, reached), int(whole), changed[: self.page])

    def heads_at(self, numbers: Sequence[int]) -> Heads:
        """Return the page of these changes."""
        changed = [one for one in self._changed_after(0) if one[0] in numbers]
        return _page(numbers[-1], 0, changed)

    def heads(self) -> list[tuple[bytes, int]]:
        """Return every head and the number of its change."""
        return [(line.entries[-1].id, number) for number, _, _, line in self._changed_after(0)]

    def _changed_after(self, cursor: int) -> "list[Changed]":
        found = [
            (line.changed, chat, place, line)
            for chat, kept in self.chats.items()
            for place, lines in kept.lines.items()
            for line in lines
            if line.changed > cursor
        ]
        return sorted(found, key=lambda one: one[0])

    def compare(self, chats: Sequence[ChatHeads]) -> list[Want]:
        """Return what is lacking of these heads."""
        return [
            Want(item.chat, head.device, head.lane, head.prefix, start, head.seq + 1)
            for item in chats
            for head in item.heads
            if (start := self._lacking_from(item.chat, head)) <= head.seq
        ]

    def _lacking_from(self, chat: ChatId, head: Head) -> int:
        if self.holds(chat, head):
            return head.seq + 1
        kept = self.chats.get(chat)
        return min(head.seq, kept.length(head.device, head.lane)) if kept else 0

    def holds(self, chat: ChatId, head: Head) -> bool:
        """Whether the very entry that a head names is kept."""
        kept = self.chats.get(chat)
        lines = kept.lines.get((head.device, head.lane), []) if kept else []
        return any(
            head.seq < len(line.entries) and line.entries[head.seq].id.startswith(head.prefix)
            for line in lines
        )

    def summary(self) -> dict[ChatId, tuple[frozenset[EntryId], frozenset[tuple[DeviceKey, int]]]]:
        """Return what convergence is about: all entries, and which chains are known as forked."""
        return {
            chat: (
                frozenset(
                    entry.id
                    for lines in kept.lines.values()
                    for line in lines
                    for entry in line.entries
                ),
                frozenset((device, lane) for device, lane, _ in kept.proofs),
            )
            for chat, kept in self.chats.items()
            if kept.lines
        }


Changed = tuple[int, ChatId, Place, Line]


def _page(cursor: int, last: int, changed: Sequence[Changed]) -> Heads:
    chats: dict[ChatId, list[Head]] = {}
    for _, chat, (device, lane), line in changed:
        seq, prefix = len(line.entries) - 1, line.entries[-1].id[:PREFIX_BYTES]
        chats.setdefault(chat, []).append(Head(device, lane, seq, prefix))
    return Heads(
        cursor, last, tuple(ChatHeads(chat, tuple(heads)) for chat, heads in chats.items())
    )


class Side:
    """One end of a connection. `sent` has its frames; `problems` what it raised."""

    def __init__(self, replica: Replica, peer: Replica, now: float) -> None:
        self.replica = replica
        self.inbox: deque[bytes] = deque()
        self.pending: deque[tuple[Run, ...]] = deque()
        self.sent: list[Frame] = []
        self.bytes_sent = 0
        self.listed: list[tuple[int, Sequence[ChatHeads]]] = []
        self.holdings: list[Holding] = []
        self.previews: list[tuple[Run, ...]] = []
        self.peer_incarnation = peer.incarnation
        seen_incarnation, seen = replica.cursors.get(peer.incarnation, (None, 0))
        replica.sessions += 1
        salt = seed("salt", replica.incarnation.hex(), str(replica.sessions))[:16]
        greeting = Greeting(replica.incarnation, seen_incarnation, seen, salt)
        self.session = Session(PeerKind.NODE, greeting, now)
        self.other: Side = self

    def perform(self, effects: Sequence[Effect], now: float) -> None:
        """Carry out what the session asks for; what a disk takes time for waits in `pending`."""
        for effect in effects:
            match effect:
                case Send(frame):
                    self.say(frame)
                case Admit(runs):
                    self.pending.append(runs)
                case Compare(chats):
                    self.perform(self.session.compared(self.replica.compare(chats), now), now)
                case LoadHeads(cursor):
                    self.perform(self.session.heads(self.replica.heads_since(cursor)), now)
                case LoadChanges(numbers):
                    self.perform(self.session.changes(self.replica.heads_at(numbers)), now)
                case Survey(key):
                    table = tabulate(key, self.replica.heads(), self.replica.changes)
                    self.perform(self.session.surveyed(table, now), now)
                case LoadRun(want):
                    self.perform(self.session.loaded(want, self.replica.serve(want)), now)
                case _:
                    self._keep(effect)

    def _keep(self, effect: Effect) -> None:
        match effect:
            case StoreFork(forked):
                self.replica.keep_fork(forked)
            case NoteHoldings(holdings):
                self.holdings += holdings
            case Preview(runs):
                self.previews.append(runs)
            case SaveCursor(incarnation, cursor):
                self._save(incarnation, cursor)
            case NoteShared() | Wake() | Close():
                pass
            case _:
                raise AssertionError(effect)

    def say(self, frame: Frame) -> None:
        """Send a frame."""
        raw = encode_frame(frame)
        self.sent.append(frame)
        self.bytes_sent += len(raw)
        self.other.inbox.append(raw)

    def _save(self, incarnation: bytes, cursor: int) -> None:
        assert incarnation == self.peer_incarnation
        for listed, chats in self.listed:
            for item in chats if listed <= cursor else ():
                assert all(self.replica.holds(item.chat, head) for head in item.heads), (
                    "a cursor was saved before all that it stands for was stored"
                )
        self.replica.cursors[incarnation] = (incarnation, cursor)

    def hear(self, now: float) -> None:
        """Take the next frame that arrived."""
        frame = decode_frame(self.inbox.popleft()[LENGTH_BYTES:])
        if isinstance(frame, Heads):
            self.listed.append((frame.cursor, frame.chats))
        self.perform(self.session.receive(frame, now), now)

    def store(self, now: float) -> None:
        """Let the oldest runs that wait for the disk become durable."""
        runs = self.pending.popleft()
        judged = list(zip(runs, self.replica.take(*runs), strict=True))
        holdings = [
            Holding(
                DeviceKey(self.peer_incarnation * 2),
                run.chat,
                run.device,
                run.lane,
                outcome.reached - 1,
            )
            for run, outcome in judged
            if outcome.reached > run.start
        ]
        self.perform(self.session.admitted(judged, holdings, now), now)

    def serve(self, now: float) -> bool:
        """Go on serving; return whether there was anything to do."""
        effects = self.session.idle()
        self.perform(effects, now)
        return bool(effects)

    def entries_sent(self) -> list[EntryId]:
        """Return the ids of all entries that went out in runs, with repetitions."""
        runs = [frame for frame in self.sent if isinstance(frame, Run)]
        return [entry.id for run in runs for entry in authentic(run)]


class Network:
    """Replicas, the connections between them, and a clock that only `tick` moves."""

    def __init__(self, dice: Dice, replicas: Sequence[Replica]) -> None:
        self.dice = dice
        self.replicas = replicas
        self.sides: list[Side] = []
        self.now = 0.0

    def connect(self, one: int, other: int) -> tuple[Side, Side]:
        """Join two replicas by a new connection."""
        ours = Side(self.replicas[one], self.replicas[other], self.now)
        theirs = Side(self.replicas[other], self.replicas[one], self.now)
        ours.other, theirs.other = theirs, ours
        self.sides += [ours, theirs]
        for side in (ours, theirs):
            side.perform(side.session.start(self.now), self.now)
        return ours, theirs

    def disconnect(self) -> None:
        """Lose every connection, and all that is on its way."""
        self.sides.clear()

    def write(self, replica: Replica, run: Run) -> None:
        """Let a replica take an entry of its own and push it to its peers."""
        replica.take(run)
        for side in self.sides:
            if side.replica is replica and side.session.state is State.OPEN:
                side.say(run)
                side.perform(side.session.pushed(self.now), self.now)

    def step(self) -> bool:
        """Let one thing happen; return False when there was nothing."""
        events = [(side, "hear") for side in self.sides if side.inbox]
        events += [(side, "store") for side in self.sides if side.pending]
        events += [(side, "serve") for side in self.sides]
        while events:
            chosen = self.dice.pick(events)
            side, event = chosen
            if event == "serve" and not side.serve(self.now):
                events.remove(chosen)
                continue
            if event == "hear":
                side.hear(self.now)
            elif event == "store":
                side.store(self.now)
            return True
        return False

    def settle(self) -> None:
        """Go on until nobody has anything to say; fails when that takes for ever."""
        for _ in range(STEPS_MAX):
            if not self.step():
                return
        raise AssertionError(f"not settled after {STEPS_MAX} steps")

    def tick(self, seconds: float) -> None:
        """Move the clock and let every session look at its deadlines."""
        self.now += seconds
        for side in self.sides:
            side.perform(side.session.expired(self.now), self.now)


def _cover(line: Line, seq: int) -> Cover:
    path = []
    for entry in (*line.entries[seq:], *line.cover):
        path.append(encode_header(entry.header))
        if entry.signature is not None:
            return Cover(tuple(path), entry.signature)
    raise AssertionError("an entry without its cover")


def _relative(line: Line, entry: Entry) -> Entry:
    """Return an entry with its record relative to its true predecessor (SPEC 6.4)."""
    body = entry.ground if entry.payload is None else entry.payload
    if entry.header.seq % KEYFRAME_ENTRIES == 0 or body is None:
        return entry
    before = context_after(line.entries[entry.header.seq - 1].header)
    return msgspec.structs.replace(entry, record=pack(entry.header, body, before))


def _run(want: Want, line: Line) -> Run:
    whole = [*line.entries, *line.cover]
    stop = want.stop
    while whole[stop - 1].signature is None:
        stop += 1
    part = whole[want.start : stop]
    context = None
    if want.start % KEYFRAME_ENTRIES:
        context = context_after(whole[want.start - 1].header)
    return Run(
        want.chat,
        want.device,
        want.lane,
        want.start,
        whole[want.start - 1].id if want.start else None,
        context,
        tuple(msgspec.Raw(entry.record) for entry in part),
        tuple((at, entry.signature) for at, entry in enumerate(part) if entry.signature),
    )
