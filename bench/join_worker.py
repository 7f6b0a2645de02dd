"""A device that joins late: HOME CHAT. Reports `screen` when it can show one, `even` with all here.

The clock runs from before the connection is made, with the device's database open.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from bench.federation import PASSPHRASE
from bench.processes import EVENT_SECONDS_MAX, memory_mib, tell
from client.device import open_device
from client.link import linked
from client.mailbox import State
from client.reading import Line
from node.logs import open_log
from protocol.entry import ChatId


async def main(home: Path, chat: ChatId) -> None:
    """Look at a chat until all of it is here."""
    open_log(sys.stderr, "text", "warning")
    device = open_device(home, PASSPHRASE, os.urandom)
    begun = time.monotonic()

    def show(lines: Sequence[Line]) -> None:
        readable = sum(line.letter.state is State.OPEN for line in lines)
        tell("screen", seconds=time.monotonic() - begun, lines=len(lines), readable=readable)

    async with linked(device) as link:
        await link.preview(chat, show)
        await link.settle(EVENT_SECONDS_MAX)
    tell(
        "even",
        seconds=time.monotonic() - begun,
        peak_mib=memory_mib("VmHWM"),
    )
    device.close()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), ChatId(bytes.fromhex(sys.argv[2])))
