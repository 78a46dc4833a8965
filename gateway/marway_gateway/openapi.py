"""What the OpenAPI document says beside what FastAPI finds out itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from marway import errors
from marway.errors import MarwayError
from marway.wire.comparison import Comparison, FieldChange
from marway.wire.openapi import RETRY_AFTER, problem_responses, with_edge, with_problems, with_values
from marway.wire.problems import Problem, problem_of, status_of
from marway_gateway.access.authentication import OPEN_PATHS
from marway_gateway.admin.guard import WRITES
from marway_gateway.http.fast_path import FastPathApp
from marway_gateway.surfaces.error_bodies import error_body, surface_of

__all__ = [
    "ErrorText",
    "GroupId",
    "Id",
    "Timeout",
    "add_served",
    "describe",
    "error_examples",
    "error_texts",
    "problems",
    "served_by",
]

Json = dict[str, Any]

Timeout = Annotated[
    int | None, Header(description="Deadline of the whole request in milliseconds.", ge=1, examples=[2000])
]
Id = Annotated[str | None, Header(description="1 to 128 plain characters; made when absent.", max_length=128)]
GroupId = Annotated[
    str | None, Header(description="1 to 128 plain characters; given back and passed on.", max_length=128)
]

_EXAMPLES: Final[tuple[MarwayError, ...]] = (
    errors.AnswersDiffer(
        'intent 1.1 gave 1 of its 6 golden answers otherwise on pod pod-0: example 2: at label: "timer" was expected, '
        '"alarm" came; PROD stays at 1.0',
        model="intent",
        version="1.1",
    ),
    errors.ArchiveCorrupt("pod pod-0: the registry's archive 4c31ac6ef5d2… has other bytes (f3b1…)"),
    errors.BodyTooLarge("the body has 104857600 bytes; this gateway accepts at most 67108864 bytes"),
    errors.Conflict("pod pod-0: this pod is stopping, which cannot be taken back: its successor takes requests"),
    errors.DeadlineExceeded("the request's deadline of 0.5 s passed: pod a had not answered", model="intent"),
    errors.ForeignOrigin(
        "pages of 'https://app.example.com' may not send requests to this port: if they should, add the host to "
        "admin_allowed_hosts (MARWAY_GATEWAY_ADMIN_ALLOWED_HOSTS)"
    ),
    errors.InvalidInput("there is no serving setting 'batch': there are cache, idle_unload_s, load_timeout_s"),
    errors.InvalidReference("'in tent' cannot be a model id: use 1 to 63 letters, digits, '.', '_' or '-'"),
    errors.InvalidRequest("X-Request-Timeout-Ms is 'soon': give a whole number of milliseconds, 1 or more"),
    errors.LabelNotFound("model 'intent' has no label STG: its labels are PROD → 1.0", model="intent"),
    errors.LoadFailed(
        "pod pod-0: intent 1.1 cannot be loaded: FileNotFoundError: weights.pt; PROD stays at 1.0", model="intent"
    ),
    errors.MarwayError("something went wrong in the gateway; its log has it under request 4bf92f35"),
    errors.Misdirected(
        "this port is not called 'admin.example.com': if that is a name of it, add the name to admin_allowed_hosts "
        "(MARWAY_GATEWAY_ADMIN_ALLOWED_HOSTS)"
    ),
    errors.ModelError("KeyError: 'text'", model="intent", version="1.0"),
    errors.ModelNotFound("there is no model 'itent': the registry has digits, intent", model="itent"),
    errors.NoPodAvailable("no pod can take intent 1.0 now: pod a refused the connection", model="intent"),
    errors.OutcomeUnknown("the write of models/intent/state.json got no reply and cannot be read back"),
    errors.Overloaded("64 requests wait for intent 1.0 already", model="intent", version="1.0"),
    errors.PodNotFound("there is no pod 'pod-9': there are pod-0, pod-1"),
    errors.RegistryUnavailable("the registry file:///registry does not answer"),
    errors.ReleaseRefused(
        "intent 1.1 may not take the place of 1.0: its answers have other fields or types: score is now confidence; "
        "PROD stays at 1.0",
        comparison=Comparison(
            version="1.1",
            base="1.0",
            pod="pod-0",
            inputs_of="1.0",
            inputs=6,
            compared=6,
            fields=(FieldChange(field="score", change="renamed", before="number", after="number", to="confidence"),),
            refused=("its answers have other fields or types: score is now confidence",),
        ),
        model="intent",
        version="1.1",
    ),
    errors.StateConflict("intent PROD is at 1.1, not at 1.0: nothing changed", model="intent"),
    errors.Unauthenticated("this needs a token: send the header `Authorization: Bearer TOKEN`"),
    errors.Unimplemented("the model has no explanations: its handler does not look at the header `explain`"),
    errors.UnsupportedMedia("the body's Content-Encoding 'br' is not known here: send gzip, deflate or none"),
    errors.VersionNotFound("model 'intent' has no version '9': it has 1.0, 1.1", model="intent", version="9"),
)
_TITLES: Final = {
    400: "The request is wrong; `detail` says how.",
    401: "No token was given where one is wanted, or an unknown one.",
    403: "A page of another origin asked; `detail` says which.",
    404: "There is no such model, version, label or pod; `detail` names those that there are.",
    409: "It clashes with what is there; nothing was changed.",
    413: "The body is larger than the gateway accepts.",
    415: "The body is of a kind, or in a coding, that is not taken here.",
    421: "The request was meant for a host that this port is not called.",
    429: "Too many requests wait already; `Retry-After` says when to try again.",
    500: "The model's code failed, the version cannot be loaded, or something went wrong in the gateway.",
    501: "The model does not do that; `detail` says what it lacks.",
    502: "The archive's bytes are not those that were published.",
    503: "Nothing is wrong with the request; `Retry-After` says when to try again.",
    504: "The request's deadline passed first.",
}


_REQUEST_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
_FORMS: Final = {"open_inference": "ErrorText", "torchserve": "TorchServeError", "v1": "ErrorText"}
"""The schemas of the surfaces' own errors."""
_CROWDED: Final = Problem(
    title="Overloaded",
    status=503,
    code="overloaded",
    detail="this gateway serves 8192 connections already: try again",
)
"""What a connection too many is answered."""


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
            response["headers"] = RETRY_AFTER
    return responses


