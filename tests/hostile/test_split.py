"""SPEC 7.5: an agency that shows different directories is found out, by everyone."""

from functools import partial

from client import witnessing
from client.device import Device
from node.witness import Witness
from protocol.listing import sign_head
from tests.hostile.federation import Federation, eventually


async def test_everyone_learns_of_a_split(federation: Federation) -> None:
    """Rogue showed north and south other directories; nodes, then devices, hold the proof."""
    rogue = federation.agency("rogue")
    north, south = federation.node("north"), federation.node("south")
    for node, leaf in ((north, b"one"), (south, b"other")):
        head = sign_head(rogue.registrar, rogue.card.charter, None, [leaf], 1)
        shown = await node.journal.write(partial(node.directory.witness.agrees, head.raw))
        assert shown
    await north._compare(north._nodes())

    async def proved() -> bool:
        found = [await one.journal.read(one.directory.witness.proofs) for one in (north, south)]
        return all(found)

    await eventually(proved, "both nodes hold the proof")
    for name, device in federation.honest.items():
        await federation.links[name].compare_directories()
        assert rogue.id in await federation.links[name].journal.read(partial(_suspects, device))


async def test_a_new_head_is_with_others_in_seconds(federation: Federation) -> None:
    """Regression: within the hour. Who was lost before, and brought back, signed another one."""
    north, south = federation.node("north"), federation.node("south")
    mallory = federation.device("mallory")
    revoke = partial(north.directory.people.revoke, [mallory.key])
    await north.journal.write(revoke)
    mallory.close()
    await federation.links["anna"].look_up(["anna@north"])
    head = await north.journal.read(partial(north.directory.witness.latest, north.id))
    assert head is not None

    async def heard() -> bool:
        return await south.journal.read(partial(south.directory.witness.latest, north.id)) == head

    await eventually(heard, "south has the head that only anna was shown")


def _suspects(device: Device) -> set[bytes]:
    witness = Witness(device.connection)
    assert witness.proofs()
    return set(witnessing.suspects(device))
