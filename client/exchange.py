"""One visit to the node: bring what we wrote, take what others wrote, and do what follows from it.

Order matters: first both sides are even, then what came is opened, then what it calls for is
written (a caught device is revoked, a further device of ours is brought in), and that is sent too.
"""

import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

import trio

from client import grants, mailbox
from client.arrivals import take_in
from client.bringing import hand_over
from client.deciding import Decided, settle
from client.device import Device
from client.epochs import let_all_read, skipping
from client.erasure import drop_aged, empty_log, erase_prekeys
from client.handing import hand_on, unfinished
from client.link import Link
from client.linking import History, bring_in, take_parcels
from client.revoking import Exposed, exposed, revoke_exposed, revoke_given_up, tell_again
from client.writing import may_sign
from crypto.certificate import begins, key_of, public_pem
from node import tls
from node.errors import IdentityError, IvorError, NetworkError
from node.words import counted
from protocol.entry import ChatId
from protocol.errors import PeerError
from protocol.identity import AgencyId
from protocol.question import Forward, Renew
from protocol.reply import Certified

REFRESH_MS = 24 * 3600 * 1000
RENEW_MS = 30 * 24 * 3600 * 1000  # a TLS certificate is good for 90 days
ASK_MS = 3600 * 1000
SEALS_SECONDS_MAX = 2.0
NEWS_SECONDS_MAX = 0.5
GRANTS_ROUNDS_MAX = 8  # of key grants in one visit
_REFRESHED = "refreshed"
_ASKED = "asked for payloads"
_REACHED = "reached"  # up to which number of the mailbox `reach_all` has looked


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visit brought.

    even: whether both sides had all in time. came: how many messages became readable, by chat.
    archived: messages from another device of ours.
    revoked: devices that were caught, and put out by us. warnings: what was not taken, and why.
    decided: proposals of ours that enough owners have signed, and that are published now.
    """

    even: bool
    came: Counter[ChatId]
    archived: int
    revoked: Sequence[Exposed]
    warnings: Sequence[str]
    decided: Sequence[Decided] = ()

    @property
    def told(self) -> Sequence[str]:
        """What to tell people of it, whichever command it was: no later visit may say it again."""
        done = [one.told for one in self.decided]
        return [*done, *(one.words for one in self.revoked), *self.warnings]


def now_ms() -> int:
    """Return the time in milliseconds UTC."""
    return int(time.time() * 1000)


async def visit(device: Device, link: Link, seconds: float) -> Visit:
    """Exchange all there is, for at most about that long. Raises NetworkError."""
    even = await link.settle(seconds)
    await _refresh(device, link, REFRESH_MS)
    await link.compare_directories()
    return await finish(device, link, seconds, even=even)


async def visit_fresh(device: Device, link: Link, seconds: float) -> Visit:
    """The same, and ask anew for prekeys, cards and people however fresh they are."""
    even = await link.settle(seconds)
    await _refresh(device, link, 0)
    return await finish(device, link, seconds, even=even)


async def finish(device: Device, link: Link, seconds: float, *, even: bool) -> Visit:
    """Open what came, take parcels, write what follows from it, and send that."""
    history = History()
    await take_parcels(device, link, history)
    came = await receive(device, link)
    revoked = await revoke_caught(device, link)
    decided = await decide(device, link)
    await link.journal.read(partial(drop_aged, device))
    await link.fetching.clear()
    await hand_over(device, link)
    again = await link.write(partial(revoke_given_up, device, now_ms()))
    brought_in = await link.write(partial(bring_in, device, now_ms()))
    if await reach_all(device, link) or brought_in or again or revoked or decided:
        even = await link.settle(seconds)
    await tell_again(device, link)
    await hand_out(device, link)
    await hand_on(device, link)
    left = await link.journal.read(partial(unfinished, device))
    said = (*link.refused, *history.refused, *_out_again(again), *_to_come(history), *left)
    warnings = list(dict.fromkeys(said))
    return Visit(even, came, history.readable, revoked, warnings, decided)


def _out_again(chats: int) -> Sequence[str]:
    """Say that others had brought a device in again that was given up, if they had."""
    said = f"others brought in a device that you gave up; it was put out again (chats: {chats})"
    return [said] if chats else []


def _to_come(history: History) -> Sequence[str]:
    """Say that more of the history is to come from another device of ours, if it is."""
    said = (
        f"{counted(history.left, 'part')} of the history to come: run 'ivor sync' on the device "
        "that has linked this one, and here again"
    )
    return [said] if history.left else []


class _Fate(Enum):
    """What became of a parcel for another member's device."""

    KEPT = 1
    REFUSED = 2
    AWAY = 3  # its node did not answer


