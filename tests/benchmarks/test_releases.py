"""`make bench-releases` and `make bench-evidence` measure what they say."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ANSWER = {"label": "weather", "score": 0.9, "scores": {"weather": 0.9}}
BODY = {"body": b"will it rain"}


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import release_zoo

    return release_zoo


@pytest.fixture
def handler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_release", BENCHMARKS / "models" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answered(handler: ModuleType, **fault: Any) -> Any:
    release = handler.Release()
    release.fault, release.asked = fault, 0
    release.inner = SimpleNamespace(handle=lambda data, _: [dict(ANSWER) for _ in data])
    return release.handle([BODY], SimpleNamespace(request_processor={}))[0]


def test_there_are_fifty_of_each(zoo: ModuleType) -> None:
    """Fifty bad and fifty good releases, each with a version of its own, of three models."""
    found = zoo.releases()
    assert [sum(each.good is good for each in found) for good in (True, False)] == [50, 50]
    assert len({(each.model, each.version) for each in found}) == 100
    assert {each.model for each in found} == set(zoo.MODELS)


def test_golden_examples_do_not_meet_the_fault(zoo: ModuleType, handler: ModuleType) -> None:
    """Who released a version that fails for few inputs had not tried those."""
    for release in zoo.bad():
        share = release.fault.get("share", 1.0)
        if release.model == "intent" and share < 1:
            examples = zoo._examples(release)
            assert len(examples) == 3
            assert not any(handler.hit({"body": each.encode()}, share) for each in examples)
            hits = sum(handler.hit({"body": each.body}, share) for each in zoo.inputs("intent"))
            assert hits / len(zoo.inputs("intent")) == pytest.approx(share, rel=0.5)


@pytest.mark.parametrize(
    ("fault", "gives"),
    [
        ({"kind": "none"}, ANSWER),
        ({"kind": "swapped", "labels": ("weather", "joke")}, {**ANSWER, "label": "joke"}),
        ({"kind": "constant", "label": "joke"}, {**ANSWER, "label": "joke"}),
        ({"kind": "without_scores"}, {"label": "weather"}),
        ({"kind": "text_numbers"}, {**ANSWER, "score": "0.9"}),
        ({"kind": "wrapped"}, [ANSWER]),
        ({"kind": "plain_text"}, "weather"),
        ({"kind": "text_numbers", "share": 0.0}, ANSWER),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_faults_are_what_they_say(handler: ModuleType, fault: dict[str, Any], gives: Any) -> None:
    """A fault changes the answers to its share of the inputs, and nothing else."""
    assert answered(handler, **fault) == gives


def test_faults_that_are_no_answers(handler: ModuleType) -> None:
    """Some raise, and some answer with what is not a number."""
    with pytest.raises(ValueError, match="vocabulary"):
        answered(handler, kind="raises")
    with pytest.raises(RuntimeError, match="pool"):
        answered(handler, kind="breaks_after", after=0)
    assert math.isnan(answered(handler, kind="silent_nan")["score"])


def test_the_table_counts_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad release that was promoted is missed and named; wrong answers are of all answers to callers meanwhile."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_releases as bench
    import release_tables

    row = {"model": "intent", "version": "2.1", "what": "raises", "reason": "", "guard": "errors", "calls": 1000}
    rows = [
        {**row, "good": False, "end": "rolled_back", "seconds": 4.0, "touched": 3},
        {**row, "good": False, "end": "promoted", "seconds": 44.0, "touched": 0, "version": "2.2"},
        {**row, "good": True, "end": "promoted", "seconds": 30.0, "touched": 0, "version": "3.1"},
    ]
    result = bench.summary(rows)
    assert (result["stopped_in_time"], result["rolled_back_good"], result["promoted_good"]) == (1, 0, 1)
    text = release_tables.markdown(result)
    assert "1.50 ‰ of 2,000" in text
    assert "- intent 2.2, raises: promoted after 44 s." in text
    assert "- intent 3.1" not in text


def test_a_simulated_rollout_ends_as_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good candidate is promoted, and one that fails for 5 % is rolled back having touched few."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from evidence_runs import Candidate, rollout

    assert rollout(Candidate(), 100, 1).end == "promoted"
    found = rollout(Candidate({"errors": 0.05}), 100, 1)
    assert found.end == "rolled back"
    assert found.touched <= 0.01 * found.calls
