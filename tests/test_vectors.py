"""Every vector against the implementation, from the bytes in the files alone."""

import json
from collections.abc import Mapping
from typing import Final

import pytest

import crypto.errors
import protocol.errors
from protocol import epoch
from tests.make_vectors import FILES, text_of
from tests.vector_checks import CHECKS
from tests.vector_inputs import Inputs
from tests.vectors import FOLDER, Case, as_json

ERRORS: Final[Mapping[str, type[Exception]]] = {
    error.__name__: error
    for module in (protocol.errors, crypto.errors, epoch)
    for error in vars(module).values()
    if isinstance(error, type) and issubclass(error, Exception)
}

# What the decoders of a file can raise: each must be shown to be raised.
RAISED: Final[Mapping[str, set[str]]] = {
    "encoding": {"NotCanonical", "LimitExceeded"},
    "entries": {"NotCanonical", "LimitExceeded", "Unauthentic"},
    "covers": {"NotCanonical", "LimitExceeded", "Unauthentic"},
    "forks": {"NotCanonical", "LimitExceeded", "Unauthentic"},
    "runs": {"NotCanonical", "LimitExceeded", "Unauthentic"},
    "operations": {"NotCanonical", "LimitExceeded", "Unauthentic", "Untrusted", "Inadmissible"},
    "membership": {"Inadmissible"},
    "admission": {"Inadmissible", "NotCanonical", "Untrusted"},
    "redactions": set(),
    "schedule": {"BadSeal", "SealRefused"},
    "content": {"ContentRefused"},
    "messages": {"NotCanonical", "LimitExceeded"},
    "order": set(),
    "names": {"NotCanonical", "LimitExceeded", "Untrusted"},
    "identity": {"NotCanonical", "LimitExceeded", "Untrusted"},
    "keys": {"KeyFileRefused"},
    "archives": {"NotCanonical", "LimitExceeded", "Untrusted"},
    "backups": {"NotCanonical", "LimitExceeded", "Unauthentic", "Untrusted"},
    "grants": {"NotCanonical", "LimitExceeded", "Unauthentic", "Untrusted"},
    "blobs": {"ContentRefused", "Unauthentic"},
    "invitations": {"NotCanonical", "LimitExceeded", "Untrusted"},
    "frames": {"NotCanonical", "LimitExceeded"},
    "reconciliations": {"OutOfTurn", "LimitExceeded"},
    "rings": set(),
    "questions": {"NotCanonical", "LimitExceeded", "Untrusted"},
    "answers": {"NotCanonical", "LimitExceeded"},
    "directories": {"NotCanonical", "LimitExceeded", "Untrusted", "Unauthentic"},
}


def cases(name: str) -> list[Case]:
    found: list[Case] = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return found


def all_cases() -> list[tuple[str, Case]]:
    return [(name, case) for name in FILES for case in cases(name)]


@pytest.mark.parametrize(
    ("file", "case"), [pytest.param(f, c, id=f"{f}: {c['name']}") for f, c in all_cases()]
)
def test_vector(file: str, case: Case) -> None:
    check = CHECKS[file]
    if "error" not in case:
        assert as_json(check(Inputs(case))) == case["result"]
        return
    with pytest.raises(ERRORS[str(case["error"])]) as caught:
        check(Inputs(case))
    assert caught.type.__name__ == case["error"]


@pytest.mark.parametrize("file", FILES)
def test_every_error_has_a_case(file: str) -> None:
    assert {case["error"] for case in cases(file) if "error" in case} == RAISED[file]


@pytest.mark.parametrize("file", FILES)
def test_case_names_tell_cases_apart(file: str) -> None:
    names = [case["name"] for case in cases(file)]
    assert len(set(map(str, names))) == len(names)


@pytest.mark.parametrize("file", FILES)
def test_files_are_what_is_made(file: str) -> None:
    assert (FOLDER / f"{file}.json").read_text() == text_of(file)


def test_no_other_files() -> None:
    expected = {f"{name}.json" for name in FILES} | {
        "README.md",
        "inputs.json",
        "mldsa.json",
        "evidence",
    }
    assert {path.name for path in FOLDER.iterdir()} == expected
