"""Problems in OpenAPI documents: gateway and sidecar describe the errors that a route can answer with in one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from marway.errors import MarwayError, RequestTooSlow
from marway.wire.problems import CONTENT_TYPE, Problem, problem_of, status_of

__all__ = ["ANSWERS", "BODIES", "RETRY_AFTER", "problem_responses", "with_edge", "with_problems", "with_values"]

Json = dict[str, Any]

_REQUEST_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
RETRY_AFTER: Final[Json] = {
    "Retry-After": {
        "description": "Seconds until another attempt makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_BINARY: Final = {"type": "string", "format": "binary"}
_FIELDS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
BODIES: Final[Json] = {
    "application/json": {
        "schema": {"description": "Any JSON value; the handler gets it parsed."},
        "examples": {
            "object": {"summary": "An object", "value": {"text": "wake me at seven"}},
            "text": {"summary": "A text", "value": "wake me at seven"},
            "rows": {"summary": "Numbers", "value": [[0.1, 0.2, 0.3]]},
        },
    },
    "text/plain": {"schema": {"type": "string"}, "example": "wake me at seven"},
    "application/octet-stream": {"schema": _BINARY},
    "image/png": {"schema": _BINARY},
    "image/jpeg": {"schema": _BINARY},
    "application/x-www-form-urlencoded": {"schema": _FIELDS, "example": {"text": "wake me at seven"}},
    "multipart/form-data": {
        "schema": {"type": "object", "additionalProperties": _BINARY, "properties": {"data": _BINARY}}
    },
}
"""The bodies that a handler is usually sent; it may be sent any other."""

ANSWERS: Final[Json] = {
    "application/json": {"schema": {"description": "Any JSON value."}},
    "text/plain": {"schema": {"type": "string"}},
    "*/*": {"schema": _BINARY},
}
"""The same of what handlers answer."""

_EDGE: Final = (
    Problem(
        title="Bad Request",
        status=400,
        code="invalid_request",
        detail="there is no Host header, which HTTP/1.1 requires of every request",
    ),
    Problem(
        title=RequestTooSlow.title,
        status=408,
        code=RequestTooSlow.code,
        detail="the request's headers did not arrive in time",
    ),
    Problem(
        title="Request Header Fields Too Large",
        status=431,
        code="headers_too_large",
        detail="at most 100 headers and 65536 bytes of them are accepted",
    ),
)
_EDGE_TITLES: Final = {
    400: "The request is no HTTP/1.1 that can be served; `detail` says why.",
    408: "The client sent the request too slowly.",
    431: "The request has more or longer headers than are accepted.",
    503: "There are too many connections; `Retry-After` says when to try again.",
}


def problem_responses(examples: Iterable[MarwayError], *, titles: Mapping[int, str]) -> dict[int | str, Json]:
    """Return a route's `responses`, one for each status among ``examples``.

    Args:
        examples: One error of each kind that the route can answer with.
        titles: What each status means there.
    """
    responses: dict[int | str, Json] = {}
    for example in examples:
        status = status_of(example)
        document, headers = problem_of(example, request_id=_REQUEST_ID)
        response = responses.setdefault(
            status,
            {
                "description": titles[status],
                "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        response["content"][CONTENT_TYPE]["examples"][example.code] = {
            "summary": example.title,
            "value": document.model_dump(exclude_none=True),
        }
        if headers:
            response["headers"] = RETRY_AFTER
    return responses


def _operations(document: Json) -> Iterator[Json]:
    return (operation for path in document["paths"].values() for operation in path.values())


def with_problems(document: Json) -> Json:
    """Add the schema of problems to a document of FastAPI's, in place of the 422 answers that nothing here gives."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for operation in _operations(document):
        operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def with_values(document: Json) -> Json:
    """Give every parameter of a path its example, which the API page then begins with."""
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path" and parameter["schema"].get("examples"):
                parameter["example"] = parameter["schema"]["examples"][0]
    return document


def with_edge(document: Json, more: Iterable[Problem] = ()) -> Json:
    """Add to every operation what a connection answers before any route is looked for: problems, whatever the route.

    Args:
        document: The document; its schemas have `Problem`.
        more: What this server's connections answer beside a malformed, a slow and a too long request.
    """
    for operation in _operations(document):
        for problem in (*_EDGE, *more):
            responses = operation["responses"]
            response = responses.setdefault(str(problem.status), {"description": _EDGE_TITLES[problem.status]})
            # Answers are shared between operations in what FastAPI makes: none is changed in place.
            content = dict(response.get("content", {}))
            said = content.get(CONTENT_TYPE, {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}})
            example = {"summary": problem.title, "value": problem.model_dump(exclude_none=True)}
            content[CONTENT_TYPE] = {**said, "examples": {problem.code: example, **said["examples"]}}
            responses[str(problem.status)] = {**response, "content": content}
            if problem.status == 503:
                responses["503"].setdefault("headers", RETRY_AFTER)
        operation["responses"] = dict(sorted(operation["responses"].items()))
    return document
