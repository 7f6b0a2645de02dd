"""What a peer has asked for and not been given yet: runs, seals, chunks of blobs (SPEC 6.2, 8).

serving.asked(want)                   # WANT, WANTSEALS, WANTBLOB
load = serving.next()                 # of seals and runs; None if there are none
load = serving.next_chunk()           # of blobs, whose turn it is when all else is sent
frame = serving.loaded(want, run)     # what to answer; a part that is left has another turn
frame = serving.chunk_loaded(want, chunk)
"""

from collections import deque

from protocol.effect import LoadChunk, LoadRun, LoadSeals
from protocol.errors import LimitExceeded, OutOfTurn
from protocol.frame import Absent, Blob, Lacking, Run, Want, WantBlob, WantSeals
from protocol.limits import BLOB_CHUNKS_SERVED_MAX, SEALS_SERVED_MAX, WANTS_SERVED_MAX


class Serving:
    """The wants of one peer, in the order in which they came."""

    def __init__(self) -> None:
        self._runs: deque[Want] = deque()
        self._seals: deque[LoadSeals] = deque()
        self._seal_devices = 0
        self._blobs: deque[WantBlob] = deque()
        self._chunks = 0

    def asked(self, want: Want | WantSeals | WantBlob) -> None:
        """Remember a want. Raises OutOfTurn for one of nothing, LimitExceeded for too many."""
        match want:
            case Want():
                self._ask_for_run(want)
            case WantSeals():
                self._ask_for_seals(want)
            case WantBlob():
                self._ask_for_chunks(want)

    def _ask_for_run(self, want: Want) -> None:
        if want.stop <= want.start:
            raise OutOfTurn(f"a want of {want.start} to {want.stop} (SPEC 6.2)")
        if len(self._runs) >= WANTS_SERVED_MAX:
            raise LimitExceeded(f"more than {WANTS_SERVED_MAX} wants at once (SPEC 8)")
        self._runs.append(want)

    def _ask_for_seals(self, want: WantSeals) -> None:
        """Beyond the limit nothing is remembered: whoever still lacks seals asks again."""
        count = len(want.devices)
        if count and self._seal_devices + count <= SEALS_SERVED_MAX:
            self._seals.append(LoadSeals(want.chat, want.epoch, want.devices))
            self._seal_devices += count

    def _ask_for_chunks(self, want: WantBlob) -> None:
        if want.stop <= want.start:
            raise OutOfTurn(f"a want of chunks {want.start} to {want.stop} (SPEC 6.2)")
        self._chunks += want.stop - want.start
        if self._chunks > BLOB_CHUNKS_SERVED_MAX:
            raise LimitExceeded(f"over {BLOB_CHUNKS_SERVED_MAX} chunks at once (SPEC 8)")
        self._blobs.append(want)

    def next(self) -> LoadSeals | LoadRun | None:
        """Return what to load for the peer next, seals first: they are short, and open the rest."""
        if self._seals:
            seals = self._seals.popleft()
            self._seal_devices -= len(seals.devices)
            return seals
        return LoadRun(self._runs.popleft()) if self._runs else None

    def next_chunk(self) -> LoadChunk | None:
        """Return which chunk of a blob to load next."""
        return LoadChunk(self._blobs.popleft()) if self._blobs else None

    def loaded(self, want: Want, run: Run | None) -> Run | Absent:
        """Return the answer to a want; None when there is nothing that the peer may see."""
        if run is None:
            return Absent(want.chat, want.device, want.lane, want.start)
        reached = run.start + len(run.records)
        if reached < want.stop:
            rest = Want(want.chat, want.device, want.lane, want.prefix, reached, want.stop)
            self._runs.append(rest)
        return run

    def chunk_loaded(self, want: WantBlob, found: Blob | None) -> Blob | Lacking:
        """Return the answer; None if the chunk is not here, or not for the peer.

        Blobs take turns, and go one chunk at a time: whatever else there is comes between.
        """
        chat, entry, start, stop = want.chat, want.entry, want.start, want.stop
        if found is None:
            self._chunks -= stop - start
            return Lacking(chat, entry, start, stop)
        self._chunks -= 1
        if start + 1 < stop:
            self._blobs.append(WantBlob(chat, entry, start + 1, stop))
        return found
