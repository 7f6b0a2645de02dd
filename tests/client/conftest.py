"""Officials of three agencies, with key files that open fast."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.device import Device
from crypto import keyfile
from protocol.entry import ChatId
from tests.client.post import Post
from tests.federation import Federation


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    monkeypatch.setattr(keyfile, "MEMORY_KIB", keyfile.MEMORY_KIB_MIN)
    monkeypatch.setattr(keyfile, "PASSES", 1)
    made = Federation(tmp_path)
    yield made
    made.close()


@pytest.fixture
def anna(federation: Federation) -> Device:
    return federation.official("anna@minzdrav")


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anna: Device) -> Post:
    return Post(tmp_path, monkeypatch, anna)


@pytest.fixture
def boris(federation: Federation) -> Device:
    return federation.official("boris@mincifry")


@pytest.fixture
def vera(federation: Federation) -> Device:
    return federation.official("vera@mincifry")


@pytest.fixture
def chat(federation: Federation, anna: Device, boris: Device) -> ChatId:
    """A chat of anna and boris, with a message; tests with more in it make their own."""
    made = federation.chat(anna, "Budget", boris)
    federation.say(anna, made, "before")
    federation.carry(anna, boris)
    return made
