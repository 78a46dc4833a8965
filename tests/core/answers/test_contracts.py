"""Whether answers keep what consumers rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.answers.contracts import answer_from_body, broken_by, check_expected, expected_answer
from marway.answers.golden import GoldenAnswer
from marway.errors import InvalidInput
from marway.protection.contracts import Contract, check_consumer, check_contract_name
from marway.records import utc_now

EXPECTED = {"label": "alarm", "scores": [{"label": "alarm", "score": 0.9}, {"label": "timer", "score": 0.1}]}


def contract(value: Any = EXPECTED, **facts: Any) -> Contract:
    given = {"consumer": "search", "name": "alarm", "input_b64": "eA==", "content_type": "text/plain", "by": "ana"}
    return Contract.model_validate({**given, "kind": "json", "value": value, "at": utc_now(), **facts})


def came(value: Any, *, status: int = 200) -> GoldenAnswer:
    return answer_from_body(json.dumps(value).encode(), "application/json", status=status)


@pytest.mark.parametrize(
    ("facts", "got", "why"),
    [
        ({}, EXPECTED, None),
        ({}, {**EXPECTED, "model": "2.0"}, None),  # who reads an answer passes over what it does not know
        ({}, {**EXPECTED, "label": "timer"}, 'at label: "alarm" was expected, "timer" came'),
        ({}, {"label": "alarm"}, "'scores' was expected and is missing"),
        ({"fields": ("label",)}, {"label": "alarm"}, None),
        ({"fields": ("label", "scores[0].score")}, {"label": "alarm"}, "scores[0].score: 0.9 was expected, null came"),
        ({"fields": ("scores[].score",), "tolerance": 0.05}, {"scores": [{"score": 0.93}, {"score": 0.07}]}, None),
        (
            {"fields": ("scores[].score",)},
            {"scores": [{"score": 0.93}]},
            "scores[].score: 2 items were expected, 1 came",
        ),
        ({"match": "types"}, {"label": "x", "scores": [{"label": "y", "score": 1}]}, None),
        ({"match": "types"}, {"label": 7, "scores": []}, "label was string and is number"),
        ({"match": "types", "fields": ("scores",)}, {"scores": [{"label": "y"}]}, "scores: [].score (number) is gone"),
    ],
)
def test_what_breaks_a_contract(facts: dict[str, Any], got: Any, why: str | None) -> None:
    """Values or types of what a consumer names must stay; fields that are new break nothing."""
    assert broken_by(contract(**facts), came(got)) == why


def test_failures_and_kinds() -> None:
    """Another status and another kind of answer break a contract, and text that is the same JSON does not."""
    assert broken_by(contract(), came({"detail": "no"}, status=500)) == "status 200 was expected, 500 came"
    failed = GoldenAnswer(status=500, kind="error", value="KeyError: 'text'")
    assert broken_by(contract(), failed) == "status 200 was expected, 500 came (KeyError: 'text')"
    assert broken_by(contract(), answer_from_body(b"alarm", "text/plain")) == 'json was expected, text came: "alarm"'
    assert broken_by(contract(), answer_from_body(json.dumps(EXPECTED).encode(), "text/plain")) is None
    assert broken_by(contract("alarm", kind="text"), answer_from_body(b"alarm", "text/plain")) is None
    assert broken_by(contract("/w==", kind="bytes"), answer_from_body(b"\xff", "image/png")) is None
    named = {"outputs": [], "model_version": "1.0"}
    assert broken_by(contract(named), came({**named, "model_version": "2.0"})) is None
    deep = answer_from_body(b"[" * 900 + b"]" * 900, "application/json")
    assert broken_by(contract(deep.value), deep) in (None, "the answer is nested too deeply to be compared")


def test_what_can_be_expected() -> None:
    """A file is JSON where it is that; a field has to be in the expected answer, and a JMESPath."""
    assert [expected_answer(data).kind for data in (b'{"a": 1}', b"plain", b"\xff\xfe")] == ["json", "text", "bytes"]
    check_expected(contract(fields=("label",)))
    with pytest.raises(InvalidInput, match="'lable' finds nothing in the expected answer"):
        check_expected(contract(fields=("lable",)))
    with pytest.raises(InvalidInput, match="is no JMESPath, such as label"):
        check_expected(contract(fields=("[",)))
    for check in (check_consumer, check_contract_name):
        with pytest.raises(InvalidInput, match="cannot be"):
            check("a/b")


def test_what_a_contract_says_is_its_digest() -> None:
    """Who added it, when and for which labels are no part of what has to be proved."""
    assert contract().sha256 == contract(by="bo", labels=("PROD",), note="again").sha256
    assert contract().sha256 != contract(fields=("label",)).sha256
