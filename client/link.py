"""A device's connection to its own node (SPEC 6, 7).

The same session and driver as between nodes; this side is a leaf: it hands on to nobody, and what
arrives goes to the mailbox.
"""

import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

from client import arrivals, identities, mailbox, people, witnessing
from client.delivery import unstored
from client.device import Device
from client.epochs import own_prekey
from client.federated import strange
from client.outbox import Outbox
from client.preview import preview
from client.reading import Line
from crypto.certificate import ends
from node import tls
from node.dealing import greeting_for
from node.driver import Connection
from node.errors import IdentityError, NetworkError, RefusedError, answered
from node.fetching import Fetching
from node.journal import Journal
from node.outgoing import Outgoing
from node.seals import Sealless
from node.share import Share, Shares
from node.stored import Stored
from node.wire import TLS_SECONDS_MAX, connect
from protocol.chat import Chat
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError, Untrusted
from protocol.frame import Answer, Ask, Blob, Forked, Holding, Lacking, Rumour, Seal, WantBlob
from protocol.identity import AgencyId, Card, UserId, verify_charter
from protocol.person import Person
from protocol.question import GetCard, GetReceipts, Lookup, PutPrekey, Question, encode_question
from protocol.reply import (
    Cards,
    OwnCard,
    People,
    Receipts,
    Refusal,
    Reply,
    Witnessed,
    decode_answer,
)
from protocol.run import Entry
from protocol.session import PeerKind
from protocol.topic import CARDS_MAX, HEADS_SEEN_MAX, LOOKUP_MAX, RECEIPTS_ASKED_MAX

Result = TypeVar("Result")
Heard = Callable[[Sequence[mailbox.Letter]], object]

SYNCED = "synced"  # when both sides last had what the other has: `Device.done_at`
ANSWER_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02
CARD_PAGES_MAX = HEADS_SEEN_MAX // CARDS_MAX  # of all agencies that a node compares


class Silent(NetworkError):
    """At an address of the node somebody takes connections, and does not answer in time."""


async def dial(
    card: Card, credential: tls.Credential, patience: float = TLS_SECONDS_MAX
) -> trio.SSLStream[trio.SocketStream]:
    """Connect to one of the nodes of an agency that its card names; the first that answers.

    patience: seconds for TLS, at each address.
    Raises NetworkError when none does, Silent if one of them took the connection and no more,
    Untrusted when one is not who it should be.
    """
    context = tls.client_context(credential, [card.ca])
    cards = {card.charter.agency: card}
    failure: type[NetworkError] = NetworkError
    refused = "its card names no address"
    for node in card.nodes:
        for endpoint in node.endpoints:
            try:
                stream, certificate = await _shake_hands(endpoint, context, patience)
            except (OSError, trio.TooSlowError, NetworkError) as error:
                refused = f"{endpoint}: {str(error) or 'no answer in time'}"
                failure = Silent if isinstance(error, Silent) else failure
                continue
            try:
                found = tls.peer_identity(certificate, cards, card.charter.agency, time.time())
            except Untrusted:
                await trio.aclose_forcefully(stream)
                raise
            if found == tls.NodePeer(card.charter.agency, node.node):
                return stream
            await trio.aclose_forcefully(stream)
            raise Untrusted(f"{endpoint} is another node than the card names (SPEC 6.1)")
    raise failure(f"no node of {card.charter.name} can be reached ({refused})")


async def _shake_hands(
    endpoint: str, context: ssl.SSLContext, seconds: float
) -> tuple[trio.SSLStream[trio.SocketStream], bytes]:
    stream = trio.SSLStream(await connect(endpoint), context, https_compatible=True)
    try:
        with trio.fail_after(seconds):
            return stream, await tls.handshake(stream)
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.TooSlowError):
            raise Silent("no answer in time") from None
        raise


