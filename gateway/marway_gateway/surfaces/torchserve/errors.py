"""Errors in TorchServe's form: `{"code", "type", "message"}`, the type being the name of an exception of its Java."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from marway.wire.problems import Problem
from marway_gateway.http.error_bodies import ErrorForm
from marway_gateway.json_models import JsonModel, examples

__all__ = ["TORCHSERVE_ERRORS", "TorchServeError", "torchserve_exception"]

_BY_STATUS: Final[Mapping[int, str]] = {
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
_BY_CODE: Final[Mapping[str, str]] = {
    "model_not_found": "ModelNotFoundException",
    "workflow_not_found": "WorkflowNotFoundException",
    "version_not_found": "ModelVersionNotFoundException",
    "label_not_found": "ModelVersionNotFoundException",
}


class TorchServeError(JsonModel):
    """An error as TorchServe's clients know it."""

    model_config = examples(
        {"code": 404, "type": "ModelNotFoundException", "message": "there is no model 'itent': ..."}
    )

    code: int = Field(description="The HTTP status.")
    type: str = Field(description="The name of TorchServe's exception.")
    message: str = Field(description="What is wrong, and what to do.")


def torchserve_exception(problem: Problem) -> str:
    """Return the name of the exception that TorchServe would have thrown; some clients look at it."""
    return _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status, "InternalServerException")


TORCHSERVE_ERRORS: Final = ErrorForm(
    TorchServeError,
    lambda problem: {"code": problem.status, "type": torchserve_exception(problem), "message": problem.detail},
    "message",
)
