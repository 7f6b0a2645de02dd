"""An official's device that writes without a pause, as a process of its own, to be killed at will.

python -m tests.crash.writer FOLDER CHAT      prints `seq id` of each message once it is durable
"""

import os
import sys
from functools import partial
from pathlib import Path

import structlog
import trio

from client import compose
from client.device import Device, open_device
from client.link import linked
from node.errors import NetworkError
from protocol.entry import ChatId
from protocol.message import Text
from tests.hostile.federation import PASSPHRASE, now

AGAIN_SECONDS = 0.05


async def write_on(device: Device, chat: ChatId) -> None:
    """Write, with a node or without one, for ever."""
    message = Text("under load", None)
    while True:
        try:
            async with linked(device) as link:
                while not link.ended.is_set():
                    send = partial(compose.send, device, chat, message, now(), None)
                    written = await link.write(send)
                    print(written.seq, written.id.hex(), flush=True)
        except NetworkError:
            with device.transaction():
                written = compose.send(device, chat, message, now(), None)
            print(written.seq, written.id.hex(), flush=True)
            await trio.sleep(AGAIN_SECONDS)


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    device = open_device(Path(sys.argv[1]), PASSPHRASE, os.urandom)
    trio.run(write_on, device, ChatId(bytes.fromhex(sys.argv[2])))


if __name__ == "__main__":
    main()
