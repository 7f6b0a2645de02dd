"""How hard hypothesis looks, one process's log for each test, and one thread.

Profiles: `default` at a desk, `ci` on every change, `deep` when hunting, `mutants` for planted
bugs: there a failure is wanted, not its smallest example.

Choose with IVOR_HYPOTHESIS=deep. No profile has a deadline: no timing decides a test.
"""

import math
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from node import journal

SLOW_MACHINES_ARE_FINE = (HealthCheck.too_slow,)

settings.register_profile(
    "default",
    max_examples=50,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=SLOW_MACHINES_ARE_FINE,
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=100)
settings.register_profile("deep", settings.get_profile("default"), max_examples=5_000)
settings.register_profile(
    "mutants",
    settings.get_profile("ci"),
    phases=(Phase.explicit, Phase.generate),
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
)
settings.load_profile(
    os.environ.get("IVOR_HYPOTHESIS") or ("ci" if "CI" in os.environ else "default")
)


@pytest.fixture(autouse=True)
def _commits_in_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests look into databases of sessions that run, which a COMMIT in a thread would have."""
    monkeypatch.setattr(journal, "SMALL_CHANGES_MAX", math.inf)
    monkeypatch.setattr(journal, "SMALL_SECONDS_MAX", math.inf)


@pytest.fixture(autouse=True)
def _log_of_one_test() -> Iterator[None]:
    """A command sets up the log of its process; the next test must not inherit that."""
    yield
    structlog.reset_defaults()
