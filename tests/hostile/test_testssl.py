"""What `testssl.sh` says of a running node. It has no certificate, as no stranger has."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from protocol.name import split_endpoint
from tests.hostile.federation import Federation

TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh")
SECONDS_MAX = 240
CHECKS = ("--protocols", "--fs", "--server-defaults", "--renegotiation", "--compression")
FINE = {"OK", "INFO", "DEBUG"}

# Findings above INFO that are meant, and why.
EXPLAINED = {
    "engine_problem": "the machine's openssl knows no GOST, so testssl.sh can not ask for it",
    "cert_commonName": "a leaf has no subject: its name is the ivor: URI (SPEC 6.1)",
    "cert_subjectAltName": "one URI, no host name: the agency's card names the node",
    "cert_trust": "no host name is compared",
    "cert_chain_of_trust": "agencies have CAs of their own, named by their cards",
    "cert_revocation": "no CRL and no OCSP: a node's card has a newer version instead",
    "cert_crlDistributionPoints": "the same",
    "cert_ocspURL": "the same",
    "OCSP_stapling": "the same",
    "DNS_CAArecord": "there is no DNS name",
    "certificate_transparency": "no public CA",
    "FS_KEMs": "OpenSSL before 3.5 has none; content does not rest on TLS, seals are X-Wing",
    "NPN": "it does not exist in TLS 1.3",
    "cmdline_ip-target": "the node has no name in DNS, so its address is what is asked",
}


@pytest.mark.skipif(TESTSSL is None, reason="testssl.sh is missing")
async def test_testssl(federation: Federation, tmp_path: Path) -> None:
    """Case 57: TLS 1.3 and nothing else; what it finds above INFO is explained above."""
    assert TESTSSL is not None
    host, port = split_endpoint(federation.agency("north").card.nodes[0].endpoints[0])
    report = tmp_path / "testssl.json"
    command = [TESTSSL, "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none"]
    with trio.fail_after(SECONDS_MAX):
        await trio.run_process(
            [*command, "--jsonfile", str(report), *CHECKS, f"{host}:{port}"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
        )
    found = json.loads(await trio.Path(report).read_text())
    said = {one["id"]: one["finding"] for one in found}
    assert said["TLS1_3"].startswith("offered")
    for older in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"):
        assert said[older].startswith("not offered"), said[older]
    bad = {
        one["id"]: one["finding"]
        for one in found
        if one["severity"] not in FINE and one["id"].split()[0] not in EXPLAINED
    }
    assert bad == {}
