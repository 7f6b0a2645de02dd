"""One agency with thousands of enrolled devices and chats, made once through the node's own code.

    ministry = prepared(folder, Size(2_000, 20_000))
    devices, chats = read_devices(folder), read_chats(folder)

Every user is invited and enrols with real requests, every chat has a genesis that its judge admits
and an epoch sealed to each member. Only the devices have no database: `load_worker` carries what a
leaf of the protocol needs to greet, to check what is pushed, and to write.
"""

import os
import random
import shutil
import time
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from bench.federation import NODE_FILE, PASSPHRASE, POLICY, ZONE, free_port, milliseconds, transact
from bench.figures import progress
from crypto import merkle
from crypto.archival import ARCHIVAL_SEED_BYTES, ArchivalSigner
from crypto.certificate import make_key, public_pem
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey
from crypto.signing import SEED_BYTES, Signer
from node import agency as agencies
from node.agency import Agency
from node.database import connect
from node.directory import Directory
from node.replica import Replica
from node.schema import SCHEMA
from protocol import epoch, frame
from protocol.entry import (
    CONTROL,
    SIGNATURE_LABEL,
    ChatId,
    ControlHeader,
    DeviceKey,
    EntryId,
    Place,
    Reference,
    encode_header,
    entry_id,
)
from protocol.errors import UsageError
from protocol.frame import Run, Seal
from protocol.grant import Grant, verified
from protocol.identity import request_device, request_user, sign_prekey
from protocol.invitation import Purpose
from protocol.operation import Genesis, Operation, kind_of
from protocol.payload import encode_operation
from protocol.policy import ChatKind, Role
from protocol.question import Enrol, encode_question
from protocol.reply import Enrolment, decode_answer
from protocol.run import START, Context, Entry, context_after, pack
from protocol.session import PeerKind

NAME = "ministry"
MEMBERS = 4
INVITED_SECONDS = 3600
CHATS_TRANSACTION = 200
NONCE_BYTES = 16
STALE_SECONDS = 30 * 24 * 3600  # certificates are good for 90 days
MADE_FILE = "made.msgpack"
AGENCY = "agency"  # its folder


class Size(NamedTuple):
    """How many there are."""

    devices: int
    chats: int


class HeldDevice(Struct, frozen=True):
    """What a device keeps of itself. tls_key, certificate: PEM."""

    seed: bytes
    tls_key: bytes
    certificate: bytes


class HeldChat(Struct, frozen=True):
    """What its members know of a chat. members: numbers of devices. head: of its control lane."""

    chat: bytes
    epoch: bytes
    head: tuple[bytes, int, bytes]
    members: tuple[int, ...]


class Made(Struct, frozen=True):
    """A ministry as it is kept beside its agency's folder."""

    at: float
    port: int
    devices: list[HeldDevice]
    chats: list[HeldChat]


class _Official(NamedTuple):
    device: Signer
    prekey: Prekey
    record: bytes
    grant: Grant


def prepared(kept: Path, folder: Path, size: Size) -> Made:
    """Put a ministry of this size into `folder`; made in `kept` first, unless it is there."""
    schema = sha256(SCHEMA.encode()).hexdigest()[:8]
    source = kept / f"{NAME}-{schema}-{size.devices}-{size.chats}"
    made = _read(source / MADE_FILE)
    if made is None or time.time() - made.at > STALE_SECONDS:
        shutil.rmtree(source, ignore_errors=True)
        progress(f"{NAME}: making {size.devices:,} devices and {size.chats:,} chats")
        _make(source, size)
    shutil.copytree(source, folder)
    return read_made(folder)


def read_made(folder: Path) -> Made:
    """Read what `prepared` has put there."""
    made = _read(folder / MADE_FILE)
    if made is None:
        raise UsageError(f"{folder} has no {MADE_FILE}")
    return made


def _read(file: Path) -> Made | None:
    return msgspec.msgpack.decode(file.read_bytes(), type=Made) if file.exists() else None


def _make(folder: Path, size: Size) -> None:
    port = free_port()
    founding = agencies.Founding(NAME, ZONE, (f"127.0.0.1:{port}",), {"allow_local": True})
    agency = agencies.create(
        folder / AGENCY, founding, PASSPHRASE, PASSPHRASE, time.time(), os.urandom
    )
    connection = connect(folder / AGENCY / NODE_FILE, None)
    replica = Replica(connection, agency.id, agency.id)
    devices: list[HeldDevice] = []
    officials: list[_Official] = []
    directory = Directory(connection, agency, os.urandom)
    with connection:
        for number in range(size.devices):
            held, official = _enrol(directory, agency, number)
            devices.append(held)
            officials.append(official)
    chats: list[HeldChat] = []
    while len(chats) < size.chats:
        most = min(CHATS_TRANSACTION, size.chats - len(chats))
        transact(replica, partial(_begin_chats, replica, officials, most, chats))
    connection.close()
    made = Made(time.time(), port, devices, chats)
    (folder / MADE_FILE).write_bytes(msgspec.msgpack.encode(made))


