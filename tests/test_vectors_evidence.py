"""The files of vectors/evidence against the implementation, from their bytes alone (SPEC 5.10)."""

import json

import pytest

from protocol.evidence import EvidenceRefused, check
from protocol.lane import Rule
from tests import vectors_evidence as evidence
from tests import vectors_exhibits as exhibits
from tests.vectors import Case, Json, as_json


def cases() -> list[Case]:
    found: list[Case] = json.loads((evidence.FILES / "index.json").read_text())["cases"]
    return found


def anchors_of(case: Case) -> dict[str, str]:
    found = case["anchors"]
    assert isinstance(found, dict)
    return {name: str(shown) for name, shown in found.items()}


def outcome(case: Case) -> Json:
    raw = (evidence.FILES / str(case["file"])).read_bytes()
    anchors = anchors_of(case)
    try:
        check(raw, anchors)
    except EvidenceRefused as refused:
        return [refused.offset, str(refused.rule)]
    return as_json(evidence.result(exhibits.Exhibit("", raw, anchors, None, None)))


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["name"]))
def test_each_file(case: Case) -> None:
    wanted = case["result"] if "result" in case else [case["offset"], case["rule"]]
    assert outcome(case) == wanted


def test_every_rule_is_shown() -> None:
    assert {str(case["rule"]) for case in cases() if "rule" in case} == {str(one) for one in Rule}


def test_files_are_what_is_made() -> None:
    made = {evidence.file_name(one): one.raw for one in evidence.exhibits()}
    assert {path.name: path.read_bytes() for path in evidence.FILES.iterdir()} == made | {
        "index.json": evidence.index().encode()
    }
