"""What membership says of the messages in an evidence file (SPEC 5.10): a finding, not a rule.

    verdicts = judge(findings)
    verdicts[statement.id] is None          # it counts, by all the control entries in the file

It follows from the control entries that are there; who made the file may have left out later ones.
"""

from collections.abc import Mapping

from protocol.dag import ControlEntry
from protocol.entry import ChatId, EntryId
from protocol.evidence import Findings
from protocol.history import History
from protocol.lane import LaneEntry
from protocol.membership import content_void
from protocol.operation import Checkpoint, Kind, Nack, Operation
from protocol.payload import decode_operation
from protocol.roster import Void


def judge(findings: Findings) -> Mapping[EntryId, Void | None]:
    """Return for each disclosed message why it counts for nothing, None if it counts.

    Raises PeerError if no node would have taken these control entries.
    """
    history = History()
    for entry in reversed(findings.lane.entries):
        header = entry.header
        operation = _operation(entry, findings.chat)
        history.add(
            ControlEntry(entry.id, header.device, header.seq, header.prev, header.links, operation)
        )
    verdicts: dict[EntryId, Void | None] = {}
    for one in findings.statements:
        past = history.past([head.id for head in one.header.control])
        verdicts[one.id] = content_void(history, one.header.device, one.header.seq, past)
    return verdicts


def _operation(entry: LaneEntry, chat: ChatId) -> Operation:
    if entry.payload is not None:
        return decode_operation(entry.header.kind, entry.payload, chat)
    if entry.header.kind == Kind.CHECKPOINT:
        return Checkpoint()
    return Nack(entry.id, 0)  # what was left out changes nothing, and neither does this
