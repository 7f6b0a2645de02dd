"""What a node drops while it runs: what has aged, and what is left of it on disk (SPEC 2.6)."""

from functools import partial

import structlog
import trio

from node.database import empty_log
from node.driver import Connection
from node.errors import DamagedError, StorageError
from node.hub import Hub
from node.journal import Journal
from node.larder import Larder
from node.replica import Replica
from protocol.entry import ChatId

log = structlog.get_logger()

SWEEP_SECONDS = 3600.0
SWEEP_REST_SHARE = 3.0  # of the time that it took: so it has at most a quarter of ours


class Sweep:
    """The sweep of one node, in which it also asks its peers again for what it lacks."""

    def __init__(
        self, replica: Replica, journal: Journal, larder: Larder, hub: Hub[Connection]
    ) -> None:
        self._replica = replica
        self._journal = journal
        self._larder = larder
        self._hub = hub

    async def run(self) -> None:
        """Drop what has aged, at the start and every hour, and ask again for what is lacking."""
        while True:
            try:
                await self.drop_aged()
                for connection in self._hub.all():
                    connection.ask_for_seals()
                    await connection.ask_for_payloads()
            except StorageError:
                log.exception("what has aged was not dropped; trying again later")
            await self.scrub()
            await trio.sleep(SWEEP_SECONDS)

    async def drop_aged(self) -> None:
        """Drop what has aged in all chats, in small transactions, and rest between chats.

        A node has thousands of chats, and starts when all of its devices come back. A chat where
        nothing ages is looked at again only after its control lane has changed.
        """
        if not await self._journal.write(self._replica.may_age):
            log.warning(
                "nothing is dropped by age: the clock is far past when this was last looked for; "
                "it is believed if it still is so in a day, so set it right if it is wrong"
            )
            return
        ageless = self._replica.payloads.ageless
        for chat in await self._journal.read(self._replica.store.chats):
            if chat in ageless:
                continue
            begun = trio.current_time()
            try:
                await self._drop_aged_of(chat)
            except DamagedError as error:
                log.warning("what has aged in a chat was not dropped", reason=str(error))
            except StorageError:
                raise
            except Exception:  # what is stored of it is damaged, or our bug: the others go on
                log.exception("what has aged in a chat was not dropped", chat=chat.hex()[:16])
            await trio.sleep(SWEEP_REST_SHARE * (trio.current_time() - begun))

    async def _drop_aged_of(self, chat: ChatId) -> None:
        at: int | None = 0
        while at is not None:
            at = await self._journal.write(partial(self._replica.age, chat, at))

    async def scrub(self) -> None:
        """Remove blobs that were dropped, and empty the database's log, if anything was."""
        payloads = self._replica.payloads
        if not payloads.unscrubbed:
            return
        payloads.unscrubbed = False
        try:
            await self._larder.clear()
            emptied = await self._journal.read(partial(empty_log, self._replica.store.connection))
        except StorageError:
            log.exception("what was dropped is not gone from the disk yet; trying again later")
            emptied = False
        payloads.unscrubbed = payloads.unscrubbed or not emptied
