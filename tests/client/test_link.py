"""A node that hangs up: what its device's owner is told."""

import pytest
import trio
from trio.testing import memory_stream_pair

from client.device import Device
from client.link import over
from node.errors import NetworkError


async def test_before_its_greeting_a_device_may_be_revoked(anna: Device) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    async with over(anna, ours) as link:
        with pytest.raises(NetworkError, match="may be revoked"):
            await link.settle(1)


async def test_a_reset_says_the_same(anna: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written can meet a closed connection before the end of what is read is seen."""
    ours, theirs = memory_stream_pair()

    async def reset(_bytes_max: int) -> bytes:
        raise trio.BrokenResourceError("reset")

    monkeypatch.setattr(ours, "receive_some", reset)
    async with over(anna, ours) as link:
        with pytest.raises(NetworkError, match="may be revoked"):
            await link.settle(1)
    await trio.aclose_forcefully(theirs)
