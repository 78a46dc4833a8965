"""What counts of base and candidate by what feedback says, and what does not."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from marway.objects import ObjectStore
from marway.serving import QualityRule
from marway_observations.reading import Observed
from marway_observations.rollouts.comparing import Division, Sides, compare
from marway_observations.rollouts.results import Comparison
from support.observations import NOON, feedback, observation, write_feedback, write_observations

SIDES = Sides("PROD", "1", "2")
WHOLE = Division(0, 0.25, NOON, None, NOON, None)
LABEL = QualityRule(kind="classification", prediction="label")


def base(request: str | None, answer: Any, **fields: Any) -> dict[str, Any]:
    return observation(answer, request_id=request, **fields)


def shadow(request: str | None, answer: Any, **fields: Any) -> dict[str, Any]:
    return observation(answer, request_id=request, version="2", role="shadow", **fields)


def candidate(request: str | None, answer: Any, **fields: Any) -> dict[str, Any]:
    return observation(answer, request_id=request, version="2", role="candidate", **fields)


def said(row: Mapping[str, Any], truth: Any = None, **fields: Any) -> dict[str, Any]:
    return feedback(truth, prediction_id=row["prediction_id"], **fields)


def compared(
    store: ObjectStore, rule: QualityRule = LABEL, *divisions: Division, scale: float | None = None
) -> Comparison:
    with Observed(store, model="intent") as observed:
        return compare(observed, rule, SIDES, divisions or (WHOLE,), scale=scale)


def test_pairs_and_answers_to_callers(store: ObjectStore) -> None:
    """A truth named by the base's prediction id holds for the copy; each pair counts by who was right."""
    outcomes = [("a", "a")] * 5 + [("a", "b")] * 3 + [("b", "a")] * 2 + [("b", "b")]
    bases = [base(f"r{n}", {"label": mine}) for n, (mine, _) in enumerate(outcomes)]
    copies = [shadow(f"r{n}", {"label": theirs}) for n, (_, theirs) in enumerate(outcomes)]
    answered = [candidate(f"c{n}", {"label": label}) for n, label in enumerate("aab")]
    write_observations(store, "intent", [*bases, *copies, *answered])
    write_feedback(store, [said(row, "a") for row in (*bases, *answered)])
    found = compared(store)
    (step,) = found.steps
    assert (step.step, step.share) == (0, 0.25)
    assert step.pairs == {-8: 2, 0: 6, 8: 3}
    assert (step.base, step.candidate) == ({0: 8, 8: 3}, {0: 2, 8: 1})
    assert (step.base_answers, step.candidate_answers) == (11, 3)
    assert found.left_out == {}


def test_what_does_not_count(store: ObjectStore) -> None:
    """No truth, no kept answer, no value there, an id that came twice, other labels and versions: each is left out."""
    rows = [
        base("unknown", {"label": "a"}),
        shadow("unknown", {"label": "a"}),
        base("unkept", None),
        shadow("unkept", {"label": "a"}),
        base("lost", {"other": "a"}),
        shadow("lost", {"label": "a"}),
        *(base("twice", {"label": "a"}) for _ in range(2)),
        shadow("twice", {"label": "b"}),
        shadow("alone", {"label": "b"}),
        base(None, {"label": "a"}),
        shadow(None, {"label": "b"}),
        base("stage", {"label": "a"}, label="STG"),
        shadow("stage", {"label": "b"}),
        base("failed", {"label": "a"}),
        shadow("failed", {"label": "b"}, outcome="model_error"),
        observation({"label": "a"}, request_id="batch", role="batch"),
    ]
    write_observations(store, "intent", rows)
    truths = [said(row, "a") for row in rows if row["role"] == "base" and row["request_id"] != "unknown"]
    write_feedback(store, truths)
    found = compared(store)
    (step,) = found.steps
    assert step.pairs == {}
    assert (step.base, step.candidate) == ({0: 4}, {})
    assert found.left_out["label finds no value in their answers"] == 1
    assert found.left_out["their answers are not kept: that needs observe=bodies"] == 1
    assert found.left_out["their truth has not come yet"] >= 2


