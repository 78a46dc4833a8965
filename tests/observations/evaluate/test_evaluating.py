"""Every model that declares quality or drift is looked at, and what crosses a bound becomes an event."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_observations.evaluate.evaluating import evaluate
from marway_observations.evaluate.results import Evaluation
from marway_observations.events import EventLog
from support.observations import NOON, feedback, observation, write_feedback, write_observations
from support.registry import publish

ACCURACY = {"kind": "classification", "metric": "accuracy", "prediction": "intent", "minimum": 0.9}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "registry")


@pytest.fixture
def registry(store: DirectoryStore) -> Registry:
    made = Registry(store)
    made.create()
    return made


def kept(
    store: DirectoryStore,
    model: str,
    right: int,
    wrong: int,
    *,
    at: datetime = NOON - timedelta(hours=2),
    unknown: int = 0,
    **fields: Any,
) -> None:
    """Write predictions with bodies, and the truth of those that were right and wrong."""
    rows = [
        observation({"intent": "play"}, **{"at": at, "version": "1.0", **fields})
        for _ in range(right + wrong + unknown)
    ]
    write_observations(store, model, rows)
    truths = ["play"] * right + ["stop"] * wrong
    told = [
        feedback(truth, prediction_id=row["prediction_id"], at=at + timedelta(minutes=1))
        for row, truth in zip(rows, truths, strict=False)
    ]
    write_feedback(store, told)


def events(registry: Registry) -> list[tuple[str, str]]:
    """Return what was raised: type and subject."""
    found = EventLog(registry.store).newest_first(since=NOON - timedelta(days=90), until=utc_now())
    return [(event.type.removeprefix("dev.marway.model."), event.subject) for event in reversed(list(found))]


def look(registry: Registry, kind: Any = "quality", *, at: datetime = NOON) -> Evaluation:
    return evaluate(kind, registry, registry.store, EventLog(registry.store), at=at)


def test_quality_falls_and_recovers(store: DirectoryStore, registry: Registry, tmp_path: Path) -> None:
    """Figures are those of each version and label; a fall is one event, and so is the recovery."""
    publish(registry, tmp_path, serving={"quality": [ACCURACY]})
    kept(store, "intent", 57, 3, unknown=5)
    kept(store, "intent", 2, 0, label="TEST")
    found = look(registry)
    assert (found.rules, found.troubles) == (1, ())
    assert [(each.label, each.known, each.missing, each.standing) for each in found.quality] == [
        (None, 62, 5, "met"),
        ("PROD", 60, 5, "met"),
        ("TEST", 2, 0, "too_few"),
    ]
    assert found.quality[0].value == pytest.approx(59 / 62)
    assert events(registry) == []
    kept(store, "intent", 40, 60, at=NOON - timedelta(minutes=50))
    later = [look(registry, at=NOON + timedelta(minutes=minute)) for minute in (1, 2)]
    assert {each.quality[0].standing for each in later} == {"breached"}
    assert events(registry) == [("quality_below_minimum", "intent")]
    kept(store, "intent", 1000, 0, at=NOON)
    assert look(registry, at=NOON + timedelta(minutes=3)).quality[0].standing == "met"
    assert events(registry) == [("quality_below_minimum", "intent"), ("quality_recovered", "intent")]


def test_which_versions_are_looked_at(store: DirectoryStore, registry: Registry, tmp_path: Path) -> None:
    """Versions without a label count where they answered of late, by rules of their own; deleted ones do not."""
    for version, metric in (("1.0", "accuracy"), ("2.0", "f1"), ("3.0", "precision")):
        newest = version == "1.0"
        rule = {**ACCURACY, "metric": metric, "window": "1d" if newest else "7d"}
        publish(registry, tmp_path, version=version, label="PROD" if newest else None, serving={"quality": [rule]})
        for days in (0, 3):
            kept(store, "intent", 60, 0, version=version, label=None, at=NOON - timedelta(days=days, hours=1))
    registry.delete("intent", "3.0", by="test")
    publish(registry, tmp_path, "no-rules")
    kept(store, "no-rules", 10, 10)
    found = look(registry)
    assert [(each.version, each.metric, each.known) for each in found.quality if each.label is None] == [
        ("1.0", "accuracy", 60),
        ("2.0", "f1", 120),
    ]
    assert found.rules == 2
    registry.set_serving("no-rules", by="test", set_fields={"quality": [{**ACCURACY, "min_count": 10}]})
    assert look(registry).rules == 3
    assert events(registry) == [("quality_below_minimum", "no-rules")]


def test_one_model_in_trouble_does_not_keep_others_from_it(
    store: DirectoryStore, registry: Registry, tmp_path: Path
) -> None:
    """Observations of a model that is not there, a state that is damaged and a file that is broken are named."""
    for model in ("broken", "damaged", "intent"):
        publish(registry, tmp_path, model, serving={"quality": [ACCURACY]})
        kept(store, model, 60, 0)
    kept(store, "gone", 1, 0)
    (tmp_path / "registry/models/damaged/state.json").write_bytes(b"{")
    store.create("observations/model=broken/date=2026-03-04/hour=11/gateway-1-x.parquet", b"PAR1 and no more")
    found = look(registry)
    assert {each.model: each.known for each in found.quality if each.label is None} == {"broken": 60, "intent": 60}
    assert [each.model for each in found.troubles] == ["broken", "damaged"]
    assert "gateway-1-x.parquet cannot be read and was left out" in found.troubles[0].why


def test_drift_begins_and_ends(store: DirectoryStore, registry: Registry, tmp_path: Path) -> None:
    """A version whose inputs move drifts, with one event for its fields; back as they were it has ended."""
    draw = random.Random(1)
    publish(
        registry, tmp_path, serving={"drift": {"against": "7d", "window": "1d", "fields": ["input.age", "input.years"]}}
    )

    def ages(at: datetime, age: float) -> None:
        inputs = [{"age": draw.gauss(age, 5), "years": draw.gauss(age, 5)} for _ in range(400)]
        rows = [observation({"intent": "play"}, input=each, at=at, version="1.0") for each in inputs]
        write_observations(store, "intent", rows)

    for days, age in ((8, 40), (7, 40), (1, 60), (0, 40)):
        ages(NOON - timedelta(days=days, hours=1), age)
    earlier = look(registry, "drift", at=NOON - timedelta(days=1))
    assert {(each.field, each.standing) for each in earlier.drift} == {
        ("input.age", "breached"),
        ("input.years", "breached"),
    }
    now = look(registry, "drift")
    assert {each.standing for each in now.drift} <= {"met", "unclear"}
    assert events(registry) == [("drifted", "intent"), ("drift_ended", "intent")]
    much_later = look(registry, "drift", at=NOON + timedelta(days=30))
    assert (much_later.drift, [each.version for each in much_later.unjudged], much_later.rules) == ((), ["1.0"], 1)


def test_the_process_prints_one_document(store: DirectoryStore, registry: Registry, tmp_path: Path) -> None:
    """`python -m marway_observations.evaluate` prints what it found, or says on one line why it could not."""
    publish(registry, tmp_path, serving={"quality": [ACCURACY]})
    kept(store, "intent", 10, 50, at=utc_now() - timedelta(minutes=5))

    def run(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "marway_observations.evaluate", "quality", "--registry", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = run(registry.url)
    assert (done.returncode, done.stderr) == (0, "")
    found = Evaluation.model_validate(json.loads(done.stdout))
    assert [(each.label, each.standing) for each in found.quality] == [(None, "breached"), ("PROD", "breached")]
    assert found.cpu_s > 0
    assert events(registry) == [("quality_below_minimum", "intent")]
    failed = run("ftp://nowhere")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "is of no known kind" in failed.stderr