def problems(*kinds: type[MarwayError]) -> dict[int | str, Json]:
    """Return `responses` for the errors that a route can answer with, each with an example."""
    return problem_responses(error_examples(*kinds), titles=_TITLES)


def error_examples(*kinds: type[MarwayError]) -> list[MarwayError]:
    """Return one error of each kind, to show in documents."""
    return [each for each in _EXAMPLES if type(each) in kinds]


def served_by(handler: ASGIApp) -> type[APIRoute]:
    """Return a kind of route that FastAPI documents by its function and that ``handler`` serves."""

    class AsgiRoute(APIRoute):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.app = handler

    return AsgiRoute


def add_served(
    app: FastPathApp,
    handler: ASGIApp,
    routes: Iterable[tuple[str, Callable[..., Any], str]],
    *,
    methods: Sequence[str] = ("POST",),
    **documented: Any,
) -> None:
    """Add routes that FastAPI documents by their functions and that ``handler`` serves.

    Args:
        app: Where to.
        handler: Serves all of them.
        routes: Path, function and summary of each.
        methods: Each route has all of them; where there are several, each is an operation of its own.
        documented: More that FastAPI's routes take, such as `responses`.
    """
    route = served_by(handler)
    for path, function, summary in routes:
        for method in methods:
            app.add_fast(method, path, handler)
            several = len(methods) > 1
            app.router.add_api_route(
                path,
                function,
                methods=[method],
                name=f"{function.__name__}_{method.lower()}" if several else function.__name__,
                summary=f"{summary} ({method})" if several else summary,
                response_class=Response,
                route_class_override=route,
                **documented,
            )


def describe(app: FastAPI, *, tokens: bool, guarded: bool) -> Callable[[], Json]:
    """Return the app's `openapi` function: FastAPI's document, with what is answered before a route has a request.

    Args:
        app: The app.
        tokens: Whether it wants tokens, which each operation then says.
        guarded: Whether it refuses strangers' web pages, and writes that are no JSON.
    """
    made = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = with_values(with_problems(made()))
        used = {tag for methods in document["paths"].values() for each in methods.values() for tag in each["tags"]}
        document["tags"] = [each for each in document["tags"] if each["name"] in used]
        # Relative to the document: behind a proxy that puts a prefix before the paths, it is still right.
        document["servers"] = [{"url": "./", "description": "This port."}]
        if guarded:
            _refuse(document, (errors.ForeignOrigin, errors.Misdirected))
            _refuse(document, (errors.UnsupportedMedia,), methods=WRITES)
        if tokens:
            _want_tokens(document)
        return with_edge(document, (_CROWDED,))

    return openapi


def _want_tokens(document: Json) -> None:
    """Say in a document that every operation but those that are open wants a token."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "One of the tokens of the gateway's token file."}
    }
    _refuse(document, (errors.Unauthenticated,), but=OPEN_PATHS)
    for path, methods in document["paths"].items():
        if path not in OPEN_PATHS:
            for operation in methods.values():
                operation["security"] = [{"bearer": []}]


def _refuse(
    document: Json,
    kinds: tuple[type[MarwayError], ...],
    *,
    methods: Container[str] | None = None,
    but: Container[str] = (),
) -> None:
    """Say that operations can be refused so, each in the form of its path's surface; of all methods without any."""
    for path, operations in document["paths"].items():
        surface = surface_of(path)
        schema = {"$ref": f"#/components/schemas/{_FORMS.get(surface or '', 'Problem')}"}
        for operation in (each for method, each in operations.items() if methods is None or method.upper() in methods):
            for example in error_examples(*kinds) if path not in but else ():
                body, content_type = error_body(surface, problem_of(example, request_id=_REQUEST_ID)[0])
                said = {"summary": example.title, "value": json.loads(body)}
                operation["responses"][str(status_of(example))] = {
                    "description": _TITLES[status_of(example)],
                    "content": {content_type: {"schema": schema, "examples": {example.code: said}}},
                }
