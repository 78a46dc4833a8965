"""What a gateway answers: the model's value with its ids, or the error that it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final

import httpx

from marway import errors
from marway.client.calls import Call
from marway.errors import MarwayError, ModelError, Unauthenticated, clip
from marway.wire import headers as wire
from marway.wire import problems

__all__ = ["Answer", "ModelRefused", "answer_of", "error_of", "named", "retry_after_s", "value_of"]

_BY_STATUS: Final[Mapping[int, type[MarwayError]]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    404: errors.NotFound,
    408: errors.RequestTooSlow,
    413: errors.BodyTooLarge,
    415: errors.UnsupportedMedia,
    429: errors.Overloaded,
    501: errors.Unimplemented,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}
"""What errors without a code mean: those of proxies, and of protocols that have none."""


@dataclass(frozen=True, repr=False)
class Answer:
    """A model's answer, with what is known of it.

    Attributes:
        status: HTTP status, which the handler may have chosen.
        headers: All of its headers; names in any case.
        content: The body as it came.
        attempts: How often the gateway was asked, 1 or more.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    attempts: int = 1

    @cached_property
    def value(self) -> Any:
        """The answer itself: parsed JSON, text or bytes, by its content type.

        Raises:
            MarwayError: It is not what its content type says; `content` has it as it came.
        """
        try:
            return value_of(self.content, self.content_type)
        except MarwayError as exc:
            exc.request_id, exc.prediction_id = self.request_id, self.prediction_id
            raise

    def __repr__(self) -> str:
        shown = clip(repr(self.content if self.status >= 400 else self.value), 200)
        return f"<Answer {shown} of {self.model}/{self.version}, prediction {self.prediction_id}>"

    @property
    def prediction_id(self) -> str | None:
        """Which prediction it is, as feedback and `marway why` name it."""
        return self.headers.get(wire.PREDICTION_ID)

    @property
    def request_id(self) -> str | None:
        """Which request it answers, as every log has it."""
        return self.headers.get(wire.REQUEST_ID)

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return self.headers.get(wire.MODEL_NAME)

    @property
    def version(self) -> str | None:
        """The version that answered."""
        return self.headers.get(wire.MODEL_VERSION)

    @property
    def content_type(self) -> str:
        """Its content type, or nothing."""
        return self.headers.get("content-type", "")

    @property
    def timing(self) -> dict[str, float]:
        """Where the time went in the gateway, in milliseconds: `resolve`, `pod`, `model`, `total`."""
        found: dict[str, float] = {}
        for entry in self.headers.get(wire.SERVER_TIMING, "").split(","):
            name, *parameters = (part.strip() for part in entry.split(";"))
            for parameter in parameters:
                if parameter.startswith("dur="):
                    found[name] = float(parameter[4:])
        return found


class ModelRefused(ModelError):
    """The model answered in words of its own, with a status of 400 or more.

    Attributes:
        answer: What it answered.
    """

    def __init__(self, message: str, *, answer: Answer) -> None:
        super().__init__(message, status=answer.status, model=answer.model, version=answer.version)
        self.answer = answer


def answer_of(response: httpx.Response, content: bytes, call: Call, *, attempts: int) -> Answer:
    """Return the answer to a call.

    Raises:
        MarwayError: What went wrong, with the ids of the request.
    """
    if response.status_code >= 300:
        raise error_of(response, content, call, attempts=attempts)
    return Answer(response.status_code, response.headers, content, attempts)


def value_of(content: bytes, content_type: str) -> Any:
    """Return a body as its content type says: parsed JSON, text, or bytes.

    Raises:
        MarwayError: It is not what it says.
    """
    kind, _, parameters = content_type.lower().partition(";")
    kind = kind.strip()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            return json.loads(content)
        if kind.startswith("text/"):
            return content.decode(_charset(parameters))
    except (ValueError, LookupError, RecursionError) as exc:
        raise MarwayError(
            f"the answer says that it is {clip(content_type, 80)}, and is none ({exc}): {clip(repr(content[:200]))}"
        ) from exc
    return content


def error_of(response: httpx.Response, content: bytes, call: Call, *, attempts: int = 1) -> MarwayError:
    """Return the error that an answer with a status of 300 or more stands for."""
    status, headers = response.status_code, response.headers
    kind = headers.get("content-type", "")
    if kind.startswith(problems.CONTENT_TYPE):
        error = problems.parse_problem(content, status=status, retry_after_s=retry_after_s(headers))
        if isinstance(error, Unauthenticated):
            sent = "the one that was sent is not known" if "authorization" in call.headers else "none was sent"
            error = Unauthenticated(f"{error.message} ({sent})")
    elif 300 <= status < 400:
        error = MarwayError(
            f"{call.shown_url} leads to {headers.get('location')!r} with status {status}: "
            "give the client the URL to ask"
        )
    elif wire.MODEL_NAME in headers:
        answer = Answer(status, headers, content, attempts)
        error = ModelRefused(
            f"the model answered with status {status}: {clip(content.decode(errors='replace'))}", answer=answer
        )
    else:
        text = (
            _error_text(content)
            or f"status {status} from {call.shown_url}: {clip(content.decode(errors='replace'), 200)}"
        )
        kind_of_error = _BY_STATUS.get(status, MarwayError)
        if status == 502 and not call.repeatable:  # of a proxy, which may have passed the request on before
            kind_of_error = errors.OutcomeUnknown
        error = kind_of_error(text, model=call.model, retry_after_s=retry_after_s(headers))
    error.status = status
    return named(error, call, headers)


def named(error: MarwayError, call: Call, headers: Mapping[str, str] | None = None) -> MarwayError:
    """Return an error with the ids, model and version of the request that it is about."""
    found = {} if headers is None else headers
    error.request_id = found.get(wire.REQUEST_ID, call.request_id)
    error.prediction_id = found.get(wire.PREDICTION_ID)
    error.model = error.model or found.get(wire.MODEL_NAME, call.model)
    error.version = error.version or found.get(wire.MODEL_VERSION)
    return error


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks to wait, as a number or a date (RFC 9110 §10.2.3)."""
    given = headers.get(wire.RETRY_AFTER)
    if given is None:
        return None
    if given.strip().isdecimal():
        return float(given)
    try:
        at = parsedate_to_datetime(given)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())


def _error_text(content: bytes) -> str | None:
    """Return what an error of the protocols v1 and v2 says, `{"error": "…"}`, None where it is no such document."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    given = document.get("error") if isinstance(document, dict) and len(document) == 1 else None
    return given if isinstance(given, str) else None


def _charset(parameters: str) -> str:
    for each in parameters.split(";"):
        name, _, value = each.strip().partition("=")
        if name == "charset":
            return value.strip("\"'") or "utf-8"
    return "utf-8"