async def hand_out(device: Device, link: Link) -> None:
    """Hand over a part of the keys that we owe, and ask for those that we lack (SPEC 4.6).

    In this order: where a node has room for little, two would else only ever ask each other.
    """
    away: set[AgencyId] = set()
    await _hand_over_keys(device, link, away)
    for asked in await link.write(partial(grants.asks, device, now_ms())):
        if await _forward(link, asked, away) is _Fate.AWAY:
            await link.write(partial(grants.unheard, device, asked))


async def _hand_over_keys(device: Device, link: Link, away: set[AgencyId]) -> None:
    for _ in range(GRANTS_ROUNDS_MAX):
        fates = set()
        for errand in await link.write(partial(grants.due, device, now_ms())):
            fate = await _forward(link, errand.question, away)
            fates.add(fate)
            if fate is not _Fate.AWAY:
                note = grants.done if fate is _Fate.KEPT else grants.refused
                await link.write(partial(note, device, errand))
        if not fates or _Fate.REFUSED in fates:
            return


async def _forward(link: Link, parcel: Forward, away: set[AgencyId]) -> _Fate:
    """Hand a parcel on. away: agencies whose nodes did not answer, and are not tried again now."""
    if parcel.agency in away:
        return _Fate.AWAY
    try:
        await link.ask(parcel)
    except NetworkError:
        away.add(parcel.agency)
        return _Fate.AWAY
    except (IvorError, PeerError):  # another agency's node answers what it likes
        return _Fate.REFUSED
    return _Fate.KEPT


async def trade_keys(device: Device, link: Link) -> Sequence[str]:
    """Take the keys of channels that have come, and hand out what is asked of us.

    Returns why parcels were not taken.
    """
    history = History()
    await take_parcels(device, link, history)
    await hand_out(device, link)
    return history.refused


async def reach_all(device: Device, link: Link) -> int:
    """Start epochs for whom ours skip, or others', where these wrote; return in how many chats.

    Since this was done last, by whichever command: what came is seen by the first that does it.
    """
    return await link.write(lambda: reach_more(device, now_ms()))


def reach_more(device: Device, now: int) -> int:
    """The same inside a transaction. now: milliseconds."""
    if not may_sign(device):
        return 0
    looked, latest = int(device.noted(_REACHED) or 0), mailbox.latest(device)
    stirred = mailbox.stirred_since(device, looked)
    if looked != latest:
        device.note(_REACHED, latest)
    return let_all_read(device, dict.fromkeys([*stirred, *skipping(device)]), now)


async def decide(device: Device, link: Link) -> Sequence[Decided]:
    """Publish what enough owners have signed; return which proposals those are."""
    return await link.write(partial(settle, device, now_ms()))


async def revoke_caught(device: Device, link: Link) -> Sequence[Exposed]:
    """Revoke the devices that a stored proof exposes; return which."""
    if not await link.journal.read(partial(exposed, device)):
        return ()
    return await link.write(partial(revoke_exposed, device, now_ms()))


async def tend(device: Device, link: Link) -> Sequence[str]:
    """Do what a device that stays online must do from time to time: renew, erase (SPEC 4.5).

    Returns what to tell people of it that this session has not told yet.
    """
    before = set(link.refused)
    await _refresh(device, link, REFRESH_MS)
    await _ask_again(device, link)
    await link.compare_directories()
    await link.journal.read(partial(erase_prekeys, device, now_ms()))
    await link.journal.read(partial(drop_aged, device))
    await link.journal.read(partial(empty_log, device))
    await link.fetching.clear()
    decided = await decide(device, link)
    await reach_all(device, link)
    await tell_again(device, link)
    await hand_over(device, link)
    await hand_on(device, link)
    unread = await trade_keys(device, link)
    refused = [one for one in dict.fromkeys(link.refused) if one not in before]
    return [*(one.told for one in decided), *refused, *unread]


