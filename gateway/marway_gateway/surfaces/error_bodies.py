"""The one table from surface to error body: each protocol's clients read errors in the form that they know.

The status and `Retry-After` are the same everywhere; only the body's form differs. What belongs to no surface is
answered with a problem document.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from marway.wire import problems
from marway.wire.problems import Problem

__all__ = ["error_body", "surface_of", "torchserve_exception"]

_JSON: Final = "application/json"
_PATHS: Final = {
    "/api-description": "torchserve",
    "/explanations": "torchserve",
    "/invocations": "torchserve",
    "/ping": "torchserve",
    "/predictions": "torchserve",
    "/v1": "v1",
    "/v2": "open_inference",
    "/wfpredict": "torchserve",
    "/workflows": "torchserve",
}
"""What lies under these paths is of these surfaces, also where it is no prediction."""

_TORCHSERVE_TYPES: Final[Mapping[int, str]] = {
    400: "BadRequestException",
    401: "InvalidKeyException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    409: "ConflictStatusException",
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    429: "ServiceUnavailableException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
}
_TORCHSERVE_TYPES_BY_CODE: Final[Mapping[str, str]] = {
    "model_not_found": "ModelNotFoundException",
    "version_not_found": "ModelVersionNotFoundException",
    "label_not_found": "ModelVersionNotFoundException",
}


def error_body(surface: str | None, problem: Problem) -> tuple[bytes, str]:
    """Return the body for ``problem`` in the form of ``surface``, and its content type."""
    form = _FORMS.get(surface or "")
    return form(problem) if form is not None else (problem.body(), problems.CONTENT_TYPE)


def surface_of(path: str) -> str | None:
    """Return the surface that a path is of by its beginning, whether or not there is such a route; None for others."""
    return _PATHS.get(f"/{path[1:].partition('/')[0]}")


def torchserve_exception(problem: Problem) -> str:
    """Return the name of the exception that TorchServe would have thrown."""
    return _TORCHSERVE_TYPES_BY_CODE.get(problem.code) or _TORCHSERVE_TYPES.get(
        problem.status, "InternalServerException"
    )


def _torchserve(problem: Problem) -> tuple[bytes, str]:
    """TorchServe's own form; the names of its Java exceptions are what some clients look at."""
    document = {"code": problem.status, "type": torchserve_exception(problem), "message": problem.detail}
    return json.dumps(document).encode(), _JSON


def _text(problem: Problem) -> tuple[bytes, str]:
    """The form of TensorFlow Serving, KServe and the Open Inference Protocol."""
    return json.dumps({"error": problem.detail}).encode(), _JSON


_FORMS: Final[Mapping[str, Callable[[Problem], tuple[bytes, str]]]] = {
    "open_inference": _text,
    "torchserve": _torchserve,
    "v1": _text,
}
