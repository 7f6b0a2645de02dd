"""Signature requests, signatures and refusals among the messages of a chat (SPEC 5.5, 5.8).

What they are worth is not told here: `ivor approvals` verifies them.
"""

from typing import Final

from protocol.approval import Act, FileSignature, SignatureRefusal, SignatureRequest

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
    """Return what people read of one; others wrote parts of it."""
    match act:
        case SignatureRequest(document, asked, note):
            whom = f" of {len(asked)}" if asked else ""
            digest = document.digest.hex()[:SHORT]
            what = f"(asks for signatures{whom} on {document.name}, SHA-256 {digest}…) "
            return what + note
        case FileSignature(request):
            return f"(signature on {_short(request.id)}; 'ivor approvals' verifies it)"
        case SignatureRefusal(request, _, reason):
            return f"(will not sign {_short(request.id)}) {reason}"


def _short(entry: bytes) -> str:
    return entry.hex()[:SHORT]
