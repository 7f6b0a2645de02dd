"""The attackers of a simulation: nodes that lie, copies of devices, members who cheat.

What they send is made by the attackers of `protocol.testing` and `tests.properties`; what they
cannot have, a signature of somebody else, they do not have here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

from msgspec import Raw, structs

from crypto.sealing import Prekey
from node.agency import Agency
from protocol import epoch
from protocol.entry import (
    CONTENT,
    CONTROL,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    Place,
    Reference,
)
from protocol.frame import (
    LENGTH_BYTES,
    ChatHeads,
    Frame,
    Have,
    Head,
    Heads,
    Holding,
    Run,
    Want,
    decode_frame,
    encode_frame,
)
from protocol.identity import sign_prekey
from protocol.operation import Leave, Redact, Remove, SetRole
from protocol.policy import HistoryRule, Role
from protocol.run import drop_payload, rebuild
from protocol.testing.chains import Chain
from protocol.testing.histories import Dice
from protocol.testing.interference import LIES
from tests.properties.mallory import control_after
from tests.simulator.cast import Role as CastRole
from tests.simulator.devices import DeviceParty
from tests.simulator.parties import NodeParty
from tests.simulator.parties import Place as Scene
from tests.simulator.wire import Line

HONEST_SHARE = 0.8  # of a liar's frames: with less, nobody talks to it for long
NIL = b"\xc0"
FIXARRAY_FULL = 0x9F


class HostileNode(NodeParty):
    """A node that drops, repeats, alters and invents what it sends (SPEC 13)."""

    def __init__(self, place: Scene, name: str, agency: Agency, database: bytes) -> None:
        super().__init__(place, name, agency, database)
        self.honest = False
        self._chance = place.clock.stream("liar", name)

    def tamper(self, line: Line, raw: bytes) -> Sequence[bytes]:
        """Return what goes out in the place of a frame."""
        del line
        chance = self._chance
        if chance.random() < HONEST_SHARE:
            return (raw,)
        lies: Sequence[Callable[[], Sequence[bytes]]] = (
            tuple,
            lambda: (raw, raw),
            lambda: (longer(raw),),
            lambda: (raw, encode_frame(self._invented())),
            lambda: (self._altered(raw),),
            lambda: (self._withheld(raw),),
            lambda: (raw, chance.randbytes(chance.randrange(1, 64))),
        )
        return chance.choice(lies)()

    def _altered(self, raw: bytes) -> bytes:
        frame = decode_frame(raw[LENGTH_BYTES:])
        dice = Dice(self._chance.randrange(1 << 32))
        if isinstance(frame, Run):
            return encode_frame(dice.pick(LIES)(dice, frame))
        if isinstance(frame, Heads) and frame.chats:
            less = structs.replace(frame, chats=frame.chats[1:])
            return encode_frame(less)
        return raw

    def _withheld(self, raw: bytes) -> bytes:
        """Say that payloads are gone, by a retention that has not called for it yet."""
        run = decode_frame(raw[LENGTH_BYTES:])
        if not isinstance(run, Run) or run.lane != CONTENT:
            return raw
        judge = self.replica.chat(run.chat)
        cases = {} if judge is None else judge.history.authority.register.cases
        grounds = [at for at, case in cases.items() if any(one.retention for one in case.policies)]
        if judge is None or not grounds:
            return raw
        entry = judge.history.entries[self._chance.choice(grounds)]
        ground = Reference(entry.device, entry.seq, EntryId(entry.id))
        bare = tuple(Raw(drop_payload(bytes(record), ground)) for record in run.records)
        return encode_frame(structs.replace(run, records=bare))

    def _invented(self) -> Frame:
        """Return a frame about what does not exist, or what one may not say."""
        number = self._chance.randbytes
        chats = self.replica.store.chats()
        chat = self._chance.choice(chats) if chats else ChatId(number(32))
        device = DeviceKey(number(32))
        kind = self._chance.randrange(4)
        if kind == 0:
            heads = (Head(device, CONTROL, 3, number(8)),)
            return Heads(self._chance.randrange(1 << 20), 1, (ChatHeads(chat, heads),))
        if kind == 1:
            return Want(ChatId(number(32)), device, CONTROL, number(8), 0, 5)
        if kind == 2:
            return Have((self._acknowledged(chat),))
        return Want(chat, device, CONTENT, number(8), 3, 2)

    def _acknowledged(self, chat: ChatId) -> Holding:
        """Return what another agency has not said."""
        judge = self.replica.chat(chat)
        view = None if judge is None else judge.membership()
        others = sorted(view.agencies - {self.agency}) if view else []
        authors = sorted(view.devices) if view else []
        if not others or not authors:
            stranger = DeviceKey(self._chance.randbytes(32))
            return Holding(stranger, chat, stranger, CONTENT, 7)
        agency, author = self._chance.choice(others), self._chance.choice(authors)
        return Holding(DeviceKey(agency), chat, author, CONTENT, self._chance.randrange(8))


def longer(raw: bytes) -> bytes:
    """Return a frame with a field more than this version knows (SPEC 6.2: to be ignored)."""
    body = raw[LENGTH_BYTES:]
    if not 0x90 <= body[0] < FIXARRAY_FULL:
        return raw
    body = bytes((body[0] + 1,)) + body[1:] + NIL
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Thief(DeviceParty):
    """Who has copied a device's folder and keys, and writes with them from elsewhere."""

    def __init__(self, place: Scene, victim: DeviceParty, number: int) -> None:
        assert victim.backup is not None
        role: CastRole = replace(victim.role, database=victim.backup)
        super().__init__(place, f"{victim.name}'s thief {number}", role, victim.home)
        self.honest = False


