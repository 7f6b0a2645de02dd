"""Receipts of a node: its own, signed when asked for, and other agencies', kept (SPEC 2.6, 7.1).

Whoever asks must be a reader of the chat; everybody else gets the one refusal. What others said is
kept as it came, so that whoever verifies it can tell what does not hold.
"""

from collections.abc import Sequence

import apsw
import structlog

from node.agency import Agency
from node.errors import RefusedError
from node.sharing import Sharing
from protocol.entry import ChatId, EntryId
from protocol.errors import PeerError
from protocol.identity import AgencyId, NodeId
from protocol.question import GetReceipts
from protocol.receipt import Receipt, sign_receipt, verify_receipt
from protocol.topic import RECEIPTS_MAX

log = structlog.get_logger()

_NOBODY = b""  # the node of what no node has signed


class ReceiptBook:
    """The receipts in a node's tables."""

    def __init__(self, connection: apsw.Connection, agency: Agency) -> None:
        self._connection = connection
        self._agency = agency
        self._sharing = Sharing(connection)

    def own(self, peer: bytes, asked: GetReceipts) -> list[bytes]:
        """Return our receipts for these entries. Raises RefusedError for who is not in the chat."""
        if not self._sharing.may_read(peer, asked.chat):
            raise RefusedError("this node does not answer that to you")
        found = []
        for entry in asked.entries:
            row = self._connection.execute(
                "SELECT ground, at FROM dropped JOIN chats ON no = chat"
                " WHERE dropped.id = ? AND chats.id = ? AND wanted = 0"
                " AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.place = dropped.place)",
                (entry, asked.chat),
            ).fetchone()
            if row is not None:
                found.append(self._sign(asked.chat, entry, EntryId(row[0]), row[1]))
        return found

    def _sign(self, chat: ChatId, entry: EntryId, ground: EntryId, dropped: int) -> bytes:
        node = NodeId(self._agency.node.public)
        return sign_receipt(
            self._agency.node, Receipt(node, self._agency.id, chat, entry, ground, dropped)
        )

    def everybodys(self, device: bytes, asked: GetReceipts) -> list[bytes]:
        """Return our receipts, and those of others that were kept, as many as an answer holds."""
        found = self.own(device, asked)
        for entry in asked.entries:
            rows = self._connection.execute(
                "SELECT receipt FROM receipts WHERE chat = ? AND entry = ? ORDER BY agency, node",
                (asked.chat, entry),
            )
            found += [bytes(row[0]) for row in rows]
        return found[:RECEIPTS_MAX]

    def others(self, device: bytes, asked: GetReceipts) -> list[AgencyId]:
        """Return which other agencies are to be asked; none for who is not in the chat."""
        if not self._sharing.may_read(device, asked.chat):
            return []
        rows = self._connection.execute(
            "SELECT peer FROM readers JOIN chats ON no = chat JOIN agencies ON agencies.id = peer"
            " WHERE chats.id = ? AND peer != ?",
            (asked.chat, self._agency.id),
        )
        return [AgencyId(bytes(row[0])) for row in rows]

    def keep(
        self,
        agency: AgencyId,
        nodes: Sequence[NodeId],
        asked: GetReceipts,
        receipts: Sequence[bytes],
    ) -> None:
        """Keep what another agency answered: of each of its nodes and each entry the newest.

        One that is none is kept too, one a chat and agency, until that answers better: whoever
        looks at the receipts sees that it does not hold.
        """
        place = (asked.chat, agency, _NOBODY)
        self._connection.execute(
            "DELETE FROM receipts WHERE chat = ? AND agency = ? AND node = ?", place
        )
        for raw in receipts:
            said = _read(agency, nodes, asked, raw)
            entry, node = (asked.entries[0], _NOBODY) if said is None else (said.entry, said.node)
            self._connection.execute(
                "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)",
                (asked.chat, entry, agency, node, raw),
            )


def _read(
    agency: AgencyId, nodes: Sequence[NodeId], asked: GetReceipts, raw: bytes
) -> Receipt | None:
    try:
        said = verify_receipt(raw)
    except PeerError as error:
        log.warning("a bad receipt", agency=agency.hex()[:16], why=str(error))
        return None
    fits = said.agency == agency and said.node in nodes and said.chat == asked.chat
    return said if fits and said.entry in asked.entries else None
