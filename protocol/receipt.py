"""Receipts: a node's signed word that it has not, or no longer, a payload (SPEC 2.6).

    raw = sign_receipt(node_key, Receipt(node, agency, chat, entry, ground, dropped_ms))
    receipt = verify_receipt(raw)

That the key is one of the agency's nodes is for whoever knows the agency's card.
"""

from dataclasses import astuple, dataclass
from typing import Final

from crypto.errors import BadSignature
from crypto.signing import Signer, verify
from protocol import codec
from protocol.entry import ChatId, EntryId
from protocol.errors import NotCanonical, Untrusted
from protocol.identity import AgencyId, NodeId
from protocol.limits import HASH_BYTES, KEY_BYTES, SIGNATURE_BYTES, TIME_MS_MAX

VERSION: Final = 1
LABEL: Final = "receipt"
RECEIPT_BYTES_MAX: Final = 320


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a node says: by this ground it dropped that payload, or took the entry without it.

    dropped: milliseconds, by the node's clock.
    """

    node: NodeId
    agency: AgencyId
    chat: ChatId
    entry: EntryId
    ground: EntryId
    dropped: int


def sign_receipt(node: Signer, receipt: Receipt) -> bytes:
    """Return the record of a receipt, signed by the node's key."""
    body = codec.encode((VERSION, *astuple(receipt)))
    return codec.encode((body, node.sign(LABEL, body)))


def verify_receipt(raw: bytes) -> Receipt:
    """Read a receipt. Raises Untrusted for a bad signature, else NotCanonical or LimitExceeded."""
    signed = codec.record(codec.decode(raw, RECEIPT_BYTES_MAX), 2, "receipt")
    body = codec.binary(signed[0], RECEIPT_BYTES_MAX, "receipt body")
    fields = codec.record(codec.decode(body, RECEIPT_BYTES_MAX), 7, "receipt body")
    if fields[0] != VERSION:
        raise NotCanonical(f"receipt of version {fields[0]!r}, this is {VERSION} (SPEC 2.6)")
    receipt = Receipt(
        NodeId(codec.fixed(fields[1], KEY_BYTES, "node")),
        AgencyId(codec.fixed(fields[2], KEY_BYTES, "agency")),
        ChatId(codec.fixed(fields[3], HASH_BYTES, "chat")),
        EntryId(codec.fixed(fields[4], HASH_BYTES, "entry")),
        EntryId(codec.fixed(fields[5], HASH_BYTES, "ground")),
        codec.uint(fields[6], TIME_MS_MAX, "dropped"),
    )
    signature = codec.fixed(signed[1], SIGNATURE_BYTES, "signature")
    try:
        verify(receipt.node, LABEL, body, signature)
    except BadSignature:
        raise Untrusted("a receipt that its node has not signed (SPEC 2.6)") from None
    return receipt