def mischief(device: DeviceParty, chat: ChatId, draw: int) -> bool:
    """Have a member write what the program would not, and send it; tell whether there was any."""
    judge = device.replica.chat(chat)
    if judge is None or not device.lines:
        return False
    control, content = (chain_of(device, chat, lane) for lane in (CONTROL, CONTENT))
    heads = judge.history.heads()
    own = device.device.profile.user.user
    users = sorted(judge.membership().users) or [own]
    victim = users[draw // 7 % len(users)]
    shared = judge.membership().policy.history is HistoryRule.SHARED
    ways: list[Callable[[], Chain]] = []
    if control.entries:  # another entry in the place of the newest
        fork = control.fork(len(control.entries) - 1)
        ways.append(
            lambda: control_after(
                fork, heads, Redact(device.key, CONTENT, 0, EntryId(bytes(32)), "cheat")
            )
        )
    ways += [
        lambda: control_after(control, heads, SetRole(own, Role.OWNER, ())),  # above her role
        lambda: control_after(control, (), Remove(victim, ())),  # having seen nothing
        lambda: control_after(control, heads, Leave()),
    ]
    if content.entries:
        ways.append(lambda: _content(content, heads, skip=1 + draw % 3))
        ways.append(lambda: _content(content.fork(len(content.entries) - 1), heads[:1], skip=0))
    ways.append(lambda: _epoch(device, control, heads, shared=shared))
    made = ways[draw % len(ways)]()
    if not made.entries:
        return False
    device.lines[0].send(made.run(len(made.entries) - 1))
    return True


def _content(chain: Chain, heads: Sequence[Reference], *, skip: int) -> Chain:
    """Append content that skips generations, or stands in the place of other content."""
    last = chain.entries[-1].header if chain.entries else None
    if not isinstance(last, ContentHeader):
        return chain
    payload = sha256(b"cheat").digest() * 3
    header = structs.replace(
        last,
        seq=last.seq + 1,
        prev=chain.entries[-1].id,
        links=(),
        control=last.control if not heads else tuple(heads),
        generation=last.generation + 1 + skip,
        payload_size=len(payload),
        payload_hash=sha256(payload).digest(),
    )
    chain.append(header, payload)
    return chain


def _epoch(
    device: DeviceParty, control: Chain, heads: Sequence[Reference], *, shared: bool
) -> Chain:
    """Start an epoch that leaves everybody else out."""
    links = tuple(one for one in heads if one.device != device.key)
    seq = len(control.entries)
    place = Place(control.chat, device.key, seq, control.entries[-1].id if seq else None, links)
    own = Prekey(sha256(device.key + seq.to_bytes(8)).digest())
    record = sign_prekey(control.key, own.public, device.wall)
    secret, only = sha256(b"cheat").digest(), {device.key: own.public}
    operation, _ = epoch.build(place, secret, only, set(), record, shareable=shared)
    return control_after(control, heads, operation)


def chain_of(device: DeviceParty, chat: ChatId, lane: int) -> Chain:
    """Return a device's own chain, as it holds it, to go on with."""
    chain = Chain(device.role.secrets.device, chat, lane)
    stored = device.replica.store.chat(chat)
    branches = [] if stored is None else stored.chains.get((device.key, lane), [])
    for branch in branches[:1]:
        rows = device.replica.store.rows(branches, branch, 0, branch.length)
        records = [row[2] for row in rows]
        for entry in rebuild(chat, device.key, lane, 0, None, None, records):
            chain.append(entry.header, entry.payload or b"")
    return chain
