"""What a node asks other agencies' nodes: their users, and their own newest card (SPEC 7.2)."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from node.config import Settings
from node.directory import Directory as OwnDirectory
from node.directory import refused
from node.driver import Connection
from node.errors import IvorError, NetworkError, RefusedError
from node.hub import Hub
from node.journal import Journal
from node.larder import Larder
from node.share import Share
from protocol.errors import NotCanonical, PeerError
from protocol.frame import Answer, Ask
from protocol.identity import AgencyId, verify_card
from protocol.limits import HASH_BYTES
from protocol.question import (
    Forward,
    GetBlobs,
    GetCard,
    GetDirectory,
    GetReceipts,
    Seen,
    Witness,
    decode_question,
    encode_question,
)
from protocol.reply import (
    BlobStates,
    Directory,
    OwnCard,
    People,
    Receipts,
    Refusal,
    Reply,
    Standing,
    Witnessed,
    decode_answer,
    encode_answer,
)
from protocol.session import PeerKind
from protocol.topic import Topic

log = structlog.get_logger()

Result = TypeVar("Result")

ANSWER_SECONDS_MAX = 5.0
ASK_SECONDS = 0.0002  # of our time, that a question and its answer take; guess
PAGES_MAX = 16  # of heads of one agency, an hour; guess


class Asker(Protocol):
    """What of a node is needed to ask, and to keep the answers."""

    settings: Settings
    hub: Hub[Connection]
    journal: Journal
    directory: OwnDirectory
    larder: Larder
    pages: Counter[AgencyId]  # of heads of each agency that came when asked for, this hour

    def share(self, key: bytes) -> Share:
        """Return what all sessions of a peer have together."""


async def look_up(node: Asker, device: bytes, ask: Ask) -> Sequence[AgencyId]:
    """Put a device's look-up to the agencies concerned, all at once, and keep the answers.

    An agency that cannot be reached costs `ANSWER_SECONDS_MAX`, and its users are those known here.
    Return those that did not answer.
    """
    wanted = await node.journal.read(lambda: node.directory.foreign(ask))
    unreached: list[AgencyId] = []

    async def forward(agency: AgencyId, body: bytes) -> None:
        try:
            answer = await _ask(node, device, agency, Topic.LOOKUP, body)
            if answer is None:
                unreached.append(agency)
            else:
                await _keep(node, agency, partial(node.directory.remember, agency, answer, body))
        except (PeerError, IvorError) as error:
            log.warning("look-up failed", agency=agency.hex()[:16], why=str(error))

    async with trio.open_nursery() as nursery:
        for agency, body in wanted.items():
            nursery.start_soon(forward, agency, body)
    return unreached


def without(answer: Answer, unreached: Sequence[AgencyId]) -> Answer:
    """Return the answer to a look-up with the agencies that it was made without."""
    if answer.code or not unreached:
        return answer
    said = decode_answer(Topic.LOOKUP, answer.code, answer.body)
    assert isinstance(said, People)
    told = replace(said, unreached=tuple(unreached))
    return Answer(answer.number, answer.code, encode_answer(told))


async def _ask(
    node: Asker, device: bytes, agency: bytes, topic: Topic, body: bytes
) -> Answer | None:
    """Ask the node of an agency; None if it is not connected, or does not answer in time.

    device: who wants to know, and pays for it: one question of theirs may be put to thousands.
    If the session ends before the answer, as when both have dialled and one session gives way, the
    next one is asked.
    """
    if not node.hub.of(agency):
        return None
    node.share(device).owes(ASK_SECONDS)
    with trio.move_on_after(ANSWER_SECONDS_MAX):
        while True:
            connection = await node.hub.newest(agency)
            try:
                return await connection.ask(topic, body)
            except NetworkError as error:
                log.info("asked in vain", agency=agency.hex()[:16], why=str(error))
    return None


async def _told(
    node: Asker, device: bytes, agency: bytes, topic: Topic, body: bytes
) -> Reply | None:
    """Ask as `_ask` does; None also for a refusal, and for what is no answer."""
    try:
        answer = await _ask(node, device, agency, topic, body)
        return None if answer is None else decode_answer(topic, answer.code, answer.body)
    except (PeerError, Refusal) as error:
        log.warning("not told", topic=topic.name, agency=agency.hex()[:16], why=str(error))
        return None


async def _look(node: Asker, peer: bytes, work: Callable[[], Result]) -> Result:
    """Read what a peer's session asks for: in its turn, and at its expense (SPEC 6.6)."""
    share = node.share(peer)
    async with share.turn():
        return await node.journal.read(share.charged(work))


