"""Epochs: starting one for a chat of many devices, and opening it on one of them."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.federation import PASSPHRASE, POLICY, Site, founded, milliseconds, opened, user_of
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import hand_over
from client import compose
from client.device import Device
from client.epochs import NoKey, sender_chain, start_epoch
from client.people import keep_person
from crypto.sealing import PREKEY_PRIVATE_BYTES, Prekey
from crypto.signing import SEED_BYTES, Signer
from node import agency
from protocol.chat import Chat
from protocol.entry import ChatId, EntryId
from protocol.errors import UsageError
from protocol.frame import Seals, encode_frame
from protocol.identity import (
    DEVICES_USER_MAX,
    UserId,
    request_device,
    request_user,
    sign_prekey,
)
from protocol.payload import encode_operation
from protocol.person import Person, PersonDevice
from protocol.policy import ChatKind, Role

NAME = "epoch"
UNITS = {
    "start": "ms",
    "open": "ms",
    "start_a_device": "µs/device",
    "fetched_seal": "bytes",
    "fetched_entry": "bytes",
}
DEVICES_USER = min(8, DEVICES_USER_MAX)
USERS_ADDED = 8  # by one entry: a grant of eight devices is 3 kB


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure chats of these numbers of devices."""
    found: list[Line] = []
    for size in sizes:
        with TemporaryDirectory(prefix="ivor-bench-") as folder:
            progress(f"{NAME}: a chat of {size:,} devices")
            sites = founded(Path(folder))
            author, reader = (opened(site) for site in sites)
            chat = _chat(author, sites, size)
            calib_s = calibrate()
            results = [_run(author, reader, chat, size) for _ in range(runs)]
            author.close()
            reader.close()
        found += lines_of(NAME, f"{size:,} devices", UNITS, results, calib_s)
    return found


def _chat(author: Device, sites: Sequence[Site], size: int) -> ChatId:
    """Start a chat of the two devices that exist, and of others that are only certified."""
    own = agency.open_agency(sites[1].folder, PASSPHRASE)
    counts = [DEVICES_USER] * ((size - 2) // DEVICES_USER)
    if (size - 2) % DEVICES_USER:
        counts.append((size - 2) % DEVICES_USER)
    with author.transaction():
        users = [
            keep_person(author, _person(own, f"user{at}", count)) for at, count in enumerate(counts)
        ]
        first = [user_of(author, sites[1])]
        members = [(user, Role.MEMBER) for user in first]
        chat = compose.new_chat(author, ChatKind.GROUP, "", POLICY, members, milliseconds())
        for at in range(0, len(users), USERS_ADDED):
            _add(author, chat, users[at : at + USERS_ADDED])
    return chat


def _add(author: Device, chat: ChatId, users: Sequence[UserId]) -> None:
    compose.add_members(author, chat, [(user, Role.MEMBER) for user in users], milliseconds())


def _person(own: agency.Agency, name: str, devices: int) -> Person:
    """Return a user of this agency with devices that nobody holds: certificates and prekeys."""
    now = milliseconds()
    user = Signer(os.urandom(SEED_BYTES))
    certificate = agency.register_user(own, request_user(user, own.id, name, now), name)
    listed = []
    for _ in range(devices):
        signer = Signer(os.urandom(SEED_BYTES))
        request = request_device(user, signer, own.id, "bench", now)
        device = agency.register_device(own, request, certificate.user)
        prekey = Prekey(os.urandom(PREKEY_PRIVATE_BYTES))
        listed.append(PersonDevice(device.raw, sign_prekey(signer, prekey.public, now)))
    return Person(own.card.charter.raw, certificate.raw, tuple(listed))


def _run(author: Device, reader: Device, chat: ChatId, size: int) -> dict[str, float]:
    judge = compose.require(author, chat)
    begun = time.perf_counter()
    with author.transaction():
        epoch = start_epoch(author, judge, milliseconds())
    start = time.perf_counter() - begun
    hand_over(author, chat, reader.replica)
    begun = time.perf_counter()
    with reader.transaction():
        _open(reader, author, chat, epoch)
    seconds = time.perf_counter() - begun
    return {
        "start": start * 1e3,
        "open": seconds * 1e3,
        "start_a_device": start / size * 1e6,
        **_fetched(author, reader, judge, epoch),
    }


def _fetched(author: Device, reader: Device, judge: Chat, epoch: EntryId) -> dict[str, float]:
    """Return what a device fetches of an epoch: its seal with path, and the entry for all."""
    seals = tuple(author.replica.seals_for(judge.id, epoch, [reader.key]))
    entry = judge.history.epoch(epoch)
    if entry is None:
        raise UsageError("the epoch is not stored")
    return {
        "fetched_seal": len(encode_frame(Seals(judge.id, epoch, seals))),
        "fetched_entry": len(encode_operation(entry.operation)),
    }


def _open(reader: Device, author: Device, chat: ChatId, epoch: EntryId) -> None:
    if isinstance(sender_chain(reader, chat, epoch, author.key), NoKey):
        raise UsageError("the epoch does not open")
