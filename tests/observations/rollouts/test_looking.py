"""Rollouts that run are looked at, and what was found is a document that every gateway reads."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marway.objects import DirectoryStore
from marway.records import HistoryEntry, utc_now
from marway.registry import Registry
from marway.registry.encoding import decode
from marway.serving import QualityRule
from marway.traffic import RolloutChange
from marway_observations.rollouts.looking import divisions_of, guarding, look, rewarding
from marway_observations.rollouts.results import Asked, Look, Looked, RolloutQuality, quality_key
from support.observations import NOON, feedback, observation, write_feedback, write_observations
from support.registry import publish

ACCURACY: dict[str, Any] = {"kind": "classification", "prediction": "label"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(DirectoryStore(tmp_path / "registry"))
    made.create()
    return made


def rollout(registry: Registry, tmp_path: Path, *rules: dict[str, Any], **asked: Any) -> Asked:
    """Start a rollout of 1.1 in the place of 1.0, and return what is asked about it."""
    for version in ("1.0", "1.1"):
        publish(registry, tmp_path, version=version, serving={"quality": list(rules)})
    registry.release("intent", "1.0", label="PROD", by="test")
    steps = asked.pop("steps", (25,))
    change = registry.start_rollout("intent", "1.1", label="PROD", steps=steps, by="test", **asked)
    found = change.state.traffic["PROD"].rollout
    assert found is not None
    return Asked(model="intent", label="PROD", rollout=found)


def kept(registry: Registry, outcomes: list[tuple[str, str]], *, role: str = "shadow", **said: Any) -> None:
    """Write answers of both, of which "a" is the right one, some seconds after the rollout's begin."""
    at = utc_now() + timedelta(seconds=6)
    rows = []
    for n, (mine, theirs) in enumerate(outcomes):
        rows.append(observation({"label": mine}, version="1.0", request_id=f"r{n}", at=at))
        request = f"r{n}" if role == "shadow" else f"c{n}"
        rows.append(observation({"label": theirs}, version="1.1", request_id=request, role=role, at=at))
    write_observations(registry.store, "intent", rows)
    told = [row for row in rows if row["role"] != "shadow"]
    write_feedback(registry.store, [feedback("a", prediction_id=row["prediction_id"], at=at, **said) for row in told])


def stored(registry: Registry, asked: Asked) -> RolloutQuality:
    key = quality_key(asked.model, asked.rollout)
    return decode(RolloutQuality, registry.store.get(key).data, source=key)


def test_a_look_is_written_where_gateways_read_it(registry: Registry, tmp_path: Path) -> None:
    """The next look replaces it; one at a rollout that is over finds nothing and writes nothing."""
    asked = rollout(registry, tmp_path, ACCURACY, guards={"quality": None})
    looked = look(registry, registry.store, [asked])
    assert looked.troubles == ()
    assert stored(registry, asked).guard is not None
    kept(registry, [("a", "a")] * 7 + [("a", "b")] * 3)
    look(registry, registry.store, [asked])
    found = stored(registry, asked)
    assert found.guard is not None
    assert found.guard.steps[0].pairs == {0: 7, 8: 3}
    assert (found.reward, found.breached, found.missing) == (None, None, None)
    registry.abort_rollout("intent", label="PROD", by="test")
    assert look(registry, registry.store, [asked]).found == {}


def test_without_a_rule_it_says_what_is_missing(registry: Registry, tmp_path: Path) -> None:
    """Where the rule is taken away while the rollout runs, it is told what to declare."""
    asked = rollout(registry, tmp_path, ACCURACY, guards={"quality": 0.02})
    registry.set_serving("intent", set_fields={"quality": []}, by="test")
    looked = look(registry, registry.store, [asked])
    assert looked.found[asked.rollout].guard is None
    assert "no quality rule is declared" in (looked.found[asked.rollout].missing or "")


