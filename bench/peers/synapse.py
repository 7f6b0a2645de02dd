"""Two Synapse homeservers that federate over TLS: Matrix, as agencies run it today.

Each keeps its rooms in SQLite. What is written is an event of the kind that carries ciphertext,
with letters for ciphertext: encryption would be the clients' work, as in Ivor.
"""

import hashlib
import hmac
import json
import secrets
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.figures import percentile
from bench.peers.installing import run
from bench.peers.serving import certify, served
from protocol.errors import UsageError

NAME = "synapse"
ABOUT = "events signed and hashed, ciphertext not checked by anybody; SQLite at both servers"
PACKAGE = "matrix-synapse==1.163.2"
PORTS = ((8441, 8011), (8442, 8012))  # for servers, over TLS; for clients
KEY = "bench"
EVENT = "m.room.encrypted"
TEXT_BYTES = 240
WRITERS = 8
UNDER_WAY_MAX = 50  # with over 100 waiting in a room it drops them and leaves a gap
WARM_UP = (20, 5)  # messages, a second
ANSWER_SECONDS_MAX = 60.0
CONFIGURATION = """
server_name: "localhost:{servers}"
pid_file: {home}/pid
report_stats: false
signing_key_path: {home}/signing.key
media_store_path: {home}/media
log_config: {home}/log.yaml
registration_shared_secret: {key}
macaroon_secret_key: {key}
form_secret: {key}
trusted_key_servers: []
suppress_key_server_warning: true
tls_certificate_path: {keys}/localhost.crt
tls_private_key_path: {keys}/localhost.key
federation_custom_ca_list: [{keys}/ca.pem]
ip_range_blacklist: []
federation_ip_range_blacklist: []
presence: {{enabled: false}}
listeners:
  - {{port: {servers}, bind_addresses: [127.0.0.1], type: http, tls: true,
      resources: [{{names: [federation, keys]}}]}}
  - {{port: {clients}, bind_addresses: [127.0.0.1], type: http, tls: false,
      resources: [{{names: [client]}}]}}
database: {{name: sqlite3, args: {{database: {home}/db}}}}
rc_message: &free {{per_second: 100000, burst_count: 100000}}
rc_registration: *free
rc_joins: {{local: *free, remote: *free}}
rc_joins_per_room: *free
rc_invites: {{per_room: *free, per_user: *free, per_issuer: *free}}
rc_login: {{address: *free, account: *free, failed_attempts: *free}}
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 0, reject_limit: 100000,
  concurrent: 100}}
"""
LOGGING = """version: 1
handlers: {{file: {{class: logging.FileHandler, filename: {home}/log}}}}
root: {{level: WARNING, handlers: [file]}}
"""


class Event(msgspec.Struct):
    """One event of a timeline."""

    type: str
    event_id: str
    content: dict[str, msgspec.Raw] = {}


class Timeline(msgspec.Struct):
    """What is new in a room."""

    events: list[Event] = []


class Room(msgspec.Struct):
    """One room in an answer."""

    timeline: Timeline = msgspec.field(default_factory=Timeline)


class Rooms(msgspec.Struct):
    """The rooms in an answer."""

    join: dict[str, Room] = {}


class Answer(msgspec.Struct):
    """What of an answer is looked at."""

    nonce: str = ""
    access_token: str = ""
    room_id: str = ""
    next_batch: str = ""
    rooms: Rooms = msgspec.field(default_factory=Rooms)


class User(NamedTuple):
    """An account, signed in. port: where its homeserver answers clients."""

    port: int
    token: str

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """Make a request. Raises UsageError if it is refused."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS_MAX)
        with closing(connection):
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            raw = answer.read()
        if answer.status != HTTPStatus.OK:
            raise UsageError(f"{path}: {answer.status} {raw[:300]!r}")
        return msgspec.json.decode(raw, type=Answer)


def install(folder: Path) -> None:
    """Install it into an environment of its own. Raises NotHere if that does not work."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(folder / "venv")])
        run([str(python), "-m", "pip", "install", "--quiet", PACKAGE])
    certify(folder / "keys", ["localhost"])


