"""What is checked while a simulation runs: the incremental side of the invariants (SPEC 11).

Each check has the number of its invariant in its name; those of a world at rest are in
`invariants`. `Checks` knows what is true whatever the code thinks: what each party has made durable
and acknowledged, who was ever let into a chat, who signed what at which place.
"""

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

import apsw

from node.outgoing import UNREAD_BYTES_MAX
from node.stored import Stored
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.frame import (
    LENGTH_BYTES,
    Forked,
    Frame,
    Have,
    Heads,
    Run,
    Seals,
    decode_frame,
)
from protocol.identity import UserId
from protocol.limits import HELD_BYTES_MAX
from protocol.membership import Membership, resolve
from protocol.redaction import custodians
from protocol.session import PeerKind
from tests.simulator.devices import DeviceParty
from tests.simulator.limits import in_force
from tests.simulator.parties import NodeParty, Party
from tests.simulator.stored import stored_entries
from tests.simulator.wire import Line

CANARY = b"canary"  # in every text that is written; no node ever sees it
HAVE_TAG = 5
LOOK_EVENTS = 256
Chain = tuple[ChatId, bytes, int]


class Place(NamedTuple):
    """Where an entry stands: no two may stand at one."""

    chat: ChatId
    device: DeviceKey
    lane: int
    seq: int


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Scene(Protocol):
    """What of the world is looked at."""

    @property
    def parties(self) -> list[Party]:
        """Everybody."""


