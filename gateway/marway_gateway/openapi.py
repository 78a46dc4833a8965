"""The OpenAPI document: errors with examples, and routes that FastAPI documents and another handler serves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, Path, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp

from marway import errors
from marway.errors import MarwayError
from marway.wire.problems import CONTENT_TYPE, Problem
from marway_gateway.access.authentication import OPEN_PATHS
from marway_gateway.access.origins import WRITES
from marway_gateway.error_examples import ERROR_EXAMPLES
from marway_gateway.http.error_bodies import ErrorForm, error_form, surface_of
from marway_gateway.http.requests import FastPathApp
from marway_http.pages.openapi import problem_responses, with_edge, with_problems, with_values

__all__ = [
    "PREDICTION_ERRORS",
    "REFERENCE_ERRORS",
    "REQUEST_HEADERS",
    "Label",
    "Model",
    "Selector",
    "add_served",
    "describe",
    "error_responses",
    "problems",
]

Json = dict[str, Any]

Model = Annotated[
    str, Path(description="A model's name, which means its version at PROD, or a model id.", examples=["intent"])
]
Selector = Annotated[str, Path(description="A version, or a label.", examples=["PROD", "1.0"])]
Label = Annotated[str, Path(description="A label.", examples=["PROD"])]
_IN_PATHS: Final[Mapping[str, Any]] = {"model": Model, "selector": Selector, "label": Label}
REQUEST_HEADERS: Final[Mapping[str, Any]] = {
    "x_request_timeout_ms": Annotated[
        int | None, Header(description="Deadline of the whole request in milliseconds.", ge=1, examples=[2000])
    ],
    "x_request_id": Annotated[
        str | None, Header(description="1 to 128 plain characters; made when absent.", max_length=128)
    ],
    "x_request_group_id": Annotated[
        str | None, Header(description="1 to 128 plain characters; given back and passed on.", max_length=128)
    ],
}
"""What every prediction over HTTP may say of itself."""

REFERENCE_ERRORS: Final = (
    *(errors.InvalidReference, errors.ModelNotFound, errors.VersionNotFound, errors.LabelNotFound),
    errors.RegistryUnavailable,
)
"""What a route can answer that finds a version."""
PREDICTION_ERRORS: Final = (
    *REFERENCE_ERRORS,
    *(errors.InvalidRequest, errors.BodyTooLarge, errors.UnsupportedMedia, errors.Overloaded, errors.ModelError),
    *(errors.MarwayError, errors.NoPodAvailable, errors.DeadlineExceeded, errors.SequenceNotFound),
)
"""What a route can answer that predicts."""
_OF_PREDICTIONS: Final[Json] = {
    "X-Prediction-Id": {
        "description": "Which prediction this is, by which it is found again and feedback names it: a ULID. Errors "
        "have one as well, once a request was let in.",
        "schema": {"type": "string"},
        "example": "01JZ3W5N8Q3F6A0C91D24B7E58",
    },
    "X-Marway-Traffic": {
        "description": "Who answered, while the label is divided between two versions: `base`, which is the one that "
        "it points at, or `candidate`.",
        "schema": {"type": "string", "enum": ["base", "candidate"]},
        "example": "base",
    },
    "X-Marway-Fallback": {
        "description": "`MODEL/VERSION` that was asked in the place of the one that had no room, or had not answered "
        "in time: its serving settings name it as `fallback`.",
        "schema": {"type": "string"},
        "example": "intent-small/1.0",
    },
}
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
_ANY: Final[Json] = {"description": "Any JSON value."}
_SCALARS: Final = [{"type": "boolean"}, {"type": "integer"}, {"type": "number"}, {"type": "string"}]
_WITHOUT_END: Final[Json] = {
    **dict.fromkeys(("JsonValue", "JsonValue-Input", "JsonValue-Output"), _ANY),
    "Elements": {
        "description": "Elements, flat or in lists of lists as the shape is.",
        "type": "array",
        "items": {"anyOf": [*_SCALARS, {"type": "array", "items": {}}]},
    },
}
"""Schemas in the place of those that contain themselves: generators of clients leave out all that has one."""
_CROWDED: Final = Problem(
    title="Overloaded",
    status=503,
    code="overloaded",
    detail="this gateway serves 8192 connections already: try again",
)
"""What a connection too many is answered."""


def problems(*kinds: type[MarwayError]) -> dict[int | str, Json]:
    """Return `responses` for the errors that a route can answer with, each with an example."""
    return problem_responses((each for each in ERROR_EXAMPLES if type(each) in kinds), titles=_TITLES)


def error_responses(form: ErrorForm | None, *kinds: type[MarwayError]) -> dict[int | str, Json]:
    """Return `responses` as `problems` does, for the routes of a surface that writes errors in a form of its own."""
    responses = problems(*kinds)
    if form is None:
        return responses
    for response in responses.values():
        content = response.pop("content")[CONTENT_TYPE]
        for example in content["examples"].values():
            example["value"] = form.document(Problem(**example["value"]))
        content["schema"] = {"$ref": f"#/components/schemas/{form.model.__name__}"}
        response["description"] = response["description"].replace("`detail`", f"`{form.detail}`")
        response["content"] = {"application/json": content}
        response["model"] = form.model
    return responses


def add_served(
    app: FastPathApp,
    handler: ASGIApp,
    routes: Iterable[tuple[str, str, str]],
    *,
    methods: Sequence[str] = ("POST",),
    body: type[BaseModel] | None = None,
    headers: Mapping[str, Any] = REQUEST_HEADERS,
    predicts: bool = True,
    **documented: Any,
) -> None:
    """Add routes that FastAPI documents and that ``handler`` serves.

    Args:
        app: Where to.
        handler: Serves all of them.
        routes: Path, name and summary of each. In paths, `{model}`, `{selector}` and `{label}` are known.
        methods: Each route has all of them; where there are several, each is an operation of its own.
        body: What the body holds, where it is JSON.
        headers: The types of request headers, by their names with underscores.
        predicts: Whether answers are predictions, which have an id each.
        documented: More that FastAPI's routes take, such as `responses`.
    """
    if predicts:
        responses = documented.get("responses", {})
        answer = responses.get(200, {})
        answer = {**answer, "headers": {**_OF_PREDICTIONS, **answer.get("headers", {})}}
        documented["responses"] = {**responses, 200: answer}

    class AsgiRoute(APIRoute):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.app = handler

    for path, name, summary in routes:
        for method in methods:
            app.add_fast(method, path, handler)
            several = len(methods) > 1
            app.router.add_api_route(
                path,
                _described(path, body, headers),
                methods=[method],
                name=f"{name}_{method.lower()}" if several else name,
                summary=f"{summary} ({method})" if several else summary,
                response_class=Response,
                route_class_override=AsgiRoute,
                **documented,
            )


def _described(path: str, body: type[BaseModel] | None, headers: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that FastAPI takes a route's parameters from."""

    async def never_called() -> None:
        raise NotImplementedError  # the route's handler gets its requests

    wanted = {name: _IN_PATHS[name] for name in re.findall(r"{(\w+)}", path)} | ({} if body is None else {"body": body})
    never_called.__signature__ = Signature(  # type: ignore[attr-defined]  # any function may have one (PEP 362)
        [
            *(Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in wanted.items()),
            *(Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=None) for name, kind in headers.items()),
        ]
    )
    return never_called


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
        schemas = document["components"]["schemas"]
        schemas |= {name: kind for name, kind in _WITHOUT_END.items() if name in schemas}
        # Relative to the document: behind a proxy that puts a prefix before the paths, it is still right.
        document["servers"] = [{"url": "./", "description": "This port."}]
        if tokens:
            described = {
                "type": "http",
                "scheme": "bearer",
                "description": "One of the tokens of the gateway's token file.",
            }
            document["components"]["securitySchemes"] = {"bearer": described}
        for path, operations in document["paths"].items():
            form, secured = error_form(surface_of(path)), tokens and path not in OPEN_PATHS
            for method, operation in operations.items():
                kinds: list[type[MarwayError]] = [errors.ForeignOrigin, errors.Misdirected] if guarded else []
                if guarded and method.upper() in WRITES:
                    kinds.append(errors.UnsupportedMedia)
                if secured:
                    kinds.append(errors.Unauthenticated)
                    operation["security"] = [{"bearer": []}]
                for status, response in error_responses(form, *kinds).items():
                    refused = {"description": response["description"], "content": response["content"]}
                    operation["responses"][str(status)] = refused
        return with_edge(document, (_CROWDED,))

    return openapi
