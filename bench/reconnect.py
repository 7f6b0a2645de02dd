"""Reconnect: two nodes share many chats, and nothing is new when they meet again."""

import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.federation import (
    POLICY,
    Site,
    founded,
    milliseconds,
    node_of,
    opened,
    replica_of,
    transact,
    user_of,
)
from bench.figures import Line, calibrate, lines_of, progress
from bench.processes import Child
from client.device import Device
from client.people import grant_of
from client.writing import append_control
from node.replica import Replica
from node.runs import read_run
from protocol.entry import CONTROL, ChatId
from protocol.errors import UsageError
from protocol.frame import Want
from protocol.operation import Genesis
from protocol.policy import ChatKind, Role
from protocol.run import unpack

NAME = "reconnect"
UNITS = {"time": "ms", "sent": "B", "received": "B"}
FIRST_UNITS = {"rate": "chats/s", "time": "ms"}
CHATS_TRANSACTION = 500
NONCE_BYTES = 16


def measure(chats: int, runs: int) -> list[Line]:
    """Measure with this many shared chats; of each there is the genesis."""
    with TemporaryDirectory(prefix="ivor-bench-") as folder:
        progress(f"{NAME}: {chats:,} chats")
        source, target = founded(Path(folder))
        _make_chats(source, target, chats)
        first = _first(source, target, chats)
        calib_s = calibrate()
        results = []
        with node_of(source) as node:
            _again(node, target)  # after this both sides have stored how far they are
            for _ in range(runs):
                results.append(_again(node, target))
                progress(f"{NAME}: {results[-1]['time']:.1f} ms")
    case = f"{chats:,} chats"
    return [
        *lines_of(NAME, f"{case}, first time", FIRST_UNITS, [first], calib_s),
        *lines_of(NAME, f"{case}, nothing new", UNITS, results, calib_s),
    ]


def _make_chats(source: Site, target: Site, count: int) -> None:
    device = opened(source)
    made: list[ChatId] = []
    while len(made) < count:
        with device.transaction():
            most = min(CHATS_TRANSACTION, count - len(made))
            made += [_genesis(device, target) for _ in range(most)]
    with replica_of(source) as replica:
        for at in range(0, count, CHATS_TRANSACTION):
            part = made[at : at + CHATS_TRANSACTION]
            transact(replica, partial(_hand_over, device, part, replica))
    device.close()


def _genesis(device: Device, target: Site) -> ChatId:
    own = device.profile.user.user
    grants = [grant_of(device, own, Role.OWNER)]
    grants.append(grant_of(device, user_of(device, target), Role.MEMBER))
    grants.sort(key=lambda grant: grant.credential.user.user)
    nonce = os.urandom(NONCE_BYTES)
    genesis = Genesis(ChatKind.GROUP, nonce, POLICY, tuple(grants))
    return ChatId(append_control(device, None, genesis, milliseconds()).id)


def _hand_over(device: Device, chats: list[ChatId], replica: Replica) -> None:
    for chat in chats:
        run = read_run(device.replica.store, Want(chat, device.key, CONTROL, chat[:8], 0, 1))
        if run is None:
            raise UsageError("our own chat is not there")
        records = [bytes(record) for record in run.records]
        signatures = dict(run.signatures)
        replica.append(run, unpack(chat, device.key, CONTROL, 0, None, None, records, signatures))


def _first(source: Site, target: Site, chats: int) -> dict[str, float]:
    with node_of(source), node_of(target, chats) as node:
        done = node.event("done")
        node.event("settled")
    seconds = float(done["seconds"])
    return {"time": seconds * 1e3, "rate": chats / seconds}


def _again(other: Child, target: Site) -> dict[str, float]:
    with node_of(target) as node:
        done = node.event("settled")
        other.event("settled")
    return {
        "time": float(done["seconds"]) * 1e3,
        "sent": float(done["sent"]),
        "received": float(done["received"]),
    }
