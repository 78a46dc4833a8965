"""Feedback as clients send it, and as rows of the table `feedback`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    RootModel,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

from marway.errors import InvalidRequest, clip
from marway.refs import new_ulid
from marway_observations.schema import FEEDBACK

__all__ = ["ENTRIES_MAX", "FeedbackBody", "FeedbackEntry", "read_feedback"]

ENTRIES_MAX: Final = 10_000
"""Pieces of feedback in one call."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD_MAX: Final = timedelta(minutes=10)
"""How far a sender's clock may be ahead of ours. The newest counts: a time far ahead would beat all corrections. And
what is said now is about predictions that were made."""
_EXAMPLE: Final[JsonDict] = {"prediction_id": "01KBARM2T5A1B2C3D4E5F60718", "truth": "alarm", "source": "support"}
_ABOUT_A_GROUP: Final[JsonDict] = {"group_id": "session-17", "score": 0.8, "time": "2026-01-31T12:00:00Z"}
_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ULID_TIME: Final = 10
"""Characters of a ULID that are its time; the other 16 are random, and hex digits are among those that it may have."""
_PREDICTION_ID: Final = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
_ID: Final = r"^[A-Za-z0-9._:/+=@-]{1,128}$"
_SOURCE: Final = r"^[^\x00-\x1f\x7f]{1,128}$"
_PATTERNS: Final = {
    "prediction_id": "it is no prediction id: those are 26 characters, as the header X-Prediction-Id of an answer has",
    "request_id": "it is no request id: those are 1 to 128 letters, digits and ._:/+=@-",
    "group_id": "it is no group id: those are 1 to 128 letters, digits and ._:/+=@-",
    "source": "give 1 to 128 characters, and no line breaks or other control characters",
}
_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")


def _date_time(value: object) -> object:
    """Let through what looks like RFC 3339: pydantic would take "17" for the seventeenth second of 1970."""
    if not (isinstance(value, str) and _DATE_TIME.match(value)):
        raise ValueError("give a date and time with its zone, such as 2026-11-30T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_date_time), Field(strict=False)]


_SCALARS: Final = ("boolean", "number", "string", "object", "null")


def _as_json(truth: Any) -> str | None:
    """Return what came as JSON again; it raises where that is none, as the reader lets NaN and infinities through."""
    return None if truth is None else _JSON.encode(truth)


Truth = Annotated[
    Any,
    AfterValidator(_as_json),
    WithJsonSchema({"anyOf": [*({"type": kind} for kind in _SCALARS), {"type": "array", "items": {}}]}),
]
"""A JSON value on its way in, its text from then on."""


class FeedbackEntry(BaseModel):
    """What somebody says of one prediction, or of all of a group: `truth`, `correct`, `score`, one of them at least."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [_EXAMPLE]})

    prediction_id: str | None = Field(
        default=None,
        pattern=_PREDICTION_ID,
        description="`X-Prediction-Id` of an answer. One of the three ids is given.",
    )
    request_id: str | None = Field(
        default=None, pattern=_ID, description="`X-Request-Id`: all predictions of the request are meant."
    )
    group_id: str | None = Field(
        default=None, pattern=_ID, description="`X-Request-Group-Id`: all predictions of the group are meant."
    )
    since: Moment | None = Field(
        default=None,
        description="With a request or group id: earlier predictions are not meant. Of a group: a day before `until`.",
    )
    until: Moment | None = Field(
        default=None,
        description="With a request or group id: later predictions are not meant. Of a group: `time`.",
    )
    truth: Truth = Field(default=None, description="What the answer should have been: any JSON but null.")
    correct: bool | None = Field(default=None, description="Whether the answer was right.")
    score: float | None = Field(default=None, allow_inf_nan=False, description="How good it was, as a finite number.")
    source: str | None = Field(default=None, pattern=_SOURCE, description="Who or what says so.")
    time: Moment | None = Field(
        default=None,
        description="When it was found out; of several the newest counts. Without: now.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> FeedbackEntry:
        named = [name for name in ("prediction_id", "request_id", "group_id") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                f"it has {' and '.join(named) or 'no id'}: give one of prediction_id, request_id and group_id"
            )
        if self.truth is None and self.correct is None and self.score is None:
            raise ValueError("it says nothing: give truth, correct or score")
        for name, at in (("time", self.time), ("since", self.since), ("until", self.until)):
            if at is not None and not _BEGINNING <= at <= datetime.now(UTC) + _AHEAD_MAX:
                where = "before 1970" if at < _BEGINNING else "ahead"
                raise ValueError(f"{name} lies {where}: is the sender's clock right, and its zone?")
        self._check_window()
        return self

    def _check_window(self) -> None:
        since, until = self.since, self.until
        if since is until is None:
            return
        if self.prediction_id is not None:
            raise ValueError("since and until go with request_id or group_id: a prediction_id names one prediction")
        if until is None and self.group_id is not None:
            until = self.time or datetime.now(UTC)
        if since is not None and until is not None and since > until:
            raise ValueError("since is after until: no prediction can be meant")


class FeedbackBody(RootModel[FeedbackEntry | list[FeedbackEntry]]):
    """One piece of feedback, or a list of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, [_EXAMPLE, _ABOUT_A_GROUP]]})

    root: FeedbackEntry | Annotated[list[FeedbackEntry], Field(max_length=ENTRIES_MAX)]


