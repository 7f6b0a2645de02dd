"""The works of these tests, filmed once, and nothing of what they log."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.crash.points import Film, record, scratch
from tests.crash.work import DeviceWork, NodeWork, Work
from tests.hostile import federation as made
from tests.hostile.federation import Founded


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def films(base: Path) -> dict[str, Film]:
    with structlog.testing.capture_logs():
        works: dict[str, Work] = {"node": NodeWork(), "device": DeviceWork(base / "federation")}
        return {name: record(work, base) for name, work in works.items()}


@pytest.fixture(scope="session")
def template(base: Path) -> tuple[Path, Founded]:
    """A federation: each test works on a copy of its folders."""
    folder = base / "template"
    folder.mkdir()
    with structlog.testing.capture_logs():
        return folder, made.found(folder)


@pytest.fixture(autouse=True)
def events() -> Iterator[list[structlog.typing.EventDict]]:
    """What is logged."""
    with structlog.testing.capture_logs() as captured:
        yield captured
