"""Signature requests, signatures and refusals among the messages of a chat (SPEC 5.5, 5.8).

What they are worth is not told here: `ivor approvals` verifies them.
"""

from collections.abc import Sequence
from typing import Final

from protocol.approval import Act, Document, FileSignature, SignatureRefusal, SignatureRequest
from protocol.identity import UserId

SHORT: Final = 8


def act_record(act: Act) -> dict[str, object]:
    """Return what --json prints of one."""
    match act:
        case SignatureRequest(document, asked, note):
            return {
                "kind": "signature_request",
                "text": note,
                "digest": document.digest.hex(),
                "size": document.size,
                "name": document.name,
                "media_type": document.media_type,
                "asked": [user.hex() for user in asked],
            }
        case FileSignature(request, digest):
            kind: dict[str, object] = {"kind": "signature", "text": None}
            return kind | {"target": request.id.hex(), "digest": digest.hex()}
        case SignatureRefusal(request, digest, reason):
            kind = {"kind": "signature_refusal", "text": reason}
            return kind | {"target": request.id.hex(), "digest": digest.hex()}


def act_text(act: Act) -> str:
    """Return what proves which file is meant; others wrote parts of it."""
    match act:
        case SignatureRequest(document, asked, note):
            return _asks(document, asked, document.digest.hex()) + note
        case FileSignature(request, digest):
            return f"(signature on {_short(request.id)}, SHA-256 {digest.hex()})"
        case SignatureRefusal(request, digest, reason):
            return f"(will not sign {_short(request.id)}, SHA-256 {digest.hex()}) {reason}"


def act_line(act: Act) -> str:
    """Return what people read of one in a chat; others wrote parts of it."""
    match act:
        case SignatureRequest(document, asked, note):
            return _asks(document, asked, f"{_short(document.digest)}…") + note
        case FileSignature(request):
            return f"(signature on {_short(request.id)}; 'ivor approvals' verifies it)"
        case SignatureRefusal(request, _, reason):
            return f"(will not sign {_short(request.id)}) {reason}"


def _asks(document: Document, asked: Sequence[UserId], digest: str) -> str:
    whom = f" of {len(asked)}" if asked else ""
    return f"(asks for signatures{whom} on {document.name}, SHA-256 {digest}) "


def _short(raw: bytes) -> str:
    return raw.hex()[:SHORT]
