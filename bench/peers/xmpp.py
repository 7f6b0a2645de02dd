"""As much of an XMPP client as it takes to write and to be written to; nothing parses XML."""

import base64
import re
import time
from collections.abc import Sequence

import trio

STAMP = re.compile(rb"T([0-9.]+)x")
TEXT_BYTES = 240
CHUNK_BYTES = 262_144
SILENCE_SECONDS_MAX = 60.0
TOGETHER = 20  # stanzas in one write when they go as fast as they can
PASSWORD = "bench"  # noqa: S105 - of accounts that are gone in a minute
FEATURES = b"</stream:features>"
BIND = (
    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    "<resource>r</resource></bind></iq><presence/>"
)


class Client:
    """One account, connected. user: its name at this domain."""

    def __init__(self, stream: trio.SocketStream, user: str, domain: str) -> None:
        self._stream = stream
        self._buffer = b""
        self.user = user
        self.domain = domain

    async def say(self, text: str) -> None:
        """Send."""
        await self._stream.send_all(text.encode())

    async def until(self, *marks: bytes) -> bytes:
        """Read as far as one of these. Raises EOFError, TooSlowError."""
        with trio.fail_after(SILENCE_SECONDS_MAX):
            while True:
                for mark in marks:
                    before, found, after = self._buffer.partition(mark)
                    if found:
                        self._buffer = after
                        return before + found
                self._buffer += await self.more()

    async def more(self) -> bytes:
        """Read what comes next."""
        chunk = await self._stream.receive_some(CHUNK_BYTES)
        if not chunk:
            raise EOFError(self._buffer[-300:])
        return bytes(chunk)

    def take(self) -> bytes:
        """Return what was read and not looked at."""
        taken, self._buffer = self._buffer, b""
        return taken

    async def begin(self) -> None:
        """Open the stream, or open it anew."""
        await self.say(
            f"<?xml version='1.0'?><stream:stream to='{self.domain}' version='1.0' "
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        await self.until(FEATURES)


async def account(address: tuple[str, int], user: str, domain: str) -> Client:
    """Register an account and sign in."""
    client = Client(await trio.open_tcp_stream(*address), user, domain)
    await client.begin()
    await client.say(
        "<iq type='set' id='reg'><query xmlns='jabber:iq:register'>"
        f"<username>{user}</username><password>{PASSWORD}</password></query></iq>"
    )
    await client.until(b"</iq>", b"id='reg'/>", b'id="reg"/>')
    client = Client(await trio.open_tcp_stream(*address), user, domain)
    await client.begin()
    token = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    await client.say(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + token + "</auth>"
    )
    await client.until(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
    await client.begin()
    await client.say(BIND)
    await client.until(b"</iq>")
    return client


async def write(client: Client, to: Client, count: int, rate: int) -> None:
    """Write messages, at a rate a second or, for 0, as fast as they are taken."""
    begun = trio.current_time()
    waiting: list[str] = []
    for number in range(count):
        if rate:
            await trio.sleep_until(begun + number / rate)
        body = f"T{time.monotonic():.6f}x".ljust(TEXT_BYTES, "y")
        waiting.append(
            f"<message to='{to.user}@{to.domain}/r' type='chat' id='m{number}'>"
            f"<body>{body}</body></message>"
        )
        if rate or len(waiting) == TOGETHER or number == count - 1:
            await client.say("".join(waiting))
            waiting.clear()


async def read(client: Client, count: int) -> Sequence[float]:
    """Return how long each of the next messages took, in milliseconds."""
    took: list[float] = []
    buffer = client.take()
    while len(took) < count:
        with trio.fail_after(SILENCE_SECONDS_MAX):
            buffer += await client.more()
        now = time.monotonic()
        whole, end, rest = buffer.rpartition(b"</message>")
        if end:
            took += [(now - float(stamp)) * 1e3 for stamp in STAMP.findall(whole)]
            buffer = rest
    return took
