"""SPEC 7.1: a device takes up the cards of other agencies in pages, and once."""

from functools import partial

import pytest

from client import people
from client.device import Device
from protocol.reply import Cards
from tests.hostile.federation import Federation


def agencies(device: Device) -> set[bytes]:
    return {row[0] for row in device.connection.execute("SELECT id FROM agencies")}


async def test_cards_come_in_pages(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("node.trust", "client.link"):
        monkeypatch.setattr(f"{module}.CARDS_MAX", 1)
    link, anna = federation.links["anna"], federation.honest["anna"]
    known = await link.journal.read(partial(agencies, anna))
    assert len(known) > 2

    def forget() -> None:
        anna.connection.execute("DELETE FROM cards WHERE id <> ?", (anna.profile.user.agency,))
        anna.connection.execute("DELETE FROM meta WHERE key = 'cards'")

    await link.write(forget)
    await link.refresh()
    assert await link.journal.read(partial(agencies, anna)) == known
    again = await link.ask(await link.journal.read(partial(people.cards_seen, anna)))
    assert isinstance(again, Cards)
    assert again.cards == ()
