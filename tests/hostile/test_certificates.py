"""Hostile cases 55 to 57: wrong certificates, shown to a node that listens and to one that dials.

Each is refused for the reason that the table gives, while an honest pair talks.
"""

import os
import ssl
from collections.abc import Callable
from functools import partial

import pytest
import trio

from crypto import certificate
from node import dialler
from node.tls import Credential, server_context
from protocol.frame import Hello
from protocol.name import split_endpoint
from protocol.session import PeerKind
from tests.hostile.certificates import (
    FOR_BOTH,
    FOR_CLIENTS,
    FOR_SERVERS,
    YEAR_SECONDS,
    authority_itself,
    for_documents,
    issued,
    odd,
)
from tests.hostile.federation import Federation, Gone, Wire, eventually, wire

EXPIRED = "certificate has expired"
EARLY = "not yet valid"
NO_TRUST = "unable to get local issuer"
WRONG_USE = "unsuitable certificate purpose"
NOT_ITS_USE = "not for the use of a"
NO_CARD = "not in the card"
UNKNOWN = "revoked or was never registered"

Row = tuple[Credential, str]  # and the reason that the node must give


def uri(kind: str, name: bytes) -> str:
    return f"ivor:{kind}:{name.hex()}"


def strange(federation: Federation) -> dict[str, Row]:
    """What is wrong, the certificate, and the reason that the node must give."""
    north, rogue = federation.agency("north"), federation.agency("rogue")
    anna = federation.honest["anna"].key
    node, ticket = rogue.node.public, os.urandom(16)
    stranger = certificate.make_key()
    users = federation.founded.users
    rows: dict[str, Row] = {
        "a node: another agency's CA": (
            issued(rogue, uri("node", north.node.public)),
            NO_CARD,
        ),
        "a node: an id that no card names": (
            issued(rogue, uri("node", os.urandom(32))),
            NO_CARD,
        ),
        "a node: a device's key": (issued(north, uri("node", anna)), NO_CARD),
        "a device: another agency's CA": (
            issued(rogue, uri("device", anna)),
            "a device of another agency",
        ),
        "a device: nobody's": (
            issued(north, uri("device", os.urandom(32))),
            UNKNOWN,
        ),
        "a device: a node's key": (
            issued(north, uri("device", north.node.public)),
            UNKNOWN,
        ),
        "a device: an invitation's ticket": (
            odd(north, uri("device", ticket), FOR_CLIENTS),
            "not of the length of its kind",
        ),
        "an invitation: another agency's CA": (
            issued(rogue, uri("invitation", ticket)),
            "invitation of another agency",
        ),
        "the authority itself": (authority_itself(rogue), WRONG_USE),
        "a signatory": (
            for_documents(north, users["anna"]),
            WRONG_USE,
        ),
    }
    own = {"node": (rogue, node), "device": (north, anna), "invitation": (north, ticket)}
    for kind, (agency, name) in own.items():
        that = uri(kind, name)
        rows |= {
            f"{kind}: expired": (issued(agency, that, at=-YEAR_SECONDS), EXPIRED),
            f"{kind}: not yet valid": (issued(agency, that, at=YEAR_SECONDS), EARLY),
            f"{kind}: self-signed": (odd(agency, that, FOR_BOTH, stranger), NO_TRUST),
            f"{kind}: for servers only": (odd(agency, that, FOR_SERVERS), WRONG_USE),
            f"{kind}: for the other use": (
                odd(agency, that, FOR_CLIENTS if kind == "node" else FOR_BOTH),
                NOT_ITS_USE,
            ),
            f"{kind}: for no use": (odd(agency, that, ()), NOT_ITS_USE),
        }
    return rows


async def shown(federation: Federation, credential: Credential) -> str:
    """Show a certificate to north; return why it was refused. No HELLO may come."""
    before = len(federation.events)
    try:
        async with wire(federation.agency("north"), credential) as opened:
            await opened.send(Hello((1,), bytes(16), None, 0, bytes(16)))
            await opened.end()
            assert not [one for one in opened.heard if isinstance(one, Hello)]
    except (trio.BrokenResourceError, ssl.SSLError):
        pass
    why: list[str] = []

    async def logged() -> bool:
        why[:] = [
            str(one["reason"])
            for one in federation.events[before:]
            if one["event"] == "connection refused"
        ]
        return bool(why)

    await eventually(logged, "the node says why")
    return why[0]


async def test_to_a_node_that_listens(federation: Federation) -> None:
    """Cases 55, 56: 28 certificates, each with one thing wrong; the right one is taken."""
    for name, (credential, reason) in strange(federation).items():
        why = await shown(federation, credential)
        assert reason in why, name
    async with federation.as_node() as good:
        await good.greet()


