"""`ivor log verify`: a long chat that a device has received and opened, derived again from bytes.

The time is that of `client.audit`, without the start of a process and without argon2id.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.federation import Site, founded, milliseconds, opened
from bench.figures import Line, calibrate, lines_of, progress
from bench.history import hand_over, new_chat, write
from client import mailbox
from client.arrivals import take_in
from client.audit import audit
from protocol.entry import ChatId
from protocol.errors import UsageError

NAME = "verify"
UNITS = {"time": "s", "rate": "entries/s"}


def measure(sizes: Sequence[int], runs: int) -> list[Line]:
    """Measure chats of these numbers of messages, all of them opened."""
    found: list[Line] = []
    for size in sizes:
        with TemporaryDirectory(prefix="ivor-bench-") as folder:
            source, target = founded(Path(folder))
            progress(f"{NAME}: writing {size:,} messages")
            chat = _received(source, target, size)
            calib_s = calibrate()
            progress(f"{NAME}: {size:,} messages")
            results = [_run(target, chat) for _ in range(runs)]
        found += lines_of(NAME, f"{size:,} messages", UNITS, results, calib_s)
    return found


def _received(source: Site, target: Site, size: int) -> ChatId:
    with closing(opened(source)) as writer, closing(opened(target)) as reader:
        chat = new_chat(writer, [reader.profile.user.user])
        write(writer, chat, size)
        hand_over(writer, chat, reader.replica, lambda one: mailbox.deliver(reader, [one]))
        with reader.transaction():
            take_in(reader, milliseconds())
    return chat


def _run(site: Site, chat: ChatId) -> dict[str, float]:
    with closing(opened(site)) as device:
        begun = time.perf_counter()
        result = audit(device, chat, lambda _: None)
        seconds = time.perf_counter() - begun
    if result.faults or not result.messages:
        raise UsageError(f"the log does not hold: {result.faults[:1]}")
    return {"time": seconds, "rate": (result.control + result.content) / seconds}
