"""Servers of others: started with their configuration, waited for, ended with the block."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers.installing import NotHere, run

READY_SECONDS_MAX = 180.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = 0.1
DAYS = "30"


@contextmanager
def served(
    command: Sequence[str], folder: Path, address: tuple[str, int], environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server until the block ends; it listens at the address when the block begins."""
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _wait(process, address, folder / "output")
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], address: tuple[str, int], output: Path) -> None:
    until = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return
        time.sleep(POLL_SECONDS)
    raise NotHere(f"{address} does not listen: {output.read_text(errors='replace')[-500:]}")


def certify(folder: Path, names: Sequence[str]) -> None:
    """Make a CA, `ca.pem`, and a certificate with its key for each host, `NAME.pem`."""
    if (folder / "ca.pem").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    made = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem")]
    run([*new, "-x509", "-days", DAYS, "-subj", "/CN=bench", *made])
    for name in names:
        key, asked, signed = (folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        run([*new, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(asked)])
        (folder / "names").write_text(f"subjectAltName=DNS:{name}")
        by = ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial"]
        more = ["-days", DAYS, "-extfile", str(folder / "names")]
        run(["openssl", "x509", "-req", "-in", str(asked), "-out", str(signed), *by, *more])
        (folder / f"{name}.pem").write_text(signed.read_text() + key.read_text())