async def test_a_revoked_device(federation: Federation) -> None:
    """Case 47: its certificate is good for long, and does not help."""
    device = federation.device("mallory")
    node = federation.node()
    await node.journal.write(lambda: node.directory.people.revoke([device.key]))
    assert "revoked" in await shown(federation, device.credential)
    device.close()


async def test_an_invitation_is_no_device(federation: Federation) -> None:
    """Who was invited may ask, and not sync."""
    async with federation.as_invited() as opened:
        await opened.send(Hello((1,), bytes(16), None, 0, bytes(16)))
        await federation.refused(opened, "HELLO from a invitation")


def wrong_servers(federation: Federation) -> dict[str, Row]:
    """What may sit at rogue's address instead of its node."""
    rogue, north = federation.agency("rogue"), federation.agency("north")
    own = uri("node", rogue.node.public)
    return {
        "another node": (issued(rogue, uri("node", os.urandom(32))), NO_CARD),
        "north's node": (federation.node_credential("north"), "another node than"),
        "expired": (issued(rogue, own, at=-YEAR_SECONDS), EXPIRED),
        "not yet valid": (issued(rogue, own, at=YEAR_SECONDS), EARLY),
        "self-signed": (odd(rogue, own, FOR_BOTH, certificate.make_key()), NO_TRUST),
        "another agency's CA": (issued(north, own), NO_CARD),
        "for clients only": (odd(rogue, own, FOR_CLIENTS), WRONG_USE),
        "for servers only": (odd(rogue, own, FOR_SERVERS), NOT_ITS_USE),
        "a device": (issued(rogue, uri("device", os.urandom(32))), WRONG_USE),
        "a signatory": (for_documents(rogue, os.urandom(32)), WRONG_USE),
    }


async def test_to_a_node_that_dials(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases 55, 56, dialling: at rogue's address sits somebody whom its card does not name."""
    monkeypatch.setattr(dialler, "BACKOFF_SECONDS_MAX", 0.1)
    rogue = federation.agency("rogue")
    host, port = split_endpoint(rogue.card.nodes[0].endpoints[0])
    authorities = [card.ca for card in federation.node().cards.values()]
    for name, (credential, reason) in wrong_servers(federation).items():
        context = server_context(credential, authorities)
        await served(federation, context, host, port, partial(said, federation, reason), name)
    assert not federation.node().hub.of(rogue.id)


async def served(
    federation: Federation,
    context: ssl.SSLContext,
    host: str,
    port: int,
    seen: Callable[[int], bool],
    name: str,
) -> None:
    """Serve with a context until a node has said what is wrong with it."""
    before = len(federation.events)

    async def accept(transport: trio.SocketStream) -> None:
        stream = trio.SSLStream(transport, context, server_side=True, https_compatible=True)
        try:
            await Wire(stream).next()
        except (Gone, trio.BrokenResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def noticed() -> bool:
        return seen(before)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, accept, port, host=host))
        await eventually(
            noticed, f"{name}: {[one.get('why') for one in federation.events[before:]]}"
        )
        nursery.cancel_scope.cancel()


def said(federation: Federation, reason: str, before: int) -> bool:
    """Whether a node that dialled has given this reason."""
    return any(
        one["event"] == "no session" and reason in str(one.get("why"))
        for one in federation.events[before:]
    )


async def test_tls_1_2_when_dialling(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 57: to a server that knows nothing newer a node offers nothing that it could take.

    Whether that server's alert arrives before its end is chance, so the server is asked.
    """
    monkeypatch.setattr(dialler, "BACKOFF_SECONDS_MAX", 0.1)
    rogue = federation.agency("rogue")
    host, port = split_endpoint(rogue.card.nodes[0].endpoints[0])
    authorities = [card.ca for card in federation.node().cards.values()]
    context = server_context(federation.node_credential("rogue"), authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    before = len(federation.events)
    reasons: list[object] = []

    async def accept(transport: trio.SocketStream) -> None:
        stream = trio.SSLStream(transport, context, server_side=True, https_compatible=True)
        with pytest.raises(trio.BrokenResourceError) as refused:
            await stream.do_handshake()
        reasons.append(getattr(refused.value.__cause__, "reason", None))
        await trio.aclose_forcefully(stream)

    async def noticed() -> bool:
        return bool(reasons) and said(federation, "", before)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, accept, port, host=host))
        await eventually(noticed, "the node dials, and says that it has no session")
        nursery.cancel_scope.cancel()
    assert set(reasons) == {"UNSUPPORTED_PROTOCOL"}
    assert PeerKind.NODE not in {one.peer for one in federation.node().hub.of(rogue.id)}
