"""The works of these tests, filmed once, and nothing of what they log."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.crash.points import Film, record, scratch
from tests.crash.work import DeviceWork, NodeWork, Work


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def films(base: Path) -> dict[str, Film]:
    with structlog.testing.capture_logs():
        works: dict[str, Work] = {"node": NodeWork(), "device": DeviceWork(base / "federation")}
        return {name: record(work, base) for name, work in works.items()}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield
