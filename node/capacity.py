"""What a node needs of its process: open files, no long pauses, no unused memory."""

import ctypes
import gc
import resource
import time

import trio

from node.config import Settings

FILES_BESIDE = 256  # database, log, control socket, listeners, dialling out; guess
COLLECTIONS = (10_000, 10, 1_000)  # new objects, then young and middle collections; guess
TIDY_SECONDS = 60.0  # guess
TIDY_SHARE = 0.0005  # of the time, which the node may spend on it; guess


def files_wanted(settings: Settings) -> int:
    """Return how many files a node with these settings may have open at once."""
    return settings.connections_max + FILES_BESIDE


def allow_files(settings: Settings) -> int:
    """Raise our limit of open files to what may be needed; return what is lacking even then.

    The soft limit that a login gives is 1,024, for programs that know no better way than select.
    """
    wanted = files_wanted(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(0, wanted - allowed)


def collect_rarely() -> None:
    """Have Python look through all its objects for garbage some times an hour.

    With 2,000 sessions that stops the node for half a second, and Python's own choice is every few
    seconds. Nearly all that goes, goes without it: by reference counts.
    """
    gc.set_threshold(*COLLECTIONS)


async def keep_small() -> None:
    """Give back memory that nobody uses any more, again and again, for ever.

    An ended session is a ring of objects, because a TLS stream of trio refers to itself, and holds
    some 60 KiB. Only a look through all objects finds one that was old when it ended; with 2,000
    sessions that takes a third of a second, so it is made as often as that allows. Frames come and
    go among what stays: glibc gives back no hole by itself, and new frames do not fit in all of
    them. Other C libraries have nothing to call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    rest = TIDY_SECONDS
    while True:
        await trio.sleep(rest)
        begun = time.thread_time()
        gc.collect()
        rest = max(TIDY_SECONDS, (time.thread_time() - begun) / TIDY_SHARE)
        if trim is not None:
            await trio.to_thread.run_sync(trim, 0)
