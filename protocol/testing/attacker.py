"""What an attacker can read, found by deduction and not by assumption (tests only).

    seen = Transcript()
    seen.note(entry)                    # each entry that passed the attacker's node, seals too
    thief = Attacker(seen)
    thief.learn(*values)                # any 32 bytes they hold, whatever those may be
    thief.opened()                      # {id of a content entry: its plaintext}

The adversaries of SPEC 13 are this one with different holdings:

    malicious node      the transcript, and every public value as a guess at a key
    removed, curious,
    or added member     all that their devices held at any time: they keep what others erase
    stolen device       what one device held at one time
    agency              the transcript, and keys of its own making

The closure tries each value in each role (private prekey, epoch secret, extracted secret, chain
key, seed of one message), seals with every prekey that fits a recipient, chains of every device
forward, and every ciphertext. It calls the code under test for each step, so that a planted bug in
a derivation is a bug that the attacker has, too.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from crypto import content, schedule, sealing
from crypto.errors import ContentRefused, SealRefused
from protocol import epoch
from protocol.entry import (
    ChatId,
    ContentHeader,
    ControlHeader,
    DeviceKey,
    EntryId,
    Place,
    header_before_commitment,
    place_of,
)
from protocol.operation import EpochOperation, credentials
from protocol.payload import decode_operation
from protocol.run import Entry

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SeenEpoch:
    """An epoch as a node sees it. seals: by the index of their recipient."""

    id: EntryId
    place: Place
    operation: EpochOperation
    seals: dict[int, bytes] = field(default_factory=dict)

    def unseal(self, device: DeviceKey, private: bytes, seal: bytes) -> bytes:
        """Open a seal as one for this device. Raises SealRefused."""
        ectx = epoch.context(self.place, self.operation)
        return epoch.unseal(ectx, self.operation.commit, device, private, seal)


@dataclass(slots=True)
class Transcript:
    """All that passes a node which keeps everything, whether or not anybody admits it."""

    epochs: dict[EntryId, SeenEpoch] = field(default_factory=dict)
    content: dict[EntryId, tuple[ContentHeader, bytes]] = field(default_factory=dict)
    devices: dict[DeviceKey, None] = field(default_factory=dict)
    public: set[bytes] = field(default_factory=lambda: {bytes(KEY_BYTES)})

    def note(self, entry: Entry) -> None:
        """Keep an entry, and its 32-byte values as guesses."""
        header, payload = entry.header, entry.payload
        self.public |= {bytes(entry.id), bytes(header.device), header.payload_hash}
        self.devices.setdefault(header.device)
        if isinstance(header, ContentHeader):
            self.public.add(header.pc)
            self.content[entry.id] = header, payload or b""
        elif payload is not None:
            self._note_control(header, entry.id, payload)

    def _note_control(self, header: ControlHeader, entry: EntryId, payload: bytes) -> None:
        operation = decode_operation(header.kind, payload, header.chat or ChatId(entry))
        for credential in credentials(operation):
            self.devices |= dict.fromkeys(credential.user.devices)
        if isinstance(operation, EpochOperation) and entry not in self.epochs:
            self.epochs[entry] = SeenEpoch(entry, place_of(header), operation)
            self.public |= {operation.commit, operation.seals_root}

    def note_seal(self, entry: EntryId, index: int, seal: bytes) -> None:
        """Keep a seal of an epoch."""
        self.epochs[entry].seals[index] = seal


class Attacker:
    """Somebody who keeps and tries everything. What was tried once is not tried again."""

    def __init__(self, seen: Transcript) -> None:
        self.seen = seen
        self.values: dict[bytes, None] = {}
        self._plain: dict[EntryId, bytes] = {}
        self._seeds: dict[bytes, list[bytes]] = {}
        self._tried: set[tuple[bytes, ...]] = set()
        self._prekeys: dict[bytes, bytes] = {}
        self._secrets: dict[bytes, None] = {}

    def learn(self, *values: bytes) -> None:
        """Take what may be keys; anything but 32 bytes is none."""
        for value in values:
            if len(value) == KEY_BYTES:
                self.values.setdefault(value)

    def opened(self) -> dict[EntryId, bytes]:
        """Return every plaintext that follows from what is held and was seen."""
        for value in self.values:
            self._unseal(value)
        for secret in [*self.values, *self._secrets]:
            self._derive(secret)
        for value in self.values:
            for entry in self.seen.content:
                self._try_chain(value, entry)
        return dict(self._plain)

    def _first(self, *attempt: bytes) -> bool:
        """Whether this is tried for the first time."""
        before = len(self._tried)
        self._tried.add(attempt)
        return len(self._tried) > before

    def _unseal(self, private: bytes) -> None:
        if private not in self._prekeys:
            self._prekeys[private] = sealing.prekey_id(sealing.Prekey(private).public)
        for seen in self.seen.epochs.values():
            for seal in seen.seals.values():
                if epoch.prekey_of(seal) == self._prekeys[private]:
                    self._open_seal(private, seen, seal)

    def _open_seal(self, private: bytes, seen: SeenEpoch, seal: bytes) -> None:
        """Try a seal as one for each device that is known."""
        for device in self.seen.devices:
            if not self._first(b"seal", private, seal, device):
                continue
            with suppress(SealRefused):
                self._secrets.setdefault(seen.unseal(device, private, seal))

    def _derive(self, secret: bytes) -> None:
        """Try a value as secret, and as extracted secret, of every epoch."""
        for entry, (header, _) in self.seen.content.items():
            if entry in self._plain or not self._first(b"secret", secret, entry):
                continue
            for shared in (schedule.epoch_secret(header.epoch, secret), secret):
                self._try_chain(schedule.sender_chain(shared, header.device), entry)

    def _try_chain(self, chain: bytes, entry: EntryId) -> None:
        """Try a value as seed of an entry, and as a chain key at or before it."""
        if entry in self._plain or not self._first(b"chain", chain, entry):
            return
        header, payload = self.seen.content[entry]
        pre = header_before_commitment(header)
        for seed in self._seeds_from(chain, header.generation):
            try:
                self._plain[entry] = content.open_content(seed, pre, header.pc, payload)[1]
            except ContentRefused:
                continue
            return

    def _seeds_from(self, chain: bytes, generation: int) -> Iterator[bytes]:
        """Yield the value itself, and the seeds of the next messages of a chain that it begins."""
        yield chain
        seeds = self._seeds.setdefault(chain, [])
        following = chain
        for known in range(generation + 1):
            if known == len(seeds):
                seeds.append(schedule.message_seed(following))
            yield seeds[known]
            following = schedule.next_chain(following)
