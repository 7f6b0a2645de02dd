"""All heads that a peer may see, gathered at leisure for a reconciliation (SPEC 6.3)."""

from functools import partial

import trio

from node.journal import Journal
from node.sharing import Sharing
from protocol.reconcile import Survey, Table


async def survey(sharing: Sharing, journal: Journal, peer: bytes, key: bytes) -> Table:
    """Make the table of a peer. Others are served between two slices of it."""
    async with journal.at_leisure():
        table = Table(await journal.read(sharing.newest_change))
        gathered = Survey(key)
        after: int | None = 0
        while after is not None:
            heads, after = await journal.read(partial(sharing.survey, peer, after))
            gathered.add(heads)
        for piece in gathered.pieces():
            table.extend(piece)
            await trio.lowlevel.checkpoint()
    return table
