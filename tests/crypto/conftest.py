"""Where the vectors of other projects are read from."""

from collections.abc import Callable
from pathlib import Path

import pytest

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors"


@pytest.fixture(scope="session")
def vector_bytes() -> Callable[[str], bytes]:
    """Read one vector file, or skip the test where the files are absent."""

    def read(name: str) -> bytes:
        path = VECTORS / name
        if not path.exists():
            pytest.skip(f"no {name} beside this checkout")
        return path.read_bytes()

    return read
