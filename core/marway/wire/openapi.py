"""Problems in OpenAPI documents: gateway and sidecar describe the errors that a route can answer with in one way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from marway.errors import MarwayError
from marway.wire.problems import CONTENT_TYPE, Problem, problem_of, status_of

__all__ = ["problem_responses", "with_problems"]

Json = dict[str, Any]

_REQUEST_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


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
            response["headers"] = {
                "Retry-After": {
                    "description": "Seconds until another attempt makes sense.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return responses


def with_problems(document: Json) -> Json:
    """Add the schema of problems to a document of FastAPI's, in place of the 422 answers that nothing here gives."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict):
                operation.get("responses", {}).pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document
