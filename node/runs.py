"""Runs out of the store, as they are sent: signatures cover all of them (SPEC 2.4, 6.4)."""

from collections.abc import Sequence

import msgspec

from node.store import Branch, Row, Store, StoredChat
from protocol.entry import CONTROL, DeviceKey, EntryId, encode_header
from protocol.fork import Cover
from protocol.frame import Run, Want
from protocol.limits import COVER_ENTRIES_MAX, HEADER_BYTES_MAX, RUN_BYTES_MAX, RUN_ENTRIES_MAX
from protocol.run import Context, context_after, pack, rebuild


def read_run(store: Store, want: Want) -> Run | None:
    """Read a run from `want.start` on; None if this branch does not exist here.

    It ends with a signed entry, at or before the limits of a frame. In the content lane it
    carries no more signatures than cover it, in the control lane all that are here: a removed
    reader is shown a lane up to its removal, and nothing that stands after and covers it.
    """
    chat = store.chat(want.chat)
    chain = [] if chat is None else chat.chains.get((want.device, want.lane), [])
    branch = store.branch_with_prefix(chain, want.stop - 1, want.prefix)
    if branch is None:
        return None
    rows = _covered(store, chain, branch, want, RUN_BYTES_MAX)
    fits = bool(rows)
    if not fits:
        more = _covered(store, chain, branch, want, RUN_BYTES_MAX + HEADER_BYTES_MAX)
        rows = more[: 1 + next((at for at, row in enumerate(more) if row[3]), 0)]
    if not rows:
        return None
    prev, context = store.context_before(chain, branch, want.lane, want.start)
    records = [row[2] for row in rows]
    if not fits and context is not None:
        context, records[0] = _shortest(want, prev, context, records[0])
    if len(records) > 1 and sum(map(len, records)) > RUN_BYTES_MAX:
        return None
    signatures = _signatures(rows) if want.lane == CONTROL else _cover(rows)
    raws = tuple(map(msgspec.Raw, records))
    return Run(want.chat, want.device, want.lane, want.start, prev, context, raws, signatures)


def _covered(
    store: Store, chain: Sequence[Branch], branch: Branch, want: Want, bytes_max: int
) -> list[Row]:
    """Return rows from `want.start` on, as many as fit and as signatures among them cover."""
    rows: list[Row] = []
    size = signed = 0
    for row in store.rows(chain, branch, want.start, branch.length + COVER_ENTRIES_MAX):
        size += len(row[2])
        shown = row[0] >= branch.length and signed == len(rows)
        if rows and (size > bytes_max or shown or len(rows) - signed >= COVER_ENTRIES_MAX):
            break
        rows.append(row)
        signed = len(rows) if row[3] is not None else signed
        if len(rows) >= RUN_ENTRIES_MAX or (signed == len(rows) and row[0] >= want.stop - 1):
            break
    return rows[:signed]


def read_cover(
    store: Store, chat: StoredChat, device: bytes, lane: int, branch: Branch, seq: int
) -> Cover:
    """Return the headers from `seq` to the next signed entry, and its signature."""
    chain = chat.chains[device, lane]
    prev, context = store.context_before(chain, branch, lane, seq)
    rows = []
    for row in store.rows(chain, branch, seq, branch.length + COVER_ENTRIES_MAX):
        rows.append(row)
        if row[3] is not None:
            break
    entries = rebuild(
        chat.id, DeviceKey(device), lane, seq, prev, context, [row[2] for row in rows]
    )
    return Cover(tuple(encode_header(entry.header) for entry in entries), rows[-1][3] or b"")


def _shortest(
    want: Want, prev: EntryId | None, context: Context, record: bytes
) -> tuple[Context, bytes]:
    """Return the context relative to which the record at the start of a run is shortest.

    Whoever signs rarely may have sent it so, in a run of which the true record would be too much.
    Whoever gets it puts it right again (SPEC 6.4).
    """
    entry = rebuild(want.chat, want.device, want.lane, want.start, prev, context, [record])[0]
    header, body = entry.header, entry.ground if entry.payload is None else entry.payload
    if body is None:
        return context, record
    like = context_after(header)
    like = like._replace(generation=max(0, like.generation - 1))
    return like, pack(header, body, like)


def _signatures(rows: Sequence[Row]) -> tuple[tuple[int, bytes], ...]:
    return tuple((index, row[3]) for index, row in enumerate(rows) if row[3] is not None)


def _cover(rows: Sequence[Row]) -> tuple[tuple[int, bytes], ...]:
    """Choose the fewest signatures that cover all rows, the last of which is signed."""
    chosen: list[tuple[int, bytes]] = []
    candidate: tuple[int, bytes] | None = None
    uncovered = 0
    for index, row in enumerate(rows):
        if index - uncovered >= COVER_ENTRIES_MAX and candidate is not None:
            chosen.append(candidate)
            uncovered = candidate[0] + 1
        if row[3] is not None:
            candidate = (index, row[3])
    return (*chosen, candidate) if candidate is not None else tuple(chosen)
