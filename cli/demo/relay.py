"""The network between the demo's agencies: passes bytes on, or holds them back.

Each node listens on a loopback address of its own and dials from it, so a relay knows whose link it
carries, and nobody gets past it: cards name the relays alone. A link that is cut swallows nothing:
the bytes wait, as a sender's TCP would keep them, until it is back.
"""

from dataclasses import dataclass, field

import trio

RELAY_HOST = "127.0.0.1"


@dataclass(slots=True)
class Network:
    """Which node is cut off; by the loopback address it dials from."""

    cut: str | None = None
    changed: trio.Event = field(default_factory=trio.Event)

    def cut_off(self, node: str) -> None:
        """Cut all links of one node to the others."""
        self.cut = node

    def restore(self) -> None:
        """Let everything through again."""
        self.cut = None
        self.changed.set()
        self.changed = trio.Event()

    async def passes(self, one: str, other: str) -> None:
        """Return as soon as bytes may pass between two addresses."""
        while self.cut in (one, other) and _is_node(one) and _is_node(other):
            await self.changed.wait()


def _is_node(address: str) -> bool:
    return address != RELAY_HOST


async def relay(network: Network, node: str, listener: trio.SocketListener, port: int) -> None:
    """Pass connections on to the node at this loopback address and port."""

    async def carry(near: trio.SocketStream) -> None:
        source = near.socket.getpeername()[0]
        await network.passes(source, node)
        try:
            far = await trio.open_tcp_stream(node, port)
            async with near, far, trio.open_nursery() as nursery:

                async def one_way(take: trio.SocketStream, give: trio.SocketStream) -> None:
                    async for chunk in take:
                        await network.passes(source, node)
                        await give.send_all(chunk)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(one_way, near, far)
                nursery.start_soon(one_way, far, near)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one side went away: so does the other

    await trio.serve_listeners(carry, [listener])
