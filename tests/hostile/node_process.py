"""Run one node of a test's federation as a process of its own, to be killed at any moment.

python -m tests.hostile.node_process FOLDER        prints one line when it listens
"""

import sys
from pathlib import Path

import pytest
import trio

from node.agency import open_agency
from node.config import Loaded
from node.logs import open_log
from node.service import serve
from tests.guarded import guard_databases
from tests.hostile.federation import PASSPHRASE, settings


def main() -> None:
    folder = Path(sys.argv[1])
    open_log(sys.stderr, "text", "info")
    loaded = Loaded(settings(open_agency(folder, PASSPHRASE)), {})
    guard_databases(pytest.MonkeyPatch())
    trio.run(serve, folder, loaded, PASSPHRASE, lambda host, port: print(host, port, flush=True))


if __name__ == "__main__":
    main()
