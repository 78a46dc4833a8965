"""How a version is served: what its record says, and what a model's state may override."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Final, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, Field, model_validator

from marway.errors import InvalidInput, InvalidReference, clip
from marway.features.walking import root_of
from marway.redaction import check_redaction
from marway.refs import check_engine, parse_reference
from marway.stored import Frozen

__all__ = ["DriftRule", "EngineName", "QualityRule", "ServingSettings", "moment", "period"]

EngineName = Annotated[str, AfterValidator(check_engine)]

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST_KEPT: Final = timedelta(days=3650)


def period(text: str) -> timedelta:
    """Return the time that `90s`, `15m`, `24h` or `7d` stands for.

    Raises:
        ValueError: It is none of them.
    """
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise ValueError(f"{clip(text, 40)!r} is no time: give a number with s, m, h or d, such as 24h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def moment(text: str, now: datetime) -> datetime:
    """Return the time that `24h` (so long ago) or a time in ISO 8601 stands for; without a zone it is in UTC.

    Raises:
        InvalidInput: It is neither.
    """
    try:
        return now - period(text)
    except ValueError:
        pass
    except OverflowError:
        raise InvalidInput(f"{clip(text, 40)!r} ago is before all times") from None
    try:
        at = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
    except ValueError:
        raise InvalidInput(
            f"{clip(text, 40)!r} is no time: give how long ago, such as 24h or 7d, or a time such as 2026-03-04T12:00"
        ) from None
    if not 1970 <= at.year < 9999:  # a little before or after it is asked for too, and must be a time
        raise InvalidInput(f"{clip(text, 40)!r} is long before or after all that was kept: give a time from 1970 on")
    return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at


def _checked_period(text: str) -> str:
    period(text)
    return text


def _checked_path(text: str) -> str:
    try:
        jmespath.compile(text)
    except JMESPathError as exc:
        raise ValueError(f"{clip(text, 100)!r} is no JMESPath: {clip(' '.join(str(exc).split()), 200)}") from exc
    return text


def _checked_fallback(text: str) -> str:
    try:
        named = parse_reference(text)
    except InvalidReference as exc:
        raise ValueError(exc.message) from exc
    if named.selector is None:
        raise ValueError(f"{clip(text, 100)!r} names no version: give MODEL/VERSION or MODEL/LABEL")
    return text


Period = Annotated[str, AfterValidator(_checked_period)]
Path = Annotated[str, AfterValidator(_checked_path)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

_METRICS: Final = {
    "classification": ("accuracy", "precision", "recall", "f1", "auc"),
    "regression": ("mae", "rmse", "mape", "r2"),
    "score": ("mean",),
    "correct": ("accuracy",),
}
"""The first is what is meant where none is named."""


class QualityRule(Frozen):
    """How good a version's answers turned out to be, and how good they must be.

    `classification` and `regression` compare what ``prediction`` finds in an answer with what ``truth`` finds in the
    truth that came later, so they need kept bodies (`observe` is `bodies`). `score` takes the mean of scores, `correct`
    the part that was correct, as feedback has them.
    """

    kind: Literal["classification", "regression", "score", "correct"]
    metric: str = ""
    """Which figure; empty means the usual one of the kind: accuracy, mae, mean, accuracy."""
    prediction: Path = "@"
    """JMESPath of the predicted value in an answer that is JSON; for `auc` that of the positive class's score."""
    truth: Path = "@"
    """JMESPath of the true value in a feedback's `truth`."""
    positive: str | None = None
    """The class that precision, recall, f1 and auc are about, as text; None means all alike (macro average)."""
    minimum: float | None = None
    maximum: float | None = None
    """The bound for errors, where less is better: mae, rmse, mape."""
    window: Period = "7d"
    """How far back predictions count."""
    min_count: Annotated[int, Field(ge=1)] = 50
    """Predictions whose truth must be known before a bound is judged."""
    lowest: Finite = 0.0
    highest: Finite = 1.0
    """Between which values a score is, of which more is better: how much one lacks is a part of this. Where a version
    is released step by step, what lies outside counts as the nearer end."""

    @model_validator(mode="after")
    def _sensible(self) -> QualityRule:
        known = _METRICS[self.kind]
        if self.metric and self.metric not in known:
            raise ValueError(f"{clip(self.metric, 40)!r} is no metric of {self.kind}: {', '.join(known)}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest:g} is not below highest {self.highest:g}")
        return self

    @property
    def name(self) -> str:
        """The metric: what the rule is called, of which a version has one each."""
        return self.metric or _METRICS[self.kind][0]


