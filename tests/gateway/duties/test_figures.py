"""What evaluations find, as metrics of the process that holds the lease."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from marway_gateway.duties.figures import Figures
from marway_observations.evaluate.results import Drift, Evaluation, Quality, Trouble, Unjudged

QUALITY = Quality(
    model="intent",
    version="1.0",
    label="PROD",
    metric="accuracy",
    window="7d",
    known=100,
    missing=20,
    value=0.7,
    lower=0.6,
    upper=0.78,
    minimum=0.9,
    maximum=None,
    min_count=50,
)
DRIFT = Drift(
    model="intent",
    version="1.0",
    field="length(input)",
    against="training",
    window="24h",
    count=500,
    psi=0.5,
    ks=None,
    psi_maximum=0.2,
    drifted=True,
)


def evaluation(**found: object) -> Evaluation:
    return Evaluation(at=datetime(2026, 11, 30, tzinfo=UTC), cpu_s=1.0, rules=1, **found)  # type: ignore[arg-type]


def values(metrics: CollectorRegistry) -> dict[str, float]:
    """Return each sample's value by its name and the values of its labels."""
    return {
        " ".join((sample.name.removeprefix("marway_model_"), *sample.labels.values())): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def test_figures_are_shown_until_another_process_has_them() -> None:
    """The last evaluation of each kind is shown, with intervals and counts; what is not known has no sample."""
    metrics, figures = CollectorRegistry(), Figures()
    metrics.register(figures)
    families = {family.name for family in metrics.collect()}
    assert values(metrics) == {}
    figures.found("quality", evaluation(quality=[QUALITY, QUALITY.model_copy(update={"label": None, "value": None})]))
    figures.found("drift", evaluation(drift=[DRIFT]))
    assert values(metrics) == {
        "quality intent 1.0 PROD accuracy": 0.7,
        "quality_lower intent 1.0 PROD accuracy": 0.6,
        "quality_lower intent 1.0  accuracy": 0.6,
        "quality_upper intent 1.0 PROD accuracy": 0.78,
        "quality_upper intent 1.0  accuracy": 0.78,
        "quality_breached intent 1.0 PROD accuracy": 1.0,
        "quality_breached intent 1.0  accuracy": 0.0,
        "quality_predictions intent 1.0 PROD accuracy known": 100.0,
        "quality_predictions intent 1.0 PROD accuracy missing": 20.0,
        "quality_predictions intent 1.0  accuracy known": 100.0,
        "quality_predictions intent 1.0  accuracy missing": 20.0,
        "drift_psi intent 1.0 length(input)": 0.5,
        "drifted intent 1.0 length(input)": 1.0,
    }
    figures.forget("quality")
    assert not any(name.startswith("quality") for name in values(metrics))
    assert "drifted intent 1.0 length(input)" in values(metrics)
    figures.found("drift", evaluation())
    assert values(metrics) == {}
    assert {family.name for family in metrics.collect()} == families


def test_what_cannot_be_told_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A trouble is a line in the log when it begins, and none while it goes on."""
    figures = Figures()
    for _ in range(3):
        figures.found("quality", evaluation(troubles=[Trouble(model="intent", why="a file is broken")]))
        figures.found("drift", evaluation(unjudged=[Unjudged(model="intent", version="1.0", why="too few")]))
    assert [record.message for record in caplog.records] == [
        "quality of intent cannot be told: a file is broken",
        "drift of intent 1.0 cannot be told: too few",
    ]
    figures.found("quality", evaluation())
    figures.found("quality", evaluation(troubles=[Trouble(model="intent", why="a file is broken")]))
    assert len(caplog.records) == 3