async def _keep(node: Asker, peer: bytes, work: Callable[[], Result]) -> Result | None:
    """Verify and write down what a peer has answered: in its turn, and at its expense (SPEC 6.6).

    None if that takes too long, because the peer has more going on.
    """
    share = node.share(peer)
    with trio.move_on_after(ANSWER_SECONDS_MAX):
        async with share.turn():
            pending = await node.journal.begin(share.charged(work))
        return await pending()
    return None


async def compare_directories(node: Asker, connection: Connection) -> bool:
    """Compare with a peer which directories we were shown; return whether a proof is new.

    Heads that are missing in a row are asked for, so that nothing can hide between two of them. Who
    has told its newest head of ours is met, though: one between may be lost with the node that we
    were brought back from, and nobody signs that again.
    """
    witness = node.directory.witness
    asked = await node.journal.read(partial(_what_to_witness, node, AgencyId(connection.key)))
    told = await _witness(node, connection, asked)
    new = bool(told)
    agencies = await node.journal.read(lambda: [one.agency for one in witness.seen()])
    for agency in agencies:
        while node.pages[agency] < PAGES_MAX:
            known, newest = await _look(node, connection.key, partial(witness.reach, agency))
            if known == newest:
                break
            new |= bool(await _witness(node, connection, GetDirectory(agency, known)))
            if (await _look(node, connection.key, partial(witness.reach, agency)))[0] == known:
                break
            node.pages[agency] += 1
    unmet = await _look(node, connection.key, node.directory.people.unmet)
    if unmet and told is not None:
        await _keep(node, connection.key, partial(node.directory.people.meet, connection.key))
    return new


async def show_directory(node: Asker, connections: Sequence[Connection]) -> bool:
    """Show peers the newest head of our directory, all at once; return whether a proof is new.

    So it is known to others if this node is lost, and nobody signs another of its number.
    """
    own = node.directory.agency.id
    news = await node.journal.read(partial(node.directory.witness.news, own))
    proved: list[bool] = []
    if news is None:
        return False

    async def show(connection: Connection) -> None:
        proved.append(bool(await _witness(node, connection, news)))

    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(show, connection)
    return any(proved)


def _what_to_witness(node: Asker, answerer: AgencyId) -> Witness:
    """Ask for any head of ours if none is here: we may be brought back from before the first."""
    asked, own = node.directory.witness.question(answerer), node.directory.agency.id
    if any(one.agency == own for one in asked.seen):
        return asked
    return replace(asked, seen=tuple(sorted((*asked.seen, Seen(own, 0, bytes(HASH_BYTES))))))


async def _witness(
    node: Asker, connection: Connection, asked: Witness | GetDirectory
) -> bool | None:
    """Return whether what a peer has answered is a new proof; None if it did not answer."""
    topic, body = encode_question(asked)
    with trio.move_on_after(ANSWER_SECONDS_MAX):
        try:
            answer = await connection.ask(topic, body)
            said = decode_answer(topic, answer.code, answer.body)
            if isinstance(said, Witnessed | Directory):
                witnessed = partial(node.directory.witnessed, said)
                return await _keep(node, connection.key, witnessed)
        except (PeerError, IvorError, Refusal) as error:
            log.warning("not compared", agency=connection.key.hex()[:16], why=str(error))
    return None


