"""SPEC 5.8, in a PDF: signatures are added to the file of the request, and nothing else is."""

from functools import cache
from hashlib import sha256

import pytest

from client import pdf
from node.errors import EvidenceError, UserError
from tests.signing import NOW, make_pdf, signer, with_other_text


@cache
def original() -> bytes:
    return make_pdf()


@cache
def signed(times: int) -> bytes:
    before = original() if times == 1 else signed(times - 1)
    return pdf.sign(before, signer("anna", NOW), pdf.free_field(before), "anna@minzdrav")


def check(data: bytes) -> None:
    pdf.check_continues(data, len(original()), sha256(original()).digest())


def test_signatures_may_be_added() -> None:
    for data in (original(), signed(1), signed(2)):
        check(data)
    assert [one.name for one in pdf.examine(signed(2))] == ["anna@minzdrav"] * 2
    assert signed(2).startswith(signed(1))


def test_another_text_may_not_whoever_signs_it() -> None:
    """Also not by the first signer, before whom there is no signature to compare with."""
    forged = with_other_text(original())
    again = pdf.sign(forged, signer("anna", NOW), pdf.free_field(forged), "anna@minzdrav")
    for data in (forged, again, with_other_text(signed(1))):
        with pytest.raises(EvidenceError, match="more than signatures"):
            check(data)
    assert pdf.examine(again), "the signature itself holds: it is over another document"


def test_another_file_is_not_continued() -> None:
    with pytest.raises(EvidenceError, match="does not begin"):
        check(original().replace(b"200", b"300", 1))


def test_a_broken_signature_is_named() -> None:
    with pytest.raises(EvidenceError, match="anna@minzdrav in the PDF does not verify"):
        pdf.examine(signed(1).replace(b"200", b"300", 1))


@pytest.mark.parametrize("size", [0, 10, 300, 600])
def test_a_truncated_file_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="damaged"):
        pdf.examine(original()[:size])
