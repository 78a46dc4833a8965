"""What Multi Model Server's errors mean: told by type *and* text, because one status stands for many things.

The table is that of `docs/mms.md`; each row was seen with the 1.1.11 server.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidRequest,
    MarwayError,
    ModelError,
    Overloaded,
    clip,
)
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.errors import about

__all__ = ["ServerError", "classify", "died_or_late", "server_error"]

_TYPES: Final = frozenset(
    {
        "BadRequestException",
        "ConflictStatusException",
        "DownloadModelException",
        "InternalServerException",
        "InvalidModelException",
        "MethodNotAllowedException",
        "ModelNotFoundException",
        "RequestTimeoutException",
        "ResourceNotFoundException",
        "ServiceUnavailableException",
    }
)


class ServerError(NamedTuple):
    """An error in the form in which the server gives its own: status, type and message."""

    status: int
    kind: str
    message: str


def server_error(status: int, body: bytes) -> ServerError | None:
    """Return the server's own error that an answer is; None when it is none, or the handler's own answer."""
    if status < 400:
        return None
    try:
        document = json.loads(body)
        if set(document) == {"code", "type", "message"} and document["type"] in _TYPES and document["code"] == status:
            return ServerError(status, document["type"], str(document["message"]))
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def classify(status: int, body: bytes, model: ServedModel) -> MarwayError | None:
    """Return the error of ours that the answer to a prediction stands for; None when it is the handler's own answer."""
    if status == 413 and not body:
        message = "the request is larger than Multi Model Server takes (max_request_size): send less at once"
        return about(model, BodyTooLarge(message))
    error = server_error(status, body)
    return about(model, _meaning(error, model)) if error is not None else None


def died_or_late(error: WorkerDied, model: ServedModel, *, after_s: float, within_s: float) -> MarwayError:
    """Return what it means that a worker died ``after_s`` seconds into a call.

    The server ends one that takes longer than ``within_s``, and says of it what it says of any dead one.
    """
    if after_s < within_s:
        return error
    title = f"{model.name} {model.version}"
    return about(model, DeadlineExceeded(f"{title} did not answer in its time, {within_s:g} s: its worker was ended"))


def _meaning(error: ServerError, model: ServedModel) -> MarwayError:
    title = f"{model.name} {model.version}"
    match error.kind:
        case "ModelNotFoundException" | "ResourceNotFoundException":
            return NotLoaded(f"Multi Model Server does not have {title}")
        case "ServiceUnavailableException":
            return Overloaded(f"{title} has no worker in Multi Model Server, or its queue there is full")
        case "InternalServerException" if error.status == 500 and error.message == "Worker died.":
            return WorkerDied(f"the worker of {title} died during the call")
        case "InternalServerException" if error.status == 507:
            return ModelError(f"{title} ran out of memory", status=507)
        case "InternalServerException":
            # 503 is what the server calls any exception of a handler; another is the handler's own choice.
            status = 500 if error.status == 503 else error.status
            return ModelError(f"the handler of {title} failed: {clip(error.message, 300)}", status=min(status, 599))
        case _:
            return InvalidRequest(f"Multi Model Server refuses the request to {title}: {clip(error.message, 300)}")
