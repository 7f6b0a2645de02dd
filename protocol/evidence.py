"""Evidence: checking, from one file alone, who wrote what in a chat (SPEC 5.10).

    findings = check(raw, anchors={})          # or EvidenceRefused, with offset and rule
    findings.statements[0].plaintext           # what that device signed

No key, node, network or clock is needed. Elements are checked in the order of the file, and what
does not hold is refused at the first byte of the element in which it shows. anchors: agency names
and the fingerprints that somebody compared; then each message must be covered by a checkpoint that
one of these agencies vouches for with ML-DSA, so that forged Ed25519 signatures prove nothing.
"""

import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from crypto.content import franking_commitment
from protocol import codec
from protocol.entry import (
    ChatId,
    ContentHeader,
    EntryId,
    Reference,
    header_before_commitment,
)
from protocol.errors import PeerError
from protocol.exhibit import ELEMENT_BYTES_MAX, FRAME, MAGIC, Tag
from protocol.identity import Charter
from protocol.lane import (
    Cover,
    Lane,
    Named,
    Rule,
    Wrong,
    check_authentic,
    read_header,
    read_signature,
)
from protocol.limits import HASH_BYTES, PAYLOAD_BYTES_MAX

_FOLLOWS: Final[Mapping[Tag | None, frozenset[int]]] = {
    None: frozenset({Tag.CONTROL}),
    Tag.CONTROL: frozenset({Tag.CONTROL, Tag.CONTENT, Tag.END}),
    Tag.CONTENT: frozenset({Tag.CONTENT, Tag.MESSAGE, Tag.END}),
    Tag.MESSAGE: frozenset({Tag.CONTENT, Tag.END}),
    Tag.END: frozenset(),
}


