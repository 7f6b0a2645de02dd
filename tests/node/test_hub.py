"""SPEC 6.1: which of two sessions stays."""

from dataclasses import dataclass
from typing import cast

from node.driver import Connection
from node.hub import Hub
from protocol.session import PeerKind

SMALL, LARGE = b"a" * 32, b"z" * 32
DEVICE = b"d" * 32


@dataclass(eq=False)
class Peer:
    """A session with somebody."""

    key: bytes
    peer: PeerKind = PeerKind.NODE
    open: bool = True


def session(key: bytes, peer: PeerKind = PeerKind.NODE) -> Connection:
    return cast("Connection", Peer(key, peer))


def hub_of(agency: bytes) -> Hub[Connection]:
    return Hub(agency, lambda: 0.0)


class TestTwoSessionsWithOneAgency:
    def test_one_of_two_that_cross_stays(self) -> None:
        """Each side hears another one last."""
        ended = set()
        for own, other, order in ((SMALL, LARGE, (0, 1)), (LARGE, SMALL, (1, 0))):
            hub, sessions = hub_of(own), [session(other), session(other)]
            for at in order:
                ended |= {sessions.index(gone) for gone in hub.superseded(sessions[at])}
                hub.add(sessions[at])
        assert ended == {0}

    def test_devices_may_have_several(self) -> None:
        hub = hub_of(SMALL)
        hub.add(session(DEVICE, PeerKind.DEVICE))
        assert not hub.superseded(session(DEVICE, PeerKind.DEVICE))

    def test_one_that_ends_already_is_not_open(self) -> None:
        hub = hub_of(SMALL)
        ends = Peer(LARGE, open=False)
        stays = session(LARGE)
        for one in (stays, cast("Connection", ends)):
            hub.add(one)
        assert hub.of(LARGE) == (stays,)
