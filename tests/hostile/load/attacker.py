"""The attacker as a process of its own: BASE CHAT. It has the lowest priority of all.

It reports `ready`, then obeys its stdin: the name of an attack, or `stop`.
"""

import os
import sys
from pathlib import Path

import structlog
import trio

from bench.processes import tell
from node.agency import open_agency
from protocol.entry import CONTENT, ChatId
from protocol.frame import authentic
from tests.hostile.federation import PASSPHRASE, open_device, wire
from tests.hostile.load.attacks import ATTACKS, HISTORY, Ground, prepared

NICENESS = 19


async def prepare(ground: Ground) -> None:
    """Give the target the history that is asked for later, and keep it here."""
    device = ground.device
    if len(ground.forger.chain(CONTENT).entries) > HISTORY:
        return
    async with wire(ground.target, ground.credential) as opened:
        await opened.greet()
        for run in prepared(ground.forger):
            await opened.send(run)
            with device.transaction():
                device.replica.append(run, authentic(run))
        await opened.quiet(1.0)


async def main(base: Path, chat: ChatId) -> None:
    """Obey stdin until it ends."""
    os.nice(NICENESS)
    device = open_device(base, "mallory")
    ground = Ground(open_agency(base / "north", PASSPHRASE), device, chat)
    await prepare(ground)
    tell("ready")
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        async for raw in trio.lowlevel.FdStream(os.dup(0)):
            for line in raw.decode().splitlines():
                scope.cancel()
                scope = trio.CancelScope()
                if line in ATTACKS:
                    nursery.start_soon(attack, ground, line, scope)
    device.close()


async def attack(ground: Ground, name: str, scope: trio.CancelScope) -> None:
    """Attack until told to stop."""
    with scope:
        await ATTACKS[name](ground)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, Path(sys.argv[1]), ChatId(bytes.fromhex(sys.argv[2])))
