from tests.hostile.federation import Federation
from protocol.errors import LimitExceeded


async def test_smoke(federation: Federation) -> None:
    async with federation.as_node() as wire:
        await wire.greet()
        await wire.send_raw(b"\xff\xff\xff\xff")
        error = await wire.end()
    assert error is not None
    assert error.code == LimitExceeded.code
