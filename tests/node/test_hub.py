"""SPEC 6.1 and 6.5: which session stays, and when what is stored is handed on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from msgspec import Raw

from node.driver import Connection
from node.hub import Hub
from node.seals import Sealless
from node.stored import Stored
from protocol.entry import CONTROL, ChatId, DeviceKey, EntryId
from protocol.frame import Frame, Holding, Run, Seal, Seals
from protocol.intake import Outcome
from protocol.limits import HEADS_CHAINS_MAX
from protocol.session import PeerKind
from protocol.spread import Spread

SMALL, MIDDLE, LARGE = b"a" * 32, b"m" * 32, b"z" * 32
DEVICE = b"d" * 32


@dataclass(eq=False)
class Peer:
    """A session with somebody."""

    key: bytes
    peer: PeerKind = PeerKind.NODE
    open: bool = True
    welcome: bool = False
    news: bool = False
    told: list[Sequence[Holding]] = field(default_factory=list)
    sealed: bool = False
    asked: int = 0

    def ask_for_seals(self) -> None:
        self.asked += 1

    def send(self, frame: Frame) -> None:
        assert isinstance(frame, Seals)
        self.sealed = True

    def seals_kept(
        self, chat: ChatId, epoch: EntryId, owners: Sequence[tuple[DeviceKey, Seal]]
    ) -> None:
        del chat, epoch
        self.sealed = bool(owners)

    def awaited_of(self, home: bytes) -> Sequence[Sealless]:
        """It waits for none."""
        del home
        return ()

    def have(self, holdings: Sequence[Holding]) -> None:
        self.told.append(holdings)

    def close(self) -> None:
        self.open = False

    def let_in(self) -> None:
        self.welcome = True

    def changed(self) -> None:
        self.news = True


def session(key: bytes, peer: PeerKind = PeerKind.NODE) -> Connection:
    return cast("Connection", Peer(key, peer))


def hub_of(agency: bytes) -> Hub[Connection]:
    return Hub(agency, lambda: 0.0)


class TestTwoSessionsWithOneAgency:
    def test_one_of_two_that_cross_stays(self) -> None:
        """Each side hears another one last."""
        ended = []
        for own, other, order in ((SMALL, LARGE, (0, 1)), (LARGE, SMALL, (1, 0))):
            hub, sessions = hub_of(own), [session(other), session(other)]
            for at in order:
                hub.add(sessions[at])
            ended += [at for at in order if not sessions[at].open]
        assert ended == [0]

    def test_devices_may_have_several(self) -> None:
        hub = hub_of(SMALL)
        both = session(DEVICE, PeerKind.DEVICE), session(DEVICE, PeerKind.DEVICE)
        for one in both:
            hub.add(one)
        assert hub.of(DEVICE) == both

    def test_the_other_asks_for_the_seals_that_one_had_asked_for(self) -> None:
        """Regression: they came within the hour, as where calls crossed (9500818)."""
        for own, key, kind in (
            (LARGE, SMALL, PeerKind.NODE),
            (SMALL, DEVICE, PeerKind.DEVICE),
        ):
            hub, peers = hub_of(own), [Peer(key, kind), Peer(key, kind), Peer(MIDDLE)]
            for one in peers:
                hub.add(cast("Connection", one))
            hub.remove(cast("Connection", peers[0]))
            assert [one.asked for one in peers] == [0, 1, 0]

    def test_one_that_ends_already_is_not_open(self) -> None:
        hub = hub_of(LARGE)
        stays, ends = session(SMALL), session(SMALL)
        for one in (stays, ends):
            hub.add(one)
        ends.close()
        assert hub.of(SMALL) == (stays,)


class TestSpread:
    def test_only_agencies_stand_on_rings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All trees are made anew where one comes or goes; devices do it all day."""
        gone: list[bytes] = []
        monkeypatch.setattr(Spread, "down", lambda _, peer: gone.append(peer))
        hub = hub_of(SMALL)
        nodes = [session(LARGE), session(LARGE)]
        device, never_added = session(DEVICE, PeerKind.DEVICE), session(MIDDLE)
        for one in (*nodes, device):
            hub.add(one)
        for one in (device, never_added, nodes[0]):
            hub.remove(one)
        assert gone == []
        hub.remove(nodes[1])
        assert gone == [LARGE]
        assert hub.all() == []