async def _ask_again(device: Device, link: Link) -> None:
    """Ask every hour for payloads that came as gone and are not, and open those that came so.

    As a session begins they are asked for anyway; the node may have got them since (SPEC 2.6).
    """
    now = now_ms()
    await link.write(partial(take_in, device, now))
    if abs(now - await link.journal.read(partial(device.done_at, _ASKED))) >= ASK_MS:
        await link.connection.ask_for_payloads()
        await link.write(partial(device.note, _ASKED, now))


async def receive(device: Device, link: Link) -> Counter[ChatId]:
    """Open what came; wait a little for seals that are on their way. Return as `Visit.came`."""
    found = await link.write(partial(take_in, device, now_ms()))
    with trio.move_on_after(SEALS_SECONDS_MAX):
        while await link.journal.read(partial(_lacks_seals, device)):
            news = link.news
            link.check()
            with trio.move_on_after(NEWS_SECONDS_MAX):
                await news.wait()
            found += await link.write(partial(take_in, device, now_ms()))
    return link.take_count() + Counter(letter.chat for letter in found)


def _lacks_seals(device: Device) -> bool:
    """Whether a seal is outstanding, and a message waits for one."""
    waits = device.connection.execute(
        f"SELECT 1 FROM mailbox WHERE state = {mailbox.State.SEALED:d} LIMIT 1"  # noqa: S608 - ours
    ).get
    return waits is not None and bool(device.replica.sealless(device.profile.charter.agency)[0])


async def wait_until(link: Link, reached: Callable[[], bool], seconds: float) -> bool:
    """Wait for something in the database, as news comes; return whether it came in time."""
    with trio.move_on_after(seconds):
        while True:
            news = link.news
            if await link.journal.read(reached):
                return True
            link.check()
            with trio.move_on_after(NEWS_SECONDS_MAX):
                await news.wait()
    return False


async def _refresh(device: Device, link: Link, age: int) -> None:
    await stay_known(device, link, age)
    await link.seek()


async def stay_known(device: Device, link: Link, age: int = REFRESH_MS) -> None:
    """Publish our prekey, take up cards and people, and renew our certificate, if it is time.

    It is also time if a clock that was wrong dated the last time ahead. Each command that connects
    owes it: who only ever sends would know nobody's key, and have no certificate, one day.
    """
    now = now_ms()
    if abs(now - await link.journal.read(partial(device.done_at, _REFRESHED))) >= age:
        await link.refresh()
        await link.write(partial(device.note, _REFRESHED, now))
    if await link.journal.read(partial(renewal_due, device, now)):
        reply = await link.ask(Renew(public_pem(device.secrets.tls_key)))
        if isinstance(reply, Certified):
            try:
                await link.write(partial(keep_credential, device, reply.certificate))
            except IdentityError as error:  # the present one is good for 60 days more
                link.refused.append(str(error))


def renewal_due(device: Device, now: int) -> bool:
    """Whether our TLS certificate is to be replaced. now: milliseconds."""
    pem = device.connection.execute("SELECT tls FROM profile").get
    return now - begins(pem) * 1000 >= RENEW_MS


def keep_credential(device: Device, pem: bytes) -> None:
    """Check and keep our new TLS certificate: without one that is ours no node can be reached.

    Raises IdentityError; then the present one stays.
    """
    card = device.profile.card
    agency = card.charter.agency
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode())
        peer = tls.peer_identity(der, {agency: card}, agency, time.time())
    except (PeerError, ValueError) as error:
        raise IdentityError(f"our node gave a TLS certificate that is none: {error}") from None
    if peer != tls.DevicePeer(device.key) or key_of(der) != public_pem(device.secrets.tls_key):
        raise IdentityError("our node gave a TLS certificate for another device, or another key")
    device.connection.execute("UPDATE profile SET tls = ?", (pem,))