class Link:
    """A running session of a device with its node, and what the device does on its events."""

    def __init__(self, device: Device, stream: trio.abc.Stream, heard: Heard = bool) -> None:
        self._device = device
        self._heard = heard
        self._came: Counter[ChatId] = Counter()
        self.refused: list[str] = []  # why cards and people were not taken up, or are again
        outbox = Outbox(device, self._push)
        self.journal = Journal(device.connection, device.forget, self._look_again, outbox.appended)
        self.fetching = Fetching(device.replica, self.journal, device.folder)
        self.news = trio.Event()
        self.connection = Connection(
            stream,
            PeerKind.NODE,
            device.profile.charter.agency,
            greeting_for(device.replica, device.profile.charter.agency),
            device.replica,
            self.journal,
            self,
        )
        self.greeted = trio.Event()
        self.ended = trio.Event()

    async def run(self) -> None:
        """Carry out what is to be written, and the session to its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run)
            try:
                await self.connection.run()
            finally:
                self.fetching.left(self.connection)
                self.ended.set()
                self._tell()

    def _look_again(self) -> None:
        """See what other processes of this device have written.

        Seals that one of them lacks it has asked for on its own session, which may end before they
        come: they are asked for on this one, too.
        """
        if self._device.refresh():
            self.connection.ask_for_seals()

    def share(self, key: bytes) -> Share:
        """A device has one peer, which shares with nobody."""
        return Shares().of(key)

    def _push(self, raw: bytes) -> None:
        self.connection.push(raw)

    def opened(self, connection: Connection) -> None:
        """The node has greeted."""
        del connection
        self.greeted.set()
        self._tell()

    def storing(self, parts: Sequence[Stored], source: Outgoing) -> Callable[[], None]:
        """Open what is being stored; tell of it once that is durable."""
        del source
        return partial(self._opened, arrivals.deliver(self._device, parts))

    def keeping_seals(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> Callable[[], None]:
        """A seal has come: open what waited for it."""
        del epoch, owners
        return partial(self._opened, arrivals.open_waiting_in(self._device, chat))

    def seals_lacked(self, lacked: Sealless, home: bytes) -> None:
        """A device reaches its own node alone."""

    def _opened(self, letters: Sequence[mailbox.Letter]) -> None:
        self._came.update(letter.chat for letter in letters)
        self._heard(letters)
        self._tell()

    def take_count(self) -> Counter[ChatId]:
        """Return how many messages of each chat have become readable since the last call."""
        came, self._came = self._came, Counter()
        return came

    def fork_kept(self, forked: Forked, readers: Sequence[bytes]) -> None:
        """A device was caught."""
        del forked, readers
        self._tell()

    def repeated(self, chat: ChatId, source: Outgoing) -> None:
        """A device is nobody's neighbour."""

    def gossiped(self, rumour: Rumour, readers: AbstractSet[bytes], source: Outgoing) -> None:
        """A device is nobody's neighbour."""

    def holdings_noted(self, holdings: Sequence[Holding], source: Outgoing) -> None:
        """A message got farther."""
        del holdings, source
        self._tell()

    async def consult(self, connection: Connection, ask: Ask) -> Answer:
        """A device keeps no directory."""
        del connection
        return Answer(ask.number, 8, b"a device answers no questions")

    async def load_chunk(self, want: WantBlob, source: Connection) -> Blob | None:
        """Read a chunk of a blob of ours for the node."""
        return await self.fetching.load(want, source.key)

    def took_chunk(self, frame: Blob | Lacking, source: Connection) -> None:
        """The node brings a chunk, or lacks some."""
        self.fetching.took(frame, source)

    def _tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def ask(self, question: Question) -> Reply:
        """Put a question to the node's directory. Raises what it reports, or NetworkError."""
        topic, body = encode_question(question)
        answer = None
        with trio.move_on_after(ANSWER_SECONDS_MAX):
            await self._greet()
            answer = await self.connection.ask(topic, body)
        if answer is None:
            raise NetworkError("the node did not answer in time")
        try:
            return decode_answer(topic, answer.code, answer.body)
        except Refusal as refusal:
            raise answered(refusal.code, str(refusal)) from None

    async def meet(self, seconds: float) -> None:
        """Wait until the node has greeted. Raises Silent if not in time, NetworkError as `check`.

        That it has shaken hands says little: a node, or a line, that stands still after that would
        be found out by the first question only.
        """
        with trio.move_on_after(seconds):
            return await self._greet()
        name = self._device.profile.card.charter.name
        raise Silent(f"the node of {name} takes the connection, and gives no answer in time")

    async def _greet(self) -> None:
        """Wait until the node has greeted: before that it answers nothing."""
        while not self.greeted.is_set():
            news = self.news
            self.check()
            await news.wait()

    async def look_up(self, names: Sequence[str]) -> list[UserId]:
        """Return the users of these addresses. Raises UserError for one that nobody vouches for."""
        return [
            await self.write(partial(witnessing.keep_listed, self._device, person))
            for person in await self._persons(names)
        ]

    async def accept_change(self, name: str) -> UserId:
        """Take the present identity of a user in the place of the one that was known.

        If it is that one, again or still, it stays as it was known, compared or not.
        """
        (person,) = await self._persons([name])

        def replace() -> UserId:
            known = people.acquaintance(self._device, name)
            if known is not None and known.user == people.checked(self._device, person).user:
                identities.forget(self._device, name)
            else:
                people.accept_change(self._device, name)
            return witnessing.keep_listed(self._device, person)

        return await self.write(replace)

    async def _persons(self, names: Sequence[str]) -> list[Person]:
        found = []
        told = await self._told(Lookup(names=tuple(names)))
        for name, person in zip(names, told.people, strict=True):
            if person is None or people.name_of(person) != name:
                await self._take_cards()
                why_not = partial(people.why_not, self._device, name, told.unreached)
                raise await self.journal.read(why_not)
            await self.write(partial(witnessing.note_listing, self._device, person))
            await self._compare(person)
            found.append(person)
        return found

    async def _told(self, asked: Lookup) -> People:
        """Put a look-up; return a person, or None, for each that was asked for."""
        reply = await self.ask(asked)
        count = len(asked.names) + len(asked.users)
        if not isinstance(reply, People) or len(reply.people) != count:
            raise NetworkError("the node answered another question than was asked")
        return reply

    async def write(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a transaction of the device; what it appends is pushed once durable.

        Never before: a device that forgets what it has sent would sign the place again (I16).
        """
        return await self.journal.write(work)

    async def refresh(self) -> None:
        """Publish our prekey, and take up cards and the people of our chats."""
        now = int(time.time() * 1000)
        record = await self.write(partial(own_prekey, self._device, now))
        await self.ask(PutPrekey(record))
        await self._take_cards()
        await self.compare_directories()
        await self._look_after(await self.journal.read(partial(people.companions, self._device)))

    async def seek(self, chat: ChatId | None = None) -> None:
        """Take up who is new in our chats, or in one: without a key they could not read us.

        Where an agency of theirs is not known here, our node may have come to trust it since.
        """
        device, now = self._device, int(time.time() * 1000)

        def judges() -> Iterable[Chat]:
            return device.chats() if chat is None else filter(None, [device.chat(chat)])

        if await self.journal.read(lambda: any(strange(device, judge) for judge in judges())):
            await self._take_others_cards()
        users = await self.journal.read(lambda: people.strangers(device, judges(), now))
        if users and await self._look_after(users):
            await self.write(partial(people.note_sought, device, users, now))

    async def _look_after(self, users: Sequence[UserId]) -> bool:
        """Take up what the directory says of users now; return whether all could be asked."""
        suspects = await self.journal.read(partial(witnessing.suspects, self._device))
        told = True
        for at in range(0, len(users), LOOKUP_MAX):
            try:
                found, unreached = await self._described(users[at : at + LOOKUP_MAX])
                for person in found:
                    await self._try_to_keep(person, suspects)
                told = told and not unreached
            except RefusedError as error:  # a node that was brought back has to meet others first
                self.refused.append(str(error))
                told = False
        return told

    async def _described(self, users: Sequence[UserId]) -> tuple[list[Person], list[AgencyId]]:
        """Ask for users by id, and by name those whom our node does not know by that.

        And whose name meant another: nothing keeps a directory from listing both of them.
        Return who was told of, and the agencies that did not answer.
        """
        told = await self._told(Lookup(users=tuple(users)))
        found = dict(zip(users, told.people, strict=True))
        found |= dict.fromkeys(await self.journal.read(partial(identities.changed, self._device)))
        absent = [user for user in users if found[user] is None]
        names = await self.journal.read(partial(people.names_of, self._device, absent))
        named = await self._told(Lookup(names=names)) if names else People(())
        persons = [person for person in (*found.values(), *named.people) if person is not None]
        return persons, [*told.unreached, *named.unreached]

    async def look_up_own(self) -> None:
        """Take up our own certificates and devices, as the directory has them now."""
        told = await self._told(Lookup(users=(self._device.profile.user.user,)))
        for person in told.people:
            if person is not None:
                await self.write(partial(witnessing.keep_listed, self._device, person))

    async def _take_cards(self) -> None:
        """Take up our agency's newer card, and those that our node has taken of others."""
        reply = await self.ask(GetCard(self._device.profile.card.charter.serial))
        if isinstance(reply, OwnCard) and reply.card is not None:
            await self.write(partial(people.keep_card, self._device, reply.card))
        await self._take_others_cards()

    async def _take_others_cards(self) -> None:
        """Take up the cards of other agencies that our node has taken since we asked."""
        for _ in range(CARD_PAGES_MAX):
            asked = await self.journal.read(partial(people.cards_seen, self._device))
            told = await self.ask(asked)
            if not isinstance(told, Cards):
                return
            self.refused += await self.write(partial(people.keep_cards, self._device, told))
            if len(told.cards) < CARDS_MAX:
                return

    async def _try_to_keep(self, person: Person, suspects: Collection[AgencyId]) -> None:
        """Keep what the node tells of a companion; who is not to be believed is left as known."""
        try:
            await self._keep(person, suspects)
        except (IdentityError, PeerError) as error:
            self.refused.append(str(error))

    async def _keep(self, person: Person, suspects: Collection[AgencyId]) -> None:
        """Keep what the node tells of a companion, unless it is another or the agency lies."""
        await self.write(partial(witnessing.note_listing, self._device, person))
        if verify_charter(person.charter).agency in suspects:
            return
        if not await self._compare(person):
            await self.write(partial(witnessing.keep_listed, self._device, person))

    async def _compare(self, person: Person) -> bool:
        """Keep it if a name means another identity now; return whether it does."""
        tell = self.refused.append
        return await self.write(partial(witnessing.note_change, self._device, person, tell))

    async def compare_directories(self) -> None:
        """Hear whether agencies showed others the directories that they showed us."""
        asked = await self.journal.read(partial(witnessing.asked, self._device))
        said = await self.ask(asked)
        if isinstance(said, Witnessed):
            await self.write(partial(witnessing.hear, self._device, said))

    async def receipts(self, chat: ChatId, entries: Sequence[EntryId]) -> list[bytes]:
        """Ask who has dropped these payloads: our node, and through it those of other agencies."""
        found: list[bytes] = []
        for at in range(0, len(entries), RECEIPTS_ASKED_MAX):
            part = tuple(entries[at : at + RECEIPTS_ASKED_MAX])
            reply = await self.ask(GetReceipts(chat, part))
            found += reply.receipts if isinstance(reply, Receipts) else ()
        return found

    async def preview(self, chat: ChatId, show: Callable[[Sequence[Line]], None]) -> None:
        """Have the newest messages of a chat shown, once, if much of it is yet to come."""

        async def open_and_show(entries: Sequence[Entry]) -> None:
            now = int(time.time() * 1000)
            show(await self.write(partial(preview, self._device, chat, entries, now)))

        await self.connection.preview(chat, open_and_show)

    async def settle(self, seconds: float) -> bool:
        """Wait until both sides have what the other has; return whether that came in time.

        Our own disk, which notes it, may take longer.
        """
        with trio.move_on_after(seconds) as waiting:
            while not (self.caught_up and await self._all_told()):
                self.check()
                await trio.sleep(POLL_SECONDS)
        if not waiting.cancelled_caught:
            await self.write(self._settled)
        return not waiting.cancelled_caught

    def _settled(self) -> None:
        if self._device.displaced:
            self._device.settle_here()
        self._device.note(SYNCED, int(time.time() * 1000))

    @property
    def caught_up(self) -> bool:
        """Whether all that the node has listed is here."""
        return self.connection.caught_up

    def check(self) -> None:
        """Raise NetworkError if the session is over."""
        if not self.ended.is_set():
            return
        failure = self.connection.failure
        hung_up = failure is None or isinstance(failure, trio.BrokenResourceError)
        if self.greeted.is_set() or not hung_up:
            raise NetworkError(f"the connection ended: {failure or 'by the node'}")
        raise NetworkError(f"the node closes the connection: {_why_hung_up(self._device)}")

    async def _all_told(self) -> bool:
        return not await self.journal.read(partial(unstored, self._device))


def _why_hung_up(device: Device) -> str:
    """Say why a node that is ours says nothing to this device, and what to do."""
    if ends(device.profile.tls_certificate) >= time.time():
        return "this device may be revoked; ask your administrator"
    replaced = (
        "keep what 'ivor recovery show' and 'ivor backup' give, and ask your operator for 'ivor "
        "node invite --recover'; then, with IVOR_HOME in another folder, 'ivor join' and 'ivor "
        "recover' make a device in its place"
        if device.secrets.user is not None
        else "'ivor device link' on your first device makes another in its place"
    )
    return (
        "this device was away for too long: its certificate, of 90 days, is over (or this "
        f"machine's clock is wrong). It still opens what it has; {replaced}"
    )


@asynccontextmanager
async def linked(
    device: Device, heard: Heard = bool, patience: float = TLS_SECONDS_MAX
) -> AsyncIterator[Link]:
    """Connect a device to its node for the length of a block.

    heard: gets each message as it comes, once it is durable. They are a million where somebody
    joins a large chat, so nobody else keeps them; the mailbox has them.
    patience: as of `dial`.
    Raises NetworkError when no node answers, Untrusted when it is not ours.
    """
    device.reread()
    stream = await dial(device.profile.card, device.credential, patience)
    async with over(device, stream, heard) as link:
        yield link


@asynccontextmanager
async def over(device: Device, stream: trio.abc.Stream, heard: Heard = bool) -> AsyncIterator[Link]:
    """Run a session over an authenticated stream for the length of a block; as `linked`."""
    try:
        async with trio.open_nursery() as nursery:
            link = Link(device, stream, heard)
            nursery.start_soon(link.run)
            try:
                yield link
            finally:
                link.connection.close()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    """Return the failure itself: a nursery wraps it in a group, also when it is alone."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
