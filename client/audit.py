"""`ivor log verify`: believe nothing that is stored; derive it all again from the bytes (SPEC 5.7).

Each record is hashed anew, each chain's covers are checked, each entry is judged by a chat that
begins empty, each opened message is compared with the commitment in its signed header, and each
fork proof is checked. What does not hold is collected, with its place, and the rest goes on.
"""

import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import apsw

from client.checkpoints import disputed
from client.device import Device
from client.mailbox import State
from client.nacks import Told, told
from crypto.content import franking_commitment
from node.ledger import ChatLedger
from node.store import SEQ_BITS, Branch, StoredChat
from node.words import counted
from protocol.chat import Chat
from protocol.entry import (
    CONTENT,
    CONTROL,
    ChatId,
    ContentHeader,
    DeviceKey,
    EntryId,
    header_before_commitment,
)
from protocol.errors import ProtocolError
from protocol.fork import verify_fork
from protocol.limits import COVER_ENTRIES_MAX
from protocol.run import Context, Entry, context_after, unpack

PAGE_ENTRIES = 1024
FAULTS_MAX = 100  # of one chat: more tell nothing more

Row = tuple[int, bytes, bytes, bytes | None]


@dataclass(slots=True)
class Audit:
    """What was checked in one chat, and what does not hold. forked: devices with a proof.

    nacks: epochs that members say were sealed wrongly. disputed: checkpoints of another history.
    """

    chat: ChatId
    control: int = 0
    content: int = 0
    messages: int = 0
    dropped: int = 0
    chains: int = 0
    forked: set[DeviceKey] = field(default_factory=set)
    nacks: list[Told] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether all that is stored holds; a proven fork is no fault of the store."""
        return not self.faults

    def fault(self, text: str) -> None:
        """Note what does not hold, and where."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)


class _Replay(ChatLedger):
    """A ledger that knows what stands where, and counts nothing as judged yet."""

    def length(self, device: DeviceKey, lane: int) -> int:
        """No entry was judged, so each is judged now."""
        del device, lane
        return 0

    def branches_at(self, device: DeviceKey, lane: int, seq: int) -> Sequence[int]:
        """Other branches are looked at on their own."""
        del device, lane, seq
        return ()

    def goes_on(self, branch: int, entries: Sequence[Entry]) -> bool:
        """Tell that they do: covers are not kept here."""
        del branch, entries
        return True

    def takes_branch(self, entries: Sequence[Entry]) -> bool:
        """What is stored had room."""
        del entries
        return True


def entries_stored(device: Device, chat: ChatId) -> int:
    """Return how many entries an audit of this chat goes through."""
    stored = device.replica.store.chat(chat)
    branches = [] if stored is None else [b for chain in stored.chains.values() for b in chain]
    return sum(branch.length - branch.base for branch in branches)


def audit(device: Device, chat: ChatId, advance: Callable[[int], None]) -> Audit:
    """Verify one chat. advance: told how many more entries were gone through."""
    result = Audit(chat)
    stored = device.replica.store.chat(chat)
    if stored is None:
        result.fault("the chat has no row")
        return result
    try:
        judge = _replay_control(device, stored, result, advance)
        result.nacks += told(judge) if judge.history else []
        _replay_content(device, stored, judge, result, advance)
        _check_forks(device, stored, result)
        result.disputed += disputed(device, judge) if judge.history else []
    except apsw.Error as error:
        result.fault(f"the database is damaged: {error}")
    return result


def _replay_control(
    device: Device, stored: StoredChat, result: Audit, advance: Callable[[int], None]
) -> Chat:
    """Verify the control chains, and judge them in the order in which they were admitted."""
    at: dict[int, Entry] = {}
    for place, chain in _chains(stored, CONTROL):
        for branch in chain:
            for page in _verified(device, stored, place, chain, branch, result):
                at.update({branch.no << SEQ_BITS | entry.header.seq: entry for entry in page})
                advance(len(page))
    judge = Chat(stored.id)
    ledger = _Replay(device.replica.store, stored)
    for number in device.replica.store.control_order(stored):
        entry = at.pop(number, None)
        if entry is None:
            result.fault(f"control entry {number:x} is listed, but not verified")
            continue
        _judge(judge, ledger, [entry], result)
        result.control += 1
    for entry in at.values():
        result.fault(f"control entry {_named(entry)} is stored, but in no order")
    return judge


def _replay_content(
    device: Device,
    stored: StoredChat,
    judge: Chat,
    result: Audit,
    advance: Callable[[int], None],
) -> None:
    ledger = _Replay(device.replica.store, stored)
    for place, chain in _chains(stored, CONTENT):
        for branch in chain:
            for page in _verified(device, stored, place, chain, branch, result):
                _judge(judge, ledger, page, result)
                _check_messages(device, page, result)
                result.content += len(page)
                advance(len(page))
    rows = device.connection.execute(
        "SELECT count(*) FROM mailbox WHERE chat = ? AND state = ?", (stored.id, State.OPEN)
    ).get
    if rows != result.messages:
        result.fault(f"{counted(rows, 'message')} can be read, {result.messages} of an entry here")


