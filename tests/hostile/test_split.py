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


def _suspects(device: Device) -> set[bytes]:
    witness = Witness(device.connection)
    assert witness.proofs()
    return set(witnessing.suspects(device))
