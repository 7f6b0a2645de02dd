"""How proposals to the owners, and consents, are shown among the messages of a chat."""

from client.chats import SHORT_CHARS
from protocol.proposal import Consent, Motion, Proposal


def motion_record(motion: Motion) -> dict[str, object]:
    """Return what --json prints of it."""
    match motion:
        case Proposal(until, operations):
            return {"kind": "proposal", "text": None, "until": until, "changes": len(operations)}
        case Consent(proposal, _):
            return {"kind": "consent", "text": None, "target": proposal.id.hex()}


def motion_text(motion: Motion) -> str:
    """Return one line for people; what a proposal would do depends on who is in the chat."""
    match motion:
        case Proposal():
            return "(asks the owners to decide: 'ivor chat proposals' tells what)"
        case Consent(proposal, _):
            return f"(signs the proposal {proposal.id.hex()[:SHORT_CHARS]})"
