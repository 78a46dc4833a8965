"""What a server's failures mean, in two tables: what goes wrong with a request, and what an answer's status says.

They are those of docs/http-backend.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from marway.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MarwayError,
    ModelError,
    Overloaded,
    clip,
)
from marway_sidecar.backends.base import Busy, NotSent, WorkerDied

__all__ = ["error_of_answer", "error_of_failure", "reason_in"]

_TEXT_MAX: Final = 300
_WAIT_MAX_S: Final = 86_400.0


def error_of_failure(exc: BaseException, where: str) -> MarwayError:
    """Return the error of ours that a request which had no answer, or half of one, stands for.

    Args:
        exc: What the client of HTTP raised.
        where: The server, for people.
    """
    text = clip(str(exc) or type(exc).__name__, _TEXT_MAX)
    match exc:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return NotSent(f"the model server at {where} takes no connection: {text}")
        case aiohttp.ClientResponseError():
            return ModelError(f"the model server at {where} answered with what is no HTTP: {text}", status=502)
        case aiohttp.InvalidURL():
            return InvalidRequest(f"the path cannot be asked of the model server: {text}")
        case ValueError():
            return InvalidRequest(f"the request has a header that HTTP cannot carry: {text}")
        case TimeoutError():
            return DeadlineExceeded(f"the model server at {where} did not answer in time")
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return WorkerDied(f"the model server at {where} ended the connection during the call: {text}")
    return MarwayError(f"the model server at {where} could not be asked: {text}")


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes, title: str) -> MarwayError | None:
    """Return the error of ours that an answer stands for; None when it is the model's own answer.

    Args:
        status: Of the answer.
        headers: Of the answer.
        body: Of the answer.
        title: The version, for people.
    """
    if status in (429, 503):
        why = f"the server of {title} takes no more now (status {status}): {reason_in(body)}"
        kind = Busy if status == 429 else Overloaded  # which may mean that it is not well
        return kind(why, retry_after_s=_seconds(headers.get("Retry-After")))
    if status == 502:
        return WorkerDied(
            f"the server of {title} lost what it had given the request to (status 502): {reason_in(body)}"
        )
    if status == 504:
        return DeadlineExceeded(f"the server of {title} gave the request up (status 504): {reason_in(body)}")
    if status >= 500:
        return ModelError(f"{title} failed: {reason_in(body)}", status=status if status <= 599 else 500)
    if 300 <= status < 400 and status != 304:
        where = clip(headers.get("Location", "elsewhere"), 200)
        why = f"the server of {title} answered with status {status}, to ask {where}: set http_predict to that"
        return ModelError(why, status=502)
    return None


def reason_in(body: bytes) -> str:
    """Return what the body of an error says: what its JSON calls message, detail or error, else its text."""
    text = body.decode(errors="replace").strip()
    try:
        found = _message(json.loads(text))
    except (ValueError, RecursionError):
        found = None
    return clip(found or text or "it gave no reason", _TEXT_MAX)


def _message(document: Any) -> str | None:
    if isinstance(document, str):
        return document
    if isinstance(document, dict):
        for name in ("message", "detail", "error"):
            if name in document and (found := _message(document[name])):
                return found
    return None


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None  # an HTTP date
    return value if value is not None and 0 <= value < _WAIT_MAX_S else None
