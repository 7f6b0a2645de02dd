"""Officials of three agencies, with key files that open fast."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client import compose
from client.device import Device
from crypto import keyfile
from node import dialler
from protocol.entry import ChatId
from protocol.policy import ChatKind, HistoryRule, Policy, Role
from tests.client.post import Post
from tests.federation import Federation, now
from tests.realm import Realm, copied, found


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


@pytest.fixture
def dina(federation: Federation) -> Device:
    return federation.official("dina@mincifry")


@pytest.fixture
def channel(federation: Federation, anna: Device, boris: Device, vera: Device) -> ChatId:
    """Anna's channel: boris publishes too, vera reads."""
    members = [(boris.profile.user.user, Role.MEMBER), (vera.profile.user.user, Role.READER)]
    policy = Policy((federation.zone,), 0, HistoryRule.FROM_JOIN)
    with anna.transaction():
        return compose.new_chat(anna, ChatKind.CHANNEL, "", policy, members, now())


@pytest.fixture
def realm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Realm:
    """Real nodes of three agencies, which dial soon."""
    monkeypatch.setattr(dialler, "YIELD_SECONDS", 0.2)
    monkeypatch.setattr(dialler, "LOOK_SECONDS", 0.05)
    founded = found(tmp_path / "template")
    return Realm(copied(tmp_path / "template", tmp_path / "realm"), founded)
