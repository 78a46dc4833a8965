"""The form of error bodies: the clients of each protocol read errors in the form that they know.

The status and `Retry-After` are the same everywhere. Each surface's form is added where the surfaces are registered
(`marway_gateway.surfaces.registered`); what belongs to no surface is answered with a problem document.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.types import Receive, Send

from marway.wire import problems
from marway.wire.problems import Problem
from marway_gateway.json_models import JsonModel, examples

__all__ = [
    "ERROR_TEXT",
    "ErrorForm",
    "ErrorText",
    "add_error_form",
    "error_body",
    "error_form",
    "send_problem",
    "surface_of",
]


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """How a surface writes errors, which are JSON objects.

    Attributes:
        model: Describes them in the OpenAPI document.
        document: Makes one of a problem.
        detail: The member that says what is wrong, as a problem's `detail` does.
    """

    model: type[BaseModel]
    document: Callable[[Problem], dict[str, Any]]
    detail: str


class ErrorText(JsonModel):
    """An error as clients of the standard inference protocols know it."""

    model_config = examples({"error": "there is no model 'itent': the registry has intent"})

    error: str = Field(description="What is wrong, and what to do.")


ERROR_TEXT: Final = ErrorForm(ErrorText, lambda problem: {"error": problem.detail}, "error")
"""The form of TensorFlow Serving, KServe and the Open Inference Protocol."""
_FORMS: Final[dict[str, ErrorForm]] = {}
_SURFACES: Final[dict[str, str]] = {}
_LINGER_S: Final = 2.0


def add_error_form(surface: str, form: ErrorForm, segments: Iterable[str]) -> None:
    """Have errors of a surface, and of all paths whose first segment is one of ``segments``, written in a form."""
    _FORMS[surface] = form
    _SURFACES.update(dict.fromkeys(segments, surface))


def error_form(surface: str | None) -> ErrorForm | None:
    """Return the form of a surface's errors; None stands for problem documents."""
    return _FORMS.get(surface or "")


def error_body(surface: str | None, problem: Problem) -> tuple[bytes, str]:
    """Return the body for ``problem`` in the form of ``surface``, and its content type."""
    form = error_form(surface)
    if form is None:
        return problem.body(), problems.CONTENT_TYPE
    return json.dumps(form.document(problem)).encode(), "application/json"


def surface_of(path: str) -> str | None:
    """Return the surface that a path is of by its first segment, whether or not there is such a route, or None."""
    return _SURFACES.get(path[1:].partition("/")[0])


async def send_problem(
    send: Send,
    problem: Problem,
    headers: Iterable[tuple[str, str]] = (),
    *,
    surface: str | None = None,
    unread: Receive | None = None,
) -> None:
    """Answer with a problem, in the form of ``surface``.

    Args:
        send: Takes the answer.
        problem: What is wrong.
        headers: Further ones.
        surface: Whose form; None stands for a problem document.
        unread: Gives what the client still sends of a body that nobody wants. Closing while it sends makes its kernel
            throw our answer away (RFC 9112 §9.6), so that is read for a short while and dropped.
    """
    body, content_type = error_body(surface, problem)
    raw = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": unread is not None})
    if unread is None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await unread()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