def test_a_bound_that_the_candidate_alone_breaches_ends_it(registry: Registry, tmp_path: Path) -> None:
    """A declared minimum holds in a rollout too; where the base breaches it as well, the candidate is not to blame."""
    asked = rollout(registry, tmp_path, {**ACCURACY, "minimum": 0.8}, guards={"quality": None})
    kept(registry, [("a", "b")] * 30 + [("a", "a")] * 70, role="candidate")
    found = look(registry, registry.store, [asked], at=utc_now() + timedelta(seconds=10)).found[asked.rollout]
    assert found.breached is None  # 70 % of 100: up to 0.83
    kept(registry, [("a", "b")] * 30 + [("a", "a")] * 30, role="candidate")
    found = look(registry, registry.store, [asked], at=utc_now() + timedelta(seconds=10)).found[asked.rollout]
    assert found.breached is not None
    assert "accuracy of 1.1 is 0.625" in found.breached
    assert "at least 0.8" in found.breached
    kept(registry, [("b", "a")] * 200, role="candidate")
    found = look(registry, registry.store, [asked], at=utc_now() + timedelta(seconds=10)).found[asked.rollout]
    assert found.breached is None


def test_a_policy_has_its_scores(registry: Registry, tmp_path: Path) -> None:
    """Thompson's policy goes by scores, whatever the guard goes by."""
    asked = rollout(registry, tmp_path, ACCURACY, guards={"errors": None}, policy="thompson", cap=50)
    kept(registry, [("a", "a")] * 4, role="candidate", score=0.5)
    found = look(registry, registry.store, [asked]).found[asked.rollout]
    assert (found.guard, found.missing) == (None, None)
    assert found.reward is not None
    assert (found.reward.steps[0].base, found.reward.steps[0].candidate) == ({4: 4}, {4: 4})


def test_one_that_fails_keeps_no_other_from_it(registry: Registry, tmp_path: Path) -> None:
    """A model whose state cannot be read is named."""
    asked = rollout(registry, tmp_path, ACCURACY, guards={"quality": None})
    lost = Asked(model="lost", label="PROD", rollout="x")
    tag = registry.store.tag("models/intent/state.json")
    assert tag is not None
    looked = look(registry, registry.store, [lost, asked])
    assert list(looked.found) == [asked.rollout]
    registry.store.replace("models/intent/state.json", b"{", etag=tag)
    (trouble,) = look(registry, registry.store, [asked]).troubles
    assert trouble.model == "intent"


def test_the_process_answers_each_line(registry: Registry, tmp_path: Path) -> None:
    """It answers line by line until its input ends."""
    asked = rollout(registry, tmp_path, ACCURACY, guards={"quality": None})
    line = Look(rollouts=(asked,)).model_dump_json() + "\n"
    command = [sys.executable, "-m", "marway_observations.rollouts", "--registry", registry.url]
    done = subprocess.run(command, input=line * 2, capture_output=True, text=True, check=True, timeout=60)
    answers = [Looked.model_validate_json(each) for each in done.stdout.splitlines()]
    assert [list(each.found) for each in answers] == [[asked.rollout]] * 2


def test_times_in_which_requests_were_divided_alike() -> None:
    """Pauses change nothing; another percent begins another time, of which the first seconds are unsure."""

    def change(at: int, action: Any, step: int, percent: float, run: str = "run") -> HistoryEntry:
        made = RolloutChange(id=run, action=action, candidate="2", step=step, percent=percent)
        return HistoryEntry(
            generation=at, op_id=f"op{at}", at=moment(at), by="test", kind="label", label="PROD", rollout=made
        )

    def moment(second: int) -> datetime:
        return NOON + timedelta(seconds=second)

    history = [
        change(0, "start", 0, 1, run="earlier"),
        change(10, "start", 0, 1),
        change(20, "pause", 0, 1),
        change(30, "resume", 0, 1),
        change(40, "step", 1, 5),
    ]
    found = divisions_of(reversed(history), "run")
    assert [(each.step, each.share, each.since, each.until) for each in found] == [
        (0, 0.01, moment(10), moment(40)),
        (1, 0.05, moment(40), None),
    ]
    assert (found[0].sure_since, found[0].sure_until) == (moment(15), moment(38))
    assert (found[1].sure_since, found[1].sure_until) == (moment(45), None)


def test_which_rule_counts() -> None:
    """The guard takes what pairs can be made of first, and no figure that single answers have no part in."""
    score, correct, auc, f1 = (
        QualityRule(kind=kind, metric=metric)
        for kind, metric in (("score", ""), ("correct", ""), ("classification", "auc"), ("classification", "f1"))
    )
    assert guarding([score, auc, f1]) == f1
    assert guarding([auc, correct]) == correct
    assert guarding([auc]) is None
    assert rewarding([f1, correct, score]) == correct
    assert rewarding([f1]) == QualityRule(kind="score")
