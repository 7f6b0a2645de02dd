"""Owners decide together: sign what another proposes, publish what enough have signed (SPEC 5.9).

Call each inside one transaction; `now` is milliseconds UTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import convert

from client import compose
from client.chats import title_of
from client.device import Device
from client.epochs import start_epoch
from client.motions import UNTIL_ENTRIES_MAX, Asked, Stand, motions, owners
from client.writing import append_control, may_sign
from node.errors import RefusedError, UserError
from protocol.chat import Chat
from protocol.entry import ChatId, Reference
from protocol.operation import SIGNERS_MAX, Admit, Quorum
from protocol.roster import Void


@dataclass(frozen=True, slots=True)
class Decided:
    """A proposal of ours that was published. words: what it does. void: why it has no effect."""

    chat: ChatId
    place: Reference
    words: Sequence[str]
    void: Void | None

    @property
    def told(self) -> str:
        """What to tell people of it."""
        said = f"enough owners have signed, so it is done: {'; '.join(self.words)}"
        return said if self.void is None else f"{said}; it has no effect: {self.void.value}"


def approve(device: Device, chat: Chat, asked: Asked, now: int) -> Reference:
    """Sign a proposal, as an owner, and tell the chat. Raises RefusedError or UserError."""
    ours = device.profile.user.user
    if ours not in owners(chat):
        raise RefusedError("only an owner of the chat can sign this; 'ivor chat show' lists them")
    if asked.stand is not Stand.OPEN:
        raise UserError(f"that proposal is {asked.stand.value}; nothing was signed")
    if asked.author not in asked.owners:
        raise RefusedError("who proposed this is no owner any more; nothing was signed")
    ahead = asked.proposal.until - chat.history.length(asked.place.device)
    if ahead > UNTIL_ENTRIES_MAX:
        raise RefusedError("that proposal would be open for too long; nothing was signed")
    if ours == asked.author or ours in asked.signed:
        rest = "enough owners have; it is done when its author's device is next online"
        raise UserError(
            f"you have signed that already; {rest if asked.ready else 'the other owners have to'}"
        )
    return compose.consent(device, chat, asked.place, asked.proposal, now)


def settle(device: Device, now: int) -> Sequence[Decided]:
    """Publish those proposals of ours that enough owners have signed; return which."""
    if not may_sign(device):
        return ()
    rows = device.connection.execute("SELECT chat, id FROM proposed").fetchall()
    done = []
    for chat_id, entry in convert(rows, list[tuple[ChatId, bytes]]):
        judge = device.chat(chat_id)
        found = [] if judge is None else motions(device, judge)
        for asked in found:
            if judge is None or asked.place.id != entry:
                continue
            if asked.ready:
                done += _publish(device, judge, asked, now)
            elif asked.stand is not Stand.OPEN:
                _forget(device, asked)
    return done


def _publish(device: Device, chat: Chat, asked: Asked, now: int) -> list[Decided]:
    signatures = sorted(asked.signed.values(), key=lambda one: one.device)[:SIGNERS_MAX]
    proposal = asked.proposal
    decision = Quorum(device.key, proposal.until, proposal.operations, tuple(signatures))
    try:
        entry = append_control(device, chat, decision, now)
    except RefusedError:
        return []  # our own chain is forked: another device of ours, or owner, has to propose
    _forget(device, asked)
    void = chat.membership().void.get(entry.id)
    if void is None and device.key in chat.membership().devices:
        start_epoch(device, chat, now)
        if any(isinstance(one, Admit) for one in proposal.operations):
            compose.repeat_title(device, chat, title_of(device, chat), now)
    return [Decided(chat.id, asked.place, asked.words, void)]


def _forget(device: Device, asked: Asked) -> None:
    device.connection.execute("DELETE FROM proposed WHERE id = ?", (asked.place.id,))


def find_proposal(device: Device, chat: Chat, prefix: str) -> Asked:
    """Return the proposal whose id begins with these hex digits. Raises UserError."""
    found = [one for one in motions(device, chat) if one.place.id.hex().startswith(prefix.lower())]
    if len(found) != 1 or not prefix:
        what = "no proposal" if not found else "more than one proposal"
        raise UserError(f"{what} of this chat fits {prefix!r}; 'ivor chat proposals' lists them")
    return found[0]