_ONE: Final = TypeAdapter(FeedbackEntry)
_SEVERAL: Final = TypeAdapter(Annotated[list[FeedbackEntry], FailFast(), Field(max_length=ENTRIES_MAX)])


def read_feedback(body: bytes, *, client: str | None) -> pa.Table:
    """Return the rows that a body of JSON asks to have kept, in its order.

    Args:
        body: One entry, or a list of them.
        client: Who sends it.

    Raises:
        InvalidRequest: It is no such JSON, or an entry cannot be one; the first is named by its place.
    """
    try:
        if body.lstrip()[:1] == b"[":
            return _table(_SEVERAL.validate_json(body), client)
        return _table([_ONE.validate_json(body)], client)
    except ValidationError as exc:
        raise InvalidRequest(f"nothing was kept: {_first(exc)}") from exc


def _first(error: ValidationError) -> str:
    """Return what is wrong first, and where."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if found["type"] == "too_long":
        return f"there are more than {ENTRIES_MAX} entries: send them in several calls"
    if found["type"] == "extra_forbidden":
        known = ", ".join(FeedbackEntry.model_fields)
        found["msg"] = f"there is no such field: there are {known}"
    place = list(found["loc"])
    if found["type"] == "string_pattern_mismatch":
        found["msg"] = _PATTERNS[str(place[-1])]
    where = f"entry {place.pop(0)} (the first is 0)" if place and isinstance(place[0], int) else ""
    where = ", ".join(part for part in (where, clip(str(place[0]), 80) if place else "") if part)
    return f"{where}: {clip(found['msg'].removeprefix('Value error, '), 300)}".removeprefix(": ")


def _table(entries: Sequence[FeedbackEntry], client: str | None) -> pa.Table:
    now = datetime.now(UTC)
    columns: dict[str, list[Any]] = {
        "feedback_id": _ids(len(entries)),
        "at": [each.time or now for each in entries],
        "received_at": [now] * len(entries),
        "client": [client] * len(entries),
    }
    for name in ("prediction_id", "request_id", "group_id", "since", "until", "truth", "correct", "score", "source"):
        columns[name] = [getattr(each, name) for each in entries]
    return pa.table([pa.array(columns[field.name], field.type) for field in FEEDBACK], schema=FEEDBACK)


def _ids(count: int) -> list[str]:
    """Return new ULIDs, each greater than the one before: of two entries for one prediction the later counts."""
    time = new_ulid()[:_ULID_TIME]
    first = int.from_bytes(os.urandom(8)) >> 1
    return [f"{time}{first + number:016X}" for number in range(count)]
