"""Blobs between a device and its node: ours are asked for by the node, others' we ask for.

    left = await hand_over(device, link)                 # what waits, and how far the node is
    await bring_up(device, link, told, seconds)          # stay until the node has all of it
    await fetch(device, link, blob, told, seconds)       # all of a blob, from the node

What does not move for a while is given up for now, with the reason that the node gives.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import trio

from client.chats import SHORT_CHARS
from client.delivery import Deliveries
from client.device import Device
from client.federated import strange
from client.link import Link
from client.residency import is_ours
from node.blobs import State, StoredBlob, new_name
from node.errors import LimitReached, NetworkError, RefusedError, UserError
from node.words import counted
from protocol.entry import ChatId, EntryId, Reference
from protocol.question import GetBlobs
from protocol.reply import BlobState, BlobStates, Standing

LOOK_SECONDS: Final = 0.02  # from the first look to the second; doubles each time
LOOK_SECONDS_MAX: Final = 0.25


def _pauses() -> Iterator[float]:
    """Yield how long to wait from each look to the next."""
    pause = LOOK_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LOOK_SECONDS_MAX)


def waiting(device: Device) -> Sequence[StoredBlob]:
    """Return the blobs of our messages that our node takes and is not known to have all of.

    It takes none of a chat that we are out of, or that its agency may not hold, and none whose
    message it has refused.
    """
    return [blob for blob in device.replica.blobs.whole_of(device.key) if _is_taken(device, blob)]


def _is_taken(device: Device, blob: StoredBlob) -> bool:
    judge = device.chat(blob.chat)
    membership = None if judge is None else judge.membership()
    if judge is None or membership is None or device.key not in membership.devices:
        return False
    if not is_ours(device, membership):
        return False
    seq = device.connection.execute("SELECT seq FROM mailbox WHERE id = ?", (blob.entry,)).get
    return not Deliveries(device, judge).of(Reference(device.key, int(seq), blob.entry)).refused


async def ask_state(link: Link, chat: ChatId, entry: EntryId) -> BlobState:
    """Ask our node how far a blob is, and who has all of it.

    Raises NetworkError, or RefusedError as long as it does not know that we are in the chat.
    """
    try:
        reply = await link.ask(GetBlobs(chat, (entry,)))
    except RefusedError:
        raise RefusedError(
            "our node gives a file to who is in its chat alone: you are not in this one now, or it "
            "does not know that yet"
        ) from None
    if not isinstance(reply, BlobStates) or len(reply.states) != 1:
        raise NetworkError("the node answered another question than was asked")
    return reply.states[0]


async def hand_over(device: Device, link: Link) -> list[tuple[StoredBlob, BlobState]]:
    """Let go of the blobs of which our node has all; return the others, and how far they are."""
    left = []
    for blob in await link.journal.read(partial(waiting, device)):
        try:
            state = await ask_state(link, blob.chat, blob.entry)
        except RefusedError:  # it knows already that we are out, or not yet that we are in
            state = BlobState(0, Standing.NONE, ())
        if state.standing is Standing.WHOLE:
            await link.fetching.let_go(blob)
        else:
            left.append((blob, state))
    return left


async def bring_up(
    device: Device, link: Link, told: Callable[[int], object], seconds: float
) -> None:
    """Stay until our node has all blobs of ours. told: of each number of chunks that got there.

    Raises NetworkError after so many seconds in which nothing moved, LimitReached when all that is
    left has no room at the node; either way they wait here.
    """
    before, end, pauses = 0, trio.current_time() + seconds, _pauses()
    total = sum(blob.announced.chunks for blob in await link.journal.read(partial(waiting, device)))
    while left := await hand_over(device, link):
        if all(state.standing is Standing.NO_ROOM for _, state in left):
            ids = ", ".join(blob.entry.hex()[:SHORT_CHARS] for blob, _ in left)
            raise LimitReached(f"{NO_ROOM}; what waits: {ids}")
        lacking = sum(blob.announced.chunks - state.held for blob, state in left)
        if total - lacking > before:
            told(total - lacking - before)
            before, end = total - lacking, trio.current_time() + seconds
        if trio.current_time() > end:
            raise NetworkError("the node does not take the file now; it goes on with 'ivor sync'")
        link.check()
        await trio.sleep(next(pauses))


NO_ROOM: Final = (
    "our node has no room for the file, by the quotas that its operator has set "
    "(blobs_chat_mib, blobs_device_mib, blobs_agency_mib, blobs_mib); ask them"
)


async def fetch(
    device: Device, link: Link, blob: StoredBlob, told: Callable[[int], object], seconds: float
) -> StoredBlob:
    """Fetch a blob into our folder, going on where it was; return it. told: chunks that came.

    Raises NetworkError after so many seconds in which nothing moved, LimitReached, or UserError if
    it was redacted meanwhile. What has come stays, for the next time.
    """
    index = device.replica.blobs
    moved, end, pauses = -1, trio.current_time() + seconds, _pauses()
    while True:
        begun = await link.write(partial(index.begin, blob, new_name()))
        if begun is None:
            raise UserError("the message was redacted, or is too old: its file is gone")
        if begun.state is State.WHOLE:
            return begun
        await link.fetching.bring(begun, lambda: [link.connection], told, lambda: False)
        state = await ask_state(link, blob.chat, blob.entry)
        here = await link.journal.read(partial(index.count_held, begun))
        if state.standing is Standing.NO_ROOM:
            raise LimitReached(NO_ROOM)
        if here + state.held > moved:
            moved, end = here + state.held, trio.current_time() + seconds
        if trio.current_time() > end:
            raise await link.journal.read(partial(_nobody, device, begun, state))
        link.check()
        await trio.sleep(next(pauses))


def _nobody(device: Device, blob: StoredBlob, state: BlobState) -> NetworkError:
    """Return an error that says that nobody has the file now, and who could."""
    judge = device.replica.chat(blob.chat)
    members = {} if judge is None else judge.membership().users
    author = None if judge is None else judge.membership().member_of(blob.author)
    agencies = sorted({one.identity.agency_name for one in members.values()})
    device_of = "its author's device" if author is None else f"the device of {author.name}"
    return NetworkError(
        f"nobody who can be reached has the file now: our node has {state.held} of "
        f"{counted(blob.announced.chunks, 'part')}; the nodes of {', '.join(agencies)} could have "
        f"it, and {device_of}; what has come stays, try again later"
    )


async def holders(link: Link, chat: ChatId, entry: EntryId) -> int:
    """Return how many agencies have all of a blob. Raises NetworkError."""
    return len((await ask_state(link, chat, entry)).holders)


async def spread(device: Device, link: Link, chat: ChatId, entry: EntryId, seconds: float) -> int:
    """Wait until every agency of a chat that tells us has all of a blob; return how many have.

    Gives up after so many seconds in which no further one has. Raises NetworkError.
    """
    judge = await link.journal.read(partial(device.replica.chat, chat))
    wanted = 0
    if judge is not None:
        strangers = await link.journal.read(partial(strange, device, judge))
        wanted = len(judge.membership().agencies - strangers)
    found, end, pauses = 0, trio.current_time() + seconds, _pauses()
    while trio.current_time() <= end:
        now = await holders(link, chat, entry)
        if now > found:
            found, end = now, trio.current_time() + seconds
        if found >= wanted:
            break
        await trio.sleep(next(pauses))
    return found