def _enrol(directory: Directory, agency: Agency, number: int) -> tuple[HeldDevice, _Official]:
    now = milliseconds()
    user, device = Signer(os.urandom(SEED_BYTES)), Signer(os.urandom(SEED_BYTES))
    prekey = Prekey(os.urandom(PREKEY_PRIVATE_BYTES))
    record = sign_prekey(device, prekey.public, now)
    tls_key = make_key()
    name = f"official{number}"
    invitation = directory.registrar.invite(
        name, Purpose.FIRST_DEVICE, time.time(), INVITED_SECONDS
    )
    asked = Enrol(
        request_user(user, agency.id, name, now),
        request_device(user, device, agency.id, "bench", now),
        public_pem(tls_key),
        record,
        ArchivalSigner(os.urandom(ARCHIVAL_SEED_BYTES)).public,
    )
    topic, body = encode_question(asked)
    answer = directory.answer(
        PeerKind.INVITATION, invitation.ticket, frame.Ask(0, topic, body), time.time()
    )
    enrolled = decode_answer(topic, answer.code, answer.body)
    if not isinstance(enrolled, Enrolment):
        raise UsageError("the directory answered another question")
    charter = agency.card.charter.raw
    credential = verified(charter, enrolled.user, [enrolled.device])
    held = HeldDevice(device.seed, tls_key, enrolled.tls_certificate)
    return held, _Official(device, prekey, record, Grant(Role.MEMBER, credential))


def _begin_chats(
    replica: Replica, officials: Sequence[_Official], count: int, chats: list[HeldChat]
) -> None:
    for _ in range(count):
        members = random.sample(range(len(officials)), min(MEMBERS, len(officials)))
        chats.append(_begin_chat(replica, officials, members))


def _begin_chat(
    replica: Replica, officials: Sequence[_Official], members: Sequence[int]
) -> HeldChat:
    """Begin a chat as the first of its members, with an epoch for all."""
    owner = officials[members[0]]
    grants = [officials[number].grant for number in members[1:]]
    grants.append(Grant(Role.OWNER, owner.grant.credential))
    grants.sort(key=lambda grant: grant.credential.user.user)
    genesis = Genesis(ChatKind.GROUP, os.urandom(NONCE_BYTES), POLICY, tuple(grants))
    opened = _append(replica, owner.device, None, None, genesis)
    chat, key = ChatId(opened.id), DeviceKey(owner.device.public)
    recipients = {
        DeviceKey(officials[number].device.public): officials[number].prekey.public
        for number in members
    }
    place = Place(chat, key, 1, opened.id, ())
    operation, seals = epoch.build(
        place, os.urandom(32), recipients, frozenset(), owner.record, shareable=False
    )
    started = _append(replica, owner.device, chat, opened, operation)
    paths = merkle.paths(seals)
    kept = [
        Seal(at, seal, tuple(path))
        for at, (seal, path) in enumerate(zip(seals, paths, strict=True))
    ]
    replica.keep_seals(chat, EntryId(started.id), kept, replica.agency)
    return HeldChat(chat, started.id, (key, 1, started.id), tuple(members))


def _append(
    replica: Replica,
    signer: Signer,
    chat: ChatId | None,
    before: Entry | None,
    operation: Operation,
) -> Entry:
    """Append a control entry of this device after the one before it."""
    payload = encode_operation(operation)
    header = ControlHeader(
        chat=chat,
        device=DeviceKey(signer.public),
        seq=0 if before is None else before.header.seq + 1,
        prev=None if before is None else before.id,
        links=(),
        time=milliseconds(),
        kind=int(kind_of(operation)),
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
    )
    context: Context | None = None if before is None else context_after(before.header)
    entry = entry_id(encode_header(header))
    signature = signer.sign(SIGNATURE_LABEL, entry)
    record = pack(header, payload, context or START)
    made = Entry(header, entry, record, payload, signature)
    records, signatures = (msgspec.Raw(record),), ((0, signature),)
    run = Run(
        chat or ChatId(entry),
        header.device,
        CONTROL,
        header.seq,
        header.prev,
        context,
        records,
        signatures,
    )
    stored = replica.append(run, [made])
    if not stored.appended:
        raise UsageError(f"not admitted: {stored.refusal}")
    return made


def control_head(chat: HeldChat) -> Reference:
    """Return the head of a chat's control lane."""
    device, seq, entry = chat.head
    return Reference(DeviceKey(device), seq, EntryId(entry))
