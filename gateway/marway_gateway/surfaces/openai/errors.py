"""Errors in OpenAI's form, by which its clients choose the exception that they raise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from marway.errors import InvalidRequest, MarwayError, clip
from marway.wire.problems import Problem, problem_of
from marway_gateway.http.error_bodies import ErrorForm
from marway_gateway.json_models import JsonModel, examples

__all__ = ["OPENAI_ERRORS", "OpenAIError", "Refused", "error_document", "passed_error"]

_MODEL_NOT_FOUND: Final = "model_not_found"
_CODES: Final[Mapping[str, str]] = {
    "label_not_found": _MODEL_NOT_FOUND,
    "version_not_found": _MODEL_NOT_FOUND,
    "overloaded": "rate_limit_exceeded",
    "unauthenticated": "invalid_api_key",
}
"""Of errors that OpenAI has a code for; all others keep Marway's."""
_MESSAGE_MAX: Final = 2000


class Refused(InvalidRequest):
    """A request that the surface cannot serve because of one of its parameters.

    Args:
        message: What is wrong, and what to send instead.
        param: The parameter's name.
    """

    def __init__(self, message: str, *, param: str | None = None, **about: Any) -> None:
        super().__init__(message, **about)
        self.param = param


class OpenAIErrorFields(JsonModel):
    """What is wrong with a request, or went wrong."""

    message: str = Field(description="What is wrong, and what to do.")
    type: str = Field(description="`invalid_request_error`, `rate_limit_error` or `server_error`.")
    param: str | None = Field(description="The parameter that is wrong, where it is one.")
    code: str | None = Field(description="A stable name of the error: OpenAI's where it has one, else Marway's.")


class OpenAIError(JsonModel):
    """An error as OpenAI's clients know it."""

    model_config = examples(
        {
            "error": {
                "message": "there is no model 'chta': the registry has chat",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        }
    )

    error: OpenAIErrorFields


def _document(problem: Problem, param: str | None = None) -> dict[str, Any]:
    code = _CODES.get(problem.code, problem.code)
    if code == _MODEL_NOT_FOUND:
        param = "model"
    return {"error": {"message": problem.detail, "type": _type_of(problem.status), "param": param, "code": code}}


OPENAI_ERRORS: Final = ErrorForm(OpenAIError, _document, "error.message")


def error_document(error: MarwayError) -> tuple[int, bytes]:
    """Return the status of an error, and its document."""
    problem, _ = problem_of(error)
    return problem.status, json.dumps(_document(problem, getattr(error, "param", None))).encode()


def passed_error(status: int, data: bytes) -> bytes:
    """Return the document for what a model server or a handler answered with a status of 400 or more.

    One in OpenAI's form goes on as it is; of any other what it says becomes the message.
    """
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = data.decode(errors="replace")
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        return data
    message = said
    if isinstance(said, dict):
        # Of handlers; of FastAPI; of vLLM before 0.10.
        message = next((said[name] for name in ("error", "detail", "message") if said.get(name)), said)
    text = message if isinstance(message, str) else json.dumps(message)
    fields = {"message": clip(text, _MESSAGE_MAX), "type": _type_of(status), "param": None, "code": "model_error"}
    return json.dumps({"error": fields}).encode()


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
