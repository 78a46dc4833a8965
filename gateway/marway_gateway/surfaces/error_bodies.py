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

__all__ = ["error_body", "surface_at"]

_JSON: Final = "application/json"
_AT: Final = (("/v2", "open_inference"), ("/v1", "v1"))
"""What lies under these paths is of these surfaces, also where it is no prediction."""

_TORCHSERVE_TYPES: Final[Mapping[int, str]] = {
    400: "BadRequestException",
    404: "ResourceNotFoundException",
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


def surface_at(path: str) -> str | None:
    """Return the surface that a path is of by its beginning, whether or not there is such a route; None for others."""
    return next((surface for start, surface in _AT if path == start or path.startswith(f"{start}/")), None)


def _torchserve(problem: Problem) -> tuple[bytes, str]:
    """TorchServe's own form; the names of its Java exceptions are what some clients look at."""
    kind = _TORCHSERVE_TYPES_BY_CODE.get(problem.code) or _TORCHSERVE_TYPES.get(
        problem.status, "InternalServerException"
    )
    return json.dumps({"code": problem.status, "type": kind, "message": problem.detail}).encode(), _JSON


def _text(problem: Problem) -> tuple[bytes, str]:
    """The form of TensorFlow Serving, KServe and the Open Inference Protocol."""
    return json.dumps({"error": problem.detail}).encode(), _JSON


_FORMS: Final[Mapping[str, Callable[[Problem], tuple[bytes, str]]]] = {
    "open_inference": _text,
    "torchserve": _torchserve,
    "v1": _text,
}
