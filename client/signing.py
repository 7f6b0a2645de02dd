"""Signing a file for a chat: what is signed is prepared first, then told in one transaction.

prepared = prepare(device, file, signer, approval, detached=False, now=now)
place = tell(device, chat, prepared, approval, asked, "by Friday", now)      # in a transaction
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyhanko.sign.signers.pdf_cms import Signer

from client import pdf
from client.approvals import Approval, Standing
from client.cms import sign_detached
from client.compose import send
from client.device import Device
from client.documents import File, media_type_of
from node.errors import EvidenceError, UserError
from protocol.approval import (
    Document,
    FileSignature,
    Revision,
    SignatureRefusal,
    SignatureRequest,
    Version,
)
from protocol.entry import ChatId, Reference
from protocol.identity import UserId

PDF_TYPE = "application/pdf"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A signature that is not told yet.

    signed: the PDF with the signature, None if it is detached. before: who had signed the PDF.
    """

    document: Document
    cms: bytes
    signed: File | None
    revision: Revision | None
    before: tuple[str, ...]


def prepare(
    device: Device,
    file: File,
    signer: Signer,
    request: Approval | None,
    *,
    detached: bool,
    now: int,
) -> Prepared:
    """Sign a file; for a request, the very file of it. now: milliseconds.

    Raises EvidenceError for another file or a broken signature in it, UserError for a PDF that
    cannot be signed or that we have signed, RefusedError for one that must not be changed.
    """
    in_pdf = not detached and pdf.is_pdf(file.data, file.path.name)
    if request is None:
        document = file.document(PDF_TYPE if in_pdf else media_type_of(file.path.name))
    else:
        document = _check(device, file, request)
    before: tuple[str, ...] = ()
    signed = None
    if in_pdf:
        before = tuple(one.name for one in pdf.examine(file.data))
        pdf.check_continues(file.data, document.size, document.digest)
        made = pdf.sign(file.data, signer, pdf.free_field(file.data), device.profile.name)
        signed = File.of(file.path, made)
    cms = sign_detached(signer, document.digest, now / 1000)
    revision = None if signed is None else Revision(file.version, signed.version)
    return Prepared(document, cms, signed, revision, before)


def _check(device: Device, file: File, request: Approval) -> Document:
    check_waits(device, request)
    if file.version not in request.versions():
        raise EvidenceError(
            f"{file.path} is not the file of the request: it has SHA-256 {file.digest.hex()}, the "
            f"request is for {request.document.name} with {request.document.digest.hex()}"
        )
    return request.document


def check_waits(device: Device, request: Approval) -> None:
    """Raise EvidenceError for a request that counts for nothing, UserError for one we signed."""
    if request.fault is not None:
        raise EvidenceError(f"the request counts for nothing: {request.fault}")
    if request.standing(device.profile.user.user) is Standing.SIGNED:
        raise UserError("you have signed this already; 'ivor approvals' shows it")


def same_file(known: Sequence[Approval], version: Version) -> Approval | None:
    """Return a request that is for these very bytes already."""
    return next((one for one in known if one.fault is None and version in one.versions()), None)


def tell(
    device: Device,
    chat: ChatId,
    prepared: Prepared,
    request: Reference | None,
    asked: Sequence[UserId],
    note: str,
    now: int,
) -> tuple[Reference, Reference]:
    """Write the signature, and first the request unless it is there; return both places.

    Call inside `Device.transaction`. Raises RefusedError as `compose.send` does.
    """
    if request is None:
        users = tuple(sorted(set(asked)))
        asking = SignatureRequest(prepared.document, users, note)
        request = send(device, chat, asking, now, None)
    digest = prepared.document.digest
    signature = FileSignature(request, digest, prepared.cms, prepared.revision)
    return request, send(device, chat, signature, now, None)


def is_told(device: Device, prepared: Prepared) -> bool:
    """Whether a signature stands in the log here."""
    found = device.connection.execute(
        "SELECT 1 FROM mailbox WHERE substr(plaintext, 1, 2) = x'9508' AND instr(plaintext, ?)",
        (prepared.cms,),
    ).get
    return found is not None


def decline(device: Device, chat: ChatId, request: Approval, reason: str, now: int) -> Reference:
    """Write that we will not sign. Call inside `Device.transaction`. Raises UserError."""
    ours = device.profile.user.user
    standing = request.standing(ours)
    if standing is Standing.SIGNED:
        raise UserError("you have signed this already: that cannot be taken back")
    if standing is Standing.REFUSED:
        raise UserError(
            "you have declined this already; 'ivor approvals' shows it, and 'ivor sign' still signs"
        )
    if request.asked and ours not in request.asked:
        raise UserError("nobody asked you to sign this; 'ivor approvals' shows who was asked")
    refusal = SignatureRefusal(request.reference, request.document.digest, reason)
    return send(device, chat, refusal, now, None)
