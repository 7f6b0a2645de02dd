"""Who was asked to sign a file, who has, and whether that verifies: read from the log (SPEC 5.8).

for one in approvals(device, chat, now): one.standing(user); one.faults
"""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from msgspec import convert

from client.cms import SignatureFault, check_detached
from client.device import Device
from client.mailbox import Letter, State
from client.reading import Line, Reader
from crypto.signatory import Subject
from node.errors import UserError
from protocol.approval import (
    Document,
    FileSignature,
    Revision,
    SignatureRefusal,
    SignatureRequest,
    Version,
)
from protocol.chat import Chat
from protocol.entry import ChatId, Reference
from protocol.identity import AgencyId, UserId, verify_card
from protocol.message import decode_message
from protocol.name import parse_address
from protocol.roster import Member

PREFIX_CHARS_MIN = 4
# Arrays of so many fields, the first of which is the kind's number.
_BEGINNINGS = (b"\x94\x07", b"\x95\x08", b"\x94\x09")


class Standing(Enum):
    """What somebody has done about a request."""

    SIGNED = "signed"
    REFUSED = "refused"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Answer:
    """A signature or refusal. fault: why it does not count, None if it does.

    time: of the entry, milliseconds. cms: None of a refusal. serial: of the certificate.
    revision: None also of one that counts while its PDF, `loose`, does not.
    """

    reference: Reference
    author: Member | None
    time: int
    fault: str | None
    cms: bytes | None
    serial: int | None
    revision: Revision | None
    reason: str
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Approval:
    """A request and all that was answered to it. fault: why it counts for nothing."""

    reference: Reference
    author: Member | None
    time: int
    fault: str | None
    document: Document
    asked: tuple[UserId, ...]
    note: str
    answers: tuple[Answer, ...]

    @property
    def sound(self) -> bool:
        """Whether it and everything that was answered counts."""
        return self.fault is None and all(one.fault is None for one in self.answers)

    @property
    def complete(self) -> bool:
        """Whether all who were asked have signed; if nobody was, whether somebody has."""
        signed = {one.author.user for one in self.signatures if one.author is not None}
        return self.fault is None and bool(signed) and signed >= set(self.asked)

    @property
    def signatures(self) -> Sequence[Answer]:
        """The signatures that count."""
        return [one for one in self.answers if one.cms is not None and one.fault is None]

    def standing(self, user: UserId) -> Standing:
        """Return what a user has done: a signature stays, whatever they say after it."""
        own = [one for one in self.answers if one.fault is None and _by(one, user)]
        if any(one.cms is not None for one in own):
            return Standing.SIGNED
        return Standing.REFUSED if own else Standing.WAITING

    def versions(self) -> Mapping[Version, Answer | None]:
        """Return the bytes that may be signed: the file's, and with each signature put into it."""
        found: dict[Version, Answer | None] = {
            Version(self.document.digest, self.document.size): None
        }
        found.update({one.revision.result: one for one in self.signatures if one.revision})
        return found


def approvals(device: Device, judge: Chat, now: int) -> list[Approval]:
    """Return the requests of a chat in its order, with everything verified. now: milliseconds."""
    reader = Reader(device, judge, now)
    lines = [reader.line(letter) for letter in _letters(device, judge.id)]
    authorities = _authorities(device)
    found: dict[Reference, Approval] = {}
    for line in lines:
        if isinstance(line.letter.message, SignatureRequest):
            found[line.letter.reference] = _request(line, line.letter.message)
    for line in lines:
        message = line.letter.message
        if isinstance(message, FileSignature | SignatureRefusal):
            request = found.get(message.request)
            if request is not None:
                answer = _answer(line, message, request, authorities)
                found[message.request] = replace(request, answers=(*request.answers, answer))
    return [_chained(one) for one in found.values()]


def find_approval(known: Sequence[Approval], prefix: str) -> Approval:
    """Return the request whose id begins with these hex digits. Raises UserError."""
    wanted = prefix.lower()
    fitting = [one for one in known if one.reference.id.hex().startswith(wanted)]
    if len(wanted) < PREFIX_CHARS_MIN or len(fitting) != 1:
        what = "more than one request" if len(fitting) > 1 else "no request to sign"
        raise UserError(
            f"{what} of this chat has an id that begins with {prefix!r}; 'ivor approvals CHAT' "
            f"lists them; give at least {PREFIX_CHARS_MIN} hex digits"
        )
    return fitting[0]