async def gather_receipts(node: Asker, device: bytes, ask: Ask) -> None:
    """Put a device's question for receipts to the other agencies in the chat; keep the answers.

    Raises PeerError for a malformed question.
    """
    asked = decode_question(ask.topic, ask.body)
    if not isinstance(asked, GetReceipts):
        return
    book = node.directory.receipts
    agencies = await node.journal.read(partial(book.others, device, asked))

    async def gather(agency: AgencyId) -> None:
        said = await _told(node, device, agency, Topic.RECEIPTS, ask.body)
        if not isinstance(said, Receipts):
            return
        card = await node.journal.read(partial(node.directory.trust.card, agency))
        nodes = [] if card is None else [one.node for one in card.nodes]
        try:
            keep = partial(book.keep, agency, nodes, asked, said.receipts)
            await _keep(node, agency, keep)
        except (PeerError, IvorError) as error:
            log.warning("receipts not kept", agency=agency.hex()[:16], why=str(error))

    async with trio.open_nursery() as nursery:
        for agency in agencies:
            nursery.start_soon(gather, agency)


async def tell_blobs(node: Asker, peer: PeerKind, key: bytes, ask: Ask) -> Answer:
    """Say how far blobs are: to a node how far here, to a device also which agencies have them."""
    asked = decode_question(ask.topic, ask.body)
    if not isinstance(asked, GetBlobs):
        raise NotCanonical("a question about something else (SPEC 7.1)")
    try:
        look = node.share(key).charged(partial(node.larder.states, key, asked))
        states = await node.journal.read(look)
    except RefusedError as error:
        return refused(ask, error)
    if peer is PeerKind.DEVICE:
        holders = await _holders(node, key, asked, ask.body)
        states = [
            one._replace(holders=(*one.holders, *others))
            for one, others in zip(states, holders, strict=True)
        ]
    return Answer(ask.number, 0, encode_answer(BlobStates(tuple(states))))


async def _holders(
    node: Asker, device: bytes, asked: GetBlobs, body: bytes
) -> Sequence[list[AgencyId]]:
    """Ask the other agencies of a chat, all at once, which blobs they have all of."""
    found: list[list[AgencyId]] = [[] for _ in asked.entries]

    async def ask_one(agency: AgencyId) -> None:
        said = await _told(node, device, agency, Topic.BLOBS, body)
        for at, one in enumerate(said.states if isinstance(said, BlobStates) else ()):
            if one.standing is Standing.WHOLE and at < len(found):
                found[at].append(agency)

    async with trio.open_nursery() as nursery:
        for peer in await node.journal.read(partial(node.larder.readers, asked.chat)):
            if peer in node.hub.agencies:
                nursery.start_soon(ask_one, AgencyId(peer))
    return found


async def pass_on(node: Asker, device: bytes, ask: Ask) -> Answer | None:
    """Hand a device's parcel to the node of another agency; return its answer.

    None if that is for our own directory to answer: it is ours, or not allowed, or nobody is there.
    """
    try:
        asked = decode_question(ask.topic, ask.body)
        if not isinstance(asked, Forward) or asked.agency == node.directory.agency.id:
            return None
        await node.journal.read(partial(node.directory.parcels.check, device, asked))
    except (PeerError, IvorError):
        return None
    answer = await _ask(node, device, asked.agency, Topic.FORWARD, ask.body)
    return None if answer is None else Answer(ask.number, answer.code, answer.body)


async def renew_card(node: Asker, connection: Connection) -> bool:
    """Ask an agency for its own card; return whether a newer one was taken."""
    known = await node.journal.read(partial(node.directory.trust.card, AgencyId(connection.key)))
    topic, body = encode_question(GetCard(0 if known is None else known.charter.serial))
    with trio.move_on_after(ANSWER_SECONDS_MAX):
        try:
            answer = await connection.ask(topic, body)
            reply = decode_answer(topic, answer.code, answer.body)
            raw = reply.card if isinstance(reply, OwnCard) else None
            if raw is not None and verify_card(raw).charter.agency == connection.key:
                local = node.settings.allow_local
                renew = partial(node.directory.trust.renew, raw, allow_local=local)
                return bool(await _keep(node, connection.key, renew))
        except (PeerError, IvorError, Refusal) as error:
            log.warning("card not renewed", agency=connection.key.hex()[:16], why=str(error))
    return False
