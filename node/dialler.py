"""Keeps a connection to each agency that is trusted: dials, and dials again (SPEC 6.1).

Both sides may dial, so that one reachable address suffices. The agency with the smaller id dials at
once, the other only after a while without a session, so the two do not cross.
"""

import random
from collections.abc import Mapping
from ssl import SSLContext
from typing import Protocol

import structlog
import trio

from node import tls
from node.config import Settings, is_local
from node.driver import Connection
from node.errors import IvorError, NetworkError
from node.hub import Hub
from node.wire import TLS_SECONDS_MAX, connect
from protocol.errors import PeerError, Untrusted
from protocol.identity import AgencyId, Card
from protocol.session import PeerKind

log = structlog.get_logger()

BACKOFF_SECONDS_MIN = 0.25
BACKOFF_SECONDS_MAX = 30.0
STEADY_SECONDS = 10.0  # a session that lasted this long starts the back-off anew
YIELD_SECONDS = 2.0  # that the agency with the larger id leaves to the other; guess
LOOK_SECONDS = 0.25


class Caller(Protocol):
    """What a dialler needs of its node."""

    settings: Settings
    hub: Hub[Connection]
    cards: Mapping[AgencyId, Card]
    client_context: SSLContext

    @property
    def id(self) -> AgencyId:
        """Our own agency, which is not dialled."""

    async def identify(self, stream: trio.SSLStream[trio.SocketStream]) -> tls.Peer:
        """Shake hands and return who is there."""

    async def hold(self, stream: trio.abc.Stream, kind: PeerKind, key: bytes) -> Exception | None:
        """Run a session to its end."""


async def keep_dialling(caller: Caller) -> None:
    """Dial every agency that is trusted, for as long as it is, and whenever one is added."""
    started: set[AgencyId] = set()
    async with trio.open_nursery() as nursery:
        while True:
            for agency in caller.cards.keys() - started - {caller.id}:
                started.add(agency)
                nursery.start_soon(_keep, caller, agency, started)
            await trio.sleep(LOOK_SECONDS)


async def _keep(caller: Caller, agency: AgencyId, started: set[AgencyId]) -> None:
    backoff = BACKOFF_SECONDS_MIN
    while True:
        if caller.id > agency:
            await trio.sleep(YIELD_SECONDS)
        await caller.hub.until_gone(agency)
        card = caller.cards.get(agency)
        if card is None:
            started.discard(agency)
            return
        begun = trio.current_time()
        await _dial(caller, card)
        steady = trio.current_time() - begun > STEADY_SECONDS
        backoff = BACKOFF_SECONDS_MIN if steady else min(backoff * 2, BACKOFF_SECONDS_MAX)
        await trio.sleep(random.uniform(backoff / 2, backoff))  # noqa: S311 - jitter, no secret


async def _dial(caller: Caller, card: Card) -> None:
    """Try each address of an agency; run the session with the first that answers."""
    for node in card.nodes:
        for endpoint in node.endpoints:
            stream = None
            try:
                stream = await _connect(caller, endpoint)
                with trio.fail_after(TLS_SECONDS_MAX):
                    peer = await caller.identify(stream)
                if peer != tls.NodePeer(card.charter.agency, node.node):
                    raise Untrusted("another node than the card names (SPEC 6.1)")
            except (OSError, trio.TooSlowError, tls.HandshakeFailed, PeerError, IvorError) as error:
                log.info("no session", agency=card.charter.name, endpoint=endpoint, why=str(error))
                if stream is not None:
                    await trio.aclose_forcefully(stream)
                continue
            except trio.Cancelled:
                if stream is not None:
                    await trio.aclose_forcefully(stream)
                raise
            await caller.hold(stream, PeerKind.NODE, card.charter.agency)
            return


async def _connect(caller: Caller, endpoint: str) -> trio.SSLStream[trio.SocketStream]:
    transport = await connect(endpoint, caller.settings.source or None)
    try:
        _refuse_local(caller, endpoint, transport)
    except BaseException:  # also of one that has hung up already
        await trio.aclose_forcefully(transport)
        raise
    return trio.SSLStream(transport, caller.client_context, https_compatible=True)


def _refuse_local(caller: Caller, endpoint: str, transport: trio.SocketStream) -> None:
    if is_local(transport.socket.getpeername()[0]) and not caller.settings.allow_local:
        raise NetworkError(f"{endpoint} is an address of this machine; allow_local permits it")