class EvidenceRefused(PeerError):
    """A file that proves nothing. offset: of the first byte of the element that is wrong."""

    def __init__(self, offset: int, rule: Rule, text: str) -> None:
        super().__init__(f"at byte {offset}, rule {rule}: {text} (SPEC 5.10)")
        self.offset = offset
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Statement:
    """One disclosed message: this device of this user signed it, at this place of the chat.

    checkpoints: ids of those that cover it, the oldest first.
    """

    id: EntryId
    header: ContentHeader
    author: Named
    plaintext: bytes = field(repr=False)
    checkpoints: tuple[EntryId, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a file proves. lane: the control entries, for `judgement`. content: headers in it."""

    chat: ChatId
    lane: Lane
    statements: tuple[Statement, ...]
    content: int

    @property
    def charters(self) -> Sequence[Charter]:
        """The charters in it, the newest of each agency and archive key."""
        newest: dict[tuple[bytes, bytes], Charter] = {}
        for charter in self.lane.charters:
            known = newest.get((charter.agency, charter.archive))
            if known is None or known.serial < charter.serial:
                newest[charter.agency, charter.archive] = charter
        return [newest[key] for key in sorted(newest)]


def check(
    raw: bytes,
    anchors: Mapping[str, str] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Findings:
    """Check a file. anchors: fingerprint by agency name. advance: told bytes that were checked.

    Raises EvidenceRefused.
    """
    checker = _Checker({name: _plain(shown) for name, shown in (anchors or {}).items()})
    for offset, tag, body in _elements(raw):
        try:
            checker.take(offset, tag, body)
        except Wrong as wrong:
            raise EvidenceRefused(
                offset if wrong.offset is None else wrong.offset, wrong.rule, str(wrong)
            ) from None
        advance(FRAME.size + len(body))
    assert checker.lane.chat is not None, "a file begins with a control entry"
    return Findings(checker.lane.chat, checker.lane, tuple(checker.statements), checker.content)


def _plain(fingerprint: str) -> str:
    return "".join(fingerprint.split()).upper()


def _elements(raw: bytes) -> Iterator[tuple[int, Tag, bytes]]:
    """Yield the elements, each with the offset of its first byte."""
    if not raw.startswith(MAGIC):
        raise EvidenceRefused(0, Rule.MAGIC, "this is no evidence file of version 1")
    at = len(MAGIC)
    before: Tag | None = None
    while before is not Tag.END:
        if len(raw) - at < FRAME.size:
            raise EvidenceRefused(at, Rule.TRUNCATED, f"the file ends at byte {len(raw)}, cut off")
        number, size = FRAME.unpack_from(raw, at)
        if number not in _FOLLOWS[before]:
            raise EvidenceRefused(at, Rule.ELEMENT, f"no element {number} is allowed here")
        tag = Tag(number)
        if size > (ELEMENT_BYTES_MAX if tag else 0):
            raise EvidenceRefused(at, Rule.ELEMENT, f"an element of {size} bytes is too long")
        start = at + FRAME.size
        if len(raw) - start < size:
            raise EvidenceRefused(at, Rule.TRUNCATED, f"the file ends at byte {len(raw)}, cut off")
        yield at, tag, raw[start : start + size]
        at, before = start + size, tag
    if at != len(raw):
        raise EvidenceRefused(at, Rule.TRAILING, f"{len(raw) - at} bytes after the end")


class _Checker:
    """What was proved so far."""

    def __init__(self, anchors: Mapping[str, str]) -> None:
        self.anchors = anchors
        self.lane = Lane(anchors)
        self.statements: list[Statement] = []
        self.content = 0
        self._ids: set[EntryId] = set()
        self._next: Cover | None = None
        self._covering: tuple[EntryId, ...] = ()
        self._entry: tuple[EntryId, ContentHeader, Named] | None = None

    def take(self, offset: int, tag: Tag, body: bytes) -> None:
        """Check one element. Raises Wrong."""
        if tag is Tag.CONTROL:
            self.lane.take(offset, body)
            return
        self.lane.close()
        if tag is Tag.CONTENT:
            self._take_content(body)
        elif tag is Tag.MESSAGE:
            self._take_message(body)

    def _take_content(self, body: bytes) -> None:
        try:
            fields = codec.record(codec.decode(body, ELEMENT_BYTES_MAX), 2, "content element")
            raw = codec.binary(fields[0], ELEMENT_BYTES_MAX, "header")
            signature = read_signature(fields[1])
        except PeerError as error:
            raise Wrong(Rule.ENCODING, str(error)) from None
        header, entry = read_header(raw, ContentHeader)
        if header.chat != self.lane.chat:
            raise Wrong(Rule.CHAT, "an entry of another chat")
        if entry in self._ids:
            raise Wrong(Rule.TWICE, "an entry that was there before")
        expected = self._next
        follows = expected is not None and expected.fits(header, entry)
        distance = check_authentic(header, entry, signature, expected)
        author = self.lane.author(header)
        if not follows:
            self._covering = ()
        place = Reference(header.device, header.seq, entry)
        self._covering += tuple(self.lane.naming(place))
        self._ids.add(entry)
        self._next = Cover.of(header, distance)
        self._entry = (entry, header, author)
        self.content += 1

    def _take_message(self, body: bytes) -> None:
        assert self._entry is not None, "a message follows its entry"
        entry, header, author = self._entry
        try:
            fields = codec.record(codec.decode(body, ELEMENT_BYTES_MAX), 2, "message element")
            frank = codec.fixed(fields[0], HASH_BYTES, "kf")
            plaintext = codec.binary(fields[1], PAYLOAD_BYTES_MAX, "message")
        except PeerError as error:
            raise Wrong(Rule.ENCODING, str(error)) from None
        found = franking_commitment(frank, header_before_commitment(header), plaintext)
        if not hmac.compare_digest(found, header.pc):
            raise Wrong(Rule.MESSAGE, "the text is not what the header commits to")
        if self.anchors and not any(self.lane.vouched(one) for one in self._covering):
            raise Wrong(
                Rule.ANCHOR, "no checkpoint of an agency whose fingerprint was given covers it"
            )
        order = sorted(set(self._covering), key=self.lane.number)
        self.statements.append(Statement(entry, header, author, plaintext, tuple(order)))