def test_who_is_out_is_handed_no_seals() -> None:
    """SPEC 6.3: also if they had asked while they were in."""
    hub = hub_of(SMALL)
    stays, left = Peer(MIDDLE), Peer(LARGE)
    device, revoked = Peer(DEVICE, PeerKind.DEVICE), Peer(b"e" * 32, PeerKind.DEVICE)
    for one in (stays, left, device, revoked):
        hub.add(cast("Connection", one))
    owners = [(DeviceKey(one.key), Seal(0, bytes(1184), ())) for one in (device, revoked)]
    readers = frozenset({SMALL, MIDDLE, DEVICE})
    hub.seals_kept(ChatId(bytes(32)), EntryId(bytes(32)), owners, readers)
    assert [one.sealed for one in (stays, left, device, revoked)] == [True, False, True, False]


def test_holdings_are_told_in_frames_that_are_taken() -> None:
    """SPEC 6.2: what comes together of one device may be more than a HAVE holds."""
    hub, device = hub_of(SMALL), Peer(DEVICE, PeerKind.DEVICE)
    hub.add(cast("Connection", device))
    holdings = [
        Holding(DeviceKey(LARGE), ChatId(at.to_bytes(32, "big")), DeviceKey(DEVICE), 1, 7)
        for at in range(HEADS_CHAINS_MAX + 1)
    ]
    hub.holdings_noted(holdings)
    assert [len(told) for told in device.told] == [HEADS_CHAINS_MAX, 1]
    assert [one for told in device.told for one in told] == holdings


@dataclass
class HandingOn(Hub[Connection]):
    """A hub that notes what it hands on."""

    handed: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(SMALL, lambda: 0.0)

    def hand_on(self, stored: Stored, source: object) -> None:
        self.handed.append((stored, source))


class TestStoring:
    @pytest.fixture
    def parts(self) -> Sequence[Stored]:
        return [cast("Stored", number) for number in (1, 2)]

    def test_what_our_device_wrote_waits_for_our_disk(self, parts: Sequence[Stored]) -> None:
        """So nobody has an entry that its author's own node does not know (I16)."""
        hub, source = HandingOn(), session(DEVICE, PeerKind.DEVICE)
        durable = hub.storing(parts, source)
        assert not hub.handed
        durable()
        assert hub.handed == [(1, source), (2, source)]

    def test_what_a_node_brought_goes_on_at_once(self, parts: Sequence[Stored]) -> None:
        hub, source = HandingOn(), session(LARGE)
        durable = hub.storing(parts, source)
        assert hub.handed == [(1, source), (2, source)]
        durable()
        assert len(hub.handed) == len(parts)


class TestLettingIn:
    @pytest.mark.parametrize(("entered", "again"), [(SMALL, [True, True]), (LARGE, [False, True])])
    def test_who_is_asked_again(self, entered: bytes, again: Sequence[bool]) -> None:
        """Where we were let in, all readers may have listed what had no place before."""
        hub, peers = hub_of(SMALL), [Peer(MIDDLE), Peer(LARGE)]
        for peer in peers:
            hub.add(cast("Connection", peer))
        run = Run(ChatId(SMALL), DeviceKey(DEVICE), CONTROL, 0, None, None, (Raw(b"\x00"),), ())
        stored = Stored(Outcome(0), run, readers={SMALL, MIDDLE, LARGE}, entered={entered})
        hub.hand_on(stored, session(DEVICE, PeerKind.DEVICE))
        assert [peer.welcome for peer in peers] == again


def test_who_is_put_out_is_told() -> None:
    """SPEC 6.3: over the session that stands, though nothing is pushed to it any more."""
    hub, peers = hub_of(SMALL), [Peer(MIDDLE), Peer(DEVICE, PeerKind.DEVICE), Peer(LARGE)]
    for peer in peers:
        hub.add(cast("Connection", peer))
    run = Run(ChatId(SMALL), DeviceKey(DEVICE), CONTROL, 0, None, None, (Raw(b"\x00"),), ())
    stored = Stored(Outcome(0), run, readers={SMALL}, left={MIDDLE, DEVICE})
    hub.hand_on(stored, session(DEVICE, PeerKind.DEVICE))
    assert [peer.news for peer in peers] == [True, True, False]
