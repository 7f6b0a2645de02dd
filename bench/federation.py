"""A small federation in a folder: agencies that trust each other, a device at each.

Everything is made the way people make it: agency folders, cards, invitations, devices that join
over TLS at a running node.
"""

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from bench.processes import Child, started
from client import enrol
from client.device import Device, open_device
from client.link import Link, linked
from node import agency
from node.database import connect
from node.directory import Directory
from node.errors import UserError
from node.replica import Replica
from protocol.identity import UserId
from protocol.invitation import Invitation, Purpose
from protocol.policy import HistoryRule, Policy

PASSPHRASE = b"bench"
ZONE = "RU-UDM"
NAMES = ("minzdrav", "mincifry")
POLICY = Policy(("RU",), 0, HistoryRule.FROM_JOIN)
INVITED_SECONDS = 3600
ACQUAINT_SECONDS_MAX = 20.0
ACQUAINT_POLL_SECONDS = 0.1
NODE_FILE = "node.db"
DATABASE_SUFFIXES = ("", "-wal", "-shm")

_kept: list[socket.socket] = []


@dataclass(frozen=True, slots=True)
class Site:
    """An agency's folder and the one user of it that has a device."""

    name: str
    folder: Path
    port: int

    @property
    def home(self) -> Path:
        """The folder of its user's device."""
        return self.folder.parent / f"{self.name}-device"

    @property
    def database(self) -> Path:
        """The node's database."""
        return self.folder / NODE_FILE

    @property
    def address(self) -> str:
        """The user's address."""
        return f"user@{self.name}"


@contextmanager
def node_of(site: Site, *options: object) -> Iterator[Child]:
    """Run the node of a site in a process of its own; it listens when the block begins."""
    with started("bench.node_worker", site.folder, site.port, *options) as node:
        node.event("ready")
        yield node


def founded(root: Path) -> list[Site]:
    """Return two agencies that trust each other, a device at each whose owners know each other.

    They are made once in a process and copied from then on. The second dials the first at once, so
    nobody waits for it: of two nodes the one with the smaller id dials.
    """
    sites = _first_founded()
    for site in sites:
        for folder in (site.folder, site.home):
            shutil.copytree(folder, root / folder.name)
    copies = [replace(site, folder=root / site.name) for site in sites]
    for copy in copies:
        device = opened(copy)
        device.settle_here()  # nobody writes with the original
        device.close()
    return copies


@cache
def _first_founded() -> tuple[Site, ...]:
    root = Path(_originals().name)
    sites = [Site(name, root / name, free_port()) for name in NAMES]
    made = {site.name: _create(site) for site in sites}
    sites.sort(key=lambda site: made[site.name].id, reverse=True)
    invitations = [_trust(site, made[site.name], list(made.values())) for site in sites]
    with ExitStack() as running:
        for site in sites:
            running.enter_context(node_of(site))
        trio.run(_join, sites, invitations)
    return tuple(sites)


@cache
def _originals() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="ivor-bench-")  # removed when the process ends


def _create(site: Site) -> agency.Agency:
    endpoint = f"127.0.0.1:{site.port}"
    founding = agency.Founding(site.name, ZONE, (endpoint,), {"allow_local": True})
    return agency.create(site.folder, founding, PASSPHRASE, PASSPHRASE, time.time(), os.urandom)


def _trust(site: Site, own: agency.Agency, others: Sequence[agency.Agency]) -> Invitation:
    connection = connect(site.database, None)
    with connection:
        directory = Directory(connection, own, os.urandom)
        for other in others:
            if other.id != own.id:
                directory.accept_card(other.card.raw, allow_local=True)
        found = directory.registrar.invite(
            "user", Purpose.FIRST_DEVICE, time.time(), INVITED_SECONDS
        )
    connection.close()
    return found


async def _join(sites: Sequence[Site], invitations: Sequence[Invitation]) -> None:
    for site, invitation in zip(sites, invitations, strict=True):
        await enrol.join(site.home, invitation, "bench", PASSPHRASE, os.urandom)
    addresses = [site.address for site in sites]
    for site in sites:
        device = opened(site)
        async with linked(device) as link:
            await link.greeted.wait()
            await link.refresh()
            await _acquaint(link, addresses)
        device.close()


async def _acquaint(link: Link, addresses: Sequence[str]) -> None:
    """Look everybody up, as soon as the nodes have found each other."""
    with trio.fail_after(ACQUAINT_SECONDS_MAX):
        while True:
            try:
                await link.look_up(addresses)
            except UserError:
                await trio.sleep(ACQUAINT_POLL_SECONDS)
            else:
                return


def opened(site: Site) -> Device:
    """Open the device of a site."""
    return open_device(site.home, PASSPHRASE, os.urandom)


def user_of(device: Device, site: Site) -> UserId:
    """Return the user of another site, whom this device knows."""
    found = device.connection.execute("SELECT id FROM users WHERE name = ?", (site.address,)).get
    return UserId(found)


@contextmanager
def replica_of(site: Site) -> Iterator[Replica]:
    """Open the database of a node that does not run."""
    connection = connect(site.database, None)
    own = agency.open_agency(site.folder, PASSPHRASE).id
    try:
        yield Replica(connection, own, own)
    finally:
        connection.close()


def transact(replica: Replica, work: Callable[[], None]) -> None:
    """Run `work` in one transaction of a replica that nobody else uses."""
    replica.store.connection.execute("BEGIN IMMEDIATE")
    work()
    replica.store.connection.execute("COMMIT")


def copy_database(source: Path, target: Path) -> None:
    """Put one closed database in the place of another."""
    for suffix in DATABASE_SUFFIXES:
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody uses now, and that nobody is given before this process ends.

    A socket is kept bound to it, which does not listen: a server may take the port beside it, but
    the system gives it neither to another socket nor to a connection.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((host, 0))
    _kept.append(kept)
    return int(kept.getsockname()[1])


def milliseconds() -> int:
    """Return the time that entries carry."""
    return int(time.time() * 1000)