def test_feedback_by_request_is_true_of_both_answers_but_scores_are_of_one(store: ObjectStore) -> None:
    """A truth of a request id applies to answer and copy; `correct` and `score` only to what the caller got."""
    rows = [base("r", {"label": "a"}), shadow("r", {"label": "b"})]
    write_observations(store, "intent", rows)
    given = {"request_id": "r", "correct": True, "score": 0.75, "at": NOON, "received_at": NOON}
    write_feedback(store, [feedback("a", **given)])
    assert compared(store).steps[0].pairs == {8: 1}
    (step,) = compared(store, QualityRule(kind="correct")).steps
    assert (step.pairs, step.base, step.candidate) == ({}, {0: 1}, {})
    (step,) = compared(store, QualityRule(kind="score")).steps
    assert (step.pairs, step.base) == ({}, {2: 1})
    (step,) = compared(store, QualityRule(kind="score", lowest=0, highest=6)).steps
    assert list(step.base) in ([7], [6])  # 7 eighths exactly, and a draw among two where it is between


def test_times_are_counted_apart_and_moments_of_change_for_pairs_alone(store: ObjectStore) -> None:
    """Who was asked around a change may have been divided either way; which answers belong together is sure."""
    changed = NOON + timedelta(seconds=60)
    divisions = (
        Division(0, 0.25, NOON, changed, NOON + timedelta(seconds=5), changed - timedelta(seconds=2)),
        Division(1, 0.5, changed, None, changed + timedelta(seconds=5), None),
    )
    rows = []
    for second in (1, 30, 59, 61, 90):
        at = NOON + timedelta(seconds=second)
        rows += [base(f"r{second}", {"label": "a"}, at=at), shadow(f"r{second}", {"label": "b"}, at=at)]
    write_observations(store, "intent", rows)
    write_feedback(store, [said(row, "a", at=NOON) for row in rows if row["role"] == "base"])
    found = compared(store, LABEL, *divisions)
    assert [(each.step, each.pairs, each.base) for each in found.steps] == [
        (0, {8: 3}, {0: 1}),
        (1, {8: 2}, {0: 1}),
    ]


def test_numbers_have_a_scale_and_keep_their_mean(store: ObjectStore) -> None:
    """Four typical errors of the base are a loss of 1; rounding to eighths keeps the mean difference."""
    rule = QualityRule(kind="regression", prediction="price")
    draw = random.Random(5)
    rows, truths = [], []
    for n in range(3000):
        truth = draw.uniform(0, 100)
        row = base(f"r{n}", {"price": truth + draw.choice((-1, 1))})
        rows += [row, shadow(f"r{n}", {"price": truth + 1.2 * draw.choice((-1, 1))})]
        truths.append(said(row, truth))
    write_observations(store, "intent", rows)
    write_feedback(store, truths)
    found = compared(store, rule)
    assert found.scale == pytest.approx(4.0)
    pairs = found.steps[0].pairs
    assert sum(pairs.values()) == 3000
    mean = sum(value * count for value, count in pairs.items()) / 8 / 3000
    assert mean == pytest.approx(0.2 / 4, abs=0.005)
    assert compared(store, rule, scale=2.0).scale == 2.0


def test_numbers_wait_until_their_scale_is_known(store: ObjectStore) -> None:
    """With a few errors of the base nobody knows what is far from the truth."""
    rows = [base("r", {"price": 3.0}), shadow("r", {"price": 9.0})]
    write_observations(store, "intent", rows)
    write_feedback(store, [said(rows[0], 3.5)])
    found = compared(store, QualityRule(kind="regression", prediction="price"))
    assert (found.scale, found.steps) == (None, ())
