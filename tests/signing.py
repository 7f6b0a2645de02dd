"""Officials' certificates without a node, PDF files made by hand, and verifiers not of ours."""

import os
import shutil
import ssl
import subprocess
import time
from io import BytesIO
from pathlib import Path

import pytest
from pyhanko.pdf_utils.generic import StreamObject
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.writer import PageObject, PdfFileWriter
from pyhanko.sign.signers.pdf_cms import Signer

from client.device import Device
from client.signing_keys import SigningKey, SoftKey, keep_certificate, own_key
from crypto import certificate, signatory
from node import agency as agencies
from tests.federation import Federation

NOW = time.time()
CA_KEY = certificate.make_key()
CA = certificate.authority(CA_KEY, "ab" * 32, NOW, certificate.AUTHORITY_DAYS, 1)
CA_DER = ssl.PEM_cert_to_DER_cert(CA.decode())


def signer(name: str, now: float) -> Signer:
    """What an official signs with who was certified at a time."""
    key = certificate.make_key()
    subject = signatory.Subject(name, "minzdrav", b"u" * 32)
    leaf = signatory.certify(CA, CA_KEY, key, subject, now=now, days=9, serial=7)
    return SoftKey(key).signer(ssl.PEM_cert_to_DER_cert(leaf.decode()), CA_DER)


def certify(
    federation: Federation, device: Device, key: SigningKey | None = None, at: float | None = None
) -> bytes:
    """Do what the node does for a device that asks: certify its signing key, DER."""
    agency = federation.agencies[device.profile.charter.name]
    with device.transaction():
        chosen = own_key(device) if key is None else key
        pem = agencies.signing_certificate(
            agency, device.profile.user, chosen.public(), at or time.time(), os.urandom
        )
        return keep_certificate(device, chosen, pem)


def make_pdf(password: str | None = None) -> bytes:
    """A PDF of one empty page."""
    writer = PdfFileWriter()
    contents = writer.add_object(StreamObject(stream_data=b"BT ET"))
    writer.insert_page(PageObject(contents=contents, media_box=(0, 0, 200, 200)))
    if password is not None:
        writer.encrypt(owner_pass=password, user_pass=password)
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def with_other_text(data: bytes) -> bytes:
    """The PDF with another text on its page, as an incremental update."""
    writer = IncrementalPdfFileWriter(BytesIO(data))
    page = writer.root["/Pages"]["/Kids"][0]
    page["/Contents"] = writer.add_object(StreamObject(stream_data=b"(forged) Tj"))
    writer.update_container(page)
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def tool(name: str, package: str) -> str:
    """The path of a program of Debian's; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: apt install {package} (.ci/packages does)")
    return found


def openssl_accepts(cms: Path, content: Path, authority: Path) -> bool:
    """Whether `openssl cms -verify` accepts a detached signature, given the CA."""
    command = [tool("openssl", "openssl"), "cms", "-verify", "-binary", "-inform", "DER"]
    command += ["-in", str(cms), "-content", str(content), "-CAfile", str(authority)]
    return run([*command, "-out", os.devnull]).returncode == 0


def pdfsig(file: Path, authority: Path, folder: Path) -> str:
    """What `pdfsig` says of a PDF, given the CA in a database of its own."""
    certutil = tool("certutil", "libnss3-tools")
    program = tool("pdfsig", "poppler-utils")
    folder.mkdir()
    run([certutil, "-N", "-d", f"sql:{folder}", "--empty-password"], check=True)
    trust = [certutil, "-A", "-d", f"sql:{folder}", "-n", "ca", "-t", ",C,", "-i", str(authority)]
    run(trust, check=True)
    return run([program, "-nssdir", f"sql:{folder}", str(file)]).stdout


def run(command: list[str], *, check: bool = False) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)
