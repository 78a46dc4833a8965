"""What errors of Open Inference servers mean: told by status *and* text, because one status stands for many things.

The table is that of `docs/open-inference.md`; each row was seen with Triton 2.51 or MLServer 1.7. A status of gRPC
counts as the one of HTTP that the same server gives for the same error over REST (`HTTP_OF`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import grpc

from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidRequest,
    MarwayError,
    ModelError,
    Overloaded,
    RuntimeDown,
    clip,
)
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.errors import about

__all__ = ["HTTP_OF", "classify", "reason_of"]

_Code = grpc.StatusCode
HTTP_OF: Final[Mapping[grpc.StatusCode, int]] = {
    _Code.INVALID_ARGUMENT: 400,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNAUTHENTICATED: 401,
    _Code.PERMISSION_DENIED: 403,
    _Code.NOT_FOUND: 404,
    _Code.ABORTED: 409,
    _Code.ALREADY_EXISTS: 409,
    _Code.FAILED_PRECONDITION: 422,
    _Code.RESOURCE_EXHAUSTED: 413,
    _Code.CANCELLED: 499,
    _Code.UNIMPLEMENTED: 501,
    _Code.UNAVAILABLE: 503,
    _Code.DEADLINE_EXCEEDED: 504,
}

_TEXT_MAX: Final = 400
_REQUEST_ID: Final = re.compile(r"^\[request id: [^\]]*\] ")
_TRACEBACK: Final = "\n\nAt:\n"
"""Triton's Python backend puts the places after it, which are files of the server's machine."""
_RAISED: Final = re.compile(r"Failed to process the request\(s\) for model '[^']*', message: ")

_Kind = Callable[[str, int, ServedModel], MarwayError]


def _not_loaded(text: str, status: int, model: ServedModel) -> MarwayError:
    return NotLoaded(f"the model server does not have {model.name} {model.version}")


def _full(text: str, status: int, model: ServedModel) -> MarwayError:
    return Overloaded(f"the model server's queue for {model.name} {model.version} is full")


def _late(text: str, status: int, model: ServedModel) -> MarwayError:
    return DeadlineExceeded(f"{model.name} {model.version} did not answer within the deadline: {text}")


def _died(text: str, status: int, model: ServedModel) -> MarwayError:
    return WorkerDied(f"the worker of {model.name} {model.version} died during the call")


def _stopping(text: str, status: int, model: ServedModel) -> MarwayError:
    return RuntimeDown(f"the model server is stopping: {text}")


def _no_memory(text: str, status: int, model: ServedModel) -> MarwayError:
    return ModelError(f"{model.name} {model.version} ran out of memory: {text}", status=507)


def _too_large(text: str, status: int, model: ServedModel) -> MarwayError:
    return BodyTooLarge(f"the request is larger than the model server takes: {text}")


def _answer_too_large(text: str, status: int, model: ServedModel) -> MarwayError:
    return ModelError(f"the answer of {model.name} {model.version} is too large to be sent: {text}")


def _wrong(text: str, status: int, model: ServedModel) -> MarwayError:
    return InvalidRequest(f"{model.name} {model.version} does not take this: {text}")


def _decoupled(text: str, status: int, model: ServedModel) -> MarwayError:
    return ModelError(
        f"{model.name} {model.version} answers in pieces (decoupled), which goes over gRPC alone: set "
        "open_inference_grpc on its pods",
        status=501,
    )


def _failed(text: str, status: int, model: ServedModel) -> MarwayError:
    return ModelError(
        f"{model.name} {model.version} failed: {text}", status=status if 400 <= status <= 599 and status != 499 else 500
    )


_TABLE: Final[tuple[tuple[frozenset[int] | None, re.Pattern[str], _Kind], ...]] = tuple(
    (frozenset(statuses) or None, re.compile(pattern), kind)
    for statuses, pattern, kind in (
        ((), r"^Request for unknown model: ", _not_loaded),  # Triton; also while one is unloaded
        ((404,), r"^Model \S+ (with version \S* ?)?not found", _not_loaded),  # MLServer
        ((400,), r"^Model \S+ (with version \S* ?)?is not ready", _not_loaded),  # MLServer
        ((400, 503), r"^Model version not ready", _not_loaded),  # Triton
        ((), r"Exceeds maximum queue size", _full),
        ((), r"Request timeout expired", _late),  # Triton's queue policy
        ((504,), r"", _late),
        ((), r"Stub process .* is not healthy", _died),  # Triton's Python backend
        ((), r"[Ss]erver is stopping|Server exiting|stopped accepting new inference requests", _stopping),
        ((), r"out of memory|std::bad_alloc|MemoryError", _no_memory),
        ((413,), r"Sent message larger than max", _too_large),
        ((413,), r"Received message larger than max", _answer_too_large),
        ((413,), r"", _too_large),
        ((), r"decoupled transaction policy", _decoupled),
        (
            (400, 500),  # Triton calls some of what is wrong with a request its own failure
            r"^(unexpected (inference (input|output)|shape for input|additional input)|inference (input|request) "
            r"|input byte size|input '|expected \d+ inputs|batch-size|failed to parse the request JSON"
            r"|[Uu]nable to (parse|get|find)|receiving \w+ data via JSON|must specify|Unexpected |missing "
            r"|shape mismatch|unsupported datatype)",
            _wrong,
        ),
        ((422,), r"", _wrong),  # MLServer, of JSON that is no request
        ((), r"", _failed),
    )
)


def classify(status: int, text: str, model: ServedModel, *, called: str) -> MarwayError:
    """Return the error of ours that a failed inference call stands for.

    Args:
        status: Of HTTP; of a gRPC call as `HTTP_OF` has it.
        text: As the server said it.
        model: The version.
        called: The server's own name of it, in whose place the version's stands.
    """
    own = _REQUEST_ID.sub("", text)
    said = reason_of(_RAISED.sub("", own), called, f"{model.name} {model.version}")
    for statuses, pattern, kind in _TABLE:
        if (statuses is None or status in statuses) and pattern.search(own):
            return about(model, kind(said, status, model))
    raise AssertionError("the last row of the table takes all")


def reason_of(text: str, called: str, title: str) -> str:
    """Return what a server says, without the places in its files, and of a model that people know by name."""
    said = text.split(_TRACEBACK)[0].strip().rstrip(";").strip()
    if called:
        said = re.sub(rf"'?{re.escape(called)}(_\d+)*'?", f"'{title}'", said)
    return clip(said, _TEXT_MAX)