def authority_of(device: Device, agency: AgencyId) -> bytes | None:
    """Return the CA, PEM, of an agency that our node trusts."""
    der = _authorities(device).get(agency)
    return None if der is None else ssl.DER_cert_to_PEM_cert(der).encode()


def _by(answer: Answer, user: UserId) -> bool:
    return answer.author is not None and answer.author.user == user


def _letters(device: Device, chat: ChatId) -> list[Letter]:
    rows = device.connection.execute(
        "SELECT no, chat, device, seq, id, depth, time, state, plaintext FROM mailbox"
        " WHERE chat = ? AND state = ? AND substr(plaintext, 1, 2) IN (?, ?, ?)"
        " ORDER BY depth, time, id",
        (chat, State.OPEN, *_BEGINNINGS),
    ).fetchall()
    typed = convert(
        [(row[0], row[1], row[2:5], *row[5:]) for row in rows],
        list[tuple[int, ChatId, Reference, int, int, State, bytes]],
    )
    return [Letter(*one[:6], decode_message(one[6])) for one in typed]


def _authorities(device: Device) -> Mapping[AgencyId, bytes]:
    rows = device.connection.execute("SELECT id, card FROM agencies")
    return {AgencyId(agency): verify_card(card).ca for agency, card in rows}


def _request(line: Line, message: SignatureRequest) -> Approval:
    return Approval(
        line.letter.reference,
        line.author,
        line.letter.time,
        _void(line),
        message.document,
        message.asked,
        message.note,
        (),
    )


def _void(line: Line) -> str | None:
    if line.author is None:
        return "nobody of this chat wrote it"
    return None if line.void is None else line.void.value


def _answer(
    line: Line,
    message: FileSignature | SignatureRefusal,
    request: Approval,
    authorities: Mapping[AgencyId, bytes],
) -> Answer:
    fault, serial = _void(line), None
    if fault is None and request.fault is not None:
        fault = "the request counts for nothing"
    if fault is None and message.digest != request.document.digest:
        fault = "it names another file than the request"
    signed = message if isinstance(message, FileSignature) else None
    if fault is None and signed is not None and line.author is not None:
        try:
            serial = _verify(signed, line.author, line.letter.time, authorities)
        except SignatureFault as error:
            fault = str(error)
    return Answer(
        line.letter.reference,
        line.author,
        line.letter.time,
        fault,
        None if signed is None else signed.cms,
        serial,
        None if signed is None else signed.revision,
        message.reason if isinstance(message, SignatureRefusal) else "",
    )


def _verify(
    message: FileSignature, author: Member, time: int, authorities: Mapping[AgencyId, bytes]
) -> int:
    """Check rules 2 to 4 of SPEC 5.8; return the certificate's serial. Raises SignatureFault."""
    authority = authorities.get(author.agency)
    if authority is None:
        raise SignatureFault("our node does not trust the agency of its author")
    found = check_detached(message.cms, message.digest, authority)
    address = parse_address(author.name)
    if not found.signatory.is_of(Subject(address.user, address.agency, author.user)):
        raise SignatureFault(
            f"the certificate is of {found.signatory.common_name}, not of its author"
        )
    for moment in (time / 1000, found.time):
        if not found.signatory.is_valid_at(moment):
            raise SignatureFault("the certificate was not valid at that time")
    return found.signatory.serial


def _chained(one: Approval) -> Approval:
    """Let go of PDFs that do not follow from the request's file; who signed has signed."""
    known = {Version(one.document.digest, one.document.size)}
    waiting = [each.revision for each in one.signatures if each.revision is not None]
    while reached := [each for each in waiting if each.base in known]:
        known |= {each.result for each in reached}
        waiting = [each for each in waiting if each not in reached]
    return replace(one, answers=tuple(_marked(each, waiting) for each in one.answers))


def _marked(answer: Answer, loose: Sequence[Revision]) -> Answer:
    if answer.fault is None and answer.revision in loose:
        return replace(answer, revision=None, loose=True)
    return answer
