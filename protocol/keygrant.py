"""Key grants: how the readers of a channel get the keys that no epoch is sealed to them (SPEC 4.6).

    chains = [[device, generation, chain key]…]
    bundle = 5.4, info = enc[chat, epoch, from, to, prekey id], body = enc chains
    grant  = enc[2, chat, epoch, from, to, prekey id, bundle]
    ask    = enc[3, chat, [epoch…], from, to, prekey record]
    parcel = enc[grant or ask, signature of `from`, label "grant"]

`read` checks the form and the signature; whether `from` may grant is for who knows the chat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from crypto.archive import open_bundle, seal_bundle
from crypto.errors import BadSignature, SealRefused
from crypto.signing import Signer, verify
from protocol import codec
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import NotCanonical, Unauthentic, Untrusted
from protocol.field import check_ascending
from protocol.identity import PREKEY_RECORD_BYTES_MAX, Prekey, verify_prekey
from protocol.limits import DEVICES_CHAT_MAX, HASH_BYTES, KEY_BYTES, SEQ_MAX, SIGNATURE_BYTES
from protocol.topic import PARCEL_BYTES_MAX

LABEL: Final = "grant"
GRANT: Final = 2  # 1 is an archive segment (SPEC 5.6)
ASK: Final = 3
EPOCHS_ASKED_MAX: Final = 64
PREKEY_ID_BYTES: Final = 16
CHAIN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ChainKey:
    """Where a sender's chain stands: the generation that the key opens."""

    generation: int
    chain: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """A signed grant, not opened."""

    chat: ChatId
    epoch: EntryId
    sender: DeviceKey
    receiver: DeviceKey
    prekey: bytes
    bundle: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A signed request: a reader's device has no key of these epochs. record: of its prekey."""

    chat: ChatId
    epochs: tuple[EntryId, ...]
    sender: DeviceKey
    receiver: DeviceKey
    record: bytes


def kind_of(parcel: bytes) -> int:
    """Return what a parcel carries: its body's first field. Raises PeerError."""
    fields = codec.decode(_parts(parcel)[0], PARCEL_BYTES_MAX)
    return codec.uint(fields[0] if fields else None, SEQ_MAX, "kind of parcel")


def seal_grant(
    signer: Signer,
    chat: ChatId,
    epoch: EntryId,
    prekey: Prekey,
    chains: Mapping[DeviceKey, ChainKey],
    key: bytes,
) -> bytes:
    """Return the parcel with chain keys of an epoch for the device of a prekey.

    key: 32 random bytes, for this parcel alone.
    """
    listed = [(device, one.generation, one.chain) for device, one in sorted(chains.items())]
    sender = DeviceKey(signer.public)
    info = _info(chat, epoch, sender, prekey.device, prekey.id)
    bundle = seal_bundle(prekey.public, info, key, codec.encode(listed))
    body = codec.encode((GRANT, chat, epoch, sender, prekey.device, prekey.id, bundle))
    return codec.encode((body, signer.sign(LABEL, body)))


def sign_ask(
    signer: Signer, chat: ChatId, epochs: Sequence[EntryId], receiver: DeviceKey, prekey: bytes
) -> bytes:
    """Return the parcel that asks a publisher's device for keys. prekey: our prekey record."""
    body = codec.encode((ASK, chat, sorted(epochs), signer.public, receiver, prekey))
    return codec.encode((body, signer.sign(LABEL, body)))


def read(parcel: bytes) -> Granted | Asked:
    """Read a parcel and check its signature. Raises NotCanonical, LimitExceeded, Untrusted."""
    body, signature = _parts(parcel)
    fields = codec.decode(body, PARCEL_BYTES_MAX)
    kind = kind_of(parcel)
    if kind not in (GRANT, ASK):
        raise NotCanonical(f"a parcel of kind {kind} (SPEC 4.6)")
    found = _read_grant(fields) if kind == GRANT else _read_ask(fields)
    try:
        verify(found.sender, LABEL, body, signature)
    except BadSignature:
        raise Unauthentic("a parcel with a bad signature (SPEC 4.6)") from None
    return found


def open_grant(grant: Granted, private: bytes) -> dict[DeviceKey, ChainKey]:
    """Return the chain keys. private: of the prekey that the grant names. Raises PeerError.

    That they open anything is seen only at a message.
    """
    info = _info(grant.chat, grant.epoch, grant.sender, grant.receiver, grant.prekey)
    try:
        plain = open_bundle(private, info, grant.bundle)
    except SealRefused:
        raise Untrusted("a key grant that does not open (SPEC 4.6)") from None
    chains = [_read_chain(item) for item in codec.decode(plain, PARCEL_BYTES_MAX)]
    if not 0 < len(chains) <= DEVICES_CHAT_MAX:
        raise NotCanonical(f"a key grant with {len(chains)} chains (SPEC 4.6)")
    check_ascending([device for device, _ in chains], "granted chains")
    return dict(chains)


def _parts(parcel: bytes) -> tuple[bytes, bytes]:
    body, signature = codec.record(codec.decode(parcel, PARCEL_BYTES_MAX), 2, "parcel")
    return (
        codec.binary(body, PARCEL_BYTES_MAX, "parcel body"),
        codec.fixed(signature, SIGNATURE_BYTES, "signature"),
    )


def _info(
    chat: ChatId, epoch: EntryId, sender: DeviceKey, receiver: DeviceKey, prekey: bytes
) -> bytes:
    return codec.encode((chat, epoch, sender, receiver, prekey))


def _read_grant(fields: Sequence[object]) -> Granted:
    _, chat, epoch, sender, receiver, prekey, bundle = codec.record(fields, 7, "key grant")
    return Granted(
        ChatId(codec.fixed(chat, HASH_BYTES, "chat")),
        EntryId(codec.fixed(epoch, HASH_BYTES, "epoch")),
        _device(sender),
        _device(receiver),
        codec.fixed(prekey, PREKEY_ID_BYTES, "prekey id"),
        codec.binary(bundle, PARCEL_BYTES_MAX, "bundle"),
    )


def _read_ask(fields: Sequence[object]) -> Asked:
    _, chat, listed, sender, receiver, record = codec.record(fields, 6, "question for keys")
    epochs = [
        EntryId(codec.fixed(one, HASH_BYTES, "epoch"))
        for one in codec.array(listed, EPOCHS_ASKED_MAX, "epochs")
    ]
    check_ascending(epochs, "epochs asked for")
    raw = codec.binary(record, PREKEY_RECORD_BYTES_MAX, "prekey")
    if not epochs or verify_prekey(raw).device != sender:
        raise NotCanonical("a question for no epoch, or with another's prekey (SPEC 4.6)")
    return Asked(
        ChatId(codec.fixed(chat, HASH_BYTES, "chat")),
        tuple(epochs),
        _device(sender),
        _device(receiver),
        raw,
    )


def _read_chain(item: object) -> tuple[DeviceKey, ChainKey]:
    device, generation, chain = codec.record(item, 3, "granted chain")
    return _device(device), ChainKey(
        codec.uint(generation, SEQ_MAX, "generation"), codec.fixed(chain, CHAIN_BYTES, "chain key")
    )


def _device(value: object) -> DeviceKey:
    return DeviceKey(codec.fixed(value, KEY_BYTES, "device"))
