"""What a peer says of others, and numbers at their bounds: nothing of it may be believed."""

from protocol.entry import CONTENT, CONTROL, ChatId, DeviceKey, EntryId
from protocol.fork import encode_proof
from protocol.frame import (
    Absent,
    Answer,
    ChatHeads,
    Forked,
    Have,
    Head,
    Heads,
    Hello,
    Holding,
    Ping,
    Pong,
    Seen,
    Want,
    WantSeals,
)
from protocol.limits import SEALS_FRAME_MAX
from protocol.testing.chains import Chain, signer
from tests.hostile.federation import INCARNATION, Federation, Wire
from tests.hostile.forger import Forger, nonsense

HUGE = 2**63 - 1
SEQ_MAX = 2**32 - 1


async def _through(federation: Federation, wire: Wire) -> None:
    await wire.send(Ping())
    await wire.hear(Pong)
    await federation.node().journal.write(lambda: None)


async def test_nobody_acknowledges_for_others(federation: Federation) -> None:
    """Case 34: a member's device says that both agencies store what they do not."""
    north, south = federation.agency("north").id, federation.agency("south").id
    anna = federation.honest["anna"].key
    lies = tuple(
        Holding(DeviceKey(agency), chat, device, lane, SEQ_MAX)
        for agency in (north, south)
        for chat in (federation.founded.open, federation.founded.quiet, ChatId(nonsense()))
        for device in (anna, DeviceKey(nonsense()))
        for lane in (CONTROL, CONTENT)
    )
    for opening in (federation.as_device, federation.as_node):
        async with opening() as wire:
            await wire.greet()
            await wire.send(Have(lies))
            await _through(federation, wire)
    for replica in (federation.node().replica, federation.honest["anna"].replica):
        rows = replica.store.connection.execute(
            "SELECT count(*) FROM holdings WHERE length > 9999999"
        )
        assert rows.get == 0


async def test_forks_of_ones_own_making(federation: Federation) -> None:
    """Case 48: a true proof about a device that is in no chat of ours is of no interest."""
    for chat in (federation.founded.open, federation.founded.quiet, ChatId(nonsense())):
        chain = Chain(signer(chat.hex()), chat, CONTENT)
        other = chain.fork(0)
        chain.add(b"one")
        other.add(b"other")
        proof = encode_proof(chain.cover(0), other.cover(0))
        for opening in (federation.as_device, federation.as_node):
            async with opening() as wire:
                await wire.greet()
                await wire.send(Forked(chat, proof))
                await _through(federation, wire)
    assert federation.node().replica.store.connection.execute("SELECT count(*) FROM forks").get == 0


async def test_numbers_at_their_bounds(federation: Federation, forger: Forger) -> None:
    """Case 34: cursors, seqs and lengths as large as their types."""
    chat, key = forger.chat, forger.device.key
    incarnation = federation.node().replica.store.incarnation
    async with federation.as_device() as wire:
        await wire.send(Hello((1,), INCARNATION, incarnation, HUGE, bytes(16)))
        await wire.hear(Hello)
        await wire.send(
            Want(chat, key, CONTENT, bytes(8), SEQ_MAX, 2**32),
            Want(chat, key, CONTROL, bytes(8), 0, 2**32),
            Want(chat, DeviceKey(nonsense()), CONTROL, bytes(8), 0, 1),
            Heads(HUGE, 1, (ChatHeads(chat, (Head(key, 1, SEQ_MAX, nonsense(8)),)),)),
            Absent(chat, key, 1, SEQ_MAX),
            Seen(HUGE),
            Answer(2**32 - 1, 255, nonsense()),
        )
        await wire.quiet(0.2)
        await _through(federation, wire)
    async with federation.as_device() as wire:
        await wire.greet()
        heard = await wire.quiet(0.3)
        listed = {one.chat for frame in heard if isinstance(frame, Heads) for one in frame.chats}
        assert listed == {federation.founded.open}


async def test_seals_asked_for_again_and_again(federation: Federation, forger: Forger) -> None:
    """Case 32: what is asked for waits in a bounded queue, served while the peer reads."""
    devices = tuple(DeviceKey(nonsense()) for _ in range(SEALS_FRAME_MAX))
    async with federation.as_device() as wire:
        await wire.greet()
        connection = await federation.session_of(forger.device.key)
        for _ in range(300):
            await wire.send(WantSeals(forger.chat, EntryId(nonsense()), devices))
        await _through(federation, wire)
        assert connection._session._serving._seal_devices <= 64 * 1024


async def test_history_asked_for_again_and_again(federation: Federation, forger: Forger) -> None:
    """Case 32: a bounded number of wants at a time."""
    stored = federation.node().replica.store.chat(forger.chat)
    assert stored is not None
    branch = stored.chains[federation.honest["anna"].key, CONTENT][0]
    want = Want(
        forger.chat, federation.honest["anna"].key, CONTENT, branch.head[:8], 0, branch.length
    )
    async with federation.as_device() as wire:
        await wire.greet()
        for _ in range(50):
            await wire.send(*[want] * 100)
        await federation.refused(wire, "wants at once")