def measure(folder: Path, messages: int, rate: int) -> Mapping[str, float]:
    """Measure once, on two new homeservers. rate: low; more than 20 a second it does not take."""
    with ExitStack() as running:
        for servers, clients in PORTS:
            running.enter_context(_running(folder, servers, clients))
        one, other = (_registered(clients, f"user{clients}") for _, clients in PORTS)
        created = one.ask("POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat"})
        room = urllib.parse.quote(created.room_id)
        other.ask("POST", f"/_matrix/client/v3/join/{room}?server_name=localhost:{PORTS[0][0]}", {})
        reader = Reader(other, created.room_id)
        _written(one, reader, room, *WARM_UP)
        _, took = _written(one, reader, room, messages, rate)
        seconds, _ = _written(one, reader, room, messages, 0)
    return {
        "p50_slow": percentile(took, 0.5),
        "p99_slow": percentile(took, 0.99),
        "flat_out": messages / seconds,
    }


@contextmanager
def _running(folder: Path, servers: int, clients: int) -> Iterator[None]:
    home = folder / f"home-{servers}-{secrets.token_hex(4)}"
    home.mkdir()
    names = {"home": home, "keys": folder / "keys", "key": KEY}
    written = CONFIGURATION.format(**names, servers=servers, clients=clients)
    (home / "homeserver.yaml").write_text(written)
    (home / "log.yaml").write_text(LOGGING.format(home=home))
    python = str(folder / "venv" / "bin" / "python")
    command = [python, "-m", "synapse.app.homeserver", "-c", str(home / "homeserver.yaml")]
    run([*command, "--generate-keys"])
    with served(command, home, ("127.0.0.1", clients), {}):
        yield


def _registered(port: int, name: str) -> User:
    nobody, path = User(port, ""), "/_synapse/admin/v1/register"
    nonce = nobody.ask("GET", path).nonce
    told = f"{nonce}\0{name}\0{KEY}\0notadmin".encode()
    mac = hmac.new(KEY.encode(), told, hashlib.sha1).hexdigest()
    asked = {"nonce": nonce, "username": name, "password": KEY, "admin": False, "mac": mac}
    return User(port, nobody.ask("POST", path, asked).access_token)


class Reader:
    """Follows a room at its own homeserver."""

    def __init__(self, user: User, room: str) -> None:
        self._user = user
        self._room = room
        shown = {"room": {"timeline": {"limit": 100}}, "presence": {"types": []}}
        self._filter = urllib.parse.quote(json.dumps(shown))
        self._since = self._sync("timeout=0").next_batch
        self._seen: set[str] = set()

    def _sync(self, more: str) -> Answer:
        return self._user.ask("GET", f"/_matrix/client/v3/sync?filter={self._filter}&{more}")

    def read(self, count: int, window: threading.Semaphore) -> Sequence[float]:
        """Return how long each of the next messages took, in milliseconds."""
        took: list[float] = []
        while len(took) < count:
            found = self._sync(f"timeout=30000&since={self._since}")
            now = time.monotonic()
            self._since = found.next_batch
            for event in found.rooms.join.get(self._room, Room()).timeline.events:
                if event.type == EVENT and event.event_id not in self._seen:
                    self._seen.add(event.event_id)
                    window.release()
                    said = msgspec.json.decode(event.content["ciphertext"], type=str)
                    took.append((now - float(said.partition("x")[0])) * 1e3)
        return took


def _written(
    one: User, reader: Reader, room: str, count: int, rate: int
) -> tuple[float, Sequence[float]]:
    """Return the seconds until the last message has come, and how long each took."""
    window = threading.Semaphore(UNDER_WAY_MAX)
    begun = time.monotonic()

    def put(number: int) -> None:
        if rate:
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        window.acquire()
        body = f"{time.monotonic():.6f}x".ljust(TEXT_BYTES, "y")
        one.ask(
            "PUT",
            f"/_matrix/client/v3/rooms/{room}/send/{EVENT}/{secrets.token_hex(8)}",
            {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": body},
        )

    with ThreadPoolExecutor(WRITERS + 1) as threads:
        reading = threads.submit(reader.read, count, window)
        for _ in threads.map(put, range(count)):
            pass
        return time.monotonic() - begun, reading.result()
