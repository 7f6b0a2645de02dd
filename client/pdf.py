"""Signatures inside PDF files: PAdES B-B, one after the other, by incremental updates (SPEC 5.8).

    found = examine(data)                            # who has signed it; raises for what is unfit
    signed = sign(data, signer, "Ivor 1", "anna@minzdrav")
    check_continues(signed, len(data), digest)       # signatures were added, and nothing else

pyHanko reads and writes the files. What it calls suspicious is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from pyhanko.pdf_utils.generic import ArrayObject, DictionaryObject, NameObject, NumberObject
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.diff_analysis import (
    DEFAULT_DIFF_POLICY,
    DiffResult,
    ModificationLevel,
    StandardDiffPolicy,
    SuspiciousModification,
)
from pyhanko.sign.fields import MDPPerm, SigSeedSubFilter
from pyhanko.sign.general import SigningError
from pyhanko.sign.signers import PdfSignatureMetadata, PdfSigner
from pyhanko.sign.signers.pdf_cms import Signer
from pyhanko.sign.validation.generic_cms import validate_sig_integrity
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko.sign.validation.status import SignatureCoverageLevel

from client.cms import DIGEST_ALGORITHM
from node.errors import EvidenceError, IvorError, RefusedError, UserError

HEADER = b"%PDF-"
HEADER_WITHIN = 1024  # bytes; what readers accept
_DETACHED = "save a copy that can be signed, or sign it as it is with --detached"


_SIGNATURES_EXIST, _APPEND_ONLY = 1, 2  # ISO 32000-1, table 219
_BUT_FORMS = StandardDiffPolicy(DEFAULT_DIFF_POLICY.global_rules, None)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A signature in a PDF that is intact; whether to trust its certificate is not said."""

    name: str
    certificate: bytes


def is_pdf(data: bytes, name: str) -> bool:
    """Whether a file is, or says to be, a PDF."""
    return HEADER in data[:HEADER_WITHIN] or name.lower().endswith(".pdf")


def examine(data: bytes) -> tuple[Embedded, ...]:
    """Return who has signed a PDF that one more signature may be put into.

    Raises UserError (encrypted, damaged), RefusedError (certified against changes),
    EvidenceError (a signature in it is broken).
    """
    with _reading():
        reader = PdfFileReader(BytesIO(data))
        if reader.encrypted:
            raise UserError(f"the PDF is encrypted: {_DETACHED}")
        pages = reader.root["/Pages"]["/Count"]
        found = list(reader.embedded_signatures)
        if int(pages) < 1:
            raise UserError(f"the PDF has no pages: {_DETACHED}")
        return tuple(_intact(one) for one in found)


def sign(data: bytes, signer: Signer, field: str, name: str) -> bytes:
    """Return the PDF with one more signature. field: of the form, not taken yet. name: the signer.

    Raises UserError, or RefusedError if an earlier signature forbids it.
    """
    metadata = PdfSignatureMetadata(
        field_name=field,
        md_algorithm=DIGEST_ALGORITHM,
        subfilter=SigSeedSubFilter.PADES,
        name=name,
    )
    with _reading():
        writer = IncrementalPdfFileWriter(BytesIO(_with_form(data)))
        signed = PdfSigner(metadata, signer=signer).sign_pdf(writer, output=BytesIO())
        return bytes(signed.getvalue())


def free_field(data: bytes) -> str:
    """Return the name of a signature field that the PDF does not have yet."""
    with _reading():
        taken = {one.field_name for one in PdfFileReader(BytesIO(data)).embedded_signatures}
    return next(name for number in range(len(taken) + 1) if (name := f"Ivor{number}") not in taken)


def check_continues(data: bytes, size: int, digest: bytes) -> None:
    """Check that a PDF is a file of this size and SHA-256, to which only signatures were added.

    Raises EvidenceError, or UserError if it is damaged.
    """
    if sha256(data[:size]).digest() != digest:
        raise EvidenceError("the PDF does not begin with the file that was to be signed")
    if len(data) == size:
        return
    with _reading():
        before = PdfFileReader(BytesIO(data[:size])).xrefs.total_revisions
        reader = PdfFileReader(BytesIO(data))
        signatures = {one.field_name for one in reader.embedded_signatures}
        difference = _difference(reader, before - 1)
    if (
        not isinstance(difference, DiffResult)
        or difference.modification_level > ModificationLevel.FORM_FILLING
        or not difference.changed_form_fields <= signatures
    ):
        raise EvidenceError("more than signatures was added to the PDF that was to be signed")


def _with_form(data: bytes) -> bytes:
    """Give a PDF the form that signatures stand in, as a revision of its own.

    So the revision of the first signature has one before it that pyHanko can compare it with.
    """
    writer = IncrementalPdfFileWriter(BytesIO(data))
    form = _form_for_signatures(writer.root)
    if writer.root.get("/AcroForm") == form:
        return data
    writer.root["/AcroForm"] = form
    writer.update_root()
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def _form_for_signatures(root: DictionaryObject) -> DictionaryObject:
    """Return the form of a catalog, an empty one if it has none, with the flags for signatures."""
    empty = {NameObject("/Fields"): ArrayObject()}
    flags = {NameObject("/SigFlags"): NumberObject(_SIGNATURES_EXIST + _APPEND_ONLY)}
    return DictionaryObject(dict(root.get("/AcroForm") or empty) | flags)


def _difference(reader: PdfFileReader, base: int) -> DiffResult | SuspiciousModification | None:
    """Compare with an earlier revision; None if another form began there than for signatures."""
    try:
        old = reader.get_historical_resolver(base)
        form = _form_for_signatures(old.root)
        if old.root.get("/AcroForm") == form:
            return DEFAULT_DIFF_POLICY.review_file(reader, base)
        new = reader.get_historical_resolver(base + 1)
        _BUT_FORMS.apply(old, new)
        if new.root.raw_get("/AcroForm") != form:
            return None
        return DEFAULT_DIFF_POLICY.review_file(reader, base + 1)
    except SuspiciousModification as suspicious:
        return suspicious


@contextmanager
def _reading() -> Iterator[None]:
    """Tell what is wrong with a file, whatever the parser raises at it."""
    try:
        yield
    except IvorError:
        raise
    except SigningError as error:
        raise RefusedError(f"the PDF does not take the signature: {error}") from None
    except Exception as error:  # noqa: BLE001 - a parser of such files raises anything
        raise UserError(f"the PDF is damaged ({error}): {_DETACHED}") from None


def _intact(embedded: EmbeddedPdfSignature) -> Embedded:
    name = str(embedded.signer_cert.subject.native.get("common_name", "somebody"))
    if embedded.docmdp_level is MDPPerm.NO_CHANGES:
        raise RefusedError(f"{name} has certified the PDF and forbidden changes: {_DETACHED}")
    embedded.compute_integrity_info()
    intact, valid = validate_sig_integrity(
        embedded.signer_info, embedded.signer_cert, "data", embedded.compute_digest()
    )
    if not (intact and valid):
        raise EvidenceError(f"the signature of {name} in the PDF does not verify")
    found = embedded.summarise_integrity_info()
    covered = (SignatureCoverageLevel.ENTIRE_FILE, SignatureCoverageLevel.ENTIRE_REVISION)
    if found["coverage"] not in covered or found["docmdp_ok"] is False:
        raise EvidenceError(f"the PDF was changed after {name} signed it")
    return Embedded(name, bytes(embedded.signer_cert.dump()))
