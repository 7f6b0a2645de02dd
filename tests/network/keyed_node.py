"""`ivor`, as it is installed, whose TLS keys go to the file IVOR_TEST_KEYS names, for `tshark`."""

import os
import ssl
from collections.abc import Iterable

from cli.main import run
from node import tls
from node.tls import Credential

make = tls._context


def keyed(protocol: int, credential: Credential, authorities: Iterable[bytes]) -> ssl.SSLContext:
    """Make a context as the node does, and write down its keys."""
    context = make(protocol, credential, authorities)
    context.keylog_filename = os.environ["IVOR_TEST_KEYS"]
    return context


if __name__ == "__main__":
    tls._context = keyed
    run()
