"""What an operator's monitoring is told of a running node."""

import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from node import agency as agencies
from node.agency import Founding
from node.config import Settings
from node.database import connect
from node.errors import NetworkError
from node.metrics import Metrics
from node.service import Node
from protocol.frame import LENGTH_BYTES
from protocol.session import PeerKind
from tests.hostile.federation import free_endpoint
from tests.node.house import draw


def scraped(endpoint: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, value in (line.split(" ") for line in lines if line[0] != "#")
    }


async def test_a_breach_is_counted_by_its_error(tmp_path: Path) -> None:
    """Beside what a process needs; a peer, a person or a chat is never named."""
    founding = Founding("minzdrav", "RU", ("minzdrav.example:7340",), {})
    agency = agencies.create(tmp_path / "minzdrav", founding, b"p", b"r", time.time(), draw)
    endpoint = free_endpoint()
    settings = Settings(listen="127.0.0.1:0", metrics=endpoint)
    node = Node(agency, settings, connect(tmp_path / "node.db", None))
    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(node.run, lambda _host, _port: ready.set())
        await ready.wait()
        ours, theirs = memory_stream_pair()
        await ours.send_all(bytes(LENGTH_BYTES))
        await node.hold(theirs, PeerKind.NODE, agency.id)
        found = await trio.to_thread.run_sync(scraped, endpoint)
        nursery.cancel_scope.cancel()
    assert found['ivor_breaches_total{error="LimitExceeded",kind="node"}'] == 1
    assert found['ivor_connections{kind="node"}'] == 0
    assert found["process_open_fds"] > 0
    assert all(re.fullmatch(r"(ivor|process)_[a-z_]+(\{[^}]*\})?", name) for name in found)


def test_a_place_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NetworkError, match=f"metrics cannot be served on {endpoint}"):
            Metrics().served(endpoint).__enter__()