class Checks:
    """What is true, and whether the code keeps to it."""

    def __init__(self, scene: Scene) -> None:
        self.compromised: set[bytes] = set()
        self.entering: dict[bytes, UserId] = {}  # of recovered devices, whose they are
        self.liars: set[bytes] = set()
        self.violation: Violation | None = None
        self.acked: dict[str, dict[Chain, int]] = defaultdict(dict)
        self.allowed: dict[bytes, set[bytes]] = defaultdict(set)
        self.judged: dict[str, dict[EntryId, bytes]] = defaultdict(dict)
        self.ever: dict[bytes, dict[Chain, int]] = defaultdict(dict)  # durable, by agency
        self._scene = scene
        self._durable: dict[str, dict[Chain, int]] = defaultdict(dict)
        self._change: dict[str, int] = defaultdict(int)
        self._looked: dict[tuple[str, bytes], tuple[int, EntryId]] = {}
        self._written: dict[str, tuple[apsw.Connection, int]] = {}
        self._passed: set[EntryId] = set()
        self._places: dict[Place, EntryId] = {}
        self._unkept: dict[str, dict[Place, EntryId]] = defaultdict(dict)
        self._countdown = LOOK_EVENTS

    def fail(self, invariant: str, what: str) -> None:
        """Remember the first violation, and raise it."""
        violation = Violation(invariant, what)
        self.violation = self.violation or violation
        raise violation

    # What the world tells

    def after_event(self) -> None:
        """Raise what was found; look at the memory of connections now and then."""
        if self.violation is not None:
            raise self.violation
        self._countdown -= 1
        if not self._countdown:
            self._countdown = LOOK_EVENTS
            self.i9_memory()

    def crossing(self, source: Line, raw: bytes) -> None:
        """An honest party sends a frame."""
        if isinstance(source.owner, NodeParty) and raw[LENGTH_BYTES + 1] == HAVE_TAG:
            frame = decode_frame(raw[LENGTH_BYTES:])
            if isinstance(frame, Have):
                self.i1_i17_acknowledged_only_what_is_durable(source.owner, frame)
        self.i7_no_plaintext_on_a_wire(source, raw)

    def arriving(self, target: Line, frame: Frame) -> None:
        """A frame has come to a party; it may be from anybody."""
        if target.wire is None:
            return
        one, other = target.wire.ends
        source = other if target is one else one
        if source.owner.honest:
            self.i8_nothing_leaves_the_policy(target, frame)

    def storing(self, party: Party, parts: Sequence[Stored], source: Line | None) -> None:
        """A party judges and stores: in its transaction, before it is durable."""
        if not party.honest:
            return
        if source is not None:
            for part in parts:
                self.i11_only_who_is_in_a_chat_changes_it(party, part, source)
        for part in parts:
            for entry in part.entries:
                header = entry.header
                place = Place(part.run.chat, header.device, header.lane, header.seq)
                if source is not None and source.peer is PeerKind.DEVICE:
                    self._unkept[party.name][place] = entry.id
                else:
                    self.i16_one_entry_at_a_place(place, entry.id)
                self.judged[party.name][entry.id] = header.device
        self._let_in(party)

    def _let_in(self, party: Party) -> None:
        """Note who was let into the chats of an honest party, be it for a moment."""
        written = party.connection, party.connection.total_changes()
        if self._written.get(party.name) == written:
            return
        self._written[party.name] = written
        for chat in party.replica.store.chats():
            judge = party.replica.chat(chat)
            if judge is None or not judge.history.entries:
                continue
            seen = len(judge.history.entries), judge.history.entries[-1].id
            if self._looked.get((party.name, chat)) != seen:
                self._looked[party.name, chat] = seen
                self._allow(chat, judge.membership())
                for entry in judge.history.entries:
                    if entry.id not in self._passed:
                        self._passed.add(entry.id)
                        past = judge.history.past([entry.id])
                        self._allow(chat, resolve(judge.history, past))

    def _allow(self, chat: ChatId, membership: Membership) -> None:
        self.allowed[chat] |= membership.agencies
        self.allowed[chat] |= membership.devices.keys()
        self.allowed[chat] |= membership.users.keys()

    def _was_let_in(self, key: bytes, chat: ChatId) -> bool:
        """Whether an agency or a device was ever in a chat, or may enter it (SPEC 6.3)."""
        return key in self.allowed[chat] or self.entering.get(key) in self.allowed[chat]

    def durable(self, party: Party) -> None:
        """A commit is done."""
        rows = party.connection.execute(
            "SELECT chains.changed, id, device, lane, length FROM chains"
            " JOIN chats ON chats.no = chat WHERE changed > ?",
            (self._change[party.name],),
        )
        durable = self._durable[party.name]
        for changed, chat, device, lane, length in rows:
            chain = ChatId(chat), device, lane
            durable[chain] = max(durable.get(chain, 0), length)
            if isinstance(party, NodeParty):
                ever = self.ever[party.agency]
                ever[chain] = max(ever.get(chain, 0), length)
            self._change[party.name] = max(self._change[party.name], changed)
        unkept = self._unkept[party.name]
        for place in [one for one in unkept if durable.get(one[:3], 0) > one.seq]:
            self.i16_one_entry_at_a_place(place, unkept.pop(place))

    def started(self, party: Party) -> None:
        """A party has begun from its database, after a crash."""
        self._change[party.name] = 0
        self._durable[party.name].clear()
        self._forget(party)
        self.durable(party)
        self.i1_acknowledged_is_there(party)

    def restored(self, party: Party) -> None:
        """A party goes on from a backup: what was acknowledged since then it does not have."""
        self._change[party.name] = 0
        self._durable[party.name].clear()
        self._forget(party)
        self.durable(party)
        durable, acked = self._durable[party.name], self.acked[party.name]
        self.acked[party.name] = {
            chain: min(length, durable.get(chain, 0)) for chain, length in acked.items()
        }

    def _forget(self, party: Party) -> None:
        self.judged[party.name].clear()
        self._unkept[party.name].clear()
        self._written.pop(party.name, None)
        for name, chat in list(self._looked):
            if name == party.name:
                del self._looked[name, chat]

    # The invariants

    def i1_i17_acknowledged_only_what_is_durable(self, node: NodeParty, have: Have) -> None:
        """I1, I17: HAVE follows durability."""
        durable = self._durable[node.name]
        for one in have.holdings:
            if one.agency != node.agency:
                continue
            chain = one.chat, bytes(one.device), one.lane
            if durable.get(chain, 0) <= one.seq:
                self.fail(
                    "I1", f"{node.name} acknowledged seq {one.seq}, durable {durable.get(chain, 0)}"
                )
            acked = self.acked[node.name]
            acked[chain] = max(acked.get(chain, 0), one.seq + 1)

    def i1_acknowledged_is_there(self, party: Party) -> None:
        """I1: what was acknowledged is still there."""
        durable = self._durable[party.name]
        for chain, length in self.acked[party.name].items():
            if durable.get(chain, 0) < length:
                self.fail("I1", f"{party.name} lost acknowledged entries of {chain[0].hex()[:8]}")

    def i4_only_what_has_aged_goes(self, party: Party, before: AbstractSet[int]) -> None:
        """I4: by age a payload goes only once that is over, and where nobody keeps all."""
        rows = party.connection.execute(
            "SELECT place, chats.id, dropped.id FROM dropped JOIN chats ON no = chat"
        )
        gone: dict[ChatId, set[bytes]] = defaultdict(set)
        for place, chat, entry in rows:
            if place not in before:
                gone[ChatId(chat)].add(entry)
        for chat, ids in gone.items() if party.honest else ():
            judge = party.replica.chat(chat)
            assert judge is not None
            view = judge.membership()
            kept = {view.users[user].agency for user in custodians(judge.history)}
            over = party.wall - view.policy.retention * 1000
            early = [
                entry
                for entry in stored_entries(party.replica, chat)
                if entry.id in ids and entry.header.time > over
            ]
            if early or not view.policy.retention:
                self.fail("I4", f"{party.name} drops {len(ids)} payloads that have not aged")
            if isinstance(party, NodeParty) and party.agency in kept:
                self.fail("I4", f"{party.name} drops by age what a custodian of its agency keeps")

    def i7_no_plaintext_on_a_wire(self, source: Line, raw: bytes) -> None:
        """I7: no frame holds a text that was written."""
        if CANARY in raw:
            self.fail("I7", f"a text leaves {source.owner.name} in the clear")

    def i8_nothing_leaves_the_policy(self, target: Line, frame: Frame) -> None:
        """I8: a chat is named only to those who were let into it."""
        owner = target.owner
        assert isinstance(owner, NodeParty | DeviceParty)
        match frame:
            case Heads():
                chats = [one.chat for one in frame.chats]
            case Have():
                chats = [one.chat for one in frame.holdings]
            case Run() | Forked() | Seals():
                chats = [frame.chat]
            case _:
                return
        for chat in chats:
            if not self._was_let_in(owner.key, chat):
                name = type(frame).__name__
                self.fail("I8", f"{name} about a chat that {owner.name} was never in")

    def i9_memory(self) -> None:
        """I9: what waits for one peer, and what one peer makes us hold, is bounded."""
        for party in self._scene.parties:
            for line in party.lines if party.honest else ():
                held = line.intake._held
                if (
                    line.queued_bytes > UNREAD_BYTES_MAX
                    or held.bytes > HELD_BYTES_MAX
                    or held.entries > in_force("HELD_ENTRIES_MAX")
                    or len(held) > in_force("HELD_RUNS_MAX")
                ):
                    self.fail("I9", f"{party.name} holds too much for one peer")

    def i11_only_who_is_in_a_chat_changes_it(
        self, party: Party, part: Stored, source: Line
    ) -> None:
        """I11: nothing is stored that came from somebody who was never in the chat."""
        known = bool(self.allowed[part.run.chat])
        if part.appended and known and not self._was_let_in(source.key, part.run.chat):
            self.fail("I11", f"{party.name} took entries from who is not in that chat")

    def i16_one_entry_at_a_place(self, place: Place, entry: EntryId) -> None:
        """I16: an honest device never signs two entries at one place.

        What only its own node has had, and did not keep, is not among them: it is nowhere, and a
        device whose folder is an old copy cannot know of it.
        """
        if self._places.setdefault(place, entry) != entry and place.device not in self.compromised:
            self.fail("I16", f"two entries at seq {place.seq} of lane {place.lane}")