def _chains(stored: StoredChat, lane: int) -> Iterator[tuple[DeviceKey, Sequence[Branch]]]:
    for (author, at), chain in sorted(stored.chains.items()):
        if at == lane:
            yield DeviceKey(author), chain


def _verified(
    device: Device,
    stored: StoredChat,
    author: DeviceKey,
    chain: Sequence[Branch],
    branch: Branch,
    result: Audit,
) -> Iterator[list[Entry]]:
    """Yield a branch's own entries in pages, hashed and covered; a fault ends it."""
    result.chains += 1
    lane = next(lane for (_, lane), value in stored.chains.items() if value is chain)
    store = device.replica.store
    prev, context = store.context_before(chain, branch, lane, branch.base)
    head: EntryId | None = None
    start = branch.base
    for rows in _pages(store.rows(chain, branch, branch.base, branch.length + COVER_ENTRIES_MAX)):
        try:
            page = _unpack(stored.id, author, lane, start, prev, context, rows)
        except ProtocolError as error:
            result.fault(f"device {author.hex()[:16]} lane {lane} from seq {start}: {error}")
            return
        if wrong := [e for e, row in zip(page, rows, strict=False) if e.id != row[1]]:
            result.fault(f"{_named(wrong[0])}: stored under another id")
        kept = page[: max(0, branch.length - start)]
        if len(page) < min(len(rows), branch.length - start):
            result.fault(f"device {author.hex()[:16]} lane {lane}: no signature covers the rest")
        result.dropped += sum(entry.payload is None for entry in kept)
        yield kept
        if len(page) < len(rows):
            break
        head = kept[-1].id if kept else head
        start, prev, context = start + len(page), page[-1].id, context_after(page[-1].header)
    else:
        if head != branch.head or start < branch.length:
            result.fault(f"device {author.hex()[:16]} lane {lane}: its newest entry is missing")


def _pages(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Cut rows into pages that end with a signature."""
    page: list[Row] = []
    for row in rows:
        page.append(row)
        if len(page) >= PAGE_ENTRIES and row[3] is not None:
            yield page
            page = []
    if page:
        yield page


def _unpack(
    chat: ChatId,
    author: DeviceKey,
    lane: int,
    start: int,
    prev: EntryId | None,
    context: Context | None,
    rows: Sequence[Row],
) -> list[Entry]:
    signatures = {at: row[3] for at, row in enumerate(rows) if row[3] is not None}
    records = [row[2] for row in rows]
    return unpack(chat, author, lane, start, prev, context, records, signatures)


def _judge(judge: Chat, ledger: _Replay, entries: Sequence[Entry], result: Audit) -> None:
    try:
        admission = judge.admit(entries, ledger)
    except ProtocolError as error:
        result.fault(f"{_named(entries[0])}: {error}")
        return
    if admission.refusal is not None:
        result.fault(f"{_named(entries[len(admission.entries)])}: {admission.refusal}")
    elif admission.missing:
        lacking = admission.missing[0]
        result.fault(f"{_named(entries[0])}: its ancestor {lacking.id.hex()[:16]} is missing")


def _check_messages(device: Device, page: Sequence[Entry], result: Audit) -> None:
    """Compare the messages that can be read with the commitments in their signed headers."""
    places = ",".join("?" * len(page))
    rows = device.connection.execute(
        f"SELECT id, plaintext, frank FROM mailbox WHERE state = ? AND id IN ({places})",  # noqa: S608 - question marks
        (State.OPEN, *(entry.id for entry in page)),
    )
    readable = {entry: (plaintext, frank) for entry, plaintext, frank in rows}
    for entry in page:
        message = readable.get(entry.id)
        if message is None or not isinstance(entry.header, ContentHeader):
            continue
        result.messages += 1
        plaintext, frank = message
        found = franking_commitment(frank, header_before_commitment(entry.header), plaintext)
        if not hmac.compare_digest(found, entry.header.pc):
            result.fault(f"{_named(entry)}: the text here is not what was signed")


def _check_forks(device: Device, stored: StoredChat, result: Audit) -> None:
    """Check the proofs, and that each chain with a second branch has one."""
    for proof in device.replica.sharing.forks(stored):
        try:
            result.forked.add(verify_fork(proof).device)
        except ProtocolError as error:
            result.fault(f"a fork proof does not hold: {error}")
    for (author, lane), chain in stored.chains.items():
        if len(chain) > 1 and author not in result.forked:
            result.fault(f"device {author.hex()[:16]} lane {lane} is forked, without a proof")


def _named(entry: Entry) -> str:
    header = entry.header
    place = f"device {header.device.hex()[:16]} lane {header.lane} seq {header.seq}"
    return f"entry {entry.id.hex()[:16]} ({place})"
