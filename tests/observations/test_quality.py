"""Figures of quality against scikit-learn's, and what is counted where there is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from marway.objects import ObjectStore
from marway.serving import QualityRule
from marway_observations.evaluate.results import Quality
from marway_observations.quality import measure
from marway_observations.reading import Observed
from support.observations import NOON, feedback, observation, write_feedback, write_observations

NOW = NOON + timedelta(hours=2)
CLASSES = ["World", "Sports", "Business"]


def write(store: ObjectStore, pairs: list[tuple[Any, Any]], **fields: Any) -> None:
    """Write a prediction and its truth for each pair; where that is None, nobody said it."""
    rows = [observation(answer, **fields) for answer, _ in pairs]
    write_observations(store, "intent", rows)
    told = [(row, truth) for row, (_, truth) in zip(rows, pairs, strict=True) if truth is not None]
    write_feedback(store, [feedback(truth, prediction_id=row["prediction_id"]) for row, truth in told])


def quality(store: ObjectStore, version: str = "1", label: str | None = None, **rule: Any) -> Quality:
    with Observed(store, model="intent") as observed:
        found = measure(observed, "intent", {version: [QualityRule(**rule)]}, now=NOW)
    (one,) = [each for each in found if (each.version, each.label) == (version, label)]
    return one


@pytest.fixture(scope="module")
def labelled() -> list[tuple[str, str]]:
    draw = np.random.default_rng(1)
    truth = draw.choice(CLASSES, 400, p=[0.6, 0.3, 0.1])
    wrong = draw.random(400) < 0.2
    predicted = np.where(wrong, draw.choice([*CLASSES, "Sci/Tech"], 400), truth)
    return [(str(p), str(t)) for p, t in zip(predicted, truth, strict=True)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_classification(store: ObjectStore, labelled: list[tuple[str, str]]) -> None:
    """Accuracy, precision, recall and F1, of one class and over all, are scikit-learn's, within their intervals."""
    write(store, [({"label": p}, {"is": t}) for p, t in labelled])
    predicted, truth = zip(*labelled, strict=True)
    common = {"kind": "classification", "prediction": "label", "truth": "is"}
    assert quality(store, **common).value == pytest.approx(metrics.accuracy_score(truth, predicted))
    for name in ("precision", "recall", "f1"):
        for positive in (None, "Sports"):
            labels = {"average": "macro"} if positive is None else {"average": None, "labels": [positive]}
            wanted = np.mean(getattr(metrics, f"{name}_score")(truth, predicted, zero_division=0, **labels))
            found = quality(store, **common, metric=name, positive=positive)
            assert found.value == pytest.approx(wanted), (name, positive)
            assert (found.lower or 0) < wanted < (found.upper or 0)
            assert (found.known, found.missing, found.unusable) == (400, 0, {})


def test_regression(store: ObjectStore) -> None:
    """Mean errors and R² are scikit-learn's."""
    draw = np.random.default_rng(2)
    truth = draw.normal(50, 10, 300)
    predicted = truth + draw.normal(1, 4, 300)
    write(store, [([float(p)], float(t)) for p, t in zip(predicted, truth, strict=True)])
    wanted = {
        "mae": metrics.mean_absolute_error,
        "rmse": metrics.root_mean_squared_error,
        "mape": metrics.mean_absolute_percentage_error,
        "r2": metrics.r2_score,
    }
    for name, of in wanted.items():
        found = quality(store, kind="regression", prediction="[0]", metric=name)
        assert found.value == pytest.approx(of(truth, predicted)), name
        assert (found.lower or 0) < of(truth, predicted) < (found.upper or 0)


def test_area_under_the_curve(store: ObjectStore) -> None:
    """The area under the ROC curve is scikit-learn's, with scores that are alike."""
    draw = np.random.default_rng(3)
    truth = draw.random(300) < 0.3
    scores = np.round(draw.normal(truth.astype(float), 1.0), 1)
    write(store, [({"score": float(s)}, "yes" if t else "no") for s, t in zip(scores, truth, strict=True)])
    found = quality(store, kind="classification", metric="auc", prediction="score", positive="yes")
    assert found.value == pytest.approx(metrics.roc_auc_score(truth, scores))
    lower, upper = _delong(truth, scores)
    assert (found.lower, found.upper) == (pytest.approx(lower), pytest.approx(upper))


