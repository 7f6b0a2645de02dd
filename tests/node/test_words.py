"""Numbers, times and reasons in what people read."""

from pathlib import Path

import pytest

from node.words import counted, lasting, reason


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (2, "2 bytes"), (-1, "-1 bytes"), (4096, "4,096 bytes")],
)
def test_one_and_more(number: int, said: str) -> None:
    assert counted(number, "byte") == said


def test_another_plural() -> None:
    said = [counted(number, "agency", "agencies") for number in (1, 2)]
    assert said == ["1 agency", "2 agencies"]


def test_how_long() -> None:
    said = [lasting(seconds) for seconds in (1, 90, 360, 3600, 30 * 86400)]
    assert said == ["1 second", "90 seconds", "6 minutes", "1 hour", "30 days"]


def test_why_a_file_is_not_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "letters").write_bytes(b"\xff")
    said = []
    for name in ("none", "letters", ""):
        with pytest.raises((OSError, UnicodeError)) as caught:
            (tmp_path / name).read_text("utf-8")
        said.append(reason(caught.value))
    assert [*said, reason(OSError("odd"))] == [
        "No such file or directory",
        "it is not text",
        "Is a directory",
        "odd",
    ]
