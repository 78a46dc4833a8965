"""What the OpenAPI document says beside what FastAPI finds out itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from marway import errors
from marway.errors import MarwayError
from marway.wire.openapi import problem_responses, with_problems
from marway.wire.problems import problem_of, status_of

__all__ = ["ErrorText", "GroupId", "Id", "Timeout", "describe", "error_texts", "problems", "served_by"]

Json = dict[str, Any]

Timeout = Annotated[
    int | None, Header(description="Deadline of the whole request in milliseconds.", ge=1, examples=[2000])
]
Id = Annotated[str | None, Header(description="1 to 128 plain characters; made when absent.", max_length=128)]
GroupId = Annotated[
    str | None, Header(description="1 to 128 plain characters; given back and passed on.", max_length=128)
]

_RETRY_AFTER: Final[Json] = {
    "Retry-After": {
        "description": "Seconds until another attempt makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    }
}

_EXAMPLES: Final[tuple[MarwayError, ...]] = (
    errors.BodyTooLarge("the body has 104857600 bytes; this gateway accepts at most 67108864 bytes"),
    errors.DeadlineExceeded("the request's deadline of 0.5 s passed: pod a had not answered", model="intent"),
    errors.InvalidReference("'in tent' cannot be a model id: use 1 to 63 letters, digits, '.', '_' or '-'"),
    errors.InvalidRequest("X-Request-Timeout-Ms is 'soon': give a whole number of milliseconds, 1 or more"),
    errors.LabelNotFound("model 'intent' has no label STG: its labels are PROD → 1.0", model="intent"),
    errors.MarwayError("something went wrong in the gateway; its log has it under request 4bf92f35"),
    errors.ModelError("KeyError: 'text'", model="intent", version="1.0"),
    errors.ModelNotFound("there is no model 'itent': the registry has digits, intent", model="itent"),
    errors.NoPodAvailable("no pod can take intent 1.0 now: pod a refused the connection", model="intent"),
    errors.Overloaded("64 requests wait for intent 1.0 already", model="intent", version="1.0"),
    errors.RegistryUnavailable("the registry file:///registry does not answer"),
    errors.VersionNotFound("model 'intent' has no version '9': it has 1.0, 1.1", model="intent", version="9"),
)
_TITLES: Final = {
    400: "The request is wrong; `detail` says how.",
    404: "There is no such model, version or label; `detail` names those that there are.",
    413: "The body is larger than the gateway accepts.",
    429: "Too many requests wait already; `Retry-After` says when to try again.",
    500: "The model's code failed on this request, or something went wrong in the gateway.",
    503: "Nothing is wrong with the request; `Retry-After` says when to try again.",
    504: "The request's deadline passed first.",
}


class ErrorText(BaseModel):
    """An error as clients of the standard inference protocols know it."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"error": "there is no model 'itent': the registry has intent"}]}
    )

    error: str = Field(description="What is wrong, and what to do.")


def error_texts(*kinds: type[MarwayError]) -> dict[int | str, Json]:
    """Return `responses` as `problems` does, for the routes of protocols whose errors are `{"error": "…"}`."""
    responses: dict[int | str, Json] = {}
    for example in (each for each in _EXAMPLES if type(each) in kinds):
        document, headers = problem_of(example)
        response = responses.setdefault(
            status_of(example),
            {
                "model": ErrorText,
                "description": _TITLES[status_of(example)].replace("`detail`", "`error`"),
                "content": {"application/json": {"examples": {}}},
            },
        )
        response["content"]["application/json"]["examples"][example.code] = {
            "summary": example.title,
            "value": {"error": document.detail},
        }
        if headers:
            response["headers"] = _RETRY_AFTER
    return responses


def problems(*kinds: type[MarwayError]) -> dict[int | str, Json]:
    """Return `responses` for the errors that a route can answer with, each with an example."""
    return problem_responses((each for each in _EXAMPLES if type(each) in kinds), titles=_TITLES)


def served_by(handler: ASGIApp) -> type[APIRoute]:
    """Return a kind of route that FastAPI documents by its function and that ``handler`` serves."""

    class AsgiRoute(APIRoute):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.app = handler

    return AsgiRoute


def describe(app: FastAPI) -> Callable[[], Json]:
    """Return the app's `openapi` function: FastAPI's document, with problems for the 422 answers it never gives."""
    made = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is not None:
            return app.openapi_schema
        return with_problems(made())

    return openapi