class DriftRule(Frozen):
    """How far inputs and outputs may move from a reference before somebody is told."""

    against: str = "training"
    """`training`: what its training run said of its data; `golden`: its golden examples; or a time such as `7d`: the
    window that ended so long before the one that is looked at."""
    window: Period = "24h"
    """How far back predictions are looked at."""
    fields: tuple[Path, ...] = ()
    """JMESPath expressions below `input` and `output`, such as `input.age`; none means every field that is found."""
    psi_maximum: Annotated[float, Field(gt=0)] = 0.2
    """Population stability index of a field from which on it has drifted; 0.2 is what the field takes for a shift."""
    min_count: Annotated[int, Field(ge=1)] = 200
    """Predictions that there must be before anything is judged."""

    @model_validator(mode="after")
    def _sensible(self) -> DriftRule:
        earlier = None if self.against in ("training", "golden") else self.against
        for each in (self.window, earlier):
            if each is not None and period(each) > _LONGEST_KEPT:
                raise ValueError(
                    f"{each} is longer than observations are ever kept: give {_LONGEST_KEPT.days}d or less"
                )
        if earlier is not None and period(earlier) < period(self.window):
            raise ValueError(
                f"against {self.against} with a window of {self.window}: the two windows would overlap; go back at "
                "least as far as the window is long"
            )
        for each in self.fields:
            if root_of(each) is None:
                raise ValueError(f"the field {clip(each, 100)!r} is neither below input nor output, such as input.age")
        return self


class ServingSettings(Frozen):
    """How a version is served. A record carries a full set; the state overrides single fields.

    An override is told from a default by whether it was given (pydantic's `model_fields_set`).
    """

    min_workers: Annotated[int, Field(ge=0)] = 1
    """Workers that stay up while the version is loaded."""
    max_workers: Annotated[int, Field(ge=1)] | None = None
    """Workers under load; None means one for each CPU of the pod."""
    pods: Annotated[int, Field(ge=1)] = 1
    """Pods that serve the version in normal load."""
    max_batch_rows: Annotated[int, Field(ge=1)] = 32
    max_batch_bytes: Annotated[int, Field(ge=1)] = 4 * 1024 * 1024
    load_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Time for registering and starting the first worker."""
    predict_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Time a worker has for one call before it is restarted."""
    protocol: Literal["auto", "grpc", "rest"] = "auto"
    """How the sidecar speaks to a TorchServe that Marway's runtime did not start."""
    streaming: bool = False
    nonfinite: Literal["error", "null"] = "error"
    """What becomes of NaN and infinities in answers that are JSON, which has no such numbers: the row is refused, or
    they become null. v1 and binary v2 have them, and give them as they are."""
    retry_rows: bool = True
    """Whether rows of a batch that fails as a whole run again, each alone, so that a bad one fails alone. Without, all
    fail, and what a dead worker or server had begun is not tried elsewhere: for work that may not be done twice."""
    cache: bool = False
    """Whether a gateway may answer a request from an earlier answer to the same bytes."""
    idle_unload_s: Annotated[float, Field(gt=0)] | None = None
    """Unload after so long without a request; None means only when memory is wanted."""
    pinned: bool = False
    """Never unload to make room for others."""
    pool: str | None = None
    engine: EngineName | None = None
    """Pods of this backend alone serve the version; None means all pods that serve the backend of its record."""
    fallback: Annotated[str, AfterValidator(_checked_fallback)] | None = None
    """`MODEL/VERSION` or `MODEL/LABEL`: who answers where there is no room for a request, or no answer in time."""
    fallback_after_s: Annotated[float, Field(gt=0)] | None = None
    """How long a request waits for its own version's answer before the fallback is asked; None means to its end."""

    observe: Literal["off", "metadata", "bodies"] = "metadata"
    """What gateways keep of predictions: nothing, what is known of them, or inputs and outputs as well."""
    observe_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Which part of the predictions is kept, chosen at random."""
    observe_redact: Annotated[tuple[str, ...], AfterValidator(check_redaction)] = ()
    """What is taken out before anything is kept: JMESPath of fields of inputs and outputs, `header:NAME`, `client`; see
    `marway.redaction`."""
    observe_keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days after which `marway gc` deletes what was kept of predictions."""
    quality: tuple[QualityRule, ...] = ()
    """How good answers must turn out to be."""
    drift: DriftRule | None = None
    """What inputs and outputs are compared with, all the time; None means with nothing."""

    def problem(self) -> str | None:
        """Return which of the settings cannot be with the others, as a sentence; None where all can."""
        if self.max_workers is not None and self.min_workers > self.max_workers:
            return (
                f"serving setting 'min_workers' would be {self.min_workers}, more than 'max_workers', which is "
                f"{self.max_workers}"
            )
        if self.fallback_after_s is not None and self.fallback is None:
            return "serving setting 'fallback_after_s' says when the 'fallback' is asked, and there is none"
        return None

    def override(self, changes: ServingSettings | None) -> ServingSettings:
        """Return these settings with the fields that ``changes`` was given put in their place."""
        if changes is None:
            return self
        given = {name: getattr(changes, name) for name in changes.model_fields_set}
        return self.model_copy(update=given)
