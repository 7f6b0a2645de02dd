"""A replica: judge a verified run, store it, and say what became of it (SPEC 6.4, 10).

The one place where bytes of a peer become entries of ours. Everything here runs inside a
transaction that `journal` holds open; nothing is acknowledged to anyone before that is durable.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache, partial

import apsw

from node.aging import may_age
from node.blobs import Blobs
from node.candidates import Candidate, Candidates, cover_after
from node.ledger import Awaited, ChatLedger
from node.payloads import Payloads, now_ms
from node.runs import read_cover, read_run
from node.seals import SealedChats, Sealless
from node.store import Branch, StoredChat
from node.stored import Stored, signatures
from protocol.chat import Admission, Chat
from protocol.entry import (
    CONTENT,
    CONTROL,
    ChatId,
    DeviceKey,
    encode_header,
)
from protocol.errors import Inadmissible, PeerError
from protocol.fork import Cover, Fork, encode_proof, verify_fork
from protocol.frame import (
    ChatHeads,
    Forked,
    Head,
    Holding,
    IHave,
    Rumour,
    Run,
    Want,
)
from protocol.intake import Outcome
from protocol.membership import resolve
from protocol.run import Entry


class Replica(SealedChats):
    """The chats of one node or device, and the way into them; see `Chats` for the arguments."""

    def __init__(
        self,
        connection: apsw.Connection,
        agency: bytes,
        owner: bytes,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """clock: milliseconds UTC; it says when payloads have aged, and nothing else."""
        super().__init__(connection, agency, owner)
        self.blobs = Blobs(self.store, owner)
        self.payloads = Payloads(self.store, self.blobs, agency, owner, clock)
        self._awaited = Awaited()
        self.candidates = Candidates(self._awaited)

    def forget(self) -> None:
        """Drop what is cached: after a rollback, or when another process wrote."""
        super().forget()
        self.payloads.ageless.clear()
        self.candidates.forget()

    def append(self, run: Run, entries: Sequence[Entry]) -> Stored:
        """Judge and append what was written here; `run` is the frame that it makes."""
        return self._append_all([(run, entries)], self.owner)[0]

    def append_together(
        self, parts: Sequence[tuple[Run, Sequence[Entry]]], peer: bytes
    ) -> list[Stored]:
        """Judge and append what a peer has sent: runs that may wait for each other's entries.

        parts: frames, and the authentic entries in each. A device that is sent entries of its own,
        which it did not have, is an old copy (SPEC 2.5).
        """
        found = self._append_all(parts, peer)
        if any(one.appended and one.run.device == self.owner for one in found):
            self.sharing.note_outrun()
        return found

    def _append_all(
        self, parts: Sequence[tuple[Run, Sequence[Entry]]], peer: bytes
    ) -> list[Stored]:
        """Append until none can go on."""
        found = [self._append_covered(run, entries, peer) for run, entries in parts]
        going = len(parts) > 1
        new = {entry.id for one in found for entry in one.entries} if going else set()
        while going:
            going = False
            for index, (run, entries) in enumerate(parts):
                so_far = found[index]
                missing = so_far.outcome.missing
                if missing and all(item.id in new for item in missing):
                    left = entries[so_far.outcome.reached - run.start :]
                    rest = self._append_covered(run, left, peer)
                    found[index] = so_far.then(rest)
                    new.update(entry.id for entry in rest.entries)
                    going = going or rest.appended > 0
        return found

    def _append_covered(self, run: Run, entries: Sequence[Entry], peer: bytes) -> Stored:
        """Append a part, and keep at once what covers its end: the next may fork it."""
        one = self._append(run, entries, peer)
        self._awaited.note(peer, one.outcome.missing)
        count = one.outcome.reached - entries[0].header.seq
        cover = cover_after(entries, count) if one.appended else ()
        stored, judge = (self.store.chat(run.chat), self.chat(run.chat)) if cover else (None, None)
        if stored is not None and judge is not None:
            kept = self.payloads.allowed(judge, cover)
            self.store.keep_cover(stored, one.entries[-1], kept, self.payloads.clock())
        return one

    def _append(self, run: Run, entries: Sequence[Entry], peer: bytes) -> Stored:
        chat = self.chat(run.chat)
        if chat is None:
            return self._consider(run, entries, peer)
        stored = self.store.create_chat(run.chat)
        admission = chat.admit(entries, ChatLedger(self.store, stored, self._awaited))
        accepted = admission.entries
        fork = None
        if accepted and admission.branch is None:
            fresh = entries[admission.known :]
            rival = self._rival(stored, fresh)
            fork = None if rival is None else self._fork(stored, *rival, fresh)
        readers: AbstractSet[bytes] = frozenset()
        before: AbstractSet[bytes] = frozenset()
        bare: Mapping[int, bytes] = {}
        if admission.known and run.lane == CONTENT:
            self.payloads.fill(chat, stored, entries[: admission.known])
        if accepted:
            accepted, bare = self._store(chat, stored, admission)
            before = self.sharing.readers(stored)
            readers = self._share(chat, stored, accepted, before)
        sealless = self.lacking_seals(chat, stored, accepted)
        outcome = _outcome(entries, admission)
        return Stored(
            outcome,
            run,
            accepted,
            fork,
            readers,
            sealless,
            admission.refusal,
            signatures(run, entries),
            bare,
            entered=readers - before,
            left=before - readers,
        )

    def _store(
        self, chat: Chat, stored: StoredChat, admission: Admission
    ) -> tuple[Sequence[Entry], Mapping[int, bytes]]:
        """Store what was admitted; return it as stored, and the records that lost a payload."""
        entries = admission.entries
        lane = entries[0].header.lane
        kept = self.payloads.allowed(chat, entries) if lane == CONTENT else entries
        self.store.append(stored, kept, admission.branch, self.payloads.clock())
        if lane == CONTENT:
            self.payloads.note(chat, stored, kept)
            self.blobs.announce(chat, stored, kept)
        else:
            self.payloads.redact(chat, stored)
        return kept, {
            after.header.seq: after.record
            for before, after in zip(entries, kept, strict=True)
            if before is not after
        }

    def may_age(self) -> bool:
        """Tell whether the clock may drop payloads now, as `node.aging` does."""
        return may_age(self.store.connection, self.payloads.clock())

    def age(self, chat: ChatId, start: int) -> int | None:
        """Drop what has aged in a stored chat, as `Payloads.age` does."""
        judge, stored = self.chat(chat), self.store.chat(chat)
        if judge is None or stored is None or not judge.history:
            return None
        return self.payloads.age(judge, stored, start)

    def _share(
        self, chat: Chat, stored: StoredChat, new: Sequence[Entry], before: AbstractSet[bytes]
    ) -> AbstractSet[bytes]:
        """Keep who may see a chat now; return them. before: who could until these were new."""
        if new and new[0].header.lane != CONTROL:
            return before
        readers = self.readers(chat)
        self.sharing.set_readers(stored, readers)
        if readers - before:
            self.store.touch(stored)
        since = len(chat.history.entries) - len(new)
        seen = cache(partial(self._readers_of_first, chat))
        counts = range(since + 1, len(chat.history.entries))
        left: dict[int, list[bytes]] = {}
        for peer in before - readers:
            at = bisect_right(counts, 0, key=lambda count: int(peer not in seen(count)))
            left.setdefault(since + 1 + at, []).append(peer)
        for count, peers in sorted(left.items()):  # each takes numbers of the change counter
            self.sharing.set_former(stored, peers, self._lengths(chat, stored, count))
        return readers

    def _readers_of_first(self, chat: Chat, count: int) -> AbstractSet[bytes]:
        return self.readers_by(resolve(chat.history, (1 << count) - 1))

    def welcome(self) -> None:
        """Let new devices that lost their predecessors see the chats of their users (SPEC 6.3)."""
        for chat_id in self.sharing.awaiting():
            readable = self.is_readable(chat_id)
            chat, stored = self.chat(chat_id) if readable else None, self.store.chat(chat_id)
            if chat is not None and stored is not None:
                self._share(chat, stored, (), self.sharing.readers(stored))

    def _lengths(self, chat: Chat, stored: StoredChat, count: int) -> list[tuple[int, int, int]]:
        """Return how long the control chains were when so many entries were here (SPEC 6.3)."""
        history = chat.history
        lengths: dict[bytes, int] = {}
        for one in history.entries[:count]:
            lengths[one.device] = max(lengths.get(one.device, 0), one.seq + 1)
        return [
            (chain[0].no, min(length, chain[0].length), self.store.next_change())
            for device, length in lengths.items()
            if (chain := stored.chains.get((device, CONTROL)))
        ]

    def _consider(self, run: Run, entries: Sequence[Entry], peer: bytes) -> Stored:
        """Judge a chat that is not stored; store it once it turns out to concern us.

        Residency (I8): until its own control lane says that our agency, or this device, is in it,
        nothing of it reaches the disk.
        """
        candidate = self.candidates.of(peer, run.chat)
        if run.lane == CONTENT:
            self.candidates.make_room()
            return _put_off(run, candidate.judge(entries[:1]), entries)
        admission = candidate.judge(entries)
        outcome = _outcome(entries, admission)
        if admission.entries:
            cover = cover_after(entries, outcome.reached - entries[0].header.seq)
            self.candidates.accept(peer, run.chat, admission.entries, cover)
            if self.owner in self.readers(candidate.chat):
                readers, sealless, fork = self._adopt(candidate)
                return Stored(
                    outcome,
                    run,
                    admission.entries,
                    fork,
                    readers,
                    sealless,
                    admission.refusal,
                    signatures(run, entries),
                    entered=readers,
                )
        self.candidates.make_room()
        return Stored(outcome, run, refusal=admission.refusal)

    def _adopt(
        self, candidate: Candidate
    ) -> tuple[AbstractSet[bytes], tuple[Sealless, ...], Forked | None]:
        """Store a candidate, with what others have brought of that chat.

        Return its readers, what seals it lacks, and a proof if a chain in it is forked.
        """
        chat = candidate.chat
        for other in self.candidates.take(chat.id):
            if other is not candidate:
                candidate.join(other)
        readers = self.readers(chat)
        stored = self.store.create_chat(chat.id)
        rivals: list[tuple[Branch, Entry, Sequence[Entry]]] = []
        for entries, cover in candidate.accepted:
            branch, whole = self._branch_for(stored, entries), [*entries, *cover]
            rival = self._rival(stored, whole) if branch is None else None
            if rival is not None:
                rivals.append((*rival, whole))
            self.store.append(stored, entries, branch, self.payloads.clock())
            self.store.keep_cover(stored, entries[-1], cover, self.payloads.clock())
        self.sharing.set_readers(stored, readers)
        self.remember(chat)
        proofs = [self._fork(stored, *rival) for rival in rivals]
        sealless = tuple(
            item
            for entries, _ in candidate.accepted
            for item in self.lacking_seals(chat, stored, entries)
        )
        fork = next((proof for proof in proofs if proof is not None), None)
        return readers, sealless, fork

    def _branch_for(self, stored: StoredChat, entries: Sequence[Entry]) -> int | None:
        """Return the branch that entries go on with, None if they begin one."""
        header = entries[0].header
        ledger = ChatLedger(self.store, stored)
        if header.prev is None:
            return None
        branch = ledger.branch_of(header.device, header.lane, header.seq - 1, header.prev)
        begins = branch in ledger.branches_at(header.device, header.lane, header.seq)
        return (
            branch
            if branch is not None and not begins and ledger.goes_on(branch, entries)
            else None
        )

    def _rival(self, stored: StoredChat, entries: Sequence[Entry]) -> tuple[Branch, Entry] | None:
        """Return the branch from which entries differ, and the first that does.

        It has another entry at that place, or has one to cover what is before it.
        """
        header = entries[0].header
        chain = stored.chains.get((header.device, header.lane), ())
        for branch in chain:
            if branch.base <= header.seq < branch.length:
                return branch, entries[0]
        for branch in chain:
            if branch.length == header.seq and branch.head == header.prev:
                first = self.store.parting(branch, entries)
                return None if first is None else (branch, first)
        return None

    def _fork(
        self, stored: StoredChat, rival: Branch, first: Entry, entries: Sequence[Entry]
    ) -> Forked | None:
        """Build and keep the proof that `first`, one of entries, and a rival's are a fork."""
        header = first.header
        ours = read_cover(self.store, stored, header.device, header.lane, rival, header.seq)
        path = []
        for entry in entries[header.seq - entries[0].header.seq :]:
            path.append(encode_header(entry.header))
            if entry.signature is not None:
                theirs = Cover(tuple(path), entry.signature)
                return self._keep_own_proof(Forked(stored.id, encode_proof(ours, theirs)))
        return None

    def _keep_own_proof(self, forked: Forked) -> Forked | None:
        try:
            return self.keep_fork(forked)
        except PeerError:  # too long for a frame: evidence, but none that travels
            return None

    def keep_fork(self, forked: Forked) -> Forked | None:
        """Check and keep a proof; return it if it was new. Raises PeerError if it is none."""
        fork: Fork = verify_fork(forked.proof)
        stored = self.store.chat(forked.chat)
        if stored is None or fork.chat != forked.chat:
            raise Inadmissible("a fork proof of another chat (SPEC 2.5)")
        if not self._takes_part(stored, fork.device):
            return None
        return forked if self.sharing.keep_fork(stored, fork) else None

    def _takes_part(self, stored: StoredChat, device: DeviceKey) -> bool:
        """Tell whether a device is or was in a chat: anybody can fork a chain of their own."""
        judge = self.chat(stored.id)
        member = judge is not None and device in judge.membership().devices
        return member or any((device, lane) in stored.chains for lane in (CONTROL, CONTENT))

    def heard(self, chats: Sequence[ChatHeads], peer: bytes) -> list[ChatHeads]:
        """Return these without the chats that the peer is not in."""
        return [item for item in chats if self.may_bring(peer, item.chat)]

    def compare(self, chats: Sequence[ChatHeads]) -> list[Want]:
        """Return what we lack of these heads."""
        wants = []
        for item in chats:
            stored = self.store.chat(item.chat)
            for head in item.heads:
                start = 0
                if stored is not None:
                    start = self._lacking_from(stored, head)
                if start <= head.seq:
                    wants.append(
                        Want(item.chat, head.device, head.lane, head.prefix, start, head.seq + 1)
                    )
        return wants

    def stored_there(self, chats: Sequence[ChatHeads], agency: bytes) -> list[Holding]:
        """Return what is new to us in these heads of how much an agency stores of our devices'."""
        found = []
        for item in chats:
            stored = self.store.chat(item.chat)
            if stored is None:
                continue
            for head in item.heads:
                if not self.sharing.may_read(head.device, item.chat):
                    continue
                known = self.sharing.length_there(stored, head, agency)
                if known <= head.seq < self._lacking_from(stored, head):
                    found.append(
                        Holding(DeviceKey(agency), item.chat, head.device, head.lane, head.seq)
                    )
        return found

    def set_aside(self, chats: Sequence[ChatHeads], peer: bytes) -> None:
        """Keep what is not heard of these, for when the peer is let in."""
        unheard = [
            (stored, head)
            for item in chats
            if not self.may_bring(peer, item.chat)
            and (stored := self.store.chat(item.chat)) is not None
            for head in item.heads
        ]
        if unheard:
            self.sharing.note_unheard(peer, unheard)

    def take_up(self, peer: bytes) -> list[Want]:
        """Return what we lack of what was set aside of a peer that is in those chats now."""
        listed = self.sharing.unheard(peer)
        wants = self.compare(listed)
        lacking = {(want.chat, want.device, want.lane, want.prefix) for want in wants}
        here = [
            (item.chat, head)
            for item in listed
            for head in item.heads
            if (item.chat, head.device, head.lane, head.prefix) not in lacking
        ]
        self.sharing.forget_unheard(peer, here)
        return wants

    def hear(self, rumour: Rumour, peer: bytes) -> tuple[AbstractSet[bytes], Rumour | None]:
        """Return the readers of a chat, and of what a peer says there what is news to us."""
        readers = self.readers_of(rumour.chat)
        if peer not in readers:
            return readers, None
        if not isinstance(rumour, IHave):
            return readers, rumour
        wants = self.compare([ChatHeads(rumour.chat, rumour.heads)])
        lacking = {(want.device, want.lane, want.prefix) for want in wants}
        heads = tuple(h for h in rumour.heads if (h.device, h.lane, h.prefix) in lacking)
        return readers, IHave(rumour.chat, heads) if heads else None

    def home(self, run: Run) -> bytes | None:
        """Return the agency of the author of a run, None if they are out of the chat."""
        judge = self.chat(run.chat)
        member = None if judge is None else judge.membership().member_of(run.device)
        return None if member is None else member.identity.agency

    def serve(self, want: Want, peer: bytes) -> Run | None:
        """Read a run for a peer, None for what it may not see; a former reader gets no more."""
        if not self.sharing.may_ask(peer, want):
            return None
        run = read_run(self.store, want)
        beyond = run is not None and run.start + len(run.records) > want.stop
        return None if beyond and not self.sharing.may_read(peer, want.chat) else run

    def _lacking_from(self, stored: StoredChat, head: Head) -> int:
        """Return the seq to ask from; one more than the head's when that very head is here."""
        chain = stored.chains.get((head.device, head.lane), [])
        longest = max((branch.length for branch in chain), default=0)
        if head.seq >= longest:
            return longest
        here = self.store.branch_with_prefix(chain, head.seq, head.prefix)
        return head.seq if here is None else head.seq + 1

    def note_holdings(self, holdings: Sequence[Holding], peer: bytes) -> list[Holding]:
        """Keep what a peer says about who stores what, in chats that it is in; return that.

        A node may speak for its own agency only, or it could acknowledge in another's name. To a
        device its own node speaks for all.
        """
        kept = []
        of_chats: dict[ChatId, list[Holding]] = {}
        for holding in holdings:
            if holding.agency == peer or self.owner != self.agency:
                of_chats.setdefault(holding.chat, []).append(holding)
        for chat_id, said in of_chats.items():
            stored = self.store.chat(chat_id)
            if stored is None or not self.may_bring(peer, chat_id):
                continue
            told = [one for one in said if (one.device, one.lane) in stored.chains]
            self.sharing.note_holdings(stored, told)
            kept += told
        return kept

    def holding(self, stored: Stored) -> Holding | None:
        """Return what our agency may acknowledge of a run, once it is durable."""
        run = stored.run
        seq = stored.outcome.reached - 1
        if seq < run.start or self.store.chat(run.chat) is None:
            return None
        return Holding(DeviceKey(self.agency), run.chat, run.device, run.lane, seq)


def _outcome(entries: Sequence[Entry], admission: Admission) -> Outcome:
    first, ids = entries[0].header.seq, [entry.id for entry in entries]
    reached = first + admission.known + len(admission.entries)
    refused = admission.refusal is not None
    return Outcome(reached, admission.missing, refused, admission.surplus, first, ids)


def _put_off(run: Run, admission: Admission, entries: Sequence[Entry]) -> Stored:
    """Say what content waits for that is nowhere to be stored yet, whatever is in it.

    That is the control entries that its first entry waits for. What content that waits for has no
    place either, and all of it is asked for when we are let in.
    """
    waits = _outcome(entries, admission)
    missing = tuple(item for item in waits.missing if item.lane == CONTROL)
    early = not missing and not waits.refused
    outcome = waits._replace(reached=run.start, missing=missing, surplus=early, early=early)
    return Stored(outcome, run, refusal=admission.refusal)
