"""How a model's versions did over a time: what callers waited, what failed, how good answers were; all of it blocks."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final

from marway.objects import ObjectStore
from marway.records import utc_now
from marway.registry import Registry
from marway.serving import QualityRule, moment
from marway_observations.moments import CLOCKS
from marway_observations.quality.model_quality import Rules, quality_of
from marway_observations.reading import Observed
from marway_observations.schema import CALLERS
from marway_observations.searching.questions import ErrorGroup, Figures, LatencyPoint, ModelFigures
from marway_observations.searching.searching import known_model

__all__ = ["figures"]

_BUCKETS: Final = 48
"""Stretches of time: a point for each fits into a plot."""
_STRETCHES_S: Final = (10, 30, 60, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_ERRORS_MAX: Final = 30
_FAULTS: Final = "outcome IN ('model_error', 'unavailable', 'timeout')"
_UNDECLARED: Final[Rules] = (QualityRule(kind="correct"), QualityRule(kind="score"))
"""What needs no rule: feedback says it all."""
_LATENCY: Final = f"""
SELECT version, epoch(time_bucket(to_seconds($bucket), "at", $since::TIMESTAMPTZ)) AS bucket,
    quantile_cont(duration_s, 0.5), quantile_cont(duration_s, 0.99), round(sum(1 / rate))::BIGINT,
    coalesce(round(sum(1 / rate) FILTER ({_FAULTS})), 0)::BIGINT
FROM observations WHERE {CALLERS} GROUP BY version, bucket ORDER BY version, bucket
"""
_ERRORS: Final = f"""
SELECT version, outcome, error, count(*), max("at") AS last_at, arg_max(request_id, "at"),
    arg_max(prediction_id, "at"), arg_max(pod, "at")
FROM observations WHERE {_FAULTS} AND {CALLERS} GROUP BY version, outcome, error ORDER BY last_at DESC
LIMIT {_ERRORS_MAX}
"""


def figures(registry: Registry, store: ObjectStore, wanted: Figures) -> ModelFigures:
    """Return how a model's versions did.

    Raises:
        InvalidInput: The time is none, or it is too much to be read.
        ModelNotFound: There is no such model.
        RegistryUnavailable: Registry or store cannot be read.
    """
    now = utc_now()
    model, since = known_model(registry, store, wanted.model), moment(wanted.since, now)
    bucket_s = _stretch_s((now - since).total_seconds())
    since = datetime.fromtimestamp(since.timestamp() // bucket_s * bucket_s, timezone.utc)
    with Observed(store, model=model, since=since, until=now + CLOCKS) as observed:
        latency = observed.query(_LATENCY, {"bucket": bucket_s, "since": since})
        errors = observed.query(_ERRORS)
        left_out = tuple(f"{each.key}: {each.why}" for each in observed.left_out)
    judged = quality_of(store, registry, model, at=now, chosen=lambda declared: declared or _UNDECLARED)
    return ModelFigures(
        model=model,
        since=since,
        until=now,
        bucket_s=bucket_s,
        latency=tuple(map(_latency, latency)),
        quality=tuple(each for each in judged.results if each.label is None and each.known),
        errors=tuple(map(_error, errors)),
        left_out=left_out,
    )


def _stretch_s(time_s: float) -> float:
    """Return how long a stretch of a time is: a round one, of which some fifty are in it."""
    return float(next((each for each in _STRETCHES_S if time_s / each <= _BUCKETS), timedelta(days=1).total_seconds()))


def _latency(row: tuple[Any, ...]) -> LatencyPoint:
    version, bucket, p50_s, p99_s, requests, errors = row
    at = datetime.fromtimestamp(bucket, timezone.utc)
    return LatencyPoint(version=version, at=at, p50_s=p50_s, p99_s=p99_s, requests=requests, errors=errors)


def _error(row: tuple[Any, ...]) -> ErrorGroup:
    return ErrorGroup(**dict(zip(ErrorGroup.model_fields, row, strict=True)))