def _delong(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """DeLong's interval on the logit scale, pair by pair."""
    positive, negative = scores[truth], scores[~truth]
    wins = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
    value = wins.mean()
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    logit, half = np.log(value / (1 - value)), 1.959964 * np.sqrt(variance) / (value * (1 - value))
    return tuple(1 / (1 + np.exp(-(logit + sign * half))) for sign in (-1, 1))


def test_scores_and_corrections(store: ObjectStore) -> None:
    """Scores and what was correct need no kept bodies."""
    rows = [observation() for _ in range(10)]
    write_observations(store, "intent", rows)
    told = [{"score": place / 10, "correct": place < 7} for place in range(9)]
    write_feedback(
        store, [feedback(prediction_id=row["prediction_id"], **each) for row, each in zip(rows, told, strict=False)]
    )
    assert quality(store, kind="score").value == pytest.approx(0.4)
    found = quality(store, kind="correct")
    assert (found.value, found.known, found.missing) == (pytest.approx(7 / 9), 9, 1)
    with Observed(store) as observed:
        assert measure(observed, "intent", {"2": [QualityRule(kind="correct")]}, now=NOW) == []


def test_versions_and_labels(store: ObjectStore) -> None:
    """Each version has a figure, and each label that led to it; predictions that named the version count for it."""
    write(store, [("a", "a")] * 3, version="1", label="PROD")
    write(store, [("a", "b")] * 2, version="1", label="STG")
    write(store, [("a", "a")] * 1, version="1", label=None)
    write(store, [("a", "a")] * 4, version="2", label="PROD")
    write(store, [("a", "b")] * 9, version="2", label="PROD", role="shadow")
    write(store, [("a", "b")] * 9, version="2", label="PROD", outcome="model_error")
    rule = QualityRule(kind="classification")
    with Observed(store, model="intent") as observed:
        found = measure(observed, "intent", {"1": [rule], "2": [rule]}, now=NOW)
    assert [(each.version, each.label, each.value, each.known) for each in found] == [
        ("1", None, pytest.approx(4 / 6), 6),
        ("1", "PROD", 1.0, 3),
        ("1", "STG", 0.0, 2),
        ("2", None, 1.0, 4),
        ("2", "PROD", 1.0, 4),
    ]


def test_what_cannot_be_compared_is_counted(store: ObjectStore) -> None:
    """Predictions without a truth are missing; those with one that cannot be compared are counted by reason."""
    write(store, [({"label": "a"}, "a"), ({"label": "a"}, None), ({"other": 1}, "a"), ({"label": ["a"]}, "a")])
    write(store, [({"label": "a"}, {"is": "a"})])
    rows = [observation(bodies="too_large")]
    write_observations(store, "intent", rows)
    write_feedback(store, [feedback("a", prediction_id=rows[0]["prediction_id"])])
    found = quality(store, kind="classification", prediction="label")
    assert (found.known, found.missing) == (1, 1)
    assert found.unusable == {
        "label finds no value in its answer": 2,
        "@ finds no value in its truth": 1,
        "its answer was not kept": 1,
    }


def test_values_are_compared_as_people_mean_them(store: ObjectStore) -> None:
    """1, 1.0 and "1" are one class; text that is no JSON is the value itself."""
    write(store, [(1, 1.0), (1.0, "1"), (True, "true"), (1.5, 1.5), ("a", "b")])
    write(store, [(None, "positive")], output=b"positive", output_type="text/plain", bodies="kept")
    found = quality(store, kind="classification")
    assert (found.value, found.known) == (pytest.approx(5 / 6), 6)


def test_windows(store: ObjectStore) -> None:
    """Predictions before the window do not count, however late their truth came."""
    write(store, [("a", "a")], at=NOW - timedelta(hours=25))
    write(store, [("a", "b")], at=NOW - timedelta(hours=23))
    assert quality(store, kind="classification", window="24h").value == 0.0
    assert quality(store, kind="classification", window="2d").value == 0.5


@pytest.mark.parametrize(
    ("right", "wrong", "bounds", "standing"),
    [
        (30, 0, {}, "no_bound"),
        (30, 0, {"minimum": 0.5}, "too_few"),
        (95, 5, {"minimum": 0.5}, "met"),
        (60, 40, {"minimum": 0.62}, "unclear"),
        (20, 80, {"minimum": 0.5}, "breached"),
        (95, 5, {"maximum": 0.5}, "breached"),
    ],
)
def test_standing(store: ObjectStore, right: int, wrong: int, bounds: dict[str, float], standing: str) -> None:
    """A bound is breached when the whole interval says so."""
    write(store, [("a", "a")] * right + [("a", "b")] * wrong)
    assert quality(store, kind="classification", **bounds).standing == standing


@pytest.mark.extended  # some seconds, for what it writes; the same query runs in all tests above
def test_large_answers_take_little_memory(store: ObjectStore) -> None:
    """Answers are not gathered: of 240 MB in files as gateways write them, DuckDB has 200 MiB in all."""
    large = {"label": "a", "rest": "x" * 500_000}
    for _ in range(16):
        write(store, [(large, "a")] * 30)
    with Observed(store, model="intent", memory_mb=200) as observed:
        (one, _) = measure(observed, "intent", {"1": [QualityRule(kind="classification", prediction="label")]}, now=NOW)
        assert observed.query("SELECT current_setting('memory_limit')") == [("200.0 MiB",)]
    assert (one.known, one.value) == (480, 1.0)
