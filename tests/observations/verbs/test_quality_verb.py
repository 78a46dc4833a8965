"""`marway quality`."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from marway.records import utc_now
from marway.registry import Registry
from support.in_process import Marway
from support.observations import feedback, observation, write_feedback, write_observations

RULE = {"kind": "classification", "prediction": "label", "minimum": 0.9, "min_count": 5}


def test_declared(marway: Marway, served: Registry) -> None:
    """Rules that are declared are judged for each version and label, as a table or as one document."""
    served.set_serving("intent", version="*", set_fields={"quality": [RULE]}, by="test")
    said = marway("quality", "INTENT")
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines()[1:]]
    assert lines[0] == [
        "version",
        "label",
        "metric",
        "value",
        "95",
        "%",
        "between",
        "known",
        "missing",
        "bound",
        "standing",
    ]
    assert lines[1][:4] == ["1.0", "all", "accuracy", "0.6667"]
    assert lines[1][-5:] == ["9", "1", "≥", "0.9", "breached"]
    assert [line[:2] for line in lines[1:]] == [["1.0", "all"], ["1.0", "PROD"], ["1.1", "all"], ["1.1", "PROD"]]
    document = json.loads(marway("quality", "intent", "--version", "1.0", "--label", "PROD", "--json").out)
    (one,) = document["results"]
    assert {**one, "lower": None, "upper": None} == {
        "version": "1.0",
        "label": "PROD",
        "metric": "accuracy",
        "window": "7d",
        "known": 9,
        "missing": 1,
        "unusable": {},
        "value": pytest.approx(6 / 9),
        "lower": None,
        "upper": None,
        "minimum": 0.9,
        "maximum": None,
        "min_count": 5,
        "standing": "breached",
    }
    assert json.loads(marway("quality", "intent", "--window", "5m", "--json").out)["results"] == []


def test_undeclared(marway: Marway, served: Registry) -> None:
    """Without a rule, what was correct is told; a rule can be tried before it is declared."""
    document = json.loads(marway("quality", "intent", "--version", "1.0", "--json").out)
    assert [(each["metric"], each["label"], each["known"], each["standing"]) for each in document["results"]] == [
        ("accuracy", None, 9, "no_bound"),
        ("accuracy", "PROD", 9, "no_bound"),
    ]
    document = json.loads(marway("quality", "intent", "--metric", "f1", "--prediction", "label", "--json").out)
    assert [(each["version"], each["metric"], each["value"]) for each in document["results"] if not each["label"]] == [
        ("1.0", "f1", pytest.approx((0.8 + 0) / 2)),
        ("1.1", "f1", pytest.approx((0.8 + 0) / 2)),
    ]
    said = marway("quality", "intent", "--metric", "accuracy", "--prediction", "wrong", "--version", "1.0")
    assert "1.0 accuracy: 9 more with a truth cannot be compared: wrong finds no value in its answer" in said.out


def test_unmatched(marway: Marway, served: Registry) -> None:
    """Feedback on predictions that were not kept is counted where that is asked for; late feedback is not."""
    old = observation(at=utc_now() - timedelta(days=20))
    write_observations(served.store, "other", [old])
    told = [
        feedback("a", prediction_id=each, at=utc_now()) for each in (old["prediction_id"], "01KBARM2T5A1B2C3D4E5F60718")
    ]
    write_feedback(served.store, [*told, feedback("a", request_id="nobody's", at=utc_now())])
    assert json.loads(marway("quality", "intent", "--unmatched", "--json").out)["unmatched"] == 2
    assert marway("quality", "intent", "--unmatched").out.endswith("no prediction was kept: 2\n")
    assert json.loads(marway("quality", "intent", "--json").out)["unmatched"] is None


def test_nothing_yet(marway: Marway, publish, registry: Registry) -> None:
    """Where there is nothing to tell, it says what it takes."""
    publish("intent", "1.0")
    assert "it takes predictions, feedback about them" in marway("quality", "intent").out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nothing"], "nothing"),
        (["intent", "--version", "9"], "has no version '9'"),
        (["intent", "--metric", "goodness"], "'goodness' is no metric: use one of accuracy"),
        (["intent", "--window", "soon"], "'soon' is no time: give a number with s, m, h or d"),
        (["intent", "--prediction", "a["], "'a[' is no JMESPath"),
        (["intent", "--label", "prod"], "prod"),
    ],
)
def test_refused(marway: Marway, served: Registry, arguments: list[str], why: str) -> None:
    """What cannot be is refused in one line."""
    said = marway("quality", *arguments)
    assert said.code == 1
    assert why in said.err
    assert len(said.err.splitlines()) == 1
