"""What is asked of what was kept of predictions, and what is answered: without what reads Parquet, which is large."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from marway.stored import Frozen, JsonValue
from marway_observations.evaluate.results import Quality
from marway_observations.moments import SINCE_OF_ID

__all__ = [
    "SEARCH_MAX",
    "Body",
    "ErrorGroup",
    "Explain",
    "Explanation",
    "Figures",
    "LatencyPoint",
    "ModelFigures",
    "PredictionRow",
    "Search",
    "SearchResult",
]

SEARCH_MAX: Final = 200
"""Most predictions that one search shows."""
_CELL = Annotated[str, Field(max_length=200)]


class Search(Frozen):
    """What is looked for; all that is given must hold.

    Attributes:
        id: A prediction's or a request's.
        since, until: How long ago, such as `24h`, or a time in ISO 8601. Without `since` the last 24 hours are looked
            through; for an id, from when it says that it was made, or the last 7 days.
        limit: At most so many, the newest.
    """

    model: _CELL | None = None
    version: _CELL | None = None
    label: _CELL | None = None
    id: _CELL | None = None
    group: _CELL | None = None
    outcome: _CELL | None = None
    failed: bool = False
    since: _CELL | None = None
    until: _CELL | None = None
    limit: Annotated[int, Field(ge=1, le=SEARCH_MAX)] = 50


class PredictionRow(Frozen):
    """One prediction in a list. Times are seconds; `answer` is its beginning, where it was kept, of content type
    `answer_type`; one that is no text is `base64:` and its bytes.
    """

    prediction_id: str
    request_id: str | None
    group_id: str | None
    model: str
    version: str
    label: str | None
    role: str
    at: datetime
    surface: str
    client: str | None
    pod: str | None
    status: str | None
    outcome: str
    error: str | None
    duration_s: float
    bodies: str
    answer_type: str | None
    answer: str | None
    truth: str | None
    correct: bool | None
    score: float | None


class SearchResult(Frozen):
    """What was found, newest first.

    Attributes:
        since, until: The time that was looked through.
        more: Whether there are more, older ones.
        left_out: Files that could not be read, and why.
    """

    since: datetime
    until: datetime
    predictions: tuple[PredictionRow, ...]
    more: bool
    left_out: tuple[str, ...] = ()


class Explain(Frozen):
    """Which prediction is to be told of, by its id or its request's; from when on, where the id does not say that."""

    id: _CELL
    model: _CELL | None = None
    since: _CELL = SINCE_OF_ID


class Body(Frozen):
    """An input or an answer as it was kept, after what the serving setting `observe_redact` removes.

    Attributes:
        text: As text, cut after 256 KiB; None where it is none.
        base64: Its bytes, where it is no text.
    """

    content_type: str | None
    size_bytes: int
    text: str | None = None
    base64: str | None = None
    cut: bool = False


class Explanation(Frozen):
    """All that is known of one prediction: `why` is as `marway why ID --json` prints it."""

    why: dict[str, JsonValue]
    input: Body | None
    output: Body | None
    left_out: tuple[str, ...] = ()


class Figures(Frozen):
    """Which model's figures are wanted, and how far back, such as `24h`, or from which time on."""

    model: _CELL
    since: _CELL = "24h"


class LatencyPoint(Frozen):
    """What callers waited for a version in a stretch of time that begins at `at`, in seconds; failures count as well.

    Attributes:
        requests: How many predictions that is of, also those that a share of observations stands for.
        errors: Those of them that were a fault of the model, its pod or Marway.
    """

    version: str
    at: datetime
    p50_s: float
    p99_s: float
    requests: int
    errors: int


class ErrorGroup(Frozen):
    """Failures of a version that have one code: how many were kept, and the newest of them."""

    version: str
    outcome: str
    error: str | None
    kept: int
    last_at: datetime
    request_id: str | None
    prediction_id: str
    pod: str | None


class ModelFigures(Frozen):
    """How a model's versions did.

    Attributes:
        model: Its name.
        since, until: The time that was looked through, for all but quality, whose rules have windows of their own.
        bucket_s: How long the stretches of `latency` are, in seconds.
        latency: In order of version and time; stretches without a prediction are left out.
        quality: By the rules that versions declare, else what feedback says without one; of all labels together.
        errors: The newest first.
        left_out: Files that could not be read, and why.
    """

    model: str
    since: datetime
    until: datetime
    bucket_s: float
    latency: tuple[LatencyPoint, ...]
    quality: tuple[Quality, ...]
    errors: tuple[ErrorGroup, ...]
    left_out: tuple[str, ...] = ()
