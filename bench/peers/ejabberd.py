"""Two ejabberd servers that federate over TLS: XMPP, as an agency would run it without Ivor.

Two cases: nothing kept, and each server with an archive in SQLite, which survives a crash.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from bench.figures import percentile
from bench.peers import xmpp
from bench.peers.installing import NotHere, run
from bench.peers.serving import certify, served

NAME = "ejabberd"
PACKAGES = ("ejabberd", "erlang-p1-sqlite3")
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
SCHEMA = Path("/usr/share/ejabberd/sql/lite.sql")
CASES = {  # archive: what it gives up, or gains
    "none": "nothing signed, encrypted end to end, or kept",
    "sqlite": "nothing signed or encrypted end to end; archive in SQLite at both servers",
}
CLIENTS_PORT = 5222
SERVERS_PORT = 5269
WARM_UP = (20, 20)  # messages, a second
CONFIGURATION = """
hosts: ["{name}"]
loglevel: warning
certfiles: ["{keys}/{name}.pem"]
ca_file: "{keys}/ca.pem"
s2s_use_starttls: required
s2s_dns_timeout: 1
s2s_dns_retries: 1
auth_method: internal
{database}
listen:
  - {{port: {clients}, ip: "{address}", module: ejabberd_c2s}}
  - {{port: {servers}, ip: "{address}", module: ejabberd_s2s_in}}
access_rules:
  register: {{allow: all}}
registration_timeout: infinity
modules:
{archive}  mod_register: {{access: register, ip_access: all}}
  mod_roster: {{}}
  mod_offline: {{}}
  mod_disco: {{}}
  mod_s2s_dialback: {{}}
"""


class Site(NamedTuple):
    """A server: its name has no dot, so that it asks no DNS for services."""

    name: str
    address: str


SITES = (Site("benchone", "127.0.0.2"), Site("benchtwo", "127.0.0.3"))


def install(folder: Path) -> None:
    """Install the Debian packages if they are missing. Raises NotHere where that is not allowed."""
    if shutil.which("ejabberdctl") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotHere(f"no ejabberd: on Debian, apt install {' '.join(PACKAGES)}")
        # Only the files: nothing that is installed here is to start.
        keep = ["-o", "DPkg::Options::=--force-confold", "-o", "APT::Install-Recommends=false"]
        refuse = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
        run([*refuse, "apt-get", "install", "--yes", "--quiet", *keep, *PACKAGES])
    certify(folder / "keys", [site.name for site in SITES])
    hosts = "".join(f"{site.address} {site.name}\n" for site in SITES)
    (folder / "hosts").write_text(hosts)


def measure(folder: Path, messages: int, rate: int, archive: str) -> Mapping[str, float]:
    """Measure once. archive: `none` or `sqlite`."""
    with ExitStack() as running:
        for site in SITES:
            running.enter_context(_running(folder, site, archive))
        return trio.run(_deliver, messages, rate)


@contextmanager
def _running(folder: Path, site: Site, archive: str) -> Iterator[None]:
    home = folder / site.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    database, modules = "", ""
    if archive == "sqlite":
        database = f'default_db: sql\nsql_type: sqlite\nsql_database: "{home}/archive.db"'
        modules = "  mod_mam: {default: always}\n"
        made = sqlite3.connect(home / "archive.db")
        made.executescript(SCHEMA.read_text())
        made.execute("PRAGMA journal_mode = wal")  # stays with the file
        made.close()
    (home / "ejabberd.yml").write_text(
        CONFIGURATION.format(
            name=site.name,
            address=site.address,
            keys=folder / "keys",
            clients=CLIENTS_PORT,
            servers=SERVERS_PORT,
            database=database,
            archive=modules,
        )
    )
    environment = {
        "EJABBERD_CONFIG_PATH": str(home / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(home / "ejabberd.log"),
        "SPOOL_DIR": str(home),
        "ERL_LIBS": LIBRARIES,
        "HOME": str(home),
    }
    # The names are known to these processes only: a mount that nobody else sees.
    names = f'mount --bind {folder / "hosts"} /etc/hosts && exec "$@"'
    erlang = ["erl", "-noinput", "-mnesia", "dir", f'"{home}"', "-s", "ejabberd"]
    command = ["unshare", "--mount", "sh", "-c", names, "sh", *erlang]
    with served(command, home, (site.address, CLIENTS_PORT), environment):
        yield


async def _deliver(messages: int, rate: int) -> dict[str, float]:
    one, other = [
        await xmpp.account((site.address, CLIENTS_PORT), "official", site.name) for site in SITES
    ]
    await _written(one, other, *WARM_UP)
    _, took = await _written(one, other, messages, rate)
    seconds, _ = await _written(one, other, messages, 0)
    return {
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "flat_out": messages / seconds,
    }


async def _written(
    one: xmpp.Client, other: xmpp.Client, count: int, rate: int
) -> tuple[float, Sequence[float]]:
    """Return the seconds until the last message has come, and how long each took."""
    begun = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(xmpp.write, one, other, count, rate)
        took = await xmpp.read(other, count)
    return time.monotonic() - begun, took
